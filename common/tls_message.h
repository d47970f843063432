/*
 * The contents that a TLS server signs, built and recognised, and the signature schemes it signs them with.
 * Pure: bytes in, values out; nothing here does I/O or allocates.
 */
#ifndef KEYLESS_COMMON_TLS_MESSAGE_H
#define KEYLESS_COMMON_TLS_MESSAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/result.h"

/* ---- Signature schemes (RFC 8446 section 4.2.3). */

enum tls_padding { TLS_PADDING_NONE, TLS_PADDING_PKCS1, TLS_PADDING_PSS };

struct tls_scheme {
    uint16_t code;
    const char *name; /* as in the registry: "ecdsa_secp256r1_sha256" */
    const char *hash; /* OpenSSL's digest name, NULL for EdDSA */
    size_t hash_size; /* octets, 0 for EdDSA */
    enum tls_padding padding;
    enum key_type curve; /* the one key type it may be used with in TLS 1.3; RSA for the RSA schemes */
};

/* The scheme with this code, or NULL for one that nobody may sign with here. */
const struct tls_scheme *tls_scheme_find(uint16_t code);
/* The one of this name, or NULL. */
const struct tls_scheme *tls_scheme_named(const char *name);
/* One after the other, beginning with the one after NULL; NULL at the end. */
const struct tls_scheme *tls_scheme_next(const struct tls_scheme *scheme);
/* Whether a key of this type may sign with the scheme in a TLS 1.3 CertificateVerify: protocol's table. */
bool tls_scheme_fits_tls13(const struct tls_scheme *scheme, enum key_type type);
/* ... in a TLS 1.2 ServerKeyExchange, where an ECDSA hash is not bound to a curve and PKCS#1 is allowed. */
bool tls_scheme_fits_tls12(const struct tls_scheme *scheme, enum key_type type);

/* ---- TLS 1.3 CertificateVerify (RFC 8446 section 4.4.3). */

#define TLS_TRANSCRIPT_HASH_MAX    48
#define TLS_CERTIFICATE_VERIFY_MAX (64 + 33 + 1 + TLS_TRANSCRIPT_HASH_MAX)

/* 64 spaces, the server's context string, a zero, the hash; false unless hash is 32 or 48 octets. */
MUST_CHECK bool tls_certificate_verify_write(struct writer *to, struct bytes hash);
/* Recognises exactly that content; *hash borrows from content. */
MUST_CHECK bool tls_certificate_verify_parse(struct bytes content, struct bytes *hash);
/* Whether it begins with 64 spaces, as whatever is signed in TLS 1.3 does: a client's CertificateVerify and a
 * delegated credential too. */
bool tls_content_is_tls13(struct bytes content);

/* ---- TLS 1.2 ServerKeyExchange (RFC 8422 section 5.4). */

#define TLS_RANDOM_SIZE             32
#define TLS_ECDH_PARAMS_MAX         137
#define TLS_SERVER_KEY_EXCHANGE_MAX (2 * TLS_RANDOM_SIZE + TLS_ECDH_PARAMS_MAX)

struct tls_server_key_exchange {
    uint8_t client_random[TLS_RANDOM_SIZE];
    uint8_t server_random[TLS_RANDOM_SIZE];
    uint16_t group;      /* NamedGroup */
    struct bytes point;  /* borrowed */
    struct bytes params; /* borrowed: curve_type, group, length, point as sent */
};

/* Splits client_random || server_random || params and checks the form of params: a known named group, a point
 * of exactly its length, nothing behind it. Whether the point is on its curve: tls_ecdh_point_valid. */
MUST_CHECK bool tls_server_key_exchange_parse(struct bytes content, struct tls_server_key_exchange *parts);
/* The params part alone, by the same rules. */
MUST_CHECK bool tls_ecdh_params_parse(struct bytes params, uint16_t *group, struct bytes *point);
/* Uncompressed and on the curve (NIST); any 32 or 56 octets (X25519, X448). Uses OpenSSL, may allocate. */
MUST_CHECK bool tls_ecdh_point_valid(uint16_t group, struct bytes point);
/* client_random || server_random || params */
MUST_CHECK bool tls_server_key_exchange_write(struct writer *to, const struct tls_server_key_exchange *parts);
/* Whether server_random ends in the mark of a TLS 1.3 server that negotiated 1.2 (RFC 8446 section 4.1.3). */
bool tls_random_has_downgrade_12(const uint8_t random[static TLS_RANDOM_SIZE]);
/* ... or in the one for TLS 1.1 and below ("DOWNGRD" 00), which nothing of ours ever negotiates. */
bool tls_random_has_downgrade_11(const uint8_t random[static TLS_RANDOM_SIZE]);

#endif
