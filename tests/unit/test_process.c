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

enum { BURST = 24, PATIENCE = 1000000 };

/* ---- Steps that many tests take */

static void wait_generation(const struct toy *toy, unsigned number)
{
    TOY_WAIT(toy, toy_metric(toy, METRIC_CURRENT) == number);
}

static void wait_children(const struct toy *toy, unsigned number)
{
    TOY_WAIT(toy, toy_metric(toy, METRIC_CHILDREN) == number);
}

static void start(struct toy *toy, const struct toy_config *config)
{
    toy_start(toy, config);
    wait_generation(toy, 1);
}

static void reload(struct toy *toy, const struct toy_config *config, unsigned number)
{
    toy_reload(toy, config);
    wait_generation(toy, number);
}

static void end(struct toy *toy)
{
    toy_signal(toy, SIGTERM);
    assert_int_equal(toy_wait_end(toy), 0);
    assert_true(toy_log_has(toy, "event=ended status=0"));
    assert_int_equal(toy_metric(toy, METRIC_CHILDREN), 0);
}

static pid_t ask_pid(int fd)
{
    struct toy_answer answer = {0};
    return toy_ask(fd, 0, &answer, 2000) ? answer.pid : 0;
}

static bool is_refused(const struct toy *toy, unsigned address)
{
    int fd CLEANUP(socket_close) = toy_connect(toy, address);
    return fd < 0;
}

/* A connection that generation number has: just after a reload the one before may still accept. */
static int connect_to_generation(const struct toy *toy, unsigned number)
{
    struct toy_answer answer;
    int fd = -1;
    TOY_WAIT(toy, (socket_close(&fd), (fd = toy_connect(toy, 0)) >= 0) && toy_ask(fd, 0, &answer, 1000) &&
                      answer.generation == number);
    return fd;
}

static bool visit_reaches(const struct toy *toy, unsigned address, pid_t pid)
{
    struct toy_answer answer;
    return toy_visit(toy, address, &answer) && answer.pid == pid;
}

/* Connections that wait to be accepted, spread by the kernel over all listening sockets of the address. */
struct burst {
    int fds[BURST];
};

static struct burst burst_open(const struct toy *toy, unsigned address)
{
    struct burst burst;
    for (unsigned i = 0; i < BURST; i++)
        assert_true((burst.fds[i] = toy_connect(toy, address)) >= 0);
    return burst;
}

/* All of them are answered before the time that is left of PATIENCE since started has passed. */
static void burst_finish(struct burst *burst, uint64_t started)
{
    for (unsigned i = 0; i < BURST; i++) {
        assert_int_not_equal(ask_pid(burst->fds[i]), 0);
        socket_close(&burst->fds[i]);
    }
    assert_in_range(clock_now() - started, 0, PATIENCE);
}

/* ---- Starting and ending */

static void test_start(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 3;
    config.stores = 2;
    start(toy, &config);
    assert_int_equal(toy_metric(toy, METRIC_CHILDREN), 5);
    for (unsigned i = 0; i < config.workers; i++)
        TOY_WAIT(toy, visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, i)));
    for (unsigned i = 0; i < config.stores; i++) {
        int fd CLEANUP(socket_close) = toy_connect(toy, 0);
        struct toy_answer answer;
        assert_true(toy_ask(fd, i, &answer, 1000));
        assert_int_equal(answer.store, toy_pid(toy, TOY_STORE, i));
        assert_int_equal(answer.generation, 1);
    }
    assert_true(toy_log_has(toy, "event=ready generation=1 children=5"));
    end(toy);
    assert_int_equal(toy_metric(toy, METRIC_RESTARTED), 0);
}

static void test_start_fails(void **state)
{
    static const struct {
        const char *name;
        enum toy_fault fault;
        const char *listen;
        int status;
        const char *log;
    } ROWS[] = {
        {"load", TOY_LOAD_FAILS, "127.0.0.1:0", 2, "reason=\"line 7 is odd\""},
        {"child", TOY_CHILD_FAILS, "127.0.0.1:0", 2, "reason=\"worker/1: no such file\""},
        {"exit", TOY_CHILD_EXITS, "127.0.0.1:0", 1,
         "reason=\"worker/1 exited with status 7 before it was ready\""},
        {"never ready", TOY_NEVER_READY, "127.0.0.1:0", 1, "reason=\"worker/1 was not ready in time\""},
        {"not an address of ours", TOY_FINE, "192.0.2.1:0", 1, "Cannot assign requested address"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        void *own;
        assert_int_equal(toy_setup(&own), 0);
        struct toy *toy = own;
        struct toy_config config = toy_config();
        config.fault = ROWS[i].fault;
        config.ready_ms = 400;
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
    start(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    pid_t worker = ask_pid(open);
    assert_int_not_equal(worker, 0);
    struct toy_answer answer;
    assert_true(toy_visit(toy, 1, &answer));

    toy_signal(toy, SIGTERM);
    TOY_WAIT(toy, is_refused(toy, 0));
    assert_int_equal(access(config.listen[1] + strlen("unix:"), F_OK), -1);
    toy_signal(toy, SIGTERM);
    toy_signal(toy, SIGHUP);
    TOY_WAIT(toy, toy_log_has(toy, "still draining") && toy_log_has(toy, "reload refused"));
    assert_true(toy_ask(open, 0, &answer, 1000));
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
    start(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    assert_int_not_equal(ask_pid(open), 0);
    toy_signal(toy, SIGTERM);
    assert_int_equal(toy_wait_end(toy), 0);
    assert_true(toy_log_has(toy, "drain_timeout has passed"));
    assert_int_equal(ask_pid(open), 0);
}

static void test_quit(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    start(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    pid_t worker = ask_pid(open);
    uint64_t started = clock_now();
    toy_signal(toy, SIGQUIT);
    assert_int_equal(toy_wait_end(toy), 0);
    assert_in_range(clock_now() - started, 0, PATIENCE);
    assert_int_equal(kill(worker, 0), -1);
    assert_int_equal(ask_pid(open), 0);
}

/* Children whose master was killed finish what they have, accept what was queued, and end. */
static void test_orphans(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.stores = 1;
    start(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    pid_t worker = ask_pid(open);
    struct burst burst = burst_open(toy, 0);
    uint64_t started = clock_now();
    toy_signal(toy, SIGKILL);
    assert_int_equal(waitpid(toy->master, NULL, 0), toy->master);
    burst_finish(&burst, started);
    TOY_WAIT(toy, is_refused(toy, 0));
    struct toy_answer answer;
    assert_true(toy_ask(open, 0, &answer, 1000));
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

/* ---- Reload */

static void test_reload_scales(void **state)
{
    static const unsigned WORKERS[] = {4, 1, 3};
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = WORKERS[0];
    start(toy, &config);
    struct toy_load *load = toy_load_start(toy, 0);
    for (unsigned i = 1; i < COUNT_OF(WORKERS); i++) {
        config.workers = WORKERS[i];
        reload(toy, &config, i + 1);
        wait_children(toy, WORKERS[i]);
        for (unsigned worker = 0; worker < WORKERS[i]; worker++)
            TOY_WAIT(toy, visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, worker)));
    }
    unsigned visits, failures;
    uint64_t longest;
    toy_load_stop(load, &visits, &failures, &longest);
    assert_int_equal(failures, 0);
    assert_in_range(longest, 0, PATIENCE);
    assert_true(visits > 20);
    assert_int_equal(toy_metric(toy, METRIC_RELOAD_OK), 2);
    assert_int_equal(toy_metric(toy, METRIC_RESTARTED), 0);
    end(toy);
}

/* An old generation goes on with its connections, and with its stores. */
static void test_reload_drains(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 1;
    config.stores = 1;
    start(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    struct toy_answer before, after, other;
    assert_true(toy_ask(open, 0, &before, 1000));
    reload(toy, &config, 2);
    int new CLEANUP(socket_close) = connect_to_generation(toy, 2);
    assert_true(toy_ask(new, 0, &other, 1000));
    assert_int_not_equal(other.store, before.store);
    assert_true(toy_ask(open, 0, &after, 1000));
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(toy_metric(toy, METRIC_CHILDREN), 4);
    socket_close(&open);
    socket_close(&new);
    wait_children(toy, 2);
    TOY_WAIT(toy, toy_log_has(toy, "event=\"generation ended\" generation=1"));
    end(toy);
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
        const char *second; /* address */
        const char *log;
    } rows[] = {
        {"load", TOY_LOAD_FAILS, 2, "", "kind=configuration reason=\"line 7 is odd\""},
        {"child", TOY_CHILD_FAILS, 2, "", "kind=configuration reason=\"worker/1: no such file\""},
        {"exit", TOY_CHILD_EXITS, 2, "",
         "kind=system reason=\"worker/1 exited with status 7 before it was ready\""},
        {"slow", TOY_NEVER_READY, 2, "", "kind=system reason=\"worker/1 was not ready in time\""},
        {"taken", TOY_FINE, 2, occupied, "Address already in use"},
        {"twice", TOY_FINE, 2, "127.0.0.1:0", "listed twice"},
        {"nobody", TOY_FINE, 0, "", "asks for no processes"},
    };
    struct toy_config config = toy_config();
    config.ready_ms = 1500;
    start(toy, &config);
    for (unsigned i = 0; i < COUNT_OF(rows); i++) {
        struct toy_config bad = config;
        bad.fault = rows[i].fault;
        bad.workers = rows[i].workers;
        bad.ready_ms = 300;
        (void)snprintf(bad.listen[1], sizeof bad.listen[1], "%s", rows[i].second);
        struct toy_answer answer;
        toy_reload(toy, &bad);
        TOY_WAIT(toy, toy_metric(toy, METRIC_RELOAD_FAILED) == i + 1);
        CHECK(rows[i].name, toy_log_has(toy, rows[i].log));
        wait_children(toy, 2);
        CHECK(rows[i].name, toy_metric(toy, METRIC_CURRENT) == 1);
        CHECK(rows[i].name, toy_visit(toy, 0, &answer) && answer.generation == 1);
    }
    assert_int_equal(toy_metric(toy, METRIC_RELOAD_OK), 0);
    unsigned tried = toy_log_count(toy, "generation ended") + 1;
    reload(toy, &config, tried + 1);
    end(toy);
}

/* Signals that come during a reload lead to one more, not to one each, and not to none. */
static void test_reloads_coalesce(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    start(toy, &config);
    atomic_store(&toy->shared->hold, true);
    toy_signal(toy, SIGHUP);
    TOY_WAIT(toy, toy_metric(toy, METRIC_CHILDREN) == 4);
    for (unsigned i = 0; i < 3; i++)
        toy_signal(toy, SIGHUP);
    atomic_store(&toy->shared->hold, false);
    wait_generation(toy, 3);
    wait_children(toy, 2);
    assert_int_equal(toy_metric(toy, METRIC_RELOAD_OK), 2);
    reload(toy, &config, 4);
    assert_int_equal(toy_metric(toy, METRIC_RELOAD_OK), 3);
    end(toy);
}

static void test_draining_is_bounded(void **state)
{
    int open[DRAINING_MAX + 1];
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 1;
    start(toy, &config);
    for (unsigned i = 0; i < COUNT_OF(open); i++) {
        open[i] = connect_to_generation(toy, i + 1);
        reload(toy, &config, i + 2);
    }
    wait_children(toy, DRAINING_MAX + 1);
    assert_int_equal(ask_pid(open[0]), 0);
    for (unsigned i = 1; i < COUNT_OF(open); i++)
        assert_int_not_equal(ask_pid(open[i]), 0);
    for (unsigned i = 0; i < COUNT_OF(open); i++)
        socket_close(&open[i]);
    end(toy);
}

/* An address comes and another goes; what was queued on the one that goes is still answered. */
static void test_addresses_change(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 1;
    start(toy, &config);
    struct toy_config both = config;
    (void)snprintf(both.listen[1], sizeof both.listen[1], "127.0.0.2:0");
    reload(toy, &both, 2);
    wait_children(toy, 1);
    struct toy_answer answer;
    assert_true(toy_visit(toy, 0, &answer) && toy_visit(toy, 1, &answer));

    pid_t old = toy_pid(toy, TOY_WORKER, 0);
    unsigned port = toy->shared->ports[0];
    assert_int_equal(kill(old, SIGSTOP), 0);
    TOY_WAIT(toy, toy_is_stopped(old));
    struct burst burst = burst_open(toy, 0);
    struct toy_config second = config;
    (void)snprintf(second.listen[0], sizeof second.listen[0], "127.0.0.2:0");
    reload(toy, &second, 3);
    assert_true(toy_visit(toy, 0, &answer));
    assert_int_equal(answer.generation, 3);
    assert_int_equal(kill(old, SIGCONT), 0);
    burst_finish(&burst, clock_now());
    wait_children(toy, 1);
    toy->shared->config.listen[0][8] = '1';
    toy->shared->ports[0] = port;
    assert_int_equal(toy_connect(toy, 0), -1);
    end(toy);
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
        start(toy, &config);
        for (unsigned i = 0; i < config.workers; i++) {
            pid_t worker = toy_pid(toy, TOY_WORKER, i);
            /* Stopped first, so that it cannot take one of them with it. */
            assert_int_equal(kill(worker, SIGSTOP), 0);
            TOY_WAIT(toy, toy_is_stopped(worker));
            struct burst burst = burst_open(toy, 0);
            uint64_t started = clock_now();
            assert_int_equal(kill(worker, SIGKILL), 0);
            burst_finish(&burst, started);
            TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, i) != worker);
            TOY_WAIT(toy, visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, i)));
        }
        assert_int_equal(toy_metric(toy, METRIC_RESTARTED), config.workers);
        assert_true(toy_log_has(toy, "how=\"killed by signal 9 (Killed)\""));
        assert_false(toy_log_has(toy, "restarts later"));
        end(toy);
        assert_int_equal(toy_teardown(&own), 0);
    }
}

static void test_restart_delay(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    start(toy, &config);
    for (unsigned i = 0; i < 3; i++) {
        pid_t worker = toy_pid(toy, TOY_WORKER, 0);
        assert_int_equal(kill(worker, SIGKILL), 0);
        TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, 0) != worker);
        TOY_WAIT(toy, toy_metric(toy, METRIC_RESTARTED) == i + 1 && toy_metric(toy, METRIC_CHILDREN) == 2);
    }
    assert_int_equal(toy_log_count(toy, "event=\"child restarts later\" child=worker/0 delay_ms=100"), 1);
    assert_int_equal(toy_log_count(toy, "event=\"child restarts later\" child=worker/0 delay_ms=200"), 1);
    end(toy);
}

static void test_stopped_worker(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 3;
    start(toy, &config);
    for (unsigned i = 0; i < config.workers; i++) {
        pid_t worker = toy_pid(toy, TOY_WORKER, i);
        assert_int_equal(kill(worker, SIGSTOP), 0);
        TOY_WAIT(toy, toy_is_stopped(worker));
        struct burst burst = burst_open(toy, 0);
        burst_finish(&burst, clock_now());
        TOY_WAIT(toy, toy_metric(toy, METRIC_STALLED) == i + 1);
        assert_int_equal(kill(worker, SIGCONT), 0);
        TOY_WAIT(toy, toy_log_count(toy, "event=\"child goes on\"") == i + 1);
        TOY_WAIT(toy, visit_reaches(toy, 0, worker));
    }
    assert_int_equal(toy_metric(toy, METRIC_RESTARTED), 0);
    end(toy);
}

static void test_stalled_worker_is_replaced(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.stall_ms = 600;
    start(toy, &config);
    pid_t worker = toy_pid(toy, TOY_WORKER, 0);
    assert_int_equal(kill(worker, SIGSTOP), 0);
    TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, 0) != worker);
    assert_true(toy_log_has(toy, "event=\"child killed\" child=worker/0"));
    assert_true(toy_log_has(toy, "reason=\"no heartbeat\""));
    assert_int_equal(kill(worker, 0), -1);
    end(toy);
}

/* SIGTERM to a child: a new one takes its place, it finishes its connections. */
static void test_terminated_worker(void **state)
{
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.workers = 1;
    config.stores = 1;
    start(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    pid_t worker = ask_pid(open);
    struct toy_load *load = toy_load_start(toy, 0);
    assert_int_equal(kill(worker, SIGTERM), 0);
    TOY_WAIT(toy, toy_pid(toy, TOY_WORKER, 0) != worker);
    TOY_WAIT(toy, visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, 0)));
    assert_int_equal(ask_pid(open), worker);
    assert_int_equal(toy_metric(toy, METRIC_CHILDREN), 3);
    socket_close(&open);
    wait_children(toy, 2);
    unsigned visits, failures;
    uint64_t longest;
    toy_load_stop(load, &visits, &failures, &longest);
    assert_int_equal(failures, 0);
    assert_in_range(longest, 0, PATIENCE);
    assert_int_equal(toy_metric(toy, METRIC_RESTARTED), 0);
    end(toy);
}

static bool worker_has_store(const struct toy *toy, pid_t worker, unsigned store)
{
    struct toy_answer answer;
    int fd CLEANUP(socket_close) = toy_connect(toy, 0);
    return fd >= 0 && toy_ask(fd, store, &answer, 1000) && answer.pid == worker &&
           answer.store == toy_pid(toy, TOY_STORE, store);
}

static void test_links_return(void **state)
{
    static const enum toy_kind KILLED[] = {TOY_STORE, TOY_WORKER, TOY_STORE};
    struct toy *toy = *state;
    struct toy_config config = toy_config();
    config.stores = 2;
    start(toy, &config);
    for (unsigned i = 0; i < COUNT_OF(KILLED); i++) {
        pid_t killed = toy_pid(toy, KILLED[i], 0);
        assert_int_equal(kill(killed, SIGKILL), 0);
        TOY_WAIT(toy, toy_pid(toy, KILLED[i], 0) != killed);
        for (unsigned worker = 0; worker < config.workers; worker++)
            for (unsigned store = 0; store < config.stores; store++)
                TOY_WAIT(toy, worker_has_store(toy, toy_pid(toy, TOY_WORKER, worker), store));
    }
    end(toy);
}

/* ---- Parts */

/* A machine that was stopped for an hour: nobody is blamed. */
static void test_clock_ignores_pauses(void **state)
{
    (void)state;
    struct master master = {.clock_read = clock_now(), .clock = 1};
    uint64_t before = master_now(&master);
    master.clock_read -= 3600ull * SECOND;
    assert_int_equal(master_now(&master) - before, MASTER_CLOCK_STEP);
    master.clock_read -= 10 * MILLISECOND;
    assert_in_range(master_now(&master) - before - MASTER_CLOCK_STEP, 10 * MILLISECOND, MASTER_CLOCK_STEP);
}

#define TOY_TEST(test) cmocka_unit_test_setup_teardown(test, toy_setup, toy_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TOY_TEST(test_start),
        cmocka_unit_test(test_start_fails),
        TOY_TEST(test_terminate_drains),
        TOY_TEST(test_drain_timeout),
        TOY_TEST(test_quit),
        TOY_TEST(test_orphans),
        TOY_TEST(test_reload_scales),
        TOY_TEST(test_reload_drains),
        TOY_TEST(test_reload_fails),
        TOY_TEST(test_reloads_coalesce),
        TOY_TEST(test_draining_is_bounded),
        TOY_TEST(test_addresses_change),
        cmocka_unit_test(test_killed_worker),
        TOY_TEST(test_restart_delay),
        TOY_TEST(test_stopped_worker),
        TOY_TEST(test_stalled_worker_is_replaced),
        TOY_TEST(test_terminated_worker),
        TOY_TEST(test_links_return),
        cmocka_unit_test(test_clock_ignores_pauses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
