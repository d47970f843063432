/*
 * The admin endpoint: HTTP/1.1 for operators and their tools.
 *
 *     GET /metrics   the counters of all processes, in Prometheus's text format
 *     GET /healthz   200 "ok": this process answers
 *     GET /readyz    200 "ready", or 503 and what is missing
 *     GET /status    JSON
 *
 * HEAD is answered like GET, without the body. Any other method is 405, any other path 404; a query is
 * ignored. A connection is closed after one answer. Everything is bounded: a request's head has at most 4 kB;
 * a connection ends 10 s after it began, however slow its client is; at 128 of them, the oldest is closed for
 * a new one, as soon as it has had a quarter of a second. When descriptors run out, accepting pauses for a
 * second at a time. Nothing here changes anything, and nobody is asked who they are: bind it to loopback or
 * to a Unix socket.
 */
#ifndef KEYLESS_COMMON_ADMIN_H
#define KEYLESS_COMMON_ADMIN_H

#include <stdbool.h>
#include <stddef.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"

struct evbuffer;
struct event_base;

/* What a program has to say; embedded in an object of its own, and living as long as the endpoint. A missing
 * function: always ready, an empty status, nothing but what is counted. */
struct admin_source {
    /* Whether new work is welcome. If not, appends why, one line of harmless text (text.h). */
    bool (*ready)(struct admin_source *source, struct evbuffer *why_not);
    /* Appends one JSON value. */
    void (*status)(struct admin_source *source, struct evbuffer *to);
    /* Appends metrics that are no counters, with metrics_write_head and metrics_write_line. */
    void (*metrics)(struct admin_source *source, struct evbuffer *to);
};

struct admin;

/* metrics may be NULL: nothing is counted. log may be NULL. */
MUST_CHECK enum result admin_new(struct event_base *base, const struct metrics *metrics,
                                 struct admin_source *source, struct log *log, struct admin **admin,
                                 struct failure *why);
/* Closes all sockets and connections. NULL is allowed. */
void admin_free(struct admin *admin);

/* Serves on a listening socket too (non-blocking; several processes may share it), which is owned from then
 * on, also on failure. number is the caller's name for it. */
MUST_CHECK enum result admin_listen(struct admin *admin, size_t number, int listener, struct failure *why);
/* Closes that socket; its connections go on. Nothing happens if there is no such socket. */
void admin_unlisten(struct admin *admin, size_t number);
bool admin_is_listening(const struct admin *admin, size_t number);

size_t admin_connections(const struct admin *admin);

#endif
