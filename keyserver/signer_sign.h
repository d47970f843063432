/*
 * One thread's means of signing: contexts of libcrypto that are made once for each key and way of signing,
 * and used again. Nothing of it is shared with other threads, the private keys included (each thread has its
 * own duplicate), so no lock of OpenSSL's is ever waited for.
 */
#ifndef KEYLESS_KEYSERVER_SIGNER_SIGN_H
#define KEYLESS_KEYSERVER_SIGNER_SIGN_H

#include <stddef.h>
#include <stdint.h>

#include "common/kssl.h"
#include "common/result.h"
#include "keyserver/key_store.h"
#include "keyserver/sign_request.h"

struct signer_sign;

/* store is borrowed. NULL: no memory. */
struct signer_sign *signer_sign_new(struct key_store *store);
void signer_sign_free(struct signer_sign *sign);

/*
 * Rebuilds what the request is about and signs it with the key of this index, or decrypts a ciphertext. *size
 * is the room for the signature or block (the key's signature_size), then its size. KSSL_ERROR_CONTENT: a
 * point is not on its curve; KSSL_ERROR_CRYPTO: libcrypto refused; KSSL_ERROR_INTERNAL: the signature did not
 * verify (a fault of hardware or memory) and was destroyed.
 */
MUST_CHECK enum kssl_error signer_sign(struct signer_sign *sign, const struct sign_request *request,
                                       size_t key, uint8_t *signature, size_t *size);

#endif
