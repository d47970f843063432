/* The 95th percentile of what a key server takes. */
#include "proxy/key_latency.h"

#include "tests/unit/check.h"

static void note_many(struct key_latency *latency, uint64_t microseconds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        key_latency_note(latency, microseconds);
}

static void test_too_few(void **state)
{
    (void)state;
    struct key_latency latency = {0};
    assert_int_equal(key_latency_late(&latency), 0);
    note_many(&latency, 700, 19);
    assert_int_equal(key_latency_late(&latency), 0);
    key_latency_note(&latency, 700);
    assert_int_equal(key_latency_late(&latency), 700);
}

/* 0 stands for "there was none". */
static void test_nothing_is_something(void **state)
{
    (void)state;
    struct key_latency latency = {0};
    note_many(&latency, 0, KEY_LATENCY_SAMPLES);
    assert_int_equal(key_latency_late(&latency), 1);
}

/* Of 100 different ones in any order. */
static void test_percentile(void **state)
{
    (void)state;
    struct key_latency latency = {0};
    for (unsigned i = 0; i < KEY_LATENCY_SAMPLES; i++)
        key_latency_note(&latency, 1000 + (i * 37) % KEY_LATENCY_SAMPLES);
    assert_in_range(key_latency_late(&latency), 1000 + KEY_LATENCY_SAMPLES * 90 / 100,
                    1000 + KEY_LATENCY_SAMPLES * 97 / 100);
}

static void test_few_slow_ones_are_late(void **state)
{
    (void)state;
    struct key_latency latency = {0};
    note_many(&latency, 500, KEY_LATENCY_SAMPLES - 4);
    note_many(&latency, 90000, 4);
    assert_int_equal(key_latency_late(&latency), 500);
}

static void test_old_ones_go(void **state)
{
    (void)state;
    struct key_latency latency = {0};
    note_many(&latency, 90000, KEY_LATENCY_SAMPLES);
    note_many(&latency, 500, KEY_LATENCY_SAMPLES + 16);
    assert_int_equal(key_latency_late(&latency), 500);
    key_latency_forget(&latency);
    assert_int_equal(key_latency_late(&latency), 0);
}

static void test_very_long(void **state)
{
    (void)state;
    struct key_latency latency = {0};
    note_many(&latency, UINT64_C(1) << 40, KEY_LATENCY_SAMPLES);
    assert_int_equal(key_latency_late(&latency), UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_too_few),     cmocka_unit_test(test_nothing_is_something),
        cmocka_unit_test(test_percentile),  cmocka_unit_test(test_few_slow_ones_are_late),
        cmocka_unit_test(test_old_ones_go), cmocka_unit_test(test_very_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
