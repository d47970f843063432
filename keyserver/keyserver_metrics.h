/* What the key server counts: the ids of its metrics, in the order of its table. A new metric is one id here
 * and one row in keyserver_metrics.c; rows that share a name stand together. */
#ifndef KEYLESS_KEYSERVER_KEYSERVER_METRICS_H
#define KEYLESS_KEYSERVER_KEYSERVER_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "common/channel.h"
#include "common/key_id.h"
#include "common/metrics.h"
#include "common/process.h"

/* Operations as they are counted: each has two metrics, answered and refused, side by side. */
#define KEYSERVER_OUTCOMES(operation)                                                                        \
    KEYSERVER_REQUESTS_##operation##_OK, KEYSERVER_REQUESTS_##operation##_ERROR

/* How a connection that was served has ended. */
enum connection_end {
    CONNECTION_END_OTHER,       /* a limit of ours, or the kernel's */
    CONNECTION_END_CLOSED,      /* by the client, in good order */
    CONNECTION_END_LOST,        /* by the client in any other way, or it broke */
    CONNECTION_END_IDLE,        /* nothing came for limits.idle_timeout */
    CONNECTION_END_UNREAD,      /* the client did not take its answers */
    CONNECTION_END_CERTIFICATE, /* the client's has expired */
    CONNECTION_END_PROTOCOL,    /* what came was not TLS as it must be, or an alert */
    CONNECTION_END_DRAINED,     /* by us, with everything answered */
    CONNECTION_END_DROPPED,     /* by us, at the end of drain_timeout or at once */
    CONNECTION_ENDS
};

/* The label of what is counted by client entry. */
#define KEYSERVER_CLIENT_LABEL "client"

enum keyserver_metric {
    KEYSERVER_CONNECTIONS_ACCEPTED,
    KEYSERVER_CONNECTIONS_PER_ADDRESS, /* closed at once: too many of their address in their handshake */
    KEYSERVER_CONNECTIONS_NO_ENTRY,    /* closed after their handshake: no client entry matches */
    KEYSERVER_CONNECTIONS_DENIED,      /* ... the client entry denies it */
    KEYSERVER_CONNECTIONS_TOO_MANY,    /* ... the client entry has as many as it may */
    KEYSERVER_CONNECTIONS_OPEN,
    KEYSERVER_HANDSHAKE_FAILURES, /* in the order of enum channel_cause */
    KEYSERVER_HANDSHAKE_FAILURES_LAST = KEYSERVER_HANDSHAKE_FAILURES + CHANNEL_CAUSES - 1,
    KEYSERVER_CLOSED, /* served connections that have ended, in the order of enum connection_end */
    KEYSERVER_CLOSED_LAST = KEYSERVER_CLOSED + CONNECTION_ENDS - 1,
    KEYSERVER_PAUSES_CONNECTIONS, /* accepting paused: limits.connections */
    KEYSERVER_PAUSES_DESCRIPTORS, /* ... out of descriptors or memory */

    KEYSERVER_OUTCOMES(PING),
    KEYSERVER_OUTCOMES(HELLO),
    KEYSERVER_OUTCOMES(LIST),
    KEYSERVER_OUTCOMES(TLS13),
    KEYSERVER_OUTCOMES(TRANSCRIPT),
    KEYSERVER_OUTCOMES(TLS12),
    KEYSERVER_OUTCOMES(DIGEST),
    KEYSERVER_OUTCOMES(DECRYPT),
    KEYSERVER_OUTCOMES(TICKET_KEYS),
    KEYSERVER_OUTCOMES(OTHER),

    /* Requests that named a key, by its type in the order of enum key_type without its first, and outcome. */
    KEYSERVER_SIGNATURES,
    KEYSERVER_SIGNATURES_LAST = KEYSERVER_SIGNATURES + 2 * KEY_TYPE_ED448 - 1,

    /* Refusals, by the error that was answered. */
    KEYSERVER_REFUSED_CRYPTO,
    KEYSERVER_REFUSED_KEY,
    KEYSERVER_REFUSED_VERSION,
    KEYSERVER_REFUSED_OPCODE,
    KEYSERVER_REFUSED_UNEXPECTED,
    KEYSERVER_REFUSED_FORMAT,
    KEYSERVER_REFUSED_INTERNAL,
    KEYSERVER_REFUSED_POLICY,
    KEYSERVER_REFUSED_CONTENT,
    KEYSERVER_REFUSED_RATE,
    KEYSERVER_REFUSED_REPLAY,
    KEYSERVER_REFUSED_OVERLOADED,
    KEYSERVER_REFUSED_OTHER,

    /* Between front ends and the signer. */
    KEYSERVER_PENDING,
    KEYSERVER_RESENT,
    KEYSERVER_STALE,
    KEYSERVER_DROPPED,
    KEYSERVER_EXPIRED,
    KEYSERVER_LINKS_BROKEN,
    KEYSERVER_FORBIDDEN,
    KEYSERVER_REPLAYS_SIGNED,
    KEYSERVER_REPLAYS_REFUSED,

    /* The audit log. */
    KEYSERVER_AUDIT_RECORDS,
    KEYSERVER_AUDIT_PENDING,
    KEYSERVER_AUDIT_LOST,
    KEYSERVER_AUDIT_STOPPED,
    KEYSERVER_AUDIT_ERRORS,

    /* The signer; by cost class, in the order of enum key_class. */
    KEYSERVER_KEYS,
    KEYSERVER_QUEUED,
    KEYSERVER_QUEUE_SECONDS = KEYSERVER_QUEUED + 3,
    KEYSERVER_SIGN_SECONDS = KEYSERVER_QUEUE_SECONDS + 3,
    KEYSERVER_QUEUE_FULL = KEYSERVER_SIGN_SECONDS + 3,
    KEYSERVER_QUEUE_LATE = KEYSERVER_QUEUE_FULL + 3,
    KEYSERVER_FAULTS = KEYSERVER_QUEUE_LATE + 3,

    KEYSERVER_PROCESSES, /* the master's own: PROCESS_METRIC_ROWS */
    KEYSERVER_METRIC_COUNT = KEYSERVER_PROCESSES + PROCESS_METRIC_COUNT
};

/* KEYSERVER_METRIC_COUNT rows, for metrics_new. */
extern const struct metric keyserver_metrics[];

/* The metric of a request with this opcode that was answered, or refused when error is not KSSL_ERROR_NONE.
 */
size_t keyserver_metric_of_request(uint8_t opcode, uint8_t error);
/* The metric of a request for a signature with a key of this type. */
size_t keyserver_metric_of_signature(enum key_type type, uint8_t error);
/* The metric of a refusal with this error. */
size_t keyserver_metric_of_refusal(uint8_t error);

#endif
