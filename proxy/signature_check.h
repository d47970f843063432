/* Whether a signature that a key server returned is one: checked with the certificate's public key before it
 * goes to a client. */
#ifndef KEYLESS_PROXY_SIGNATURE_CHECK_H
#define KEYLESS_PROXY_SIGNATURE_CHECK_H

#include <stdbool.h>
#include <stdint.h>

#include <openssl/evp.h>

#include "common/bytes.h"

/* scheme is a TLS SignatureScheme; false also for one that nobody may sign with. Leaves OpenSSL's error queue
 * as it was. */
bool signature_check(OSSL_LIB_CTX *libctx, EVP_PKEY *public_key, uint16_t scheme, struct bytes content,
                     struct bytes signature);

#endif
