#include "proxy/proxy_metrics.h"

#define HANDSHAKES   "keyless_handshakes_total"
#define KEY_REQUESTS "keyless_key_requests_total"
#define BYTES        "keyless_client_bytes_total"
#define BACKEND      "keyless_backend_connects_total"
#define CLOSED       "keyless_connections_closed_total"
#define PAUSED       "keyless_accept_paused_total"

#define HANDSHAKES_HELP   "TLS handshakes with clients that have ended, by outcome."
#define KEY_REQUESTS_HELP "Signatures asked of key servers, by outcome."
#define BYTES_HELP        "Plaintext bytes relayed, by direction."
#define CLOSED_HELP       "Client connections ended, by reason."
#define PAUSED_HELP       "Times that accepting paused, for want of descriptors or at limits.connections."
#define BACKEND_HELP      "Connections to backends tried, by outcome."

const struct metric proxy_metrics[] = {
    [PROXY_HANDSHAKES_OK] = {HANDSHAKES, "outcome=\"ok\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_CLIENT_GONE] = {HANDSHAKES, "outcome=\"client_gone\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_CLIENT] = {HANDSHAKES, "outcome=\"client\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_KEY] = {HANDSHAKES, "outcome=\"key\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_ABORTED] = {HANDSHAKES, "outcome=\"aborted\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKES_INTERNAL] = {HANDSHAKES, "outcome=\"internal\"", METRIC_COUNTER, HANDSHAKES_HELP},
    [PROXY_HANDSHAKE_SECONDS] = {"keyless_handshake_duration_seconds", NULL, METRIC_HISTOGRAM,
                                 "Time from the first byte wanted to the end of a successful handshake."},
    [PROXY_FIBRES_EXHAUSTED] = {"keyless_fibres_exhausted_total", NULL, METRIC_COUNTER,
                                "Handshakes that had to wait because limits.handshakes were in progress."},

    [PROXY_KEY_REQUESTS_OK] = {KEY_REQUESTS, "outcome=\"ok\"", METRIC_COUNTER, KEY_REQUESTS_HELP},
    [PROXY_KEY_REQUESTS_ERROR] = {KEY_REQUESTS, "outcome=\"error\"", METRIC_COUNTER, KEY_REQUESTS_HELP},
    [PROXY_KEY_REQUESTS_TIMEOUT] = {KEY_REQUESTS, "outcome=\"timeout\"", METRIC_COUNTER, KEY_REQUESTS_HELP},
    [PROXY_KEY_REQUESTS_NO_SERVER] = {KEY_REQUESTS, "outcome=\"no_server\"", METRIC_COUNTER,
                                      KEY_REQUESTS_HELP},
    [PROXY_KEY_REQUESTS_INVALID] = {KEY_REQUESTS, "outcome=\"invalid\"", METRIC_COUNTER, KEY_REQUESTS_HELP},
    [PROXY_KEY_REQUESTS_CANCELLED] = {KEY_REQUESTS, "outcome=\"cancelled\"", METRIC_COUNTER,
                                      KEY_REQUESTS_HELP},
    [PROXY_KEY_REQUESTS_REFUSED] = {KEY_REQUESTS, "outcome=\"refused\"", METRIC_COUNTER, KEY_REQUESTS_HELP},
    [PROXY_KEY_SECONDS] = {"keyless_key_request_duration_seconds", NULL, METRIC_HISTOGRAM,
                           "Time from the request for a signature to its answer, queueing included."},
    [PROXY_KEY_WRONG] = {"keyless_key_signatures_wrong_total", NULL, METRIC_COUNTER,
                         "Signatures returned by a key server that did not verify with the public key."},
    [PROXY_KEY_RESENT] = {"keyless_key_requests_resent_total", NULL, METRIC_COUNTER,
                          "Requests sent again because their channel was lost."},
    [PROXY_KEY_LATE] = {"keyless_key_answers_late_total", NULL, METRIC_COUNTER,
                        "Answers dropped because nobody waits for them any more."},
    [PROXY_KEY_PENDING] = {"keyless_key_requests_pending", NULL, METRIC_GAUGE,
                           "Signatures that handshakes are waiting for."},
    [PROXY_KEY_CHANNELS_UP] = {"keyless_key_channels_up", NULL, METRIC_GAUGE,
                               "Channels to key servers that are ready for use."},
    [PROXY_KEY_CHANNELS_LOST] = {"keyless_key_channels_lost_total", NULL, METRIC_COUNTER,
                                 "Channels to key servers that were ready and then ended."},
    [PROXY_KEY_CONNECT_FAILED] = {"keyless_key_connects_failed_total", NULL, METRIC_COUNTER,
                                  "Attempts to reach a key server that failed."},
    [PROXY_KEY_CLOCK_SKEWED] = {"keyless_key_channels_clock_skewed", NULL, METRIC_GAUGE,
                                "Channels whose key server's clock is more than 60 s from ours."},

    [PROXY_CONNECTIONS_ACCEPTED] = {"keyless_connections_total", NULL, METRIC_COUNTER,
                                    "Client connections accepted."},
    [PROXY_CONNECTIONS_OPEN] = {"keyless_connections_open", NULL, METRIC_GAUGE, "Client connections open."},
    [PROXY_CONNECTIONS_FINISHED] = {CLOSED, "reason=\"finished\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_HANDSHAKE_FAILED] = {CLOSED, "reason=\"handshake_failed\"", METRIC_COUNTER,
                                            CLOSED_HELP},
    [PROXY_CONNECTIONS_NO_BACKEND] = {CLOSED, "reason=\"no_backend\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_CLIENT_LOST] = {CLOSED, "reason=\"client_lost\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_CLIENT_BROKEN] = {CLOSED, "reason=\"client_broken\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_BACKEND_LOST] = {CLOSED, "reason=\"backend_lost\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_IDLE] = {CLOSED, "reason=\"idle\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_INTERNAL] = {CLOSED, "reason=\"internal\"", METRIC_COUNTER, CLOSED_HELP},
    [PROXY_CONNECTIONS_TRUNCATED] = {"keyless_connections_truncated_total", NULL, METRIC_COUNTER,
                                     "Connections that the client ended without close_notify."},
    [PROXY_ACCEPT_PAUSED_DESCRIPTORS] = {PAUSED, "reason=\"descriptors\"", METRIC_COUNTER, PAUSED_HELP},
    [PROXY_ACCEPT_PAUSED_LIMIT] = {PAUSED, "reason=\"limit\"", METRIC_COUNTER, PAUSED_HELP},
    [PROXY_BACKEND_CONNECTED] = {BACKEND, "outcome=\"ok\"", METRIC_COUNTER, BACKEND_HELP},
    [PROXY_BACKEND_FAILED] = {BACKEND, "outcome=\"failed\"", METRIC_COUNTER, BACKEND_HELP},
    [PROXY_BYTES_FROM_CLIENTS] = {BYTES, "direction=\"in\"", METRIC_COUNTER, BYTES_HELP},
    [PROXY_BYTES_TO_CLIENTS] = {BYTES, "direction=\"out\"", METRIC_COUNTER, BYTES_HELP},

    [PROXY_PROCESSES] = PROCESS_METRIC_ROWS,
};

_Static_assert(sizeof proxy_metrics / sizeof *proxy_metrics == PROXY_METRIC_COUNT, "one row for each id");
