#include "common/config_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_scope.h"
#include "common/config_yaml.h"

#define NAME_MAX_SIZE 64   /* octets of a name in a mapping keyed by name */
#define NAMED_MAX     4096 /* names, as each is compared with all before it */

static enum result out_of_memory(const struct config_scope *scope, struct failure *why)
{
    return failure_set(why, RESULT_SYSTEM, "%s: out of memory", scope->source->file);
}

static void *member(void *object, size_t offset)
{
    return (uint8_t *)object + offset;
}

/* A list's elements, whose pointer stands at the row's offset. */
static uint8_t *list_get(const struct config_row *row, void *object)
{
    uint8_t *elements = NULL;
    memcpy(&elements, member(object, row->offset), sizeof elements);
    return elements;
}

static void list_set(const struct config_row *row, void *object, uint8_t *elements)
{
    memcpy(member(object, row->offset), &elements, sizeof elements);
}

static size_t *list_count(const struct config_row *row, void *object)
{
    return member(object, row->count_offset);
}

/* ---- Scalar values. */

/* Puts file, line and path before what a type or a check found wrong with text. */
static enum result refuse_value(const struct config_scope *scope, const yaml_node_t *node, const char *path,
                                const struct config_row *row, const struct failure *found,
                                struct failure *why)
{
    char expected[CONFIG_EXPECT_SIZE];
    if (found->text[0] == '\0') {
        config_expect(row, expected);
        return config_scope_refuse(scope, node, path, expected, why);
    }
    struct config_position where = config_scope_position(scope, node);
    char full[CONFIG_PATH_SHOWN];
    (void)config_failure(why, &where, config_scope_path(scope, path, full), "%s", found->text);
    if (why != NULL)
        why->kind = found->kind;
    return found->kind;
}

/* node is where the error is, if there is one: the value's, or for a default the mapping's. */
static enum result parse_text(const struct config_scope *scope, const struct config_row *row,
                              const yaml_node_t *node, const char *path, const char *text, void *value,
                              struct failure *why)
{
    struct failure found = {.kind = RESULT_CONFIG};
    enum result result = row->type->parse(row, scope->source, text, value, &found);
    if (result == RESULT_OK && row->check != NULL)
        result = row->check(row, value, &found);
    return result == RESULT_OK ? RESULT_OK : refuse_value(scope, node, path, row, &found, why);
}

static bool is_plain_text(const yaml_node_t *node)
{
    for (size_t i = 0; i < node->data.scalar.length; i++) {
        if (node->data.scalar.value[i] < 0x20 || node->data.scalar.value[i] == 0x7f)
            return false;
    }
    return true;
}

static enum result fill_value(const struct config_scope *scope, const struct config_row *row,
                              const yaml_node_t *node, const char *path, void *value, struct failure *why)
{
    char expected[CONFIG_EXPECT_SIZE];
    config_expect(row, expected);
    if (node->type != YAML_SCALAR_NODE || config_yaml_is_nothing(node))
        return config_scope_refuse(scope, node, path, expected, why);
    if (node->data.scalar.length > CONFIG_VALUE_MAX)
        return config_scope_refuse(scope, node, path, "at most 4096 octets", why);
    if (!is_plain_text(node))
        return config_scope_refuse(scope, node, path, "text without control characters", why);
    return parse_text(scope, row, node, path, (const char *)node->data.scalar.value, value, why);
}

/* Flags: words of a list gathered into one value. */
static enum result fill_gathered(const struct config_scope *scope, const struct config_row *row,
                                 yaml_node_t *node, void *value, struct failure *why)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return fill_value(scope, row, node, row->path, value, why);
    const yaml_node_t *item = NULL;
    for (size_t i = 0; (item = config_yaml_item(scope->document, node, i)) != NULL; i++) {
        char path[CONFIG_PATH_SHOWN];
        (void)snprintf(path, sizeof path, "%s[%zu]", row->path, i);
        enum result result = fill_value(scope, row, item, path, value, why);
        if (result != RESULT_OK)
            return result;
    }
    return RESULT_OK;
}

/* ---- Lists and mappings keyed by name. */

static enum result fill_object(const struct config_scope *scope, void *object, struct failure *why);

/* One element of a list: a value, or a mapping with a table of its own. The element is in the list, zeroed.
 */
static enum result fill_element(const struct config_scope *scope, const struct config_row *row,
                                yaml_node_t *node, const char *path, void *element, struct failure *why)
{
    if (row->table == NULL)
        return fill_value(scope, row, node, path, element, why);
    char full[CONFIG_PATH_SHOWN];
    char prefix[CONFIG_PATH_SHOWN + 1];
    (void)snprintf(prefix, sizeof prefix, "%s.", config_scope_path(scope, path, full));
    struct config_scope inner = {
        .source = scope->source,
        .document = scope->document,
        .table = row->table,
        .node = node,
        .prefix = prefix,
    };
    return fill_object(&inner, element, why);
}

static enum result list_allocate(const struct config_scope *scope, const struct config_row *row, size_t count,
                                 void *object, struct failure *why)
{
    if (count == 0)
        return RESULT_OK;
    uint8_t *elements = calloc(count, row->size);
    if (elements == NULL)
        return out_of_memory(scope, why);
    list_set(row, object, elements);
    return RESULT_OK;
}

static enum result refuse_list_size(const struct config_scope *scope, const struct config_row *row,
                                    const yaml_node_t *node, size_t count, size_t most, struct failure *why)
{
    struct config_position where = config_scope_position(scope, node);
    char full[CONFIG_PATH_SHOWN];
    config_scope_path(scope, row->path, full);
    if (count == 0)
        return config_failure(why, &where, full, "got nothing in it, expected at least one");
    return config_failure(why, &where, full, "got %zu, expected at most %zu", count, most);
}

static enum result fill_list(const struct config_scope *scope, const struct config_row *row,
                             yaml_node_t *node, void *object, struct failure *why)
{
    size_t count = 1;
    if (node->type == YAML_SEQUENCE_NODE)
        count = (size_t)(node->data.sequence.items.top - node->data.sequence.items.start);
    if ((count == 0 && row->required) || (row->most != 0 && count > row->most))
        return refuse_list_size(scope, row, node, count, row->most, why);
    enum result result = list_allocate(scope, row, count, object, why);
    for (size_t i = 0; result == RESULT_OK && i < count; i++) {
        char path[CONFIG_PATH_SHOWN];
        (void)snprintf(path, sizeof path, node->type == YAML_SEQUENCE_NODE ? "%s[%zu]" : "%s", row->path, i);
        *list_count(row, object) = i + 1;
        result = fill_element(scope, row, config_yaml_item(scope->document, node, i), path,
                              list_get(row, object) + i * row->size, why);
    }
    return result;
}

/* Letters, digits and a few marks: names stand in paths, logs and metrics. */
static bool is_name(const yaml_node_t *key)
{
    static const char ALLOWED[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    if (key->type != YAML_SCALAR_NODE || key->data.scalar.length == 0 ||
        key->data.scalar.length > NAME_MAX_SIZE)
        return false;
    const char *name = (const char *)key->data.scalar.value;
    return strspn(name, ALLOWED) == key->data.scalar.length;
}

static bool is_repeated(const struct config_scope *scope, const yaml_node_t *node,
                        const yaml_node_pair_t *pair)
{
    const yaml_node_t *key = yaml_document_get_node(scope->document, pair->key);
    for (const yaml_node_pair_t *first = node->data.mapping.pairs.start; first < pair; first++) {
        if (config_yaml_is(yaml_document_get_node(scope->document, first->key),
                           (const char *)key->data.scalar.value, key->data.scalar.length))
            return true;
    }
    return false;
}

static enum result fill_named_element(const struct config_scope *scope, const struct config_row *row,
                                      const yaml_node_t *node, const yaml_node_pair_t *pair, void *element,
                                      struct failure *why)
{
    const yaml_node_t *key = yaml_document_get_node(scope->document, pair->key);
    if (!is_name(key))
        return config_scope_refuse(scope, key, row->path,
                                   "a name of 1 to 64 letters, digits, hyphens and underscores", why);
    if (is_repeated(scope, node, pair))
        return config_scope_refuse(scope, key, row->path, "each name once", why);
    const char *text = (const char *)key->data.scalar.value;
    char *name = strdup(text);
    if (name == NULL)
        return out_of_memory(scope, why);
    memcpy(member(element, row->table->name_offset), &name, sizeof name);
    char path[CONFIG_PATH_SHOWN];
    (void)snprintf(path, sizeof path, "%s.%s", row->path, text);
    return fill_element(scope, row, yaml_document_get_node(scope->document, pair->value), path, element, why);
}

static enum result fill_named(const struct config_scope *scope, const struct config_row *row,
                              yaml_node_t *node, void *object, struct failure *why)
{
    char expected[CONFIG_EXPECT_SIZE];
    config_expect(row, expected);
    if (node->type != YAML_MAPPING_NODE)
        return config_scope_refuse(scope, node, row->path, expected, why);
    const yaml_node_pair_t *pairs = node->data.mapping.pairs.start;
    size_t count = (size_t)(node->data.mapping.pairs.top - pairs);
    size_t most = row->most != 0 ? row->most : NAMED_MAX;
    if ((count == 0 && row->required) || count > most)
        return refuse_list_size(scope, row, node, count, most, why);
    enum result result = list_allocate(scope, row, count, object, why);
    for (size_t i = 0; result == RESULT_OK && i < count; i++) {
        *list_count(row, object) = i + 1;
        result = fill_named_element(scope, row, node, &pairs[i], list_get(row, object) + i * row->size, why);
    }
    return result;
}

/* ---- Defaults. */

static enum result fill_missing(const struct config_scope *scope, const struct config_row *row,
                                struct failure *why)
{
    char expected[CONFIG_EXPECT_SIZE];
    config_expect(row, expected);
    return config_refuse(scope, why, row->path, "expected %s", expected);
}

/* A default's elements, or the words of gathered flags, between commas: "h2,http/1.1". */
static enum result fill_default_list(const struct config_scope *scope, const struct config_row *row,
                                     void *object, struct failure *why)
{
    char fallback[CONFIG_EXPECT_SIZE];
    (void)snprintf(fallback, sizeof fallback, "%s", row->fallback);
    size_t most = 1;
    for (const char *comma = fallback; (comma = strchr(comma, ',')) != NULL; comma++)
        most++;
    enum result result = row->list ? list_allocate(scope, row, most, object, why) : RESULT_OK;
    char *rest = NULL;
    for (char *text = strtok_r(fallback, ",", &rest); text != NULL && result == RESULT_OK;
         text = strtok_r(NULL, ",", &rest)) {
        void *value = member(object, row->offset);
        if (row->list)
            value = list_get(row, object) + (*list_count(row, object))++ * row->size;
        result = parse_text(scope, row, scope->node, row->path, text, value, why);
    }
    return result;
}

static enum result fill_default(const struct config_scope *scope, const struct config_row *row, void *object,
                                struct failure *why)
{
    if (row->required)
        return fill_missing(scope, row, why);
    if (row->fallback == NULL)
        return RESULT_OK;
    if (row->list || row->type->gathers)
        return fill_default_list(scope, row, object, why);
    return parse_text(scope, row, scope->node, row->path, row->fallback, member(object, row->offset), why);
}

/* ---- A whole mapping. */

static enum result fill_row(const struct config_scope *scope, const struct config_row *row, void *object,
                            struct failure *why)
{
    yaml_node_t *node = config_scope_find(scope, row);
    if (node == NULL)
        return fill_default(scope, row, object, why);
    if (row->table != NULL && row->table->named)
        return fill_named(scope, row, node, object, why);
    if (row->list)
        return fill_list(scope, row, node, object, why);
    if (row->type->gathers)
        return fill_gathered(scope, row, node, member(object, row->offset), why);
    return fill_value(scope, row, node, row->path, member(object, row->offset), why);
}

static enum result fill_object(const struct config_scope *scope, void *object, struct failure *why)
{
    const struct config_table *table = scope->table;
    if (table->positioned) {
        struct config_position where = config_scope_position(scope, scope->node);
        memcpy(member(object, table->position_offset), &where, sizeof where);
    }
    enum result result = config_keys_check(scope, why);
    for (size_t i = 0; result == RESULT_OK && i < table->row_count; i++)
        result = fill_row(scope, &table->rows[i], object, why);
    if (result == RESULT_OK && table->check != NULL)
        result = table->check(scope, object, why);
    return result;
}

/* The name is copied first: positions borrow it. */
static enum result fill_root(const struct config_table *table, const struct config_source *source,
                             yaml_document_t *document, void *object, struct failure *why)
{
    struct config_source kept = *source;
    if (table->filed) {
        char *file = strdup(source->file);
        if (file == NULL)
            return failure_set(why, RESULT_SYSTEM, "%s: out of memory", source->file);
        memcpy(member(object, table->file_offset), &file, sizeof file);
        kept.file = file;
    }
    struct config_scope scope = {
        .source = &kept,
        .document = document,
        .table = table,
        .node = yaml_document_get_root_node(document),
        .prefix = "",
    };
    return fill_object(&scope, object, why);
}

enum result config_parse(const struct config_table *table, const struct config_source *source, void **object,
                         struct failure *why)
{
    yaml_document_t document = {0};
    *object = NULL;
    enum result result = config_yaml_load(source->file, source->text, &document, why);
    if (result != RESULT_OK)
        return result;
    void *made = calloc(1, table->size);
    if (made != NULL)
        result = fill_root(table, source, &document, made, why);
    else
        result = failure_set(why, RESULT_SYSTEM, "%s: out of memory", source->file);
    yaml_document_delete(&document);
    if (result == RESULT_OK)
        *object = made;
    else
        config_free(table, made);
    return result;
}

/* ---- Freeing. */

static void clear_object(const struct config_table *table, void *object);

static void clear_text(void *object, size_t offset)
{
    char *text = NULL;
    memcpy(&text, member(object, offset), sizeof text);
    free(text);
}

static void clear_value(const struct config_row *row, void *value)
{
    if (row->table != NULL)
        clear_object(row->table, value);
    else if (row->type->release != NULL)
        row->type->release(value);
}

static void clear_list(const struct config_row *row, void *object)
{
    uint8_t *elements = list_get(row, object);
    for (size_t i = 0; i < *list_count(row, object); i++)
        clear_value(row, elements + i * row->size);
    free(elements);
}

static void clear_object(const struct config_table *table, void *object)
{
    for (size_t i = 0; i < table->row_count; i++) {
        const struct config_row *row = &table->rows[i];
        if (row->list)
            clear_list(row, object);
        else
            clear_value(row, member(object, row->offset));
    }
    if (table->named)
        clear_text(object, table->name_offset);
    if (table->filed)
        clear_text(object, table->file_offset);
}

void config_free(const struct config_table *table, void *object)
{
    if (object == NULL)
        return;
    clear_object(table, object);
    free(object);
}
