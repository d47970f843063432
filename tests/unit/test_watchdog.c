/* What the service manager hears of a master: that it is ready, reloads and ends, and that all is well, while
 * and only while that is so. The program is support/toy_program, the manager is the test. */
#include "common/process_private.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <sys/socket.h>
#include <sys/un.h>

#include "common/socket.h"
#include "tests/unit/check.h"
#include "tests/unit/support/toy_program.h"

/* The manager's patience, and how long the test waits for a word of the program's. */
enum { INTERVAL_MS = 1200, WORD_MS = 20000 };

struct scene {
    struct toy *toy;
    int manager;
    char path[64];
};

static int scene_setup(void **state)
{
    struct scene *scene = calloc(1, sizeof *scene);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char interval[32];
    void *toy;
    if (scene == NULL || toy_setup(&toy) != 0)
        return -1;
    scene->toy = toy;
    (void)snprintf(scene->path, sizeof scene->path, "/tmp/watchdog-%d.sock", (int)getpid());
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", scene->path);
    (void)snprintf(interval, sizeof interval, "%d", INTERVAL_MS * MILLISECOND);
    scene->manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    *state = scene;
    return bind(scene->manager, (const struct sockaddr *)&address, sizeof address) |
           setenv("NOTIFY_SOCKET", scene->path, 1) | setenv("WATCHDOG_USEC", interval, 1);
}

static int scene_teardown(void **state)
{
    struct scene *scene = *state;
    void *toy = scene->toy;
    int failed = toy_teardown(&toy);
    socket_close(&scene->manager);
    failed |= unlink(scene->path);
    free(scene);
    return failed;
}

/* Whether a word with this in it comes within the time; what comes before it is forgotten. */
static bool hears(const struct scene *scene, const char *part, unsigned patience_ms)
{
    uint64_t give_up = clock_now() + patience_ms * (uint64_t)MILLISECOND;
    for (uint64_t now = clock_now(); now < give_up; now = clock_now()) {
        char word[1024] = "";
        struct pollfd came = {.fd = scene->manager, .events = POLLIN};
        if (poll(&came, 1, (int)((give_up - now) / MILLISECOND) + 1) == 1 &&
            recv(scene->manager, word, sizeof word - 1, MSG_DONTWAIT) > 0 && strstr(word, part) != NULL)
            return true;
    }
    return false;
}

static void forget_words(const struct scene *scene)
{
    char word[1024];
    while (recv(scene->manager, word, sizeof word, MSG_DONTWAIT) > 0)
        continue;
}

/* From now on: a sign that was on its way does not count. */
static bool is_fed(const struct scene *scene)
{
    forget_words(scene);
    return hears(scene, "WATCHDOG=1", WORD_MS);
}

/* For twice as long as the manager waits. */
static bool starves(const struct scene *scene)
{
    forget_words(scene);
    return !hears(scene, "WATCHDOG=1", 2 * INTERVAL_MS);
}

/* ---- Tests */

static void test_words(void **state)
{
    struct scene *scene = *state;
    struct toy_config config = toy_config();
    toy_start_well(scene->toy, &config);
    assert_true(hears(scene, "READY=1\n", WORD_MS));
    forget_words(scene);
    toy_reload_well(scene->toy, &config, 2);
    assert_true(hears(scene, "RELOADING=1\nMONOTONIC_USEC=", WORD_MS));
    assert_true(hears(scene, "STATUS=generation 2, 2 children\n", WORD_MS));
    config.fault = TOY_LOAD_FAILS;
    toy_reload(scene->toy, &config);
    assert_true(hears(scene, "RELOADING=1\n", WORD_MS));
    assert_true(hears(scene, "STATUS=generation 2 goes on, a reload has failed: line 7 is odd\n", WORD_MS));
    toy_end_well(scene->toy);
    assert_true(hears(scene, "STOPPING=1\n", WORD_MS));
}

/* Before half of the manager's patience is over, and not all the time. */
static void test_rhythm(void **state)
{
    enum { SIGNS = 4 };
    struct scene *scene = *state;
    struct toy_config config = toy_config();
    toy_start_well(scene->toy, &config);
    assert_true(is_fed(scene));
    uint64_t first = clock_now();
    for (unsigned i = 0; i < SIGNS; i++)
        assert_true(hears(scene, "WATCHDOG=1", WORD_MS));
    uint64_t period = (clock_now() - first) / SIGNS;
    assert_in_range(period, INTERVAL_MS * MILLISECOND / 4, INTERVAL_MS * MILLISECOND / 2);
    toy_end_well(scene->toy);
}

/* One that hangs has others beside it; when all of a kind do, nobody does the work. */
static void test_hung_children(void **state)
{
    static const enum toy_kind KINDS[] = {TOY_WORKER, TOY_STORE};
    static const char *const LINES[] = {"event=\"watchdog starves\" kind=worker",
                                        "event=\"watchdog starves\" kind=store"};
    struct scene *scene = *state;
    struct toy *toy = scene->toy;
    struct toy_config config = toy_config();
    config.stores = 2;
    toy_start_well(toy, &config);
    for (unsigned i = 0; i < COUNT_OF(KINDS); i++) {
        toy_stop_child(toy, toy_pid(toy, KINDS[i], 0));
        TOY_WAIT(toy, toy_log_count(toy, "event=\"child stalls\"") == 2 * i + 1);
        assert_true(is_fed(scene));
        toy_stop_child(toy, toy_pid(toy, KINDS[i], 1));
        TOY_WAIT(toy, toy_log_has(toy, LINES[i]));
        assert_true(starves(scene));
        for (unsigned child = 0; child < 2; child++)
            assert_int_equal(kill(toy_pid(toy, KINDS[i], child), SIGCONT), 0);
        assert_true(is_fed(scene));
        TOY_WAIT(toy, toy_log_count(toy, "event=\"child goes on\"") == 2 * i + 2);
        assert_int_equal(toy_log_count(toy, LINES[i]), 1);
    }
    toy_end_well(toy);
}

/* A configuration that takes its time to come up, and one that takes its time to end, are no reason to be
 * killed. */
static void test_reload_and_drain(void **state)
{
    struct scene *scene = *state;
    struct toy *toy = scene->toy;
    struct toy_config config = toy_config();
    toy_start_well(toy, &config);
    int open CLEANUP(socket_close) = toy_connect(toy, 0);
    assert_int_not_equal(toy_ask_pid(open), 0);
    atomic_store(&toy->shared->hold, true);
    toy_signal(toy, SIGHUP);
    toy_wait_children(toy, 4);
    for (unsigned i = 0; i < 3; i++)
        assert_true(is_fed(scene));
    atomic_store(&toy->shared->hold, false);
    toy_wait_generation(toy, 2);
    toy_wait_children(toy, 3);
    assert_true(is_fed(scene));
    toy_signal(toy, SIGTERM);
    assert_true(hears(scene, "STOPPING=1", WORD_MS));
    for (unsigned i = 0; i < 3; i++)
        assert_true(is_fed(scene));
    assert_int_not_equal(toy_ask_pid(open), 0);
    socket_close(&open);
    assert_int_equal(toy_wait_end(toy), 0);
}

/* The only worker dies. Its successor is waited for as long as any child may take, and no longer. */
static void test_replacement(void **state)
{
    struct scene *scene = *state;
    struct toy *toy = scene->toy;
    struct toy_config config = toy_config();
    config.workers = 1;
    config.ready_ms = 3 * INTERVAL_MS;
    toy_start_well(toy, &config);
    pid_t worker = toy_pid(toy, TOY_WORKER, 0);
    atomic_store(&toy->shared->hold, true);
    assert_int_equal(kill(worker, SIGKILL), 0);
    TOY_WAIT(toy, toy_metric(toy, METRIC_RESTARTED) == 1);
    assert_true(is_fed(scene));
    assert_false(toy_log_has(toy, "watchdog starves"));
    TOY_WAIT(toy, toy_log_has(toy, "event=\"watchdog starves\" kind=worker"));
    assert_true(starves(scene));
    atomic_store(&toy->shared->hold, false);
    assert_true(is_fed(scene));
    TOY_WAIT(toy, toy_visit_reaches(toy, 0, toy_pid(toy, TOY_WORKER, 0)));
    toy_end_well(toy);
}

/* A worker that is told to drain still works; its successor may take its time. */
static void test_worker_leaves(void **state)
{
    struct scene *scene = *state;
    struct toy *toy = scene->toy;
    struct toy_config config = toy_config();
    config.workers = 1;
    toy_start_well(toy, &config);
    atomic_store(&toy->shared->hold, true);
    assert_int_equal(kill(toy_pid(toy, TOY_WORKER, 0), SIGTERM), 0);
    toy_wait_children(toy, 2);
    for (unsigned i = 0; i < 3; i++)
        assert_true(is_fed(scene));
    atomic_store(&toy->shared->hold, false);
    toy_wait_children(toy, 1);
    assert_true(is_fed(scene));
    toy_end_well(toy);
}

/* Nobody has asked. */
static void test_no_watchdog(void **state)
{
    struct scene *scene = *state;
    struct toy_config config = toy_config();
    assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
    toy_start_well(scene->toy, &config);
    assert_true(starves(scene));
    assert_false(toy_log_has(scene->toy, "watchdog"));
    toy_end_well(scene->toy);
}

#define SCENE_TEST(test) cmocka_unit_test_setup_teardown(test, scene_setup, scene_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SCENE_TEST(test_words),         SCENE_TEST(test_rhythm),
        SCENE_TEST(test_hung_children), SCENE_TEST(test_reload_and_drain),
        SCENE_TEST(test_replacement),   SCENE_TEST(test_worker_leaves),
        SCENE_TEST(test_no_watchdog),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
