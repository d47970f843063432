#include "proxy/remote_key.h"

#include <string.h>

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/provider.h>

#include "proxy/remote_key_private.h"

#define PROVIDER_NAME "keyless"
#define OURS          "provider=" PROVIDER_NAME
/* Everything about a public key is answered by the provider that its certificate was read with. */
#define NOT_OURS "provider!=" PROVIDER_NAME

/* No other provider has this name: with "RSA" or "ECDSA" libcrypto would fetch the default provider's
 * signature for our key, and then ask for the private half. */
#define SIGNATURE_NAME "KEYLESS-REMOTE"

/* The one parameter that makes a key a remote one; its value is the address of a struct key_source. */
#define PARAM_SOURCE "keyless-source"

struct key_source {
    EVP_PKEY *public_key;
    const struct key_id *id;
    struct remote_signer *signer;
};

/* ---- Key management: a key of ours is a public key and a way to have things signed. */

static struct remote_key *remote_key_alloc(void *provider, const char *algorithm)
{
    struct remote_key *key = OPENSSL_zalloc(sizeof *key);
    if (key != NULL) {
        key->libctx = provider;
        key->algorithm = algorithm;
    }
    return key;
}

static void *remote_key_alloc_rsa(void *provider)
{
    return remote_key_alloc(provider, "RSA");
}

static void *remote_key_alloc_ec(void *provider)
{
    return remote_key_alloc(provider, "EC");
}

static void *remote_key_alloc_ed25519(void *provider)
{
    return remote_key_alloc(provider, "ED25519");
}

static void *remote_key_alloc_ed448(void *provider)
{
    return remote_key_alloc(provider, "ED448");
}

static void remote_key_free(void *keydata)
{
    struct remote_key *key = keydata;
    if (key == NULL)
        return;
    EVP_PKEY_free(key->public_key);
    signature_check_free(key->check);
    OPENSSL_free(key);
}

/* The public half, handed over by libcrypto from another provider's key (EVP_PKEY_eq does that). */
static EVP_PKEY *public_key_from(const struct remote_key *key, const OSSL_PARAM params[])
{
    EVP_PKEY *public_key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(key->libctx, key->algorithm, NOT_OURS);
    if (context == NULL || EVP_PKEY_fromdata_init(context) <= 0 ||
        EVP_PKEY_fromdata(context, &public_key, EVP_PKEY_PUBLIC_KEY, (OSSL_PARAM *)params) <= 0)
        public_key = NULL;
    EVP_PKEY_CTX_free(context);
    return public_key;
}

static bool remote_key_attach(struct remote_key *key, const OSSL_PARAM *param)
{
    const void *value = NULL;
    size_t size = 0;
    struct key_source source;
    if (!OSSL_PARAM_get_octet_string_ptr(param, &value, &size) || size != sizeof source)
        return false;
    memcpy(&source, value, sizeof source);
    if (!EVP_PKEY_is_a(source.public_key, key->algorithm) || !EVP_PKEY_up_ref(source.public_key))
        return false;
    key->public_key = source.public_key;
    key->id = *source.id;
    key->signer = source.signer;
    key->check = signature_check_new(key->libctx, key->public_key, key->id.type);
    return key->check != NULL;
}

static int remote_key_import(void *keydata, int selection, const OSSL_PARAM params[])
{
    (void)selection;
    struct remote_key *key = keydata;
    if (key->public_key != NULL)
        return 0;
    const OSSL_PARAM *source = OSSL_PARAM_locate_const(params, PARAM_SOURCE);
    if (source != NULL)
        return remote_key_attach(key, source);
    key->public_key = public_key_from(key, params);
    return key->public_key != NULL && key_id_of(key->public_key, &key->id, NULL) == RESULT_OK;
}

/* What may come in: whatever the other providers' public keys consist of. */
static const OSSL_PARAM *remote_key_public_types(int selection)
{
    static const OSSL_PARAM types[] = {
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_END,
    };
    return (selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) != 0 ? types : NULL;
}

/* Nothing that could be taken for a private key ever leaves: with a lenient answer libssl signs elsewhere and
 * fails with "missing private key". */
static int remote_key_export(void *keydata, int selection, OSSL_CALLBACK *callback, void *argument)
{
    const struct remote_key *key = keydata;
    if ((selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) != 0 || key->public_key == NULL)
        return 0;
    return EVP_PKEY_export(key->public_key, selection, callback, argument);
}

static int remote_key_has(const void *keydata, int selection)
{
    const struct remote_key *key = keydata;
    if (key == NULL || key->public_key == NULL)
        return 0;
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0 || key->signer != NULL;
}

static int remote_key_match(const void *keydata1, const void *keydata2, int selection)
{
    const struct remote_key *a = keydata1;
    const struct remote_key *b = keydata2;
    if (a->public_key == NULL || b->public_key == NULL)
        return 0;
    if ((selection & OSSL_KEYMGMT_SELECT_KEYPAIR) == 0)
        return EVP_PKEY_parameters_eq(a->public_key, b->public_key) == 1;
    return a->id.type == b->id.type && key_ski_equal(a->id.ski, b->id.ski);
}

static int remote_key_get_params(void *keydata, OSSL_PARAM params[])
{
    const struct remote_key *key = keydata;
    return EVP_PKEY_get_params(key->public_key, params);
}

/* What libssl asks a key for; the answers are the public key's own. An empty "mandatory-digest" is how
 * Ed25519 and Ed448 say that they take none. */
static const OSSL_PARAM *remote_key_gettable_params(void *provider)
{
    (void)provider;
    static const OSSL_PARAM gettable[] = {
        OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
        OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_DEFAULT_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_MANDATORY_DIGEST, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_END,
    };
    return gettable;
}

static const char *remote_key_operation_name(int operation)
{
    return operation == OSSL_OP_SIGNATURE ? SIGNATURE_NAME : NULL;
}

/* ---- The provider. */

#define KEY_MANAGEMENT(table, allocate)                                                                      \
    static const OSSL_DISPATCH table[] = {                                                                   \
        DISPATCH(OSSL_FUNC_KEYMGMT_NEW, allocate),                                                           \
        DISPATCH(OSSL_FUNC_KEYMGMT_FREE, remote_key_free),                                                   \
        DISPATCH(OSSL_FUNC_KEYMGMT_HAS, remote_key_has),                                                     \
        DISPATCH(OSSL_FUNC_KEYMGMT_MATCH, remote_key_match),                                                 \
        DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT, remote_key_import),                                               \
        DISPATCH(OSSL_FUNC_KEYMGMT_IMPORT_TYPES, remote_key_public_types),                                   \
        DISPATCH(OSSL_FUNC_KEYMGMT_EXPORT, remote_key_export),                                               \
        DISPATCH(OSSL_FUNC_KEYMGMT_EXPORT_TYPES, remote_key_public_types),                                   \
        DISPATCH(OSSL_FUNC_KEYMGMT_GET_PARAMS, remote_key_get_params),                                       \
        DISPATCH(OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, remote_key_gettable_params),                             \
        DISPATCH(OSSL_FUNC_KEYMGMT_QUERY_OPERATION_NAME, remote_key_operation_name),                         \
        {0, NULL},                                                                                           \
    }

KEY_MANAGEMENT(KEYS_RSA, remote_key_alloc_rsa);
KEY_MANAGEMENT(KEYS_EC, remote_key_alloc_ec);
KEY_MANAGEMENT(KEYS_ED25519, remote_key_alloc_ed25519);
KEY_MANAGEMENT(KEYS_ED448, remote_key_alloc_ed448);

/* libssl recognises a key by these names: they must be the usual ones. */
static const OSSL_ALGORITHM KEY_ALGORITHMS[] = {
    {"RSA:rsaEncryption:1.2.840.113549.1.1.1", OURS, KEYS_RSA, "RSA key on a key server"},
    {"EC:id-ecPublicKey:1.2.840.10045.2.1", OURS, KEYS_EC, "EC key on a key server"},
    {"ED25519:1.3.101.112", OURS, KEYS_ED25519, "Ed25519 key on a key server"},
    {"ED448:1.3.101.113", OURS, KEYS_ED448, "Ed448 key on a key server"},
    {NULL, NULL, NULL, NULL},
};

static const OSSL_ALGORITHM SIGNATURE_ALGORITHMS[] = {
    {SIGNATURE_NAME, OURS, remote_signing, "signature made by a key server"},
    {NULL, NULL, NULL, NULL},
};

static const OSSL_ALGORITHM *provider_query(void *provider, int operation, int *no_cache)
{
    (void)provider;
    *no_cache = 0;
    if (operation == OSSL_OP_KEYMGMT)
        return KEY_ALGORITHMS;
    return operation == OSSL_OP_SIGNATURE ? SIGNATURE_ALGORITHMS : NULL;
}

static const OSSL_DISPATCH PROVIDER[] = {
    DISPATCH(OSSL_FUNC_PROVIDER_QUERY_OPERATION, provider_query),
    {0, NULL},
};

/* The provider's context is the library context that it is loaded into: legal for a built-in one only (see
 * core_get_libctx in provider-base(7)). NULL is the default one. */
static int provider_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                         void **provider)
{
    *provider = NULL;
    for (; in->function_id != 0; in++) {
        if (in->function_id == OSSL_FUNC_CORE_GET_LIBCTX)
            *provider = OSSL_FUNC_core_get_libctx(in)(handle);
    }
    *out = PROVIDER;
    return 1;
}

/* Whoever asks for "EC" without more must not get us: then every ephemeral key of libssl's would fail. The
 * provider loaded first wins. */
static enum result provider_order_check(OSSL_LIB_CTX *libctx, struct failure *why)
{
    EVP_KEYMGMT *keys = EVP_KEYMGMT_fetch(libctx, "EC", NULL);
    const OSSL_PROVIDER *from = keys != NULL ? EVP_KEYMGMT_get0_provider(keys) : NULL;
    bool ours = from == NULL || strcmp(OSSL_PROVIDER_get0_name(from), PROVIDER_NAME) == 0;
    EVP_KEYMGMT_free(keys);
    if (ours)
        return failure_set(why, RESULT_CRYPTO, "no OpenSSL provider of EC keys but our own is loaded");
    return RESULT_OK;
}

enum result remote_key_provider_load(OSSL_LIB_CTX *libctx, OSSL_PROVIDER **provider, struct failure *why)
{
    *provider = NULL;
    /* Loading any provider by name ends the automatic loading of the default one; and it must come first. It
     * is wanted for as long as the library context lives. */
    if (!OSSL_PROVIDER_available(libctx, "default") && OSSL_PROVIDER_load(libctx, "default") == NULL)
        return failure_set_openssl(why, "cannot load OpenSSL's default provider");
    if (!OSSL_PROVIDER_available(libctx, PROVIDER_NAME) &&
        !OSSL_PROVIDER_add_builtin(libctx, PROVIDER_NAME, provider_init))
        return failure_set_openssl(why, "cannot register the provider of remote keys");
    *provider = OSSL_PROVIDER_load(libctx, PROVIDER_NAME);
    if (*provider == NULL)
        return failure_set_openssl(why, "cannot load the provider of remote keys");
    enum result result = provider_order_check(libctx, why);
    if (result != RESULT_OK) {
        (void)OSSL_PROVIDER_unload(*provider);
        *provider = NULL;
    }
    return result;
}

static const char *algorithm_of(EVP_PKEY *public_key)
{
    static const char *const names[] = {"RSA", "EC", "ED25519", "ED448"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (EVP_PKEY_is_a(public_key, names[i]))
            return names[i];
    }
    return NULL;
}

enum result remote_key_new(OSSL_LIB_CTX *libctx, EVP_PKEY *public_key, const struct key_id *id,
                           struct remote_signer *signer, EVP_PKEY **key, struct failure *why)
{
    *key = NULL;
    const char *algorithm = algorithm_of(public_key);
    if (algorithm == NULL)
        return failure_set(why, RESULT_CONFIG, "a key of a type that no key server signs with");
    struct key_source source = {.public_key = public_key, .id = id, .signer = signer};
    OSSL_PARAM params[] = {
        OSSL_PARAM_octet_string(PARAM_SOURCE, &source, sizeof source),
        OSSL_PARAM_END,
    };
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(libctx, algorithm, OURS);
    bool made = context != NULL && EVP_PKEY_fromdata_init(context) > 0 &&
                EVP_PKEY_fromdata(context, key, EVP_PKEY_KEYPAIR, params) > 0;
    EVP_PKEY_CTX_free(context);
    return made ? RESULT_OK : failure_set_openssl(why, "cannot make a remote key");
}
