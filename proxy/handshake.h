/*
 * One client's TLS handshake, run on a fibre (ASYNC_JOB) and parked while its signature is pending. It knows
 * libssl, the ClientHello, the chains and the key client; it knows no events and no backend.
 *
 * What handshake_run returns, and what its caller then does:
 *
 *   WANT_READ   call again when the socket is ready
 *   WANT_WRITE  the same
 *   WANT_KEY    call again when wake() is called. Until then watch the socket only for the client's leaving
 *               (handshake_abort)
 *   DONE        handshake_take_ssl gives the connection
 *   FAILED      handshake_failure says at which stage and why; an alert went out where TLS has one
 *
 * handshake_free is legal in every state, also while a signature is pending: the operation is cancelled and
 * the fibre resumed once, so that it ends. How each handshake ended is counted here (proxy_metrics.h).
 */
#ifndef KEYLESS_PROXY_HANDSHAKE_H
#define KEYLESS_PROXY_HANDSHAKE_H

#include <stdbool.h>
#include <stdint.h>

#include <openssl/ssl.h>

#include "common/address.h"
#include "common/bytes.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"
#include "proxy/certificates.h"
#include "proxy/client_auth.h"
#include "proxy/client_identity.h"
#include "proxy/config.h"
#include "proxy/handshake_reason.h"
#include "proxy/key_client.h"
#include "proxy/staples.h"
#include "proxy/ticket_source.h"

/* What all handshakes of a worker share: SSL_CTXs, remote keys, fibres. Made once, after the fork. */
struct handshake_context;

/* All of it borrowed. */
struct handshake_settings {
    const struct proxy_config *config;
    const struct certificates *certificates;
    const struct client_auths *client_auths; /* NULL: no client is asked for a certificate */
    const struct staples *staples;           /* NULL: nothing is stapled */
    struct key_client *client;
    struct ticket_source *tickets;
    struct log *log;
    struct metrics_row *metrics;
};

MUST_CHECK enum result handshake_context_new(const struct handshake_settings *settings,
                                             struct handshake_context **context, struct failure *why);
/* After all of its handshakes, and all connections taken from them, are freed. */
void handshake_context_free(struct handshake_context *context);

enum handshake_state {
    HANDSHAKE_WANT_READ,
    HANDSHAKE_WANT_WRITE,
    HANDSHAKE_WANT_KEY,
    HANDSHAKE_DONE,
    HANDSHAKE_FAILED,
};

struct handshake;

/* What is known of a handshake, as far as it has come. Names are unescaped bytes from the client: never print
 * them raw. */
#define HANDSHAKE_NAME_MAX 255
struct handshake_facts {
    uint8_t sni[HANDSHAKE_NAME_MAX];
    size_t sni_size; /* 0: none */
    uint8_t alpn[HANDSHAKE_NAME_MAX];
    size_t alpn_size;      /* the protocol selected; 0: none */
    const char *version;   /* "TLSv1.3" */
    const char *suite;     /* "TLS_AES_128_GCM_SHA256" */
    const char *group;     /* "X25519", "P-256" */
    const char *scheme;    /* "ecdsa_secp256r1_sha256"; NULL: no signature was asked for */
    const char *operation; /* that the key server was asked for: "sign-transcript"; NULL with scheme */
    const struct client_identity *client; /* by the certificate that it has shown, good or not; NULL: none */
    const char *backend;                  /* of the site that the client asked for; NULL: the listener's */
    enum key_type key_type;
    bool resumed;
    const char *key_server; /* which one signed, or was asked last; NULL: none */
    uint64_t key_duration;  /* microseconds that its answer took, as this side saw it; 0: there was none */
    uint64_t duration;      /* microseconds from handshake_new to the end */
    unsigned retries;       /* HelloRetryRequests sent: 0 or 1 */
};

/* fd is borrowed, non-blocking. wake(owner) is called from the event loop, never from within a call to the
 * handshake. only_http11: the backend speaks no h2, so it is not negotiated. NULL: no memory. */
struct handshake *handshake_new(struct handshake_context *context, int fd, const struct address *client,
                                bool only_http11, void (*wake)(void *owner), void *owner);
void handshake_free(struct handshake *handshake);

enum handshake_state handshake_run(struct handshake *handshake);

const struct handshake_facts *handshake_facts(const struct handshake *handshake);
/* stage: "client hello", "certificate", "key", "finished"; reason: a short text; both borrowed. */
void handshake_failure(const struct handshake *handshake, const char **stage, const char **reason);
/* What kind of thing went wrong. */
enum handshake_class handshake_failure_class(const struct handshake *handshake);
/* The signature that was asked for, by the name under which the key server logs it; NULL: none was. */
const char *handshake_request(const struct handshake *handshake);
/* Fails the handshake from outside: sends the alert if there is one to send. */
enum handshake_abort { HANDSHAKE_ABORT_CLOSED, HANDSHAKE_ABORT_TIMEOUT, HANDSHAKE_ABORT_DROPPED };
void handshake_abort(struct handshake *handshake, enum handshake_abort why);

/* After DONE: the connection, owned by the caller, async mode off; the handshake keeps its facts. libssl may
 * have read more than the handshake: read once before waiting for the socket. */
SSL *handshake_take_ssl(struct handshake *handshake);

#endif
