/*
 * What the files of the handshake share:
 *
 *   handshake.c          one handshake: running libssl, and what became of it
 *   handshake_context.c  what all handshakes of a worker share: made once, after the fork
 *   handshake_choices.c  libssl's callbacks: name, certificates, application protocol
 *   handshake_tickets.c  libssl's callbacks for session tickets
 *   handshake_messages.c libssl's callback for each message: keeps the transcript
 */
#ifndef KEYLESS_PROXY_HANDSHAKE_STATE_H
#define KEYLESS_PROXY_HANDSHAKE_STATE_H

#include <openssl/provider.h>

#include "proxy/client_hello.h"
#include "proxy/handshake.h"
#include "proxy/handshake_reason.h"
#include "proxy/remote_key.h"
#include "proxy/ticket_source.h"
#include "proxy/transcript_capture.h"

#define POLICY_MARK_SIZE 32 /* SHA-256 */

struct handshake_context {
    const struct proxy_config *config;
    const struct certificates *certificates;
    struct log *log;
    struct metrics_row *metrics;
    OSSL_PROVIDER *provider;
    BIO_METHOD *bio_method;
    SSL_CTX *ssl_context;
    struct ticket_source *tickets;
    EVP_CIPHER *aes128, *aes256;           /* of tickets; NULL: there are none */
    uint8_t policy_mark[POLICY_MARK_SIZE]; /* a digest of how clients are spoken to */
    uint32_t schemes;                      /* of the policy, as in struct client_hello */
    struct remote_signer signer;
    EVP_PKEY **keys; /* by certificate index */
    bool has_fibres;
};

struct handshake {
    struct handshake_context *context;
    SSL *ssl; /* NULL after handshake_take_ssl */
    BIO *bio; /* the SSL's */
    void (*wake)(void *owner);
    void *owner;
    bool only_http11, waited_for_fibre;
    uint64_t started;

    enum handshake_state state;
    const char *stage;
    struct handshake_reason reason;
    struct handshake_facts facts;

    unsigned hellos; /* ClientHellos seen: two after a HelloRetryRequest */
    struct client_hello hello;
    const struct certificate *found[CERTIFICATES_PER_NAME];
    size_t found_count;
    bool name_matched, certificates_set;

    struct remote_signature signature;
    struct transcript_capture transcript;
};

/* ---- handshake_choices.c */

/* From now on the context's handshakes, each its SSL's app data, are asked. */
void handshake_choices_set(SSL_CTX *context);

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
