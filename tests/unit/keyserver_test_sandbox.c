/* What the processes of the key server may and may not, once they have started. */
#include "keyserver/frontend.h"
#include "keyserver/signer.h"

#include <errno.h>

#include "common/admin_process.h"
#include "tests/unit/check.h"
#include "tests/unit/support/attempts.h"

static void test_signer(void **state)
{
    static const struct attempt ROWS[] = {
        {"a socket", attempt_socket_inet, ATTEMPT_KILLED, false},
        {"an IPv6 socket", attempt_socket_inet6, ATTEMPT_KILLED, false},
        {"a Unix socket", attempt_socket_unix, ATTEMPT_KILLED, false},
        {"a pair", attempt_socketpair, ATTEMPT_KILLED, false},
        {"connect", attempt_connect, ATTEMPT_KILLED, false},
        {"accept", attempt_accept, ATTEMPT_KILLED, false},
        {"a socket's name", attempt_getsockname, ATTEMPT_KILLED, false},
    };
    (void)state;
    attempts_check_common(&signer_sandbox);
    attempts_check(&signer_sandbox, ROWS, COUNT_OF(ROWS));
}

static void test_frontend(void **state)
{
    static const struct attempt ROWS[] = {
        {"a socket", attempt_socket_inet, ATTEMPT_KILLED, false},
        {"an IPv6 socket", attempt_socket_inet6, ATTEMPT_KILLED, false},
        {"a Unix socket", attempt_socket_unix, ATTEMPT_KILLED, false},
        {"a pair", attempt_socketpair, ATTEMPT_KILLED, false},
        {"connect", attempt_connect, ATTEMPT_KILLED, false},
        {"accept", attempt_accept, EAGAIN, false},
        {"a socket's name", attempt_getsockname, ATTEMPT_DONE, false},
    };
    (void)state;
    attempts_check_common(&frontend_sandbox);
    attempts_check(&frontend_sandbox, ROWS, COUNT_OF(ROWS));
}

/* The proxy's is the same. */
static void test_helper(void **state)
{
    static const struct attempt ROWS[] = {
        {"a socket", attempt_socket_inet, ATTEMPT_KILLED, false},
        {"an IPv6 socket", attempt_socket_inet6, ATTEMPT_KILLED, false},
        {"a Unix socket", attempt_socket_unix, ATTEMPT_KILLED, false},
        {"a pair", attempt_socketpair, ATTEMPT_KILLED, false},
        {"connect", attempt_connect, ATTEMPT_KILLED, false},
        {"accept", attempt_accept, EAGAIN, false},
        {"its master's id", attempt_getppid, ATTEMPT_DONE, false},
    };
    (void)state;
    attempts_check_common(&admin_process_sandbox);
    attempts_check(&admin_process_sandbox, ROWS, COUNT_OF(ROWS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signer),
        cmocka_unit_test(test_frontend),
        cmocka_unit_test(test_helper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
