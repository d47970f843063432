/*
 * The admin endpoint: HTTP/1.1 on a listening socket, for operators and their tools.
 *
 *     GET /metrics   the counters of all processes, in Prometheus's text format
 *     GET /healthz   200 "ok": this process answers
 *     GET /readyz    200 "ready", or 503 and what is missing
 *     GET /status    JSON
 *
 * HEAD is answered like GET, without the body. Any other method is 405, any other path 404; a query is
 * ignored. A request's head has at most 4 kB and its body 1 kB; a connection on which nothing moves for 5 s
 * is closed. When descriptors run out, accepting pauses for a second at a time. Nothing here changes
 * anything, and nobody is asked who they are: bind it to loopback or to a Unix socket.
 *
 * The HTTP parser is libevent's.
 */
#ifndef KEYLESS_COMMON_ADMIN_H
#define KEYLESS_COMMON_ADMIN_H

#include <stdbool.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"

struct evbuffer;
struct event_base;

/* What a program has to say; embedded in an object of its own, and living as long as the endpoint. A missing
 * function: always ready, or an empty status. */
struct admin_source {
    /* Whether new work is welcome. If not, appends why, one line of text. */
    bool (*ready)(struct admin_source *source, struct evbuffer *why_not);
    /* Appends one JSON value. */
    void (*status)(struct admin_source *source, struct evbuffer *to);
};

struct admin;

/*
 * Serves on the listening socket (non-blocking; several processes may share it), which admin owns from then
 * on, also on failure. metrics may be NULL: an empty page. log may be NULL.
 */
MUST_CHECK enum result admin_new(struct event_base *base, int listener, const struct metrics *metrics,
                                 struct admin_source *source, struct log *log, struct admin **admin,
                                 struct failure *why);

/* Closes the socket and all connections. NULL is allowed. */
void admin_free(struct admin *admin);

#endif
