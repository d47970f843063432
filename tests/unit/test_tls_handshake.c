/* Handshake messages, written out: which are taken, and what is found in them. */
#include "common/tls_handshake.h"

#include "tests/unit/check.h"

#define RANDOM32 "0123456789abcdef0123456789ABCDEF"
#define RETRY32                                                                                              \
    "\xCF\x21\xAD\x74\xE5\x9A\x61\x11\xBE\x1D\x8C\x02\x1E\x65\xB8\x91"                                       \
    "\xC2\xA2\x11\x16\x7A\xBB\x8C\x5E\x07\x9E\x09\xE2\xC8\xA8\x33\x9C"

struct row {
    const char *name;
    struct bytes octets;
    bool taken;
};

static void check_rows(const struct row *rows, size_t count, bool (*parse)(struct bytes))
{
    for (size_t i = 0; i < count; i++) {
        uint8_t *exact = exact_copy(rows[i].octets);
        CHECK(rows[i].name, parse(bytes_of(exact, rows[i].octets.size)) == rows[i].taken);
        free(exact);
        /* Whatever is taken is not taken with an octet less or more. */
        if (!rows[i].taken || rows[i].octets.size == 0)
            continue;
        uint8_t *longer = malloc(rows[i].octets.size + 1);
        assert_non_null(longer);
        memcpy(longer, rows[i].octets.data, rows[i].octets.size);
        longer[rows[i].octets.size] = 0;
        CHECK(rows[i].name, !parse(bytes_of(longer, rows[i].octets.size - 1)));
        CHECK(rows[i].name, !parse(bytes_of(longer, rows[i].octets.size + 1)));
        free(longer);
    }
}

/* ---- Messages. */

#define HELLO_HEAD                                                                                           \
    "\x03\x03" RANDOM32 "\x04"                                                                               \
    "sess"                                                                                                   \
    "\0\x02\x13\x01\x01\0"

static bool parse_client(struct bytes body)
{
    struct tls_client_hello hello;
    return tls_client_hello_parse(body, &hello);
}

static const struct row CLIENT_ROWS[] = {
    {"client: no extensions", WIRE(HELLO_HEAD "\0\0"), true},
    {"client: two extensions", WIRE(HELLO_HEAD "\0\x09\0\x10\0\x01x\0\x11\0\0"), true},
    {"client: unknown ones", WIRE(HELLO_HEAD "\0\x08\x1a\x1a\0\0\xff\xff\0\0"), true},
    {"client: one twice", WIRE(HELLO_HEAD "\0\x08\0\x10\0\0\0\x10\0\0"), false},
    {"client: one twice, not side by side", WIRE(HELLO_HEAD "\0\x0c\0\x10\0\0\0\x11\0\0\0\x10\0\0"), false},
    {"client: an extension past the list", WIRE(HELLO_HEAD "\0\x04\0\x10\0\x01"), false},
    {"client: half an extension", WIRE(HELLO_HEAD "\0\x03\0\x10\0"), false},
    {"client: no list of extensions", WIRE(HELLO_HEAD), false},
    {"client: half a suite", WIRE("\x03\x03" RANDOM32 "\0\0\x03\x13\x01\x13\x01\0\0\0"), false},
    {"client: no suite", WIRE("\x03\x03" RANDOM32 "\0\0\0\x01\0\0\0"), false},
    {"client: no compression", WIRE("\x03\x03" RANDOM32 "\0\0\x02\x13\x01\0\0\0"), false},
    {"client: a session id of 32", WIRE("\x03\x03" RANDOM32 "\x20" RANDOM32 "\0\x02\x13\x01\x01\0\0\0"),
     true},
    {"client: a session id of 33", WIRE("\x03\x03" RANDOM32 "\x21" RANDOM32 "x\0\x02\x13\x01\x01\0\0\0"),
     false},
    {"client: nothing", WIRE(""), false},
};

static bool parse_server(struct bytes body)
{
    struct tls_server_hello hello;
    return tls_server_hello_parse(body, &hello);
}

static const struct row SERVER_ROWS[] = {
    {"server: no extensions", WIRE("\x03\x03" RANDOM32 "\0\x13\x01\0\0\0"), true},
    {"server: one", WIRE("\x03\x03" RANDOM32 "\0\x13\x01\0\0\x06\0\x2b\0\x02\x03\x04"), true},
    {"server: one twice", WIRE("\x03\x03" RANDOM32 "\0\x13\x01\0\0\x08\0\x2b\0\0\0\x2b\0\0"), false},
    {"server: no list", WIRE("\x03\x03" RANDOM32 "\0\x13\x01\0"), false},
    {"server: a session id of 33", WIRE("\x03\x03" RANDOM32 "\x21" RANDOM32 "x\x13\x01\0\0\0"), false},
};

static bool parse_encrypted(struct bytes body)
{
    struct bytes extensions;
    return tls_encrypted_extensions_parse(body, &extensions);
}

static const struct row ENCRYPTED_ROWS[] = {
    {"encrypted: none", WIRE("\0\0"), true},
    {"encrypted: one", WIRE("\0\x04\0\0\0\0"), true},
    {"encrypted: one twice", WIRE("\0\x08\0\0\0\0\0\0\0\0"), false},
    {"encrypted: nothing", WIRE(""), false},
};

static bool parse_request(struct bytes body)
{
    struct tls_certificate_request request;
    return tls_certificate_request_parse(body, &request);
}

static const struct row REQUEST_ROWS[] = {
    {"request: no context", WIRE("\0\0\x04\0\x0d\0\0"), true},
    {"request: a context", WIRE("\x01x\0\0"), true},
    {"request: one twice", WIRE("\0\0\x08\0\x0d\0\0\0\x0d\0\0"), false},
    {"request: no list", WIRE("\0"), false},
};

static bool parse_certificate(struct bytes body)
{
    struct tls_certificate certificate;
    return tls_certificate_parse(body, &certificate);
}

#define ENTRY "\0\0\x01x\0\0"

static const struct row CERTIFICATE_ROWS[] = {
    {"certificate: one", WIRE("\0\0\0\x06" ENTRY), true},
    {"certificate: three", WIRE("\0\0\0\x12" ENTRY ENTRY ENTRY), true},
    {"certificate: a context", WIRE("\x01z\0\0\x06" ENTRY), true},
    {"certificate: an extension", WIRE("\0\0\0\x0b\0\0\x01x\0\x05\0\x05\0\x01s"), true},
    {"certificate: an extension twice", WIRE("\0\0\0\x0e\0\0\x01x\0\x08\0\x05\0\0\0\x05\0\0"), false},
    {"certificate: none", WIRE("\0\0\0\0"), false},
    {"certificate: an empty one", WIRE("\0\0\0\x05\0\0\0\0\0"), false},
    {"certificate: an empty one behind", WIRE("\0\0\0\x0b" ENTRY "\0\0\0\0\0"), false},
    {"certificate: no extensions", WIRE("\0\0\0\x04\0\0\x01x"), false},
};

static void messages_have_their_form(void **state)
{
    (void)state;
    check_rows(CLIENT_ROWS, COUNT_OF(CLIENT_ROWS), parse_client);
    check_rows(SERVER_ROWS, COUNT_OF(SERVER_ROWS), parse_server);
    check_rows(ENCRYPTED_ROWS, COUNT_OF(ENCRYPTED_ROWS), parse_encrypted);
    check_rows(REQUEST_ROWS, COUNT_OF(REQUEST_ROWS), parse_request);
    check_rows(CERTIFICATE_ROWS, COUNT_OF(CERTIFICATE_ROWS), parse_certificate);
}

static void chains_have_an_end(void **state)
{
    (void)state;
    uint8_t body[512];
    struct tls_certificate certificate;
    for (size_t count = 31; count <= 33; count++) {
        struct writer to = writer_of(body, sizeof body);
        write_u8(&to, 0);
        WRITE_VECTOR(&to, 3)
        {
            for (size_t i = 0; i < count; i++)
                write_bytes(&to, OCTETS(ENTRY));
        }
        assert_int_equal(tls_certificate_parse(writer_bytes(&to), &certificate), count <= 32);
    }
}

/* ---- Contents of extensions. */

static bool parse_numbers8(struct bytes content)
{
    struct bytes numbers;
    return tls_numbers8_parse(content, &numbers);
}

static bool parse_numbers16(struct bytes content)
{
    struct bytes numbers;
    return tls_numbers16_parse(content, &numbers);
}

static bool parse_number(struct bytes content)
{
    uint16_t number;
    return tls_number_parse(content, &number);
}

static bool parse_name(struct bytes content)
{
    struct bytes name;
    return tls_server_name_parse(content, &name);
}

static bool parse_protocols(struct bytes content)
{
    struct bytes names;
    return tls_protocols_parse(content, &names);
}

static bool parse_protocol(struct bytes content)
{
    struct bytes name;
    return tls_protocol_chosen(content, &name);
}

static bool parse_shares(struct bytes content)
{
    struct bytes shares;
    return tls_key_shares_parse(content, &shares);
}

static bool parse_share(struct bytes content)
{
    uint16_t group;
    return tls_key_share_chosen(content, &group);
}

static const struct {
    bool (*parse)(struct bytes content);
    struct row row;
} CONTENT_ROWS[] = {
    {parse_numbers8, {"numbers8", WIRE("\x04\x03\x04\x03\x03"), true}},
    {parse_numbers8, {"numbers8: none", WIRE("\0"), false}},
    {parse_numbers8, {"numbers8: a half", WIRE("\x03\x03\x04\x03"), false}},
    {parse_numbers16, {"numbers16", WIRE("\0\x02\x04\x03"), true}},
    {parse_numbers16, {"numbers16: none", WIRE("\0\0"), false}},
    {parse_numbers16, {"numbers16: a half", WIRE("\0\x01\x04"), false}},
    {parse_number, {"number", WIRE("\x03\x04"), true}},
    {parse_name, {"name", WIRE("\0\x04\0\0\x01x"), true}},
    {parse_name, {"name: empty", WIRE("\0\x03\0\0\0"), false}},
    {parse_name, {"name: none", WIRE("\0\0"), false}},
    {parse_name, {"name: two", WIRE("\0\x08\0\0\x01x\0\0\x01y"), false}},
    {parse_name, {"name: of another type", WIRE("\0\x04\x01\0\x01x"), false}},
    {parse_protocols, {"protocols", WIRE("\0\x06\x02h2\x02h3"), true}},
    {parse_protocols, {"protocols: none", WIRE("\0\0"), false}},
    {parse_protocols, {"protocols: an empty one", WIRE("\0\x04\x02h2\0"), false}},
    {parse_protocol, {"protocol", WIRE("\0\x03\x02h2"), true}},
    {parse_protocol, {"protocol: two", WIRE("\0\x06\x02h2\x02h3"), false}},
    {parse_shares, {"shares", WIRE("\0\x0a\0\x1d\0\x01x\0\x17\0\x01y"), true}},
    {parse_shares, {"shares: none", WIRE("\0\0"), true}},
    {parse_shares, {"shares: an empty one", WIRE("\0\x04\0\x1d\0\0"), false}},
    {parse_share, {"share", WIRE("\0\x1d\0\x01x"), true}},
    {parse_share, {"share: empty", WIRE("\0\x1d\0\0"), false}},
};

static void contents_have_their_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(CONTENT_ROWS); i++)
        check_rows(&CONTENT_ROWS[i].row, 1, CONTENT_ROWS[i].parse);
}

/* ---- What is found. */

static void values_are_found(void **state)
{
    (void)state;
    struct tls_server_hello server;
    struct tls_client_hello client;
    struct bytes content;
    size_t found;
    assert_true(tls_server_hello_parse(OCTETS("\x03\x03" RETRY32 "\x01s\x13\x02\0\0\0"), &server));
    assert_true(server.retry);
    assert_int_equal(server.suite, 0x1302);
    assert_true(bytes_equal(server.session_id, OCTETS("s")));
    assert_true(tls_server_hello_parse(OCTETS("\x03\x03" RANDOM32 "\0\x13\x02\0\0\0"), &server));
    assert_false(server.retry);
    assert_true(tls_client_hello_parse(OCTETS(HELLO_HEAD "\0\x09\0\x10\0\x01x\0\x11\0\0"), &client));
    assert_true(bytes_equal(client.session_id, OCTETS("sess")));
    assert_true(tls_numbers_hold(client.suites, 0x1301));
    assert_false(tls_numbers_hold(client.suites, 0x0113));
    assert_true(tls_extension_find(client.extensions, 0x10, &content));
    assert_true(bytes_equal(content, OCTETS("x")));
    assert_true(tls_extension_find(client.extensions, 0x11, &content));
    assert_true(content.data != NULL && content.size == 0);
    assert_false(tls_extension_find(client.extensions, 0x12, &content));
    assert_null(content.data);
    assert_true(tls_protocols_hold(OCTETS("\x02h2\x02h3"), OCTETS("h3")));
    assert_false(tls_protocols_hold(OCTETS("\x02h2\x02h3"), OCTETS("h")));
    assert_int_equal(tls_key_shares_count(OCTETS("\0\x1d\0\x01x\0\x17\0\x01y"), 0x17, &found), 2);
    assert_int_equal(found, 1);
}

static void messages_are_cut_out(void **state)
{
    (void)state;
    struct reader from = reader_of(OCTETS("\x08\0\0\x02\0\0\x0b\0\0\x05x"));
    struct tls_handshake message;
    assert_true(tls_handshake_read(&from, &message));
    assert_int_equal(message.type, TLS_ENCRYPTED_EXTENSIONS);
    assert_true(bytes_equal(message.whole, OCTETS("\x08\0\0\x02\0\0")));
    assert_true(bytes_equal(message.body, OCTETS("\0\0")));
    assert_false(tls_handshake_read(&from, &message));
    assert_int_equal(from.left, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_have_their_form), cmocka_unit_test(chains_have_an_end),
        cmocka_unit_test(contents_have_their_form), cmocka_unit_test(values_are_found),
        cmocka_unit_test(messages_are_cut_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
