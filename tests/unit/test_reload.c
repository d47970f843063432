/* New configurations while the program works. The program is support/toy_program. */
#include "common/process_private.h"

#include <signal.h>
#include <stdio.h>

#include <sys/socket.h>

#include "common/socket.h"
#include "tests/unit/check.h"
#include "tests/unit/support/toy_program.h"

static void test_reload_scales(void **state)
{
    static const unsigned WORKERS[] = {4, 1, 3};
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = WORKERS[0];
    toy_start_well(toy, &config);
    struct toy_load *load = toy_load_start(toy, 0);
    for (unsigned i = 1; i < COUNT_OF(WORKERS); i++) {
        config.workers = WORKERS[i];
        toy_reload_well(toy, &config, i + 1);
        toy_wait_children(toy, WORKERS[i]);
        for (unsigned worker = 0; worker < WORKERS[i]; worker++)
            TOY_WAIT(toy, toy_visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, worker)));
    }
    toy_load_stop(load);
    assert_int_equal(toy_metric(toy, METRIC_RELOAD_OK), 2);
    assert_int_equal(toy_metric(toy, METRIC_RESTARTED), 0);
    toy_end_well(toy);
}

/* An old generation goes on with its connections, and with its stores. */
static void test_reload_drains(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 1;
    config.stores = 1;
    toy_start_well(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    struct toy_answer before, after, other;
    assert_true(toy_ask(open, 0, &before, TOY_ANSWER_MS));
    toy_reload_well(toy, &config, 2);
    int new CLEANUP(socket_close) = toy_connect_to_generation(toy, 2);
    assert_true(toy_ask(new, 0, &other, TOY_ANSWER_MS));
    assert_int_not_equal(other.store, before.store);
    assert_true(toy_ask(open, 0, &after, TOY_ANSWER_MS));
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(toy_metric(toy, METRIC_CHILDREN), 4);
    socket_close(&open);
    socket_close(&new);
    toy_wait_children(toy, 2);
    TOY_WAIT(toy, toy_log_has(toy, "event=\"generation ended\" generation=1"));
    toy_end_well(toy);
}

/* What is superseded is told so, and only then; what drains already ends too. */
static void test_reload_supersedes(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 1;
    toy_start_well(toy, &config);
    int first CLEANUP(socket_close) = toy_connect(toy, 0);
    assert_int_not_equal(toy_ask_pid(first), 0);
    toy_reload_well(toy, &config, 2);
    assert_int_not_equal(toy_ask_pid(first), 0);
    int second CLEANUP(socket_close) = toy_connect_to_generation(toy, 2);
    config.supersedes = true;
    toy_reload_well(toy, &config, 3);
    TOY_WAIT(toy, toy_log_has(toy, "event=\"generation ended\" generation=2"));
    TOY_WAIT(toy, toy_log_has(toy, "event=\"generation ended\" generation=1"));
    assert_int_equal(toy_ask_pid(first), 0);
    assert_int_equal(toy_ask_pid(second), 0);
    socket_close(&first);
    toy_wait_children(toy, 1);
    toy_end_well(toy);
}

static void test_reload_fails(void **state)
{
    struct toy *toy = *state;
    struct address address;
    struct failure why;
    int taken CLEANUP(socket_close) = -1;
    assert_int_equal(address_parse("127.0.0.1:0", &address, &why), RESULT_OK);
    /* Even a stranger who would share the port is in the way. */
    struct socket_listen_options options = {.backlog = 8, .reuse_port = true};
    assert_int_equal(socket_listen(&address, &options, &taken, &why), RESULT_OK);
    address.size = sizeof address.storage;
    assert_int_equal(getsockname(taken, (struct sockaddr *)&address.storage, &address.size), 0);
    char occupied[ADDRESS_TEXT_SIZE];
    (void)address_format(&address, occupied);

    const struct {
        const char *name;
        enum toy_fault fault;
        unsigned workers;
        unsigned ready_ms;
        const char *second; /* address */
        const char *log;
    } rows[] = {
        {"load", TOY_LOAD_FAILS, 2, 60000, "", "kind=configuration reason=\"line 7 is odd\""},
        {"child", TOY_CHILD_FAILS, 2, 60000, "", "kind=configuration reason=\"worker/1: no such file\""},
        {"exit", TOY_CHILD_EXITS, 2, 60000, "",
         "kind=system reason=\"worker/1 exited with status 7 before it was ready\""},
        /* Time enough for the other one, on a busy machine. */
        {"slow", TOY_NEVER_READY, 2, 1500, "", "kind=system reason=\"worker/1 was not ready in time\""},
        {"taken", TOY_FINE, 2, 60000, occupied, "Address already in use"},
        {"twice", TOY_FINE, 2, 60000, "127.0.0.1:0", "listed twice"},
        {"nobody", TOY_FINE, 0, 60000, "", "asks for no processes"},
    };
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    for (unsigned i = 0; i < COUNT_OF(rows); i++) {
        struct toy_config bad = config;
        bad.fault = rows[i].fault;
        bad.workers = rows[i].workers;
        bad.ready_ms = rows[i].ready_ms;
        (void)snprintf(bad.listen[1], sizeof bad.listen[1], "%s", rows[i].second);
        struct toy_answer answer;
        toy_reload(toy, &bad);
        TOY_WAIT(toy, toy_metric(toy, METRIC_RELOAD_FAILED) == i + 1);
        CHECK(rows[i].name, toy_log_has(toy, rows[i].log));
        toy_wait_children(toy, 2);
        CHECK(rows[i].name, toy_metric(toy, METRIC_CURRENT) == 1);
        CHECK(rows[i].name, toy_visit(toy, 0, &answer) && answer.generation == 1);
    }
    assert_int_equal(toy_metric(toy, METRIC_RELOAD_OK), 0);
    unsigned tried = toy_log_count(toy, "generation ended") + 1;
    toy_reload_well(toy, &config, tried + 1);
    toy_end_well(toy);
}

/* Signals that come during a reload lead to one more, not to one each, and not to none. */
static void test_reloads_coalesce(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    atomic_store(&toy->shared->hold, true);
    toy_signal(toy, SIGHUP);
    TOY_WAIT(toy, toy_metric(toy, METRIC_CHILDREN) == 4);
    for (unsigned i = 0; i < 3; i++) {
        toy_signal(toy, SIGHUP);
        TOY_WAIT(toy, toy_log_count(toy, "reload waits") == i + 1);
    }
    atomic_store(&toy->shared->hold, false);
    toy_wait_generation(toy, 3);
    toy_wait_children(toy, 2);
    assert_int_equal(toy_metric(toy, METRIC_RELOAD_OK), 2);
    toy_reload_well(toy, &config, 4);
    assert_int_equal(toy_metric(toy, METRIC_RELOAD_OK), 3);
    toy_end_well(toy);
}

static void test_draining_is_bounded(void **state)
{
    int open[DRAINING_MAX + 1];
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 1;
    toy_start_well(toy, &config);
    for (unsigned i = 0; i < COUNT_OF(open); i++) {
        open[i] = toy_connect_to_generation(toy, i + 1);
        toy_reload_well(toy, &config, i + 2);
    }
    toy_wait_children(toy, DRAINING_MAX + 1);
    assert_int_equal(toy_ask_pid(open[0]), 0);
    for (unsigned i = 1; i < COUNT_OF(open); i++)
        assert_int_not_equal(toy_ask_pid(open[i]), 0);
    for (unsigned i = 0; i < COUNT_OF(open); i++)
        socket_close(&open[i]);
    toy_end_well(toy);
}

/* An address comes and another goes; what was queued on the one that goes is still answered. */
static void test_addresses_change(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 1;
    toy_start_well(toy, &config);
    struct toy_config both = config;
    (void)snprintf(both.listen[1], sizeof both.listen[1], "127.0.0.2:0");
    toy_reload_well(toy, &both, 2);
    toy_wait_children(toy, 1);
    struct toy_answer answer;
    assert_true(toy_visit(toy, 0, &answer) && toy_visit(toy, 1, &answer));

    pid_t old = toy_pid(toy, TOY_WORKER, 0);
    unsigned port = toy->shared->ports[0];
    toy_stop_child(toy, old);
    struct toy_burst burst = toy_burst_open(toy, 0);
    struct toy_config second = config;
    (void)snprintf(second.listen[0], sizeof second.listen[0], "127.0.0.2:0");
    toy_reload_well(toy, &second, 3);
    assert_true(toy_visit(toy, 0, &answer));
    assert_int_equal(answer.generation, 3);
    assert_int_equal(kill(old, SIGCONT), 0);
    toy_burst_finish(&burst, clock_now());
    toy_wait_children(toy, 1);
    toy->shared->config.listen[0][8] = '1';
    toy->shared->ports[0] = port;
    assert_int_equal(toy_connect(toy, 0), -1);
    toy_end_well(toy);
}

#define TOY_TEST(test) cmocka_unit_test_setup_teardown(test, toy_setup, toy_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_TEST(test_reload_scales),    TOY_TEST(test_reload_drains),    TOY_TEST(test_reload_supersedes),
        TOY_TEST(test_reload_fails),     TOY_TEST(test_reloads_coalesce), TOY_TEST(test_draining_is_bounded),
        TOY_TEST(test_addresses_change),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
