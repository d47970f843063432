/* One mapping of a configuration while it is read: finding settings in it, and refusing them by file, line
 * and path. Internal to the configuration; programs include common/config_table.h. */
#ifndef KEYLESS_COMMON_CONFIG_SCOPE_H
#define KEYLESS_COMMON_CONFIG_SCOPE_H

#include "common/config_table.h"
#include "common/config_yaml.h"

#define CONFIG_PATH_SHOWN 256 /* octets of a setting's path in an error */

struct config_scope {
    const struct config_source *source;
    yaml_document_t *document;
    const struct config_table *table;
    yaml_node_t *node;  /* the mapping; or a scalar: nothing, or a shorthand */
    const char *prefix; /* "key_servers[0]." */
};

struct config_position config_scope_position(const struct config_scope *scope, const yaml_node_t *node);

/* "FILE:LINE:COLUMN: path: got what the node is, expected ..."; path as in config_refuse, a dot at its end is
 * left out. */
enum result config_scope_refuse(const struct config_scope *scope, const yaml_node_t *node, const char *path,
                                const char *expected, struct failure *why);
/* The path from the file's root. Returns full. */
const char *config_scope_path(const struct config_scope *scope, const char *path,
                              char full[static CONFIG_PATH_SHOWN]);

/* A row's node, or NULL. Of a shorthand, also the scalar that stands in place of its mapping. */
yaml_node_t *config_scope_find(const struct config_scope *scope, const struct config_row *row);

/* Octets that two rows' paths have in common, up to and including a dot. */
size_t config_common_group(const char *a, const char *b);

/* Every key of the mapping and of the mappings in it is one setting of the table's, and stands there once. */
MUST_CHECK enum result config_keys_check(const struct config_scope *scope, struct failure *why);

#endif
