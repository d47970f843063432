#include "keyserver/rsa_public.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bn.h>
#include <openssl/core_names.h>

#include "common/key_id.h"

struct rsa_public {
    BIGNUM *modulus, *exponent;
    BIGNUM *signature, *opened;
    BIGNUM *power; /* the signature in Montgomery's form */
    BN_MONT_CTX *montgomery;
    BN_CTX *scratch;
};

static bool prepare(struct rsa_public *public, const EVP_PKEY *key)
{
    public->signature = BN_new();
    public->opened = BN_new();
    public->power = BN_new();
    public->montgomery = BN_MONT_CTX_new();
    public->scratch = BN_CTX_new();
    return public->signature != NULL && public->opened != NULL && public->power != NULL &&
           public->montgomery != NULL && public->scratch != NULL &&
           EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &public->modulus) == 1 &&
           EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &public->exponent) == 1 &&
           BN_is_odd(public->exponent) == 1 && BN_num_bits(public->exponent) > 1 &&
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
    BN_free(public->power);
    BN_MONT_CTX_free(public->montgomery);
    BN_CTX_free(public->scratch);
    free(public);
}

/* signature ^ exponent mod modulus, from left to right: nothing is secret, and an exponent of few bits, as
 * nearly all are, needs no table of powers. The exponent is odd, so the last step multiplies by the
 * signature, and by it as it is, which takes the result out of Montgomery's form. */
static bool open_signature(struct rsa_public *public)
{
    BIGNUM *power = public->opened;
    if (BN_to_montgomery(public->power, public->signature, public->montgomery, public->scratch) != 1 ||
        BN_copy(power, public->power) == NULL)
        return false;
    for (int bit = BN_num_bits(public->exponent) - 2; bit >= 0; bit--) {
        const BIGNUM *factor = bit == 0 ? public->signature : public->power;
        if (BN_mod_mul_montgomery(power, power, power, public->montgomery, public->scratch) != 1 ||
            (BN_is_bit_set(public->exponent, bit) == 1 &&
             BN_mod_mul_montgomery(power, power, factor, public->montgomery, public->scratch) != 1))
            return false;
    }
    return true;
}

bool rsa_public_opens(struct rsa_public *public, struct bytes signature, struct bytes block)
{
    uint8_t opened[KEY_RSA_MAX_BITS / 8];
    return signature.size == block.size && block.size <= sizeof opened &&
           BN_bin2bn(signature.data, (int)signature.size, public->signature) != NULL &&
           BN_ucmp(public->signature, public->modulus) < 0 && open_signature(public) &&
           BN_bn2binpad(public->opened, opened, (int)block.size) == (int)block.size &&
           memcmp(opened, block.data, block.size) == 0;
}
