#include "keyserver/rsa_public.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>

#include "common/key_id.h"

struct rsa_public {
    BIGNUM *modulus, *exponent;
    BIGNUM *signature, *opened;
    BN_MONT_CTX *montgomery;
    BN_CTX *scratch;
};

static bool prepare(struct rsa_public *public, const EVP_PKEY *key)
{
    public->signature = BN_new();
    public->opened = BN_new();
    public->montgomery = BN_MONT_CTX_new();
    public->scratch = BN_CTX_new();
    return public->signature != NULL && public->opened != NULL && public->montgomery != NULL &&
           public->scratch != NULL &&
           EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &public->modulus) == 1 &&
           EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &public->exponent) == 1 &&
           BN_MONT_CTX_set(public->montgomery, public->modulus, public->scratch) == 1;
}

struct rsa_public *rsa_public_new(const EVP_PKEY *key)
{
    struct rsa_public *public = calloc(1, sizeof *public);
    if (public != NULL && prepare(public, key))
        return public;
    rsa_public_free(public);
    return NULL;
}

void rsa_public_free(struct rsa_public *public)
{
    if (public == NULL)
        return;
    BN_free(public->modulus);
    BN_free(public->exponent);
    BN_free(public->signature);
    BN_free(public->opened);
    BN_MONT_CTX_free(public->montgomery);
    BN_CTX_free(public->scratch);
    free(public);
}

bool rsa_public_opens(struct rsa_public *public, struct bytes signature, struct bytes block)
{
    uint8_t opened[KEY_RSA_MAX_BITS / 8];
    return signature.size == block.size && block.size <= sizeof opened &&
           BN_bin2bn(signature.data, (int)signature.size, public->signature) != NULL &&
           BN_mod_exp_mont(public->opened, public->signature, public->exponent, public->modulus,
                           public->scratch, public->montgomery) == 1 &&
           BN_bn2binpad(public->opened, opened, (int)block.size) == (int)block.size &&
           memcmp(opened, block.data, block.size) == 0;
}
