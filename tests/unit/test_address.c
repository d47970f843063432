/* Addresses as the configuration writes them: what is taken, what is refused, and what comes out again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <sys/un.h>

#include "common/address.h"

#define PATH_107                                                                                             \
    "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" \
    "aaaaa"

static const struct {
    const char *text;
    const char *shown; /* NULL: the same */
    int family;
    size_t ip_size;
    uint8_t ip[16];
} GOOD[] = {
    {"192.0.2.1:443", NULL, AF_INET, 4, {192, 0, 2, 1}},
    {"0.0.0.0:0", NULL, AF_INET, 4, {0}},
    {"255.255.255.255:65535", NULL, AF_INET, 4, {255, 255, 255, 255}},
    {"[::]:2407", NULL, AF_INET6, 16, {0}},
    {"[2001:db8::1]:443", NULL, AF_INET6, 16, {0x20, 0x01, 0x0d, 0xb8, [15] = 1}},
    {"[2001:DB8:0:0:0:0:0:1]:443", "[2001:db8::1]:443", AF_INET6, 16, {0x20, 0x01, 0x0d, 0xb8, [15] = 1}},
    {"[::ffff:192.0.2.7]:80", NULL, AF_INET6, 4, {192, 0, 2, 7}},
    {"[fe80::1%1]:80", NULL, AF_INET6, 16, {0xfe, 0x80, [15] = 1}},
    {"[fe80::1%lo]:80", "[fe80::1%1]:80", AF_INET6, 16, {0xfe, 0x80, [15] = 1}},
    {"unix:/run/app.sock", NULL, AF_UNIX, 0, {0}},
    {"unix:app.sock", NULL, AF_UNIX, 0, {0}},
    {"unix:/run/with:colon and space", NULL, AF_UNIX, 0, {0}},
    {"unix:" PATH_107, NULL, AF_UNIX, 0, {0}},
};

static void test_good(void **state)
{
    (void)state;
    assert_int_equal(sizeof PATH_107 - 1, 107);
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        struct address address;
        struct failure why = {0};
        char text[ADDRESS_TEXT_SIZE];
        struct bytes ip;
        if (address_parse(GOOD[i].text, &address, &why) != RESULT_OK)
            fail_msg("%s: %s", GOOD[i].text, why.text);
        assert_int_equal(address.storage.ss_family, GOOD[i].family);
        assert_int_equal(address_is_unix(&address), GOOD[i].family == AF_UNIX);
        assert_string_equal(address_format(&address, text),
                            GOOD[i].shown != NULL ? GOOD[i].shown : GOOD[i].text);
        address_ip(&address, &ip);
        assert_true(bytes_equal(ip, bytes_of(GOOD[i].ip, GOOD[i].ip_size)));
    }
}

static const char *const BAD[] = {
    "",
    ":",
    "443",
    ":443",
    "192.0.2.1",
    "192.0.2.1:",
    "192.0.2.1:-1",
    "192.0.2.1:+1",
    "192.0.2.1: 1",
    "192.0.2.1:1 ",
    "192.0.2.1:0443",
    "192.0.2.1:65536",
    "192.0.2.1:99999999999999999999",
    "192.0.2.1:http",
    "192.0.2.1:0x50",
    "192.0.2:443",
    "192.0.2.256:443",
    "192.0.2.01:443",
    " 192.0.2.1:443",
    "[192.0.2.1]:443",
    "2001:db8::1:443",
    "[2001:db8::1]",
    "[2001:db8::1]443",
    "[2001:db8::1:443",
    "2001:db8::1]:443",
    "[2001:db8::g]:443",
    "[]:443",
    "[fe80::1%]:80",
    "[fe80::1%0]:80",
    "[fe80::1%no-such-interface]:80",
    "[fe80::1%99999999999]:80",
    "localhost:443",
    "*:443",
    "unix:",
    "unix:" PATH_107 "b",
    "tcp:127.0.0.1:80",
};

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        struct address address;
        struct failure why = {0};
        if (address_parse(BAD[i], &address, &why) != RESULT_CONFIG)
            fail_msg("\"%s\" was taken for an address", BAD[i]);
        assert_int_equal(address.size, 0);
        assert_int_equal(why.kind, RESULT_CONFIG);
    }
}

static void test_failure_says_what_was_expected(void **state)
{
    (void)state;
    struct address address;
    struct failure why = {0};
    assert_int_equal(address_parse("localhost:443", &address, &why), RESULT_CONFIG);
    assert_string_equal(
        why.text,
        "\"localhost:443\": expected an address like 192.0.2.1:443, [2001:db8::1]:443 or unix:/path");
    assert_int_equal(address_parse("unix:" PATH_107 "b", &address, &why), RESULT_CONFIG);
    assert_non_null(strstr(why.text, "a Unix socket's path has at most 107 octets"));
    assert_int_equal(address_parse("nonsense", &address, NULL), RESULT_CONFIG);
}

static void test_resolve(void **state)
{
    (void)state;
    struct address address;
    struct failure why = {0};
    char text[ADDRESS_TEXT_SIZE];

    assert_int_equal(address_resolve("192.0.2.1:443", &address, &why), RESULT_OK);
    assert_string_equal(address_format(&address, text), "192.0.2.1:443");
    assert_int_equal(address_resolve("unix:/run/x", &address, &why), RESULT_OK);
    assert_true(address_is_unix(&address));

    assert_int_equal(address_resolve("localhost:2407", &address, &why), RESULT_OK);
    (void)address_format(&address, text);
    assert_true(strcmp(text, "127.0.0.1:2407") == 0 || strcmp(text, "[::1]:2407") == 0);
}

static void test_split_host(void **state)
{
    (void)state;
    char host[ADDRESS_HOST_SIZE];
    uint16_t port = 0;
    assert_true(address_split_host("keys1.example:2407", host, &port));
    assert_string_equal(host, "keys1.example");
    assert_int_equal(port, 2407);
    assert_false(address_split_host("192.0.2.1:443", host, &port));
    assert_false(address_split_host("[2001:db8::1]:443", host, &port));
    assert_false(address_split_host("unix:/run/x", host, &port));
}

/* Nothing here may reach getaddrinfo, which takes half an address for a whole one. */
static const char *const BAD_NAMES[] = {
    "localhost", "localhost:", "localhost:0x1",  "[localhost]:443",    "127.1:443", "2130706433:443",
    "a b:443",   "a/b:443",    "0x7f000001:443", "127.0.0.0x1:443",    ".:443",     "10.0.0.256:443",
    ".a:443",    ":443",       "::1:443",        "keys1.example:65536"};

static void test_resolve_refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof BAD_NAMES / sizeof *BAD_NAMES; i++) {
        struct address address;
        struct failure why = {0};
        if (address_resolve(BAD_NAMES[i], &address, &why) != RESULT_CONFIG)
            fail_msg("\"%s\" was taken for a name", BAD_NAMES[i]);
        assert_non_null(strstr(why.text, ", or a host name and port"));
        assert_int_equal(address.size, 0);
    }
}

static struct address unix_address(const char *path, size_t size)
{
    struct address address = {.size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size)};
    address.storage.ss_family = AF_UNIX;
    memcpy((char *)&address.storage + offsetof(struct sockaddr_un, sun_path), path, size);
    return address;
}

/* What accept4 and getsockname give for Unix sockets. */
static void test_unix_peers(void **state)
{
    (void)state;
    static const struct {
        const char *path;
        size_t size;
        const char *shown;
    } ROWS[] = {
        {"", 0, "unix:"},
        {"/run/x", 6, "unix:/run/x"},
        {"/run/x", 7, "unix:/run/x"},
        {"\0name", 5, "unix:@name"},
        {PATH_107 "z", 108, "unix:" PATH_107 "z"},
    };
    char text[ADDRESS_TEXT_SIZE];
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        struct address address = unix_address(ROWS[i].path, ROWS[i].size);
        assert_string_equal(address_format(&address, text), ROWS[i].shown);
    }
    struct address none = {.size = 0};
    assert_string_equal(address_format(&none, text), "-");
}

static void test_equal(void **state)
{
    (void)state;
    static const char *const TEXTS[] = {
        "192.0.2.1:443",  "192.0.2.1:444",  "192.0.2.2:443", "[2001:db8::1]:443", "[2001:db8::1]:444",
        "[fe80::1%1]:80", "[fe80::1%2]:80", "unix:/run/a",   "unix:/run/b",
    };
    size_t count = sizeof TEXTS / sizeof *TEXTS;
    for (size_t i = 0; i < count; i++) {
        for (size_t j = 0; j < count; j++) {
            struct address a;
            struct address b;
            assert_int_equal(address_parse(TEXTS[i], &a, NULL), RESULT_OK);
            assert_int_equal(address_parse(TEXTS[j], &b, NULL), RESULT_OK);
            assert_int_equal(address_equal(&a, &b), i == j);
        }
    }
    struct address none = {.size = 0};
    struct address some;
    assert_int_equal(address_parse(TEXTS[0], &some, NULL), RESULT_OK);
    assert_true(address_equal(&none, &none));
    assert_false(address_equal(&none, &some));
    struct address with_zero = unix_address("/run/a", 7);
    struct address without = unix_address("/run/a", 6);
    assert_true(address_equal(&with_zero, &without));
}

static void test_from_ip(void **state)
{
    static const uint8_t IP4[] = {192, 0, 2, 1}, IP6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
    char text[ADDRESS_TEXT_SIZE];
    struct address address;
    (void)state;
    assert_true(address_from_ip(&address, bytes_of(IP4, sizeof IP4), 80));
    assert_string_equal(address_format(&address, text), "192.0.2.1:80");
    assert_true(address_from_ip(&address, bytes_of(IP6, sizeof IP6), 80));
    assert_string_equal(address_format(&address, text), "[2001:db8::1]:80");
    address_set_port(&address, 81);
    assert_string_equal(address_format(&address, text), "[2001:db8::1]:81");
    assert_false(address_from_ip(&address, bytes_of(IP6, 5), 80));
    assert_int_equal(address.size, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),
        cmocka_unit_test(test_bad),
        cmocka_unit_test(test_failure_says_what_was_expected),
        cmocka_unit_test(test_resolve),
        cmocka_unit_test(test_split_host),
        cmocka_unit_test(test_resolve_refuses),
        cmocka_unit_test(test_unix_peers),
        cmocka_unit_test(test_equal),
        cmocka_unit_test(test_from_ip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
