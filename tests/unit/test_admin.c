/* The admin endpoint, asked over real sockets: pages, methods, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "common/admin.h"
#include "common/socket.h"

#define ANSWER_MAX 65536

static const struct metric TABLE[] = {
    {"keyless_things_total", NULL, METRIC_COUNTER, "Things"},
};

struct fixture {
    struct admin_source source; /* first: the source is the fixture */
    bool ready;
    struct event_base *base;
    struct metrics *metrics;
    struct metrics_row *row;
    struct address address;
    struct admin *admin;
    char directory[32];
};

static bool ready(struct admin_source *source, struct evbuffer *why_not)
{
    struct fixture *fixture = (struct fixture *)source;
    if (!fixture->ready)
        (void)evbuffer_add_printf(why_not, "no key server answers");
    return fixture->ready;
}

static void status(struct admin_source *source, struct evbuffer *to)
{
    (void)source;
    (void)evbuffer_add_printf(to, "{\"workers\":2}");
}

static void more_metrics(struct admin_source *source, struct evbuffer *to)
{
    (void)source;
    metrics_write_line(to, "keyless_more", NULL, 0, 1);
}

static void start(struct fixture *fixture, const char *listen)
{
    struct failure why = {0};
    struct socket_listen_options options = {.backlog = 1024};
    struct address address;
    int listener = -1;
    assert_int_equal(address_parse(listen, &address, &why), RESULT_OK);
    assert_int_equal(socket_listen(&address, &options, &listener, &why), RESULT_OK);
    fixture->address.size = sizeof fixture->address.storage;
    assert_int_equal(
        getsockname(listener, (struct sockaddr *)&fixture->address.storage, &fixture->address.size), 0);
    fixture->base = event_base_new();
    assert_non_null(fixture->base);
    assert_int_equal(metrics_new(TABLE, 1, &fixture->metrics, &why), RESULT_OK);
    fixture->row = metrics_take_row(fixture->metrics);
    fixture->source = (struct admin_source){.ready = ready, .status = status, .metrics = more_metrics};
    assert_int_equal(
        admin_new(fixture->base, fixture->metrics, &fixture->source, NULL, &fixture->admin, &why), RESULT_OK);
    assert_int_equal(admin_listen(fixture->admin, 7, listener, &why), RESULT_OK);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    (void)signal(SIGPIPE, SIG_IGN); /* as every process of ours does */
    start(fixture, "127.0.0.1:0");
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    admin_free(fixture->admin);
    event_base_free(fixture->base);
    metrics_free(fixture->metrics);
    free(fixture);
    return 0;
}

/* ---- A client that sends octets and keeps all that comes back until the other side closes. */

struct client {
    struct event_base *base;
    struct bufferevent *link;
    bool closed;
    char answer[ANSWER_MAX];
    size_t size;
};

static void on_data(struct bufferevent *link, void *owner)
{
    struct client *client = owner;
    client->size += bufferevent_read(link, client->answer + client->size, ANSWER_MAX - 1 - client->size);
    client->answer[client->size] = '\0';
}

static void on_event(struct bufferevent *link, short events, void *owner)
{
    struct client *client = owner;
    (void)link;
    if (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
        client->closed = true;
        (void)event_base_loopbreak(client->base);
    }
}

static void client_open(struct client *client, struct fixture *fixture)
{
    struct failure why = {0};
    int fd = -1;
    *client = (struct client){.base = fixture->base};
    assert_int_equal(socket_connect(&fixture->address, &fd, &why), RESULT_OK);
    client->link = bufferevent_socket_new(fixture->base, fd, BEV_OPT_CLOSE_ON_FREE);
    assert_non_null(client->link);
    bufferevent_setcb(client->link, on_data, NULL, on_event, client);
    assert_int_equal(bufferevent_enable(client->link, EV_READ | EV_WRITE), 0);
}

static void client_wait_closed(struct client *client, unsigned seconds)
{
    time_t give_up = time(NULL) + (time_t)seconds;
    while (!client->closed && time(NULL) < give_up)
        (void)event_base_loop(client->base, EVLOOP_ONCE);
    assert_true(client->closed);
    bufferevent_free(client->link);
}

static void exchange(struct fixture *fixture, struct client *client, const char *request)
{
    client_open(client, fixture);
    assert_int_equal(bufferevent_write(client->link, request, strlen(request)), 0);
    client_wait_closed(client, 20);
}

static int status_of(const struct client *client)
{
    int code = 0;
    return sscanf(client->answer, "HTTP/1.1 %d ", &code) == 1 ? code : 0;
}

static const char *body_of(const struct client *client)
{
    const char *end = strstr(client->answer, "\r\n\r\n");
    return end != NULL ? end + 4 : "(no body)";
}

/* ---- Tests */

#define CLOSE " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static const struct {
    const char *request;
    bool ready;
    int status;
    const char *header; /* must be there; NULL: any */
    const char *body;   /* NULL: any */
} PAGES[] = {
    {"GET /healthz" CLOSE, false, 200, "Content-Type: text/plain; charset=utf-8\r\n", "ok\n"},
    {"GET /healthz?full=1" CLOSE, false, 200, NULL, "ok\n"},
    {"GET /readyz" CLOSE, true, 200, NULL, "ready\n"},
    {"GET /readyz" CLOSE, false, 503, "Service Unavailable\r\n", "no key server answers\n"},
    {"GET /status" CLOSE, true, 200, "Content-Type: application/json\r\n", "{\"workers\":2}\n"},
    {"GET /metrics" CLOSE, true, 200, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
     "# HELP keyless_things_total Things\n# TYPE keyless_things_total counter\nkeyless_things_total 7\n"
     "keyless_more 1\n"},
    {"GET /metrics" CLOSE, true, 200, "Cache-Control: no-store\r\n", NULL},
    {"HEAD /healthz" CLOSE, true, 200, "Content-Length: 3\r\n", ""},
    {"GET /" CLOSE, true, 404, NULL, "not found\n"},
    {"GET /healthz/" CLOSE, true, 404, NULL, "not found\n"},
    {"GET /metrics/../healthz" CLOSE, true, 404, NULL, "not found\n"},
    {"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", true, 405,
     "Allow: GET, HEAD\r\n", "method not allowed\n"},
    {"DELETE /status" CLOSE, true, 405, "Allow: GET, HEAD\r\n", NULL},
    {"BREW /status" CLOSE, true, 405, NULL, NULL},
    {"POST /nowhere" CLOSE, true, 404, NULL, NULL},
    {"GET /metrics HTTP/1.0\r\n\r\n", true, 200, "Connection: close\r\n", NULL},
    {"GET /readyz HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", true, 200, NULL, "ready\n"},
    {"nonsense\r\n\r\n", true, 400, NULL, "Bad Request\n"},
    {"GET /metrics HTTP/1.1\r\n\r\n", true, 400, NULL, NULL}, /* no Host */
    {"GET /metrics\r\n\r\n", true, 400, NULL, NULL},
    {"GET /metrics HTTP/2.0\r\nHost: x\r\n\r\n", true, 505, NULL, "HTTP Version Not Supported\n"},
    {"\x16\x03\x01\x02\r\n\r\n", true, 400, NULL, NULL},
    {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", true, 413, NULL, NULL},
    {"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", true, 501, NULL, NULL},
};

static void test_pages(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    metric_add(fixture->row, 0, 7);
    for (size_t i = 0; i < sizeof PAGES / sizeof *PAGES; i++) {
        fixture->ready = PAGES[i].ready;
        exchange(fixture, &client, PAGES[i].request);
        if (status_of(&client) != PAGES[i].status)
            fail_msg("%s: %s", PAGES[i].request, client.answer);
        if (PAGES[i].header != NULL && strstr(client.answer, PAGES[i].header) == NULL)
            fail_msg("%s: no %s in %s", PAGES[i].request, PAGES[i].header, client.answer);
        if (PAGES[i].body != NULL)
            assert_string_equal(body_of(&client), PAGES[i].body);
    }
}

/* One answer a connection; what comes behind the request is dropped, however much it is. */
static void test_one_answer(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    static char request[100000];
    static const char head[] = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    memset(request, 'x', sizeof request - 1);
    memcpy(request, head, sizeof head - 1);
    exchange(fixture, &client, request);
    assert_int_equal(status_of(&client), 200);
    assert_string_equal(body_of(&client), "ok\n");
    exchange(fixture, &client, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /status" CLOSE);
    assert_string_equal(body_of(&client), "ok\n");
}

/* A request comes in pieces, and the client ends its side before it reads. */
static void test_in_pieces(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    const char *request = "GET /healthz" CLOSE;
    client_open(&client, fixture);
    for (size_t i = 0; i < strlen(request); i++) {
        assert_int_equal(bufferevent_write(client.link, request + i, 1), 0);
        (void)event_base_loop(fixture->base, EVLOOP_NONBLOCK);
        (void)event_base_loop(fixture->base, EVLOOP_NONBLOCK);
    }
    assert_int_equal(shutdown(bufferevent_getfd(client.link), SHUT_WR), 0);
    client_wait_closed(&client, 20);
    assert_string_equal(body_of(&client), "ok\n");
}

static void test_no_functions_no_metrics(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    fixture->source = (struct admin_source){.ready = NULL, .status = NULL};
    exchange(fixture, &client, "GET /readyz" CLOSE);
    assert_int_equal(status_of(&client), 200);
    exchange(fixture, &client, "GET /status" CLOSE);
    assert_string_equal(body_of(&client), "{}\n");
}

/* A head past its bound is refused whether it comes as one line, as many, or never ends. */
static void test_head_is_bounded(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    char request[8192];
    (void)snprintf(request, sizeof request, "GET /%05000d" CLOSE, 0);
    exchange(fixture, &client, request);
    assert_int_equal(status_of(&client), 431);
    (void)snprintf(request, sizeof request, "GET /healthz HTTP/1.1\r\nA: %05000d\r\n\r\n", 0);
    exchange(fixture, &client, request);
    assert_int_equal(status_of(&client), 431);
    (void)snprintf(request, sizeof request, "%05000d", 0);
    exchange(fixture, &client, request);
    assert_int_equal(status_of(&client), 431);
}

/* However slowly it goes on: a connection has its time, and then it ends. */
static void test_slow_connection_is_closed(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    struct timeval moment = {.tv_usec = 250000};
    time_t began = time(NULL);
    client_open(&client, fixture);
    while (!client.closed && time(NULL) < began + 20) {
        (void)bufferevent_write(client.link, "x", 1);
        (void)event_base_loopexit(fixture->base, &moment);
        (void)event_base_dispatch(fixture->base);
    }
    assert_true(client.closed);
    assert_int_equal(client.size, 0);
    bufferevent_free(client.link);
    assert_int_equal(admin_connections(fixture->admin), 0);
}

/* Connections that say nothing make room for one that does, whether it came before or after them. */
static void test_many_connections(void **state)
{
    enum { IDLE = 300, MOST = 128 };
    struct fixture *fixture = *state;
    static struct client idle[IDLE];
    struct client client;
    const char *request = "GET /healthz" CLOSE;
    for (size_t i = 0; i < IDLE; i++) {
        client_open(&idle[i], fixture);
        if (i == 10) {
            client_open(&client, fixture);
            assert_int_equal(bufferevent_write(client.link, request, strlen(request)), 0);
        }
    }
    client_wait_closed(&client, 20);
    assert_string_equal(body_of(&client), "ok\n");
    exchange(fixture, &client, request);
    assert_string_equal(body_of(&client), "ok\n");
    assert_in_range(admin_connections(fixture->admin), MOST - 2, MOST);
    for (size_t i = 0; i < IDLE; i++)
        bufferevent_free(idle[i].link);
}

/* A socket is given up, and its connections go on. */
static void test_unlisten(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    struct failure why;
    int fd = -1;
    client_open(&client, fixture);
    while (admin_connections(fixture->admin) == 0)
        (void)event_base_loop(fixture->base, EVLOOP_ONCE);
    assert_true(admin_is_listening(fixture->admin, 7));
    admin_unlisten(fixture->admin, 8);
    admin_unlisten(fixture->admin, 7);
    admin_unlisten(fixture->admin, 7);
    assert_false(admin_is_listening(fixture->admin, 7));
    assert_int_equal(bufferevent_write(client.link, "GET /healthz" CLOSE, strlen("GET /healthz" CLOSE)), 0);
    client_wait_closed(&client, 20);
    assert_string_equal(body_of(&client), "ok\n");
    if (socket_connect(&fixture->address, &fd, &why) == RESULT_OK) {
        struct pollfd wait = {.fd = fd, .events = POLLOUT};
        assert_int_equal(poll(&wait, 1, 5000), 1);
        assert_int_not_equal(socket_error(fd), 0);
        socket_close(&fd);
    }
}

/* Microseconds of processor time that this process has used. */
static long time_used(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000 + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

/* A connection that waits while no descriptor is left is served when there is one again; until then the loop
 * waits and does not turn. */
static void test_out_of_descriptors(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    struct rlimit limit;
    struct timeval moment = {.tv_usec = 200000};
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    client_open(&client, fixture);
    assert_int_equal(bufferevent_write(client.link, "GET /healthz" CLOSE, strlen("GET /healthz" CLOSE)), 0);

    struct rlimit none = {.rlim_cur = 0, .rlim_max = limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    long before = time_used();
    (void)event_base_loopexit(fixture->base, &moment);
    (void)event_base_dispatch(fixture->base);
    long used = time_used() - before;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_int_equal(client.size, 0);
    assert_in_range(used, 0, 50000);

    client_wait_closed(&client, 20);
    assert_string_equal(body_of(&client), "ok\n");
}

static void test_unix_socket(void **state)
{
    (void)state;
    struct fixture fixture = {.ready = true};
    struct client client;
    char directory[] = "/tmp/test_admin.XXXXXX";
    char listen[64];
    assert_non_null(mkdtemp(directory));
    (void)snprintf(listen, sizeof listen, "unix:%s/admin.sock", directory);
    start(&fixture, listen);
    exchange(&fixture, &client, "GET /healthz" CLOSE);
    assert_string_equal(body_of(&client), "ok\n");
    admin_free(fixture.admin);
    event_base_free(fixture.base);
    metrics_free(fixture.metrics);
    assert_int_equal(unlink(listen + strlen("unix:")), 0);
    assert_int_equal(rmdir(directory), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pages, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_one_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_in_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_many_connections, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unlisten, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_functions_no_metrics, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_head_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slow_connection_is_closed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_out_of_descriptors, set_up, tear_down),
        cmocka_unit_test(test_unix_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
