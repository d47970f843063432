/* The chain of ticket keys against HKDF as libcrypto has it, and that it goes one way. */
#include "common/ticket_chain.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include "tests/unit/check.h"

static const struct ticket_chain START = {.epoch = 7, .value = "thirty-two octets of some secret"};

static void reference_expand(const uint8_t *key, struct bytes info, uint8_t *to, size_t size)
{
    int mode = EVP_KDF_HKDF_MODE_EXPAND_ONLY;
    EVP_KDF *hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *context = EVP_KDF_CTX_new(hkdf);
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_int(OSSL_KDF_PARAM_MODE, &mode),
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, "SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key, TICKET_CHAIN_SIZE),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)info.data, info.size),
        OSSL_PARAM_construct_end()};
    assert_int_equal(EVP_KDF_derive(context, to, size, parameters), 1);
    EVP_KDF_CTX_free(context);
    EVP_KDF_free(hkdf);
}

static void each_step_is_an_expansion(void **state)
{
    (void)state;
    struct ticket_chain chain = START;
    uint8_t expected[TICKET_CHAIN_SIZE];
    reference_expand(START.value, OCTETS("keyless ticket chain"), expected, sizeof expected);
    assert_true(ticket_chain_advance(&chain, 8));
    assert_memory_equal(chain.value, expected, sizeof expected);
    reference_expand(expected, OCTETS("keyless ticket chain"), expected, sizeof expected);
    reference_expand(expected, OCTETS("keyless ticket chain"), expected, sizeof expected);
    assert_true(ticket_chain_advance(&chain, 10));
    assert_memory_equal(chain.value, expected, sizeof expected);
    assert_int_equal(chain.epoch, 10);
}

static void nothing_goes_back(void **state)
{
    (void)state;
    struct ticket_chain chain = START;
    assert_false(ticket_chain_advance(&chain, 6));
    assert_true(ticket_chain_advance(&chain, 7));
    assert_memory_equal(&chain, &START, sizeof chain);
}

static void a_key_is_its_owners(void **state)
{
    (void)state;
    const struct ticket_key_owner owner = {.group = OCTETS("eu"), .generation = 0x01020304, .rotate = 3600};
    uint8_t expected[TICKET_KEY_SIZE], key[TICKET_KEY_SIZE], other[TICKET_KEY_SIZE];
    reference_expand(START.value,
                     OCTETS("keyless ticket key"
                            "\x02"
                            "eu"
                            "\x01\x02\x03\x04"
                            "\x00\x00\x0e\x10"
                            "\0\0\0\0\0\0\0\x07"),
                     expected, sizeof expected);
    assert_true(ticket_chain_key(&START, &owner, key));
    assert_memory_equal(key, expected, sizeof expected);
    struct ticket_key_owner changed[] = {owner, owner, owner};
    changed[0].group = OCTETS("us");
    changed[1].generation++;
    changed[2].rotate++;
    for (size_t i = 0; i < COUNT_OF(changed); i++) {
        assert_true(ticket_chain_key(&START, &changed[i], other));
        assert_memory_not_equal(other, key, sizeof key);
    }
}

static void groups_have_bounds(void **state)
{
    (void)state;
    static const uint8_t name[TICKET_GROUP_MAX + 1];
    struct ticket_key_owner owner = {.group = bytes_of(name, TICKET_GROUP_MAX), .rotate = 1};
    uint8_t key[TICKET_KEY_SIZE];
    assert_true(ticket_chain_key(&START, &owner, key));
    owner.group.size++;
    assert_false(ticket_chain_key(&START, &owner, key));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_step_is_an_expansion),
        cmocka_unit_test(nothing_goes_back),
        cmocka_unit_test(a_key_is_its_owners),
        cmocka_unit_test(groups_have_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
