/*
 * Chains made ready for libssl: the leaf read whole, the stack of its issuers, the remote key, and the OCSP
 * response. A worker makes one when it first serves the chain, which takes about as long as a handshake, and
 * keeps the most recently used: of ten thousand chains few are busy.
 */
#ifndef KEYLESS_PROXY_READY_CHAIN_H
#define KEYLESS_PROXY_READY_CHAIN_H

#include <stddef.h>

#include <openssl/x509.h>

#include "common/result.h"
#include "proxy/certificates.h"
#include "proxy/remote_key.h"
#include "proxy/staples.h"

struct ready_chain {
    X509 *leaf;
    STACK_OF(X509) * issuers;
    EVP_PKEY *key;
};

struct ready_chains;

/* At most `most` of them; signer and staples are borrowed, staples may be NULL. NULL: no memory. */
struct ready_chains *ready_chains_new(size_t most, struct remote_signer *signer,
                                      const struct staples *staples);
void ready_chains_free(struct ready_chains *chains);

/* What the certificate is served with, good until the next call. NULL: it cannot be made ready; why is in
 * OpenSSL's error queue. */
const struct ready_chain *ready_chains_get(struct ready_chains *chains,
                                           const struct certificate *certificate);
/* The OCSP response to be shown with it now, good until the next call; size 0: there is none, or the
 * Certificate message would become too long for the key server with it. */
struct bytes ready_chains_staple(struct ready_chains *chains, const struct certificate *certificate);
size_t ready_chains_count(const struct ready_chains *chains);

#endif
