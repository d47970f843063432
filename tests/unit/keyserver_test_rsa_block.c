/* Blocks that RSA signatures are made of, against libcrypto's own verification; and what a signature opens
 * to. */
#include "keyserver/rsa_block.h"
#include "keyserver/rsa_public.h"

#include "tests/unit/check.h"

#include <openssl/ec.h>
#include <openssl/rsa.h>

/* What PSS leaves unused of the first octet differs with the bits: none, all of it, and some. */
static const unsigned BITS[] = {2048, 2049, 2050};

static const struct {
    const char *name;
    size_t size;
} HASHES[] = {{"SHA256", 32}, {"SHA384", 48}, {"SHA512", 64}, {"SHA1", 20}, {"SHA224", 28}, {"MD5-SHA1", 36}};

#define BLOCK_MAX 257

struct world {
    EVP_PKEY *keys[COUNT_OF(BITS)];
    EVP_MD_CTX *context;
};

/* libcrypto makes a modulus of an odd number of bits from three primes alone. */
static EVP_PKEY *make_key(unsigned bits, unsigned exponent)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    BIGNUM *number = BN_new();
    EVP_PKEY *key = NULL;
    assert_int_equal(EVP_PKEY_keygen_init(context), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_bits(context, (int)bits), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_keygen_primes(context, bits % 2 == 0 ? 2 : 3), 1);
    assert_int_equal(BN_set_word(number, exponent), 1);
    assert_int_equal(EVP_PKEY_CTX_set1_rsa_keygen_pubexp(context, number), 1);
    assert_int_equal(EVP_PKEY_keygen(context, &key), 1);
    assert_int_equal(EVP_PKEY_get_bits(key), bits);
    EVP_PKEY_CTX_free(context);
    BN_free(number);
    return key;
}

static int make_world(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    for (size_t i = 0; i < COUNT_OF(BITS); i++)
        world->keys[i] = make_key(BITS[i], 65537);
    assert_non_null(world->context = EVP_MD_CTX_new());
    *state = world;
    return 0;
}

static int free_world(void **state)
{
    struct world *world = *state;
    for (size_t i = 0; i < COUNT_OF(BITS); i++)
        EVP_PKEY_free(world->keys[i]);
    EVP_MD_CTX_free(world->context);
    free(world);
    return 0;
}

static size_t sign_block(EVP_PKEY *key, const uint8_t *block, uint8_t *signature)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
    size_t size = BLOCK_MAX;
    assert_int_equal(EVP_PKEY_sign_init(context), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(context, RSA_NO_PADDING), 1);
    assert_int_equal(EVP_PKEY_sign(context, signature, &size, block, (size_t)EVP_PKEY_get_size(key)), 1);
    EVP_PKEY_CTX_free(context);
    return size;
}

static bool verifies(EVP_PKEY *key, int padding, const EVP_MD *hash, struct bytes signature,
                     struct bytes digest)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
    assert_int_equal(EVP_PKEY_verify_init(context), 1);
    assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(context, padding), 1);
    assert_int_equal(EVP_PKEY_CTX_set_signature_md(context, hash), 1);
    if (padding == RSA_PKCS1_PSS_PADDING)
        assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST), 1);
    bool good = EVP_PKEY_verify(context, signature.data, signature.size, digest.data, digest.size) == 1;
    EVP_PKEY_CTX_free(context);
    return good;
}

static void check(struct world *world, size_t key, size_t hash, int padding)
{
    uint8_t block[BLOCK_MAX], signature[BLOCK_MAX], digest[64];
    EVP_MD *md = EVP_MD_fetch(NULL, HASHES[hash].name, NULL);
    const size_t size = (BITS[key] + 7) / 8;
    memset(digest, 'd', sizeof digest);
    const struct bytes of = bytes_of(digest, HASHES[hash].size);
    CHECK(HASHES[hash].name, padding == RSA_PKCS1_PADDING
                                 ? rsa_block_pkcs1(HASHES[hash].name, of, block, size)
                                 : rsa_block_pss(world->context, md, of, BITS[key], block));
    assert_int_equal(sign_block(world->keys[key], block, signature), size);
    CHECK(HASHES[hash].name, verifies(world->keys[key], padding, md, bytes_of(signature, size), of));
    EVP_MD_free(md);
}

static void signatures_verify(void **state)
{
    for (size_t key = 0; key < COUNT_OF(BITS); key++) {
        for (size_t hash = 0; hash < COUNT_OF(HASHES); hash++) {
            check(*state, key, hash, RSA_PKCS1_PADDING);
            if (strcmp(HASHES[hash].name, "MD5-SHA1") != 0)
                check(*state, key, hash, RSA_PKCS1_PSS_PADDING);
        }
    }
}

/* Many salts: the bits that must be zero are, whatever the mask. */
static void blocks_are_less_than_the_modulus(void **state)
{
    struct world *world = *state;
    uint8_t block[BLOCK_MAX], before[BLOCK_MAX] = {0}, digest[32] = {1};
    for (unsigned i = 0; i < 200; i++) {
        for (size_t key = 0; key < COUNT_OF(BITS); key++) {
            const unsigned bits = BITS[key];
            assert_true(rsa_block_pss(world->context, EVP_sha256(), bytes_of(digest, 32), bits, block));
            assert_int_equal(block[0] >> ((bits - 1) % 8), 0);
            assert_int_equal(block[(bits + 7) / 8 - 1], 0xBC);
        }
        assert_memory_not_equal(block, before, sizeof block); /* another salt */
        memcpy(before, block, sizeof block);
    }
}

static void what_does_not_fit_is_refused(void **state)
{
    struct world *world = *state;
    uint8_t block[BLOCK_MAX], digest[65] = {0};
    for (size_t hash = 0; hash < COUNT_OF(HASHES); hash++) {
        for (size_t size = 0; size <= sizeof digest; size++) {
            const struct bytes of = bytes_of(digest, size);
            CHECK(HASHES[hash].name,
                  rsa_block_pkcs1(HASHES[hash].name, of, block, 256) == (size == HASHES[hash].size));
        }
    }
    for (size_t size = 0; size <= sizeof digest; size++)
        assert_int_equal(rsa_block_pss(world->context, EVP_sha256(), bytes_of(digest, size), 2048, block),
                         size == 32);
    assert_false(rsa_block_pkcs1("SHA3-256", bytes_of(digest, 32), block, 256));
    assert_false(rsa_block_pkcs1("SHA512", bytes_of(digest, 64), block, 93));
    assert_true(rsa_block_pkcs1("SHA512", bytes_of(digest, 64), block, 94));
    assert_false(rsa_block_pss(world->context, EVP_sha512(), bytes_of(digest, 64), 1024, block));
    assert_true(rsa_block_pss(world->context, EVP_sha512(), bytes_of(digest, 64), 1042, block));
}

/* Exponents with bits set in the middle too, and the least there is. */
static void any_exponent_opens(void **state)
{
    (void)state;
    static const unsigned EXPONENTS[] = {3, 17, 0x1001D, 0x7FFFFFFF, 0x12345677};
    uint8_t block[BLOCK_MAX], signature[BLOCK_MAX];
    assert_true(rsa_block_pkcs1("SHA256", OCTETS("0123456789abcdef0123456789ABCDEF"), block, 256));
    for (size_t i = 0; i < COUNT_OF(EXPONENTS); i++) {
        EVP_PKEY *key = make_key(2048, EXPONENTS[i]);
        struct rsa_public *public = rsa_public_new(key);
        assert_non_null(public);
        assert_int_equal(sign_block(key, block, signature), 256);
        assert_true(rsa_public_opens(public, bytes_of(signature, 256), bytes_of(block, 256)));
        signature[100] ^= 1;
        assert_false(rsa_public_opens(public, bytes_of(signature, 256), bytes_of(block, 256)));
        rsa_public_free(public);
        EVP_PKEY_free(key);
    }
}

/* A signature that is wrong in any bit opens to something else, and so does another key's. */
static void faulty_signatures_show(void **state)
{
    struct world *world = *state;
    uint8_t block[BLOCK_MAX] = {0}, signature[BLOCK_MAX];
    const struct bytes whole = bytes_of(block, 256);
    struct rsa_public *public = rsa_public_new(world->keys[0]);
    EVP_PKEY *other = EVP_RSA_gen(2048), *curve = EVP_EC_gen("P-256");
    assert_non_null(public);
    assert_true(rsa_block_pkcs1("SHA256", OCTETS("0123456789abcdef0123456789ABCDEF"), block, 256));
    assert_int_equal(sign_block(world->keys[0], block, signature), 256);
    assert_true(rsa_public_opens(public, bytes_of(signature, 256), whole));
    for (size_t bit = 0; bit < 2048; bit += 61) {
        signature[bit / 8] = (uint8_t)(signature[bit / 8] ^ 1 << bit % 8);
        assert_false(rsa_public_opens(public, bytes_of(signature, 256), whole));
        signature[bit / 8] = (uint8_t)(signature[bit / 8] ^ 1 << bit % 8);
    }
    assert_true(rsa_public_opens(public, bytes_of(signature, 256), whole));
    assert_false(rsa_public_opens(public, bytes_of(signature, 255), whole));
    assert_false(rsa_public_opens(public, bytes_of(signature, 256), bytes_of(block, 255)));
    assert_int_equal(sign_block(other, block, signature), 256);
    assert_false(rsa_public_opens(public, bytes_of(signature, 256), whole));
    assert_null(rsa_public_new(curve));
    rsa_public_free(public);
    EVP_PKEY_free(other);
    EVP_PKEY_free(curve);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(signatures_verify),
        cmocka_unit_test(blocks_are_less_than_the_modulus),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(any_exponent_opens),
        cmocka_unit_test(faulty_signatures_show),
    };
    return cmocka_run_group_tests(tests, make_world, free_world);
}
