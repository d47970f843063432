/* What config_table knows of YAML: bytes to a checked libyaml document, and looking at its nodes. Internal to
 * the configuration; programs include common/config_table.h. */
#ifndef KEYLESS_COMMON_CONFIG_YAML_H
#define KEYLESS_COMMON_CONFIG_YAML_H

#include <stdbool.h>
#include <stddef.h>

#include <yaml.h>

#include "common/bytes.h"
#include "common/result.h"

#define CONFIG_FILE_MAX    (4u << 20) /* octets */
#define CONFIG_NODES_MAX   100000u
#define CONFIG_DEPTH_MAX   16u
#define CONFIG_VALUE_MAX   4096u /* octets of one value */
#define CONFIG_VALUE_SHOWN 160   /* buffer for a value in an error */

/*
 * Exactly one document without anchors, aliases and tags, within the bounds above. The caller frees it with
 * yaml_document_delete, unless this failed. RESULT_CONFIG: why names file, line and column.
 */
MUST_CHECK enum result config_yaml_load(const char *file, struct bytes text, yaml_document_t *document,
                                        struct failure *why);

/* The value of a key, or NULL; node may be anything, also NULL. The first one, if there are several. */
yaml_node_t *config_yaml_find(yaml_document_t *document, yaml_node_t *node, const char *key, size_t key_size);
/* Item of a sequence; of another node, itself for index 0. NULL if there is none. */
yaml_node_t *config_yaml_item(yaml_document_t *document, yaml_node_t *node, size_t index);

/* A scalar that is exactly this text. */
bool config_yaml_is(const yaml_node_t *node, const char *text, size_t size);
/* `key:` with nothing behind it. */
bool config_yaml_is_nothing(const yaml_node_t *node);
/* A node as an error shows it: "text" (escaped, cut), a list, a mapping, nothing. Returns shown. */
const char *config_yaml_show(const yaml_node_t *node, char shown[static CONFIG_VALUE_SHOWN]);

#endif
