/* The HTTP request parser as a table, hostile requests among them. */
#include "common/http_request.h"

#include "check.h"

#define H "Host: a\r\n"

struct expected {
    unsigned status;
    bool head_only, html, keep_alive;
    uint64_t body;
};

static const struct request_row {
    const char *name;
    struct bytes head;
    struct expected expected;
} REQUESTS[] = {
    {"plain", WIRE("GET / HTTP/1.1\r\n" H "\r\n"), {200, false, false, true, 0}},
    {"HEAD", WIRE("HEAD /x?y HTTP/1.1\r\n" H "\r\n"), {200, true, false, true, 0}},
    {"close", WIRE("GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n"), {200, false, false, false, 0}},
    {"close in a list",
     WIRE("GET / HTTP/1.1\r\n" H "Connection: Foo , CLOSE\r\n\r\n"),
     {200, false, false, false, 0}},
    {"close beats keep-alive",
     WIRE("GET / HTTP/1.1\r\n" H "Connection: close, keep-alive\r\n\r\n"),
     {200, false, false, false, 0}},
    {"HTTP/1.0", WIRE("GET / HTTP/1.0\r\n\r\n"), {200, false, false, false, 0}},
    {"HTTP/1.0 keep-alive",
     WIRE("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"),
     {200, false, false, true, 0}},
    {"HTTP/1.2", WIRE("GET / HTTP/1.2\r\n" H "\r\n"), {200, false, false, true, 0}},
    {"browser",
     WIRE("GET / HTTP/1.1\r\n" H "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\r\n"),
     {200, false, true, true, 0}},
    {"curl", WIRE("GET / HTTP/1.1\r\n" H "Accept: */*\r\n\r\n"), {200, false, false, true, 0}},
    {"JSON preferred",
     WIRE("GET / HTTP/1.1\r\n" H "Accept: text/html;q=0.4, application/json;q=0.9\r\n\r\n"),
     {200, false, false, true, 0}},
    {"HTML preferred",
     WIRE("GET / HTTP/1.1\r\n" H "Accept: text/html;q=0.9, application/json;q=0.4\r\n\r\n"),
     {200, false, true, true, 0}},
    {"HTML refused",
     WIRE("GET / HTTP/1.1\r\n" H "Accept: text/html;q=0\r\n\r\n"),
     {200, false, false, true, 0}},
    {"odd Accept",
     WIRE("GET / HTTP/1.1\r\n" H "Accept: ,;,;q=,text/html;;q=9.99999999999;q,\r\n\r\n"),
     {200, false, true, true, 0}},
    {"body", WIRE("GET / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\n"), {200, false, false, true, 10}},
    {"largest body",
     WIRE("GET / HTTP/1.1\r\n" H "Content-Length: 65536\r\n\r\n"),
     {200, false, false, true, 65536}},
    {"body expected",
     WIRE("GET / HTTP/1.1\r\n" H "Content-Length: 9\r\nExpect: 100-continue\r\n\r\n"),
     {200, false, false, false, 9}},
    {"POST", WIRE("POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\n"), {405, false, false, true, 3}},
    {"get", WIRE("get / HTTP/1.1\r\n" H "\r\n"), {405, false, false, true, 0}},
    {"CONNECT", WIRE("CONNECT a:1 HTTP/1.1\r\n" H "\r\n"), {405, false, false, true, 0}},

    {"body too large",
     WIRE("GET / HTTP/1.1\r\n" H "Content-Length: 65537\r\n\r\n"),
     {413, false, false, false, 0}},
    {"length wraps",
     WIRE("GET / HTTP/1.1\r\n" H "Content-Length: 18446744073709551617\r\n\r\n"),
     {413, false, false, false, 0}},
    {"length with sign",
     WIRE("GET / HTTP/1.1\r\n" H "Content-Length: +1\r\n\r\n"),
     {400, false, false, false, 0}},
    {"length in hex",
     WIRE("GET / HTTP/1.1\r\n" H "Content-Length: 0x10\r\n\r\n"),
     {400, false, false, false, 0}},
    {"length empty", WIRE("GET / HTTP/1.1\r\n" H "Content-Length: \r\n\r\n"), {400, false, false, false, 0}},
    {"lengths, two",
     WIRE("GET / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"),
     {400, false, false, false, 0}},
    {"chunked",
     WIRE("GET / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"),
     {501, false, false, false, 0}},
    {"HTTP/2", WIRE("PRI * HTTP/2.0\r\n\r\n"), {505, false, false, false, 0}},
    {"no version", WIRE("GET /\r\n\r\n"), {400, false, false, false, 0}},
    {"odd version", WIRE("GET / HTTPS/1.1\r\n\r\n"), {400, false, false, false, 0}},
    {"version with a tail", WIRE("GET / HTTP/1.1 \r\n" H "\r\n"), {400, false, false, false, 0}},
    {"no target", WIRE("GET  HTTP/1.1\r\n" H "\r\n"), {400, false, false, false, 0}},
    {"no method", WIRE(" / HTTP/1.1\r\n" H "\r\n"), {400, false, false, false, 0}},
    {"odd method", WIRE("G\x01T / HTTP/1.1\r\n" H "\r\n"), {400, false, false, false, 0}},
    {"control in target", WIRE("GET /\x01 HTTP/1.1\r\n" H "\r\n"), {400, false, false, false, 0}},
    {"TLS", WIRE("\x16\x03\x01\x00\xff\r\n\r\n"), {400, false, false, false, 0}},
    {"no Host", WIRE("GET / HTTP/1.1\r\n\r\n"), {400, false, false, false, 0}},
    {"two Hosts", WIRE("GET / HTTP/1.1\r\n" H H "\r\n"), {400, false, false, false, 0}},
    {"no colon", WIRE("GET / HTTP/1.1\r\n" H "oops\r\n\r\n"), {400, false, false, false, 0}},
    {"no name", WIRE("GET / HTTP/1.1\r\n" H ": x\r\n\r\n"), {400, false, false, false, 0}},
    {"space before colon",
     WIRE("GET / HTTP/1.1\r\n" H "Content-Length : 5\r\n\r\n"),
     {400, false, false, false, 0}},
    {"folded", WIRE("GET / HTTP/1.1\r\n" H " x: y\r\n\r\n"), {400, false, false, false, 0}},
    {"bare CR", WIRE("GET / HTTP/1.1\r\n" H "X: a\rb\r\n\r\n"), {400, false, false, false, 0}},
    {"bare LF",
     WIRE("GET / HTTP/1.1\r\n" H "X: a\nContent-Length: 5\r\n\r\n"),
     {400, false, false, false, 0}},
    {"NUL", WIRE("GET / HTTP/1.1\r\n" H "X: a\0b\r\n\r\n"), {400, false, false, false, 0}},
    {"no empty line", WIRE("GET / HTTP/1.1\r\n" H), {400, false, false, false, 0}},
    {"nothing", WIRE(""), {400, false, false, false, 0}},
    {"empty line alone", WIRE("\r\n\r\n"), {400, false, false, false, 0}},
};

static void test_requests(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(REQUESTS); i++) {
        const struct request_row *row = &REQUESTS[i];
        uint8_t *head = exact_copy(row->head);
        struct http_request got = http_request_parse(bytes_of(head, row->head.size));
        CHECK(row->name, got.status == row->expected.status);
        CHECK(row->name, got.head_only == row->expected.head_only);
        CHECK(row->name, got.html == row->expected.html);
        CHECK(row->name, got.keep_alive == row->expected.keep_alive);
        CHECK(row->name, got.body == row->expected.body);
        free(head);
    }
}

/* The target is there whenever the rest of its line can be relied on, whatever is wrong behind it. */
static void test_targets(void **state)
{
    static const struct {
        struct bytes head;
        const char *target;
    } ROWS[] = {
        {WIRE("GET / HTTP/1.1\r\n" H "\r\n"), "/"},
        {WIRE("HEAD /metrics?a=b HTTP/1.1\r\n" H "\r\n"), "/metrics?a=b"},
        {WIRE("DELETE /metrics HTTP/1.1\r\n" H "\r\n"), "/metrics"},
        {WIRE("GET http://host/metrics HTTP/1.1\r\n" H "\r\n"), "http://host/metrics"},
        {WIRE("GET /a HTTP/1.1\r\n" H "oops\r\n\r\n"), "/a"},
        {WIRE("GET /a\x01 HTTP/1.1\r\n" H "\r\n"), ""},
        {WIRE("GET /a HTTP/9.9\r\n" H "\r\n"), ""},
        {WIRE("GET /a\r\n\r\n"), ""},
        {WIRE(""), ""},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct http_request got = http_request_parse(ROWS[i].head);
        CHECK(ROWS[i].target, bytes_equal(got.target, bytes_of(ROWS[i].target, strlen(ROWS[i].target))));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_requests), cmocka_unit_test(test_targets)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
