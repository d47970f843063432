/* Key identifiers: against those that X509_PUBKEY gives, in every form a key may be kept, and what is
 * refused. */
#include "common/key_id.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/decoder.h>
#include <openssl/ec.h>
#include <openssl/encoder.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "tests/unit/check.h"
#include "tests/unit/foreign_provider.h"

/* ---- Keys, and their identifiers computed another way. */

static EVP_PKEY *generated(const char *type, const char *group)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    assert_int_equal(EVP_PKEY_keygen_init(context), 1);
    if (group != NULL)
        assert_int_equal(EVP_PKEY_CTX_set_group_name(context, group), 1);
    assert_int_equal(EVP_PKEY_generate(context, &key), 1);
    EVP_PKEY_CTX_free(context);
    return key;
}

static EVP_PKEY *public_from(const char *type, OSSL_PARAM *params)
{
    EVP_PKEY *key = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    assert_int_equal(EVP_PKEY_fromdata_init(context), 1);
    assert_int_equal(EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params), 1);
    EVP_PKEY_CTX_free(context);
    return key;
}

/* RFC 5280 section 4.2.1.2 (1), from the key's SubjectPublicKeyInfo. */
static void ski_by_x509(EVP_PKEY *key, uint8_t ski[static KEY_ID_SKI_SIZE])
{
    X509_PUBKEY *info = NULL;
    const unsigned char *octets;
    int size;
    assert_int_equal(X509_PUBKEY_set(&info, key), 1);
    assert_int_equal(X509_PUBKEY_get0_param(NULL, &octets, &size, NULL, info), 1);
    assert_int_equal(EVP_Digest(octets, (size_t)size, ski, NULL, EVP_sha1(), NULL), 1);
    X509_PUBKEY_free(info);
}

static char *hex_of(EVP_PKEY *key, const char *name)
{
    BIGNUM *number = NULL;
    assert_int_equal(EVP_PKEY_get_bn_param(key, name, &number), 1);
    char *hex = BN_bn2hex(number);
    assert_non_null(hex);
    BN_free(number);
    return hex;
}

static void digest_of_text(const char *text, uint8_t digest[static KEY_ID_DIGEST_SIZE])
{
    assert_int_equal(EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(), NULL), 1);
}

static void digest_of_rsa(EVP_PKEY *key, uint8_t digest[static KEY_ID_DIGEST_SIZE])
{
    char *hex = hex_of(key, OSSL_PKEY_PARAM_RSA_N);
    digest_of_text(hex, digest);
    OPENSSL_free(hex);
}

/* The compressed point by hand: 02 or 03 by the parity of y, then x, padded on the left. */
static void digest_of_ec(EVP_PKEY *key, int field_octets, uint8_t digest[static KEY_ID_DIGEST_SIZE])
{
    char *x = hex_of(key, OSSL_PKEY_PARAM_EC_PUB_X), *y = hex_of(key, OSSL_PKEY_PARAM_EC_PUB_Y);
    bool odd = strchr("13579BDF", y[strlen(y) - 1]) != NULL;
    int zeros = 2 * field_octets - (int)strlen(x);
    char text[256];
    assert_true(zeros >= 0);
    (void)snprintf(text, sizeof text, "%s%.*s%s", odd ? "03" : "02", zeros, "0000000000000000", x);
    assert_int_equal(strlen(text), 2 + 2 * field_octets);
    digest_of_text(text, digest);
    OPENSSL_free(x);
    OPENSSL_free(y);
}

/* What is made of a key, and what of a certificate's field that holds it, are the same. */
static enum result key_id_of_both(EVP_PKEY *key, struct key_id *id, struct failure *why)
{
    struct key_id of_field;
    struct failure field_why = {0};
    X509_PUBKEY *field = NULL;
    *why = (struct failure){0};
    enum result result = key_id_of(key, id, why);
    if (strcmp(OSSL_PROVIDER_get0_name(EVP_PKEY_get0_provider(key)), "default") != 0)
        return result; /* a foreign key, which cannot be written into a certificate */
    assert_int_equal(X509_PUBKEY_set(&field, key), 1);
    assert_int_equal(key_id_of_field(field, &of_field, &field_why), result);
    X509_PUBKEY_free(field);
    assert_memory_equal(&of_field, id, sizeof of_field);
    assert_int_equal(field_why.kind, why->kind);
    assert_string_equal(field_why.text, why->text);
    return result;
}

static struct key_id identified(EVP_PKEY *key)
{
    struct key_id id;
    struct failure why;
    if (key_id_of_both(key, &id, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    return id;
}

/* ---- Every kind that is served. */

static const struct {
    const char *name;
    const char *group;
    enum key_type type;
    unsigned bits;
    int field_octets; /* EC */
} KINDS[] = {
    {"RSA", NULL, KEY_TYPE_RSA, 2048, 0},       {"EC", "P-256", KEY_TYPE_P256, 0, 32},
    {"EC", "prime256v1", KEY_TYPE_P256, 0, 32}, {"EC", "P-384", KEY_TYPE_P384, 0, 48},
    {"EC", "P-521", KEY_TYPE_P521, 0, 66},      {"ED25519", NULL, KEY_TYPE_ED25519, 0, 0},
    {"ED448", NULL, KEY_TYPE_ED448, 0, 0},
};

static void keys_are_identified(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        EVP_PKEY *key = generated(KINDS[i].name, KINDS[i].group);
        struct key_id id = identified(key);
        uint8_t ski[KEY_ID_SKI_SIZE], digest[KEY_ID_DIGEST_SIZE] = {0};
        ski_by_x509(key, ski);
        if (KINDS[i].type == KEY_TYPE_RSA)
            digest_of_rsa(key, digest);
        else if (KINDS[i].field_octets > 0)
            digest_of_ec(key, KINDS[i].field_octets, digest);
        assert_int_equal(id.type, KINDS[i].type);
        assert_int_equal(id.bits, KINDS[i].bits);
        assert_int_equal(id.signature_size, EVP_PKEY_get_size(key));
        assert_memory_equal(id.ski, ski, sizeof ski);
        assert_memory_equal(id.digest, digest, sizeof digest);
        EVP_PKEY_free(key);
    }
}

static void a_known_key(void **state)
{
    (void)state;
    /* The Ed25519 key of RFC 8410 section 10.1, and sha1sum's answer for its 32 octets. */
    static unsigned char raw[] = "\x19\xbf\x44\x09\x69\x84\xcd\xfe\x85\x41\xba\xc1\x67\xdc\x3b\x96"
                                 "\xc8\x50\x86\xaa\x30\xb6\xb6\xcb\x0c\x5c\x38\xad\x70\x31\x66\xe1";
    EVP_PKEY *key = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, raw, 32);
    struct key_id id = identified(key);
    assert_memory_equal(id.ski,
                        "\xa2\x8c\xc1\xf8\x6e\x59\x60\xd3\xe0\x3a\xe7\x5c\x96\x2c\x97\xa8\xd4\x48\x29\x3c",
                        KEY_ID_SKI_SIZE);
    EVP_PKEY_free(key);
}

/* ---- Points in other forms. */

static EVP_PKEY *public_ec(const char *group, void *point, size_t size)
{
    return public_from("EC",
                       (OSSL_PARAM[]){
                           OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)group, 0),
                           OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, point, size),
                           OSSL_PARAM_construct_end(),
                       });
}

static void a_compressed_point_has_the_same_identifier(void **state)
{
    (void)state;
    static const char *const GROUPS[] = {"P-256", "P-384", "P-521"};
    for (size_t i = 0; i < COUNT_OF(GROUPS); i++) {
        EVP_PKEY *key = generated("EC", GROUPS[i]);
        struct key_id id = identified(key), again;
        unsigned char point[133];
        size_t size = 0;

        assert_int_equal(
            EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, "compressed"), 1);
        assert_int_equal(
            EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &size), 1);
        assert_true(point[0] == 2 || point[0] == 3);
        again = identified(key);
        assert_memory_equal(&again, &id, sizeof id);

        EVP_PKEY *public = public_ec(GROUPS[i], point, size);
        again = identified(public);
        assert_memory_equal(&again, &id, sizeof id);
        EVP_PKEY_free(public);
        EVP_PKEY_free(key);
    }
}

/* A public key whose SubjectPublicKeyInfo carries the point compressed, as it comes out of a file. */
static void a_key_read_with_a_compressed_point(void **state)
{
    (void)state;
    EVP_PKEY *key = generated("EC", "P-256"), *back = NULL;
    struct key_id id = identified(key), again;
    unsigned char *der = NULL;
    size_t size = 0;
    assert_int_equal(
        EVP_PKEY_set_utf8_string_param(key, OSSL_PKEY_PARAM_EC_POINT_CONVERSION_FORMAT, "compressed"), 1);
    OSSL_ENCODER_CTX *encoder =
        OSSL_ENCODER_CTX_new_for_pkey(key, EVP_PKEY_PUBLIC_KEY, "DER", "SubjectPublicKeyInfo", NULL);
    assert_int_equal(OSSL_ENCODER_to_data(encoder, &der, &size), 1);
    assert_true(size < 65);
    const unsigned char *at = der;
    back = d2i_PUBKEY(NULL, &at, (long)size);
    assert_non_null(back);
    again = identified(back);
    assert_memory_equal(&again, &id, sizeof id);
    OSSL_ENCODER_CTX_free(encoder);
    OPENSSL_free(der);
    EVP_PKEY_free(back);
    EVP_PKEY_free(key);
}

/* ---- RSA by size: public keys are enough, and need not be products of primes. */

/* 2^(bits - 1) + 1 */
static EVP_PKEY *public_rsa(int bits)
{
    BIGNUM *modulus = BN_new();
    assert_non_null(modulus);
    assert_int_equal(BN_set_bit(modulus, bits - 1), 1);
    assert_int_equal(BN_set_bit(modulus, 0), 1);
    unsigned char octets[2200];
    unsigned exponent = 65537;
    int size = BN_num_bytes(modulus);
    assert_true(size <= (int)sizeof octets);
    assert_int_equal(BN_bn2nativepad(modulus, octets, size), size);
    BN_free(modulus);
    return public_from("RSA", (OSSL_PARAM[]){
                                  OSSL_PARAM_construct_BN(OSSL_PKEY_PARAM_RSA_N, octets, (size_t)size),
                                  OSSL_PARAM_construct_uint(OSSL_PKEY_PARAM_RSA_E, &exponent),
                                  OSSL_PARAM_construct_end(),
                              });
}

static const struct {
    int bits;
    bool ok;
} RSA_SIZES[] = {
    {512, false}, {1024, false}, {2047, false}, {2048, true},  {2049, true},   {3072, true},
    {4096, true}, {8192, true},  {16383, true}, {16384, true}, {16385, false},
};

static void rsa_sizes_by_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(RSA_SIZES); i++) {
        EVP_PKEY *key = public_rsa(RSA_SIZES[i].bits);
        struct key_id id, none = {0};
        struct failure why = {0};
        char expected[64];
        assert_int_equal(key_id_of_both(key, &id, &why), RSA_SIZES[i].ok ? RESULT_OK : RESULT_CONFIG);
        if (RSA_SIZES[i].ok) {
            uint8_t ski[KEY_ID_SKI_SIZE], digest[KEY_ID_DIGEST_SIZE];
            ski_by_x509(key, ski);
            digest_of_rsa(key, digest);
            assert_int_equal(id.bits, RSA_SIZES[i].bits);
            assert_int_equal(id.signature_size, (RSA_SIZES[i].bits + 7) / 8);
            assert_memory_equal(id.ski, ski, sizeof ski);
            assert_memory_equal(id.digest, digest, sizeof digest);
        } else {
            (void)snprintf(expected, sizeof expected, "%d bits; expected 2048 to 16384", RSA_SIZES[i].bits);
            CHECK(why.text, strstr(why.text, expected) != NULL);
            assert_memory_equal(&id, &none, sizeof id);
        }
        EVP_PKEY_free(key);
    }
}

/* ---- What is refused. */

static const struct {
    const char *name;
    const char *group;
    const char *error;
} REFUSED[] = {
    {"RSA-PSS", NULL, "RSASSA-PSS"},
    {"EC", "P-224", "on the curve secp224r1"},
    {"EC", "secp256k1", "on the curve secp256k1"},
    {"EC", "brainpoolP256r1", "on the curve brainpoolP256r1"},
    {"X25519", NULL, "type X25519"},
    {"X448", NULL, "type X448"},
    {"SM2", NULL, "type SM2"},
};

static void other_keys_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(REFUSED); i++) {
        EVP_PKEY *key = generated(REFUSED[i].name, REFUSED[i].group);
        struct key_id id, none = {0};
        struct failure why = {0};
        CHECK(REFUSED[i].name, key_id_of_both(key, &id, &why) == RESULT_CONFIG);
        CHECK(why.text, why.kind == RESULT_CONFIG && strstr(why.text, REFUSED[i].error) != NULL);
        assert_memory_equal(&id, &none, sizeof id);
        EVP_PKEY_free(key);
    }
}

static void check_explicit_is_refused(EVP_PKEY *key)
{
    struct key_id id;
    struct failure why = {0};
    assert_int_equal(key_id_of(key, &id, &why), RESULT_CONFIG);
    assert_non_null(strstr(why.text, "explicit curve parameters"));
    assert_int_equal(ERR_peek_error(), 0);
}

static void explicit_curves_are_refused(void **state)
{
    (void)state;
    EVP_PKEY *key = NULL, *back = NULL;
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    assert_int_equal(EVP_PKEY_keygen_init(context), 1);
    assert_int_equal(EVP_PKEY_CTX_set_group_name(context, "P-256"), 1);
    assert_int_equal(EVP_PKEY_CTX_set_ec_param_enc(context, OPENSSL_EC_EXPLICIT_CURVE), 1);
    assert_int_equal(EVP_PKEY_generate(context, &key), 1);
    EVP_PKEY_CTX_free(context);
    check_explicit_is_refused(key);

    unsigned char *der = NULL;
    int size = i2d_PUBKEY(key, &der);
    assert_true(size > 91); /* that of a named P-256 key */
    const unsigned char *at = der;
    X509_PUBKEY *field = d2i_X509_PUBKEY(NULL, &at, size);
    struct key_id id;
    struct failure why = {0};
    assert_int_equal(key_id_of_field(field, &id, &why), RESULT_CONFIG);
    assert_non_null(strstr(why.text, "explicit curve parameters"));
    X509_PUBKEY_free(field);
    at = der;
    back = d2i_PUBKEY(NULL, &at, size);
    assert_non_null(back);
    check_explicit_is_refused(back);
    /* What it was read from still counts when it would now be written otherwise. */
    assert_int_equal(EVP_PKEY_set_utf8_string_param(back, OSSL_PKEY_PARAM_EC_ENCODING, "named_curve"), 1);
    check_explicit_is_refused(back);
    OPENSSL_free(der);
    EVP_PKEY_free(back);
    EVP_PKEY_free(key);
}

static void a_key_without_its_public_half_is_refused(void **state)
{
    (void)state;
    struct key_id id, none = {0};
    struct failure why = {0};
    EVP_PKEY *key = EVP_PKEY_new(), *parameters = NULL;
    assert_int_equal(key_id_of(key, &id, &why), RESULT_CONFIG);
    assert_non_null(strstr(why.text, "type unknown"));
    EVP_PKEY_free(key);

    OSSL_PARAM group[] = {OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char *)"P-256", 0),
                          OSSL_PARAM_construct_end()};
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);
    assert_int_equal(EVP_PKEY_fromdata_init(context), 1);
    assert_int_equal(EVP_PKEY_fromdata(context, &parameters, EVP_PKEY_KEY_PARAMETERS, group), 1);
    EVP_PKEY_CTX_free(context);
    assert_int_equal(key_id_of(parameters, &id, &why), RESULT_CRYPTO);
    assert_memory_equal(&id, &none, sizeof id);
    assert_int_equal(ERR_peek_error(), 0);
    EVP_PKEY_free(parameters);
}

/* ---- Keys of a provider that shows nothing but public parameters. */

static void foreign_keys_are_identified(void **state)
{
    (void)state;
    struct foreign_provider *foreign = foreign_provider_load();
    assert_non_null(foreign);
    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        EVP_PKEY *key = generated(KINDS[i].name, KINDS[i].group);
        EVP_PKEY *elsewhere = foreign_provider_key(foreign, key, KINDS[i].name, NULL);
        struct key_id id = identified(key), again = identified(elsewhere);
        assert_memory_equal(&again, &id, sizeof id);
        assert_int_equal(ERR_peek_error(), 0);
        EVP_PKEY_free(elsewhere);
        EVP_PKEY_free(key);
    }
    foreign_provider_unload(foreign);
}

static void foreign_keys_may_name_their_curve_otherwise(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        bool ok;
    } NAMES[] = {
        {"P-256", true},
        {"prime256v1", true},
        {"secp256r1", true},
        {"SECP256R1", true},
        {"1.2.840.10045.3.1.7", true},
        {"P-384", false},
        {"P-257", false},
        {"", false},
    };
    struct foreign_provider *foreign = foreign_provider_load();
    EVP_PKEY *key = generated("EC", "P-256");
    struct key_id id = identified(key);
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        EVP_PKEY *elsewhere = foreign_provider_key(foreign, key, "EC", NAMES[i].name);
        struct key_id again;
        struct failure why;
        enum result result = key_id_of(elsewhere, &again, &why);
        CHECK(NAMES[i].name, (result == RESULT_OK) == NAMES[i].ok);
        CHECK(NAMES[i].name, !NAMES[i].ok || memcmp(&again, &id, sizeof id) == 0);
        EVP_PKEY_free(elsewhere);
    }
    EVP_PKEY_free(key);
    foreign_provider_unload(foreign);
}

static void a_foreign_point_may_have_its_other_name(void **state)
{
    (void)state;
    struct foreign_provider *foreign = foreign_provider_load();
    EVP_PKEY *key = generated("EC", "P-384");
    unsigned char point[97];
    size_t size = 0;
    assert_int_equal(
        EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof point, &size), 1);
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, (char[]){"P-384"}, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, point, size),
        OSSL_PARAM_construct_end(),
    };
    EVP_PKEY *elsewhere = foreign_provider_import(foreign, "EC", params);
    struct key_id id = identified(key), again = identified(elsewhere);
    assert_memory_equal(&again, &id, sizeof id);
    assert_int_equal(ERR_peek_error(), 0);
    EVP_PKEY_free(elsewhere);

    point[size - 1] ^= 1; /* off the curve */
    elsewhere = foreign_provider_import(foreign, "EC", params);
    struct failure why;
    assert_int_equal(key_id_of(elsewhere, &again, &why), RESULT_CRYPTO);
    EVP_PKEY_free(elsewhere);
    EVP_PKEY_free(key);
    foreign_provider_unload(foreign);
}

/* ---- The rest. */

static void types_have_names(void **state)
{
    (void)state;
    static const char *const NAMES[] = {"none",  "RSA",     "P-256", "P-384",
                                        "P-521", "Ed25519", "Ed448", "unknown"};
    for (size_t i = 0; i < COUNT_OF(NAMES); i++)
        assert_string_equal(key_type_name((enum key_type)i), NAMES[i]);
}

static void skis_compare_to_the_last_octet(void **state)
{
    (void)state;
    uint8_t a[KEY_ID_SKI_SIZE] = "ski of twenty octet", b[KEY_ID_SKI_SIZE] = "ski of twenty octet";
    assert_true(key_ski_equal(a, b));
    for (size_t i = 0; i < KEY_ID_SKI_SIZE; i++) {
        b[i] ^= 0x80;
        assert_false(key_ski_equal(a, b));
        b[i] ^= 0x80;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_are_identified),
        cmocka_unit_test(a_known_key),
        cmocka_unit_test(a_compressed_point_has_the_same_identifier),
        cmocka_unit_test(a_key_read_with_a_compressed_point),
        cmocka_unit_test(rsa_sizes_by_table),
        cmocka_unit_test(other_keys_are_refused),
        cmocka_unit_test(explicit_curves_are_refused),
        cmocka_unit_test(a_key_without_its_public_half_is_refused),
        cmocka_unit_test(foreign_keys_are_identified),
        cmocka_unit_test(foreign_keys_may_name_their_curve_otherwise),
        cmocka_unit_test(a_foreign_point_may_have_its_other_name),
        cmocka_unit_test(types_have_names),
        cmocka_unit_test(skis_compare_to_the_last_octet),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
