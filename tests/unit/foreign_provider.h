/*
 * A provider for tests whose keys show a few public parameters and nothing else, as those of a token do: no
 * export, no encoder, no private half.
 */
#ifndef KEYLESS_TESTS_UNIT_FOREIGN_PROVIDER_H
#define KEYLESS_TESTS_UNIT_FOREIGN_PROVIDER_H

#include <openssl/bn.h>
#include <openssl/core.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/params.h>
#include <openssl/provider.h>

#include "tests/unit/check.h"

struct foreign_key {
    OSSL_PARAM *params;
};

static void *foreign_key_new(void *provider)
{
    (void)provider;
    return calloc(1, sizeof(struct foreign_key));
}

static void foreign_key_free(void *opaque)
{
    struct foreign_key *key = opaque;
    OSSL_PARAM_free(key->params);
    free(key);
}

static int foreign_key_has(const void *key, int selection)
{
    (void)key;
    return (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY) == 0;
}

static int foreign_key_import(void *opaque, int selection, const OSSL_PARAM *params)
{
    struct foreign_key *key = opaque;
    (void)selection;
    key->params = OSSL_PARAM_dup(params);
    return key->params != NULL;
}

static const OSSL_PARAM *foreign_key_types(int selection)
{
    static const OSSL_PARAM TYPES[] = {
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_N, NULL, 0),
        OSSL_PARAM_BN(OSSL_PKEY_PARAM_RSA_E, NULL, 0),
        OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
        OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_PUB_KEY, NULL, 0),
        OSSL_PARAM_END,
    };
    (void)selection;
    return TYPES;
}

static const OSSL_PARAM *foreign_key_gettable(void *provider)
{
    (void)provider;
    return foreign_key_types(0);
}

static int foreign_param_copy(OSSL_PARAM *to, const OSSL_PARAM *from)
{
    BIGNUM *number = NULL;
    switch (from->data_type) {
    case OSSL_PARAM_UTF8_STRING:
        return OSSL_PARAM_set_utf8_string(to, from->data);
    case OSSL_PARAM_OCTET_STRING:
        return OSSL_PARAM_set_octet_string(to, from->data, from->data_size);
    default:;
        int ok = OSSL_PARAM_get_BN(from, &number) && OSSL_PARAM_set_BN(to, number);
        BN_free(number);
        return ok;
    }
}

static int foreign_key_get(void *opaque, OSSL_PARAM *params)
{
    const struct foreign_key *key = opaque;
    for (; params->key != NULL; params++) {
        const OSSL_PARAM *have = OSSL_PARAM_locate_const(key->params, params->key);
        if (have == NULL || !foreign_param_copy(params, have)) {
            ERR_raise(ERR_LIB_PROV,
                      ERR_R_UNSUPPORTED); /* ill-mannered: it should leave the parameter alone */
            return 0;
        }
    }
    return 1;
}

static const OSSL_ALGORITHM *foreign_query(void *provider, int operation, int *no_store)
{
    static const OSSL_DISPATCH FUNCTIONS[] = {
        {OSSL_FUNC_KEYMGMT_NEW, (void (*)(void))foreign_key_new},
        {OSSL_FUNC_KEYMGMT_FREE, (void (*)(void))foreign_key_free},
        {OSSL_FUNC_KEYMGMT_HAS, (void (*)(void))foreign_key_has},
        {OSSL_FUNC_KEYMGMT_IMPORT, (void (*)(void))foreign_key_import},
        {OSSL_FUNC_KEYMGMT_IMPORT_TYPES, (void (*)(void))foreign_key_types},
        {OSSL_FUNC_KEYMGMT_GET_PARAMS, (void (*)(void))foreign_key_get},
        {OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, (void (*)(void))foreign_key_gettable},
        {0, NULL},
    };
    static const OSSL_ALGORITHM KEYS[] = {
        {"RSA:rsaEncryption", "provider=foreign", FUNCTIONS, "keys that are elsewhere"},
        {"EC:id-ecPublicKey", "provider=foreign", FUNCTIONS, "keys that are elsewhere"},
        {"ED25519", "provider=foreign", FUNCTIONS, "keys that are elsewhere"},
        {"ED448", "provider=foreign", FUNCTIONS, "keys that are elsewhere"},
        {NULL, NULL, NULL, NULL},
    };
    (void)provider;
    *no_store = 0;
    return operation == OSSL_OP_KEYMGMT ? KEYS : NULL;
}

static int foreign_init(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *in, const OSSL_DISPATCH **out,
                        void **context)
{
    static const OSSL_DISPATCH PROVIDER[] = {
        {OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))foreign_query},
        {0, NULL},
    };
    (void)in;
    *out = PROVIDER;
    *context = (void *)(uintptr_t)handle;
    return 1;
}

/* A library context of its own: what happens there touches no other test. */
struct foreign_provider {
    OSSL_LIB_CTX *library;
    OSSL_PROVIDER *provider;
};

static inline struct foreign_provider *foreign_provider_load(void)
{
    struct foreign_provider *foreign = calloc(1, sizeof *foreign);
    assert_non_null(foreign);
    foreign->library = OSSL_LIB_CTX_new();
    assert_int_equal(OSSL_PROVIDER_add_builtin(foreign->library, "foreign", foreign_init), 1);
    foreign->provider = OSSL_PROVIDER_load(foreign->library, "foreign");
    assert_non_null(foreign->provider);
    return foreign;
}

static inline void foreign_provider_unload(struct foreign_provider *foreign)
{
    (void)OSSL_PROVIDER_unload(foreign->provider);
    OSSL_LIB_CTX_free(foreign->library);
    free(foreign);
}

/* A key of this type with these public parameters, in the foreign provider. */
static inline EVP_PKEY *foreign_provider_import(struct foreign_provider *foreign, const char *type,
                                                OSSL_PARAM *params)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(foreign->library, type, NULL);
    assert_non_null(context);
    assert_int_equal(EVP_PKEY_fromdata_init(context), 1);
    assert_int_equal(EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
    EVP_PKEY_CTX_free(context);
    ERR_clear_error();
    return key;
}

/* The public half of key; with group as the name of its curve if not NULL. */
static inline EVP_PKEY *foreign_provider_key(struct foreign_provider *foreign, EVP_PKEY *key,
                                             const char *type, const char *group)
{
    OSSL_PARAM name[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)(uintptr_t)group, 0),
        OSSL_PARAM_construct_end(),
    };
    OSSL_PARAM *all = NULL;
    assert_int_equal(EVP_PKEY_todata(key, EVP_PKEY_PUBLIC_KEY, &all), 1);
    OSSL_PARAM *renamed = OSSL_PARAM_merge(all, group != NULL ? name : NULL);
    EVP_PKEY *elsewhere = foreign_provider_import(foreign, type, renamed);
    OSSL_PARAM_free(renamed);
    OSSL_PARAM_free(all);
    return elsewhere;
}

#endif
