/* The protocol's opcodes and its order of checks, as a table: what a client may do, what it sends, what it is
 * told. */
#include "keyserver/operations.h"

#include "tests/unit/keyserver_fixture.h"

#include <openssl/ec.h>
#include <openssl/obj_mac.h>

static const struct fixture_key KEYS[] = {
    {0x11, KEY_TYPE_P256, 0, "p256"},       {0x22, KEY_TYPE_RSA, 2048, "rsa"},
    {0x33, KEY_TYPE_ED25519, 0, "ed25519"}, {0x44, KEY_TYPE_P384, 0, "p384"},
    {0x55, KEY_TYPE_P521, 0, "p521"},       {0x66, KEY_TYPE_ED448, 0, "ed448"},
    {0x77, KEY_TYPE_P256, 0, "other"},
};

/* Entries of the configuration below. */
enum {
    EVERYTHING,
    TLS13_ONLY,
    TLS12_ONLY,
    LIST_ONLY,
    DIGEST_ONLY,
    TRANSCRIPT_ONLY,
    REQUIRED, /* transcripts, by `require` */
    NAMED,    /* has only some names */
    SCHEMES,  /* has only some schemes */
    DENIED,
    RATED,
    ENTRIES
};

#define OWN_KEYS "keys: [p256, rsa, ed25519, p384, p521, ed448]"

static const char CONFIG[] =
    FIXTURE_CONFIG_HEAD "clients:\n"
                        "  - {match: \"CN:0\", " OWN_KEYS ", allow: [tls13, tls12, list, digest]}\n"
                        "  - {match: \"CN:1\", " OWN_KEYS ", allow: [tls13]}\n"
                        "  - {match: \"CN:2\", " OWN_KEYS ", allow: [tls12]}\n"
                        "  - {match: \"CN:3\", " OWN_KEYS ", allow: [list]}\n"
                        "  - {match: \"CN:4\", " OWN_KEYS ", allow: [digest]}\n"
                        "  - {match: \"CN:5\", " OWN_KEYS ", allow: [transcript]}\n"
                        "  - {match: \"CN:6\", " OWN_KEYS ", allow: [tls13, tls12, digest], "
                        "require: transcript}\n"
                        "  - {match: \"CN:7\", " OWN_KEYS ", allow: [tls13, tls12], "
                        "names: [www.example.com, \"*.example.org\"]}\n"
                        "  - {match: \"CN:8\", " OWN_KEYS ", allow: [tls13, tls12, digest], "
                        "schemes: [ecdsa_secp256r1_sha256, rsa_pss_rsae_sha384, ed25519]}\n"
                        "  - {match: \"CN:9\", " OWN_KEYS ", deny: true}\n"
                        "  - {match: \"CN:10\", " OWN_KEYS ", allow: [list], rate: 3}\n";

struct world {
    struct keyserver_config *config;
    struct key_table table;
    struct policy *policy;
    uint64_t clock;
    uint8_t scratch[KSSL_PAYLOAD_MAX];
};

static int world_make(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    world->config = fixture_config(CONFIG);
    fixture_keys(KEYS, COUNT_OF(KEYS), &world->table);
    world->policy = fixture_policy(world->config, &world->table);
    *state = world;
    return 0;
}

static int world_free(void **state)
{
    struct world *world = *state;
    policy_free(world->policy);
    key_table_clear(&world->table);
    keyserver_config_free(world->config);
    free(world);
    return 0;
}

/* The body is decided on in a block of its exact size. */
static void decide(struct world *world, size_t entry, struct bytes body, struct operation *operation)
{
    const struct kssl_header header = {.major = 1, .length = (uint16_t)body.size, .id = 7};
    const struct operation_time now = {.unix_seconds = 1234567890, .clock = world->clock};
    operation_decide(world->policy, entry, &header, body, &now, world->scratch, operation);
}

/* ---- Bodies. */

struct ask {
    uint8_t opcode;
    uint8_t ski;    /* the octet that it repeats; 0: absent */
    uint8_t digest; /* the same for the legacy digest */
    struct bytes payload;
    struct bytes sni;
};

static struct bytes body_of(const struct ask *ask, uint8_t frame[static KSSL_FRAME_MAX])
{
    uint8_t ski[KEY_ID_SKI_SIZE], digest[KEY_ID_DIGEST_SIZE];
    memset(ski, ask->ski, sizeof ski);
    memset(digest, ask->digest, sizeof digest);
    const struct kssl_message message = {
        .has_opcode = true,
        .opcode = ask->opcode,
        .payload = ask->payload,
        .sni = ask->sni,
        .ski = bytes_of(ask->ski != 0 ? ski : NULL, ask->ski != 0 ? sizeof ski : 0),
        .digest = bytes_of(ask->digest != 0 ? digest : NULL, ask->digest != 0 ? sizeof digest : 0)};
    struct writer to = writer_of(frame, KSSL_FRAME_MAX);
    assert_true(kssl_message_write(&to, 1, &message));
    return bytes_of(frame + KSSL_HEADER_SIZE, to.size - KSSL_HEADER_SIZE);
}

static void check_ask(struct world *world, const char *row, size_t entry, const struct ask *ask,
                      uint8_t error)
{
    static uint8_t frame[KSSL_FRAME_MAX];
    struct bytes body = body_of(ask, frame);
    uint8_t *exact = exact_copy(body);
    struct operation operation;
    decide(world, entry, bytes_of(exact, body.size), &operation);
    if (operation.error != error)
        fail_msg("%s, entry %zu: error 0x%02x instead of 0x%02x", row, entry, operation.error, error);
    CHECK(row, (operation.outcome == OPERATION_REFUSE) == (error != KSSL_ERROR_NONE));
    free(exact);
}

/* ---- Which opcodes, for whom. */

#define HASH_32 "0123456789abcdef0123456789ABCDEF"
#define HASH_48 HASH_32 "0123456789abcdef"
#define MARKED                                                                                               \
    "random octets, twenty-fo"                                                                               \
    "DOWNGRD\x01"
#define MARKED_0                                                                                             \
    "random octets, twenty-fo"                                                                               \
    "DOWNGRD\x00"
#define UNMARKED "random octets, twenty-four of th"
#define X25519   "\x03\0\x1d\x20" HASH_32
#define CLIENT   "client random: thirty-two octets"
#define SPACES_32                                                                                            \
    "                "                                                                                       \
    "                "
#define SPACES_64 SPACES_32 SPACES_32

static const struct {
    uint8_t opcode;
    bool allowed[ENTRIES];
    uint8_t refused; /* with what, where not allowed */
} OPCODE_ROWS[] = {
    {0xF1, {true, true, true, true, true, true, true, true, true, true, true}, 0},
    {0x60, {true, true, true, true, true, true, true, true, true, true, true}, 0},
    {0x61, {true, true, false, false, false, false, false, true, true}, 0x05},
    {0x62, {true, false, true, false, false, false, true, true, true}, 0x05},
    {0x63, {true, true, false, false, false, true, true, true, true}, 0x05},
    {0x67, {true, false, false, true, false, false, false, false, false, false, true}, 0x05},
    {0x02, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x03, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x04, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x05, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x06, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x07, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x12, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x13, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x14, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x15, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x16, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x17, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x18, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x35, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x36, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0x37, {true, false, false, false, true, false, false, false, true}, 0x05},
    {0xF0, {false}, 0x06},
    {0xF2, {false}, 0x06},
    {0xFF, {false}, 0x06},
};

static size_t opcode_row(unsigned opcode)
{
    size_t row = 0;
    while (row < COUNT_OF(OPCODE_ROWS) && OPCODE_ROWS[row].opcode != opcode)
        row++;
    return row;
}

/* Every opcode for every entry; a payload of one octet fits none of the signing operations, so that one that
 * gets past the opcode ends at the format, or, for a bare digest, at the key. */
static void opcodes_are_checked_first(void **state)
{
    static uint8_t frame[KSSL_FRAME_MAX];
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        size_t row = opcode_row(opcode);
        for (size_t entry = 0; entry < ENTRIES; entry++) {
            const struct ask ask = {.opcode = (uint8_t)opcode, .ski = 0xAA, .payload = OCTETS("x")};
            struct operation operation;
            decide(*state, entry, body_of(&ask, frame), &operation);
            bool known = row < COUNT_OF(OPCODE_ROWS);
            uint8_t refused = known ? OPCODE_ROWS[row].refused : 0x05;
            bool allowed = known && OPCODE_ROWS[row].allowed[entry];
            bool passed = operation.error != 0x05 && operation.error != 0x06;
            if (passed != allowed || (!allowed && operation.error != refused))
                fail_msg("opcode 0x%02x, entry %zu: error 0x%02x", opcode, entry, operation.error);
            assert_int_equal(
                operation_allowed(policy_allow(((struct world *)*state)->policy, entry), (uint8_t)opcode),
                allowed);
        }
    }
}

/* ---- What is answered at once. */

static void hello_lists_what_is_allowed(void **state)
{
    static uint8_t frame[KSSL_FRAME_MAX];
    for (size_t entry = 0; entry < ENTRIES; entry++) {
        const struct ask ask = {.opcode = 0x60, .payload = OCTETS("a client 1.0")};
        struct operation operation;
        struct kssl_hello hello;
        decide(*state, entry, body_of(&ask, frame), &operation);
        assert_int_equal(operation.outcome, OPERATION_ANSWER);
        assert_int_equal(operation.answer_opcode, KSSL_OP_SUCCESS);
        assert_true(kssl_hello_parse(operation.answer, &hello));
        assert_int_equal(hello.time, 1234567890);
        for (unsigned opcode = 0; opcode < 256; opcode++) {
            size_t row = opcode_row(opcode);
            bool allowed = row < COUNT_OF(OPCODE_ROWS) && OPCODE_ROWS[row].allowed[entry];
            assert_int_equal(kssl_hello_offers(&hello, (uint8_t)opcode), allowed);
        }
    }
}

static void pings_come_back(void **state)
{
    static uint8_t frame[KSSL_FRAME_MAX];
    static uint8_t octets[KSSL_PAYLOAD_MAX];
    static const size_t SIZES[] = {0, 1, 1024, KSSL_PAYLOAD_MAX};
    memset(octets, 'p', sizeof octets);
    for (size_t i = 0; i < COUNT_OF(SIZES); i++) {
        const struct ask ask = {.opcode = 0xF1, .payload = bytes_of(octets, SIZES[i])};
        struct operation operation;
        decide(*state, TLS13_ONLY, body_of(&ask, frame), &operation);
        assert_int_equal(operation.outcome, OPERATION_ANSWER);
        assert_int_equal(operation.answer_opcode, KSSL_OP_PONG);
        assert_true(bytes_equal(operation.answer, ask.payload));
    }
}

/* ---- Formats. */

static const struct {
    const char *name;
    struct bytes body;
    uint8_t error;
} BODY_ROWS[] = {
    {"nothing", WIRE(""), 0x07},
    {"no opcode", WIRE("\x12\0\x01x"), 0x07},
    {"an opcode of two octets", WIRE("\x11\0\x02\xF1\xF1"), 0x07},
    {"an empty opcode", WIRE("\x11\0\0"), 0x07},
    {"opcode twice", WIRE("\x11\0\x01\xF1\x11\0\x01\xF1"), 0x07},
    {"payload twice", WIRE("\x11\0\x01\xF1\x12\0\0\x12\0\0"), 0x07},
    {"cut in an item's header", WIRE("\x11\0\x01\xF1\x12\0"), 0x07},
    {"cut in an item", WIRE("\x11\0\x01\xF1\x12\0\x02x"), 0x07},
    {"an SKI of 19 octets",
     WIRE("\x11\0\x01\xF1\x04\0\x13"
          "0123456789012345678"),
     0x07},
    {"a format error comes before the opcode", WIRE("\x11\0\x01\x99\x12\0\x02x"), 0x07},
    {"an unknown tag, twice", WIRE("\x11\0\x01\xF1\x77\0\x01x\x77\0\x01x"), 0x00},
    {"padding, twice", WIRE("\x20\0\x01\0\x11\0\x01\xF1\x20\0\x02\0\0"), 0x00},
    {"no payload", WIRE("\x11\0\x01\xF1"), 0x00},
    {"hello without payload", WIRE("\x11\0\x01\x60"), 0x00},
    {"list without payload", WIRE("\x11\0\x01\x67"), 0x00},
    {"payload first", WIRE("\x12\0\x01x\x11\0\x01\xF1"), 0x00},
};

static void bodies_are_parsed(void **state)
{
    for (size_t i = 0; i < COUNT_OF(BODY_ROWS); i++) {
        uint8_t *exact = exact_copy(BODY_ROWS[i].body);
        struct operation operation;
        decide(*state, EVERYTHING, bytes_of(exact, BODY_ROWS[i].body.size), &operation);
        CHECK(BODY_ROWS[i].name, operation.error == BODY_ROWS[i].error);
        free(exact);
    }
}

static void other_versions_are_refused(void **state)
{
    struct world *world = *state;
    static const uint8_t MAJORS[] = {0, 2, 255};
    for (size_t i = 0; i < COUNT_OF(MAJORS); i++) {
        const struct kssl_header header = {.major = MAJORS[i], .length = 100};
        struct operation operation;
        const struct operation_time now = {0};
        operation_decide(world->policy, 0, &header, bytes_of(NULL, 0), &now, world->scratch, &operation);
        assert_int_equal(operation.error, KSSL_ERROR_VERSION);
    }
}

/* ---- The order of checks, for operations that sign: each row is wrong in the point named and in all that
 * are checked later, as far as that is possible. */

static const struct {
    const char *name;
    size_t entry;
    uint8_t ski, digest;
    uint8_t opcode;
    struct bytes payload;
    uint8_t error;
} SIGN_ROWS[] = {
    /* 0x61 */
    {"tls13: fine", EVERYTHING, 0x11, 0, 0x61, WIRE("\x04\x03" HASH_32), 0x00},
    {"tls13: fine, 48", EVERYTHING, 0x11, 0, 0x61, WIRE("\x04\x03" HASH_48), 0x00},
    {"tls13: the hash's length is no part of the scheme", EVERYTHING, 0x44, 0, 0x61, WIRE("\x05\x03" HASH_32),
     0x00},
    {"tls13: p521", EVERYTHING, 0x55, 0, 0x61, WIRE("\x06\x03" HASH_48), 0x00},
    {"tls13: ed25519", EVERYTHING, 0x33, 0, 0x61, WIRE("\x08\x07" HASH_32), 0x00},
    {"tls13: ed448", EVERYTHING, 0x66, 0, 0x61, WIRE("\x08\x08" HASH_32), 0x00},
    {"tls13: rsa 0804", EVERYTHING, 0x22, 0, 0x61, WIRE("\x08\x04" HASH_32), 0x00},
    {"tls13: rsa 0805", EVERYTHING, 0x22, 0, 0x61, WIRE("\x08\x05" HASH_32), 0x00},
    {"tls13: rsa 0806", EVERYTHING, 0x22, 0, 0x61, WIRE("\x08\x06" HASH_32), 0x00},
    {"tls13: not allowed, and a bad payload", TLS12_ONLY, 0xAA, 0, 0x61, WIRE("x"), 0x05},
    {"tls13: a bad payload, and no such key", TLS13_ONLY, 0xAA, 0, 0x61, WIRE("\x04\x03" HASH_32 "x"), 0x07},
    {"tls13: no payload", TLS13_ONLY, 0x11, 0, 0x61, {NULL, 0}, 0x07},
    {"tls13: no SKI", TLS13_ONLY, 0, 0, 0x61, WIRE("\x04\x03" HASH_32), 0x07},
    {"tls13: a digest is no SKI", EVERYTHING, 0, 0x11, 0x61, WIRE("\x04\x03" HASH_32), 0x07},
    {"tls13: no such key, and no such scheme", TLS13_ONLY, 0xAA, 0, 0x61, WIRE("\xFF\xFF" HASH_32), 0x02},
    {"tls13: a key of others, and no such scheme", TLS13_ONLY, 0x77, 0, 0x61, WIRE("\xFF\xFF" HASH_32), 0x02},
    {"tls13: no such scheme", TLS13_ONLY, 0x11, 0, 0x61, WIRE("\xFF\xFF" HASH_32), 0x01},
    {"tls13: another curve's scheme", TLS13_ONLY, 0x11, 0, 0x61, WIRE("\x05\x03" HASH_48), 0x01},
    {"tls13: rsa with ecdsa's", TLS13_ONLY, 0x22, 0, 0x61, WIRE("\x04\x03" HASH_32), 0x01},
    {"tls13: pkcs1", TLS13_ONLY, 0x22, 0, 0x61, WIRE("\x04\x01" HASH_32), 0x01},
    {"tls13: rsa_pss_pss", TLS13_ONLY, 0x22, 0, 0x61, WIRE("\x08\x09" HASH_32), 0x01},
    {"tls13: ecdsa with sha1", TLS13_ONLY, 0x11, 0, 0x61, WIRE("\x02\x03" HASH_32), 0x01},
    {"tls13: where transcripts are required", REQUIRED, 0x11, 0, 0x61, WIRE("\x04\x03" HASH_32), 0x05},
    {"bare: where transcripts are required", REQUIRED, 0x22, 0, 0x05, WIRE(HASH_32), 0x05},
    {"tls13: no name, where names are listed", NAMED, 0x11, 0, 0x61, WIRE("\x04\x03" HASH_32), 0x40},
    {"tls13: no name, and a bad scheme", NAMED, 0x11, 0, 0x61, WIRE("\x05\x03" HASH_32), 0x01},
    {"tls13: one of the schemes", SCHEMES, 0x11, 0, 0x61, WIRE("\x04\x03" HASH_32), 0x00},
    {"tls13: another one of them", SCHEMES, 0x22, 0, 0x61, WIRE("\x08\x05" HASH_32), 0x00},
    {"tls13: none of them", SCHEMES, 0x22, 0, 0x61, WIRE("\x08\x04" HASH_32), 0x40},
    {"tls13: none of them, of another key", SCHEMES, 0x44, 0, 0x61, WIRE("\x05\x03" HASH_32), 0x40},
    {"tls13: one of them that does not fit", SCHEMES, 0x22, 0, 0x61, WIRE("\x04\x03" HASH_32), 0x01},
    {"tls12: one of the schemes", SCHEMES, 0x44, 0, 0x62, WIRE("\x04\x03" CLIENT MARKED X25519), 0x00},
    {"tls12: none of them", SCHEMES, 0x11, 0, 0x62, WIRE("\x05\x03" CLIENT MARKED X25519), 0x40},
    {"tls12: none of them, and bad content", SCHEMES, 0x11, 0, 0x62, WIRE("\x05\x03" CLIENT MARKED_0 X25519),
     0x41},
    {"bare: one of the schemes", SCHEMES, 0x11, 0, 0x15, WIRE(HASH_32), 0x00},
    {"bare: by its hash, not its curve", SCHEMES, 0x55, 0, 0x15, WIRE(HASH_32), 0x00},
    {"bare: ecdsa, none of them", SCHEMES, 0x44, 0, 0x16, WIRE(HASH_48), 0x40},
    {"bare: pss, one of them", SCHEMES, 0x22, 0, 0x36, WIRE(HASH_48), 0x00},
    {"bare: pss, none of them", SCHEMES, 0x22, 0, 0x35, WIRE(HASH_32), 0x40},
    {"bare: pkcs1, none of them", SCHEMES, 0x22, 0, 0x06, WIRE(HASH_48), 0x40},
    {"bare: a hash that no scheme has", SCHEMES, 0x11, 0, 0x13, WIRE("twenty octets it has"), 0x40},
    {"bare: ed25519, one of them", SCHEMES, 0x33, 0, 0x18, WIRE("message"), 0x00},
    {"tls13: denied", DENIED, 0x11, 0, 0x61, WIRE("\x04\x03" HASH_32), 0x05},
    /* 0x63: what the messages say is keyserver_test_transcript_check.c's. */
    {"transcript: not allowed, and a bad payload", TLS12_ONLY, 0xAA, 0, 0x63, WIRE("x"), 0x05},
    {"transcript: a bad payload, and no such key", TLS13_ONLY, 0xAA, 0, 0x63, WIRE("\x04\x03\x01"), 0x07},
    {"transcript: no messages", TLS13_ONLY, 0x11, 0, 0x63, WIRE("\x04\x03"), 0x07},
    {"transcript: no payload", TLS13_ONLY, 0x11, 0, 0x63, {NULL, 0}, 0x07},
    /* 0x62 */
    {"tls12: fine", EVERYTHING, 0x11, 0, 0x62, WIRE("\x04\x03" CLIENT MARKED X25519), 0x00},
    {"tls12: any hash with any curve", EVERYTHING, 0x11, 0, 0x62, WIRE("\x06\x03" CLIENT MARKED X25519),
     0x00},
    {"tls12: pkcs1", EVERYTHING, 0x22, 0, 0x62, WIRE("\x04\x01" CLIENT MARKED X25519), 0x00},
    {"tls12: pss", EVERYTHING, 0x22, 0, 0x62, WIRE("\x08\x06" CLIENT MARKED X25519), 0x00},
    {"tls12: eddsa", EVERYTHING, 0x33, 0, 0x62, WIRE("\x08\x07" CLIENT MARKED X25519), 0x00},
    {"tls12: no mark, where tls13 is allowed", EVERYTHING, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT UNMARKED X25519), 0x41},
    {"tls12: no mark, where it is not", TLS12_ONLY, 0x11, 0, 0x62, WIRE("\x04\x03" CLIENT UNMARKED X25519),
     0x00},
    {"tls12: no mark, where transcripts are required", REQUIRED, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT UNMARKED X25519), 0x41},
    {"tls12: the mark, where transcripts are required", REQUIRED, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT MARKED X25519), 0x00},
    {"tls12: the mark, where it need not be", TLS12_ONLY, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT MARKED X25519), 0x00},
    {"tls12: the mark of 1.1", EVERYTHING, 0x11, 0, 0x62, WIRE("\x04\x03" CLIENT MARKED_0 X25519), 0x41},
    {"tls12: the mark of 1.1, without tls13", TLS12_ONLY, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT MARKED_0 X25519), 0x41},
    {"tls12: explicit curve", EVERYTHING, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT MARKED "\x01\0\x1d\x20" HASH_32), 0x41},
    {"tls12: no such group", EVERYTHING, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT MARKED "\x03\0\x16\x20" HASH_32), 0x41},
    {"tls12: a point of another size", EVERYTHING, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT MARKED "\x03\0\x17\x20" HASH_32), 0x41},
    {"tls12: a point off its curve", EVERYTHING, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT MARKED "\x03\0\x17\x41\x04" HASH_32 HASH_32), 0x41},
    {"tls12: a point off its curve, and not one of the names", NAMED, 0x11, 0, 0x62,
     WIRE("\x04\x03" CLIENT MARKED "\x03\0\x17\x41\x04" HASH_32 HASH_32), 0x41},
    {"tls12: not allowed, and a bad payload", TLS13_ONLY, 0xAA, 0, 0x62, WIRE("x"), 0x05},
    {"tls12: params of no group's size, and no such key", TLS12_ONLY, 0xAA, 0, 0x62,
     WIRE("\x04\x03" CLIENT MARKED X25519 "x"), 0x07},
    {"tls12: no SKI", TLS12_ONLY, 0, 0x11, 0x62, WIRE("\x04\x03" CLIENT MARKED X25519), 0x07},
    {"tls12: a key of others, and a bad scheme", TLS12_ONLY, 0x77, 0, 0x62,
     WIRE("\xFF\xFF" CLIENT MARKED_0 X25519), 0x02},
    {"tls12: a bad scheme, and bad content", TLS12_ONLY, 0x11, 0, 0x62,
     WIRE("\x08\x04" CLIENT MARKED_0 X25519), 0x01},
    /* Bare. */
    {"bare: by SKI", DIGEST_ONLY, 0x22, 0, 0x05, WIRE(HASH_32), 0x00},
    {"bare: by digest", DIGEST_ONLY, 0, 0x22, 0x05, WIRE(HASH_32), 0x00},
    {"bare: the SKI counts", DIGEST_ONLY, 0x22, 0x11, 0x05, WIRE(HASH_32), 0x00},
    {"bare: the SKI counts, even where only the digest is known", DIGEST_ONLY, 0xAA, 0x22, 0x05,
     WIRE(HASH_32), 0x02},
    {"bare: not allowed, and no payload", TLS13_ONLY, 0xAA, 0, 0x05, {NULL, 0}, 0x05},
    {"bare: no payload, and no such key", DIGEST_ONLY, 0xAA, 0, 0x05, {NULL, 0}, 0x07},
    {"bare: no name of a key", DIGEST_ONLY, 0, 0, 0x05, WIRE(HASH_32), 0x07},
    {"bare: no such key, and a bad digest", DIGEST_ONLY, 0xAA, 0, 0x05, WIRE("x"), 0x02},
    {"bare: no such digest", DIGEST_ONLY, 0, 0xAA, 0x05, WIRE("x"), 0x02},
    {"bare: another client's key by digest", DIGEST_ONLY, 0, 0x77, 0x15, WIRE(HASH_32), 0x02},
    {"bare: a short digest", DIGEST_ONLY, 0x22, 0, 0x05, WIRE("0123456789abcdef0123456789ABCDE"), 0x01},
    {"bare: a long digest", DIGEST_ONLY, 0x22, 0, 0x05, WIRE(HASH_32 "x"), 0x01},
    {"bare: a far too long digest", DIGEST_ONLY, 0x22, 0, 0x07, WIRE(HASH_32 HASH_32 "x"), 0x01},
    {"bare: an empty digest", DIGEST_ONLY, 0x22, 0, 0x05, WIRE(""), 0x01},
    {"bare: rsa with a curve's key", DIGEST_ONLY, 0x11, 0, 0x05, WIRE(HASH_32), 0x01},
    {"bare: ecdsa with rsa's key", DIGEST_ONLY, 0x22, 0, 0x15, WIRE(HASH_32), 0x01},
    {"bare: ecdsa with ed25519's key", DIGEST_ONLY, 0x33, 0, 0x15, WIRE(HASH_32), 0x01},
    {"bare: ecdsa", DIGEST_ONLY, 0x11, 0, 0x15, WIRE(HASH_32), 0x00},
    {"bare: ecdsa, another hash", DIGEST_ONLY, 0x55, 0, 0x13, WIRE("twenty octets it has"), 0x00},
    {"bare: pss with a curve's key", DIGEST_ONLY, 0x11, 0, 0x35, WIRE(HASH_32), 0x01},
    {"bare: pss", DIGEST_ONLY, 0x22, 0, 0x35, WIRE(HASH_32), 0x00},
    {"bare: ed25519", DIGEST_ONLY, 0x33, 0, 0x18, WIRE("a message of any length"), 0x00},
    {"bare: ed25519, nothing", DIGEST_ONLY, 0x33, 0, 0x18, WIRE(""), 0x00},
    {"bare: ed25519, no payload", DIGEST_ONLY, 0x33, 0, 0x18, {NULL, 0}, 0x07},
    {"bare: ed25519, 64 spaces", DIGEST_ONLY, 0x33, 0, 0x18, WIRE(SPACES_64), 0x41},
    {"bare: ed25519, a client's content", DIGEST_ONLY, 0x33, 0, 0x18,
     WIRE(SPACES_64 "TLS 1.3, client CertificateVerify\0" HASH_32), 0x41},
    {"bare: ed25519, a credential", DIGEST_ONLY, 0x33, 0, 0x18,
     WIRE(SPACES_64 "TLS, server delegated credentials\0" HASH_32), 0x41},
    {"bare: ed25519, a server's content", DIGEST_ONLY, 0x33, 0, 0x18,
     WIRE(SPACES_64 "TLS 1.3, server CertificateVerify\0" HASH_48), 0x00},
    {"bare: ed25519, fewer spaces", DIGEST_ONLY, 0x33, 0, 0x18, WIRE(SPACES_32), 0x00},
    {"bare: ed25519 with ed448's key", DIGEST_ONLY, 0x66, 0, 0x18, WIRE("message"), 0x01},
    {"bare: ed25519 with a curve's key", DIGEST_ONLY, 0x11, 0, 0x18, WIRE("message"), 0x01},
    /* 0x67 */
    {"list: behind an SKI", LIST_ONLY, 0, 0, 0x67, WIRE("twenty octets it has"), 0x00},
    {"list: 19 octets", LIST_ONLY, 0, 0, 0x67, WIRE("nineteen octets hav"), 0x07},
    {"list: 21 octets", LIST_ONLY, 0, 0, 0x67, WIRE("twenty-one octets has"), 0x07},
};

static void checks_have_their_order(void **state)
{
    for (size_t i = 0; i < COUNT_OF(SIGN_ROWS); i++) {
        const struct ask ask = {.opcode = SIGN_ROWS[i].opcode,
                                .ski = SIGN_ROWS[i].ski,
                                .digest = SIGN_ROWS[i].digest,
                                .payload = SIGN_ROWS[i].payload};
        check_ask(*state, SIGN_ROWS[i].name, SIGN_ROWS[i].entry, &ask, SIGN_ROWS[i].error);
    }
}

/* An SKI of zeros counts as absent. */
static void a_zero_ski_is_absent(void **state)
{
    static const struct bytes BODY =
        WIRE("\x11\0\x01\x61\x12\0\x22\x04\x03" HASH_32 "\x04\0\x14\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    struct operation operation;
    decide(*state, TLS13_ONLY, BODY, &operation);
    assert_int_equal(operation.error, KSSL_ERROR_FORMAT);
}

/* ---- What the signer is asked: the parts, in their places. */

static void requests_have_the_parts(void **state)
{
    static uint8_t frame[KSSL_FRAME_MAX];
    struct operation operation;
    const struct ask ask = {.opcode = 0x62, .ski = 0x11, .payload = OCTETS("\x05\x03" CLIENT MARKED X25519)};
    decide(*state, EVERYTHING, body_of(&ask, frame), &operation);
    assert_int_equal(operation.outcome, OPERATION_SIGN);
    const struct sign_request *request = &operation.request;
    assert_int_equal(request->kind, SIGN_TLS12);
    assert_int_equal(request->entry, EVERYTHING);
    assert_int_equal(request->ski[0], 0x11);
    assert_int_equal(request->tls12.scheme, 0x0503);
    assert_int_equal(request->tls12.group, 0x001d);
    assert_int_equal(request->tls12.point_size, 32);
    uint8_t content[SIGN_CONTENT_MAX];
    struct writer to = writer_of(content, sizeof content);
    assert_true(sign_request_content(request, &to));
    assert_true(bytes_equal(writer_bytes(&to), OCTETS(CLIENT MARKED X25519)));
    assert_string_equal(operation.key->label, "p256");
}

static void contents_are_rebuilt(void **state)
{
    static uint8_t frame[KSSL_FRAME_MAX];
    struct operation operation;
    const struct ask ask = {.opcode = 0x61, .ski = 0x11, .payload = OCTETS("\x04\x03" HASH_48)};
    decide(*state, EVERYTHING, body_of(&ask, frame), &operation);
    uint8_t content[SIGN_CONTENT_MAX];
    struct writer to = writer_of(content, sizeof content);
    assert_true(sign_request_content(&operation.request, &to));
    struct bytes hash;
    assert_true(tls_certificate_verify_parse(writer_bytes(&to), &hash));
    assert_true(bytes_equal(hash, OCTETS(HASH_48)));
}

static void points_are_checked(void **state)
{
    (void)state;
    struct sign_request request = {.kind = SIGN_TLS12};
    EC_GROUP *group = EC_GROUP_new_by_curve_name(NID_X9_62_prime256v1);
    request.tls12.group = 0x0017;
    request.tls12.point_size = (uint8_t)EC_POINT_point2oct(
        group, EC_GROUP_get0_generator(group), POINT_CONVERSION_UNCOMPRESSED, request.tls12.point, 65, NULL);
    EC_GROUP_free(group);
    assert_int_equal(request.tls12.point_size, 65);
    assert_true(sign_request_point_valid(&request));
    request.tls12.point[64] ^= 1;
    assert_false(sign_request_point_valid(&request));
    request = (struct sign_request){.kind = SIGN_TLS13};
    assert_true(sign_request_point_valid(&request));
}

#define NOT_NAMED   "the SNI is none of the client's names"
#define NOT_COVERED "the key's certificates have names that the client has not"

/* Of an entry that has names: the SNI is one of them, and travels to the signer as it was claimed. */
static void claimed_names_are_checked(void **state)
{
    struct world *world = *state;
    static char long_name[300];
    memset(long_name, 'a', sizeof long_name);
    static const struct {
        const char *sni;
        size_t entry;
        const char *reason; /* NULL: it is signed for */
    } ROWS[] = {
        /* It may have these, but of a key without certificates nobody knows what it serves for. */
        {"www.example.com", NAMED, NOT_COVERED},
        {"WWW.example.com", NAMED, NOT_COVERED},
        {"a.example.org", NAMED, NOT_COVERED},
        {"a.b.example.org", NAMED, NOT_NAMED},
        {"example.org", NAMED, NOT_NAMED},
        {"www.example.net", NAMED, NOT_NAMED},
        {"*.example.org", NAMED, NOT_NAMED},
        {"", NAMED, NOT_NAMED},
        {"no name", NAMED, NOT_NAMED},
        {"no name", EVERYTHING, NULL},
        {"", EVERYTHING, NULL},
        {long_name, EVERYTHING, "the SNI is too long for a host name"},
    };
    static uint8_t frame[KSSL_FRAME_MAX];
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        size_t size = ROWS[i].sni == long_name ? sizeof long_name : strlen(ROWS[i].sni);
        const struct ask ask = {.opcode = 0x61,
                                .ski = 0x11,
                                .payload = OCTETS("\x04\x03" HASH_32),
                                .sni = bytes_of(ROWS[i].sni, size)};
        struct operation operation;
        decide(world, ROWS[i].entry, body_of(&ask, frame), &operation);
        CHECK(ROWS[i].sni, operation.error == (ROWS[i].reason != NULL ? 0x40 : 0x00));
        CHECK(ROWS[i].sni, ROWS[i].reason == NULL || strcmp(operation.reason, ROWS[i].reason) == 0);
        CHECK(ROWS[i].sni,
              operation.outcome != OPERATION_SIGN ||
                  bytes_equal(bytes_of(operation.request.sni, operation.request.sni_size), ask.sni));
    }
}

/* Behind the opcode, and before anything is looked at that a client might learn something from. Hello and
 * pings are free. */
static void rates_are_checked_after_the_opcode(void **state)
{
    static const struct {
        uint8_t opcode;
        struct bytes payload;
        uint8_t error;
    } ROWS[] = {{0x67, WIRE(""), 0x00},  {0x67, WIRE("x"), 0x07}, {0x61, WIRE("x"), 0x05},
                {0xF1, WIRE("x"), 0x00}, {0x60, WIRE(""), 0x00},  {0x67, WIRE(""), 0x00},
                {0x67, WIRE(""), 0x00},  {0x67, WIRE(""), 0x00},  {0x67, WIRE("x"), 0x07},
                {0x67, WIRE(""), 0x42},  {0x67, WIRE("x"), 0x42}, {0x61, WIRE("x"), 0x05},
                {0xF0, WIRE("x"), 0x06}, {0xF1, WIRE("x"), 0x00}, {0x60, WIRE(""), 0x00}};
    static uint8_t frame[KSSL_FRAME_MAX];
    struct world *world = *state;
    static const size_t NUMBERS[ENTRIES] = {0};
    struct rate_bucket bucket = {0};
    policy_use_rates(world->policy,
                     &(const struct policy_rates){.buckets = &bucket, .numbers = NUMBERS, .burst = 2});
    world->clock = 1000000;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        const struct ask ask = {.opcode = ROWS[i].opcode, .ski = 0x11, .payload = ROWS[i].payload};
        struct operation operation;
        decide(world, RATED, body_of(&ask, frame), &operation);
        if (operation.error != ROWS[i].error)
            fail_msg("row %zu: error 0x%02x", i, operation.error);
    }
    world->clock += 333334;
    const struct ask ask = {.opcode = 0x67, .payload = OCTETS("")};
    struct operation operation;
    decide(world, RATED, body_of(&ask, frame), &operation);
    assert_int_equal(operation.error, 0);
    decide(world, RATED, body_of(&ask, frame), &operation);
    assert_int_equal(operation.error, KSSL_ERROR_RATE);
    decide(world, EVERYTHING, body_of(&ask, frame), &operation); /* has no rate */
    assert_int_equal(operation.error, 0);
}

/* What a front end should never have let through. */
static void the_signer_believes_nothing(void **state)
{
    struct world *world = *state;
    const char *reason;
    size_t key;
    struct sign_request request = {.kind = SIGN_TLS13, .opcode = 0x61};
    memset(request.ski, 0x11, sizeof request.ski);
    request.tls13.scheme = 0x0403;
    request.tls13.hash_size = 32;
    assert_int_equal(sign_request_check(world->policy, &request, &key, &reason), KSSL_ERROR_NONE);
    assert_int_equal(key, 0);
    request.entry = ENTRIES;
    assert_int_equal(sign_request_check(world->policy, &request, &key, &reason), KSSL_ERROR_INTERNAL);
    request.entry = TLS12_ONLY;
    assert_int_equal(sign_request_check(world->policy, &request, &key, &reason), KSSL_ERROR_BAD_OPCODE);
    request.entry = 0;
    request.opcode = 0x05; /* of another kind than the parts */
    assert_int_equal(sign_request_check(world->policy, &request, &key, &reason), KSSL_ERROR_INTERNAL);
    request.opcode = 0x61;
    request.tls13.hash_size = 20;
    assert_int_equal(sign_request_check(world->policy, &request, &key, &reason), KSSL_ERROR_CONTENT);
    request.tls13.hash_size = 32;
    request.entry = NAMED;
    assert_int_equal(sign_request_check(world->policy, &request, &key, &reason), KSSL_ERROR_POLICY);
    assert_string_equal(reason, "the SNI is none of the client's names");
    request.entry = TRANSCRIPT_ONLY;
    request.opcode = 0x63; /* of a key that no transcript can have been checked for */
    assert_int_equal(sign_request_check(world->policy, &request, &key, &reason), KSSL_ERROR_POLICY);
    assert_string_equal(reason, "the key has no certificate for the SNI");
}

/* ---- The list, with more keys than fit one answer. */

#define MANY 700

static void long_lists_come_in_parts(void **state)
{
    (void)state;
    struct key_table table = {0};
    char label[KEY_LABEL_MAX + 1];
    memset(label, 'l', KEY_LABEL_MAX);
    label[KEY_LABEL_MAX] = '\0';
    for (size_t i = 0; i < MANY; i++) {
        struct key_id id = {.type = KEY_TYPE_P256};
        id.ski[0] = (uint8_t)(i >> 8);
        id.ski[1] = (uint8_t)i;
        id.ski[19] = 1;
        assert_int_equal(key_table_add(&table, &id, bytes_of(label, KEY_LABEL_MAX), NULL), RESULT_OK);
    }
    struct keyserver_config *config =
        fixture_config(FIXTURE_CONFIG_HEAD "clients: [{match: \"CN:x\", keys: \"*\", allow: list}]\n");
    struct world *world = calloc(1, sizeof *world);
    world->policy = fixture_policy(config, &table);
    static uint8_t frame[KSSL_FRAME_MAX];
    struct ask ask = {.opcode = 0x67, .payload = OCTETS("")};
    uint8_t after[KEY_ID_SKI_SIZE];
    size_t seen = 0, answers = 0;
    uint8_t more = 1;
    while (more == 1) {
        struct operation operation;
        struct kssl_list_entry entry;
        decide(world, 0, body_of(&ask, frame), &operation);
        assert_int_equal(operation.outcome, OPERATION_ANSWER);
        assert_true(operation.answer.size <= KSSL_LIST_MAX);
        struct reader from = reader_of(operation.answer);
        assert_true(read_u8(&from, &more));
        for (; !reader_empty(&from); seen++) {
            assert_true(kssl_list_entry_read(&from, &entry));
            assert_int_equal(entry.ski[0] << 8 | entry.ski[1], seen);
            memcpy(after, entry.ski, sizeof after);
        }
        ask.payload = bytes_of(after, sizeof after);
        answers++;
    }
    assert_int_equal(more, 0);
    assert_int_equal(seen, MANY);
    assert_int_equal(answers, 1 + (MANY - 1) / ((KSSL_LIST_MAX - 1) / (22 + KEY_LABEL_MAX)));
    policy_free(world->policy);
    free(world);
    keyserver_config_free(config);
    key_table_clear(&table);
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_make, world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(opcodes_are_checked_first),
        IN_WORLD(hello_lists_what_is_allowed),
        IN_WORLD(pings_come_back),
        IN_WORLD(bodies_are_parsed),
        IN_WORLD(other_versions_are_refused),
        IN_WORLD(checks_have_their_order),
        IN_WORLD(a_zero_ski_is_absent),
        IN_WORLD(requests_have_the_parts),
        IN_WORLD(contents_are_rebuilt),
        cmocka_unit_test(points_are_checked),
        IN_WORLD(claimed_names_are_checked),
        IN_WORLD(rates_are_checked_after_the_opcode),
        IN_WORLD(the_signer_believes_nothing),
        cmocka_unit_test(long_lists_come_in_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
