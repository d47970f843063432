/* builtin:hello: the request parser as a table, hostile requests among them; the documents; and whole
 * connections over its socket. */
#include "proxy/builtin_hello.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>

#include "check.h"
#include "common/clock.h"
#include "common/socket.h"
#include "proxy/hello_answer.h"
#include "proxy/hello_request.h"

#define DEADLINE UINT64_C(10000000)

/* ---- Requests. */

#define H "Host: a\r\n"

static const struct request_row {
    const char *name;
    struct bytes head;
    struct hello_request expected;
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
        struct hello_request got = hello_request_parse(bytes_of(head, row->head.size));
        CHECK(row->name, got.status == row->expected.status);
        CHECK(row->name, got.head_only == row->expected.head_only);
        CHECK(row->name, got.html == row->expected.html);
        CHECK(row->name, got.keep_alive == row->expected.keep_alive);
        CHECK(row->name, got.body == row->expected.body);
        free(head);
    }
}

/* ---- Documents. */

static struct hello_facts some_facts(void)
{
    struct hello_facts facts = {.handshake = {.version = "TLSv1.3",
                                              .suite = "TLS_AES_128_GCM_SHA256",
                                              .group = "X25519",
                                              .scheme = "ecdsa_secp256r1_sha256",
                                              .key_server = "keys-a",
                                              .key_duration = 1050,
                                              .duration = 2000007,
                                              .alpn = "http/1.1",
                                              .alpn_size = 8},
                                .worker = 3};
    static const char NAME[] = "a\"<&'\\\x01\x7f\xe9.example";
    struct failure why;
    facts.handshake.sni_size = sizeof NAME - 1;
    memcpy(facts.handshake.sni, NAME, sizeof NAME - 1);
    assert_int_equal(address_parse("192.0.2.1:443", &facts.client, &why), RESULT_OK);
    return facts;
}

static char *document(const struct hello_request *request, const struct hello_facts *facts)
{
    struct evbuffer *buffer = evbuffer_new();
    assert_true(hello_answer_write(buffer, request, facts, false));
    size_t size = evbuffer_get_length(buffer);
    char *text = calloc(1, size + 1);
    assert_int_equal(evbuffer_remove(buffer, text, size), size);
    evbuffer_free(buffer);
    return text;
}

static void test_json(void **state)
{
    (void)state;
    struct hello_facts facts = some_facts();
    const struct hello_request request = {.status = 200, .keep_alive = true};
    char *text = document(&request, &facts);
    const char *body = strstr(text, "\r\n\r\n");
    assert_non_null(body);
    assert_string_equal(body + 4, "{\n"
                                  "  \"version\": \"TLSv1.3\",\n"
                                  "  \"suite\": \"TLS_AES_128_GCM_SHA256\",\n"
                                  "  \"group\": \"X25519\",\n"
                                  "  \"scheme\": \"ecdsa_secp256r1_sha256\",\n"
                                  "  \"sni\": \"a\\u0022<&'\\u005c\\u0001\\u007f\\u00e9.example\",\n"
                                  "  \"alpn\": \"http/1.1\",\n"
                                  "  \"key_server\": \"keys-a\",\n"
                                  "  \"key_ms\": 1.050,\n"
                                  "  \"handshake_ms\": 2000.007,\n"
                                  "  \"resumed\": false,\n"
                                  "  \"retries\": 0,\n"
                                  "  \"client\": \"192.0.2.1:443\",\n"
                                  "  \"worker\": 3\n"
                                  "}\n");
    char length[64];
    (void)snprintf(length, sizeof length, "\r\nContent-Length: %zu\r\n", strlen(body + 4));
    assert_non_null(strstr(text, length));
    assert_non_null(strstr(text, "\r\nContent-Type: application/json\r\n"));
    assert_non_null(strstr(text, "\r\nConnection: keep-alive\r\n"));
    free(text);
}

static void test_json_of_a_resumption(void **state)
{
    (void)state;
    struct hello_facts facts = {.handshake = {.version = "TLSv1.3", .suite = "s", .resumed = true}};
    const struct hello_request request = {.status = 200};
    char *text = document(&request, &facts);
    const char *const expected[] = {"\"scheme\": null",     "\"sni\": null",    "\"alpn\": null",
                                    "\"key_server\": null", "\"key_ms\": null", "\"resumed\": true"};
    for (size_t i = 0; i < COUNT_OF(expected); i++)
        CHECK(expected[i], strstr(text, expected[i]) != NULL);
    free(text);
}

static void test_html(void **state)
{
    (void)state;
    struct hello_facts facts = some_facts();
    const struct hello_request request = {.status = 200, .html = true};
    char *text = document(&request, &facts);
    assert_non_null(strstr(text, "\r\nContent-Type: text/html\r\n"));
    assert_non_null(
        strstr(text, "<tr><th>sni</th><td>a&#34;&#60;&#38;&#39;\\&#xfffd;&#xfffd;&#233;.example</td></tr>"));
    free(text);
}

static void test_head_has_the_length_but_no_body(void **state)
{
    (void)state;
    struct hello_facts facts = some_facts();
    const struct hello_request get = {.status = 200}, head = {.status = 200, .head_only = true};
    char *with = document(&get, &facts), *without = document(&head, &facts);
    size_t size = (size_t)(strstr(with, "\r\n\r\n") + 4 - with);
    assert_int_equal(strlen(without), size);
    const char *length = strstr(with, "Content-Length");
    assert_memory_equal(strstr(without, "Content-Length"), length, strcspn(length, "\r"));
    free(with);
    free(without);
}

/* ---- Connections. */

struct visit {
    struct event_base *base;
    struct builtin_hello *hello;
    int fd;
    char got[300000];
    size_t size;
    bool ended;
};

static void visit_open(struct visit *visit)
{
    struct hello_facts facts = some_facts();
    struct failure why;
    memset(visit, 0, sizeof *visit);
    visit->base = event_base_new();
    visit->hello = builtin_hello_new(visit->base, 3);
    assert_int_equal(builtin_hello_connect(visit->hello, &facts.handshake, &facts.client, &visit->fd, &why),
                     RESULT_OK);
}

static void visit_close(struct visit *visit)
{
    socket_close(&visit->fd);
    builtin_hello_free(visit->hello);
    event_base_free(visit->base);
}

static void visit_read(struct visit *visit)
{
    ssize_t size = recv(visit->fd, visit->got + visit->size, sizeof visit->got - 1 - visit->size, 0);
    if (size > 0)
        visit->size += (size_t)size;
    else if (size == 0)
        visit->ended = true;
    else
        assert_int_equal(errno, EAGAIN);
}

/* Sends it in pieces of `piece` octets, reading what is answered as it goes, unless deaf. */
static void visit_send(struct visit *visit, struct bytes text, size_t piece, bool deaf)
{
    uint64_t start = clock_now();
    while (text.size > 0 && clock_now() - start < DEADLINE) {
        size_t size = text.size < piece ? text.size : piece;
        ssize_t sent = send(visit->fd, text.data, size, MSG_NOSIGNAL);
        if (sent > 0)
            text = bytes_of(text.data + sent, text.size - (size_t)sent);
        (void)event_base_loop(visit->base, EVLOOP_NONBLOCK);
        if (!deaf)
            visit_read(visit);
    }
    assert_int_equal(text.size, 0);
}

static unsigned visit_count(const struct visit *visit, const char *text)
{
    unsigned count = 0;
    for (const char *at = visit->got; (at = strstr(at, text)) != NULL; at++)
        count++;
    return count;
}

/* Until that many answers of this status are there, or the other end has closed. */
static void visit_await(struct visit *visit, const char *status, unsigned count, bool end)
{
    uint64_t start = clock_now();
    while ((visit_count(visit, status) < count || visit->ended != end) && clock_now() - start < DEADLINE) {
        (void)event_base_loop(visit->base, EVLOOP_NONBLOCK);
        if (!visit->ended)
            visit_read(visit);
    }
    assert_int_equal(visit_count(visit, status), count);
    assert_int_equal(visit->ended, end);
}

#define GET "GET / HTTP/1.1\r\n" H "\r\n"

static const struct visit_row {
    const char *name;
    struct bytes sent;
    const char *status;
    unsigned count;
    bool end;
} VISITS[] = {
    {"one", WIRE(GET), "HTTP/1.1 200 OK\r\n", 1, false},
    {"pipelined", WIRE(GET GET GET), "HTTP/1.1 200 OK\r\n", 3, false},
    {"empty lines between", WIRE("\r\n" GET "\r\n\r\n" GET), "HTTP/1.1 200 OK\r\n", 2, false},
    {"bodies dropped", WIRE("GET / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nGET /" GET),
     "HTTP/1.1 200 OK\r\n", 2, false},
    {"close", WIRE("GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n" GET), "HTTP/1.1 200 OK\r\n", 1, true},
    {"nothing after an error", WIRE("oops\r\n\r\n" GET), "HTTP/1.1 400 Bad Request\r\n", 1, true},
    {"chunked", WIRE("GET / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
     "HTTP/1.1 501 Not Implemented\r\n", 1, true},
    {"method", WIRE("DELETE / HTTP/1.1\r\n" H "\r\n" GET), "HTTP/1.1 405 Method Not Allowed\r\n", 1, false},
};

static void test_visits(void **state)
{
    (void)state;
    static struct visit visit;
    for (size_t i = 0; i < COUNT_OF(VISITS); i++) {
        for (size_t piece = 1; piece < 200; piece *= 7) {
            print_message("  %s, %zu octets at a time\n", VISITS[i].name, piece);
            visit_open(&visit);
            visit_send(&visit, VISITS[i].sent, piece, false);
            visit_await(&visit, VISITS[i].status, VISITS[i].count, VISITS[i].end);
            visit_close(&visit);
        }
    }
}

static void test_long_head(void **state)
{
    (void)state;
    static struct visit visit;
    static char request[HELLO_HEAD_MAX + 100];
    memset(request, 'x', sizeof request);
    memcpy(request, "GET / HTTP/1.1\r\nX: ", 19);
    visit_open(&visit);
    visit_send(&visit, bytes_of(request, sizeof request), 1000, false);
    visit_await(&visit, "HTTP/1.1 431 ", 1, true);
    visit_close(&visit);

    memcpy(request + HELLO_HEAD_MAX - 4 - 9, "\r\nHost: a", 9);
    memcpy(request + HELLO_HEAD_MAX - 4, "\r\n\r\n", 4);
    visit_open(&visit);
    visit_send(&visit, bytes_of(request, HELLO_HEAD_MAX), 1000, false);
    visit_await(&visit, "HTTP/1.1 200 ", 1, false);
    visit_close(&visit);
}

/* Half close: the answer still comes, then the end. */
static void test_client_ends_first(void **state)
{
    (void)state;
    static struct visit visit;
    visit_open(&visit);
    visit_send(&visit, OCTETS(GET), 100, false);
    assert_int_equal(shutdown(visit.fd, SHUT_WR), 0);
    visit_await(&visit, "HTTP/1.1 200 ", 1, true);
    visit_close(&visit);
}

/* One that asks and asks and reads nothing is not heard any more, and gets every answer once it reads. */
static void test_asks_without_reading(void **state)
{
    (void)state;
    enum { ROUNDS = 100000 };
    static struct visit visit;
    size_t sent = 0;
    visit_open(&visit);
    (void)setsockopt(visit.fd, SOL_SOCKET, SO_SNDBUF, &(int){4096}, sizeof(int));
    (void)setsockopt(visit.fd, SOL_SOCKET, SO_RCVBUF, &(int){4096}, sizeof(int));
    for (unsigned stuck = 0; stuck < 100 && sent < ROUNDS; stuck++) {
        while (send(visit.fd, GET, sizeof GET - 1, MSG_NOSIGNAL) == (ssize_t)sizeof GET - 1) {
            sent++;
            stuck = 0;
        }
        (void)event_base_loop(visit.base, EVLOOP_NONBLOCK);
    }
    assert_in_range(sent, 10, 5000);
    visit_close(&visit);
}

static void test_drain(void **state)
{
    (void)state;
    static struct visit visit;
    visit_open(&visit);
    visit_send(&visit, OCTETS(GET), 100, false);
    visit_await(&visit, "HTTP/1.1 200 ", 1, false);
    builtin_hello_drain(visit.hello);
    visit_await(&visit, "HTTP/1.1 200 ", 1, true);
    visit_close(&visit);

    visit_open(&visit);
    builtin_hello_drain(visit.hello);
    visit_send(&visit, OCTETS(GET), 100, false);
    visit_await(&visit, "HTTP/1.1 200 ", 1, true);
    assert_int_equal(visit_count(&visit, "\r\nConnection: close\r\n"), 1);
    visit_close(&visit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_json_of_a_resumption),
        cmocka_unit_test(test_html),
        cmocka_unit_test(test_head_has_the_length_but_no_body),
        cmocka_unit_test(test_visits),
        cmocka_unit_test(test_long_head),
        cmocka_unit_test(test_client_ends_first),
        cmocka_unit_test(test_asks_without_reading),
        cmocka_unit_test(test_drain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
