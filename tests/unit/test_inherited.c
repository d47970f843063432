/* What the environment says of inherited sockets, and who gets which. Each case runs in a process of its own:
 * the descriptors have fixed numbers. */
#include "common/inherited.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "common/socket.h"
#include "tests/unit/check.h"

enum { FIRST = 3 };

/* ---- The manager's side. */

static int listener(struct address *address)
{
    struct failure why;
    int fd = -1;
    struct socket_listen_options options = {.backlog = 8, .reuse_port = true};
    if (address->size == 0)
        assert_int_equal(address_parse("127.0.0.1:0", address, &why), RESULT_OK);
    assert_int_equal(socket_listen(address, &options, &fd, &why), RESULT_OK);
    address->size = sizeof address->storage;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address->storage, &address->size), 0);
    return fd;
}

/* As systemd leaves them: blocking, kept by exec. */
static void pass(int fd, int place)
{
    assert_int_equal(dup2(fd, place), place);
    assert_int_equal(fcntl(place, F_SETFL, fcntl(place, F_GETFL) & ~O_NONBLOCK), 0);
}

static void announce(pid_t pid, const char *count, const char *names)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%ld", (long)pid);
    assert_int_equal(setenv("LISTEN_PID", text, 1), 0);
    assert_int_equal(setenv("LISTEN_FDS", count, 1), 0);
    assert_int_equal(setenv("LISTEN_FDNAMES", names, 1), 0);
}

static void expect_environment_forgotten(void)
{
    assert_null(getenv("LISTEN_PID"));
    assert_null(getenv("LISTEN_FDS"));
    assert_null(getenv("LISTEN_FDNAMES"));
}

/* A test that fails in the other process says so there and leaves it with another status. */
static void run(void (*scene)(void))
{
    int status;
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        scene();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- Scenes. */

static void give_each_its_own(void)
{
    struct address one = {.size = 0}, two = {.size = 0}, other;
    int fds[2] = {-1, -1};
    struct inherited *inherited;
    struct failure why;
    /* Far away from the numbers that they are to have. */
    int first = fcntl(listener(&one), F_DUPFD, 100), second = fcntl(listener(&one), F_DUPFD, 100),
        third = fcntl(listener(&two), F_DUPFD, 100);
    pass(first, FIRST);
    pass(third, FIRST + 1);
    pass(second, FIRST + 2);
    announce(getpid(), "3", "a:b");
    assert_int_equal(inherited_take(&inherited, &why), RESULT_OK);
    expect_environment_forgotten();

    assert_int_equal(address_parse("127.0.0.1:1", &other, &why), RESULT_OK);
    assert_int_equal(inherited_count(inherited, &other), 0);
    assert_int_equal(inherited_count(inherited, &one), 2);
    inherited_use(inherited, &one, fds);
    assert_int_equal(fds[0], FIRST);
    assert_int_equal(fds[1], FIRST + 2);
    for (size_t i = 0; i < COUNT_OF(fds); i++) {
        assert_true((fcntl(fds[i], F_GETFL) & O_NONBLOCK) != 0);
        assert_int_equal(fcntl(fds[i], F_GETFD), FD_CLOEXEC);
    }
    assert_int_equal(inherited_count(inherited, &one), 0);
    assert_int_equal(inherited_count(inherited, &two), 1);
    inherited_free(inherited, NULL);
    assert_int_equal(fcntl(FIRST + 1, F_GETFD), -1);
    assert_int_not_equal(fcntl(FIRST, F_GETFD), -1);
}

static void nothing_there(void)
{
    struct inherited *inherited = (struct inherited *)&inherited;
    struct address address;
    struct failure why;
    assert_int_equal(address_parse("127.0.0.1:1", &address, &why), RESULT_OK);
    assert_int_equal(inherited_take(&inherited, &why), RESULT_OK);
    assert_null(inherited);
    assert_int_equal(inherited_count(inherited, &address), 0);
    inherited_use(inherited, &address, NULL);
    inherited_free(inherited, NULL);
}

/* The parent of ours was meant, and has not tidied up. */
static void meant_for_another(void)
{
    struct address address = {.size = 0};
    struct inherited *inherited;
    struct failure why;
    pass(listener(&address), FIRST);
    announce(getppid(), "1", "");
    assert_int_equal(inherited_take(&inherited, &why), RESULT_OK);
    assert_null(inherited);
    expect_environment_forgotten();
    assert_int_not_equal(fcntl(FIRST, F_GETFD), -1);
}

static void makes_no_sense(void)
{
    static const char *const COUNTS[] = {"", "-1", "+1", " 1", "1 ", "x", "4097", "99999999999999999999"};
    struct inherited *inherited;
    struct failure why;
    for (size_t i = 0; i < COUNT_OF(COUNTS); i++) {
        announce(getpid(), COUNTS[i], "");
        CHECK(COUNTS[i], inherited_take(&inherited, &why) == RESULT_CONFIG);
        CHECK(COUNTS[i], strncmp(why.text, "LISTEN_FDS is \"", 15) == 0);
        CHECK(COUNTS[i], inherited == NULL);
        expect_environment_forgotten();
    }
    announce(getpid(), "1", "");
    assert_int_equal(unsetenv("LISTEN_FDS"), 0);
    assert_int_equal(inherited_take(&inherited, &why), RESULT_CONFIG);
}

static int bound(int type)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, type, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&any, sizeof any), 0);
    return fd;
}

/* What is wrong is not closed: should the count be a lie, it may be anything of ours. */
static void is_of_another_kind(void)
{
    const int descriptors[] = {bound(SOCK_DGRAM), bound(SOCK_STREAM), open("/dev/null", O_RDONLY)};
    struct inherited *inherited;
    struct failure why;
    for (size_t i = 0; i < COUNT_OF(descriptors); i++) {
        struct address address = {.size = 0};
        int good = listener(&address), wrong = fcntl(descriptors[i], F_DUPFD, 100);
        pass(fcntl(good, F_DUPFD, 100), FIRST);
        assert_int_equal(dup2(wrong, FIRST + 1), FIRST + 1);
        announce(getpid(), "2", "good:wrong");
        assert_int_equal(inherited_take(&inherited, &why), RESULT_CONFIG);
        assert_non_null(strstr(why.text, "descriptor 4 (wrong)"));
        assert_non_null(strstr(why.text, "not a listening stream socket"));
        assert_null(inherited);
        assert_int_not_equal(fcntl(FIRST + 1, F_GETFD), -1);
        assert_int_equal(fcntl(FIRST, F_GETFD), -1);
    }
    (void)close(FIRST);
    announce(getpid(), "1", "gone");
    assert_int_equal(inherited_take(&inherited, &why), RESULT_CONFIG);
    assert_non_null(strstr(why.text, "descriptor 3 (gone) is not there"));
}

#define SCENE(name)                                                                                          \
    static void test_##name(void **state)                                                                    \
    {                                                                                                        \
        (void)state;                                                                                         \
        run(name);                                                                                           \
    }
SCENE(give_each_its_own)
SCENE(nothing_there)
SCENE(meant_for_another)
SCENE(makes_no_sense)
SCENE(is_of_another_kind)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_give_each_its_own),  cmocka_unit_test(test_nothing_there),
        cmocka_unit_test(test_meant_for_another),  cmocka_unit_test(test_makes_no_sense),
        cmocka_unit_test(test_is_of_another_kind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
