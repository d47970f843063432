/* What the admin endpoint makes of the records that master and workers leave in shared memory. */
#include "proxy/status.h"

#include <event2/buffer.h>

#include "common/process_status.h"
#include "proxy/worker_status.h"
#include "tests/unit/check.h"

enum { WORKERS = 2, SERVERS = 2, GENERATION = 3, PID = 100 };

struct fixture {
    struct proxy_key_server servers[SERVERS];
    struct proxy_config config;
    struct proxy_setup setup;
    struct proxy_status status;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct failure why;
    fixture->servers[0].name = strdup("keys-a");
    fixture->servers[1].name = strdup("keys\nb");
    fixture->config = (struct proxy_config){
        .workers = WORKERS, .key_servers = fixture->servers, .key_server_count = SERVERS};
    fixture->setup.config = &fixture->config;
    fixture->status = (struct proxy_status){.setup = &fixture->setup, .generation = GENERATION};
    *state = fixture;
    if (process_status_new(&fixture->setup.program.processes, &why) != RESULT_OK)
        return -1;
    return status_area_new(worker_status_size(SERVERS), WORKERS, &fixture->setup.workers, &why) == RESULT_OK
               ? 0
               : -1;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    status_area_free(fixture->setup.program.processes);
    status_area_free(fixture->setup.workers);
    free(fixture->servers[0].name);
    free(fixture->servers[1].name);
    free(fixture);
    return 0;
}

/* As the master tells it: worker `index` has pid PID + index. */
static void tell_process(struct fixture *fixture, unsigned index, enum child_state state, unsigned generation)
{
    struct process_status status = {
        .kind = "worker", .index = index, .generation = generation, .pid = PID + index, .state = state};
    status_area_write(fixture->setup.program.processes, index, &status);
}

/* As a worker tells it. */
static void tell_worker(struct fixture *fixture, unsigned index, int64_t pid,
                        const struct key_server_status *first)
{
    union {
        struct worker_status status;
        uint8_t octets[sizeof(struct worker_status) + SERVERS * sizeof(struct key_server_status)];
    } record = {.status = {.pid = pid, .connections = 5, .pending = 2}};
    memcpy(&record.status.servers[0], first, sizeof *first);
    status_area_write(fixture->setup.workers, index, &record);
}

static void assert_readiness(const struct fixture *fixture, const char *why_not)
{
    struct evbuffer *text = evbuffer_new();
    assert_int_equal(proxy_status_ready(&fixture->status, text), why_not == NULL);
    (void)evbuffer_add(text, "", 1);
    assert_string_equal((const char *)evbuffer_pullup(text, -1), why_not != NULL ? why_not : "");
    evbuffer_free(text);
}

static const struct key_server_status UP = {.up = 1, .in_flight = 3, .latency = 1000};
static const struct key_server_status DOWN = {.failed = 7, .failure = "connection refused"};

#define NO_SERVER "no key server is up; keys-a: connection refused; keys\\x0ab: not reached yet"

static void test_readiness(void **state)
{
    struct fixture *fixture = *state;
    assert_readiness(fixture, "no worker is ready");
    tell_process(fixture, 0, CHILD_READY, GENERATION);
    assert_readiness(fixture, "no worker is ready"); /* it has told nothing yet */
    tell_worker(fixture, 0, PID, &DOWN);
    assert_readiness(fixture, NO_SERVER);
    tell_worker(fixture, 0, PID, &UP);
    assert_readiness(fixture, NULL);
    tell_process(fixture, 0, CHILD_STALLED, GENERATION);
    assert_readiness(fixture, "no worker is ready");
    tell_process(fixture, 0, CHILD_READY, GENERATION - 1); /* one that drains, or nearly */
    assert_readiness(fixture, "no worker is ready");
    tell_process(fixture, 0, CHILD_READY, GENERATION);
    tell_worker(fixture, 0, PID + 7, &UP); /* its predecessor's */
    assert_readiness(fixture, "no worker is ready");
    tell_worker(fixture, 0, PID, &DOWN);
    tell_process(fixture, 1, CHILD_READY, GENERATION);
    tell_worker(fixture, 1, PID + 1, &UP);
    assert_readiness(fixture, NULL);
}

/* A worker that was broken into says anything: it stays one line, and within bounds. */
static void test_nonsense(void **state)
{
    struct fixture *fixture = *state;
    struct key_server_status nonsense = {.failed = INT64_MAX};
    static char wanted[64 + 4 * KEY_SERVER_FAILURE_SIZE] = "no key server is up; keys-a: ";
    memset(nonsense.failure, '\n', sizeof nonsense.failure);
    for (size_t i = 1; i < sizeof nonsense.failure; i++)
        strcat(wanted, "\\x0a");
    strcat(wanted, "; keys\\x0ab: not reached yet");
    tell_process(fixture, 0, CHILD_READY, GENERATION);
    tell_worker(fixture, 0, PID, &nonsense);
    assert_readiness(fixture, wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_readiness, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nonsense, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
