/* The section `key_servers`: what an entry may say. Internal to the configuration. */
#ifndef KEYLESS_PROXY_CONFIG_KEY_SERVERS_H
#define KEYLESS_PROXY_CONFIG_KEY_SERVERS_H

#include "common/config_table.h"

extern const struct config_table PROXY_KEY_SERVERS_TABLE;

#endif
