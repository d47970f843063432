/* What keyless-bench asks a key server to sign, and whether a signature is right: TLS 1.3 CertificateVerify
 * contents, by our operations 0x61 or 0x63, or bare digests (of Ed25519, messages), by the operations that
 * every key server knows. */
#ifndef KEYLESS_BENCH_SIGNING_H
#define KEYLESS_BENCH_SIGNING_H

#include <stdbool.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/kssl.h"
#include "common/result.h"
#include "common/tls_message.h"
#include "tests/bench/sample.h"

#define SIGNING_SEED_SIZE                                                                                    \
    64 /* random octets: a handshake's randoms; or a hash, a digest or a message is made of the first */

_Static_assert(SIGNING_SEED_SIZE >= SAMPLE_SEED_SIZE, "both randoms of a handshake");

enum signing_mode {
    SIGNING_TBS,        /* operation 0x61 */
    SIGNING_TRANSCRIPT, /* 0x63 */
    SIGNING_DIGEST,     /* Part A's */
};

/* What to sign with. */
struct signing_choice {
    const char *site;   /* a PEM file with the certificate or the public key whose private half signs; of
                           SIGNING_TRANSCRIPT, the chain */
    const char *scheme; /* its name; NULL: the first that fits the key */
    const char *sni;    /* of SIGNING_TRANSCRIPT; NULL: the certificate's first name */
    enum signing_mode mode;
};

/* A plain value; zero it before signing_open. */
struct signing {
    EVP_PKEY *key;
    struct key_id id;
    const struct tls_scheme *scheme;
    enum signing_mode mode;
    const struct kssl_bare_operation *bare; /* of SIGNING_DIGEST */
    struct sample sample;                   /* of SIGNING_TRANSCRIPT */
    EVP_MD_CTX *verifier;
};

/* RESULT_CONFIG says what does not fit. */
MUST_CHECK enum result signing_open(struct signing *signing, const struct signing_choice *choice,
                                    struct failure *why);
void signing_close(struct signing *signing);

uint8_t signing_opcode(const struct signing *signing);
MUST_CHECK bool signing_request_write(const struct signing *signing, uint32_t id,
                                      const uint8_t seed[static SIGNING_SEED_SIZE], struct writer *frame);
/* Whether this is the signature that the request with this seed wanted. */
bool signing_good(const struct signing *signing, const uint8_t seed[static SIGNING_SEED_SIZE],
                  struct bytes signature);

#endif
