/*
 * Where the bytes go: a worker's backends, each with servers that are taken in turn, over TCP, over Unix
 * sockets, or builtin:hello. It starts connections; its caller waits for them, and asks for the next server
 * when one fails.
 */
#ifndef KEYLESS_PROXY_BACKEND_H
#define KEYLESS_PROXY_BACKEND_H

#include <stdbool.h>
#include <stddef.h>

#include "common/address.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"
#include "proxy/builtin_hello.h"
#include "proxy/config.h"
#include "proxy/handshake.h"

struct backends;
struct backend;

/* Borrows all of it. NULL: no memory. */
struct backends *backends_new(const struct proxy_config *config, struct builtin_hello *hello, struct log *log,
                              struct metrics_row *metrics);
void backends_free(struct backends *backends);

/* NULL: there is none of this name. */
struct backend *backends_find(struct backends *backends, const char *name);

uint64_t backend_connect_timeout(const struct backend *backend);
/* Some server of it speaks HTTP/1.1 alone: h2 must not be negotiated. */
bool backend_only_http11(const struct backend *backend);

/* One client's way through the servers: plain values, the caller's. */
struct backend_attempt {
    struct backend *backend;
    const struct address *client;
    const struct handshake_facts *facts; /* for builtin:hello; borrowed until the last backend_next */
    size_t first, tried;
    const struct proxy_backend_server *server; /* the last one tried */
    uint64_t began;                            /* with that one */
};

struct backend_attempt backend_attempt_start(struct backend *backend, const struct address *client,
                                             const struct handshake_facts *facts);

/* Starts to connect to the next server: wait for writability, then ask backend_connected. RESULT_PEER: all
 * have failed; a line in the log said for each of them why, and now that none is left. */
MUST_CHECK enum result backend_next(struct backend_attempt *attempt, int *fd);
/* Whether the connection came about. If not, a line says why: close fd and try the next. */
bool backend_connected(const struct backend_attempt *attempt, int fd);
/* Fields of a log line; left out where no server was tried. */
struct log_field backend_name_field(const struct backend_attempt *attempt);
struct log_field backend_server_field(const struct backend_attempt *attempt);
/* The connection did not come about in time: says so in a line, as backend_connected does. */
void backend_timed_out(const struct backend_attempt *attempt);

#endif
