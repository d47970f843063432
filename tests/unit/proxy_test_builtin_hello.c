/* builtin:hello: the documents, and whole connections over its socket. */
#include "proxy/builtin_hello.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>

#include "check.h"
#include "common/clock.h"
#include "common/http_request.h"
#include "common/socket.h"
#include "proxy/hello_answer.h"

#define DEADLINE UINT64_C(10000000)
#define HEAD_MAX 8192 /* of a request */
#define H        "Host: a\r\n"

/* ---- Documents. */

static struct hello_facts some_facts(void)
{
    struct hello_facts facts = {.handshake = {.version = "TLSv1.3",
                                              .suite = "TLS_AES_128_GCM_SHA256",
                                              .group = "X25519",
                                              .scheme = "ecdsa_secp256r1_sha256",
                                              .operation = "sign-transcript",
                                              .key_server = "keys-a",
                                              .key_duration = 1050,
                                              .duration = 2000007,
                                              .alpn = "http/1.1",
                                              .alpn_size = 8},
                                .worker = 3};
    static const struct client_identity CLIENT = {
        .subject = "CN=a\"b", .fingerprint = "00ff", .serial = "01"};
    static const char NAME[] = "a\"<&'\\\x01\x7f\xe9.example";
    struct failure why;
    facts.handshake.client = &CLIENT;
    facts.handshake.sni_size = sizeof NAME - 1;
    memcpy(facts.handshake.sni, NAME, sizeof NAME - 1);
    assert_int_equal(address_parse("192.0.2.1:443", &facts.client, &why), RESULT_OK);
    return facts;
}

static char *document(const struct http_request *request, const struct hello_facts *facts)
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
    const struct http_request request = {.status = 200, .keep_alive = true};
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
                                  "  \"operation\": \"sign-transcript\",\n"
                                  "  \"key_ms\": 1.050,\n"
                                  "  \"handshake_ms\": 2000.007,\n"
                                  "  \"resumed\": false,\n"
                                  "  \"retries\": 0,\n"
                                  "  \"client\": \"192.0.2.1:443\",\n"
                                  "  \"client_subject\": \"CN=a\\u0022b\",\n"
                                  "  \"client_san\": null,\n"
                                  "  \"client_sha256\": \"00ff\",\n"
                                  "  \"client_serial\": \"01\",\n"
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
    const struct http_request request = {.status = 200};
    char *text = document(&request, &facts);
    const char *const expected[] = {"\"scheme\": null",     "\"sni\": null",           "\"alpn\": null",
                                    "\"key_server\": null", "\"key_ms\": null",        "\"resumed\": true",
                                    "\"operation\": null",  "\"client_subject\": null"};
    for (size_t i = 0; i < COUNT_OF(expected); i++)
        CHECK(expected[i], strstr(text, expected[i]) != NULL);
    free(text);
}

static void test_html(void **state)
{
    (void)state;
    struct hello_facts facts = some_facts();
    const struct http_request request = {.status = 200, .html = true};
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
    const struct http_request get = {.status = 200}, head = {.status = 200, .head_only = true};
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
    static char request[HEAD_MAX + 100];
    memset(request, 'x', sizeof request);
    memcpy(request, "GET / HTTP/1.1\r\nX: ", 19);
    visit_open(&visit);
    visit_send(&visit, bytes_of(request, sizeof request), 1000, false);
    visit_await(&visit, "HTTP/1.1 431 ", 1, true);
    visit_close(&visit);

    memcpy(request + HEAD_MAX - 4 - 9, "\r\nHost: a", 9);
    memcpy(request + HEAD_MAX - 4, "\r\n\r\n", 4);
    visit_open(&visit);
    visit_send(&visit, bytes_of(request, HEAD_MAX), 1000, false);
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
