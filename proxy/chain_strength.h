/*
 * Whether libssl will serve a certificate, asked before a client comes: it refuses keys and signatures below
 * its security level. The answer for a leaf goes by the kind of its key and of its signature, so that it is
 * asked once for each: to read a leaf with its key takes libcrypto 3.0 ten times as long as without.
 */
#ifndef KEYLESS_PROXY_CHAIN_STRENGTH_H
#define KEYLESS_PROXY_CHAIN_STRENGTH_H

#include <openssl/x509.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/result.h"

struct chain_strength;

MUST_CHECK enum result chain_strength_new(struct chain_strength **strength, struct failure *why);
void chain_strength_free(struct chain_strength *strength);

/* leaf is the parsed form of der, its key need not be readable; key is the key's identity. */
MUST_CHECK enum result chain_strength_leaf(struct chain_strength *strength, X509 *leaf, struct bytes der,
                                           const struct key_id *key, struct failure *why);
MUST_CHECK enum result chain_strength_issuer(struct chain_strength *strength, X509 *issuer,
                                             struct failure *why);

#endif
