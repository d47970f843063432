/* What the proxy counts: the ids of its metrics, in the order of its table. A new metric is one id here and
 * one row in proxy_metrics.c; rows that share a name stand together. */
#ifndef KEYLESS_PROXY_PROXY_METRICS_H
#define KEYLESS_PROXY_PROXY_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "common/key_id.h"
#include "common/metrics.h"
#include "common/process.h"
#include "proxy/handshake_reason.h"

/* The label of what is counted by key server. */
#define PROXY_SERVER_LABEL "server"

enum proxy_metric {
    /* TLS handshakes, by how they ended. */
    PROXY_HANDSHAKES_OK,
    PROXY_HANDSHAKES_CLIENT_GONE, /* the client closed or reset before it was done */
    PROXY_HANDSHAKES_CLIENT,      /* nothing in common, an alert from the client, not TLS, broken messages */
    PROXY_HANDSHAKES_KEY,         /* no signature: key server away, slow, or it refused */
    PROXY_HANDSHAKES_ABORTED,     /* by us: deadline, drain */
    PROXY_HANDSHAKES_INTERNAL,
    PROXY_FAILURES, /* in the order of enum handshake_class, without its first */
    PROXY_FAILURES_LAST = PROXY_FAILURES + HANDSHAKE_CLASSES - 2,
    PROXY_SUCCEEDED_TLS12, /* by key type, in the order of enum key_type; the first: resumed, no key was used
                            */
    PROXY_SUCCEEDED_TLS13 = PROXY_SUCCEEDED_TLS12 + KEY_TYPE_ED448 + 1,
    PROXY_SUCCEEDED_LAST = PROXY_SUCCEEDED_TLS13 + KEY_TYPE_ED448,
    PROXY_HANDSHAKE_SECONDS,
    PROXY_HANDSHAKE_CLIENT_SECONDS,
    PROXY_FLUSHED_EARLY,
    PROXY_STAPLED,
    PROXY_TICKETS_MADE,
    PROXY_TICKETS_UNKNOWN, /* tickets that came back and were not used: of a key that is not known */
    PROXY_TICKETS_STALE,   /* ... too old, or of a certificate that is not served any more */
    PROXY_TICKET_KEYS,
    PROXY_TICKET_KEYS_FAILED,

    /* Signatures asked of key servers, in the order of enum key_outcome. */
    PROXY_KEY_REQUESTS_OK,
    PROXY_KEY_REQUESTS_ERROR,
    PROXY_KEY_REQUESTS_TIMEOUT,
    PROXY_KEY_REQUESTS_NO_SERVER,
    PROXY_KEY_REQUESTS_INVALID,
    PROXY_KEY_REQUESTS_WRONG,
    PROXY_KEY_REQUESTS_CANCELLED,
    PROXY_KEY_REQUESTS_REFUSED,
    PROXY_KEY_REQUESTS_TOO_MANY,
    PROXY_KEY_REQUESTS_MISMATCH,
    /* Those that a key server answered with an error, by that error. */
    PROXY_KEY_ERROR_CRYPTO,
    PROXY_KEY_ERROR_KEY,
    PROXY_KEY_ERROR_OPCODE,
    PROXY_KEY_ERROR_FORMAT,
    PROXY_KEY_ERROR_INTERNAL,
    PROXY_KEY_ERROR_POLICY,
    PROXY_KEY_ERROR_CONTENT,
    PROXY_KEY_ERROR_RATE,
    PROXY_KEY_ERROR_REPLAY,
    PROXY_KEY_ERROR_OVERLOADED,
    PROXY_KEY_ERROR_OTHER,
    PROXY_KEY_SECONDS,
    PROXY_KEY_STAGE_QUEUE, /* what an answer took, by stage */
    PROXY_KEY_STAGE_SIGN,
    PROXY_KEY_STAGE_WIRE,
    PROXY_KEY_STAGE_VERIFY,
    PROXY_KEY_RESENT,
    PROXY_KEY_HEDGED,
    PROXY_KEY_HEDGES_WON,
    PROXY_KEY_RETRIED,
    PROXY_KEY_MOVED,
    PROXY_KEY_LATE,
    PROXY_KEY_UNKNOWN,
    PROXY_KEY_PENDING,
    PROXY_KEY_CHANNELS_UP,
    PROXY_KEY_CHANNELS_LOST,
    PROXY_KEY_CONNECT_FAILED,
    PROXY_KEY_CLOCK_SKEWED,
    PROXY_KEY_LOOKUPS_FAILED, /* the helper's */

    /* Clients, backends, bytes. */
    PROXY_CONNECTIONS_ACCEPTED,
    PROXY_CONNECTIONS_OPEN,
    PROXY_CONNECTIONS_REFUSED,
    PROXY_CONNECTIONS_FINISHED, /* connections by how they ended */
    PROXY_CONNECTIONS_HANDSHAKE_FAILED,
    PROXY_CONNECTIONS_NO_BACKEND,
    PROXY_CONNECTIONS_CLIENT_LOST,
    PROXY_CONNECTIONS_CLIENT_BROKEN,
    PROXY_CONNECTIONS_BACKEND_LOST,
    PROXY_CONNECTIONS_IDLE,
    PROXY_CONNECTIONS_INTERNAL,
    PROXY_CONNECTIONS_DROPPED,   /* cut when drain_timeout had passed, or at once with SIGQUIT */
    PROXY_CONNECTIONS_TRUNCATED, /* by the client, without close_notify */
    PROXY_REDIRECTED,            /* clients of redirect_to_https, by how they ended */
    PROXY_REDIRECT_REFUSED,
    PROXY_REDIRECT_GONE,
    PROXY_REDIRECT_TIMEOUT,
    PROXY_ACCEPT_PAUSED_DESCRIPTORS,
    PROXY_ACCEPT_PAUSED_LIMIT,
    PROXY_BACKEND_CONNECTED,
    PROXY_BACKEND_FAILED,
    PROXY_BACKEND_SECONDS,
    PROXY_BYTES_FROM_CLIENTS,
    PROXY_BYTES_TO_CLIENTS,

    PROXY_ACCESS_LINES_LOST,

    PROXY_CERTIFICATES_WAITING,
    PROXY_CERTIFICATES_UNTRIED,

    /* OCSP responses by what they said: the helper's, or the master's where they come from files. */
    PROXY_OCSP_GOOD,
    PROXY_OCSP_REVOKED,
    PROXY_OCSP_FAILED,

    /* The master's. */
    PROXY_RENEWALS_OK,
    PROXY_RENEWALS_FAILED,
    PROXY_PROCESSES,
    PROXY_PROCESSES_LAST = PROXY_PROCESSES + PROCESS_METRIC_COUNT - 1,

    PROXY_METRIC_COUNT
};

/* PROXY_METRIC_COUNT rows, for metrics_new. */
extern const struct metric proxy_metrics[];

/* The metric of a handshake that succeeded; key_type NONE: a session was resumed. */
size_t proxy_metric_of_success(bool tls13, enum key_type key_type);
/* The metric of an error that a key server has answered. */
size_t proxy_metric_of_key_error(uint8_t error);

#endif
