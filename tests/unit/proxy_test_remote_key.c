/* The provider of remote keys as libcrypto sees it, without libssl around. */
#include "proxy/remote_key.h"

#include <stdio.h>

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "tests/unit/check.h"

/* No key client: whatever would ask a key server crashes. */
static struct remote_signer signer;

static const struct {
    const char *name, *group;
    size_t signature_size;
} KEYS[] = {
    {"RSA", NULL, 256},       {"EC", "prime256v1", 72}, {"EC", "secp384r1", 104},
    {"EC", "secp521r1", 139}, {"ED25519", NULL, 64},    {"ED448", NULL, 114},
};

struct pair {
    OSSL_PROVIDER *provider;
    EVP_PKEY *whole, *public_key, *remote;
};

/* A key, its public half as a certificate would give it, and the remote key for it. */
static struct pair make_pair(size_t i)
{
    struct pair pair = {0};
    struct failure why;
    struct key_id id;
    unsigned char *der = NULL;
    if (remote_key_provider_load(NULL, &pair.provider, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    pair.whole = strcmp(KEYS[i].name, "RSA") == 0 ? EVP_RSA_gen(2048)
                 : KEYS[i].group != NULL          ? EVP_EC_gen(KEYS[i].group)
                                                  : EVP_PKEY_Q_keygen(NULL, NULL, KEYS[i].name);
    assert_non_null(pair.whole);
    int size = i2d_PUBKEY(pair.whole, &der);
    const unsigned char *at = der;
    pair.public_key = d2i_PUBKEY(NULL, &at, size);
    OPENSSL_free(der);
    assert_int_equal(key_id_of(pair.public_key, &id, &why), RESULT_OK);
    if (remote_key_new(NULL, pair.public_key, &id, &signer, &pair.remote, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    return pair;
}

static void free_pair(struct pair *pair)
{
    EVP_PKEY_free(pair->whole);
    EVP_PKEY_free(pair->public_key);
    EVP_PKEY_free(pair->remote);
    assert_int_equal(OSSL_PROVIDER_unload(pair->provider), 1);
    ERR_clear_error();
}

/* libssl takes it for what it is, and it goes with its certificate's key and no other. */
static void test_identity(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        struct pair pair = make_pair(i), other = make_pair(i);
        char group[32];
        CHECK(KEYS[i].name, EVP_PKEY_is_a(pair.remote, KEYS[i].name));
        CHECK(KEYS[i].name, EVP_PKEY_eq(pair.public_key, pair.remote) == 1);
        CHECK(KEYS[i].name, EVP_PKEY_eq(pair.remote, pair.public_key) == 1);
        CHECK(KEYS[i].name, EVP_PKEY_eq(other.public_key, pair.remote) != 1);
        CHECK(KEYS[i].name, EVP_PKEY_get_bits(pair.remote) == EVP_PKEY_get_bits(pair.whole));
        CHECK(KEYS[i].name, (size_t)EVP_PKEY_get_size(pair.remote) == KEYS[i].signature_size);
        if (KEYS[i].group != NULL) {
            CHECK(KEYS[i].name, EVP_PKEY_get_group_name(pair.remote, group, sizeof group, NULL) == 1);
            CHECK(KEYS[i].name, strcmp(group, KEYS[i].group) == 0);
        }
        free_pair(&other);
        free_pair(&pair);
    }
}

static void test_nothing_private_leaves(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        struct pair pair = make_pair(i);
        OSSL_PARAM *params = NULL;
        BIGNUM *number = NULL;
        unsigned char *der = NULL;
        CHECK(KEYS[i].name, EVP_PKEY_todata(pair.remote, EVP_PKEY_KEYPAIR, &params) != 1);
        CHECK(KEYS[i].name, EVP_PKEY_get_bn_param(pair.remote, OSSL_PKEY_PARAM_PRIV_KEY, &number) != 1);
        CHECK(KEYS[i].name, EVP_PKEY_get_bn_param(pair.remote, OSSL_PKEY_PARAM_RSA_D, &number) != 1);
        CHECK(KEYS[i].name, i2d_PrivateKey(pair.remote, &der) <= 0);
        CHECK(KEYS[i].name, EVP_PKEY_todata(pair.remote, EVP_PKEY_PUBLIC_KEY, &params) == 1);
        OSSL_PARAM_free(params);
        free_pair(&pair);
    }
}

/* ---- What libssl probes for. None of it may go to the key server. */

static const struct {
    size_t key;
    const char *hash;
    bool accepted;
} PROBES[] = {{0, "SHA256", true}, {0, "SHA2-384", true}, {0, "sha512", true},   {0, "SHA1", false},
              {0, "MD5", false},   {0, "SHA224", false},  {1, "SHA256", true},   {1, "SHA384", true},
              {1, "SHA1", false},  {2, "SHA256", true},   {4, NULL, true},       {4, "SHA512", false},
              {5, NULL, true},     {5, "SHA256", false},  {1, "SHA3-256", false}};

static void test_probes(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(PROBES); i++) {
        struct pair pair = make_pair(PROBES[i].key);
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        char row[64];
        size_t size = 0;
        (void)snprintf(row, sizeof row, "%s with %s", KEYS[PROBES[i].key].name,
                       PROBES[i].hash != NULL ? PROBES[i].hash : "no digest");
        int accepted = EVP_DigestSignInit_ex(context, NULL, PROBES[i].hash, NULL, NULL, pair.remote, NULL);
        CHECK(row, (accepted == 1) == PROBES[i].accepted);
        if (PROBES[i].accepted) {
            CHECK(row, EVP_DigestSign(context, NULL, &size, (const unsigned char *)"x", 1) == 1);
            CHECK(row, size == KEYS[PROBES[i].key].signature_size);
        }
        EVP_MD_CTX_free(context);
        free_pair(&pair);
    }
}

static void test_paddings(void **state)
{
    static const struct {
        size_t key;
        int padding, salt;
        bool accepted;
    } rows[] = {
        {0, RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_DIGEST, true},
        {0, RSA_PKCS1_PSS_PADDING, RSA_PSS_SALTLEN_MAX, false},
        {0, RSA_PKCS1_PSS_PADDING, 20, false},
        {0, RSA_NO_PADDING, RSA_PSS_SALTLEN_DIGEST, false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct pair pair = make_pair(rows[i].key);
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        EVP_PKEY_CTX *inner;
        assert_int_equal(EVP_DigestSignInit_ex(context, &inner, "SHA256", NULL, NULL, pair.remote, NULL), 1);
        bool accepted = EVP_PKEY_CTX_set_rsa_padding(inner, rows[i].padding) == 1 &&
                        EVP_PKEY_CTX_set_rsa_pss_saltlen(inner, rows[i].salt) == 1;
        assert_int_equal(accepted, rows[i].accepted);
        EVP_MD_CTX_free(context);
        free_pair(&pair);
    }
}

/* Outside of a handshake nobody is there to wait for the answer. */
static void test_no_signature_without_handshake(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        struct pair pair = make_pair(i);
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        unsigned char signature[512];
        size_t size = sizeof signature;
        const char *hash = strncmp(KEYS[i].name, "ED", 2) == 0 ? NULL : "SHA256";
        CHECK(KEYS[i].name, EVP_DigestSignInit_ex(context, NULL, hash, NULL, NULL, pair.remote, NULL) == 1);
        CHECK(KEYS[i].name, EVP_DigestSign(context, signature, &size, (const unsigned char *)"x", 1) != 1);
        EVP_MD_CTX_free(context);
        free_pair(&pair);
    }
}

/* Whoever wants an ordinary key gets one, with the provider loaded or not any more. */
static void test_other_keys_unharmed(void **state)
{
    (void)state;
    for (unsigned times = 0; times < 3; times++) {
        struct pair pair = make_pair(1);
        EVP_PKEY *ordinary = EVP_EC_gen("P-256");
        assert_non_null(ordinary);
        assert_string_equal(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(ordinary)), "default");
        EVP_PKEY_free(ordinary);
        free_pair(&pair);
        ordinary = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
        assert_non_null(ordinary);
        EVP_PKEY_free(ordinary);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_nothing_private_leaves),
        cmocka_unit_test(test_probes),
        cmocka_unit_test(test_paddings),
        cmocka_unit_test(test_no_signature_without_handshake),
        cmocka_unit_test(test_other_keys_unharmed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
