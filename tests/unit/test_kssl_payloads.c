/* The payloads of the key protocol's own operations: each form, each size, each cut, and back again. */
#include "common/kssl.h"

#include "tests/unit/check.h"

#define SKI_20  "ski of twenty octets"
#define HASH_32 "0123456789abcdef0123456789ABCDEF"
#define HASH_48 HASH_32 "fedcba9876543210"

/* ---- 0x61. */

static void sign_tls13_takes_two_sizes(void **state)
{
    (void)state;
    for (size_t size = 0; size <= 80; size++) {
        uint8_t *payload = exact_copy(bytes_of("\x08\x04" HASH_48 HASH_48, size));
        struct kssl_sign_tls13 request;
        bool fits = size == 2 + 32 || size == 2 + 48;
        assert_int_equal(kssl_sign_tls13_parse(bytes_of(payload, size), &request), fits);
        if (fits) {
            assert_int_equal(request.scheme, 0x0804);
            assert_ptr_equal(request.hash.data, payload + 2);
            assert_int_equal(request.hash.size, size - 2);
        }
        free(payload);
    }
}

static void sign_tls13_round_trips(void **state)
{
    (void)state;
    uint8_t octets[50];
    struct writer to = writer_of(octets, sizeof octets);
    kssl_sign_tls13_write(&to, &(struct kssl_sign_tls13){.scheme = 0x0403, .hash = OCTETS(HASH_48)});
    assert_true(bytes_equal(writer_bytes(&to), OCTETS("\x04\x03" HASH_48)));
}

/* ---- 0x62. */

#define CLIENT_RANDOM "client random of thirty-two octs"
#define SERVER_RANDOM "server random of thirt\x02\x03\x44\x4f\x57\x4e\x47\x52\x44\x01"
#define SIGN_TLS12    "\x04\x01" CLIENT_RANDOM SERVER_RANDOM
#define POINT_64      HASH_32 HASH_32
#define POINT_56      HASH_48 "76543210"

static const struct {
    const char *name;
    struct bytes payload;
    bool syntax;
    uint16_t group; /* 0: the parts are not valid */
} SIGN_TLS12_ROWS[] = {
    {"x25519", WIRE(SIGN_TLS12 "\x03\0\x1d\x20" HASH_32), true, 0x001d},
    {"x448", WIRE(SIGN_TLS12 "\x03\0\x1e\x38" POINT_56), true, 0x001e},
    {"secp256r1", WIRE(SIGN_TLS12 "\x03\0\x17\x41\x04" POINT_64), true, 0x0017},
    {"secp384r1", WIRE(SIGN_TLS12 "\x03\0\x18\x61\x04" HASH_48 HASH_48), true, 0x0018},
    {"secp521r1", WIRE(SIGN_TLS12 "\x03\0\x19\x85\x04" POINT_64 POINT_64 "abcd"), true, 0x0019},
    {"explicit curve", WIRE(SIGN_TLS12 "\x01\0\x1d\x20" HASH_32), true, 0},
    {"unknown group", WIRE(SIGN_TLS12 "\x03\0\x16\x20" HASH_32), true, 0},
    {"group of another size", WIRE(SIGN_TLS12 "\x03\0\x17\x20" HASH_32), true, 0},
    {"point shorter than params", WIRE(SIGN_TLS12 "\x03\0\x1d\x1f" HASH_32), true, 0},
    {"point longer than params", WIRE(SIGN_TLS12 "\x03\0\x1d\x21" HASH_32), true, 0},
    {"36 octets of anything", WIRE(SIGN_TLS12 "abcd" HASH_32), true, 0},
    {"x25519 and something behind", WIRE(SIGN_TLS12 "\x03\0\x1d\x20" HASH_32 "\0"), false, 0},
    {"compressed P-256 point", WIRE(SIGN_TLS12 "\x03\0\x17\x21\x02" HASH_32), false, 0},
    {"no params", WIRE(SIGN_TLS12), false, 0},
};

static void sign_tls12_by_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(SIGN_TLS12_ROWS); i++) {
        struct bytes payload = SIGN_TLS12_ROWS[i].payload;
        struct kssl_sign_tls12 request = {.parts = {.group = 77, .point = payload}};
        bool valid = SIGN_TLS12_ROWS[i].group == 0;
        bool syntax = kssl_sign_tls12_parse(payload, &request, &valid);
        CHECK(SIGN_TLS12_ROWS[i].name, syntax == SIGN_TLS12_ROWS[i].syntax);
        if (!syntax)
            continue;
        CHECK(SIGN_TLS12_ROWS[i].name, valid == (SIGN_TLS12_ROWS[i].group != 0));
        CHECK(SIGN_TLS12_ROWS[i].name, request.scheme == 0x0401);
        CHECK(SIGN_TLS12_ROWS[i].name, request.parts.group == SIGN_TLS12_ROWS[i].group);
        CHECK(SIGN_TLS12_ROWS[i].name, request.parts.params.data == payload.data + 66);
        CHECK(SIGN_TLS12_ROWS[i].name, request.parts.params.size == payload.size - 66);
        CHECK(SIGN_TLS12_ROWS[i].name, request.parts.point.data == (valid ? payload.data + 70 : NULL));
        CHECK(SIGN_TLS12_ROWS[i].name, request.parts.point.size == (valid ? payload.size - 70 : 0));
        assert_memory_equal(request.parts.client_random, CLIENT_RANDOM, TLS_RANDOM_SIZE);
        assert_memory_equal(request.parts.server_random, SERVER_RANDOM, TLS_RANDOM_SIZE);

        uint8_t octets[256];
        struct writer to = writer_of(octets, sizeof octets);
        kssl_sign_tls12_write(&to, &request);
        CHECK(SIGN_TLS12_ROWS[i].name, bytes_equal(writer_bytes(&to), payload));
    }
}

static void sign_tls12_takes_five_sizes(void **state)
{
    (void)state;
    uint8_t zeros[300] = {0};
    for (size_t size = 0; size <= sizeof zeros; size++) {
        uint8_t *payload = exact_copy(bytes_of(zeros, size));
        struct kssl_sign_tls12 request;
        bool valid = true;
        bool fits =
            size == 66 + 36 || size == 66 + 60 || size == 66 + 69 || size == 66 + 101 || size == 66 + 137;
        assert_int_equal(kssl_sign_tls12_parse(bytes_of(payload, size), &request, &valid), fits);
        assert_int_equal(valid, !fits); /* untouched where the syntax is wrong; zeros are no params */
        free(payload);
    }
}

/* ---- 0x60. */

#define TIME "\0\0\0\0\x65\x43\x21\x0f"

static const struct {
    const char *name;
    struct bytes payload;
    bool ok;
    size_t count;
} HELLOS[] = {
    {"two opcodes", WIRE("\x01\x02\x60\x61" TIME), true, 2},
    {"none", WIRE("\x01\0" TIME), true, 0},
    {"something behind", WIRE("\x01\x01\x60" TIME "tomorrow's field"), true, 1},
    {"empty", WIRE(""), false, 0},
    {"version 0", WIRE("\0\x01\x60" TIME), false, 0},
    {"version 2", WIRE("\x02\x01\x60" TIME), false, 0},
    {"count of one too many", WIRE("\x01\x02\x60" TIME), false, 0},
    {"count of 255", WIRE("\x01\xff\x60" TIME), false, 0},
    {"no time", WIRE("\x01\x01\x60"), false, 0},
};

static void hellos_by_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(HELLOS); i++) {
        uint8_t *payload = exact_copy(HELLOS[i].payload);
        struct kssl_hello hello;
        CHECK(HELLOS[i].name,
              kssl_hello_parse(bytes_of(payload, HELLOS[i].payload.size), &hello) == HELLOS[i].ok);
        if (HELLOS[i].ok) {
            CHECK(HELLOS[i].name, hello.version == 1 && hello.opcodes.size == HELLOS[i].count);
            CHECK(HELLOS[i].name, hello.time == 0x6543210f);
        }
        free(payload);
    }
}

static void a_hello_cut_anywhere_is_refused(void **state)
{
    (void)state;
    struct bytes whole = HELLOS[0].payload;
    for (size_t size = 0; size < whole.size; size++) {
        uint8_t *payload = exact_copy(bytes_of(whole.data, size));
        struct kssl_hello hello;
        assert_false(kssl_hello_parse(bytes_of(payload, size), &hello));
        free(payload);
    }
}

static void hellos_round_trip(void **state)
{
    (void)state;
    uint8_t opcodes[256], octets[512];
    for (size_t i = 0; i < sizeof opcodes; i++)
        opcodes[i] = (uint8_t)i;
    for (size_t count = 0; count <= 256; count++) {
        struct kssl_hello hello = {
            .version = 1, .opcodes = bytes_of(opcodes, count), .time = UINT64_MAX - count};
        struct kssl_hello back;
        struct writer to = writer_of(octets, sizeof octets);
        kssl_hello_write(&to, &hello);
        assert_int_equal(writer_ok(&to), count <= 255);
        if (!writer_ok(&to))
            continue;
        assert_true(kssl_hello_parse(writer_bytes(&to), &back));
        assert_true(bytes_equal(back.opcodes, hello.opcodes) && back.time == hello.time);
        for (unsigned opcode = 0; opcode <= 0xff; opcode++)
            assert_int_equal(kssl_hello_offers(&back, (uint8_t)opcode), opcode < count);
    }
    assert_false(kssl_hello_offers(&(struct kssl_hello){.version = 1}, 0));
}

/* ---- 0x67. */

#define LIST                                                                                                 \
    SKI_20 "\x01\x03"                                                                                        \
           "rsa" SKI_20 "\x06\0" SKI_20 "\x07\x05"                                                           \
           "newer" SKI_20 "\0\x04"                                                                           \
           "none"

static void list_entries_one_after_another(void **state)
{
    (void)state;
    static const struct {
        enum key_type type;
        const char *name;
    } EXPECTED[] = {
        {KEY_TYPE_RSA, "rsa"}, {KEY_TYPE_ED448, ""}, {KEY_TYPE_NONE, "newer"}, {KEY_TYPE_NONE, "none"}};
    struct reader from = reader_of(OCTETS(LIST));
    struct kssl_list_entry entry;
    for (size_t i = 0; i < COUNT_OF(EXPECTED); i++) {
        assert_true(kssl_list_entry_read(&from, &entry));
        assert_memory_equal(entry.ski, SKI_20, KEY_ID_SKI_SIZE);
        assert_int_equal(entry.type, EXPECTED[i].type);
        assert_true(bytes_equal(entry.name, bytes_of(EXPECTED[i].name, strlen(EXPECTED[i].name))));
    }
    assert_true(reader_empty(&from));
    assert_false(kssl_list_entry_read(&from, &entry));
}

static void a_list_entry_cut_anywhere_takes_nothing(void **state)
{
    (void)state;
    size_t whole = KEY_ID_SKI_SIZE + 2 + 3;
    for (size_t size = 0; size < whole; size++) {
        uint8_t *octets = exact_copy(bytes_of(LIST, size));
        struct reader from = reader_of(bytes_of(octets, size));
        struct kssl_list_entry entry;
        assert_false(kssl_list_entry_read(&from, &entry));
        assert_ptr_equal(from.next, octets);
        assert_int_equal(from.left, size);
        free(octets);
    }
}

static void list_entries_round_trip(void **state)
{
    (void)state;
    uint8_t octets[512], name[256];
    memset(name, 'n', sizeof name);
    for (size_t size = 0; size <= sizeof name; size++) {
        struct kssl_list_entry entry = {
            .ski = (const uint8_t *)SKI_20, .type = KEY_TYPE_P384, .name = bytes_of(name, size)};
        struct kssl_list_entry back;
        struct writer to = writer_of(octets, sizeof octets);
        kssl_list_entry_write(&to, &entry);
        assert_int_equal(writer_ok(&to), size <= 255);
        if (!writer_ok(&to))
            continue;
        struct reader from = reader_of(writer_bytes(&to));
        assert_true(kssl_list_entry_read(&from, &back) && reader_empty(&from));
        assert_true(key_ski_equal(back.ski, entry.ski));
        assert_int_equal(back.type, KEY_TYPE_P384);
        assert_true(bytes_equal(back.name, entry.name));
    }
}

/* ---- The 0x14 item. */

static void timings(void **state)
{
    (void)state;
    struct kssl_timing timing;
    uint8_t octets[8];
    struct writer to = writer_of(octets, sizeof octets);
    kssl_timing_write(&to, &(struct kssl_timing){.queue = 0x01020304, .sign = UINT32_MAX});
    assert_true(bytes_equal(writer_bytes(&to), OCTETS("\x01\x02\x03\x04\xff\xff\xff\xff")));
    assert_true(kssl_timing_parse(writer_bytes(&to), &timing));
    assert_true(timing.queue == 0x01020304 && timing.sign == UINT32_MAX);
    for (size_t size = 0; size < 12; size++) {
        uint8_t *extra = exact_copy(bytes_of("\0\0\0\0\0\0\0\0\0\0\0", size));
        assert_int_equal(kssl_timing_parse(bytes_of(extra, size), &timing), size == 8);
        free(extra);
    }
    assert_false(kssl_timing_parse(bytes_of(NULL, 0), &timing));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sign_tls13_takes_two_sizes),
        cmocka_unit_test(sign_tls13_round_trips),
        cmocka_unit_test(sign_tls12_by_table),
        cmocka_unit_test(sign_tls12_takes_five_sizes),
        cmocka_unit_test(hellos_by_table),
        cmocka_unit_test(a_hello_cut_anywhere_is_refused),
        cmocka_unit_test(hellos_round_trip),
        cmocka_unit_test(list_entries_one_after_another),
        cmocka_unit_test(a_list_entry_cut_anywhere_takes_nothing),
        cmocka_unit_test(list_entries_round_trip),
        cmocka_unit_test(timings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
