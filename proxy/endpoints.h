/*
 * Where key servers listen that are configured by name, for all processes of the proxy: in memory that they
 * share, made by the master before it forks anybody, and kept over reloads and dead processes. The helper
 * looks names up and writes the addresses here; workers follow.
 *
 * Whoever reads must not trust what it gets: a key server's certificate is verified whatever its address.
 */
#ifndef KEYLESS_PROXY_ENDPOINTS_H
#define KEYLESS_PROXY_ENDPOINTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"
#include "common/result.h"
#include "proxy/config.h"
#include "proxy/srv_answer.h"

#define ENDPOINTS_MAX 16 /* of one name */

struct endpoint {
    uint8_t ip[16]; /* in network order */
    uint16_t ip_size, port;
    uint16_t priority;
    uint16_t unused;
    uint32_t weight; /* beside others of its priority; not 0 */
};

struct endpoint_list {
    uint32_t count;
    struct endpoint list[ENDPOINTS_MAX];
};

/* ---- Pure. */

/* A host and what it was found at. */
struct endpoint_host {
    struct srv_target target;
    struct address found[ENDPOINTS_MAX];
    size_t count;
};

/* Of all hosts the first address, then of all the second, and so on, so that a list cut short has something
 * of each; none twice. Always the same from the same addresses, in whatever order they came. */
void endpoint_list_make(const struct endpoint_host *hosts, size_t count, struct endpoint_list *list);
/* False: that is no address. */
MUST_CHECK bool endpoint_address(const struct endpoint *endpoint, struct address *address);
/* How many priorities are before its own, in the first count of the list. */
unsigned endpoint_rank(const struct endpoint_list *list, size_t count, size_t index);
/* Its share of whole among those of its priority, in the first count of the list; at least 1. */
unsigned endpoint_share(const struct endpoint_list *list, size_t count, size_t index, unsigned whole);

/* ---- Shared. */

struct endpoints;

MUST_CHECK enum result endpoints_new(struct endpoints **endpoints, struct failure *why);
/* This process's view of it; NULL is allowed. */
void endpoints_free(struct endpoints *endpoints);

/* The master's, before it forks: where the key server's are. An earlier configuration's place may be given
 * away; whoever still reads there finds nothing any more. */
size_t endpoints_place(struct endpoints *endpoints, const struct proxy_key_server *server);

/* Another number: what is there has changed. 0: nothing ever was. */
uint64_t endpoints_version(const struct endpoints *endpoints, size_t place);
/* False: nothing of this key server, or nothing whole. */
MUST_CHECK bool endpoints_read(const struct endpoints *endpoints, size_t place,
                               const struct proxy_key_server *server, struct endpoint_list *list);
void endpoints_write(struct endpoints *endpoints, size_t place, const struct proxy_key_server *server,
                     const struct endpoint_list *list);

#endif
