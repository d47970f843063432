/* Where log lines go: readers that are behind, gone, or shared by several processes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "common/log.h"
#include "common/log_sink.h"
#include "common/socket.h"

#define TEXT_MAX (1 << 20)

static char received[TEXT_MAX]; /* what drain has read */

static size_t count_of(const char *part)
{
    size_t count = 0;
    for (const char *at = received; (at = strstr(at, part)) != NULL; at += strlen(part))
        count++;
    return count;
}

/* Returns how many of the lines it was told are written. */
static size_t fill(struct log *log, unsigned lines)
{
    size_t written = 0;
    for (unsigned i = 0; i < lines; i++)
        written += log_write(log, LOG_LEVEL_INFO, "x", LOG_FIELDS(log_number("i", i)));
    return written;
}

static void drain(int fd)
{
    size_t used = 0;
    ssize_t got;
    while ((got = read(fd, received + used, TEXT_MAX - 1 - used)) > 0)
        used += (size_t)got;
    received[used] = '\0';
}

/* fds[1] is what the log writes to. Fills it, reads it empty, and writes one more line. */
static void check_losses(const int fds[2])
{
    struct log_settings settings = {.level = LOG_LEVEL_INFO};
    struct log *log = log_new("proxy", fds[1], &settings);
    assert_non_null(log);
    size_t written = fill(log, 20000);
    drain(fds[0]);
    size_t whole = count_of(" event=x i=");
    assert_in_range(whole, 100, 19999);
    assert_int_equal(written, whole);
    assert_int_equal(count_of("\n"), whole);

    log_info(log, "after");
    drain(fds[0]);
    char expected[64];
    (void)snprintf(expected, sizeof expected, " event=\"lines lost\" count=%zu\n", 20000 - whole);
    const char *lost = strstr(received, expected);
    assert_non_null(lost);
    assert_non_null(strstr(lost, " event=after\n"));
    assert_int_equal(count_of("\n"), 2);

    log_info(log, "again");
    drain(fds[0]);
    assert_int_equal(count_of("\n"), 1);
    log_free(log);
}

/* The pipe's writing end blocks, as a shell's or a supervisor's does: the log must not. */
static void test_full_pipe(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    check_losses(fds);
    socket_close(&fds[0]);
    socket_close(&fds[1]);
}

static void test_full_nonblocking_pipe(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
    check_losses(fds);
    socket_close(&fds[0]);
    socket_close(&fds[1]);
}

static void test_full_socket(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    check_losses(fds);
    socket_close(&fds[0]);
    socket_close(&fds[1]);
}

/* Kernels before 6.4 know no RWF_NOWAIT for pipes: there each write is asked for first. */
static void test_full_pipe_with_poll(void **state)
{
    (void)state;
    static const char LINE[] = "0123456789 0123456789 0123456789 0123456789\n";
    struct log_sink sink;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    log_sink_init(&sink, fds[1]);
    assert_int_equal(sink.kind, LOG_SINK_PIPE);
    sink.kind = LOG_SINK_POLL;
    unsigned lines = 0;
    while (lines < 100000 && log_sink_write(&sink, bytes_of(LINE, sizeof LINE - 1)))
        lines++;
    assert_in_range(lines, 100, 99999);
    assert_int_equal(sink.lost, 1);
    assert_false(log_sink_write(&sink, bytes_of(LINE, sizeof LINE - 1)));
    assert_int_equal(sink.lost, 2);
    socket_close(&fds[0]);
    socket_close(&fds[1]);
}

static void test_reader_gone(void **state)
{
    (void)state;
    struct log_settings settings = {.level = LOG_LEVEL_INFO};
    void (*before)(int) = signal(SIGPIPE, SIG_IGN);
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct log *log = log_new("proxy", fds[1], &settings);
    socket_close(&fds[0]);
    (void)fill(log, 10);
    log_free(log);
    socket_close(&fds[1]);
    log = log_new("proxy", -1, &settings);
    (void)fill(log, 10);
    log_free(log);
    (void)signal(SIGPIPE, before);
}

/* A line that was cut by a full socket is ended before the next one begins. */
static void test_torn_line(void **state)
{
    (void)state;
    struct log_sink sink;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    log_sink_init(&sink, fds[1]);
    sink.torn = true;
    assert_true(log_sink_write(&sink, bytes_of("next\n", 5)));
    drain(fds[0]);
    assert_string_equal(received, "\nnext\n");
    assert_false(sink.torn);
    socket_close(&fds[0]);
    socket_close(&fds[1]);
}

/* Processes that share a pipe: lines stay whole. */
static void test_processes(void **state)
{
    (void)state;
    struct log_settings settings = {.level = LOG_LEVEL_INFO};
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    struct log *log = log_new("proxy", fds[1], &settings);
    pid_t children[3];
    for (unsigned i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            log_set_process(log, "worker", i, 1);
            (void)fill(log, 200); /* fits into the pipe, whoever is first */
            _exit(0);
        }
        assert_true(children[i] > 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        int status = -1;
        assert_int_equal(waitpid(children[i], &status, 0), children[i]);
        assert_int_equal(status, 0);
    }
    socket_close(&fds[1]);
    drain(fds[0]);
    for (unsigned i = 0; i < 3; i++) {
        char part[64];
        (void)snprintf(part, sizeof part, "process=worker/%u generation=1 event=x i=", i);
        assert_int_equal(count_of(part), 200);
    }
    assert_int_equal(count_of("\n"), 600);
    log_free(log);
    socket_close(&fds[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_pipe),   cmocka_unit_test(test_full_nonblocking_pipe),
        cmocka_unit_test(test_full_socket), cmocka_unit_test(test_full_pipe_with_poll),
        cmocka_unit_test(test_reader_gone), cmocka_unit_test(test_torn_line),
        cmocka_unit_test(test_processes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
