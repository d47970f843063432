/* Landlock by itself, which the filter otherwise hides; the filter and threads; how it is told. Profiles are
 * tested with the processes whose they are. */
#include "common/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "tests/unit/check.h"
#include "tests/unit/support/attempts.h"

/* waitpid's status of a process of its own that does it without new privileges. */
static int status_of(int (*function)(void))
{
    int status;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? function() : 99);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* Exit statuses: 0, or which step was not as it should be. */
static void check_exits_well(int (*function)(void))
{
    int status = status_of(function);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- Landlock. */

#define SYS_LANDLOCK_CREATE_RULESET 444

static const struct sandbox_profile CLOSED = {0}, CONNECTING = {.connects = true};

static int connect_somewhere(void)
{
    /* The port is nobody's: allowed, it is refused. */
    const struct sockaddr_in nobody = {
        .sin_family = AF_INET, .sin_port = htons(1), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return connect(fd, (const struct sockaddr *)&nobody, sizeof nobody) != 0 ? errno : 0;
}

static int bind_somewhere(void)
{
    const struct sockaddr_in any = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return bind(fd, (const struct sockaddr *)&any, sizeof any) != 0 ? errno : 0;
}

static int restrict_and_look(const struct sandbox_profile *profile)
{
    struct sandbox_state state = {0};
    struct failure why;
    int before = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (sandbox_restrict_files(profile, &state, &why) != RESULT_OK)
        return 1;
    if (state.landlock == 0)
        return 2;
    if (open("/tmp/keyless-landlock", O_WRONLY | O_CREAT | O_CLOEXEC, 0600) >= 0 || errno != EACCES)
        return 3;
    if (sandbox_is_strict() && (open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0 || errno != EACCES))
        return 4;
    if (write(before, "x", 1) != 1)
        return 5;
    if (state.landlock >= 4 && bind_somewhere() != EACCES)
        return 6;
    if (state.landlock >= 4 && connect_somewhere() != (profile->connects ? ECONNREFUSED : EACCES))
        return 7;
    if (state.landlock >= 6 && (kill(getppid(), 0) == 0 || errno != EPERM))
        return 8;
    return kill(getpid(), 0) == 0 && sandbox_landlock_lack(&state) == NULL ? 0 : 9;
}

static int look_closed(void)
{
    return restrict_and_look(&CLOSED);
}

static int look_connecting(void)
{
    return restrict_and_look(&CONNECTING);
}

static void test_landlock(void **state)
{
    (void)state;
    if (syscall(SYS_LANDLOCK_CREATE_RULESET, NULL, 0, 1) <= 0) {
        print_message("skipped: this kernel has no Landlock\n");
        skip();
    }
    check_exits_well(look_closed);
    check_exits_well(look_connecting);
}

/* ---- The filter. */

static sandbox_culprit *culprit;

static int make_culprit(void **state)
{
    (void)state;
    culprit = mmap(NULL, sizeof *culprit, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return culprit != MAP_FAILED ? 0 : -1;
}

static int free_culprit(void **state)
{
    (void)state;
    return munmap(culprit, sizeof *culprit);
}

static bool filter(const struct sandbox_profile *profile)
{
    struct sandbox_state state = {0};
    struct failure why;
    bool applied = sandbox_filter_calls(profile, culprit, &state, &why) == RESULT_OK && state.filter;
    return applied == (sandbox_filter_lack(&state) == NULL) && applied;
}

static _Atomic bool confined;

static void *try_after(void *argument)
{
    while (!confined)
        (void)sched_yield();
    (void)syscall(SYS_chdir, "/");
    return argument;
}

/* A thread that was there before is confined too, and ends the process. */
static int try_in_a_thread(void)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, try_after, NULL) != 0)
        return 1;
    if (!filter(&CLOSED))
        return 1;
    confined = true;
    (void)pthread_join(thread, NULL);
    return 2;
}

static void check_killed(int (*function)(void), long call)
{
    int status = status_of(function);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGSYS);
    assert_int_equal(atomic_load(culprit), call + 1);
}

static void test_threads(void **state)
{
    (void)state;
    attempts_need_filter();
    check_killed(try_in_a_thread, SYS_chdir);
}

/* Who blocks the signal dies of it all the same. */
static int try_with_the_signal_blocked(void)
{
    sigset_t all;
    (void)sigfillset(&all);
    if (!filter(&CLOSED))
        return 1;
    (void)pthread_sigmask(SIG_SETMASK, &all, NULL);
    (void)syscall(SYS_chdir, "/");
    return 2;
}

static void test_signal_blocked(void **state)
{
    (void)state;
    attempts_need_filter();
    atomic_store(culprit, SYS_chdir + 1); /* which cannot be told then */
    check_killed(try_with_the_signal_blocked, SYS_chdir);
}

/* The signal from somebody else ends it as well, and blames no call. */
static int get_the_signal(void)
{
    bool applied = filter(&CLOSED);
    atomic_store(culprit, 0);
    if (!applied)
        return 1;
    for (;;)
        (void)sched_yield();
}

static void test_signal_from_outside(void **state)
{
    int status;
    (void)state;
    attempts_need_filter();
    atomic_store(culprit, 1);
    pid_t pid = fork();
    if (pid == 0)
        _exit(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 ? get_the_signal() : 99);
    while (atomic_load(culprit) != 0)
        (void)sched_yield();
    (void)kill(pid, SIGSYS);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static int abort_itself(void)
{
    if (!filter(&CLOSED))
        return 1;
    abort();
}

static void test_abort(void **state)
{
    (void)state;
    attempts_need_filter();
    int status = status_of(abort_itself);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

/* A rule of a kind's own comes on top of the common ones; a call of no known name is left out. */
static int chdir_by_own_rule(void)
{
    static const struct sandbox_rule RULES[] = {SANDBOX_ALLOW("chdir"), SANDBOX_REFUSE("fchdir", EXDEV),
                                                SANDBOX_ALLOW("no_such_call")};
    static const struct sandbox_profile OWN = {.rules = RULES, .rule_count = COUNT_OF(RULES)};
    if (!filter(&OWN))
        return 1;
    if (chdir("/") != 0)
        return 2;
    return fchdir(0) != 0 && errno == EXDEV ? 0 : 3;
}

static void test_own_rules(void **state)
{
    (void)state;
    attempts_need_filter();
    check_exits_well(chdir_by_own_rule);
}

/* ---- How it is told. */

static void test_culprit_text(void **state)
{
    char text[SANDBOX_CALL_SIZE];
    char number[16];
    (void)state;
    sandbox_culprit_format(0, text);
    assert_string_equal(text, "");
    (void)snprintf(number, sizeof number, "%d", (int)SYS_execve);
    sandbox_culprit_format(SYS_execve + 1, text);
    assert_int_equal(strncmp(text, number, strlen(number)), 0);
    assert_true(text[strlen(number)] == '\0' || strcmp(text + strlen(number), " (execve)") == 0);
    sandbox_culprit_format(UINT32_MAX, text);
    assert_string_equal(text, "4294967294");
}

static void test_state_in_a_number(void **state)
{
    static const struct sandbox_state STATES[] = {{false, 0}, {true, 0}, {false, 6}, {true, 7}};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(STATES); i++) {
        struct sandbox_state back = sandbox_state_unpack(sandbox_state_pack(&STATES[i]));
        assert_int_equal(back.filter, STATES[i].filter);
        assert_int_equal(back.landlock, STATES[i].landlock);
    }
    assert_int_equal(sandbox_state_pack(&STATES[0]), 0);
}

#define FILTER_TEST(test) cmocka_unit_test_setup_teardown(test, make_culprit, free_culprit)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_landlock),
        FILTER_TEST(test_threads),
        FILTER_TEST(test_signal_blocked),
        FILTER_TEST(test_signal_from_outside),
        FILTER_TEST(test_abort),
        FILTER_TEST(test_own_rules),
        cmocka_unit_test(test_culprit_text),
        cmocka_unit_test(test_state_in_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
