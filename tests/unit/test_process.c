/* Masters and children at work: starting, reloading, replacing, ending. The program they run is
 * support/toy_program. */
#include "common/process_private.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <sys/wait.h>

#include "common/socket.h"
#include "tests/unit/check.h"
#include "tests/unit/support/toy_program.h"

/* ---- Starting and ending */

static void test_start(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 3;
    config.stores = 2;
    toy_start_well(toy, &config);
    assert_int_equal(toy_metric(toy, METRIC_CHILDREN), 5);
    for (unsigned i = 0; i < config.workers; i++)
        TOY_WAIT(toy, toy_visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, i)));
    for (unsigned i = 0; i < config.stores; i++) {
        int fd CLEANUP(socket_close) = toy_connect(toy, 0);
        struct toy_answer answer;
        assert_true(toy_ask(fd, i, &answer, TOY_ANSWER_MS));
        assert_int_equal(answer.store, toy_pid(toy, TOY_STORE, i));
        assert_int_equal(answer.generation, 1);
    }
    assert_true(toy_log_has(toy, "event=ready generation=1 children=5"));
    toy_end_well(toy);
    assert_int_equal(toy_metric(toy, METRIC_RESTARTED), 0);
}

/* Master and children tell each other what the program likes, and pass descriptors on: also over a reload,
 * and with a child that took another's place. */
static void test_words_of_the_program(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    for (unsigned round = 1; round <= 3; round++) {
        if (round == 2) {
            assert_int_equal(kill(toy->master, SIGHUP), 0);
            TOY_WAIT(toy, toy_log_has(toy, "event=reloaded generation=2"));
        }
        pid_t first = toy_pid(toy, TOY_WORKER, 0);
        if (round == 3) {
            assert_int_equal(kill(first, SIGKILL), 0);
            TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, 0) != first);
        }
        atomic_store(&toy->shared->say, round);
        for (unsigned i = 0; i < config.workers; i++)
            TOY_WAIT(toy, atomic_load(&toy->shared->heard[i]) == TOY_ANSWER + round);
    }
    toy_end_well(toy);
}

static void test_start_fails(void **state)
{
    static const struct {
        const char *name;
        enum toy_fault fault;
        int status;
        unsigned ready_ms; /* 0: as toy_config has it */
        const char *listen;
        const char *log;
    } ROWS[] = {
        {"load", TOY_LOAD_FAILS, 2, 0, "127.0.0.1:0", "reason=\"line 7 is odd\""},
        {"child", TOY_CHILD_FAILS, 2, 0, "127.0.0.1:0", "reason=\"worker/1: no such file\""},
        {"exit", TOY_CHILD_EXITS, 1, 0, "127.0.0.1:0",
         "reason=\"worker/1 exited with status 7 before it was ready\""},
        /* Time enough for all the others, on a busy machine. */
        {"never ready", TOY_NEVER_READY, 1, 1500, "127.0.0.1:0", "reason=\"worker/1 was not ready in time\""},
        {"not an address of ours", TOY_FINE, 1, 0, "192.0.2.1:0", "Cannot assign requested address"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        void *own;
        assert_int_equal(toy_setup(&own), 0);
        struct toy *toy = own;
        struct toy_config config = toy_config();
        config.stores = 2; /* links that a child which fails leaves unread */
        config.fault = ROWS[i].fault;
        config.ready_ms = ROWS[i].ready_ms != 0 ? ROWS[i].ready_ms : config.ready_ms;
        (void)snprintf(config.listen[0], sizeof config.listen[0], "%s", ROWS[i].listen);
        toy_start(toy, &config);
        int status = toy_wait_end(toy);
        CHECK(ROWS[i].name, status == ROWS[i].status);
        CHECK(ROWS[i].name, toy_log_has(toy, "event=\"start failed\""));
        CHECK(ROWS[i].name, toy_log_has(toy, ROWS[i].log));
        assert_int_equal(toy_teardown(&own), 0);
    }
}

/* The second SIGTERM shortens nothing, and SIGHUP starts nothing. */
static void test_terminate_drains(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.stores = 1;
    (void)snprintf(config.listen[1], sizeof config.listen[1], "unix:/tmp/toy-%d.sock", (int)getpid());
    toy_start_well(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    pid_t worker = toy_ask_pid(open);
    assert_int_not_equal(worker, 0);
    struct toy_answer answer;
    assert_true(toy_visit(toy, 1, &answer));

    toy_signal(toy, SIGTERM);
    TOY_WAIT(toy, toy_is_refused(toy, 0));
    assert_int_equal(access(config.listen[1] + strlen("unix:"), F_OK), -1);
    toy_signal(toy, SIGTERM);
    toy_signal(toy, SIGHUP);
    TOY_WAIT(toy, toy_log_has(toy, "still draining") && toy_log_has(toy, "reload refused"));
    assert_true(toy_ask(open, 0, &answer, TOY_ANSWER_MS));
    assert_int_equal(answer.pid, worker);
    /* The store goes on for as long as a worker may need it. */
    assert_int_equal(answer.store, toy_pid(toy, TOY_STORE, 0));
    socket_close(&open);
    assert_int_equal(toy_wait_end(toy), 0);
    assert_int_equal(toy_metric(toy, METRIC_RESTARTED), 0);
}

static void test_drain_timeout(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.drain_ms = 200;
    toy_start_well(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    assert_int_not_equal(toy_ask_pid(open), 0);
    toy_signal(toy, SIGTERM);
    assert_int_equal(toy_wait_end(toy), 0);
    assert_true(toy_log_has(toy, "drain_timeout has passed"));
    assert_int_equal(toy_ask_pid(open), 0);
}

static void test_quit(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    pid_t worker = toy_ask_pid(open);
    toy_signal(toy, SIGQUIT);
    assert_int_equal(toy_wait_end(toy), 0);
    assert_int_equal(toy_log_count(toy, "how=\"killed by signal 9 (Killed)\""), config.workers);
    assert_int_equal(kill(worker, 0), -1);
    assert_int_equal(toy_ask_pid(open), 0);
}

/* Children whose master was killed finish what they have, accept what was queued, and end. */
static void test_orphans(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.stores = 1;
    toy_start_well(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    pid_t worker = toy_ask_pid(open);
    struct toy_burst burst = toy_burst_open(toy, 0);
    uint64_t started = clock_now();
    toy_signal(toy, SIGKILL);
    assert_int_equal(waitpid(toy->master, NULL, 0), toy->master);
    toy_burst_finish(&burst, started);
    TOY_WAIT(toy, toy_is_refused(toy, 0));
    struct toy_answer answer;
    assert_true(toy_ask(open, 0, &answer, TOY_ANSWER_MS));
    assert_int_equal(answer.pid, worker);
    assert_int_equal(answer.store, toy_pid(toy, TOY_STORE, 0));

    socket_close(&open);
    for (unsigned ended = 0, status; ended < 3; ended++) {
        pid_t pid;
        TOY_WAIT(toy, (pid = waitpid(-1, (int *)&status, WNOHANG)) != 0);
        assert_true(pid > 0);
        assert_int_equal(status, 0);
    }
    toy->master = 0;
}

/* A service manager starts a new master as soon as the old one is dead: nobody must be in its way. */
static void test_master_returns(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    pid_t worker = toy_ask_pid(open);
    toy_signal(toy, SIGKILL);
    assert_int_equal(waitpid(toy->master, NULL, 0), toy->master);
    toy->master = 0;

    void *own;
    assert_int_equal(toy_setup(&own), 0);
    struct toy *next = own;
    (void)snprintf(config.listen[0], sizeof config.listen[0], "127.0.0.1:%u", toy->shared->ports[0]);
    toy_start_well(next, &config);
    struct toy_load *load = toy_load_start(next, 0);
    for (unsigned i = 0; i < config.workers; i++)
        TOY_WAIT(next, toy_visit_reaches(next, 0, toy_pid(next, TOY_WORKER, i)));
    assert_int_equal(toy_ask_pid(open), worker);
    toy_load_stop(load);
    toy_end_well(next);
    assert_int_equal(toy_teardown(&own), 0);
}

/* An address of another kind's: an admin endpoint, say. */
static void test_kinds_have_addresses(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.stores = 1;
    config.store_address = 1;
    (void)snprintf(config.listen[1], sizeof config.listen[1], "127.0.0.2:0");
    toy_start_well(toy, &config);
    for (unsigned i = 0; i < 2; i++) {
        pid_t store = toy_pid(toy, TOY_STORE, 0);
        for (unsigned visit = 0; visit < TOY_BURST; visit++) {
            assert_true(toy_visit_reaches(toy, 1, store));
            assert_false(toy_visit_reaches(toy, 0, store));
        }
        toy_stop_child(toy, store);
        struct toy_burst burst = toy_burst_open(toy, 1);
        assert_int_equal(kill(store, SIGKILL), 0);
        toy_burst_finish(&burst, clock_now());
    }
    toy_end_well(toy);
}

/* ---- Children that fail */

/* What is queued at the sockets of a worker that dies is answered by others, or by the one that replaces it.
 */
static void test_killed_worker(void **state)
{
    static const unsigned WORKERS[] = {3, 1};
    (void)state;
    for (unsigned row = 0; row < COUNT_OF(WORKERS); row++) {
        void *own;
        assert_int_equal(toy_setup(&own), 0);
        struct toy *toy = own;
        struct toy_config config = toy_config();
        config.workers = WORKERS[row];
        toy_start_well(toy, &config);
        for (unsigned i = 0; i < config.workers; i++) {
            pid_t worker = toy_pid(toy, TOY_WORKER, i);
            /* Stopped first, so that it cannot take one of them with it. */
            toy_stop_child(toy, worker);
            struct toy_burst burst = toy_burst_open(toy, 0);
            uint64_t started = clock_now();
            assert_int_equal(kill(worker, SIGKILL), 0);
            toy_burst_finish(&burst, started);
            TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, i) != worker);
            TOY_WAIT(toy, toy_visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, i)));
        }
        assert_int_equal(toy_metric(toy, METRIC_RESTARTED), config.workers);
        assert_true(toy_log_has(toy, "how=\"killed by signal 9 (Killed)\""));
        assert_false(toy_log_has(toy, "restarts later"));
        toy_end_well(toy);
        assert_int_equal(toy_teardown(&own), 0);
    }
}

static void test_restart_delay(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    for (unsigned i = 0; i < 3; i++) {
        pid_t worker = toy_pid(toy, TOY_WORKER, 0);
        assert_int_equal(kill(worker, SIGKILL), 0);
        TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, 0) != worker);
        TOY_WAIT(toy, toy_metric(toy, METRIC_RESTARTED) == i + 1 && toy_metric(toy, METRIC_CHILDREN) == 2);
    }
    assert_int_equal(toy_log_count(toy, "event=\"child restarts later\" child=worker/0 delay_ms=100"), 1);
    assert_int_equal(toy_log_count(toy, "event=\"child restarts later\" child=worker/0 delay_ms=200"), 1);
    toy_end_well(toy);
}

/* A line of this event tells of worker i. */
static bool log_tells_of_worker(const struct toy *toy, const char *event, unsigned i)
{
    char line[64];
    (void)snprintf(line, sizeof line, "event=\"%s\" child=worker/%u ", event, i);
    return toy_log_has(toy, line);
}

static void test_stopped_worker(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 3;
    toy_start_well(toy, &config);
    for (unsigned i = 0; i < config.workers; i++) {
        pid_t worker = toy_pid(toy, TOY_WORKER, i);
        toy_stop_child(toy, worker);
        struct toy_burst burst = toy_burst_open(toy, 0);
        toy_burst_finish(&burst, clock_now());
        TOY_WAIT(toy, log_tells_of_worker(toy, "child stalls", i));
        assert_int_equal(kill(worker, SIGCONT), 0);
        TOY_WAIT(toy, log_tells_of_worker(toy, "child goes on", i));
        TOY_WAIT(toy, toy_visit_reaches(toy, 0, worker));
    }
    assert_int_equal(toy_metric(toy, METRIC_RESTARTED), 0);
    toy_end_well(toy);
    /* On a busy machine one may have stalled that nobody stopped. */
    assert_true(toy_metric(toy, METRIC_STALLED) >= config.workers);
    assert_int_equal(toy_metric(toy, METRIC_STALLED), toy_log_count(toy, "event=\"child stalls\""));
}

static void test_stalled_worker_is_replaced(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.stall_ms = 600;
    toy_start_well(toy, &config);
    pid_t worker = toy_pid(toy, TOY_WORKER, 0);
    assert_int_equal(kill(worker, SIGSTOP), 0);
    TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, 0) != worker);
    assert_true(toy_log_has(toy, "event=\"child killed\" child=worker/0"));
    assert_true(toy_log_has(toy, "reason=\"no heartbeat\""));
    assert_int_equal(kill(worker, 0), -1);
    toy_end_well(toy);
}

/* SIGTERM to a child: a new one takes its place, it finishes its connections. */
static void test_terminated_worker(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 1;
    config.stores = 1;
    toy_start_well(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    pid_t worker = toy_ask_pid(open);
    struct toy_load *load = toy_load_start(toy, 0);
    assert_int_equal(kill(worker, SIGTERM), 0);
    TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, 0) != worker);
    TOY_WAIT(toy, toy_visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, 0)));
    assert_int_equal(toy_ask_pid(open), worker);
    assert_int_equal(toy_metric(toy, METRIC_CHILDREN), 3);
    socket_close(&open);
    toy_wait_children(toy, 2);
    toy_load_stop(load);
    assert_int_equal(toy_metric(toy, METRIC_RESTARTED), 0);
    toy_end_well(toy);
}

/* A child that somebody has taken over may say what it likes. */
static void test_nonsense(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.fault = TOY_NONSENSE;
    toy_start_well(toy, &config);
    TOY_WAIT(toy, toy_log_has(toy, "event=\"child sent nonsense\" child=worker/1"));
    TOY_WAIT(toy, toy_metric(toy, METRIC_RESTARTED) > 0);
    TOY_WAIT(toy, toy_visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, 0)));
    assert_false(toy_log_has(toy, "event=\"child sent nonsense\" child=worker/0"));
    toy_end_well(toy);
}

static bool worker_has_store(const struct toy *toy, pid_t worker, unsigned store)
{
    struct toy_answer answer;
    int fd CLEANUP(socket_close) = toy_connect(toy, 0);
    return fd >= 0 && toy_ask(fd, store, &answer, TOY_ANSWER_MS) && answer.pid == worker &&
           answer.store == toy_pid(toy, TOY_STORE, store);
}

static void test_links_return(void **state)
{
    static const enum toy_kind KILLED[] = {TOY_STORE, TOY_WORKER, TOY_STORE};
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.stores = 2;
    toy_start_well(toy, &config);
    for (unsigned i = 0; i < COUNT_OF(KILLED); i++) {
        pid_t killed = toy_pid(toy, KILLED[i], 0);
        assert_int_equal(kill(killed, SIGKILL), 0);
        TOY_WAIT(toy, toy_pid(toy, KILLED[i], 0) != killed);
        for (unsigned worker = 0; worker < config.workers; worker++)
            for (unsigned store = 0; store < config.stores; store++)
                TOY_WAIT(toy, worker_has_store(toy, toy_pid(toy, TOY_WORKER, worker), store));
    }
    toy_end_well(toy);
}

#define TOY_TEST(test) cmocka_unit_test_setup_teardown(test, toy_setup, toy_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_TEST(test_start),
        TOY_TEST(test_words_of_the_program),
        cmocka_unit_test(test_start_fails),
        TOY_TEST(test_terminate_drains),
        TOY_TEST(test_drain_timeout),
        TOY_TEST(test_quit),
        TOY_TEST(test_orphans),
        TOY_TEST(test_master_returns),
        TOY_TEST(test_kinds_have_addresses),
        cmocka_unit_test(test_killed_worker),
        TOY_TEST(test_restart_delay),
        TOY_TEST(test_stopped_worker),
        TOY_TEST(test_stalled_worker_is_replaced),
        TOY_TEST(test_terminated_worker),
        TOY_TEST(test_nonsense),
        TOY_TEST(test_links_return),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
