/*
 * Checks of the signatures that key servers return for one key, with its certificate's public key, before
 * they go to clients: a wrong key, a key of before a rotation or a faulty signer must not reach one.
 *
 * RSA signatures are all checked, which costs next to nothing. A check of another costs three times what the
 * signature did: there the first ones from a key server are checked, which finds a wrong key, and then a
 * sample that the key server cannot foresee.
 */
#ifndef KEYLESS_PROXY_SIGNATURE_CHECK_H
#define KEYLESS_PROXY_SIGNATURE_CHECK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "common/bytes.h"
#include "common/key_id.h"

#define SIGNATURE_CHECK_FIRST   256
#define SIGNATURE_CHECK_ONE_IN  16
#define SIGNATURE_CHECK_SERVERS 16

struct signature_check;

/* For one key in one worker. NULL: no memory. */
struct signature_check *signature_check_new(OSSL_LIB_CTX *libctx, EVP_PKEY *public_key, enum key_type type);
/* NULL is allowed. */
void signature_check_free(struct signature_check *check);

/* Whether the signature that has come now from this key server (its number, below SIGNATURE_CHECK_SERVERS) is
 * one to check. Counting begins anew with each new number of trust: after a reconnect, and after anything
 * that has failed. */
bool signature_check_due(struct signature_check *check, size_t server, uint32_t trust);

/* scheme is a TLS SignatureScheme; false also for one that nobody may sign with. Leaves OpenSSL's error queue
 * as it was. */
bool signature_check_passes(struct signature_check *check, uint16_t scheme, struct bytes content,
                            struct bytes signature);

#endif
