/*
 * Whether a TLS 1.3 CertificateVerify may be signed over a whole transcript, ClientHello to Certificate: the
 * checks of operation 0x63. Pure but for libcrypto's hashes: it takes messages apart, knows nothing of keys
 * or clients, and allocates nothing that outlives a call.
 *
 * In the protocol's order: transcript_parse (the payload's syntax, 0x07); then the caller finds the key, the
 * leaf among that key's (0x02) and whether the scheme fits (0x01); transcript_check (0x41); transcript_hash;
 * and what the caller's policy says of SNI and ALPN (0x40).
 */
#ifndef KEYLESS_KEYSERVER_TRANSCRIPT_CHECK_H
#define KEYLESS_KEYSERVER_TRANSCRIPT_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/certificate_names.h"
#include "common/result.h"
#include "common/tls_handshake.h"
#include "common/tls_message.h"
#include "keyserver/site_certificates.h"

/* CH, HelloRetryRequest, CH, SH, EE, CertificateRequest, Certificate */
#define TRANSCRIPT_MESSAGES_MAX 7

struct transcript {
    struct bytes messages[TRANSCRIPT_MESSAGES_MAX];
    size_t count;
    bool retried, asks_certificate;
    struct tls_client_hello first; /* before a HelloRetryRequest; else the same as hello */
    struct tls_server_hello retry; /* if retried */
    struct tls_client_hello hello;
    struct tls_server_hello server;
    struct bytes encrypted_extensions;
    struct tls_certificate_request request; /* if asks_certificate */
    struct tls_certificate certificate;
    struct bytes sni;  /* as the client wrote it; data NULL: none */
    struct bytes alpn; /* what the server chose; data NULL: nothing */
};

/* The messages' order and form. False: *reason is a fixed text. */
MUST_CHECK bool transcript_parse(struct bytes messages, struct transcript *transcript, const char **reason);

/* Whether this name is the one in the ClientHello: as DNS names, so that case does not count. */
bool transcript_is_for(const struct transcript *transcript, struct bytes sni);

/* What the messages say: that they are one TLS 1.3 handshake over TCP in which client and server agree, with
 * this scheme, and for a name of this leaf, which is valid now (Unix seconds). False: *reason. */
MUST_CHECK bool transcript_check(const struct transcript *transcript, uint16_t scheme,
                                 const struct site_leaf *leaf, int64_t now, const char **reason);

/* A protocol that proves control of a name to a CA (RFC 8737), and so is never signed for. */
bool transcript_is_for_acme(const struct transcript *transcript);

/* The hash that CertificateVerify signs, of 32 or 48 octets; after a HelloRetryRequest the first ClientHello
 * is replaced by its own hash (RFC 8446 section 4.4.1). The transcript must have passed transcript_check.
 * False: libcrypto failed. */
MUST_CHECK bool transcript_hash(const struct transcript *transcript,
                                uint8_t hash[static TLS_TRANSCRIPT_HASH_MAX], size_t *size);

#endif
