/* The sections `certificates` and `sites`: what is in them, and which site a name belongs to. Internal to the
 * configuration; proxy_config_site is in config.h. */
#ifndef KEYLESS_PROXY_CONFIG_SITES_H
#define KEYLESS_PROXY_CONFIG_SITES_H

#include "common/config_table.h"
#include "proxy/config.h"

extern const struct config_table PROXY_CERTIFICATES_TABLE;
extern const struct config_table PROXY_SITES_TABLE;

/* Gives each site what it takes from the rest of the file, and indexes the sites by name: what is indexed is
 * freed by proxy_config_free alone, so this comes last. RESULT_CONFIG: a name in two sites, no backend of
 * that name, no certificates at all. */
MUST_CHECK enum result proxy_config_settle_sites(const struct config_scope *scope,
                                                 struct proxy_config *config, struct failure *why);

#endif
