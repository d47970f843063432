/*
 * Private keys that live elsewhere: a built-in OpenSSL provider whose keys hold a public key and ask a
 * key client for signatures. libssl's one-shot DigestSign reaches it with the whole content to be signed;
 * inside an ASYNC_JOB it starts the operation and pauses the job until the answer is there.
 *
 * A paused job must be resumed once before its SSL is freed (34.5 kB and a fibre leak otherwise): the
 * handshake marks the operation cancelled and runs once more.
 */
#ifndef KEYLESS_PROXY_REMOTE_KEY_H
#define KEYLESS_PROXY_REMOTE_KEY_H

#include <stdbool.h>

#include <openssl/evp.h>
#include <openssl/types.h>

#include "common/key_id.h"
#include "common/result.h"
#include "proxy/key_client.h"

/* The signature that the running fibre waits for. One per handshake; the handshake sets signer->current to
 * its own before each call into libssl and to NULL after. */
struct remote_signature {
    struct key_operation operation; /* sni, client, done and owner are the handshake's to fill */
    bool waiting;                   /* the fibre is paused for it */
    bool finished;                  /* the answer is there (operation.result) */
    bool cancelled;                 /* the handshake is over: fail when resumed */
    unsigned count;                 /* signatures made in this handshake */
};

/* A worker's context of all its remote keys. */
struct remote_signer {
    struct key_client *client;
    struct remote_signature *current; /* NULL: nobody may sign now */
};

/* Loads the provider into libctx (NULL: the default one); unload with OSSL_PROVIDER_unload. */
MUST_CHECK enum result remote_key_provider_load(OSSL_LIB_CTX *libctx, OSSL_PROVIDER **provider,
                                                struct failure *why);

/* A private key whose public half is `public_key`, of which id is the identity, and whose signatures come
 * through signer (borrowed). Free with EVP_PKEY_free. */
MUST_CHECK enum result remote_key_new(OSSL_LIB_CTX *libctx, EVP_PKEY *public_key, const struct key_id *id,
                                      struct remote_signer *signer, EVP_PKEY **key, struct failure *why);

#endif
