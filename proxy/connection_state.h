/*
 * What the files of the connection share:
 *
 *   connection.c      its states, what it waits for, how it goes on
 *   connection_end.c  its one way out, and what is counted and logged there
 */
#ifndef KEYLESS_PROXY_CONNECTION_STATE_H
#define KEYLESS_PROXY_CONNECTION_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <event2/event_struct.h>
#include <openssl/ssl.h>

#include "proxy/access_log.h"
#include "proxy/connection.h"
#include "proxy/relay.h"
#include "proxy/watch.h"

enum connection_state { HANDSHAKE, CONNECTING, RELAY, CLOSING };

struct connection {
    struct connections *all;
    LIST_ENTRY(connection) link;

    enum connection_state state;
    enum handshake_state handshaking; /* in HANDSHAKE */
    uint64_t started;                 /* accepted */
    uint64_t since;                   /* in this state, or at this server */
    uint64_t active;                  /* in RELAY: when bytes were last delivered */

    struct address address;
    int fd, backend_fd;
    struct watch client, backend;
    struct event timer;
    uint64_t timer_at; /* 0: not set */

    struct handshake *handshake; /* until RELAY */
    SSL *ssl;                    /* from CONNECTING on */
    struct backend_attempt attempt;
    struct relay *relay;

    const struct proxy_listen *listen;
    struct access_handshake *kept; /* of the handshake, for the access log. NULL: that is off */
};

struct connections {
    struct connections_settings settings;
    struct relay_buffers *buffers;
    LIST_HEAD(, connection) list;
    unsigned count;
};

/* ---- connection.c */

/* Sets events and timer to what its state asks for. */
void connection_wait(struct connection *connection);

/* ---- connection_end.c */

enum reason {
    REASON_FINISHED,
    REASON_LINGERED, /* the backend has ended, the client never did */
    REASON_HANDSHAKE_FAILED,
    REASON_NO_BACKEND,
    REASON_CLIENT_LOST,
    REASON_CLIENT_BROKEN,
    REASON_BACKEND_LOST,
    REASON_IDLE,
    REASON_INTERNAL,
    REASON_DROPPED, /* by connection_drop alone */
};

/* The one way out, from any state. The connection is gone afterwards, or CLOSING. */
void connection_end(struct connection *connection, enum reason reason);
/* Keeps what the access log will tell of the handshake, which has ended. */
void connection_keep_handshake(struct connection *connection);
/* The handshake has done its work. */
void connection_release_handshake(struct connection *connection);
void connection_close_backend(struct connection *connection, bool reset);
/* Out of CLOSING. */
void connection_end_closing(struct connection *connection);
/* One line for a handshake that has failed. */
void connection_log_handshake(const struct connection *connection);
/* At once, from any state, as all end when the worker does. */
void connection_drop(struct connection *connection);

#endif
