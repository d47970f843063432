/*
 * Accepts connections on the listening sockets that the master has given to this process. Accepting pauses
 * while there is no room, and for a moment when descriptors run out: that is a state, not an error, and costs
 * no CPU.
 */
#ifndef KEYLESS_KEYSERVER_ACCEPTOR_H
#define KEYLESS_KEYSERVER_ACCEPTOR_H

#include <stdbool.h>
#include <stddef.h>

#include "common/address.h"
#include "common/metrics.h"
#include "common/process.h"

struct acceptor;

struct acceptor_handler {
    /* Whether there is room for one more. */
    bool (*room)(void *owner);
    /* A connection; fd is the callee's. */
    void (*accepted)(int fd, const struct address *peer, void *owner);
};

/* Ids of two counters of pauses. */
struct acceptor_metrics {
    size_t no_room, no_descriptors;
};

/* Everything is borrowed. NULL: no memory. */
struct acceptor *acceptor_new(struct child *child, const struct acceptor_metrics *metrics,
                              const struct acceptor_handler *handler, void *owner);
void acceptor_free(struct acceptor *acceptor);

/* As in child_handler. */
void acceptor_listen(struct acceptor *acceptor, const size_t *sockets, size_t count);
void acceptor_retire(struct acceptor *acceptor, size_t socket);
/* There may be room again. */
void acceptor_resume(struct acceptor *acceptor);

#endif
