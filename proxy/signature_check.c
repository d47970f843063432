#include "proxy/signature_check.h"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>

#include "common/tls_message.h"

static int verify(OSSL_LIB_CTX *libctx, EVP_PKEY *public_key, const struct tls_scheme *scheme,
                  struct bytes content, struct bytes signature)
{
    OSSL_PARAM pss[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_PAD_MODE, (char *)OSSL_PKEY_RSA_PAD_MODE_PSS,
                                         0),
        OSSL_PARAM_construct_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN,
                                         (char *)OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST, 0),
        OSSL_PARAM_construct_end(),
    };
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int verified = -1;
    if (context != NULL && EVP_DigestVerifyInit_ex(context, NULL, scheme->hash, libctx, NULL, public_key,
                                                   scheme->padding == TLS_PADDING_PSS ? pss : NULL) == 1)
        verified = EVP_DigestVerify(context, signature.data, signature.size, content.data, content.size);
    EVP_MD_CTX_free(context);
    return verified;
}

bool signature_check(OSSL_LIB_CTX *libctx, EVP_PKEY *public_key, uint16_t scheme, struct bytes content,
                     struct bytes signature)
{
    const struct tls_scheme *found = tls_scheme_find(scheme);
    if (found == NULL)
        return false;
    (void)ERR_set_mark();
    int verified = verify(libctx, public_key, found, content, signature);
    (void)ERR_pop_to_mark();
    return verified == 1;
}
