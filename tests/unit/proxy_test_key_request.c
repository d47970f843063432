/* What a key server is asked, by content, scheme and mode. */
#include "proxy/key_request.h"

#include <openssl/evp.h>

#include "tests/unit/check.h"

/* A content of each kind, as libssl hands it over. */

static size_t tls13_content(uint8_t into[static TLS_CERTIFICATE_VERIFY_MAX], size_t hash_size)
{
    uint8_t hash[TLS_TRANSCRIPT_HASH_MAX];
    struct writer to = writer_of(into, TLS_CERTIFICATE_VERIFY_MAX);
    memset(hash, 0x5a, sizeof hash);
    assert_true(tls_certificate_verify_write(&to, bytes_of(hash, hash_size)));
    return to.size;
}

static size_t tls12_content(uint8_t into[static TLS_SERVER_KEY_EXCHANGE_MAX])
{
    static const uint8_t params[] = {3, 0, 0x1d, 32}; /* X25519; then the point */
    memset(into, 0x33, TLS_SERVER_KEY_EXCHANGE_MAX);
    memcpy(into + 2 * TLS_RANDOM_SIZE, params, sizeof params);
    return 2 * TLS_RANDOM_SIZE + sizeof params + 32;
}

static const struct key_id KEY = {.ski = {1, 2, 3, 4, 5}};

static struct key_operation operation_of(uint16_t scheme, struct bytes content)
{
    struct key_operation operation = {.key = &KEY, .scheme = scheme, .content = content};
    assert_int_equal(address_parse("192.0.2.7:1234", &operation.client, NULL), RESULT_OK);
    operation.sni = bytes_of("name.example", 12);
    return operation;
}

/* The frame as a key server sees it; message borrows from octets. */
static void write_and_parse(const struct key_request *request, struct key_operation *operation,
                            uint8_t octets[static KEY_REQUEST_FRAME_MAX], struct kssl_message *message)
{
    struct writer to = writer_of(octets, KEY_REQUEST_FRAME_MAX);
    struct kssl_header header;
    struct failure why;
    (void)strcpy(operation->request_id, "some-request");
    assert_true(key_request_write(&to, 0x01020304, request, operation));
    assert_int_equal(to.size, KSSL_PAD_TO);
    kssl_header_parse(octets, &header);
    assert_int_equal(header.id, 0x01020304);
    assert_int_equal(header.length, KSSL_PAD_TO - KSSL_HEADER_SIZE);
    assert_int_equal(kssl_body_parse(bytes_of(octets + KSSL_HEADER_SIZE, header.length), message, &why),
                     RESULT_OK);
}

static void check_context(const struct kssl_message *message)
{
    static const uint8_t ip[] = {192, 0, 2, 7};
    assert_true(bytes_equal(message->ski, bytes_of(KEY.ski, sizeof KEY.ski)));
    assert_true(bytes_equal(message->sni, bytes_of("name.example", 12)));
    assert_true(bytes_equal(message->client_ip, bytes_of(ip, sizeof ip)));
    assert_null(message->server_ip.data);
    assert_null(message->digest.data);
    assert_null(message->certificate_id.data);
    assert_null(message->extra.data);
}

/* ---- Parts. */

static void test_parts_of_tls13(void **state)
{
    static const size_t sizes[] = {32, 48};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        uint8_t content[TLS_CERTIFICATE_VERIFY_MAX], octets[KEY_REQUEST_FRAME_MAX];
        struct key_operation operation =
            operation_of(0x0804, bytes_of(content, tls13_content(content, sizes[i])));
        struct key_request request;
        struct kssl_message message;
        struct kssl_sign_tls13 parts;
        const char *reason;
        assert_int_equal(key_request_make(&request, KEY_MODE_TBS, &operation, &reason), KEY_OUTCOME_OK);
        write_and_parse(&request, &operation, octets, &message);
        assert_int_equal(message.opcode, KSSL_OP_SIGN_TLS13);
        assert_true(kssl_sign_tls13_parse(message.payload, &parts));
        assert_int_equal(parts.scheme, 0x0804);
        assert_int_equal(parts.hash.size, sizes[i]);
        assert_true(bytes_equal(message.trace, bytes_of("some-request", 12)));
        check_context(&message);
    }
}

static void test_parts_of_tls12(void **state)
{
    uint8_t content[TLS_SERVER_KEY_EXCHANGE_MAX], octets[KEY_REQUEST_FRAME_MAX];
    struct key_operation operation = operation_of(0x0401, bytes_of(content, tls12_content(content)));
    struct key_request request;
    struct kssl_message message;
    struct kssl_sign_tls12 parts;
    const char *reason;
    bool valid;
    (void)state;
    assert_int_equal(key_request_make(&request, KEY_MODE_TBS, &operation, &reason), KEY_OUTCOME_OK);
    write_and_parse(&request, &operation, octets, &message);
    assert_int_equal(message.opcode, KSSL_OP_SIGN_TLS12);
    assert_true(kssl_sign_tls12_parse(message.payload, &parts, &valid) && valid);
    assert_int_equal(parts.scheme, 0x0401);
    assert_int_equal(parts.parts.params.size, 36);
    assert_non_null(message.trace.data);
    check_context(&message);
}

/* ---- Transcripts. */

/* The messages of a handshake, as far as the capture looks at them, and the content that is of them. */
static size_t capture(struct transcript_capture *transcript, size_t certificate_size,
                      uint8_t content[static TLS_CERTIFICATE_VERIFY_MAX])
{
    static uint8_t messages[300 + 100 + CERTIFICATE_MESSAGE_MAX];
    uint8_t hash[32];
    struct writer to = writer_of(content, TLS_CERTIFICATE_VERIFY_MAX);
    size_t size = 300 + 100 + certificate_size;
    messages[0] = 1, messages[300] = 2, messages[400] = 11;
    transcript_capture_add(transcript, bytes_of(messages, 300));
    transcript_capture_add(transcript, bytes_of(messages + 300, 100));
    transcript_capture_add(transcript, bytes_of(messages + 400, certificate_size));
    assert_int_equal(EVP_Digest(messages, size, hash, NULL, EVP_sha256(), NULL), 1);
    assert_true(tls_certificate_verify_write(&to, bytes_of(hash, sizeof hash)));
    return to.size;
}

/* The largest chain too, and a name of the greatest length: one frame; twice the same. */
static void test_transcript(void **state)
{
    static uint8_t octets[2][KEY_REQUEST_TRANSCRIPT_FRAME_MAX], name[KEY_REQUEST_SNI_MAX];
    (void)state;
    for (size_t size = 4; size <= CERTIFICATE_MESSAGE_MAX; size += CERTIFICATE_MESSAGE_MAX - 4) {
        struct transcript_capture transcript = {0};
        uint8_t content[TLS_CERTIFICATE_VERIFY_MAX];
        struct key_operation operation =
            operation_of(0x0804, bytes_of(content, capture(&transcript, size, content)));
        struct key_request request;
        struct kssl_message message;
        struct failure why;
        const char *reason;
        operation.transcript = &transcript;
        operation.sni = bytes_of(name, sizeof name);
        assert_int_equal(key_request_make(&request, KEY_MODE_TRANSCRIPT, &operation, &reason),
                         KEY_OUTCOME_OK);
        for (size_t i = 0; i < 2; i++) {
            struct writer to = writer_of(octets[i], sizeof octets[i]);
            assert_true(key_request_write(&to, 7, &request, &operation));
            assert_int_equal(
                kssl_body_parse(bytes_of(octets[i] + KSSL_HEADER_SIZE, to.size - KSSL_HEADER_SIZE), &message,
                                &why),
                RESULT_OK);
            assert_int_equal(message.opcode, KSSL_OP_SIGN_TRANSCRIPT);
            assert_int_equal(message.payload.size, 2 + 300 + 100 + size);
            assert_memory_equal(message.payload.data, "\x08\x04\x01", 3);
            assert_int_equal(message.payload.data[2 + 400], 11);
        }
        assert_memory_equal(octets[0], octets[1], sizeof octets[0]);
        transcript_capture_release(&transcript);
    }
}

/* TLS 1.2 has no transcript to sign; no digest either is sent of it. */
static void test_transcript_mode_in_tls12(void **state)
{
    uint8_t content[TLS_SERVER_KEY_EXCHANGE_MAX];
    struct key_operation operation = operation_of(0x0401, bytes_of(content, tls12_content(content)));
    struct key_request request;
    const char *reason;
    (void)state;
    assert_int_equal(key_request_make(&request, KEY_MODE_TRANSCRIPT, &operation, &reason), KEY_OUTCOME_OK);
    assert_int_equal(request.opcode, KSSL_OP_SIGN_TLS12);
    assert_false(request.bare);
}

static void refuse(enum proxy_key_mode mode, const struct key_operation *operation, const char *expected);

/* Never by the hash alone instead, in this mode. */
static void test_transcript_that_is_missing(void **state)
{
    struct transcript_capture transcript = {0};
    uint8_t content[TLS_CERTIFICATE_VERIFY_MAX];
    struct key_operation operation = operation_of(0x0403, bytes_of(content, tls13_content(content, 32)));
    (void)state;
    refuse(KEY_MODE_TRANSCRIPT, &operation, "no whole transcript of the handshake");
    operation.transcript = &transcript;
    refuse(KEY_MODE_TRANSCRIPT, &operation, "no whole transcript of the handshake");
    transcript.failure = "why not";
    refuse(KEY_MODE_TRANSCRIPT, &operation, "why not");
}

static void test_transcript_of_another_handshake(void **state)
{
    struct transcript_capture transcript = {0};
    uint8_t content[TLS_CERTIFICATE_VERIFY_MAX];
    struct key_operation operation =
        operation_of(0x0403, bytes_of(content, capture(&transcript, 1000, content)));
    struct key_request request;
    const char *reason = NULL;
    (void)state;
    operation.transcript = &transcript;
    transcript.payload[2 + 17] ^= 1;
    assert_int_equal(key_request_make(&request, KEY_MODE_TRANSCRIPT, &operation, &reason),
                     KEY_OUTCOME_MISMATCH);
    assert_string_equal(reason, "the transcript is not what libssl signs");
    transcript_capture_release(&transcript);
}

/* ---- Digests. */

static const struct {
    uint16_t scheme;
    uint8_t opcode;
    const char *hash; /* NULL: the whole content */
} BARE[] = {
    {0x0401, 0x05, "SHA256"}, {0x0501, 0x06, "SHA384"}, {0x0601, 0x07, "SHA512"}, {0x0403, 0x15, "SHA256"},
    {0x0503, 0x16, "SHA384"}, {0x0603, 0x17, "SHA512"}, {0x0804, 0x35, "SHA256"}, {0x0805, 0x36, "SHA384"},
    {0x0806, 0x37, "SHA512"}, {0x0807, 0x18, NULL},
};

static void check_bare(size_t row, struct bytes content)
{
    uint8_t octets[KEY_REQUEST_FRAME_MAX], digest[EVP_MAX_MD_SIZE];
    struct key_operation operation = operation_of(BARE[row].scheme, content);
    struct bytes expected = content;
    struct key_request request;
    struct kssl_message message;
    const char *reason;
    size_t size;
    assert_int_equal(key_request_make(&request, KEY_MODE_DIGEST, &operation, &reason), KEY_OUTCOME_OK);
    write_and_parse(&request, &operation, octets, &message);
    assert_int_equal(message.opcode, BARE[row].opcode);
    if (BARE[row].hash != NULL) {
        assert_int_equal(EVP_Q_digest(NULL, BARE[row].hash, NULL, content.data, content.size, digest, &size),
                         1);
        expected = bytes_of(digest, size);
    }
    assert_true(bytes_equal(message.payload, expected));
    assert_null(message.trace.data); /* Part A's servers may not know it */
    check_context(&message);
}

static void test_bare_operations(void **state)
{
    uint8_t tls13[TLS_CERTIFICATE_VERIFY_MAX], tls12[TLS_SERVER_KEY_EXCHANGE_MAX];
    size_t sizes[] = {tls13_content(tls13, 48), tls12_content(tls12)};
    (void)state;
    for (size_t row = 0; row < sizeof BARE / sizeof *BARE; row++) {
        check_bare(row, bytes_of(tls13, sizes[0]));
        check_bare(row, bytes_of(tls12, sizes[1]));
    }
}

/* ---- What cannot be asked for. */

static void refuse(enum proxy_key_mode mode, const struct key_operation *operation, const char *expected)
{
    struct key_request request;
    const char *reason = NULL;
    assert_int_equal(key_request_make(&request, mode, operation, &reason), KEY_OUTCOME_REFUSED);
    assert_string_equal(reason, expected);
}

static void test_schemes_without_a_bare_operation(void **state)
{
    static const uint16_t schemes[] = {0x0808, 0x0809, 0x0201, 0x0203, 0};
    uint8_t content[TLS_CERTIFICATE_VERIFY_MAX];
    size_t size = tls13_content(content, 32);
    (void)state;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        struct key_operation operation = operation_of(schemes[i], bytes_of(content, size));
        refuse(KEY_MODE_DIGEST, &operation, "no bare operation has this signature scheme");
    }
}

/* Nothing but what a TLS server signs, in any mode: a client certificate's proof is not. */
static void test_other_contents(void **state)
{
    static const enum proxy_key_mode modes[] = {KEY_MODE_TRANSCRIPT, KEY_MODE_TBS, KEY_MODE_DIGEST};
    uint8_t content[TLS_CERTIFICATE_VERIFY_MAX];
    size_t size = tls13_content(content, 32);
    (void)state;
    content[64 + 9] = 'c';
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        struct key_operation operation = operation_of(0x0403, bytes_of(content, size));
        refuse(modes[i], &operation, "not a content that a TLS server signs");
        operation.content = bytes_of("", 0);
        refuse(modes[i], &operation, "not a content that a TLS server signs");
    }
}

static void test_long_name(void **state)
{
    static const uint8_t name[KEY_REQUEST_SNI_MAX + 1];
    uint8_t content[TLS_CERTIFICATE_VERIFY_MAX];
    struct key_operation operation = operation_of(0x0403, bytes_of(content, tls13_content(content, 32)));
    struct key_request request;
    struct kssl_message message;
    uint8_t octets[KEY_REQUEST_FRAME_MAX];
    const char *reason;
    (void)state;
    operation.sni = bytes_of(name, sizeof name);
    refuse(KEY_MODE_TBS, &operation, "SNI is too long");
    operation.sni.size--;
    assert_int_equal(key_request_make(&request, KEY_MODE_TBS, &operation, &reason), KEY_OUTCOME_OK);
    write_and_parse(&request, &operation, octets, &message);
    assert_int_equal(message.sni.size, KEY_REQUEST_SNI_MAX);
    operation.sni = bytes_of(NULL, 0);
    assert_int_equal(key_request_make(&request, KEY_MODE_DIGEST, &operation, &reason), KEY_OUTCOME_OK);
    write_and_parse(&request, &operation, octets, &message);
    assert_null(message.sni.data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parts_of_tls13),
        cmocka_unit_test(test_parts_of_tls12),
        cmocka_unit_test(test_bare_operations),
        cmocka_unit_test(test_schemes_without_a_bare_operation),
        cmocka_unit_test(test_other_contents),
        cmocka_unit_test(test_long_name),
        cmocka_unit_test(test_transcript),
        cmocka_unit_test(test_transcript_mode_in_tls12),
        cmocka_unit_test(test_transcript_that_is_missing),
        cmocka_unit_test(test_transcript_of_another_handshake),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
