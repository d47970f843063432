/*
 * One client of the key server, from accept to close: its channel, what it has in flight, and when it is read
 * from.
 *
 *   HANDSHAKE ──▶ SERVING ──▶ ENDING (answers what is in flight) ──▶ closed, freed
 *       └────────────┴──── failure, client turned away ───────────────▲
 *
 * Back pressure, never an error: a connection is not read from while it has too much in flight, in number or
 * in octets, or all of its client entry's together have; while it does not take its answers; or while it
 * holds more than its share and the whole process holds too much. All of this is decided in one function. Of
 * what is in flight, each cost class has no more with the signer than pace.h says; the others wait for their
 * turn.
 */
#ifndef KEYLESS_KEYSERVER_CONNECTION_H
#define KEYLESS_KEYSERVER_CONNECTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "common/address.h"
#include "common/channel.h"
#include "common/log.h"
#include "common/metrics.h"
#include "keyserver/address_load.h"
#include "keyserver/client_load.h"
#include "keyserver/config.h"
#include "keyserver/pace.h"
#include "keyserver/policy.h"
#include "keyserver/signer_client.h"

struct connection;

TAILQ_HEAD(connections_list, connection);

/* What all connections of a front end share. The front end's; it fills in what is above the line and frees
 * what it has made. */
struct connections {
    struct event_base *base;
    SSL_CTX *context;
    const struct keyserver_config *config;
    struct log *log;
    struct metrics_row *metrics;
    struct signer_client *signer;
    struct client_load *load;
    struct address_load *handshakes;
    const struct policy *policy; /* may be replaced between two events */
    size_t octets_max;           /* that all connections together may hold */
    void (*ended)(void *owner);  /* a connection has gone */
    void *owner;
    /* ---- */
    struct connections_list list;
    size_t count;
    size_t octets;        /* held by all: queued for sending, in flight */
    struct event *review; /* while too much is held */
    bool draining;
    struct pace pace;
    uint8_t *frame, *scratch; /* for writing one answer */
};

MUST_CHECK bool connections_init(struct connections *connections);
/* Closes all of them at once, and frees what connections_init made. */
void connections_clear(struct connections *connections);

/* Takes an accepted socket. */
void connections_accept(struct connections *connections, int fd, const struct address *peer);
/* No more requests are read; each connection is closed when it has been answered. */
void connections_drain(struct connections *connections);
/* The same, but for what is not signed yet: that is dropped, and each connection closed without it. */
void connections_cut(struct connections *connections);

#endif
