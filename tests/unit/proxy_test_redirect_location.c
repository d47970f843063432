/* Where requests over plain HTTP are sent, as a table; hostile hosts and targets among them. */
#include "proxy/redirect_location.h"

#include "tests/unit/check.h"

static const struct {
    const char *name, *head;
    unsigned port;
    const char *location; /* NULL: none */
} ROWS[] = {
    {"plain", "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n", 443, "https://www.example.com/"},
    {"path and query", "GET /a/b?c=d&e HTTP/1.1\r\nHost: a.example\r\n\r\n", 443,
     "https://a.example/a/b?c=d&e"},
    {"another port", "GET /a HTTP/1.1\r\nHost: a.example\r\n\r\n", 8443, "https://a.example:8443/a"},
    {"the host's port", "GET /a HTTP/1.1\r\nHost: a.example:80\r\n\r\n", 443, "https://a.example/a"},
    {"an empty port", "GET /a HTTP/1.1\r\nHost: a.example:\r\n\r\n", 443, "https://a.example/a"},
    {"capitals, a dot at the end", "GET / HTTP/1.1\r\nHost: A.Example.\r\n\r\n", 443, "https://a.example/"},
    {"HEAD", "HEAD /x HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, "https://a.example/x"},
    {"POST", "POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\n", 443, "https://a.example/x"},
    {"IPv4", "GET / HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n", 443, "https://192.0.2.1/"},
    {"IPv6", "GET / HTTP/1.1\r\nHost: [2001:db8::1]\r\n\r\n", 443, "https://[2001:db8::1]/"},
    {"IPv6 with a port", "GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n", 8443,
     "https://[2001:db8::1]:8443/"},
    {"two slashes", "GET //evil.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 443,
     "https://a.example//evil.example/"},
    {"absolute", "GET http://b.example/x?y HTTP/1.1\r\nHost: a.example\r\n\r\n", 443,
     "https://b.example/x?y"},
    {"absolute without a path", "GET HTTP://b.example HTTP/1.1\r\nHost: b.example\r\n\r\n", 443,
     "https://b.example/"},
    {"absolute with a query alone", "GET http://b.example?y HTTP/1.1\r\nHost: b.example\r\n\r\n", 443,
     "https://b.example/?y"},
    {"HTTP/1.0 with a host", "GET / HTTP/1.0\r\nHost: a.example\r\n\r\n", 443, "https://a.example/"},

    {"HTTP/1.0 without one", "GET / HTTP/1.0\r\n\r\n", 443, NULL},
    {"an empty host", "GET / HTTP/1.1\r\nHost: \r\n\r\n", 443, NULL},
    {"a port alone", "GET / HTTP/1.1\r\nHost: :80\r\n\r\n", 443, NULL},
    {"a path in the host", "GET / HTTP/1.1\r\nHost: a.example/evil\r\n\r\n", 443, NULL},
    {"a user", "GET / HTTP/1.1\r\nHost: user@a.example\r\n\r\n", 443, NULL},
    {"a user in the target", "GET http://u:p@a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, NULL},
    {"two hosts in one", "GET / HTTP/1.1\r\nHost: a.example b.example\r\n\r\n", 443, NULL},
    {"a backslash", "GET / HTTP/1.1\r\nHost: a.example\\b\r\n\r\n", 443, NULL},
    {"a quote", "GET / HTTP/1.1\r\nHost: a.\"example\r\n\r\n", 443, NULL},
    {"octets beyond ASCII", "GET / HTTP/1.1\r\nHost: b\xc3\xbc.example\r\n\r\n", 443, NULL},
    {"a port of letters", "GET / HTTP/1.1\r\nHost: a.example:http\r\n\r\n", 443, NULL},
    {"a port too long", "GET / HTTP/1.1\r\nHost: a.example:123456\r\n\r\n", 443, NULL},
    {"no IPv6", "GET / HTTP/1.1\r\nHost: [2001:db8::1\r\n\r\n", 443, NULL},
    {"IPv6 with a zone", "GET / HTTP/1.1\r\nHost: [fe80::1%eth0]\r\n\r\n", 443, NULL},
    {"brackets around a name", "GET / HTTP/1.1\r\nHost: [a.example]\r\n\r\n", 443, NULL},
    {"brackets around nothing", "GET / HTTP/1.1\r\nHost: []\r\n\r\n", 443, NULL},
    {"an asterisk", "GET * HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, NULL},
    {"an authority", "GET a.example:80 HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, NULL},
    {"another scheme", "GET ftp://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, NULL},
    {"nothing behind the scheme", "GET http:// HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, NULL},
    {"no host behind the scheme", "GET http:///x HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, NULL},
    {"a fragment", "GET /x#y HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, NULL},
    {"a path beyond ASCII", "GET /\xc3\xbc HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, NULL},
    {"a tab in the path", "GET /a\tb HTTP/1.1\r\nHost: a.example\r\n\r\n", 443, NULL},
};

static void test_locations(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char location[REDIRECT_LOCATION_SIZE];
        size_t size = strlen(ROWS[i].head);
        uint8_t *copy = malloc(size); /* so that reading beyond it is found */
        assert_non_null(copy);
        memcpy(copy, ROWS[i].head, size);
        struct http_request request = http_request_parse(bytes_of(copy, size));
        bool found = redirect_location(&request, ROWS[i].port, location);
        CHECK(ROWS[i].name, found == (ROWS[i].location != NULL));
        CHECK(ROWS[i].name, !found || strcmp(location, ROWS[i].location) == 0);
        free(copy);
    }
}

static void test_longest(void **state)
{
    static char head[REDIRECT_HEAD_MAX], location[REDIRECT_LOCATION_SIZE];
    static const char BEFORE[] = "GET /", BEHIND[] = " HTTP/1.1\r\nHost: a.example\r\n\r\n";
    (void)state;
    memset(head, 'x', sizeof head);
    memcpy(head, BEFORE, strlen(BEFORE));
    memcpy(head + sizeof head - strlen(BEHIND), BEHIND, strlen(BEHIND));
    struct http_request request = http_request_parse(bytes_of(head, sizeof head));
    assert_true(redirect_location(&request, 65535, location));
    assert_int_equal(strlen(location), strlen("https://a.example:65535") + request.target.size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_locations),
        cmocka_unit_test(test_longest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
