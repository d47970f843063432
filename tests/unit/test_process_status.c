/* What a master tells of its children in shared memory, while they come, stall, die and drain. */
#include "common/process_status.h"

#include <signal.h>
#include <stdio.h>
#include <time.h>

#include <event2/buffer.h>

#include "common/socket.h"
#include "tests/unit/check.h"
#include "tests/unit/support/toy_program.h"

static unsigned workers(const struct toy *toy, enum child_state state, unsigned generation)
{
    return process_status_count(toy->processes, "worker", state, generation);
}

static bool is_ready(const struct toy *toy, unsigned index, unsigned generation)
{
    return process_status_is_ready(toy->processes, "worker", index, generation,
                                   toy_pid(toy, TOY_WORKER, index));
}

static void test_states(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.stores = 1;
    assert_int_equal(workers(toy, CHILD_READY, 0), 0);
    toy->shared->hold = true;
    toy_start(toy, &config);
    TOY_WAIT(toy, workers(toy, CHILD_STARTING, 1) == 2);
    assert_int_equal(workers(toy, CHILD_READY, 0), 0);
    toy->shared->hold = false;
    toy_wait_generation(toy, 1);
    /* Told before the master says that it is ready. */
    assert_int_equal(workers(toy, CHILD_READY, 0), 2);
    assert_int_equal(workers(toy, CHILD_READY, 1), 2);
    assert_int_equal(workers(toy, CHILD_READY, 2), 0);
    assert_int_equal(process_status_count(toy->processes, "store", CHILD_READY, 1), 1);
    assert_true(is_ready(toy, 0, 1) && is_ready(toy, 1, 1));
    assert_false(process_status_is_ready(toy->processes, "worker", 0, 1, toy_pid(toy, TOY_WORKER, 1)));
    toy_end_well(toy);
    assert_int_equal(workers(toy, CHILD_READY, 0), 0);
}

static void test_stalled_and_killed(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    pid_t worker = toy_pid(toy, TOY_WORKER, 0);
    toy_stop_child(toy, worker);
    TOY_WAIT(toy, workers(toy, CHILD_STALLED, 1) == 1 && workers(toy, CHILD_READY, 1) == 1);
    assert_false(is_ready(toy, 0, 1));
    assert_int_equal(kill(worker, SIGCONT), 0);
    TOY_WAIT(toy, workers(toy, CHILD_READY, 1) == 2);
    assert_int_equal(kill(worker, SIGKILL), 0);
    TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, 0) != worker);
    TOY_WAIT(toy, is_ready(toy, 0, 1));
    assert_false(process_status_is_ready(toy->processes, "worker", 0, 1, worker));
    toy_end_well(toy);
}

/* The old generation has a connection to finish: it is seen draining beside the new one. */
static void test_reload(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    int fd CLEANUP(socket_close) = toy_connect(toy, 0);
    assert_int_not_equal(toy_ask_pid(fd), 0);
    toy_reload(toy, &config);
    toy_wait_generation(toy, 2);
    assert_int_equal(workers(toy, CHILD_READY, 2), 2);
    TOY_WAIT(toy, workers(toy, CHILD_DRAINING, 1) == 1 && workers(toy, CHILD_READY, 1) == 0);
    socket_close(&fd);
    TOY_WAIT(toy, workers(toy, CHILD_DRAINING, 0) == 0);
    toy_end_well(toy);
}

static void test_json(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    char wanted[128];
    config.workers = 1;
    toy_start_well(toy, &config);
    struct evbuffer *buffer = evbuffer_new();
    struct json json = json_to(buffer);
    process_status_write(toy->processes, &json);
    (void)evbuffer_add(buffer, "", 1);
    (void)snprintf(
        wanted, sizeof wanted,
        "\"processes\":[{\"kind\":\"worker\",\"index\":0,\"generation\":1,\"pid\":%d,\"state\":\"ready\","
        "\"since\":\"20",
        (int)toy_pid(toy, TOY_WORKER, 0));
    const char *written = (const char *)evbuffer_pullup(buffer, -1);
    assert_int_equal(strncmp(written, wanted, strlen(wanted)), 0);
    const char *end = "Z\",\"sandbox\":{\"system_calls\":false,\"landlock\":0}}]";
    assert_string_equal(written + strlen(written) - strlen(end), end);
    evbuffer_free(buffer);
    toy_end_well(toy);
}

/* With what was there before it was broken into, nothing is believed that could do harm. */
static void test_nonsense_in_the_area(void **state)
{
    (void)state;
    struct status_area *area = NULL;
    struct process_status status;
    struct failure why;
    assert_int_equal(process_status_new(&area, &why), RESULT_OK);
    memset(&status, 'x', sizeof status);
    status_area_write(area, 0, &status); /* no such state */
    status.state = CHILD_READY;
    status_area_write(area, 1, &status); /* a kind without an end */
    struct evbuffer *buffer = evbuffer_new();
    struct json json = json_to(buffer);
    process_status_write(area, &json);
    (void)evbuffer_add(buffer, "", 1);
    const char *expected = "\"processes\":[{\"kind\":\"xxxxxxxxxxxxxxxxxxxxxxx\",\"index\":2021161080,";
    assert_int_equal(strncmp((const char *)evbuffer_pullup(buffer, -1), expected, strlen(expected)), 0);
    evbuffer_free(buffer);
    status_area_free(area);
}

static void test_ticks(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    unsigned before = atomic_load(&toy->shared->ticks);
    TOY_WAIT(toy, atomic_load(&toy->shared->ticks) >= before + 6);
    toy_end_well(toy);
}

#define TOY_TEST(test) cmocka_unit_test_setup_teardown(test, toy_setup, toy_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_TEST(test_states), TOY_TEST(test_stalled_and_killed),
        TOY_TEST(test_reload), TOY_TEST(test_json),
        TOY_TEST(test_ticks),  cmocka_unit_test(test_nonsense_in_the_area),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
