/*
 * The public operation of one RSA key, prepared: what a signature is checked with before it leaves. It has
 * its own copy of the modulus, so that one that has changed in memory shows.
 */
#ifndef KEYLESS_KEYSERVER_RSA_PUBLIC_H
#define KEYLESS_KEYSERVER_RSA_PUBLIC_H

#include <openssl/evp.h>

#include "common/bytes.h"
#include "common/result.h"

struct rsa_public;

/* NULL: not an RSA key (whose exponents are odd), or no memory. For one thread. */
struct rsa_public *rsa_public_new(const EVP_PKEY *key);
void rsa_public_free(struct rsa_public *public);

/* Whether the signature, opened, is this block. Both have the modulus's size. */
MUST_CHECK bool rsa_public_opens(struct rsa_public *public, struct bytes signature, struct bytes block);

#endif
