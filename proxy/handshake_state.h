/*
 * What the files of the handshake share:
 *
 *   handshake.c          one handshake: running libssl, and what became of it
 *   handshake_context.c  what all handshakes of a worker share: made once, after the fork
 *   handshake_sites.c    what libssl is told for the site that a client asks for
 *   handshake_choices.c  libssl's callbacks: name, certificates, application protocol
 *   handshake_clients.c  libssl's callbacks for client certificates
 *   handshake_staples.c  libssl's callback for OCSP responses
 *   handshake_tickets.c  libssl's callbacks for session tickets
 *   handshake_messages.c libssl's callback for each message: keeps the transcript
 */
#ifndef KEYLESS_PROXY_HANDSHAKE_STATE_H
#define KEYLESS_PROXY_HANDSHAKE_STATE_H

#include <openssl/provider.h>

#include "common/log_tally.h"
#include "proxy/client_auth.h"
#include "proxy/client_hello.h"
#include "proxy/handshake.h"
#include "proxy/handshake_reason.h"
#include "proxy/proxy_metrics.h"
#include "proxy/ready_chain.h"
#include "proxy/remote_key.h"
#include "proxy/ticket_source.h"
#include "proxy/tls_policy.h"
#include "proxy/transcript_capture.h"

#define POLICY_MARK_SIZE 32 /* SHA-256 */

/* What libssl is told of how to speak TLS: sites for which it is the same share it. */
struct handshake_policy {
    enum proxy_policy name;
    const struct client_auth *client_auth; /* NULL: clients are asked for no certificate */
    struct tls_policy tls;
    uint32_t schemes; /* as in struct client_hello */
    SSL_CTX *ssl_context;
    uint8_t mark[POLICY_MARK_SIZE]; /* a digest of how clients are spoken to */
};

/* How the clients of a site are served. */
struct handshake_site {
    const struct proxy_site *config; /* NULL: those of no site */
    const struct handshake_policy *policy;
    char *const *alpn;
    size_t alpn_count;
    const char *backend; /* NULL: the listener's */
    bool only_http11;    /* that backend */
};

struct handshake_context {
    const struct proxy_config *config;
    const struct certificates *certificates;
    const struct client_auths *client_auths;
    const struct staples *staples;
    struct log *log;
    struct metrics_row *metrics;
    OSSL_PROVIDER *provider;
    BIO_METHOD *bio_method;
    struct handshake_policy *policies; /* the first is that of no site: an SSL begins with it */
    size_t policy_count;
    struct handshake_site *sites; /* of no site, then in the order of the configuration */
    struct ticket_source *tickets;
    EVP_CIPHER *aes128, *aes256; /* of tickets; NULL: there are none */
    struct remote_signer signer;
    struct ready_chains *chains;
    bool has_fibres;
    struct log_tally too_many; /* handshakes refused as limits.handshakes waited */
};

struct handshake {
    struct handshake_context *context;
    SSL *ssl; /* NULL after handshake_take_ssl */
    BIO *bio; /* the SSL's */
    void (*wake)(void *owner);
    void *owner;
    bool only_http11;
    uint64_t started;

    enum handshake_state state;
    const char *stage;
    struct handshake_reason reason;
    struct handshake_facts facts;

    const struct handshake_site *site; /* from the ClientHello on */
    unsigned hellos;                   /* ClientHellos seen: two after a HelloRetryRequest */
    struct client_hello hello;
    const struct certificate *found[CERTIFICATES_PER_NAME]; /* held */
    size_t found_count;
    bool name_matched, certificates_set, stapled;
    struct client_identity *client; /* that has shown a certificate, good or not */
    bool denied;                    /* a good one, whose name is not allowed */

    struct remote_signature signature;
    struct transcript_capture transcript;
};

/* ---- handshake_sites.c */

MUST_CHECK enum result handshake_sites_make(struct handshake_context *context, struct failure *why);
void handshake_sites_free(struct handshake_context *context);

/* In the client-hello callback: finds the site that the name is of, and makes libssl serve it. false: no
 * memory. */
MUST_CHECK bool handshake_site_choose(struct handshake *handshake, SSL *ssl, struct bytes sni);

/* ---- handshake_choices.c */

/* From now on the context's handshakes, each its SSL's app data, are asked. */
void handshake_choices_set(SSL_CTX *context);
/* Lets go of the chains that were found for the client's name. */
void handshake_chains_drop(struct handshake *handshake);

/* ---- handshake_clients.c */

/* From now on the context verifies client certificates, where it is asked to. NULL: no context is. False: no
 * memory. */
MUST_CHECK bool handshake_clients_set(SSL_CTX *context, const struct client_auth *auth);
/* In the client-hello callback: has this client asked for a certificate. */
void handshake_clients_ask(SSL *ssl, const struct client_auth *auth);
/* Whether a session is good as far as it depends on the client's certificate. */
MUST_CHECK bool handshake_clients_session(const struct handshake *handshake, const SSL_SESSION *session);
/* When libssl is done: that the client has what it must have, whatever libssl made of it; notes who it is. */
MUST_CHECK bool handshake_clients_check(struct handshake *handshake);

/* ---- handshake_staples.c */

/* From now on the context's handshakes staple what there is. */
void handshake_staples_set(SSL_CTX *context);
/* Whether the site that the client asks for wants it. */
bool handshake_staples_on(const struct handshake *handshake);

/* ---- handshake_tickets.c */

/* From now on the context's handshakes make tickets and take them, as the configuration has it. False: no
 * memory, or libcrypto lacks what it takes. */
MUST_CHECK bool handshake_tickets_set(struct handshake_context *context);
/* In the client-hello callback, when the name is known: whether this client gets tickets, and whose it may
 * bring. */
void handshake_tickets_offer(SSL *ssl, const struct handshake *handshake);

/* ---- handshake_messages.c */

/* From now on the messages up to Certificate are kept for the signature, if the mode wants them and the
 * handshake turns out to be one of TLS 1.3. */
void handshake_messages_watch(struct handshake *handshake);
/* What was kept is given back, and nothing more is. */
void handshake_messages_leave(struct handshake *handshake);

#endif
