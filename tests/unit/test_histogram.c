#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/histogram.h"

static struct histogram *new_histogram(void)
{
    struct histogram *histogram = calloc(1, sizeof *histogram);
    assert_non_null(histogram);
    return histogram;
}

static void test_empty(void **state)
{
    (void)state;
    struct histogram *empty = new_histogram();
    assert_int_equal(histogram_percentile(empty, 50), 0);
    assert_true(histogram_mean(empty) == 0);
    free(empty);
}

/* One value alone is every percentile, exactly, since no percentile exceeds the largest value. */
static void test_one_value(void **state)
{
    (void)state;
    static const uint64_t VALUES[] = {0,   1,    63,        64,         65,         127,
                                      128, 1000, 123456789, 1ull << 39, 1ull << 40, UINT64_MAX};
    for (size_t i = 0; i < sizeof VALUES / sizeof *VALUES; i++) {
        struct histogram *one = new_histogram();
        histogram_add(one, VALUES[i]);
        assert_int_equal(one->count, 1);
        assert_int_equal(one->least, VALUES[i]);
        assert_int_equal(one->most, VALUES[i]);
        assert_true(histogram_percentile(one, 0) == VALUES[i]);
        assert_true(histogram_percentile(one, 50) == VALUES[i]);
        assert_true(histogram_percentile(one, 100) == VALUES[i]);
        free(one);
    }
}

/* The relative error of any percentile is below 1/64, and always upwards. */
static void test_error_is_bounded(void **state)
{
    (void)state;
    for (uint64_t value = 1; value < 1ull << 39; value = value * 21 / 20 + 1) {
        struct histogram *two = new_histogram();
        histogram_add(two, value);
        histogram_add(two, 1ull << 40);
        uint64_t half = histogram_percentile(two, 50);
        assert_true(half >= value);
        assert_true((double)half <= (double)value * (1 + 1.0 / 64));
        free(two);
    }
}

static void test_percentiles_of_a_ramp(void **state)
{
    (void)state;
    struct histogram *ramp = new_histogram();
    for (uint64_t value = 1; value <= 10000; value++)
        histogram_add(ramp, value);
    static const double PERCENTS[] = {1, 50, 90, 99, 99.9};
    for (size_t i = 0; i < sizeof PERCENTS / sizeof *PERCENTS; i++) {
        double exact = PERCENTS[i] * 100;
        double got = (double)histogram_percentile(ramp, PERCENTS[i]);
        assert_true(got >= exact && got <= exact * 1.016 + 1);
    }
    assert_int_equal(histogram_percentile(ramp, 100), 10000);
    assert_true(histogram_mean(ramp) == 5000.5);
    free(ramp);
}

static void test_merge(void **state)
{
    (void)state;
    struct histogram *a = new_histogram();
    struct histogram *b = new_histogram();
    struct histogram *all = new_histogram();
    for (uint64_t value = 1; value < 5000; value += 7) {
        histogram_add(value % 2 != 0 ? a : b, value);
        histogram_add(all, value);
    }
    struct histogram *empty = new_histogram();
    histogram_merge(a, empty);
    histogram_merge(empty, b);
    histogram_merge(a, empty);
    assert_memory_equal(a, all, sizeof *all);
    free(a);
    free(b);
    free(all);
    free(empty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_one_value),
        cmocka_unit_test(test_error_is_bounded),
        cmocka_unit_test(test_percentiles_of_a_ramp),
        cmocka_unit_test(test_merge),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
