/*
 * Accepting clients: which of the worker's listening sockets is the master's to say, when to pause is decided
 * here. Without a descriptor for the next client and its backend, or at the worker's share of
 * limits.connections, no socket is watched at all: clients wait in the kernel's queue (of a Unix socket, for
 * any worker), and the CPU is idle. It goes on when a connection has ended, and looks again every 100 ms when
 * it was descriptors that ran out, since those of the whole machine may have.
 */
#ifndef KEYLESS_PROXY_LISTENER_H
#define KEYLESS_PROXY_LISTENER_H

#include <stddef.h>

#include "common/process.h"
#include "proxy/config.h"
#include "proxy/connection.h"
#include "proxy/redirect.h"

struct listener_set;

/* Borrows all of it. NULL: no memory. */
struct listener_set *listener_set_new(struct child *child, const struct proxy_config *config,
                                      struct connections *connections, struct redirects *redirects);
void listener_set_free(struct listener_set *set);

/* Accept on exactly these sockets: child_handler.listen. */
void listener_set_listen(struct listener_set *set, const size_t *sockets, size_t count);
/* Accept what is queued on this one, then leave it alone: child_handler.retire. */
void listener_set_retire(struct listener_set *set, size_t socket);
/* A connection has ended. */
void listener_set_room(struct listener_set *set);

#endif
