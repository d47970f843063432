#include "common/config_scope.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Errors. */

enum result config_unexpected(struct failure *why)
{
    return failure_set(why, RESULT_CONFIG, "%s", "");
}

enum result config_failure(struct failure *why, const struct config_position *where, const char *key,
                           const char *format, ...)
{
    char text[FAILURE_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const char *file = where->file != NULL ? where->file : "configuration";
    const char *colon = key[0] != '\0' ? ": " : "";
    if (where->line == 0)
        return failure_set(why, RESULT_CONFIG, "%s: %s%s%s", file, key, colon, text);
    return failure_set(why, RESULT_CONFIG, "%s:%u:%u: %s%s%s", file, where->line, where->column, key, colon,
                       text);
}

struct config_position config_scope_position(const struct config_scope *scope, const yaml_node_t *node)
{
    struct config_position where = {.file = scope->source->file};
    if (node != NULL) {
        where.line = (unsigned)node->start_mark.line + 1;
        where.column = (unsigned)node->start_mark.column + 1;
    }
    return where;
}

const char *config_scope_path(const struct config_scope *scope, const char *path,
                              char full[static CONFIG_PATH_SHOWN])
{
    (void)snprintf(full, CONFIG_PATH_SHOWN, "%s%s", scope->prefix, path);
    size_t size = strlen(full);
    if (size > 0 && full[size - 1] == '.')
        full[size - 1] = '\0';
    return full;
}

/* "FILE:LINE:COLUMN: path: got what the node is, expected ..." */
enum result config_scope_refuse(const struct config_scope *scope, const yaml_node_t *node, const char *path,
                                const char *expected, struct failure *why)
{
    struct config_position where = config_scope_position(scope, node);
    char full[CONFIG_PATH_SHOWN];
    char shown[CONFIG_VALUE_SHOWN];
    return config_failure(why, &where, config_scope_path(scope, path, full), "got %s, expected %s",
                          config_yaml_show(node, shown), expected);
}

/* ---- Finding settings. */

size_t config_common_group(const char *a, const char *b)
{
    size_t group = 0;
    for (size_t i = 0; a[i] != '\0' && a[i] == b[i]; i++) {
        if (a[i] == '.')
            group = i + 1;
    }
    return group;
}

/* Takes "[12]" from the front of *path. */
static yaml_node_t *find_item(const struct config_scope *scope, yaml_node_t *node, const char **path)
{
    char *end = NULL;
    unsigned long index = strtoul(*path + 1, &end, 10);
    *path = *end == ']' ? end + 1 : end;
    return config_yaml_item(scope->document, node, index);
}

/* The node at a path from this mapping; NULL if it is not given. *nearest is the last node on the way. */
static yaml_node_t *find_path(const struct config_scope *scope, const char *path, yaml_node_t **nearest)
{
    yaml_node_t *node = scope->node;
    while (*path != '\0' && node != NULL) {
        *nearest = node;
        if (*path == '.')
            path++;
        if (*path == '[') {
            node = find_item(scope, node, &path);
            continue;
        }
        size_t size = strcspn(path, ".[");
        node = config_yaml_find(scope->document, node, path, size);
        path += size;
    }
    return node;
}

/* A row's node. Of a shorthand, also the scalar that stands in place of its mapping. */
yaml_node_t *config_scope_find(const struct config_scope *scope, const struct config_row *row)
{
    yaml_node_t *nearest = scope->node;
    yaml_node_t *node = find_path(scope, row->path, &nearest);
    if (node != NULL || !row->shorthand)
        return node;
    const char *dot = strrchr(row->path, '.');
    char group[CONFIG_PATH_SHOWN] = "";
    (void)snprintf(group, sizeof group, "%.*s", dot != NULL ? (int)(dot - row->path) : 0, row->path);
    node = find_path(scope, group, &nearest);
    return node != NULL && node->type == YAML_SCALAR_NODE && !config_yaml_is_nothing(node) ? node : NULL;
}

bool config_given(const struct config_scope *scope, const char *path)
{
    yaml_node_t *nearest = scope->node;
    return find_path(scope, path, &nearest) != NULL;
}

const char *config_given_text(const struct config_scope *scope, const char *path)
{
    yaml_node_t *nearest = scope->node;
    const yaml_node_t *node = find_path(scope, path, &nearest);
    return node != NULL && node->type == YAML_SCALAR_NODE ? (const char *)node->data.scalar.value : NULL;
}

enum result config_refuse(const struct config_scope *scope, struct failure *why, const char *path,
                          const char *format, ...)
{
    char text[FAILURE_TEXT_SIZE];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);

    yaml_node_t *nearest = scope->node;
    const yaml_node_t *node = find_path(scope, path, &nearest);
    struct config_position where = config_scope_position(scope, node != NULL ? node : nearest);
    char full[CONFIG_PATH_SHOWN];
    char shown[CONFIG_VALUE_SHOWN];
    config_scope_path(scope, path, full);
    if (node == NULL)
        return config_failure(why, &where, full, "missing, %s", text);
    return config_failure(why, &where, full, "got %s, %s", config_yaml_show(node, shown), text);
}
