/*
 * Plain HTTP that is sent to HTTPS: a listener with `redirect_to_https` answers each request with 308
 * (RFC 9110 section 15.4.9), whatever its method, and what is no request with 400, then closes. It knows no
 * backend and no TLS. What a client may send and how long it may take is bounded.
 */
#ifndef KEYLESS_PROXY_REDIRECT_H
#define KEYLESS_PROXY_REDIRECT_H

#include <event2/event.h>

#include "common/address.h"
#include "common/log.h"
#include "common/metrics.h"
#include "proxy/access_log.h"
#include "proxy/config.h"

/* All such clients of a worker. */
struct redirects;

/* All of it borrowed. */
struct redirects_settings {
    struct event_base *base;
    uint64_t timeout; /* from a client's connection to the end of its request */
    struct log *log;
    struct access_log *access; /* NULL: off */
    struct metrics_row *metrics;
    void (*ended)(void *owner); /* one has ended, and its descriptor is closed */
    void *owner;
};

struct redirects *redirects_new(const struct redirects_settings *settings); /* NULL: no memory */
/* Ends them all at once, without a call to ended. */
void redirects_free(struct redirects *redirects);

unsigned redirects_count(const struct redirects *redirects);

/* Takes the socket. */
void redirect_accept(struct redirects *redirects, int fd, const struct address *client,
                     const struct proxy_listen *listen);

#endif
