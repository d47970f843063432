/* Which returned signatures are checked, and what a check finds. */
#include "proxy/signature_check.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/rsa.h>

#include "common/tls_message.h"
#include "tests/unit/check.h"

/* ---- What a check finds. */

static const struct {
    const char *name, *group;
    enum key_type type;
    uint16_t schemes[7]; /* that it may sign with; ends in 0 */
} KEYS[] = {
    {"RSA", NULL, KEY_TYPE_RSA, {0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601}},
    {"EC", "prime256v1", KEY_TYPE_P256, {0x0403, 0x0503, 0x0603}},
    {"EC", "secp384r1", KEY_TYPE_P384, {0x0403, 0x0503, 0x0603}},
    {"EC", "secp521r1", KEY_TYPE_P521, {0x0403, 0x0503, 0x0603}},
    {"ED25519", NULL, KEY_TYPE_ED25519, {0x0807}},
    {"ED448", NULL, KEY_TYPE_ED448, {0x0808}},
};

static EVP_PKEY *make_key(size_t i)
{
    EVP_PKEY *key = KEYS[i].type == KEY_TYPE_RSA ? EVP_RSA_gen(2048)
                    : KEYS[i].group != NULL      ? EVP_EC_gen(KEYS[i].group)
                                                 : EVP_PKEY_Q_keygen(NULL, NULL, KEYS[i].name);
    assert_non_null(key);
    return key;
}

static struct bytes sign(EVP_PKEY *key, uint16_t code, struct bytes content, uint8_t *into, size_t size)
{
    const struct tls_scheme *scheme = tls_scheme_find(code);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY_CTX *inner;
    assert_int_equal(EVP_DigestSignInit_ex(context, &inner, scheme->hash, NULL, NULL, key, NULL), 1);
    if (scheme->padding == TLS_PADDING_PSS) {
        assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(inner, RSA_PKCS1_PSS_PADDING), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(inner, RSA_PSS_SALTLEN_DIGEST), 1);
    }
    assert_int_equal(EVP_DigestSign(context, into, &size, content.data, content.size), 1);
    EVP_MD_CTX_free(context);
    return bytes_of(into, size);
}

/* A check is used many times over, with good and bad signatures in turn. */
static void check_scheme(struct signature_check *check, EVP_PKEY *key, EVP_PKEY *other, uint16_t scheme)
{
    uint8_t place[512];
    struct bytes content = OCTETS("what is signed"), forged = OCTETS("what is signeD");
    const char *name = tls_scheme_find(scheme)->name;
    for (unsigned i = 0; i < 2; i++) {
        struct bytes signature = sign(key, scheme, content, place, sizeof place);
        CHECK(name, signature_check_passes(check, scheme, content, signature));
        CHECK(name, signature_check_passes(check, scheme, content, signature));
        CHECK(name, !signature_check_passes(check, scheme, forged, signature));
        CHECK(name,
              !signature_check_passes(check, scheme, content, bytes_of(signature.data, signature.size - 1)));
        CHECK(name, !signature_check_passes(check, scheme, content, bytes_of(signature.data, 0)));
        place[signature.size / 2] ^= 4;
        CHECK(name, !signature_check_passes(check, scheme, content, signature));
        signature = sign(other, scheme, content, place, sizeof place);
        CHECK(name, !signature_check_passes(check, scheme, content, signature));
        CHECK(name, ERR_peek_error() == 0);
    }
}

static void test_every_scheme(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        EVP_PKEY *key = make_key(i), *other = make_key(i);
        struct signature_check *check = signature_check_new(NULL, key, KEYS[i].type);
        assert_non_null(check);
        for (unsigned round = 0; round < 2; round++)
            for (const uint16_t *scheme = KEYS[i].schemes; *scheme != 0; scheme++)
                check_scheme(check, key, other, *scheme);
        signature_check_free(check);
        EVP_PKEY_free(key);
        EVP_PKEY_free(other);
    }
}

/* One scheme's signature is none in another. */
static void test_scheme_counts(void **state)
{
    uint8_t place[512];
    struct bytes content = OCTETS("what is signed");
    EVP_PKEY *key = make_key(0);
    struct signature_check *check = signature_check_new(NULL, key, KEY_TYPE_RSA);
    (void)state;
    struct bytes signature = sign(key, 0x0804, content, place, sizeof place);
    static const uint16_t OTHERS[] = {0x0805, 0x0806, 0x0401, 0x0501, 0x0403, 0x0807, 0x0201, 0x0000, 0xFFFF};
    for (size_t i = 0; i < COUNT_OF(OTHERS); i++)
        assert_false(signature_check_passes(check, OTHERS[i], content, signature));
    assert_true(signature_check_passes(check, 0x0804, content, signature));
    assert_int_equal(ERR_peek_error(), 0);
    signature_check_free(check);
    EVP_PKEY_free(key);
}

/* ---- Which ones are checked. */

static unsigned due_of(struct signature_check *check, size_t server, uint32_t trust, unsigned count)
{
    unsigned found = 0;
    for (unsigned i = 0; i < count; i++)
        found += signature_check_due(check, server, trust);
    return found;
}

static unsigned due(struct signature_check *check, uint32_t trust, unsigned count)
{
    return due_of(check, 0, trust, count);
}

static void test_rsa_always(void **state)
{
    EVP_PKEY *key = make_key(0);
    struct signature_check *check = signature_check_new(NULL, key, KEY_TYPE_RSA);
    (void)state;
    assert_int_equal(due(check, 0, 5000), 5000);
    signature_check_free(check);
    EVP_PKEY_free(key);
}

static void test_first_then_sample(void **state)
{
    EVP_PKEY *key = make_key(1);
    (void)state;
    for (size_t i = 1; i < COUNT_OF(KEYS); i++) {
        struct signature_check *check = signature_check_new(NULL, key, KEYS[i].type);
        assert_int_equal(due(check, 0, SIGNATURE_CHECK_FIRST), SIGNATURE_CHECK_FIRST);
        /* 16,000 with a chance of 1/16: 1,000, give or take 31. Ten times that never happens. */
        assert_in_range(due(check, 0, 16000), 690, 1310);
        assert_int_equal(due_of(check, 1, 0, SIGNATURE_CHECK_FIRST), SIGNATURE_CHECK_FIRST); /* each server */
        assert_int_equal(due(check, 1, SIGNATURE_CHECK_FIRST), SIGNATURE_CHECK_FIRST);
        assert_in_range(due(check, 1, 16000), 690, 1310);
        assert_int_equal(due(check, 0, SIGNATURE_CHECK_FIRST), SIGNATURE_CHECK_FIRST);
        signature_check_free(check);
    }
    EVP_PKEY_free(key);
}

/* A key server that knew which signature is looked at next could lie in all others. */
static void test_sample_cannot_be_foreseen(void **state)
{
    enum { ROUNDS = 16000, POSITIONS = 16 };
    EVP_PKEY *key = make_key(1);
    struct signature_check *check = signature_check_new(NULL, key, KEY_TYPE_P256);
    unsigned at[POSITIONS] = {0}, after_another = 0;
    (void)state;
    (void)due(check, 0, SIGNATURE_CHECK_FIRST);
    bool last = false;
    for (unsigned i = 0; i < ROUNDS; i++) {
        bool now = signature_check_due(check, 0, 0);
        at[i % POSITIONS] += now;
        after_another += now && last;
        last = now;
    }
    for (unsigned i = 0; i < POSITIONS; i++)
        assert_in_range(at[i], 1, ROUNDS / POSITIONS / 4);
    assert_in_range(after_another, 1, 200); /* 62 on average, none for every 16th */
    signature_check_free(check);
    EVP_PKEY_free(key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_scheme),
        cmocka_unit_test(test_scheme_counts),
        cmocka_unit_test(test_rsa_always),
        cmocka_unit_test(test_first_then_sample),
        cmocka_unit_test(test_sample_cannot_be_foreseen),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
