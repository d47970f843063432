/* The section `clients`: what an entry may say. Internal to the configuration. */
#ifndef KEYLESS_KEYSERVER_CONFIG_CLIENTS_H
#define KEYLESS_KEYSERVER_CONFIG_CLIENTS_H

#include "common/config_table.h"

extern const struct config_table KEYSERVER_CLIENTS_TABLE;

#endif
