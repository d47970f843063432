/*
 * A client's life in a worker, and the set of all that live.
 *
 *   connection_accept
 *         │
 *         ▼            done              connected
 *     HANDSHAKE ───────────────▶ CONNECTING ──────────▶ RELAY
 *         │                       │      ▲ │              │
 *         │                       └──────┘ │              │
 *         │                      next server              │
 *         └────────────── one end, with a reason ─────────┘
 *                                 │      │
 *      an alert or the last bytes │      │ nothing more to say, or nobody to say it to
 *        are still on their way   ▼      ▼
 *                              CLOSING ─▶ (closed, freed)
 *
 * What it waits for and until when is computed from its state, in one function each; it ends in one function,
 * with a reason, from any state. CLOSING reads and drops what the client still sends until it closes too:
 * closing a socket with bytes unread would make the kernel reset it, and take the alert back.
 */
#ifndef KEYLESS_PROXY_CONNECTION_H
#define KEYLESS_PROXY_CONNECTION_H

#include <event2/event.h>

#include "common/address.h"
#include "common/log.h"
#include "common/metrics.h"
#include "proxy/access_log.h"
#include "proxy/backend.h"
#include "proxy/config.h"
#include "proxy/handshake.h"

/* All connections of a worker. */
struct connections;

/* What they need; all of it borrowed. */
struct connections_settings {
    struct event_base *base;
    const struct proxy_config *config;
    struct handshake_context *handshakes;
    struct backends *backends;
    struct log *log;
    struct access_log *access; /* NULL: off */
    struct metrics_row *metrics;
    void (*ended)(void *owner); /* one has ended, and its descriptors are closed */
    void *owner;
};

struct connections *connections_new(const struct connections_settings *settings); /* NULL: no memory */
/* Ends them all at once, without a call to ended. */
void connections_free(struct connections *connections);

unsigned connections_count(const struct connections *connections);
/* What one takes at most: the client's, and the backend's, of which builtin:hello has two. */
#define CONNECTION_DESCRIPTORS 3

/* Takes the socket. */
void connection_accept(struct connections *connections, int fd, const struct address *client,
                       const struct proxy_listen *listen);

#endif
