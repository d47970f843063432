/* The key protocol on the wire: frames, items, padding, names, the bare operations. */
#include "common/kssl.h"

#include <openssl/evp.h>

#include "tests/unit/check.h"

#define SKI_20    "ski of twenty octets"
#define ZERO_20   "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define DIGEST_32 "digest of a key, in all 32 octet"
#define IP_16     "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01"

/* ---- Frames. */

static void headers(void **state)
{
    (void)state;
    struct kssl_header header;
    kssl_header_parse((const uint8_t *)"\x01\x7f\xff\xfe\x80\x01\x02\xff", &header);
    assert_int_equal(header.major, 1);
    assert_int_equal(header.minor, 0x7f);
    assert_int_equal(header.length, 0xfffe);
    assert_true(header.id == 0x800102ff);
    kssl_header_parse((const uint8_t *)"\x02\0\0\0\0\0\0\0", &header);
    assert_int_equal(header.major, 2);
    assert_int_equal(header.length, 0);
    assert_true(header.id == 0);
}

static struct bytes frame_body(struct bytes frame, struct kssl_header *header)
{
    assert_true(frame.size >= KSSL_HEADER_SIZE);
    kssl_header_parse(frame.data, header);
    assert_int_equal(header->length, frame.size - KSSL_HEADER_SIZE);
    return bytes_of(frame.data + KSSL_HEADER_SIZE, header->length);
}

static struct kssl_message parsed(struct bytes frame, struct kssl_header *header)
{
    struct kssl_message message;
    struct failure why;
    if (kssl_body_parse(frame_body(frame, header), &message, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    return message;
}

static void ids_come_back(void **state)
{
    (void)state;
    static const uint32_t IDS[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0x01020304};
    for (size_t i = 0; i < COUNT_OF(IDS); i++) {
        uint8_t octets[2048];
        struct writer to = writer_of(octets, sizeof octets);
        struct kssl_header header;
        assert_true(kssl_error_write(&to, IDS[i], KSSL_ERROR_FORMAT));
        (void)parsed(writer_bytes(&to), &header);
        assert_true(header.id == IDS[i]);
        assert_int_equal(header.major, 1);
        assert_int_equal(header.minor, 0);
    }
}

/* items, then the whole frame: 8 + items, then a padding item of max(0, 1024 - 8 - items - 3) if that is
 * below 1024. */
static const size_t PADDING[][2] = {
    {0, 1024},    {1, 1024},    {4, 1024},    {500, 1024},    {1011, 1024},   {1012, 1024},
    {1013, 1024}, {1014, 1025}, {1015, 1026}, {1016, 1024},   {1017, 1025},   {1018, 1026},
    {1019, 1027}, {1020, 1028}, {2000, 2008}, {16376, 16384}, {65535, 65543},
};

static void frame_sizes_by_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(PADDING); i++)
        assert_int_equal(kssl_frame_size(PADDING[i][0]), PADDING[i][1]);
}

#define PING_OVERHEAD (4 + 3) /* the opcode item and the payload's header */

static void padding_is_the_rest_of_1024(void **state)
{
    (void)state;
    static uint8_t payload[KSSL_PAYLOAD_MAX], octets[KSSL_FRAME_MAX];
    for (size_t i = 0; i < COUNT_OF(PADDING); i++) {
        size_t items = PADDING[i][0];
        if (items < PING_OVERHEAD)
            continue;
        memset(octets, 0xee, sizeof octets);
        struct writer to = writer_of(octets, sizeof octets);
        struct kssl_message ping = {
            .has_opcode = true, .opcode = KSSL_OP_PING, .payload = bytes_of(payload, items - PING_OVERHEAD)};
        assert_true(kssl_message_write(&to, 7, &ping));
        assert_int_equal(to.size, PADDING[i][1]);
        assert_int_equal(to.size, KSSL_HEADER_SIZE + (size_t)(octets[2] << 8 | octets[3]));

        struct reader rest = reader_of(bytes_of(octets + 8 + items, to.size - 8 - items));
        if (8 + items >= 1024) {
            assert_true(reader_empty(&rest));
            continue;
        }
        uint8_t tag;
        struct bytes zeros;
        assert_true(read_u8(&rest, &tag) && read_vector16(&rest, &zeros) && reader_empty(&rest));
        assert_int_equal(tag, 0x20);
        for (size_t at = 0; at < zeros.size; at++)
            assert_int_equal(zeros.data[at], 0);
    }
}

static void the_largest_ping_round_trips(void **state)
{
    (void)state;
    static uint8_t payload[KSSL_PAYLOAD_MAX + 1], octets[KSSL_FRAME_MAX + 1];
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)(i * 31 >> 3);
    struct kssl_message ping = {
        .has_opcode = true, .opcode = KSSL_OP_PING, .payload = bytes_of(payload, KSSL_PAYLOAD_MAX)};
    struct writer to = writer_of(octets, sizeof octets);
    assert_true(kssl_message_write(&to, 1, &ping));
    assert_int_equal(to.size, KSSL_FRAME_MAX);
    struct kssl_header header;
    struct kssl_message back = parsed(writer_bytes(&to), &header);
    assert_int_equal(header.length, 0xffff);
    assert_true(bytes_equal(back.payload, ping.payload));

    ping.payload.size++; /* one more would make the length field wrap */
    to = writer_of(octets, sizeof octets);
    assert_false(kssl_message_write(&to, 1, &ping));
    assert_int_equal(to.size, 0);
    ping.payload.size = SIZE_MAX;
    assert_false(kssl_message_write(&to, 1, &ping));
    ping.has_opcode = false;
    ping.payload.size = 65533; /* with its header 65,536 */
    assert_false(kssl_message_write(&to, 1, &ping));
    ping.payload.size = 40000;
    ping.sni = bytes_of(payload, 40000);
    assert_false(kssl_message_write(&to, 1, &ping));
    assert_int_equal(to.size, 0);
}

static void a_frame_that_does_not_fit_leaves_the_writer_alone(void **state)
{
    (void)state;
    uint8_t octets[2 * KSSL_PAD_TO];
    for (size_t capacity = 0; capacity < 2 * KSSL_PAD_TO; capacity += 341) {
        struct writer to = writer_of(octets, capacity);
        size_t room = capacity / KSSL_PAD_TO;
        for (size_t i = 0; i < 3; i++)
            assert_int_equal(kssl_error_write(&to, 1, KSSL_ERROR_FORMAT), i < room);
        assert_true(writer_ok(&to));
        assert_int_equal(to.size, room * KSSL_PAD_TO);
    }
    struct writer spoilt = writer_of(octets, sizeof octets);
    spoilt.overflow = true;
    assert_false(kssl_error_write(&spoilt, 1, KSSL_ERROR_FORMAT));
}

/* ---- Items. */

#define OPCODE "\x11\0\x01\x61"

static const struct {
    const char *name;
    struct bytes body;
    const char *error; /* within the failure's text; NULL: it parses */
} BODIES[] = {
    {"nothing", WIRE(""), NULL},
    {"an opcode", WIRE(OPCODE), NULL},
    {"empty payload", WIRE("\x12\0\0"), NULL},
    {"empty SNI", WIRE("\x02\0\0"), NULL},
    {"IPv4",
     WIRE("\x03\0\x04"
          "abcd"
          "\x05\0\x04"
          "abcd"),
     NULL},
    {"IPv6", WIRE("\x03\0\x10" IP_16 "\x05\0\x10" IP_16), NULL},
    {"unknown tags, repeated", WIRE("\0\0\0\0\0\0\x07\0\x01x\x07\0\0\x10\0\0\x10\0\0\xff\0\0\xff\0\0"), NULL},
    {"context and region, repeated", WIRE("\x16\0\x01x\x16\0\0\x17\0\0\x17\0\x02xy"), NULL},
    {"padding, twice, in front", WIRE("\x20\0\0\x20\0\x02\0\0" OPCODE), NULL},
    {"padding that is not zero", WIRE("\x20\0\x02xy"), NULL},
    {"function, extra, trace",
     WIRE("\x13\0\x01"
          "f\x14\0\x01"
          "e\x15\0\x01t"),
     NULL},
    {"a tag alone", WIRE("\x12"), "cut short"},
    {"half a length", WIRE("\x12\0"), "cut short"},
    {"no data", WIRE("\x12\0\x01"), "cut short"},
    {"one octet missing", WIRE("\x12\0\x03xy"), "cut short"},
    {"the largest length", WIRE("\x12\xff\xffxy"), "cut short"},
    {"an unknown tag cut short", WIRE("\x99\0\x03xy"), "cut short"},
    {"padding cut short", WIRE(OPCODE "\x20\0\x03\0\0"), "cut short"},
    {"one octet behind", WIRE(OPCODE "\0"), "cut short"},
    {"opcode of no octets", WIRE("\x11\0\0"), "0x11 cannot have 0 octets"},
    {"opcode of two octets", WIRE("\x11\0\x02\x61\x61"), "0x11 cannot have 2 octets"},
    {"SKI of none", WIRE("\x04\0\0"), "0x04 cannot have 0 octets"},
    {"SKI of 19",
     WIRE("\x04\0\x13"
          "ski of 19 octets..."),
     "0x04 cannot have 19 octets"},
    {"SKI of 21", WIRE("\x04\0\x15" SKI_20 "x"), "0x04 cannot have 21 octets"},
    {"SKI of 32", WIRE("\x04\0\x20" DIGEST_32), "0x04 cannot have 32 octets"},
    {"digest of 20", WIRE("\x01\0\x14" SKI_20), "0x01 cannot have 20 octets"},
    {"digest of 33", WIRE("\x01\0\x21" DIGEST_32 "x"), "0x01 cannot have 33 octets"},
    {"digest of none", WIRE("\x01\0\0"), "0x01 cannot have 0 octets"},
    {"client IP of none", WIRE("\x03\0\0"), "0x03 cannot have 0 octets"},
    {"client IP of 3",
     WIRE("\x03\0\x03"
          "abc"),
     "0x03 cannot have 3 octets"},
    {"client IP of 5",
     WIRE("\x03\0\x05"
          "abcde"),
     "0x03 cannot have 5 octets"},
    {"client IP of 17", WIRE("\x03\0\x11" IP_16 "x"), "0x03 cannot have 17 octets"},
    {"server IP of 15",
     WIRE("\x05\0\x0f"
          "123456789012345"),
     "0x05 cannot have 15 octets"},
    {"server IP of 260",
     WIRE("\x05\x01\x04"
          "abcd"),
     "cut short"},
    {"opcode twice", WIRE(OPCODE OPCODE), "0x11 is given twice"},
    {"opcode twice, apart", WIRE(OPCODE "\x12\0\0" OPCODE), "0x11 is given twice"},
    {"payload twice, empty", WIRE("\x12\0\0\x12\0\0"), "0x12 is given twice"},
    {"SKI after an all-zero SKI", WIRE("\x04\0\x14" ZERO_20 "\x04\0\x14" SKI_20), "0x04 is given twice"},
    {"trace twice", WIRE("\x15\0\0\x15\0\0"), "0x15 is given twice"},
    {"twice before a bad length", WIRE("\x12\0\0\x12\0\0\x11\0\0"), "0x12 is given twice"},
};

static void bodies_by_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(BODIES); i++) {
        uint8_t *body = exact_copy(BODIES[i].body);
        struct kssl_message message;
        struct failure why = {0};
        enum result result = kssl_body_parse(bytes_of(body, BODIES[i].body.size), &message, &why);
        CHECK(BODIES[i].name, result == (BODIES[i].error != NULL ? RESULT_PROTOCOL : RESULT_OK));
        CHECK(BODIES[i].name, BODIES[i].error == NULL || strstr(why.text, BODIES[i].error) != NULL);
        CHECK(BODIES[i].name, BODIES[i].error == NULL || why.kind == RESULT_PROTOCOL);
        free(body);
    }
}

static size_t known_tag_size(unsigned tag)
{
    static const uint8_t SIZES[] = {[0x01] = 32, [0x03] = 4, [0x04] = 20, [0x05] = 16, [0x11] = 1};
    return tag < COUNT_OF(SIZES) && SIZES[tag] != 0 ? SIZES[tag] : 5;
}

static void every_tag_once_and_twice(void **state)
{
    (void)state;
    for (unsigned tag = 0; tag <= 0xff; tag++) {
        bool known = (tag >= 0x01 && tag <= 0x06) || (tag >= 0x11 && tag <= 0x15);
        uint8_t octets[2 * (3 + 32)];
        struct writer to = writer_of(octets, sizeof octets);
        struct kssl_message message;
        for (unsigned times = 1; times <= 2; times++) {
            write_u8(&to, (uint8_t)tag);
            WRITE_VECTOR(&to, 2)
            {
                write_fill(&to, 'x', known_tag_size(tag));
            }
            assert_true(writer_ok(&to));
            assert_int_equal(kssl_body_parse(writer_bytes(&to), &message, NULL),
                             times == 2 && known ? RESULT_PROTOCOL : RESULT_OK);
        }
    }
}

/* Every item that a message can have, all different. */
static const struct kssl_message FULL = {
    .has_opcode = true,
    .opcode = KSSL_OP_SIGN_TLS13,
    .payload = WIRE("the payload"),
    .sni = WIRE("www.example.com"),
    .client_ip = WIRE("\xc0\0\x02\x01"),
    .server_ip = WIRE(IP_16),
    .ski = WIRE(SKI_20),
    .digest = WIRE(DIGEST_32),
    .certificate_id = WIRE("certificate"),
    .function = WIRE("function"),
    .extra = WIRE("extra 14"),
    .trace = WIRE("0123456789abcdef"),
};

static void check_same_items(const struct kssl_message *a, const struct kssl_message *b)
{
    const struct bytes left[] = {a->payload, a->sni,   a->client_ip,      a->server_ip, a->ski,
                                 a->digest,  a->extra, a->certificate_id, a->function,  a->trace};
    const struct bytes right[] = {b->payload, b->sni,   b->client_ip,      b->server_ip, b->ski,
                                  b->digest,  b->extra, b->certificate_id, b->function,  b->trace};
    assert_int_equal(a->has_opcode, b->has_opcode);
    assert_int_equal(a->opcode, b->opcode);
    for (size_t i = 0; i < COUNT_OF(left); i++) {
        assert_int_equal(left[i].data == NULL, right[i].data == NULL);
        assert_true(bytes_equal(left[i], right[i]));
    }
}

static void every_item_round_trips(void **state)
{
    (void)state;
    uint8_t octets[KSSL_PAD_TO];
    struct writer to = writer_of(octets, sizeof octets);
    struct kssl_header header;
    assert_true(kssl_message_write(&to, 5, &FULL));
    struct kssl_message back = parsed(writer_bytes(&to), &header);
    check_same_items(&back, &FULL);
}

static void absent_and_empty_are_different(void **state)
{
    (void)state;
    uint8_t octets[KSSL_PAD_TO];
    struct writer to = writer_of(octets, sizeof octets);
    struct kssl_header header;
    struct kssl_message none = {0};
    assert_true(kssl_message_write(&to, 5, &none));
    assert_int_equal(octets[KSSL_HEADER_SIZE], KSSL_TAG_PADDING);
    struct kssl_message back = parsed(writer_bytes(&to), &header);
    check_same_items(&back, &none);

    struct kssl_message empty = {.payload = OCTETS(""), .sni = OCTETS("")};
    to = writer_of(octets, sizeof octets);
    assert_true(kssl_message_write(&to, 5, &empty));
    back = parsed(writer_bytes(&to), &header);
    check_same_items(&back, &empty);
    assert_non_null(back.payload.data);
    assert_false(back.has_opcode);
}

static void items_come_in_any_order(void **state)
{
    (void)state;
    struct kssl_message message;
    assert_int_equal(kssl_body_parse(OCTETS("\x20\0\x01\0\x12\0\x01p\xaa\0\x01q\x04\0\x14" SKI_20 OPCODE
                                            "\x02\0\x01s\x01\0\x20" DIGEST_32 "\x20\0\0"),
                                     &message, NULL),
                     RESULT_OK);
    struct kssl_message expected = {.has_opcode = true,
                                    .opcode = 0x61,
                                    .payload = OCTETS("p"),
                                    .ski = OCTETS(SKI_20),
                                    .sni = OCTETS("s"),
                                    .digest = OCTETS(DIGEST_32)};
    check_same_items(&message, &expected);
}

static void an_all_zero_ski_is_absent(void **state)
{
    (void)state;
    struct kssl_message message;
    assert_int_equal(kssl_body_parse(OCTETS("\x04\0\x14" ZERO_20), &message, NULL), RESULT_OK);
    assert_null(message.ski.data);
    assert_int_equal(message.ski.size, 0);
    for (size_t at = 0; at < KEY_ID_SKI_SIZE; at++) {
        uint8_t body[3 + KEY_ID_SKI_SIZE] = "\x04\0\x14";
        body[3 + at] = 1;
        assert_int_equal(kssl_body_parse(bytes_of(body, sizeof body), &message, NULL), RESULT_OK);
        assert_int_equal(message.ski.size, KEY_ID_SKI_SIZE);
    }
}

/* Where in the body an item begins: a cut there, and nowhere else, leaves a body that parses. */
static bool at_item_boundary(struct bytes body, size_t size)
{
    struct reader from = reader_of(body);
    uint8_t tag;
    struct bytes data;
    while (body.size - from.left < size)
        assert_true(read_u8(&from, &tag) && read_vector16(&from, &data));
    return body.size - from.left == size;
}

static void a_body_cut_anywhere(void **state)
{
    (void)state;
    uint8_t octets[KSSL_PAD_TO];
    struct writer to = writer_of(octets, sizeof octets);
    struct kssl_header header;
    assert_true(kssl_message_write(&to, 5, &FULL));
    struct bytes body = frame_body(writer_bytes(&to), &header);
    size_t boundaries = 0;
    for (size_t size = 0; size <= body.size; size++) {
        uint8_t *cut = exact_copy(bytes_of(body.data, size));
        struct kssl_message message;
        bool whole = at_item_boundary(body, size);
        boundaries += whole;
        assert_int_equal(kssl_body_parse(bytes_of(cut, size), &message, NULL),
                         whole ? RESULT_OK : RESULT_PROTOCOL);
        free(cut);
    }
    assert_int_equal(boundaries, 1 + 11 + 1); /* the start, eleven items, the padding */
}

static const struct {
    const char *name;
    struct kssl_message message;
} UNSENDABLE[] = {
    {"SKI of 19", {.ski = {(const uint8_t *)SKI_20, 19}}},
    {"SKI of none", {.ski = WIRE("")}},
    {"digest of 31", {.digest = {(const uint8_t *)DIGEST_32, 31}}},
    {"client IP of 15", {.client_ip = {(const uint8_t *)IP_16, 15}}},
    {"server IP of none", {.server_ip = WIRE("")}},
};

static void what_nobody_could_read_is_not_written(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(UNSENDABLE); i++) {
        uint8_t octets[KSSL_PAD_TO];
        struct writer to = writer_of(octets, sizeof octets);
        CHECK(UNSENDABLE[i].name, !kssl_message_write(&to, 1, &UNSENDABLE[i].message));
        CHECK(UNSENDABLE[i].name, to.size == 0);
    }
}

static void answers(void **state)
{
    (void)state;
    uint8_t octets[KSSL_PAD_TO];
    struct kssl_header header;
    struct writer to = writer_of(octets, sizeof octets);
    assert_true(kssl_success_write(&to, 9, OCTETS("signature"), bytes_of(NULL, 0)));
    struct kssl_message back = parsed(writer_bytes(&to), &header);
    struct kssl_message success = {.has_opcode = true, .opcode = 0xf0, .payload = OCTETS("signature")};
    check_same_items(&back, &success);

    to = writer_of(octets, sizeof octets);
    assert_true(kssl_success_write(&to, 9, bytes_of(NULL, 0), OCTETS("12345678")));
    back = parsed(writer_bytes(&to), &header);
    success = (struct kssl_message){
        .has_opcode = true, .opcode = 0xf0, .payload = OCTETS(""), .extra = OCTETS("12345678")};
    check_same_items(&back, &success);

    to = writer_of(octets, sizeof octets);
    assert_true(kssl_error_write(&to, 9, KSSL_ERROR_REPLAY));
    back = parsed(writer_bytes(&to), &header);
    struct kssl_message error = {.has_opcode = true, .opcode = 0xff, .payload = OCTETS("\x43")};
    check_same_items(&back, &error);
}

/* ---- Opcodes and errors. */

/* name; of the bare signing operations also how: an RSA key ('r'), EC ('e') or Ed25519 ('d'). */
static const struct {
    uint8_t code;
    const char *name;
    char key;
    enum tls_padding padding;
    const char *hash;
    size_t size;
} OPCODES[] = {
    {0x01, "rsa-decrypt", 0, TLS_PADDING_NONE, NULL, 0},
    {0x02, "rsa-md5sha1", 'r', TLS_PADDING_PKCS1, "MD5-SHA1", 36},
    {0x03, "rsa-sha1", 'r', TLS_PADDING_PKCS1, "SHA1", 20},
    {0x04, "rsa-sha224", 'r', TLS_PADDING_PKCS1, "SHA224", 28},
    {0x05, "rsa-sha256", 'r', TLS_PADDING_PKCS1, "SHA256", 32},
    {0x06, "rsa-sha384", 'r', TLS_PADDING_PKCS1, "SHA384", 48},
    {0x07, "rsa-sha512", 'r', TLS_PADDING_PKCS1, "SHA512", 64},
    {0x08, "rsa-decrypt-raw", 0, TLS_PADDING_NONE, NULL, 0},
    {0x12, "ecdsa-md5sha1", 'e', TLS_PADDING_NONE, "MD5-SHA1", 36},
    {0x13, "ecdsa-sha1", 'e', TLS_PADDING_NONE, "SHA1", 20},
    {0x14, "ecdsa-sha224", 'e', TLS_PADDING_NONE, "SHA224", 28},
    {0x15, "ecdsa-sha256", 'e', TLS_PADDING_NONE, "SHA256", 32},
    {0x16, "ecdsa-sha384", 'e', TLS_PADDING_NONE, "SHA384", 48},
    {0x17, "ecdsa-sha512", 'e', TLS_PADDING_NONE, "SHA512", 64},
    {0x18, "ed25519", 'd', TLS_PADDING_NONE, NULL, 0},
    {0x21, "seal", 0, TLS_PADDING_NONE, NULL, 0},
    {0x22, "unseal", 0, TLS_PADDING_NONE, NULL, 0},
    {0x24, "custom", 0, TLS_PADDING_NONE, NULL, 0},
    {0x35, "rsa-pss-sha256", 'r', TLS_PADDING_PSS, "SHA256", 32},
    {0x36, "rsa-pss-sha384", 'r', TLS_PADDING_PSS, "SHA384", 48},
    {0x37, "rsa-pss-sha512", 'r', TLS_PADDING_PSS, "SHA512", 64},
    {0x60, "hello", 0, TLS_PADDING_NONE, NULL, 0},
    {0x61, "sign-tls13", 0, TLS_PADDING_NONE, NULL, 0},
    {0x62, "sign-tls12", 0, TLS_PADDING_NONE, NULL, 0},
    {0x63, "sign-transcript", 0, TLS_PADDING_NONE, NULL, 0},
    {0x65, "delegated-credential", 0, TLS_PADDING_NONE, NULL, 0},
    {0x66, "ticket-keys", 0, TLS_PADDING_NONE, NULL, 0},
    {0x67, "list", 0, TLS_PADDING_NONE, NULL, 0},
    {0xf0, "success", 0, TLS_PADDING_NONE, NULL, 0},
    {0xf1, "ping", 0, TLS_PADDING_NONE, NULL, 0},
    {0xf2, "pong", 0, TLS_PADDING_NONE, NULL, 0},
    {0xff, "error", 0, TLS_PADDING_NONE, NULL, 0},
};

static void opcode_names(void **state)
{
    (void)state;
    size_t row = 0;
    for (unsigned code = 0; code <= 0xff; code++) {
        bool known = row < COUNT_OF(OPCODES) && OPCODES[row].code == code;
        assert_string_equal(kssl_opcode_name((uint8_t)code), known ? OPCODES[row].name : "unknown");
        row += known;
    }
    assert_int_equal(row, COUNT_OF(OPCODES));
}

static void bare_operations_by_table(void **state)
{
    (void)state;
    size_t row = 0;
    for (unsigned code = 0; code <= 0xff; code++) {
        bool known = row < COUNT_OF(OPCODES) && OPCODES[row].code == code;
        const struct kssl_bare_operation *found = kssl_bare_find((uint8_t)code);
        if (!known || OPCODES[row].key == 0) {
            assert_null(found);
        } else {
            CHECK(OPCODES[row].name, found != NULL && found->opcode == code);
            CHECK(OPCODES[row].name, found->rsa == (OPCODES[row].key == 'r'));
            CHECK(OPCODES[row].name, found->padding == OPCODES[row].padding);
            CHECK(OPCODES[row].name, found->input_size == OPCODES[row].size);
            CHECK(OPCODES[row].name, (found->hash == NULL) == (OPCODES[row].hash == NULL));
            CHECK(OPCODES[row].name, found->hash == NULL || strcmp(found->hash, OPCODES[row].hash) == 0);
        }
        row += known;
    }
}

static void bare_operations_name_digests_of_their_size(void **state)
{
    (void)state;
    for (unsigned code = 0; code <= 0xff; code++) {
        const struct kssl_bare_operation *found = kssl_bare_find((uint8_t)code);
        if (found == NULL || found->hash == NULL)
            continue;
        EVP_MD *digest = EVP_MD_fetch(NULL, found->hash, NULL);
        assert_non_null(digest);
        assert_int_equal(EVP_MD_get_size(digest), found->input_size);
        EVP_MD_free(digest);
    }
}

static const struct {
    uint8_t code;
    const char *name;
} ERRORS[] = {
    {0x00, "no error"},
    {0x01, "cryptography failed"},
    {0x02, "key not found"},
    {0x03, "read failed"},
    {0x04, "version mismatch"},
    {0x05, "bad opcode"},
    {0x06, "unexpected opcode"},
    {0x07, "format error"},
    {0x08, "internal error"},
    {0x0a, "sealing key expired"},
    {0x0b, "remote configuration error"},
    {0x40, "refused by policy"},
    {0x41, "content not acceptable"},
    {0x42, "over its rate"},
    {0x43, "replay"},
    {0x44, "overloaded"},
};

static void error_names(void **state)
{
    (void)state;
    size_t row = 0;
    for (unsigned code = 0; code <= 0xff; code++) {
        bool known = row < COUNT_OF(ERRORS) && ERRORS[row].code == code;
        assert_string_equal(kssl_error_name((uint8_t)code), known ? ERRORS[row].name : "unknown error");
        row += known;
    }
    assert_int_equal(row, COUNT_OF(ERRORS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers),
        cmocka_unit_test(ids_come_back),
        cmocka_unit_test(frame_sizes_by_table),
        cmocka_unit_test(padding_is_the_rest_of_1024),
        cmocka_unit_test(the_largest_ping_round_trips),
        cmocka_unit_test(a_frame_that_does_not_fit_leaves_the_writer_alone),
        cmocka_unit_test(bodies_by_table),
        cmocka_unit_test(every_tag_once_and_twice),
        cmocka_unit_test(every_item_round_trips),
        cmocka_unit_test(absent_and_empty_are_different),
        cmocka_unit_test(items_come_in_any_order),
        cmocka_unit_test(an_all_zero_ski_is_absent),
        cmocka_unit_test(a_body_cut_anywhere),
        cmocka_unit_test(what_nobody_could_read_is_not_written),
        cmocka_unit_test(answers),
        cmocka_unit_test(opcode_names),
        cmocka_unit_test(bare_operations_by_table),
        cmocka_unit_test(bare_operations_name_digests_of_their_size),
        cmocka_unit_test(error_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
