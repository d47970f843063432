/* The section `backends`: what one may say. Internal to the configuration. */
#ifndef KEYLESS_PROXY_CONFIG_BACKENDS_H
#define KEYLESS_PROXY_CONFIG_BACKENDS_H

#include "common/config_table.h"

extern const struct config_table PROXY_BACKENDS_TABLE;

#endif
