/* The parts of the process module that need no master: messages, time, privileges, notification. */
#include "common/process_private.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/socket.h"
#include "tests/unit/check.h"

/* ---- Messages */

static int make_pair(void **state)
{
    static int ends[2];
    struct failure why;
    *state = ends;
    return socket_pair(SOCK_SEQPACKET, ends, &why) == RESULT_OK ? 0 : -1;
}

static int close_pair(void **state)
{
    int *ends = *state;
    socket_close(&ends[0]);
    socket_close(&ends[1]);
    return 0;
}

static void test_message_comes_through(void **state)
{
    const int *ends = *state;
    struct message sent = {.type = MESSAGE_LINK,
                           .first = 0xfedcba98,
                           .second = UINT64_C(0x123456789abcdef0),
                           .descriptor = ends[0]};
    struct message received;
    struct failure why;
    memset(sent.text, 'x', sizeof sent.text - 1);
    assert_int_equal(message_send(ends[0], &sent, &why), RESULT_OK);
    assert_int_equal(message_receive(ends[1], &received, &why), RESULT_OK);
    assert_int_equal(received.type, MESSAGE_LINK);
    assert_int_equal(received.first, sent.first);
    assert_int_equal(received.second, sent.second);
    assert_string_equal(received.text, sent.text);
    assert_true(received.descriptor >= 0);
    socket_close(&received.descriptor);
    assert_int_equal(message_receive(ends[1], &received, &why), RESULT_AGAIN);
}

static void test_message_end(void **state)
{
    int *ends = *state;
    struct message message;
    struct failure why;
    socket_close(&ends[0]);
    assert_int_equal(message_receive(ends[1], &message, &why), RESULT_PEER);
    assert_int_equal(message_send(ends[1], &(struct message){.type = MESSAGE_READY, .descriptor = -1}, &why),
                     RESULT_PEER);
}

/* What a child that is not ours any more might say. */
static void test_message_refused(void **state)
{
    static const struct {
        const char *name;
        struct bytes data;
    } ROWS[] = {
        {"type 0", WIRE("\0\0\0\0\0\0\0\0\0\0\0\0\0")},
        {"type too high", WIRE("\13\0\0\0\0\0\0\0\0\0\0\0\0")},
        {"type 255", WIRE("\377\0\0\0\0\0\0\0\0\0\0\0\0")},
        {"one octet", WIRE("\1")},
        {"cut", WIRE("\1\0\0\0\0\0\0\0\0\0\0\0")},
    };
    const int *ends = *state;
    struct message message;
    struct failure why;
    assert_int_equal(MESSAGE_TYPES, 11);
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        assert_int_equal(socket_send_message(ends[0], ROWS[i].data.data, ROWS[i].data.size, ends[0], &why),
                         RESULT_OK);
        CHECK(ROWS[i].name, message_receive(ends[1], &message, &why) == RESULT_PROTOCOL);
        CHECK(ROWS[i].name, message.descriptor == -1);
    }
    /* A text that leaves no room for its end, and one octet more than any message. */
    uint8_t longest[13 + FAILURE_TEXT_SIZE + 1] = {MESSAGE_FAILED};
    for (size_t size = sizeof longest - 1; size <= sizeof longest; size++) {
        assert_int_equal(socket_send_message(ends[0], longest, size, -1, &why), RESULT_OK);
        assert_int_equal(message_receive(ends[1], &message, &why), RESULT_PROTOCOL);
    }
}

/* A child that does not read: the master is told, not stopped. */
static void test_message_queue_is_bounded(void **state)
{
    const int *ends = *state;
    struct message message = {.type = MESSAGE_LISTEN, .descriptor = -1};
    struct failure why;
    enum result result = RESULT_OK;
    for (unsigned i = 0; i < 100000 && result == RESULT_OK; i++)
        result = message_send(ends[0], &message, &why);
    assert_int_equal(result, RESULT_AGAIN);
}

/* ---- Time */

/* A machine that was stopped for an hour: nobody is blamed. */
static void test_clock_ignores_pauses(void **state)
{
    (void)state;
    struct master master = {.clock_read = clock_now(), .clock = 1};
    uint64_t before = master_now(&master);
    master.clock_read -= 3600ull * SECOND;
    assert_int_equal(master_now(&master) - before, MASTER_CLOCK_STEP);
    master.clock_read -= 10ull * MILLISECOND;
    assert_in_range(master_now(&master) - before - MASTER_CLOCK_STEP, 10ull * MILLISECOND, MASTER_CLOCK_STEP);
}

/* ---- Privileges */

static bool dumps_are_forbidden(void)
{
    struct rlimit core;
#ifndef __SANITIZE_ADDRESS__
    if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
        return false;
#endif
    return getrlimit(RLIMIT_CORE, &core) == 0 && core.rlim_cur == 0 && core.rlim_max == 0;
}

static bool has_capabilities(void)
{
    char line[128];
    FILE *file = fopen("/proc/self/status", "r");
    bool found = false;
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "CapPrm:", 7) == 0 || strncmp(line, "CapEff:", 7) == 0)
            found |= strtoull(line + 7, NULL, 16) != 0;
    if (file != NULL)
        (void)fclose(file);
    return found;
}

/* In a process of its own; 0: all is as it should be, else the step that is not. */
static int drop_and_look(void)
{
    struct failure why;
    bool root = geteuid() == 0;
    if (process_drop_privileges(NULL, &why) != RESULT_OK)
        return 1;
    if (root && (getuid() == 0 || geteuid() == 0 || getgid() == 0 || getgroups(0, NULL) > 1))
        return 2;
    if (root && (setuid(0) == 0 || setgid(0) == 0 || seteuid(0) == 0))
        return 3;
    if (has_capabilities())
        return 4;
    if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1)
        return 5;
    return dumps_are_forbidden() ? 0 : 6;
}

/* Before anything is dropped: who reads keys is still root then. */
static int forbid_dumps_and_look(void)
{
    struct failure why;
    uid_t user = geteuid();
    return process_forbid_dumps(&why) == RESULT_OK && dumps_are_forbidden() && geteuid() == user ? 0 : 1;
}

/* The master stays who it is. */
static int guard_and_look(void)
{
    struct failure why;
    uid_t user = geteuid();
    return process_guard_master(&why) == RESULT_OK && dumps_are_forbidden() && geteuid() == user &&
                   prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1
               ? 0
               : 1;
}

static int status_of(int (*function)(void))
{
    int status;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(function());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void test_privileges_dropped(void **state)
{
    (void)state;
    assert_int_equal(status_of(drop_and_look), 0);
    assert_int_equal(status_of(forbid_dumps_and_look), 0);
    assert_int_equal(status_of(guard_and_look), 0);
}

static int drop_to_nobody_there(void)
{
    struct failure why;
    return process_drop_privileges("no-such-user", &why) == RESULT_CONFIG &&
                   strcmp(why.text, "user no-such-user does not exist") == 0
               ? 0
               : 1;
}

static int drop_to_root(void)
{
    struct failure why;
    return process_drop_privileges("root", &why) == RESULT_CONFIG ? 0 : 1;
}

static void test_privileges_refused(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    assert_int_equal(status_of(drop_to_nobody_there), 0);
    assert_int_equal(status_of(drop_to_root), 0);
}

static void test_cores(void **state)
{
    (void)state;
    assert_in_range(process_cores(), 1, (uintmax_t)sysconf(_SC_NPROCESSORS_CONF));
}

/* ---- Notification */

static void test_notify(void **state)
{
    (void)state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    (void)snprintf(address.sun_path, sizeof address.sun_path, "/tmp/notify-%d.sock", (int)getpid());
    int manager CLEANUP(socket_close) = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(manager, (const struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(setenv("NOTIFY_SOCKET", address.sun_path, 1), 0);
    process_notify("READY=1", "generation %d", 7);
    process_notify_alive();
    assert_int_equal(unsetenv("NOTIFY_SOCKET"), 0);
    process_notify("RELOADING=1", "again");
    process_notify_alive();
    assert_int_equal(unlink(address.sun_path), 0);

    char text[256] = "";
    assert_true(recv(manager, text, sizeof text - 1, MSG_DONTWAIT) > 0);
    assert_memory_equal(text, "READY=1\nMONOTONIC_USEC=", strlen("READY=1\nMONOTONIC_USEC="));
    assert_non_null(strstr(text, "\nSTATUS=generation 7\n"));
    memset(text, 0, sizeof text);
    assert_true(recv(manager, text, sizeof text - 1, MSG_DONTWAIT) > 0);
    assert_string_equal(text, "WATCHDOG=1\n");
    assert_int_equal(recv(manager, text, sizeof text - 1, MSG_DONTWAIT), -1);
}

/* Who is not meant, and an interval that is none, leave it off. */
static void test_watchdog_interval(void **state)
{
    static const struct {
        const char *interval;
        const char *pid; /* NULL: none; "": ours */
        uint64_t expected;
    } ROWS[] = {
        {NULL, NULL, 0},
        {"30000000", NULL, 30000000},
        {"30000000", "", 30000000},
        {"30000000", "1", 0},
        {"30000000", "x", 0},
        {"", NULL, 0},
        {"30000000s", "", 0},
        {"-1", NULL, 0},
        {"99999999999999999999999", NULL, 0},
    };
    char own[32];
    (void)state;
    (void)snprintf(own, sizeof own, "%d", (int)getpid());
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        const char *pid = ROWS[i].pid != NULL && ROWS[i].pid[0] == '\0' ? own : ROWS[i].pid;
        (void)(ROWS[i].interval != NULL ? setenv("WATCHDOG_USEC", ROWS[i].interval, 1)
                                        : unsetenv("WATCHDOG_USEC"));
        (void)(pid != NULL ? setenv("WATCHDOG_PID", pid, 1) : unsetenv("WATCHDOG_PID"));
        CHECK(ROWS[i].interval != NULL ? ROWS[i].interval : "none", process_watchdog() == ROWS[i].expected);
    }
    assert_int_equal(unsetenv("WATCHDOG_USEC"), 0);
    assert_int_equal(unsetenv("WATCHDOG_PID"), 0);
}

#define PAIR_TEST(test) cmocka_unit_test_setup_teardown(test, make_pair, close_pair)

int main(void)
{
    const struct CMUnitTest tests[] = {
        PAIR_TEST(test_message_comes_through),
        PAIR_TEST(test_message_end),
        PAIR_TEST(test_message_refused),
        PAIR_TEST(test_message_queue_is_bounded),
        cmocka_unit_test(test_clock_ignores_pauses),
        cmocka_unit_test(test_privileges_dropped),
        cmocka_unit_test(test_privileges_refused),
        cmocka_unit_test(test_cores),
        cmocka_unit_test(test_notify),
        cmocka_unit_test(test_watchdog_interval),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
