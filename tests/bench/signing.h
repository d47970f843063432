/* What keyless-bench asks a key server to sign, and whether a signature is right: TLS 1.3 CertificateVerify
 * contents, by our operation 0x61, or bare digests (of Ed25519, messages), by the operations that every key
 * server knows. */
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

#define SIGNING_SEED_SIZE                                                                                    \
    64 /* random octets; a transcript hash, a digest or a message is made of the first */

/* A plain value; zero it before signing_open. */
struct signing {
    EVP_PKEY *key;
    struct key_id id;
    const struct tls_scheme *scheme;
    const struct kssl_bare_operation *bare; /* NULL: operation 0x61 */
    EVP_MD_CTX *verifier;
};

/* site: a file with the certificate or the public key (PEM) whose private half signs; scheme: its name, or
 * NULL for the first that fits the key. RESULT_CONFIG says what does not fit. */
MUST_CHECK enum result signing_open(struct signing *signing, const char *site, const char *scheme, bool bare,
                                    struct failure *why);
void signing_close(struct signing *signing);

uint8_t signing_opcode(const struct signing *signing);
MUST_CHECK bool signing_request_write(const struct signing *signing, uint32_t id,
                                      const uint8_t seed[static SIGNING_SEED_SIZE], struct writer *frame);
/* Whether this is the signature that the request with this seed wanted. */
bool signing_good(const struct signing *signing, const uint8_t seed[static SIGNING_SEED_SIZE],
                  struct bytes signature);

#endif
