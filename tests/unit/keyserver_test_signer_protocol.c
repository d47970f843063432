/* What front ends and the signer say to each other: each form there and back, each cut of it, each octet too
 * many. */
#include "keyserver/signer_protocol.h"

#include "tests/unit/check.h"

static struct sign_request request_of(enum sign_kind kind, uint8_t opcode)
{
    struct sign_request request = {.handle = UINT64_C(0x0102030405060708), .entry = 0x0A0B, .opcode = opcode};
    request.kind = kind;
    for (size_t i = 0; i < sizeof request.ski; i++)
        request.ski[i] = (uint8_t)(i + 1);
    return request;
}

static struct sign_request tls13_request(size_t hash)
{
    struct sign_request request = request_of(SIGN_TLS13, KSSL_OP_SIGN_TLS13);
    request.tls13.scheme = 0x0403;
    request.tls13.hash_size = (uint8_t)hash;
    memset(request.tls13.hash, 'h', hash);
    return request;
}

static struct sign_request with_sni(struct sign_request request, size_t size)
{
    request.sni_size = (uint8_t)size;
    memset(request.sni, 'n', size);
    return request;
}

static struct sign_request with_claims(struct sign_request request, size_t ip, size_t name)
{
    request.client_ip_size = (uint8_t)ip;
    memset(request.client_ip, 'i', ip);
    request.name_size = (uint8_t)name;
    memset(request.name, 'r', name);
    return request;
}

static struct sign_request tls12_request(size_t point)
{
    struct sign_request request = request_of(SIGN_TLS12, KSSL_OP_SIGN_TLS12);
    request.tls12.scheme = 0x0804;
    request.tls12.group = 0x0017;
    request.tls12.point_size = (uint8_t)point;
    memset(request.tls12.client_random, 'c', TLS_RANDOM_SIZE);
    memset(request.tls12.server_random, 's', TLS_RANDOM_SIZE);
    memset(request.tls12.point, 'p', point);
    return request;
}

static struct sign_request digest_request(uint8_t opcode, size_t size)
{
    struct sign_request request = request_of(SIGN_DIGEST, opcode);
    request.digest.size = (uint8_t)size;
    memset(request.digest.octets, 'd', size);
    return request;
}

static struct sign_request message_request(const uint8_t *octets, size_t size)
{
    struct sign_request request = request_of(SIGN_MESSAGE, KSSL_OP_ED25519);
    request.message = bytes_of(octets, size);
    return request;
}

static struct sign_request ticket_keys_request(void)
{
    struct sign_request request = request_of(GIVE_TICKET_KEYS, KSSL_OP_TICKET_KEYS);
    memset(request.ski, 0, sizeof request.ski);
    return request;
}

static uint8_t wire[SIGNER_HEADER_SIZE + SIGNER_BODY_MAX];

/* Type and body of the one message that was written. */
static uint8_t split(const struct writer *to, struct bytes *body)
{
    struct reader from = reader_of(writer_bytes(to));
    uint8_t type = 0;
    assert_true(writer_ok(to));
    assert_true(read_u8(&from, &type));
    assert_true(read_vector24(&from, body));
    assert_true(reader_empty(&from));
    return type;
}

static bool parse_exact(uint8_t type, struct bytes body, struct sign_request *request)
{
    uint8_t *exact = exact_copy(body);
    bool parsed = signer_ask_parse(type, bytes_of(exact, body.size), request);
    if (parsed && request->kind == SIGN_MESSAGE)
        request->message.data = body.data + (request->message.data - exact); /* outlives the copy */
    free(exact);
    return parsed;
}

static void check_same(const struct sign_request *a, const struct sign_request *b)
{
    assert_int_equal(a->handle, b->handle);
    assert_int_equal(a->entry, b->entry);
    assert_int_equal(a->opcode, b->opcode);
    assert_int_equal(a->kind, b->kind);
    assert_memory_equal(a->ski, b->ski, sizeof a->ski);
    assert_int_equal(a->sni_size, b->sni_size);
    assert_memory_equal(a->sni, b->sni, sizeof a->sni);
    assert_int_equal(a->client_ip_size, b->client_ip_size);
    assert_memory_equal(a->client_ip, b->client_ip, sizeof a->client_ip);
    assert_int_equal(a->name_size, b->name_size);
    assert_memory_equal(a->name, b->name, sizeof a->name);
    if (a->kind == SIGN_MESSAGE)
        assert_true(bytes_equal(a->message, b->message));
    else if (a->kind == SIGN_TLS13)
        assert_memory_equal(&a->tls13, &b->tls13, sizeof a->tls13);
    else if (a->kind == SIGN_TLS12)
        assert_memory_equal(&a->tls12, &b->tls12, sizeof a->tls12);
    else
        assert_memory_equal(&a->digest, &b->digest, sizeof a->digest);
}

static void check_round_trip(const struct sign_request *request)
{
    struct writer to = writer_of(wire, sizeof wire);
    struct bytes body;
    struct sign_request parsed;
    signer_ask_write(&to, request);
    uint8_t type = split(&to, &body);
    assert_true(parse_exact(type, body, &parsed));
    check_same(request, &parsed);
}

static void asks_round_trip(void **state)
{
    (void)state;
    static uint8_t octets[SIGN_MESSAGE_MAX];
    const struct sign_request requests[] = {
        tls13_request(32),
        tls13_request(48),
        tls12_request(32),
        tls12_request(133),
        tls12_request(0),
        with_sni(tls13_request(32), 1),
        with_claims(tls13_request(32), 4, 1),
        with_claims(tls12_request(65), 16, KSSL_REQUEST_ID_MAX),
        with_claims(message_request(octets, 9), 4, 0),
        with_sni(tls13_request(48), SIGN_SNI_MAX),
        with_sni(tls12_request(133), SIGN_SNI_MAX),
        digest_request(KSSL_OP_RSA_SIGN_SHA512, 64),
        digest_request(KSSL_OP_ECDSA_SHA1, 0),
        message_request(octets, 0),
        message_request(octets, 1),
        message_request(octets, sizeof octets),
        ticket_keys_request(),
    };
    memset(octets, 'm', sizeof octets);
    for (size_t i = 0; i < COUNT_OF(requests); i++)
        check_round_trip(&requests[i]);
}

/* Of the forms with fixed fields, no shorter and no longer body parses; of the message form, no body that is
 * shorter than what stands before the message. */
static void asks_have_one_size(void **state)
{
    (void)state;
    const struct sign_request requests[] = {tls13_request(32), with_sni(tls12_request(65), 11),
                                            digest_request(KSSL_OP_ECDSA_SHA256, 32),
                                            message_request((const uint8_t *)"message", 7)};
    for (size_t i = 0; i < COUNT_OF(requests); i++) {
        struct writer to = writer_of(wire, sizeof wire);
        struct bytes body;
        struct sign_request parsed;
        signer_ask_write(&to, &requests[i]);
        uint8_t type = split(&to, &body);
        size_t fixed = requests[i].kind == SIGN_MESSAGE ? body.size - 7 : body.size;
        for (size_t size = 0; size <= body.size; size++)
            assert_int_equal(parse_exact(type, bytes_of(body.data, size), &parsed), size >= fixed);
        wire[SIGNER_HEADER_SIZE + body.size] = 0;
        bool longer = parse_exact(type, bytes_of(body.data, body.size + 1), &parsed);
        assert_int_equal(longer, requests[i].kind == SIGN_MESSAGE);
    }
}

/* Octets behind the filled part of a field are zero, and no field says it is fuller than it can be. */
static void fields_are_strict(void **state)
{
    (void)state;
    static const struct {
        size_t offset; /* in the body of a TLS 1.3 request: 8 handle, 2 entry, 1 opcode, 20 SKI, 1 client's
                          address, 1 name, 1 SNI, 2 scheme */
        uint8_t octet;
        bool parses;
    } ROWS[] = {{36, 32, true},   {36, 33, true}, {36, 31, false}, {36, 48, true},  {36, 49, false},
                {36, 255, false}, {84, 1, false}, {69, 1, false},  {33, 1, false}, /* an SNI that takes the
                                                                                      scheme's octets */
                {31, 4, false},   {31, 5, false}, {31, 17, false}, {32, 33, false}, {32, 255, false}};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        const struct sign_request request = tls13_request(32);
        struct writer to = writer_of(wire, sizeof wire);
        struct bytes body;
        struct sign_request parsed;
        signer_ask_write(&to, &request);
        uint8_t type = split(&to, &body);
        assert_int_equal(body.size, 85);
        wire[SIGNER_HEADER_SIZE + ROWS[i].offset] = ROWS[i].octet;
        if (parse_exact(type, body, &parsed) != ROWS[i].parses)
            fail_msg("octet %u at %zu", ROWS[i].octet, ROWS[i].offset);
    }
}

/* An opcode travels only in the form that is its own, and only the asking types are taken. */
static void opcodes_belong_to_types(void **state)
{
    (void)state;
    for (unsigned opcode = 0; opcode < 256; opcode++) {
        struct sign_request requests[] = {tls13_request(32), tls12_request(32), digest_request(0, 32),
                                          message_request((const uint8_t *)"m", 1)};
        enum sign_kind kind;
        bool signs = sign_kind_of((uint8_t)opcode, &kind);
        for (size_t i = 0; i < COUNT_OF(requests); i++) {
            struct writer to = writer_of(wire, sizeof wire);
            struct bytes body;
            struct sign_request parsed;
            requests[i].opcode = (uint8_t)opcode;
            signer_ask_write(&to, &requests[i]);
            uint8_t type = split(&to, &body);
            assert_int_equal(parse_exact(type, body, &parsed), signs && kind == requests[i].kind);
        }
    }
    for (unsigned type = 0; type < 256; type++) {
        const struct sign_request request = tls13_request(32);
        struct writer to = writer_of(wire, sizeof wire);
        struct bytes body;
        struct sign_request parsed;
        signer_ask_write(&to, &request);
        (void)split(&to, &body);
        assert_int_equal(parse_exact((uint8_t)type, body, &parsed), type == SIGNER_ASK_TLS13);
    }
}

/* ---- What the signer tells. */

static void keys_round_trip(void **state)
{
    (void)state;
    char label[KEY_LABEL_MAX + 1];
    memset(label, 'l', KEY_LABEL_MAX);
    label[KEY_LABEL_MAX] = '\0';
    struct key_info key = {.id = {.type = KEY_TYPE_RSA, .bits = 16384, .signature_size = 2048},
                           .label = label};
    memset(key.id.ski, 's', sizeof key.id.ski);
    memset(key.id.digest, 'd', sizeof key.id.digest);
    struct writer to = writer_of(wire, sizeof wire);
    struct bytes body, told;
    struct key_id id;
    signer_key_write(&to, &key);
    assert_int_equal(split(&to, &body), SIGNER_TELL_KEY);
    assert_true(signer_key_parse(body, &id, &told));
    assert_memory_equal(&id, &key.id, sizeof id);
    assert_true(bytes_equal(told, bytes_of(label, KEY_LABEL_MAX)));
    for (size_t size = 0; size < body.size; size++)
        assert_false(signer_key_parse(bytes_of(body.data, size), &id, &told));
    wire[SIGNER_HEADER_SIZE] = KEY_TYPE_ED448 + 1;
    assert_false(signer_key_parse(body, &id, &told));
    wire[SIGNER_HEADER_SIZE] = KEY_TYPE_NONE;
    assert_false(signer_key_parse(body, &id, &told));
}

static void cancels_round_trip(void **state)
{
    (void)state;
    uint8_t octets[64];
    struct writer to = writer_of(octets, sizeof octets);
    uint64_t handle = 0;
    signer_cancel_write(&to, UINT64_C(0x0102030405060708));
    assert_int_equal(to.size, SIGNER_HEADER_SIZE + 8);
    assert_int_equal(octets[0], SIGNER_CANCEL);
    struct bytes body = bytes_of(octets + SIGNER_HEADER_SIZE, 8);
    assert_true(signer_cancel_parse(body, &handle));
    assert_int_equal(handle, UINT64_C(0x0102030405060708));
    for (size_t size = 0; size < 8; size++)
        assert_false(signer_cancel_parse(bytes_of(body.data, size), &handle));
    assert_false(signer_cancel_parse(bytes_of(octets, 9), &handle));
    struct sign_request request;
    assert_false(signer_ask_parse(SIGNER_CANCEL, body, &request));
}

static void numbers_of_keys_round_trip(void **state)
{
    (void)state;
    struct writer to = writer_of(wire, sizeof wire);
    struct bytes body;
    uint32_t count = 0;
    signer_keys_end_write(&to, 123456);
    assert_int_equal(split(&to, &body), SIGNER_TELL_KEYS_END);
    assert_true(signer_keys_end_parse(body, &count));
    assert_int_equal(count, 123456);
    assert_false(signer_keys_end_parse(bytes_of(body.data, 3), &count));
    assert_false(signer_keys_end_parse(bytes_of("\0\0\0\0\0", 5), &count));
}

static void replies_round_trip(void **state)
{
    (void)state;
    static const uint8_t SIGNATURE[SIGNER_ANSWER_MAX + 1] = {1, 2, 3};
    static const struct {
        uint8_t error;
        size_t signature;
        bool parses;
    } ROWS[] = {
        {KSSL_ERROR_NONE, 1, true},    {KSSL_ERROR_NONE, SIGNER_ANSWER_MAX, true},
        {KSSL_ERROR_NONE, 0, false},   {KSSL_ERROR_NONE, SIGNER_ANSWER_MAX + 1, false},
        {KSSL_ERROR_CONTENT, 0, true}, {KSSL_ERROR_CONTENT, 1, false},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        const struct signer_reply reply = {.handle = UINT64_MAX - i,
                                           .error = ROWS[i].error,
                                           .queue = 11,
                                           .sign = 22,
                                           .answer = bytes_of(SIGNATURE, ROWS[i].signature)};
        struct writer to = writer_of(wire, sizeof wire);
        struct bytes body;
        struct signer_reply parsed;
        signer_reply_write(&to, &reply);
        assert_int_equal(split(&to, &body), SIGNER_TELL_REPLY);
        assert_int_equal(signer_reply_parse(body, &parsed), ROWS[i].parses);
        if (!ROWS[i].parses)
            continue;
        assert_int_equal(parsed.handle, reply.handle);
        assert_int_equal(parsed.error, reply.error);
        assert_int_equal(parsed.queue, 11);
        assert_int_equal(parsed.sign, 22);
        assert_true(bytes_equal(parsed.answer, reply.answer));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(asks_round_trip),
        cmocka_unit_test(asks_have_one_size),
        cmocka_unit_test(fields_are_strict),
        cmocka_unit_test(opcodes_belong_to_types),
        cmocka_unit_test(cancels_round_trip),
        cmocka_unit_test(keys_round_trip),
        cmocka_unit_test(numbers_of_keys_round_trip),
        cmocka_unit_test(replies_round_trip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
