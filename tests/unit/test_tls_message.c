/* The contents that a TLS server signs, the schemes it signs them with, and which key may use which. */
#include "common/tls_message.h"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/objects.h>

#include "tests/unit/check.h"

/* ---- Schemes. */

/* The protocol's table, written out: what may sign a TLS 1.3 CertificateVerify, then a ServerKeyExchange. */
static const struct {
    enum key_type type;
    uint16_t tls13[4];
    uint16_t tls12[7];
} ALLOWED[] = {
    {KEY_TYPE_NONE, {0}, {0}},
    {KEY_TYPE_RSA, {0x0804, 0x0805, 0x0806}, {0x0804, 0x0805, 0x0806, 0x0401, 0x0501, 0x0601}},
    {KEY_TYPE_P256, {0x0403}, {0x0403, 0x0503, 0x0603}},
    {KEY_TYPE_P384, {0x0503}, {0x0403, 0x0503, 0x0603}},
    {KEY_TYPE_P521, {0x0603}, {0x0403, 0x0503, 0x0603}},
    {KEY_TYPE_ED25519, {0x0807}, {0x0807}},
    {KEY_TYPE_ED448, {0x0808}, {0x0808}},
};

static bool listed(const uint16_t *codes, uint32_t code)
{
    while (*codes != 0 && *codes != code)
        codes++;
    return code != 0 && *codes == code;
}

static void every_scheme_with_every_key(void **state)
{
    (void)state;
    for (uint32_t code = 0; code <= 0xffff; code++) {
        const struct tls_scheme *scheme = tls_scheme_find((uint16_t)code);
        for (size_t i = 0; i < COUNT_OF(ALLOWED); i++) {
            if (tls_scheme_fits_tls13(scheme, ALLOWED[i].type) != listed(ALLOWED[i].tls13, code) ||
                tls_scheme_fits_tls12(scheme, ALLOWED[i].type) != listed(ALLOWED[i].tls12, code))
                fail_msg("scheme %04x with %s", code, key_type_name(ALLOWED[i].type));
        }
    }
}

static const struct {
    uint16_t code;
    const char *name;
    int digest; /* NID */
    enum tls_padding padding;
} SCHEMES[] = {
    {0x0401, "rsa_pkcs1_sha256", NID_sha256, TLS_PADDING_PKCS1},
    {0x0501, "rsa_pkcs1_sha384", NID_sha384, TLS_PADDING_PKCS1},
    {0x0601, "rsa_pkcs1_sha512", NID_sha512, TLS_PADDING_PKCS1},
    {0x0403, "ecdsa_secp256r1_sha256", NID_sha256, TLS_PADDING_NONE},
    {0x0503, "ecdsa_secp384r1_sha384", NID_sha384, TLS_PADDING_NONE},
    {0x0603, "ecdsa_secp521r1_sha512", NID_sha512, TLS_PADDING_NONE},
    {0x0804, "rsa_pss_rsae_sha256", NID_sha256, TLS_PADDING_PSS},
    {0x0805, "rsa_pss_rsae_sha384", NID_sha384, TLS_PADDING_PSS},
    {0x0806, "rsa_pss_rsae_sha512", NID_sha512, TLS_PADDING_PSS},
    {0x0807, "ed25519", NID_undef, TLS_PADDING_NONE},
    {0x0808, "ed448", NID_undef, TLS_PADDING_NONE},
};

static void schemes_say_how_to_sign(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(SCHEMES); i++) {
        const struct tls_scheme *scheme = tls_scheme_find(SCHEMES[i].code);
        CHECK(SCHEMES[i].name, scheme != NULL && scheme->code == SCHEMES[i].code);
        assert_string_equal(scheme->name, SCHEMES[i].name);
        CHECK(SCHEMES[i].name, scheme->padding == SCHEMES[i].padding);
        const EVP_MD *digest = scheme->hash != NULL ? EVP_get_digestbyname(scheme->hash) : NULL;
        CHECK(SCHEMES[i].name, (digest != NULL ? EVP_MD_get_type(digest) : NID_undef) == SCHEMES[i].digest);
        CHECK(SCHEMES[i].name, scheme->hash_size == (digest != NULL ? (size_t)EVP_MD_get_size(digest) : 0));
    }
    size_t known = 0;
    for (uint32_t code = 0; code <= 0xffff; code++)
        known += tls_scheme_find((uint16_t)code) != NULL;
    assert_int_equal(known, COUNT_OF(SCHEMES));
}

/* ---- TLS 1.3 CertificateVerify. */

#define SPACES_16 "                "
#define PREFIX    SPACES_16 SPACES_16 SPACES_16 SPACES_16 "TLS 1.3, server CertificateVerify\0"
#define HASH_32   "0123456789abcdef0123456789ABCDEF"
#define HASH_48   HASH_32 "fedcba9876543210"

static void certificate_verify_is_as_rfc_8446_says(void **state)
{
    (void)state;
    uint8_t octets[TLS_CERTIFICATE_VERIFY_MAX];
    struct writer to = writer_of(octets, sizeof octets);
    assert_true(tls_certificate_verify_write(&to, OCTETS(HASH_32)));
    assert_true(bytes_equal(writer_bytes(&to), OCTETS(PREFIX HASH_32)));
    assert_int_equal(to.size, 130);

    to = writer_of(octets, sizeof octets);
    assert_true(tls_certificate_verify_write(&to, OCTETS(HASH_48)));
    assert_true(bytes_equal(writer_bytes(&to), OCTETS(PREFIX HASH_48)));
    assert_int_equal(to.size, TLS_CERTIFICATE_VERIFY_MAX);
}

static void certificate_verify_takes_two_hash_sizes(void **state)
{
    (void)state;
    uint8_t content[sizeof PREFIX - 1 + 80] = PREFIX;
    uint8_t octets[256];
    for (size_t size = 0; size <= 80; size++) {
        bool fits = size == 32 || size == 48;
        struct bytes hash = bytes_of(NULL, 0);
        struct writer to = writer_of(octets, sizeof octets);
        assert_int_equal(tls_certificate_verify_write(&to, bytes_of(HASH_48 HASH_48, size)), fits);
        assert_int_equal(tls_certificate_verify_parse(bytes_of(content, sizeof PREFIX - 1 + size), &hash),
                         fits);
        assert_int_equal(hash.size, fits ? size : 0);
    }
}

static void certificate_verify_needs_room(void **state)
{
    (void)state;
    for (size_t capacity = 0; capacity < 130; capacity++) {
        uint8_t octets[130];
        struct writer to = writer_of(octets, capacity);
        assert_false(tls_certificate_verify_write(&to, OCTETS(HASH_32)));
    }
}

static void certificate_verify_is_recognised(void **state)
{
    (void)state;
    struct bytes content = OCTETS(PREFIX HASH_48), hash;
    assert_true(tls_certificate_verify_parse(content, &hash));
    assert_ptr_equal(hash.data, content.data + sizeof PREFIX - 1);
    assert_int_equal(hash.size, 48);
}

static void any_other_prefix_is_refused(void **state)
{
    (void)state;
    char content[] = PREFIX HASH_32;
    struct bytes hash;
    for (size_t i = 0; i < sizeof PREFIX - 1; i++) {
        for (unsigned bit = 0; bit < 8; bit++) {
            content[i] = (char)(content[i] ^ 1 << bit);
            assert_false(tls_certificate_verify_parse(OCTETS(content), &hash));
            content[i] = (char)(content[i] ^ 1 << bit);
        }
    }
    assert_true(tls_certificate_verify_parse(OCTETS(content), &hash));
    /* A client's CertificateVerify is nothing that a server signs. */
    assert_false(tls_certificate_verify_parse(
        OCTETS(SPACES_16 SPACES_16 SPACES_16 SPACES_16 "TLS 1.3, client CertificateVerify\0" HASH_32),
        &hash));
}

static void certificate_verify_cut_anywhere_is_refused(void **state)
{
    (void)state;
    for (size_t size = 0; size < sizeof(PREFIX HASH_48) - 1; size++) {
        uint8_t *content = exact_copy(bytes_of(PREFIX HASH_48, size));
        struct bytes hash;
        assert_int_equal(tls_certificate_verify_parse(bytes_of(content, size), &hash), size == 130);
        assert_int_equal(tls_content_is_tls13(bytes_of(content, size)), size >= 64);
        free(content);
    }
}

/* ---- TLS 1.2 ServerKeyExchange. */

#define POINT_32                                                                                             \
    "\x09"                                                                                                   \
    "1234567890123456789012345678901"
#define POINT_56  "x448x448x448x448x448x448x448x448x448x448x448x448x448x448"
#define POINT_65  "\x04" POINT_32 POINT_32
#define POINT_97  "\x04" HASH_48 HASH_48
#define POINT_133 "\x04" POINT_32 POINT_32 POINT_32 POINT_32 "abcd"

static const struct {
    const char *name;
    struct bytes params;
    uint16_t group; /* 0: refused */
} PARAMS[] = {
    {"x25519", WIRE("\x03\x00\x1d\x20" POINT_32), 0x001d},
    {"x448", WIRE("\x03\x00\x1e\x38" POINT_56), 0x001e},
    {"secp256r1", WIRE("\x03\x00\x17\x41" POINT_65), 0x0017},
    {"secp384r1", WIRE("\x03\x00\x18\x61" POINT_97), 0x0018},
    {"secp521r1", WIRE("\x03\x00\x19\x85" POINT_133), 0x0019},
    {"empty", WIRE(""), 0},
    {"explicit prime curve", WIRE("\x01\x00\x1d\x20" POINT_32), 0},
    {"explicit char2 curve", WIRE("\x02\x00\x1d\x20" POINT_32), 0},
    {"reserved curve type", WIRE("\x00\x00\x1d\x20" POINT_32), 0},
    {"secp256k1", WIRE("\x03\x00\x16\x41" POINT_65), 0},
    {"brainpoolP256r1", WIRE("\x03\x00\x1a\x41" POINT_65), 0},
    {"ffdhe2048", WIRE("\x03\x01\x00\x20" POINT_32), 0},
    {"X25519MLKEM768", WIRE("\x03\x11\xec\x20" POINT_32), 0},
    {"octets of the group swapped", WIRE("\x03\x1d\x00\x20" POINT_32), 0},
    {"group 0", WIRE("\x03\x00\x00\x20" POINT_32), 0},
    {"no point", WIRE("\x03\x00\x1d\x00"), 0},
    {"point of another group", WIRE("\x03\x00\x1d\x38" POINT_56), 0},
    {"compressed P-256 point", WIRE("\x03\x00\x17\x21\x02" POINT_32), 0},
    {"X25519 point for P-256", WIRE("\x03\x00\x17\x20" POINT_32), 0},
    {"P-256 point for P-384", WIRE("\x03\x00\x18\x41" POINT_65), 0},
    {"length one less, one octet behind", WIRE("\x03\x00\x1d\x1f" POINT_32), 0},
    {"length one more", WIRE("\x03\x00\x1d\x21" POINT_32), 0},
    {"length 255", WIRE("\x03\x00\x1d\xff" POINT_32), 0},
    {"something behind", WIRE("\x03\x00\x1d\x20" POINT_32 "\x00"), 0},
    {"a second point behind", WIRE("\x03\x00\x1d\x20" POINT_32 "\x20" POINT_32), 0},
};

static void ecdh_params_by_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(PARAMS); i++) {
        uint8_t *octets = exact_copy(PARAMS[i].params);
        size_t size = PARAMS[i].params.size;
        uint16_t group = 0;
        struct bytes point = bytes_of(NULL, 0);
        CHECK(PARAMS[i].name,
              tls_ecdh_params_parse(bytes_of(octets, size), &group, &point) == (PARAMS[i].group != 0));
        CHECK(PARAMS[i].name, group == PARAMS[i].group);
        CHECK(PARAMS[i].name,
              PARAMS[i].group == 0 ? point.data == NULL : point.data == octets + 4 && point.size == size - 4);
        free(octets);
    }
}

#define CLIENT_RANDOM "client random of thirty-two octs"
#define SERVER_RANDOM "server random of thirty-two octs"
_Static_assert(sizeof CLIENT_RANDOM == TLS_RANDOM_SIZE + 1 && sizeof SERVER_RANDOM == TLS_RANDOM_SIZE + 1,
               "");

static struct bytes with_randoms(uint8_t *into, size_t capacity, struct bytes params)
{
    struct writer to = writer_of(into, capacity);
    write_bytes(&to, OCTETS(CLIENT_RANDOM SERVER_RANDOM));
    write_bytes(&to, params);
    assert_true(writer_ok(&to));
    return writer_bytes(&to);
}

static void server_key_exchange_splits_and_rebuilds(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(PARAMS); i++) {
        uint8_t octets[256], again[TLS_SERVER_KEY_EXCHANGE_MAX];
        struct bytes content = with_randoms(octets, sizeof octets, PARAMS[i].params);
        struct tls_server_key_exchange parts;
        bool ok = tls_server_key_exchange_parse(content, &parts);
        CHECK(PARAMS[i].name, ok == (PARAMS[i].group != 0));
        if (!ok)
            continue;
        assert_memory_equal(parts.client_random, CLIENT_RANDOM, TLS_RANDOM_SIZE);
        assert_memory_equal(parts.server_random, SERVER_RANDOM, TLS_RANDOM_SIZE);
        CHECK(PARAMS[i].name, parts.group == PARAMS[i].group);
        CHECK(PARAMS[i].name, bytes_equal(parts.params, PARAMS[i].params));
        CHECK(PARAMS[i].name, parts.point.data == parts.params.data + 4);
        struct writer to = writer_of(again, sizeof again);
        CHECK(PARAMS[i].name, tls_server_key_exchange_write(&to, &parts));
        CHECK(PARAMS[i].name, bytes_equal(writer_bytes(&to), content));
    }
}

static void server_key_exchange_is_not_written_with_bad_params(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(PARAMS); i++) {
        uint8_t octets[256];
        struct tls_server_key_exchange parts = {.params = PARAMS[i].params};
        struct writer to = writer_of(octets, sizeof octets);
        CHECK(PARAMS[i].name, tls_server_key_exchange_write(&to, &parts) == (PARAMS[i].group != 0));
        to = writer_of(octets, 2 * TLS_RANDOM_SIZE + PARAMS[i].params.size - 1);
        CHECK(PARAMS[i].name, !tls_server_key_exchange_write(&to, &parts));
    }
}

static void server_key_exchange_cut_anywhere_is_refused(void **state)
{
    (void)state;
    uint8_t octets[256];
    struct bytes whole = with_randoms(octets, sizeof octets, PARAMS[4].params);
    assert_int_equal(whole.size, TLS_SERVER_KEY_EXCHANGE_MAX);
    for (size_t size = 0; size < whole.size; size++) {
        uint8_t *content = exact_copy(bytes_of(whole.data, size));
        struct tls_server_key_exchange parts;
        assert_false(tls_server_key_exchange_parse(bytes_of(content, size), &parts));
        free(content);
    }
}

/* ---- Points. */

static const struct {
    uint16_t group;
    int nid;
    size_t size;
} NIST[] = {
    {0x0017, NID_X9_62_prime256v1, 65},
    {0x0018, NID_secp384r1, 97},
    {0x0019, NID_secp521r1, 133},
};

/* The generator, in one of the three forms of SEC 1 section 2.3.3. */
static size_t generator_of(int nid, point_conversion_form_t form, uint8_t octets[static 133])
{
    EC_GROUP *group = EC_GROUP_new_by_curve_name(nid);
    assert_non_null(group);
    size_t size = EC_POINT_point2oct(group, EC_GROUP_get0_generator(group), form, octets, 133, NULL);
    assert_true(size > 0);
    EC_GROUP_free(group);
    return size;
}

static void points_must_be_on_their_curve(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(NIST); i++) {
        uint8_t octets[133];
        assert_int_equal(generator_of(NIST[i].nid, POINT_CONVERSION_UNCOMPRESSED, octets), NIST[i].size);
        struct bytes point = bytes_of(octets, NIST[i].size);
        assert_true(tls_ecdh_point_valid(NIST[i].group, point));
        for (size_t at = 1; at < NIST[i].size; at += 7) {
            octets[at] ^= 1;
            assert_false(tls_ecdh_point_valid(NIST[i].group, point));
            octets[at] ^= 1;
        }
        memset(octets + 1, 0, NIST[i].size - 1); /* no curve here passes through (0, 0) */
        assert_false(tls_ecdh_point_valid(NIST[i].group, point));
        memset(octets + 1, 0xff, NIST[i].size - 1); /* outside the field */
        assert_false(tls_ecdh_point_valid(NIST[i].group, point));
        assert_int_equal(ERR_peek_error(), 0);
    }
}

static void points_must_be_uncompressed(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(NIST); i++) {
        uint8_t octets[133];
        size_t size = generator_of(NIST[i].nid, POINT_CONVERSION_COMPRESSED, octets);
        assert_false(tls_ecdh_point_valid(NIST[i].group, bytes_of(octets, size)));
        assert_false(tls_ecdh_point_valid(NIST[i].group, bytes_of(octets, NIST[i].size)));
        size = generator_of(NIST[i].nid, POINT_CONVERSION_HYBRID, octets);
        assert_int_equal(size, NIST[i].size);
        assert_false(tls_ecdh_point_valid(NIST[i].group, bytes_of(octets, size)));
        octets[0] = 0; /* SEC 1's point at infinity is this octet alone */
        assert_false(tls_ecdh_point_valid(NIST[i].group, bytes_of(octets, size)));
        assert_false(tls_ecdh_point_valid(NIST[i].group, bytes_of(octets, 1)));
    }
}

static void points_must_have_their_groups_length(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(NIST); i++) {
        uint8_t octets[160] = {0};
        (void)generator_of(NIST[i].nid, POINT_CONVERSION_UNCOMPRESSED, octets);
        for (size_t size = 0; size < sizeof octets; size++)
            assert_int_equal(tls_ecdh_point_valid(NIST[i].group, bytes_of(octets, size)),
                             size == NIST[i].size);
        for (size_t other = 0; other < COUNT_OF(NIST); other++)
            assert_int_equal(tls_ecdh_point_valid(NIST[other].group, bytes_of(octets, NIST[i].size)),
                             other == i);
    }
    assert_false(tls_ecdh_point_valid(0x0017, bytes_of(NULL, 0)));
}

static void montgomery_points_are_any_octets(void **state)
{
    (void)state;
    uint8_t octets[64];
    memset(octets, 0xff, sizeof octets);
    for (size_t size = 0; size <= sizeof octets; size++) {
        assert_int_equal(tls_ecdh_point_valid(0x001d, bytes_of(octets, size)), size == 32);
        assert_int_equal(tls_ecdh_point_valid(0x001e, bytes_of(octets, size)), size == 56);
        assert_false(tls_ecdh_point_valid(0x0100, bytes_of(octets, size)));
    }
}

/* ---- Downgrade marks. */

#define RANDOM_24 "first twenty-four octets"

static const struct {
    struct bytes random;
    bool below_13;
    bool below_12;
} RANDOMS[] = {
    {WIRE(RANDOM_24 "\x44\x4f\x57\x4e\x47\x52\x44\x01"), true, false},
    {WIRE(RANDOM_24 "\x44\x4f\x57\x4e\x47\x52\x44\x00"), false, true},
    {WIRE(RANDOM_24 "\x44\x4f\x57\x4e\x47\x52\x44\x02"), false, false},
    {WIRE(RANDOM_24 "\x44\x4f\x57\x4e\x47\x52\x45\x01"), false, false},
    {WIRE(RANDOM_24 "\x64\x6f\x77\x6e\x67\x72\x64\x01"), false, false},
    {WIRE("\x44\x4f\x57\x4e\x47\x52\x44\x01" RANDOM_24), false, false},
    {WIRE("0123456789012345678901234567890\x01"), false, false},
};

static void downgrade_marks(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(RANDOMS); i++) {
        assert_int_equal(RANDOMS[i].random.size, TLS_RANDOM_SIZE);
        assert_int_equal(tls_random_has_downgrade_12(RANDOMS[i].random.data), RANDOMS[i].below_13);
        assert_int_equal(tls_random_has_downgrade_11(RANDOMS[i].random.data), RANDOMS[i].below_12);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scheme_with_every_key),
        cmocka_unit_test(schemes_say_how_to_sign),
        cmocka_unit_test(certificate_verify_is_as_rfc_8446_says),
        cmocka_unit_test(certificate_verify_takes_two_hash_sizes),
        cmocka_unit_test(certificate_verify_needs_room),
        cmocka_unit_test(certificate_verify_is_recognised),
        cmocka_unit_test(any_other_prefix_is_refused),
        cmocka_unit_test(certificate_verify_cut_anywhere_is_refused),
        cmocka_unit_test(ecdh_params_by_table),
        cmocka_unit_test(server_key_exchange_splits_and_rebuilds),
        cmocka_unit_test(server_key_exchange_is_not_written_with_bad_params),
        cmocka_unit_test(server_key_exchange_cut_anywhere_is_refused),
        cmocka_unit_test(points_must_be_on_their_curve),
        cmocka_unit_test(points_must_be_uncompressed),
        cmocka_unit_test(points_must_have_their_groups_length),
        cmocka_unit_test(montgomery_points_are_any_octets),
        cmocka_unit_test(downgrade_marks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
