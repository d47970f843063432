/*
 * What the connections of each client entry hold together, and whether that is as much as the entry may:
 * `connections`, of all front ends together, and `in_flight`, of which each front end has its share.
 *
 * Connections are counted in memory that all front ends of a generation share: each writes its own counts and
 * adds up everybody's. So one that was taken over can have others refuse connections, and no more; and one
 * that dies holds what it had until it is replaced. A generation that drains is not counted with its
 * successor.
 */
#ifndef KEYLESS_KEYSERVER_CLIENT_LOAD_H
#define KEYLESS_KEYSERVER_CLIENT_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/result.h"
#include "keyserver/config.h"

/* Made by the master for a configuration, before its front ends are forked. */
struct client_load_area;
MUST_CHECK enum result client_load_area_new(const struct keyserver_config *config,
                                            struct client_load_area **area, struct failure *why);
/* This process's view; NULL is allowed. */
void client_load_area_free(struct client_load_area *area);

/* A front end's. Entries are numbered as in the configuration. */
struct client_load;

/* Of front end number index of config->workers, which has no connections yet; config and area are borrowed.
 * NULL: no memory. */
struct client_load *client_load_new(const struct keyserver_config *config, struct client_load_area *area,
                                    unsigned index);
void client_load_free(struct client_load *load);
/* Another process is about to have this one's place in the area. */
void client_load_leave_area(struct client_load *load);

/* One connection more; false: the entry has as many as it may, and this one is not counted. */
MUST_CHECK bool client_load_enter(struct client_load *load, size_t entry);
void client_load_leave(struct client_load *load, size_t entry);
/* Those of this front end. */
uint32_t client_load_connections(const struct client_load *load, size_t entry);

/* One request more. True: with it the entry is full, and was not. */
bool client_load_ask(struct client_load *load, size_t entry);
/* One is answered, or forgotten. True: the entry was full and no longer is. */
bool client_load_answer(struct client_load *load, size_t entry);
/* Nothing more should be read from its connections. That it is over only when a good part of its requests has
 * been answered saves looking at them all for each. */
bool client_load_full(const struct client_load *load, size_t entry);

/* What number index of `count` processes has of what all may have; the shares add up to it, but each is one
 * at least. */
size_t client_load_share(size_t all, unsigned index, unsigned count);

#endif
