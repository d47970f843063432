#include "common/config_scope.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define KEY_COMPARED 64  /* octets of a key that are worth comparing */
#define NAMES_SIZE   320 /* of a list of settings in an error */
#define HINT_SIZE    (NAMES_SIZE + 32)

/* Levenshtein's distance, of what is short enough to be a misspelt setting. */
static size_t distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t row[KEY_COMPARED + 1];
    if (a_size > KEY_COMPARED || b_size > KEY_COMPARED)
        return SIZE_MAX;
    for (size_t j = 0; j <= b_size; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            size_t changed = diagonal + (a[i - 1] != b[j - 1]);
            size_t shorter = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = changed < shorter ? changed : shorter;
        }
    }
    return row[b_size];
}

/* The setting's name in this group ("" or "limits."), if the row is in it: *size octets up to the next dot.
 */
static const char *name_in_group(const struct config_row *row, const char *group, size_t *size)
{
    size_t skip = strlen(group);
    if (strncmp(row->path, group, skip) != 0)
        return NULL;
    *size = strcspn(row->path + skip, ".");
    return row->path + skip;
}

/* The known name in the group that is nearest to key, if it is near enough to be meant. */
static const char *nearest_name(const struct config_table *table, const char *group, const yaml_node_t *key,
                                size_t *found_size)
{
    const char *found = NULL;
    size_t best = key->data.scalar.length / 3 + 1;
    for (size_t i = 0; i < table->row_count; i++) {
        size_t size = 0;
        const char *name = name_in_group(&table->rows[i], group, &size);
        if (name == NULL)
            continue;
        size_t far = distance((const char *)key->data.scalar.value, key->data.scalar.length, name, size);
        if (far <= best && (found == NULL || far < best)) {
            best = far;
            found = name;
            *found_size = size;
        }
    }
    return found;
}

/* "a, b, c": every name in the group, each once (rows of a group stand together). */
static void list_names(const struct config_table *table, const char *group, char names[static NAMES_SIZE])
{
    const char *last = "";
    size_t last_size = 0;
    size_t used = 0;
    names[0] = '\0';
    for (size_t i = 0; i < table->row_count && used < NAMES_SIZE; i++) {
        size_t size = 0;
        const char *name = name_in_group(&table->rows[i], group, &size);
        if (name == NULL || (size == last_size && strncmp(name, last, size) == 0))
            continue;
        used += (size_t)snprintf(names + used, NAMES_SIZE - used, "%s%.*s", used > 0 ? ", " : "", (int)size,
                                 name);
        last = name;
        last_size = size;
    }
}

/* The path of a setting by that name in another mapping: the second thing that people get wrong. */
static const char *path_elsewhere(const struct config_table *table, const yaml_node_t *key)
{
    for (size_t i = 0; i < table->row_count; i++) {
        const char *dot = strrchr(table->rows[i].path, '.');
        const char *name = dot != NULL ? dot + 1 : table->rows[i].path;
        if (config_yaml_is(key, name, strlen(name)))
            return table->rows[i].path;
    }
    return NULL;
}

/* What may have been meant by an unknown key. */
static void write_hint(const struct config_table *table, const char *group, const yaml_node_t *key,
                       char hint[static HINT_SIZE])
{
    size_t size = 0;
    const char *near = nearest_name(table, group, key, &size);
    const char *elsewhere = path_elsewhere(table, key);
    char names[NAMES_SIZE];
    if (near != NULL) {
        (void)snprintf(hint, HINT_SIZE, "; did you mean \"%.*s\"?", (int)size, near);
    } else if (elsewhere != NULL) {
        (void)snprintf(hint, HINT_SIZE, "; did you mean \"%s\"?", elsewhere);
    } else {
        list_names(table, group, names);
        (void)snprintf(hint, HINT_SIZE, ", expected one of %s", names);
    }
}

static enum result refuse_unknown(const struct config_scope *scope, const char *group, const yaml_node_t *key,
                                  struct failure *why)
{
    struct config_position where = config_scope_position(scope, key);
    char shown[CONFIG_VALUE_SHOWN];
    char hint[HINT_SIZE];
    char path[CONFIG_PATH_SHOWN];
    write_hint(scope->table, group, key, hint);
    return config_failure(why, &where, config_scope_path(scope, group, path), "unknown setting %s%s",
                          config_yaml_show(key, shown), hint);
}

static enum result refuse_repeated(const struct config_scope *scope, const char *group,
                                   const yaml_node_t *key, const yaml_node_t *first, struct failure *why)
{
    struct config_position where = config_scope_position(scope, key);
    char path[CONFIG_PATH_SHOWN];
    char full[CONFIG_PATH_SHOWN];
    char shown[CONFIG_VALUE_SHOWN];
    (void)snprintf(path, sizeof path, "%s%.*s", group, (int)key->data.scalar.length,
                   (const char *)key->data.scalar.value);
    return config_failure(why, &where, config_scope_path(scope, path, full),
                          "got %s a second time, the first is in line %zu", config_yaml_show(key, shown),
                          first->start_mark.line + 1);
}

static enum result check_group(const struct config_scope *scope, const char *group, yaml_node_t *node,
                               struct failure *why);

/* A key must be a setting of the group, or a group within it. */
static enum result check_key(const struct config_scope *scope, const char *group,
                             const yaml_node_pair_t *pair, struct failure *why)
{
    const yaml_node_t *key = yaml_document_get_node(scope->document, pair->key);
    for (size_t i = 0; i < scope->table->row_count; i++) {
        size_t size = 0;
        const char *name = name_in_group(&scope->table->rows[i], group, &size);
        if (name == NULL || !config_yaml_is(key, name, size))
            continue;
        if (name[size] == '\0')
            return RESULT_OK;
        char inner[CONFIG_PATH_SHOWN];
        (void)snprintf(inner, sizeof inner, "%s%.*s.", group, (int)size, name);
        return check_group(scope, inner, yaml_document_get_node(scope->document, pair->value), why);
    }
    return refuse_unknown(scope, group, key, why);
}

/* Each key once. Stops at the first unknown one, so there are never more keys to compare than rows. */
static enum result check_keys(const struct config_scope *scope, const char *group, const yaml_node_t *node,
                              struct failure *why)
{
    const yaml_node_pair_t *start = node->data.mapping.pairs.start;
    for (const yaml_node_pair_t *pair = start; pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(scope->document, pair->key);
        if (key->type != YAML_SCALAR_NODE)
            return config_scope_refuse(scope, key, group, "a setting's name", why);
        for (const yaml_node_pair_t *first = start; first < pair; first++) {
            const yaml_node_t *earlier = yaml_document_get_node(scope->document, first->key);
            if (config_yaml_is(earlier, (const char *)key->data.scalar.value, key->data.scalar.length))
                return refuse_repeated(scope, group, key, earlier, why);
        }
        enum result result = check_key(scope, group, pair, why);
        if (result != RESULT_OK)
            return result;
    }
    return RESULT_OK;
}

/* The row whose scalar may stand in place of the group's mapping. */
static const struct config_row *find_shorthand(const struct config_table *table, const char *group)
{
    for (size_t i = 0; i < table->row_count; i++) {
        size_t size = 0;
        const char *name = name_in_group(&table->rows[i], group, &size);
        if (name != NULL && name[size] == '\0' && table->rows[i].shorthand)
            return &table->rows[i];
    }
    return NULL;
}

/* A mapping of known settings; a mapping with nothing in it ("limits:") leaves all at their defaults. */
static enum result check_group(const struct config_scope *scope, const char *group, yaml_node_t *node,
                               struct failure *why)
{
    const struct config_row *shorthand = find_shorthand(scope->table, group);
    if (node->type == YAML_MAPPING_NODE)
        return check_keys(scope, group, node, why);
    if (config_yaml_is_nothing(node) || (node->type == YAML_SCALAR_NODE && shorthand != NULL))
        return RESULT_OK;
    char expected[CONFIG_EXPECT_SIZE + 64] = "";
    char value[CONFIG_EXPECT_SIZE];
    if (shorthand != NULL) {
        config_expect(shorthand, value);
        (void)snprintf(expected, sizeof expected, "%s, or ", value);
    }
    size_t used = strlen(expected);
    (void)snprintf(expected + used, sizeof expected - used, "a mapping of settings");
    return config_scope_refuse(scope, node, group, expected, why);
}

enum result config_keys_check(const struct config_scope *scope, struct failure *why)
{
    return check_group(scope, "", scope->node, why);
}
