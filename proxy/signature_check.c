#include "proxy/signature_check.h"

#include <event2/util.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rsa.h>

#include "common/tls_message.h"

/* Schemes with a digest that one key may be used with: in TLS 1.2 three hashes, for RSA with two paddings. */
#define PREPARED_MAX 6

/* Everything that is fetched from a provider for a scheme, once and not for each signature. */
struct prepared {
    uint16_t scheme;
    EVP_MD *hash;
    EVP_PKEY_CTX *context;
};

struct signature_check {
    OSSL_LIB_CTX *libctx;
    EVP_PKEY *public_key;
    enum key_type type;
    struct prepared prepared[PREPARED_MAX];
    unsigned prepared_count;

    struct {
        uint32_t trust;
        unsigned seen; /* since trust changed, up to SIGNATURE_CHECK_FIRST */
    } servers[SIGNATURE_CHECK_SERVERS];
    uint32_t chance; /* random bits not yet used */
};

_Static_assert(SIGNATURE_CHECK_ONE_IN == 16, "a chance is four bits");

struct signature_check *signature_check_new(OSSL_LIB_CTX *libctx, EVP_PKEY *public_key, enum key_type type)
{
    struct signature_check *check = OPENSSL_zalloc(sizeof *check);
    if (check == NULL || EVP_PKEY_up_ref(public_key) != 1) {
        OPENSSL_free(check);
        return NULL;
    }
    check->libctx = libctx;
    check->public_key = public_key;
    check->type = type;
    return check;
}

static void prepared_clear(struct prepared *prepared)
{
    EVP_PKEY_CTX_free(prepared->context);
    EVP_MD_free(prepared->hash);
}

void signature_check_free(struct signature_check *check)
{
    if (check == NULL)
        return;
    for (unsigned i = 0; i < check->prepared_count; i++)
        prepared_clear(&check->prepared[i]);
    EVP_PKEY_free(check->public_key);
    OPENSSL_free(check);
}

/* ---- Which ones. */

/* Another bit stands above the chances that are left: when it is alone, all are used. */
static bool chance_hits(struct signature_check *check)
{
    if (check->chance <= 1) {
        evutil_secure_rng_get_bytes(&check->chance, sizeof check->chance);
        check->chance = check->chance >> 4 | UINT32_C(1) << 28;
    }
    bool hits = check->chance % SIGNATURE_CHECK_ONE_IN == 0;
    check->chance /= SIGNATURE_CHECK_ONE_IN;
    return hits;
}

bool signature_check_due(struct signature_check *check, size_t server, uint32_t trust)
{
    if (check->type == KEY_TYPE_RSA || server >= SIGNATURE_CHECK_SERVERS)
        return true;
    if (check->servers[server].trust != trust)
        check->servers[server].seen = 0;
    check->servers[server].trust = trust;
    if (check->servers[server].seen == SIGNATURE_CHECK_FIRST)
        return chance_hits(check);
    check->servers[server].seen++;
    return true;
}

/* ---- Checking. */

static bool context_set(EVP_PKEY_CTX *context, const EVP_MD *hash, enum tls_padding padding)
{
    if (EVP_PKEY_verify_init(context) != 1 || EVP_PKEY_CTX_set_signature_md(context, hash) != 1)
        return false;
    if (padding == TLS_PADDING_PKCS1)
        return EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) == 1;
    return padding == TLS_PADDING_NONE ||
           (EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PSS_PADDING) == 1 &&
            EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST) == 1);
}

static struct prepared *prepared_add(struct signature_check *check, const struct tls_scheme *scheme)
{
    if (check->prepared_count == PREPARED_MAX)
        return NULL;
    struct prepared made = {
        .scheme = scheme->code,
        .hash = EVP_MD_fetch(check->libctx, scheme->hash, NULL),
        .context = EVP_PKEY_CTX_new_from_pkey(check->libctx, check->public_key, NULL),
    };
    if (made.hash == NULL || made.context == NULL || !context_set(made.context, made.hash, scheme->padding)) {
        prepared_clear(&made);
        return NULL;
    }
    struct prepared *place = &check->prepared[check->prepared_count++];
    *place = made;
    return place;
}

static struct prepared *prepared_find(struct signature_check *check, const struct tls_scheme *scheme)
{
    for (unsigned i = 0; i < check->prepared_count; i++)
        if (check->prepared[i].scheme == scheme->code)
            return &check->prepared[i];
    return prepared_add(check, scheme);
}

static bool verify_hashed(struct signature_check *check, const struct tls_scheme *scheme,
                          struct bytes content, struct bytes signature)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    const struct prepared *prepared = prepared_find(check, scheme);
    return prepared != NULL &&
           EVP_Digest(content.data, content.size, digest, &size, prepared->hash, NULL) == 1 &&
           EVP_PKEY_verify(prepared->context, signature.data, signature.size, digest, size) == 1;
}

/* EdDSA takes the content whole. */
static bool verify_whole(const struct signature_check *check, struct bytes content, struct bytes signature)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool verified =
        context != NULL &&
        EVP_DigestVerifyInit_ex(context, NULL, NULL, check->libctx, NULL, check->public_key, NULL) == 1 &&
        EVP_DigestVerify(context, signature.data, signature.size, content.data, content.size) == 1;
    EVP_MD_CTX_free(context);
    return verified;
}

bool signature_check_passes(struct signature_check *check, uint16_t scheme, struct bytes content,
                            struct bytes signature)
{
    const struct tls_scheme *found = tls_scheme_find(scheme);
    if (found == NULL || !tls_scheme_fits_tls12(found, check->type))
        return false;
    (void)ERR_set_mark();
    bool passes = found->hash != NULL ? verify_hashed(check, found, content, signature)
                                      : verify_whole(check, content, signature);
    (void)ERR_pop_to_mark();
    return passes;
}
