#include "proxy/proxy_metrics.h"

#include "common/kssl.h"

#define HANDSHAKES           "keyless_handshakes_total"
#define FAILURES             "keyless_handshake_failures_total"
#define TICKETS_REFUSED      "keyless_tickets_refused_total"
#define TICKETS_REFUSED_HELP "Session tickets of clients that led to a full handshake, by reason."
#define SUCCEEDED            "keyless_handshakes_succeeded_total"
#define KEY_REQUESTS         "keyless_key_requests_total"
#define KEY_ERRORS           "keyless_key_errors_total"
#define BYTES                "keyless_client_bytes_total"
#define BACKEND              "keyless_backend_connects_total"
#define CLOSED               "keyless_connections_closed_total"
#define REDIRECTS            "keyless_redirects_total"
#define REDIRECTS_HELP       "Clients of redirect_to_https, by outcome."
#define PAUSED               "keyless_accept_paused_total"

#define FAILURES_HELP "TLS handshakes with clients that failed, by reason."
#define SUCCEEDED_HELP                                                                                       \
    "TLS handshakes with clients that succeeded, by version, type of our key, and whether a session was "    \
    "resumed."
#define HANDSHAKES_HELP "TLS handshakes with clients that have ended, by outcome."
#define KEY_REQUESTS_HELP                                                                                    \
    "Signatures asked of key servers, by key server (none: no key server got the request) and outcome."
#define KEY_ERRORS_HELP                                                                                      \
    "Signatures that a key server answered with an error, by key server and error; none of them was asked "  \
    "for again."
#define KEY_STAGES "keyless_key_stage_duration_seconds"
#define KEY_STAGES_HELP                                                                                      \
    "What answers of key servers took: waiting and signing as the key server tells them, the rest on the "   \
    "way, and verifying."
#define OCSP_RESPONSES "keyless_ocsp_responses_total"
#define OCSP_RESPONSES_HELP                                                                                  \
    "OCSP responses read or fetched, by what they said; failed: none, or one of no use."
#define RENEWALS      "keyless_certificate_renewals_total"
#define RENEWALS_HELP "Chains renewed or added, and changed files that were no good."
#define BYTES_HELP    "Plaintext bytes relayed, by direction."
#define CLOSED_HELP   "Client connections ended, by reason."
#define PAUSED_HELP   "Times that accepting paused, for want of descriptors or at limits.connections."
#define BACKEND_HELP  "Connections to backends tried, by outcome."

#define SERVER "server=\"*\""

#define FAILURE_ROW(class, name)                                                                             \
    [PROXY_FAILURES + HANDSHAKE_CLASS_##class - 1] = {FAILURES, "reason=\"" name "\"", METRIC_COUNTER,       \
                                                      FAILURES_HELP}

#define SUCCEEDED_ROW(version, type, resumed)                                                                \
    {                                                                                                        \
        SUCCEEDED, "version=\"" version "\",key_type=\"" type "\",resumed=\"" resumed "\"", METRIC_COUNTER,  \
            SUCCEEDED_HELP                                                                                   \
    }

#define SUCCEEDED_ROWS(id, version)                                                                          \
    [(id) + KEY_TYPE_NONE] = SUCCEEDED_ROW(version, "none", "true"),                                         \
            [(id) + KEY_TYPE_RSA] = SUCCEEDED_ROW(version, "RSA", "false"),                                  \
            [(id) + KEY_TYPE_P256] = SUCCEEDED_ROW(version, "P-256", "false"),                               \
            [(id) + KEY_TYPE_P384] = SUCCEEDED_ROW(version, "P-384", "false"),                               \
            [(id) + KEY_TYPE_P521] = SUCCEEDED_ROW(version, "P-521", "false"),                               \
            [(id) + KEY_TYPE_ED25519] = SUCCEEDED_ROW(version, "Ed25519", "false"),                          \
            [(id) + KEY_TYPE_ED448] = SUCCEEDED_ROW(version, "Ed448", "false")

#define KEY_ROW(id, name)                                                                                    \
    [PROXY_KEY_REQUESTS_##                                                                                   \
        id] = {KEY_REQUESTS, SERVER ",outcome=\"" name "\"", METRIC_COUNTER, KEY_REQUESTS_HELP}

#define KEY_ERROR_ROW(id, error, reason)                                                                     \
    [PROXY_KEY_ERROR_##id] = {KEY_ERRORS, SERVER ",error=\"" error "\",reason=\"" reason "\"",               \
                              METRIC_COUNTER, KEY_ERRORS_HELP}

const struct metric proxy_metrics[] = {
    [PROXY_HANDSHAKES_OK] = {HANDSHAKES, "outcome=\"ok\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_CLIENT_GONE] = {HANDSHAKES, "outcome=\"client_gone\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_CLIENT] = {HANDSHAKES, "outcome=\"client\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_KEY] = {HANDSHAKES, "outcome=\"key\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_ABORTED] = {HANDSHAKES, "outcome=\"aborted\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_INTERNAL] = {HANDSHAKES, "outcome=\"internal\"", METRIC_COUNTER, HANDSHAKES_HELP},
    FAILURE_ROW(CLOSED, "client_closed"),
    FAILURE_ROW(RESET, "client_reset"),
    FAILURE_ROW(NOT_TLS, "not_tls"),
    FAILURE_ROW(VERSION, "protocol_version"),
    FAILURE_ROW(CIPHER, "no_shared_cipher"),
    FAILURE_ROW(GROUP, "no_shared_group"),
    FAILURE_ROW(SCHEME, "no_shared_signature_algorithm"),
    FAILURE_ROW(ALPN, "no_shared_application_protocol"),
    FAILURE_ROW(NAME, "unknown_name"),
    FAILURE_ROW(CERTIFICATE, "client_refused_certificate"),
    FAILURE_ROW(NO_CLIENT_CERTIFICATE, "no_client_certificate"),
    FAILURE_ROW(CLIENT_CERTIFICATE, "client_certificate"),
    FAILURE_ROW(ALERT, "client_alert"),
    FAILURE_ROW(MALFORMED, "malformed"),
    FAILURE_ROW(KEY_NO_SERVER, "no_key_server"),
    FAILURE_ROW(KEY_TIMEOUT, "key_timeout"),
    FAILURE_ROW(KEY_ERROR, "key_error"),
    FAILURE_ROW(KEY_INVALID, "key_invalid"),
    FAILURE_ROW(KEY_WRONG, "key_wrong"),
    FAILURE_ROW(KEY_REFUSED, "key_refused"),
    FAILURE_ROW(KEY_TOO_MANY, "too_many_pending"),
    FAILURE_ROW(KEY_TRANSCRIPT, "key_transcript"),
    FAILURE_ROW(TIMEOUT, "timeout"),
    FAILURE_ROW(DROPPED, "dropped"),
    FAILURE_ROW(INTERNAL, "internal"),
    SUCCEEDED_ROWS(PROXY_SUCCEEDED_TLS12, "TLSv1.2"),
    SUCCEEDED_ROWS(PROXY_SUCCEEDED_TLS13, "TLSv1.3"),
    [PROXY_HANDSHAKE_SECONDS] =
        {"keyless_handshake_duration_seconds", NULL, METRIC_HISTOGRAM,
         "Time from accepting a client to the end of its handshake, if that succeeded."},
    [PROXY_HANDSHAKE_CLIENT_SECONDS] = {"keyless_handshake_client_duration_seconds", NULL, METRIC_HISTOGRAM,
                                        "The part of a successful handshake that was not spent waiting for "
                                        "the key: the client, its network and "
                                        "our own work."},
    [PROXY_STAPLED] = {"keyless_handshakes_stapled_total", NULL, METRIC_COUNTER,
                       "Handshakes with an OCSP response, for clients that have asked for one."},
    [PROXY_TICKETS_MADE] = {"keyless_tickets_made_total", NULL, METRIC_COUNTER, "Session tickets made."},
    [PROXY_TICKETS_UNKNOWN] = {TICKETS_REFUSED, "reason=\"key\"", METRIC_COUNTER, TICKETS_REFUSED_HELP},
    [PROXY_TICKETS_STALE] = {TICKETS_REFUSED, "reason=\"stale\"", METRIC_COUNTER, TICKETS_REFUSED_HELP},
    [PROXY_TICKET_KEYS] = {"keyless_ticket_keys", NULL, METRIC_GAUGE,
                           "Keys for session tickets, of all workers together; 0: no session is resumed."},
    [PROXY_TICKET_KEYS_FAILED] = {"keyless_ticket_keys_failed_total", NULL, METRIC_COUNTER,
                                  "Times that a key server gave no ticket keys."},
    [PROXY_FLUSHED_EARLY] = {"keyless_handshakes_flushed_early_total", NULL, METRIC_COUNTER,
                             "Handshakes whose first flight went out while their signature was made."},

    KEY_ROW(OK, "ok"),
    KEY_ROW(ERROR, "error"),
    KEY_ROW(TIMEOUT, "timeout"),
    KEY_ROW(NO_SERVER, "no_server"),
    KEY_ROW(INVALID, "invalid"),
    KEY_ROW(WRONG, "wrong"),
    KEY_ROW(CANCELLED, "cancelled"),
    KEY_ROW(REFUSED, "refused"),
    KEY_ROW(TOO_MANY, "too_many_pending"),
    KEY_ROW(MISMATCH, "mismatch"),
    KEY_ERROR_ROW(CRYPTO, "0x01", "cryptography failed"),
    KEY_ERROR_ROW(KEY, "0x02", "key not found"),
    KEY_ERROR_ROW(OPCODE, "0x05", "bad opcode"),
    KEY_ERROR_ROW(FORMAT, "0x07", "format error"),
    KEY_ERROR_ROW(INTERNAL, "0x08", "internal error"),
    KEY_ERROR_ROW(POLICY, "0x40", "refused by policy"),
    KEY_ERROR_ROW(CONTENT, "0x41", "content not acceptable"),
    KEY_ERROR_ROW(RATE, "0x42", "over its rate"),
    KEY_ERROR_ROW(REPLAY, "0x43", "replay"),
    KEY_ERROR_ROW(OVERLOADED, "0x44", "overloaded"),
    KEY_ERROR_ROW(OTHER, "other", "unknown error"),
    [PROXY_KEY_SECONDS] = {"keyless_key_request_duration_seconds", SERVER, METRIC_HISTOGRAM,
                           "Time from the request for a signature to the signature, waiting to be sent "
                           "included, by key server."},
    [PROXY_KEY_STAGE_QUEUE] = {KEY_STAGES, "server=\"*\",stage=\"queue\"", METRIC_HISTOGRAM, KEY_STAGES_HELP},
    [PROXY_KEY_STAGE_SIGN] = {KEY_STAGES, "server=\"*\",stage=\"sign\"", METRIC_HISTOGRAM, KEY_STAGES_HELP},
    [PROXY_KEY_STAGE_WIRE] = {KEY_STAGES, "server=\"*\",stage=\"wire\"", METRIC_HISTOGRAM, KEY_STAGES_HELP},
    [PROXY_KEY_STAGE_VERIFY] = {KEY_STAGES, "server=\"*\",stage=\"verify\"", METRIC_HISTOGRAM,
                                KEY_STAGES_HELP},
    [PROXY_KEY_RESENT] = {"keyless_key_requests_resent_total", SERVER, METRIC_COUNTER,
                          "Requests sent again because their channel was lost."},
    [PROXY_KEY_HEDGED] = {"keyless_key_requests_hedged_total", SERVER, METRIC_COUNTER,
                          "Requests sent to another key server, too, as this one's answer was late."},
    [PROXY_KEY_HEDGES_WON] = {"keyless_key_hedges_won_total", SERVER, METRIC_COUNTER,
                              "Answers to those that came before the first server's."},
    [PROXY_KEY_RETRIED] =
        {"keyless_key_requests_retried_total", SERVER, METRIC_COUNTER,
         "Requests sent to another key server as this one had not answered in attempt_timeout."},
    [PROXY_KEY_MOVED] = {"keyless_key_requests_moved_total", SERVER, METRIC_COUNTER,
                         "Requests sent to another key server as this one's answer was no good."},
    [PROXY_KEY_LATE] = {"keyless_key_answers_late_total", SERVER, METRIC_COUNTER,
                        "Answers dropped because nobody waits for them any more."},
    [PROXY_KEY_UNKNOWN] = {"keyless_key_answers_unknown_total", SERVER, METRIC_COUNTER,
                           "Answers dropped because there was no such request, or it was answered already."},
    [PROXY_KEY_PENDING] = {"keyless_key_requests_pending", NULL, METRIC_GAUGE,
                           "Signatures that handshakes are waiting for."},
    [PROXY_KEY_CHANNELS_UP] = {"keyless_key_channels_up", NULL, METRIC_GAUGE,
                               "Channels to key servers that are ready for use."},
    [PROXY_KEY_CHANNELS_LOST] = {"keyless_key_channels_lost_total", SERVER, METRIC_COUNTER,
                                 "Channels to key servers that were ready and then ended."},
    [PROXY_KEY_CONNECT_FAILED] = {"keyless_key_connects_failed_total", SERVER, METRIC_COUNTER,
                                  "Attempts to reach a key server that failed."},
    [PROXY_KEY_CLOCK_SKEWED] = {"keyless_key_channels_clock_skewed", NULL, METRIC_GAUGE,
                                "Channels whose key server's clock is more than 60 s from ours."},
    [PROXY_KEY_LOOKUPS_FAILED] = {"keyless_key_server_lookups_failed_total", SERVER, METRIC_COUNTER,
                                  "Look-ups of a key server's name, or of a host that its SRV records name, "
                                  "that failed."},

    [PROXY_CONNECTIONS_ACCEPTED] = {"keyless_connections_total", NULL, METRIC_COUNTER,
                                    "Client connections accepted."},
    [PROXY_CONNECTIONS_OPEN] = {"keyless_connections_open", NULL, METRIC_GAUGE, "Client connections open."},
    [PROXY_CONNECTIONS_REFUSED] = {"keyless_connections_refused_total", "reason=\"memory\"", METRIC_COUNTER,
                                   "Client connections closed as soon as they were accepted, by reason."},
    [PROXY_CONNECTIONS_FINISHED] = {CLOSED, "reason=\"finished\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_HANDSHAKE_FAILED] = {CLOSED, "reason=\"handshake_failed\"", METRIC_COUNTER,
                                            CLOSED_HELP},
    [PROXY_CONNECTIONS_NO_BACKEND] = {CLOSED, "reason=\"no_backend\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_CLIENT_LOST] = {CLOSED, "reason=\"client_lost\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_CLIENT_BROKEN] = {CLOSED, "reason=\"client_broken\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_BACKEND_LOST] = {CLOSED, "reason=\"backend_lost\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_IDLE] = {CLOSED, "reason=\"idle\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_INTERNAL] = {CLOSED, "reason=\"internal\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_DROPPED] = {CLOSED, "reason=\"dropped\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_TRUNCATED] = {"keyless_connections_truncated_total", NULL, METRIC_COUNTER,
                                     "Connections that the client ended without close_notify."},
    [PROXY_REDIRECTED] = {REDIRECTS, "outcome=\"redirected\"", METRIC_COUNTER, REDIRECTS_HELP},
    [PROXY_REDIRECT_REFUSED] = {REDIRECTS, "outcome=\"refused\"", METRIC_COUNTER, REDIRECTS_HELP},
    [PROXY_REDIRECT_GONE] = {REDIRECTS, "outcome=\"gone\"", METRIC_COUNTER, REDIRECTS_HELP},
    [PROXY_REDIRECT_TIMEOUT] = {REDIRECTS, "outcome=\"timeout\"", METRIC_COUNTER, REDIRECTS_HELP},
    [PROXY_ACCEPT_PAUSED_DESCRIPTORS] = {PAUSED, "reason=\"descriptors\"", METRIC_COUNTER, PAUSED_HELP},
    [PROXY_ACCEPT_PAUSED_LIMIT] = {PAUSED, "reason=\"limit\"", METRIC_COUNTER, PAUSED_HELP},
    [PROXY_BACKEND_CONNECTED] = {BACKEND, "outcome=\"ok\"", METRIC_COUNTER, BACKEND_HELP},
    [PROXY_BACKEND_FAILED] = {BACKEND, "outcome=\"failed\"", METRIC_COUNTER, BACKEND_HELP},
    [PROXY_BACKEND_SECONDS] = {"keyless_backend_connect_duration_seconds", NULL, METRIC_HISTOGRAM,
                               "Time that successful connects to a backend's server took."},
    [PROXY_BYTES_FROM_CLIENTS] = {BYTES, "direction=\"in\"", METRIC_COUNTER, BYTES_HELP},
    [PROXY_BYTES_TO_CLIENTS] = {BYTES, "direction=\"out\"", METRIC_COUNTER, BYTES_HELP},

    [PROXY_ACCESS_LINES_LOST] =
        {"keyless_access_lines_lost_total", NULL, METRIC_COUNTER,
         "Lines of the access log that were lost, as their reader did not take them."},

    [PROXY_CERTIFICATES_WAITING] = {"keyless_certificates_waiting", NULL, METRIC_GAUGE,
                                    "Chains that are kept out, as their key server does not sign for them."},
    [PROXY_CERTIFICATES_UNTRIED] =
        {"keyless_certificates_untried", NULL, METRIC_GAUGE,
         "Chains served for which the key server has answered no test request yet."},
    [PROXY_OCSP_GOOD] = {OCSP_RESPONSES, "outcome=\"good\"", METRIC_COUNTER, OCSP_RESPONSES_HELP},
    [PROXY_OCSP_REVOKED] = {OCSP_RESPONSES, "outcome=\"revoked\"", METRIC_COUNTER, OCSP_RESPONSES_HELP},
    [PROXY_OCSP_FAILED] = {OCSP_RESPONSES, "outcome=\"failed\"", METRIC_COUNTER, OCSP_RESPONSES_HELP},
    [PROXY_RENEWALS_OK] = {RENEWALS, "outcome=\"ok\"", METRIC_COUNTER, RENEWALS_HELP},
    [PROXY_RENEWALS_FAILED] = {RENEWALS, "outcome=\"failed\"", METRIC_COUNTER, RENEWALS_HELP},
    [PROXY_PROCESSES] = PROCESS_METRIC_ROWS,
};

_Static_assert(sizeof proxy_metrics / sizeof *proxy_metrics == PROXY_METRIC_COUNT, "one row for each id");

size_t proxy_metric_of_success(bool tls13, enum key_type key_type)
{
    return (size_t)(tls13 ? PROXY_SUCCEEDED_TLS13 : PROXY_SUCCEEDED_TLS12) + key_type;
}

size_t proxy_metric_of_key_error(uint8_t error)
{
    static const uint16_t METRICS[256] = {
        [KSSL_ERROR_CRYPTO] = PROXY_KEY_ERROR_CRYPTO,
        [KSSL_ERROR_KEY_NOT_FOUND] = PROXY_KEY_ERROR_KEY,
        [KSSL_ERROR_BAD_OPCODE] = PROXY_KEY_ERROR_OPCODE,
        [KSSL_ERROR_FORMAT] = PROXY_KEY_ERROR_FORMAT,
        [KSSL_ERROR_INTERNAL] = PROXY_KEY_ERROR_INTERNAL,
        [KSSL_ERROR_POLICY] = PROXY_KEY_ERROR_POLICY,
        [KSSL_ERROR_CONTENT] = PROXY_KEY_ERROR_CONTENT,
        [KSSL_ERROR_RATE] = PROXY_KEY_ERROR_RATE,
        [KSSL_ERROR_REPLAY] = PROXY_KEY_ERROR_REPLAY,
        [KSSL_ERROR_OVERLOADED] = PROXY_KEY_ERROR_OVERLOADED,
    };
    return METRICS[error] != 0 ? METRICS[error] : PROXY_KEY_ERROR_OTHER;
}
