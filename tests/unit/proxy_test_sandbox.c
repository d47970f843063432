/* What a worker of the proxy may and may not, once it has started. (The helper: keyserver_test_sandbox.c.) */
#include "proxy/worker.h"

#include <errno.h>

#include "tests/unit/check.h"
#include "tests/unit/support/attempts.h"

static void test_worker(void **state)
{
    static const struct attempt ROWS[] = {
        {"a socket", attempt_socket_inet, ATTEMPT_DONE, false},
        {"an IPv6 socket", attempt_socket_inet6, ATTEMPT_DONE, false},
        {"a Unix socket", attempt_socket_unix, ATTEMPT_DONE, false},
        {"a pair", attempt_socketpair, ATTEMPT_DONE, false},
        {"connect", attempt_connect, ATTEMPT_DONE, false},
        {"accept", attempt_accept, EAGAIN, false},
        {"a socket's name", attempt_getsockname, ATTEMPT_DONE, false},
    };
    (void)state;
    attempts_check_common(&worker_sandbox);
    attempts_check(&worker_sandbox, ROWS, COUNT_OF(ROWS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_worker)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
