/* One line a second, with a clock of its own. */
#include "common/log_tally.h"

#include "tests/unit/check.h"

static void test_once_a_second(void **state)
{
    (void)state;
    struct log_tally tally = {0};
    uint64_t now = 5, told = 0, lines = 0;
    assert_int_equal(log_tally_add(&tally, now), 1); /* the first at once */
    for (unsigned i = 0; i < 1000; i++) {
        const uint64_t count = log_tally_add(&tally, now += 10000);
        told += count;
        lines += count > 0;
    }
    assert_int_equal(lines, 10);
    assert_int_equal(told, 1000);
    assert_int_equal(log_tally_add(&tally, now), 0);
    assert_int_equal(log_tally_add(&tally, now + 5000000),
                     2); /* what was not told yet is told with the next */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_once_a_second)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
