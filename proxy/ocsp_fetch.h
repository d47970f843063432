/*
 * One question to one OCSP responder over HTTP (RFC 6960 appendix A), with libevent's client: for the helper.
 * Redirects are not followed. What comes back is anybody's: ocsp_response.h tells what it is worth.
 */
#ifndef KEYLESS_PROXY_OCSP_FETCH_H
#define KEYLESS_PROXY_OCSP_FETCH_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/dns.h>
#include <event2/event.h>

#include "common/bytes.h"
#include "proxy/ocsp_response.h"
#include "proxy/ocsp_url.h"
#include "proxy/resolver.h"

/* What libevent's client wants for addresses in digits; it looks nothing up. For a process that is not
 * confined yet. NULL: no memory. Free with evdns_base_free. */
struct evdns_base *ocsp_fetch_dns(struct event_base *base);

struct ocsp_fetch;

struct ocsp_fetch_settings {
    struct event_base *base;
    struct evdns_base *dns; /* of ocsp_fetch_dns */
    struct resolver *resolver;
    const struct ocsp_url *url;
    const struct ocsp_request *request;
    uint64_t timeout; /* microseconds, for all of it */
    bool post;        /* GET, which caches like, otherwise, if the request is short enough for it */
    unsigned attempt; /* each time another of the host's addresses is asked */
    /* body.data NULL: none came, and the reason, borrowed. The fetch is gone when it returns. */
    void (*done)(struct bytes body, const char *reason, void *owner);
    void *owner;
};

/* The url and the request are copied. NULL: no memory. done is called from the event loop, never from within.
 */
struct ocsp_fetch *ocsp_fetch_start(const struct ocsp_fetch_settings *settings);
/* done is not called any more. NULL is allowed. */
void ocsp_fetch_cancel(struct ocsp_fetch *fetch);

#endif
