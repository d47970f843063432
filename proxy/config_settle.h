/* What in proxy.yaml concerns several settings: defaults that follow from others, and what must fit together.
 * Internal to the configuration. */
#ifndef KEYLESS_PROXY_CONFIG_SETTLE_H
#define KEYLESS_PROXY_CONFIG_SETTLE_H

#include "common/config_table.h"

/* Each is a table's `check`: of an entry of key_servers, and of the whole file. */
enum result proxy_config_settle_key_server(const struct config_scope *scope, void *object,
                                           struct failure *why);
/* A row's `check`: the name of SRV records. */
enum result proxy_config_check_srv(const struct config_row *row, const void *value, struct failure *why);
struct proxy_config;
/* That there is a backend of this name; path is where it is named. NULL: none is. */
enum result proxy_config_check_backend(const struct config_scope *scope, const struct proxy_config *config,
                                       const char *path, const char *name, struct failure *why);
enum result proxy_config_settle(const struct config_scope *scope, void *object, struct failure *why);

#endif
