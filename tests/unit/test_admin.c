/* The admin endpoint, asked over real sockets: pages, methods, bounds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <sys/resource.h>

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

static void start(struct fixture *fixture, const char *listen)
{
    struct failure why = {0};
    struct socket_listen_options options = {.backlog = 16};
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
    fixture->source = (struct admin_source){.ready = ready, .status = status};
    assert_int_equal(
        admin_new(fixture->base, listener, fixture->metrics, &fixture->source, NULL, &fixture->admin, &why),
        RESULT_OK);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
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
    struct timeval deadline = {.tv_sec = seconds};
    (void)event_base_loopexit(client->base, &deadline);
    if (!client->closed)
        (void)event_base_dispatch(client->base);
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
     "# HELP keyless_things_total Things\n# TYPE keyless_things_total counter\nkeyless_things_total 7\n"},
    {"GET /metrics" CLOSE, true, 200, "Cache-Control: no-store\r\n", NULL},
    {"HEAD /healthz" CLOSE, true, 200, "Content-Length: 3\r\n", ""},
    {"GET /" CLOSE, true, 404, NULL, "not found\n"},
    {"GET /healthz/" CLOSE, true, 404, NULL, "not found\n"},
    {"GET /metrics/../healthz" CLOSE, true, 404, NULL, "not found\n"},
    {"POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", true, 405,
     "Allow: GET, HEAD\r\n", "method not allowed\n"},
    {"DELETE /status" CLOSE, true, 405, "Allow: GET, HEAD\r\n", NULL},
    {"BREW /status" CLOSE, true, 501, NULL, NULL},
    {"nonsense\r\n\r\n", true, 400, NULL, NULL},
    {"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\n\r\n", true, 413, NULL, NULL},
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

static void test_keeps_connections_alive(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    exchange(fixture, &client, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET /status" CLOSE);
    assert_non_null(strstr(client.answer, "ok\n"));
    assert_non_null(strstr(client.answer, "{\"workers\":2}\n"));
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
    assert_in_range(status_of(&client), 400, 499);
    (void)snprintf(request, sizeof request, "GET /healthz HTTP/1.1\r\nA: %05000d\r\n\r\n", 0);
    exchange(fixture, &client, request);
    assert_in_range(status_of(&client), 400, 499);
    (void)snprintf(request, sizeof request, "%05000d", 0);
    exchange(fixture, &client, request);
    assert_in_range(status_of(&client), 400, 499);
}

static void test_idle_connection_is_closed(void **state)
{
    struct fixture *fixture = *state;
    struct client client;
    client_open(&client, fixture);
    assert_int_equal(bufferevent_write(client.link, "GET /hea", 8), 0);
    client_wait_closed(&client, 20);
    assert_int_equal(client.size, 0);
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
        cmocka_unit_test_setup_teardown(test_keeps_connections_alive, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_functions_no_metrics, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_head_is_bounded, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_idle_connection_is_closed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_out_of_descriptors, set_up, tear_down),
        cmocka_unit_test(test_unix_socket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
