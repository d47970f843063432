/* What the proxy counts: the ids of its metrics, in the order of its table. A new metric is one id here and
 * one row in proxy_metrics.c; rows that share a name stand together. */
#ifndef KEYLESS_PROXY_PROXY_METRICS_H
#define KEYLESS_PROXY_PROXY_METRICS_H

#include <stddef.h>

#include "common/metrics.h"
#include "common/process.h"

enum proxy_metric {
    /* TLS handshakes, by how they ended. */
    PROXY_HANDSHAKES_OK,
    PROXY_HANDSHAKES_CLIENT_GONE, /* the client closed or reset before it was done */
    PROXY_HANDSHAKES_CLIENT,      /* nothing in common, an alert from the client, not TLS, broken messages */
    PROXY_HANDSHAKES_KEY,         /* no signature: key server away, slow, or it refused */
    PROXY_HANDSHAKES_ABORTED,     /* by us: deadline, drain */
    PROXY_HANDSHAKES_INTERNAL,
    PROXY_HANDSHAKE_SECONDS,
    PROXY_FIBRES_EXHAUSTED,

    /* Signatures asked of key servers, by how they ended. */
    PROXY_KEY_REQUESTS_OK,
    PROXY_KEY_REQUESTS_ERROR,     /* the key server answered an error */
    PROXY_KEY_REQUESTS_TIMEOUT,   /* sent, not answered in time */
    PROXY_KEY_REQUESTS_NO_SERVER, /* never sent: no key server within the time */
    PROXY_KEY_REQUESTS_INVALID,   /* an answer that is no signature of this key */
    PROXY_KEY_REQUESTS_CANCELLED, /* the client left first */
    PROXY_KEY_REQUESTS_REFUSED,   /* not tried: too many pending, or nothing a TLS server signs */
    PROXY_KEY_SECONDS,
    PROXY_KEY_WRONG,
    PROXY_KEY_RESENT,
    PROXY_KEY_LATE,
    PROXY_KEY_PENDING,
    PROXY_KEY_CHANNELS_UP,
    PROXY_KEY_CHANNELS_LOST,
    PROXY_KEY_CONNECT_FAILED,
    PROXY_KEY_CLOCK_SKEWED,

    /* Clients, backends, bytes. */
    PROXY_CONNECTIONS_ACCEPTED,
    PROXY_CONNECTIONS_OPEN,
    PROXY_CONNECTIONS_FINISHED, /* connections by how they ended */
    PROXY_CONNECTIONS_HANDSHAKE_FAILED,
    PROXY_CONNECTIONS_NO_BACKEND,
    PROXY_CONNECTIONS_CLIENT_LOST,
    PROXY_CONNECTIONS_CLIENT_BROKEN,
    PROXY_CONNECTIONS_BACKEND_LOST,
    PROXY_CONNECTIONS_IDLE,
    PROXY_CONNECTIONS_INTERNAL,
    PROXY_CONNECTIONS_TRUNCATED, /* by the client, without close_notify */
    PROXY_ACCEPT_PAUSED_DESCRIPTORS,
    PROXY_ACCEPT_PAUSED_LIMIT,
    PROXY_BACKEND_CONNECTED,
    PROXY_BACKEND_FAILED,
    PROXY_BYTES_FROM_CLIENTS,
    PROXY_BYTES_TO_CLIENTS,

    /* The master's. */
    PROXY_PROCESSES,
    PROXY_PROCESSES_LAST = PROXY_PROCESSES + PROCESS_METRIC_COUNT - 1,

    PROXY_METRIC_COUNT
};

/* PROXY_METRIC_COUNT rows, for metrics_new. */
extern const struct metric proxy_metrics[];

#endif
