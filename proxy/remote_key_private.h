/* What the two halves of the provider of remote keys share: keys (remote_key.c) and signing with them
 * (remote_signing.c). Nobody else includes it. */
#ifndef KEYLESS_PROXY_REMOTE_KEY_PRIVATE_H
#define KEYLESS_PROXY_REMOTE_KEY_PRIVATE_H

#include <openssl/core.h>
#include <openssl/evp.h>

#include "common/key_id.h"
#include "proxy/remote_key.h"

struct remote_key {
    OSSL_LIB_CTX *libctx;
    const char *algorithm; /* "RSA", "EC", ... */
    EVP_PKEY *public_key;
    struct remote_signer *signer;  /* NULL: imported to be compared with, cannot sign */
    struct signature_check *check; /* NULL: without a signer */
    struct key_id id; /* two keys are the same when their identifiers are: so the key server sees it */
};

/* An entry of a provider's dispatch table. */
#define DISPATCH(id, function)                                                                               \
    {                                                                                                        \
        (id), (void (*)(void))(function)                                                                     \
    }

extern const OSSL_DISPATCH remote_signing[];

#endif
