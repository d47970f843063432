/* The table of events and reasons, with a clock of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/log_rate.h"

static void test_rate_table(void **state)
{
    (void)state;
    struct log_rate rates;
    struct bytes none = bytes_of(NULL, 0);
    log_rate_clear(&rates, 7);
    assert_false(log_rate_over(&rates, 7));
    assert_true(log_rate_over(&rates, 8));
    assert_true(log_rate_admit(&rates, 2, "a", none, 0));
    assert_true(log_rate_admit(&rates, 2, "a", none, 0));
    assert_false(log_rate_admit(&rates, 2, "a", none, 0));
    assert_true(log_rate_admit(&rates, 0, "a", none, 0));
    assert_true(log_rate_admit(&rates, 2, "a", bytes_of("r", 1), 0));
    assert_int_equal(rates.used, 2);
    assert_int_equal(rates.slots[0].suppressed, 1);
    assert_int_equal(rates.slots[0].written, 2);
    log_rate_clear(&rates, 8);
    assert_true(log_rate_admit(&rates, 2, "a", none, 0));
    assert_int_equal(rates.slots[0].suppressed, 0);

    /* Reasons that differ only past the bound are one. */
    char reason[LOG_RATE_REASON_SIZE + 1];
    memset(reason, 'r', sizeof reason);
    assert_true(log_rate_admit(&rates, 1, "b", bytes_of(reason, sizeof reason), 0));
    reason[LOG_RATE_REASON_SIZE] = 's';
    assert_false(log_rate_admit(&rates, 1, "b", bytes_of(reason, sizeof reason), 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
