/*
 * The blocks that RSA signatures are made of (RFC 8017 section 9): a digest, padded to the octets of the
 * modulus. Pure but for PSS's random salt.
 */
#ifndef KEYLESS_KEYSERVER_RSA_BLOCK_H
#define KEYLESS_KEYSERVER_RSA_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "common/bytes.h"
#include "common/result.h"

/* PKCS#1 v1.5: the digest behind its DigestInfo; of "MD5-SHA1" alone. False: no such hash, a digest of
 * another size than its, or a block that is too small. hash is OpenSSL's name. */
MUST_CHECK bool rsa_block_pkcs1(const char *hash, struct bytes digest, uint8_t *block, size_t size);

/* PSS, with MGF1 of the same hash and a salt as long as the digest, for a modulus of so many bits. context is
 * for hashing. False: a digest of another size than the hash's, too small a modulus, or libcrypto failed. */
MUST_CHECK bool rsa_block_pss(EVP_MD_CTX *context, const EVP_MD *hash, struct bytes digest, unsigned bits,
                              uint8_t *block);

#endif
