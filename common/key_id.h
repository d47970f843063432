/* What a public key is called: its type, its SKI, and the digest that old peers use instead. */
#ifndef KEYLESS_COMMON_KEY_ID_H
#define KEYLESS_COMMON_KEY_ID_H

#include <stdbool.h>
#include <stdint.h>

#include <openssl/evp.h>
#include <openssl/types.h>

#include "common/bytes.h"
#include "common/result.h"

/* The numbers are those of the list operation's wire format and never change. */
enum key_type {
    KEY_TYPE_NONE = 0,
    KEY_TYPE_RSA = 1,
    KEY_TYPE_P256 = 2,
    KEY_TYPE_P384 = 3,
    KEY_TYPE_P521 = 4,
    KEY_TYPE_ED25519 = 5,
    KEY_TYPE_ED448 = 6,
};

#define KEY_ID_SKI_SIZE    20
#define KEY_ID_DIGEST_SIZE 32
#define KEY_RSA_MIN_BITS   2048
#define KEY_RSA_MAX_BITS   16384

struct key_id {
    enum key_type type;
    unsigned bits;                      /* RSA: of the modulus */
    size_t signature_size;              /* the largest signature, in octets */
    uint8_t ski[KEY_ID_SKI_SIZE];       /* SHA-1 of the contents of subjectPublicKey */
    uint8_t digest[KEY_ID_DIGEST_SIZE]; /* the legacy certificate digest; zero for EdDSA, which has none */
};

/*
 * Computes the identity of a key's public half. RESULT_CONFIG: a key of a kind we do not serve (RSASSA-PSS
 * OID, RSA out of bounds, another curve, DSA, explicit curve parameters); why says which. RESULT_CRYPTO: it
 * has no public half that we can read. Either way *id is zero.
 */
MUST_CHECK enum result key_id_of(EVP_PKEY *key, struct key_id *id, struct failure *why);
/* The same from a certificate's field, without making a key of it, which takes libcrypto 3.0 ten times as
 * long.
 */
MUST_CHECK enum result key_id_of_field(const X509_PUBKEY *field, struct key_id *id, struct failure *why);

const char *key_type_name(enum key_type type); /* "RSA", "P-256", ..., for logs */
bool key_ski_equal(const uint8_t a[static KEY_ID_SKI_SIZE], const uint8_t b[static KEY_ID_SKI_SIZE]);

#endif
