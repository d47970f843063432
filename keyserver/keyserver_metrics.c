#include "keyserver/keyserver_metrics.h"

#include "common/kssl.h"
#include "keyserver/key_table.h"

#define REFUSED    "keyless_keyserver_connections_refused_total"
#define PAUSES     "keyless_keyserver_accept_pauses_total"
#define CLOSED     "keyless_keyserver_connections_closed_total"
#define REQUESTS   "keyless_keyserver_requests_total"
#define REFUSALS   "keyless_keyserver_refusals_total"
#define FAILURES   "keyless_keyserver_handshake_failures_total"
#define SIGNATURES "keyless_keyserver_signatures_total"
#define QUEUED     "keyless_keyserver_queue_requests"
#define QUEUE      "keyless_keyserver_queue_duration_seconds"
#define SIGN       "keyless_keyserver_sign_duration_seconds"
#define FULL       "keyless_keyserver_queue_full_total"
#define REPLAYS    "keyless_keyserver_replays_total"
#define LATE       "keyless_keyserver_queue_late_total"

#define REFUSED_HELP  "Connections turned away, by reason."
#define PAUSES_HELP   "Times that accepting connections paused, by reason."
#define CLOSED_HELP   "Connections that were served and have ended, by reason."
#define REQUESTS_HELP "Requests answered, by client entry, operation and outcome."
#define REFUSALS_HELP "Requests answered with an error, by error."
#define FAILURES_HELP "TLS handshakes of connections that failed, by reason."
#define SIGNATURES_HELP                                                                                      \
    "Requests for a signature with a key that the client may use, by the key's type and outcome."
#define QUEUED_HELP  "Requests that the signer has not answered yet, by cost class."
#define QUEUE_HELP   "Time that requests waited for a signer's thread, by cost class."
#define SIGN_HELP    "Time that signatures took, by cost class."
#define FULL_HELP    "Requests refused because the queue of their cost class was full."
#define REPLAYS_HELP "Requests for a signature that somebody had asked for before, by what became of them."
#define LATE_HELP    "Requests refused because they had waited longer than queues.deadline."

#define CLIENT "client=\"*\","

#define REQUEST_ROW(id, name, outcome)                                                                       \
    [KEYSERVER_REQUESTS_##id] = {REQUESTS, CLIENT "operation=\"" name "\",outcome=\"" outcome "\"",          \
                                 METRIC_COUNTER, REQUESTS_HELP}

#define REQUEST_ROWS(id, name) REQUEST_ROW(id##_OK, name, "ok"), REQUEST_ROW(id##_ERROR, name, "error")

#define SIGNATURE_ROW(id, type, outcome)                                                                     \
    [id] = {SIGNATURES, "key_type=\"" type "\",outcome=\"" outcome "\"", METRIC_COUNTER, SIGNATURES_HELP}

#define SIGNATURE_ROWS(id, type)                                                                             \
    SIGNATURE_ROW(KEYSERVER_SIGNATURES + 2 * ((id)-1), type, "ok"),                                          \
        SIGNATURE_ROW(KEYSERVER_SIGNATURES + 2 * ((id)-1) + 1, type, "error")

#define FAILURE_ROW(cause, name)                                                                             \
    [KEYSERVER_HANDSHAKE_FAILURES + CHANNEL_CAUSE_##                                                         \
        cause] = {FAILURES, "reason=\"" name "\"", METRIC_COUNTER, FAILURES_HELP}

#define CLOSED_ROW(end, name)                                                                                \
    [KEYSERVER_CLOSED + CONNECTION_END_##end] = {CLOSED, "reason=\"" name "\"", METRIC_COUNTER, CLOSED_HELP}

#define REFUSAL_ROW(id, error, reason)                                                                       \
    [KEYSERVER_REFUSED_##                                                                                    \
        id] = {REFUSALS, "error=\"" error "\",reason=\"" reason "\"", METRIC_COUNTER, REFUSALS_HELP}

#define CLASS_ROWS(id, name, type, help)                                                                     \
    [(size_t)(id) + KEY_CLASS_EC] = {name, "class=\"ec\"", type, help},                                      \
                    [(size_t)(id) + KEY_CLASS_RSA] = {name, "class=\"rsa\"", type, help},                    \
                    [(size_t)(id) + KEY_CLASS_RSA_LARGE] = {name, "class=\"rsa_large\"", type, help}

_Static_assert(KEY_CLASSES == 3, "the ids leave room for three classes");

const struct metric keyserver_metrics[KEYSERVER_METRIC_COUNT] = {
    [KEYSERVER_CONNECTIONS_ACCEPTED] = {"keyless_keyserver_connections_total", NULL, METRIC_COUNTER,
                                        "Connections accepted."},
    [KEYSERVER_CONNECTIONS_PER_ADDRESS] = {REFUSED, "reason=\"per_address\"", METRIC_COUNTER, REFUSED_HELP},
    [KEYSERVER_CONNECTIONS_NO_ENTRY] = {REFUSED, "reason=\"no_client_entry\"", METRIC_COUNTER, REFUSED_HELP},
    [KEYSERVER_CONNECTIONS_DENIED] = {REFUSED, "reason=\"denied\"", METRIC_COUNTER, REFUSED_HELP},
    [KEYSERVER_CONNECTIONS_TOO_MANY] = {REFUSED, "reason=\"connections\"", METRIC_COUNTER, REFUSED_HELP},
    [KEYSERVER_CONNECTIONS_OPEN] = {"keyless_keyserver_connections", NULL, METRIC_GAUGE,
                                    "Connections there are, those in their handshake included."},
    [KEYSERVER_PAUSES_CONNECTIONS] = {PAUSES, "reason=\"connections\"", METRIC_COUNTER, PAUSES_HELP},
    [KEYSERVER_PAUSES_DESCRIPTORS] = {PAUSES, "reason=\"descriptors\"", METRIC_COUNTER, PAUSES_HELP},

    FAILURE_ROW(OTHER, "other"),
    FAILURE_ROW(CLOSED, "closed"),
    FAILURE_ROW(TIMEOUT, "timeout"),
    FAILURE_ROW(CERTIFICATE, "certificate_refused"),
    FAILURE_ROW(NO_CERTIFICATE, "no_certificate"),
    FAILURE_ROW(ALERT, "alert"),
    FAILURE_ROW(PROTOCOL, "protocol"),

    CLOSED_ROW(OTHER, "other"),
    CLOSED_ROW(CLOSED, "closed"),
    CLOSED_ROW(LOST, "lost"),
    CLOSED_ROW(IDLE, "idle"),
    CLOSED_ROW(UNREAD, "unread"),
    CLOSED_ROW(CERTIFICATE, "certificate_expired"),
    CLOSED_ROW(PROTOCOL, "protocol"),
    CLOSED_ROW(DRAINED, "drained"),
    CLOSED_ROW(DROPPED, "dropped"),

    REQUEST_ROWS(PING, "ping"),
    REQUEST_ROWS(HELLO, "hello"),
    REQUEST_ROWS(LIST, "list"),
    REQUEST_ROWS(TLS13, "sign-tls13"),
    REQUEST_ROWS(TRANSCRIPT, "sign-transcript"),
    REQUEST_ROWS(TLS12, "sign-tls12"),
    REQUEST_ROWS(DIGEST, "digest"),
    REQUEST_ROWS(DECRYPT, "decrypt"),
    REQUEST_ROWS(TICKET_KEYS, "ticket-keys"),
    REQUEST_ROWS(OTHER, "other"),

    SIGNATURE_ROWS(KEY_TYPE_RSA, "RSA"),
    SIGNATURE_ROWS(KEY_TYPE_P256, "P-256"),
    SIGNATURE_ROWS(KEY_TYPE_P384, "P-384"),
    SIGNATURE_ROWS(KEY_TYPE_P521, "P-521"),
    SIGNATURE_ROWS(KEY_TYPE_ED25519, "Ed25519"),
    SIGNATURE_ROWS(KEY_TYPE_ED448, "Ed448"),

    REFUSAL_ROW(CRYPTO, "0x01", "cryptography failed"),
    REFUSAL_ROW(KEY, "0x02", "key not found"),
    REFUSAL_ROW(VERSION, "0x04", "version mismatch"),
    REFUSAL_ROW(OPCODE, "0x05", "bad opcode"),
    REFUSAL_ROW(UNEXPECTED, "0x06", "unexpected opcode"),
    REFUSAL_ROW(FORMAT, "0x07", "format error"),
    REFUSAL_ROW(INTERNAL, "0x08", "internal error"),
    REFUSAL_ROW(POLICY, "0x40", "refused by policy"),
    REFUSAL_ROW(CONTENT, "0x41", "content not acceptable"),
    REFUSAL_ROW(RATE, "0x42", "over its rate"),
    REFUSAL_ROW(REPLAY, "0x43", "replay"),
    REFUSAL_ROW(OVERLOADED, "0x44", "overloaded"),
    REFUSAL_ROW(OTHER, "other", "unknown error"),

    [KEYSERVER_PENDING] = {"keyless_keyserver_requests_pending", NULL, METRIC_GAUGE,
                           "Requests that wait for the signer."},
    [KEYSERVER_RESENT] = {"keyless_keyserver_requests_resent_total", NULL, METRIC_COUNTER,
                          "Requests sent again because the signer was replaced."},
    [KEYSERVER_STALE] = {"keyless_keyserver_replies_stale_total", NULL, METRIC_COUNTER,
                         "Replies of the signer dropped because nobody waits for them any more."},
    [KEYSERVER_DROPPED] = {"keyless_keyserver_requests_dropped_total", NULL, METRIC_COUNTER,
                           "Requests that were not signed because nobody waited for the answer any more."},
    [KEYSERVER_EXPIRED] = {"keyless_keyserver_requests_expired_total", NULL, METRIC_COUNTER,
                           "Requests given up because the signer did not answer."},
    [KEYSERVER_LINKS_BROKEN] = {"keyless_keyserver_links_broken_total", NULL, METRIC_COUNTER,
                                "Links between processes closed because of a message that made no sense."},
    [KEYSERVER_FORBIDDEN] = {"keyless_keyserver_requests_forbidden_total", NULL, METRIC_COUNTER,
                             "Requests that a front end let through and the signer refused."},
    [KEYSERVER_REPLAYS_SIGNED] = {REPLAYS, "outcome=\"signed\"", METRIC_COUNTER, REPLAYS_HELP},
    [KEYSERVER_REPLAYS_REFUSED] = {REPLAYS, "outcome=\"refused\"", METRIC_COUNTER, REPLAYS_HELP},

    [KEYSERVER_AUDIT_RECORDS] = {"keyless_keyserver_audit_records_total", NULL, METRIC_COUNTER,
                                 "Records written to the audit log."},
    [KEYSERVER_AUDIT_PENDING] = {"keyless_keyserver_audit_records_pending", NULL, METRIC_GAUGE,
                                 "Records that are not written yet."},
    [KEYSERVER_AUDIT_LOST] = {"keyless_keyserver_audit_records_lost_total", NULL, METRIC_COUNTER,
                              "Records that could not be kept until they are written."},
    [KEYSERVER_AUDIT_STOPPED] = {"keyless_keyserver_audit_stopped_total", NULL, METRIC_COUNTER,
                                 "Requests that were not tried because they could not be recorded."},
    [KEYSERVER_AUDIT_ERRORS] = {"keyless_keyserver_audit_errors_total", NULL, METRIC_COUNTER,
                                "Times that the audit log could not be written to."},

    [KEYSERVER_KEYS] = {"keyless_keyserver_keys", NULL, METRIC_GAUGE, "Private keys loaded."},
    CLASS_ROWS(KEYSERVER_QUEUED, QUEUED, METRIC_GAUGE, QUEUED_HELP),
    CLASS_ROWS(KEYSERVER_QUEUE_SECONDS, QUEUE, METRIC_HISTOGRAM, QUEUE_HELP),
    CLASS_ROWS(KEYSERVER_SIGN_SECONDS, SIGN, METRIC_HISTOGRAM, SIGN_HELP),
    CLASS_ROWS(KEYSERVER_QUEUE_FULL, FULL, METRIC_COUNTER, FULL_HELP),
    CLASS_ROWS(KEYSERVER_QUEUE_LATE, LATE, METRIC_COUNTER, LATE_HELP),
    [KEYSERVER_FAULTS] = {"keyless_keyserver_faulty_signatures_total", NULL, METRIC_COUNTER,
                          "Signatures that did not verify and were destroyed: faulty hardware or memory."},

    [KEYSERVER_PROCESSES] = PROCESS_METRIC_ROWS,
};

static enum keyserver_metric metric_of_operation(uint8_t opcode)
{
    switch (opcode) {
    case KSSL_OP_PING:
        return KEYSERVER_REQUESTS_PING_OK;
    case KSSL_OP_HELLO:
        return KEYSERVER_REQUESTS_HELLO_OK;
    case KSSL_OP_LIST:
        return KEYSERVER_REQUESTS_LIST_OK;
    case KSSL_OP_SIGN_TLS13:
        return KEYSERVER_REQUESTS_TLS13_OK;
    case KSSL_OP_SIGN_TRANSCRIPT:
        return KEYSERVER_REQUESTS_TRANSCRIPT_OK;
    case KSSL_OP_SIGN_TLS12:
        return KEYSERVER_REQUESTS_TLS12_OK;
    case KSSL_OP_RSA_DECRYPT:
    case KSSL_OP_RSA_DECRYPT_RAW:
        return KEYSERVER_REQUESTS_DECRYPT_OK;
    case KSSL_OP_TICKET_KEYS:
        return KEYSERVER_REQUESTS_TICKET_KEYS_OK;
    default:
        return kssl_bare_find(opcode) != NULL ? KEYSERVER_REQUESTS_DIGEST_OK : KEYSERVER_REQUESTS_OTHER_OK;
    }
}

size_t keyserver_metric_of_request(uint8_t opcode, uint8_t error)
{
    return (size_t)metric_of_operation(opcode) + (error != KSSL_ERROR_NONE ? 1 : 0);
}

size_t keyserver_metric_of_refusal(uint8_t error)
{
    static const uint16_t METRICS[256] = {
        [KSSL_ERROR_CRYPTO] = KEYSERVER_REFUSED_CRYPTO,
        [KSSL_ERROR_KEY_NOT_FOUND] = KEYSERVER_REFUSED_KEY,
        [KSSL_ERROR_VERSION] = KEYSERVER_REFUSED_VERSION,
        [KSSL_ERROR_BAD_OPCODE] = KEYSERVER_REFUSED_OPCODE,
        [KSSL_ERROR_UNEXPECTED_OPCODE] = KEYSERVER_REFUSED_UNEXPECTED,
        [KSSL_ERROR_FORMAT] = KEYSERVER_REFUSED_FORMAT,
        [KSSL_ERROR_INTERNAL] = KEYSERVER_REFUSED_INTERNAL,
        [KSSL_ERROR_POLICY] = KEYSERVER_REFUSED_POLICY,
        [KSSL_ERROR_CONTENT] = KEYSERVER_REFUSED_CONTENT,
        [KSSL_ERROR_RATE] = KEYSERVER_REFUSED_RATE,
        [KSSL_ERROR_REPLAY] = KEYSERVER_REFUSED_REPLAY,
        [KSSL_ERROR_OVERLOADED] = KEYSERVER_REFUSED_OVERLOADED,
    };
    return METRICS[error] != 0 ? METRICS[error] : KEYSERVER_REFUSED_OTHER;
}

size_t keyserver_metric_of_signature(enum key_type type, uint8_t error)
{
    return KEYSERVER_SIGNATURES + 2 * ((size_t)type - 1) + (error != KSSL_ERROR_NONE ? 1 : 0);
}
