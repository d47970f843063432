/*
 * Bytes both ways between a client's finished TLS connection and a backend's socket, with back pressure and
 * half close. It knows no events: its owner runs it when one of the events it wants has come, and asks again.
 *
 *      client ── SSL_read ──▶ up.buffer ──▶ send ── backend
 *      client ◀── SSL_write ── down.buffer ◀── recv ── backend
 *
 * A direction reads from its source only while it has nothing queued, so that a slow reader stops its writer,
 * and holds one buffer only while something is queued: an idle connection has none.
 *
 * The end of one direction is passed on while the other goes on: the client's close_notify becomes the
 * backend's end of file, the backend's end of file becomes close_notify. A client that ends its TCP
 * connection without close_notify, but not in the midst of a record, is taken at its word and counted
 * (relay_truncated). A backend's reset is never passed on as an end: the client must see that what it got is
 * not the whole.
 */
#ifndef KEYLESS_PROXY_RELAY_H
#define KEYLESS_PROXY_RELAY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "common/metrics.h"

/* ---- Buffers: one worker's, given out while data is queued; a few are kept for the next one. */

#define RELAY_BUFFER_SIZE 16384 /* one full TLS record */

struct relay_buffers;

struct relay_buffers *relay_buffers_new(size_t keep); /* NULL: no memory */
void relay_buffers_free(struct relay_buffers *buffers);
size_t relay_buffers_in_use(const struct relay_buffers *buffers);

/* ---- Relays. */

enum relay_outcome {
    RELAY_WAITING,       /* run again when an event that it wants has come */
    RELAY_FINISHED,      /* both sides have ended, and each was told of the other's end */
    RELAY_CLIENT_LOST,   /* the client reset the connection or takes nothing any more */
    RELAY_CLIENT_BROKEN, /* what the client sent is no TLS; an alert went out */
    RELAY_BACKEND_LOST,  /* the backend reset the connection */
    RELAY_NO_MEMORY,
};

struct relay;

/* Borrows all of it. client has done its handshake over a client_bio, is non-blocking and not in async mode;
 * backend is a connected non-blocking stream socket. NULL: no memory. */
struct relay *relay_new(struct relay_buffers *buffers, SSL *client, int backend, struct metrics_row *metrics);
void relay_free(struct relay *relay);

/* client and backend: which of EV_READ and EV_WRITE have come on each socket. To start: EV_READ on both,
 * since libssl may have read more than the handshake already. After an outcome that is an end, only
 * relay_free and the questions below are allowed. */
enum relay_outcome relay_run(struct relay *relay, short client, short backend);

/* Which of EV_READ and EV_WRITE it waits for. */
short relay_client_events(const struct relay *relay);
short relay_backend_events(const struct relay *relay);

/* Octets delivered to the other side so far. */
uint64_t relay_bytes_from_client(const struct relay *relay);
uint64_t relay_bytes_to_client(const struct relay *relay);
/* The backend has ended and the client was told; only the client's own end is awaited. */
bool relay_lingering(const struct relay *relay);
/* The client ended without close_notify. */
bool relay_truncated(const struct relay *relay);

#endif
