/* A rate over time, by a clock of the test's own; from several processes at once; and with nonsense in the
 * memory that they share. */
#include "keyserver/rate_bucket.h"

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/check.h"

#define SECOND UINT64_C(1000000)
/* One takes whole nanoseconds to come back: so a rate may be too high by one in these many. */
#define ROUNDING 1000
/* A machine that has been up for an hour. */
#define START (3600 * SECOND)

/* How many of these many can be taken at this time. */
static unsigned take(struct rate_bucket *bucket, const struct rate *rate, uint64_t now, unsigned tries)
{
    unsigned taken = 0;
    for (unsigned i = 0; i < tries; i++)
        taken += rate_bucket_take(bucket, rate, now) ? 1 : 0;
    return taken;
}

static const struct {
    unsigned per_second, burst;
} RATES[] = {{1, 2}, {3, 2}, {5, 2}, {7, 4}, {2000, 2}, {2000, 4}, {999999, 1}, {1000000, 2}};

static void a_full_bucket_has_its_burst(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(RATES); i++) {
        const struct rate rate = {RATES[i].per_second, RATES[i].burst};
        const unsigned most = rate.per_second * rate.burst;
        struct rate_bucket bucket = {0};
        assert_in_range(take(&bucket, &rate, START, 2 * most), most, most + most / ROUNDING);
        assert_int_equal(take(&bucket, &rate, START, 5), 0);
        assert_in_range(take(&bucket, &rate, START + 3600 * SECOND, 2 * most), most, most + most / ROUNDING);
    }
}

/* Whatever is tried: after the burst, what the rate says. */
static void a_second_brings_the_rate(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(RATES); i++) {
        const struct rate rate = {RATES[i].per_second, RATES[i].burst};
        const unsigned most = rate.per_second * rate.burst;
        struct rate_bucket bucket = {0};
        (void)take(&bucket, &rate, START, 2 * most);
        for (unsigned second = 1; second <= 3; second++)
            assert_in_range(take(&bucket, &rate, START + second * SECOND, 2 * rate.per_second),
                            rate.per_second, rate.per_second + rate.per_second / ROUNDING + 1);
    }
}

static void one_comes_back_in_its_time(void **state)
{
    (void)state;
    const struct rate rate = {4, 2};
    struct rate_bucket bucket = {0};
    assert_int_equal(take(&bucket, &rate, START, 9), 8);
    assert_int_equal(take(&bucket, &rate, START + SECOND / 4 - 1, 1), 0);
    assert_int_equal(take(&bucket, &rate, START + SECOND / 4, 2), 1);
    assert_int_equal(take(&bucket, &rate, START + SECOND, 9), 3);
    assert_int_equal(take(&bucket, &rate, START + 2 * SECOND, 9), 4);
}

/* Refusals cost nothing: who asks too often is not refused for longer. */
static void refusals_take_nothing(void **state)
{
    (void)state;
    const struct rate rate = {10, 2};
    struct rate_bucket bucket = {0};
    assert_int_equal(take(&bucket, &rate, START, 100000), 20);
    assert_int_equal(take(&bucket, &rate, START + SECOND / 10, 100000), 1);
}

/* A clock that another process has read a moment before. */
static void time_may_go_back_a_little(void **state)
{
    (void)state;
    const struct rate rate = {10, 2};
    struct rate_bucket bucket = {0};
    assert_int_equal(take(&bucket, &rate, START + 1000, 19), 19);
    assert_int_equal(take(&bucket, &rate, START, 5), 0); /* 1 ms earlier there is not quite another one */
    assert_int_equal(take(&bucket, &rate, START + 1000, 5), 1);
}

/* A reload that changes the rate: what is in the bucket goes on counting in seconds. */
static void a_rate_may_change(void **state)
{
    (void)state;
    const struct rate slow = {1, 2}, fast = {1000, 2}, longer = {1000, 4};
    struct rate_bucket bucket = {0};
    assert_int_equal(take(&bucket, &slow, START, 5), 2);
    assert_int_equal(take(&bucket, &fast, START, 5), 0);
    assert_int_equal(take(&bucket, &fast, START + SECOND, 5000), 1000);
    assert_int_equal(take(&bucket, &longer, START + SECOND, 5000), 2000);
    assert_int_equal(take(&bucket, &fast, START + SECOND, 1), 0);
    assert_int_equal(take(&bucket, &fast, START + 2 * SECOND, 5000), 1000);
}

/* What somebody else has written is at worst an empty bucket, and no more than a full one. */
static void nonsense_lasts_no_longer_than_a_burst(void **state)
{
    (void)state;
    static const uint64_t WRITTEN[] = {UINT64_MAX, UINT64_MAX / 2, START * 1000 + UINT64_C(3000000000)};
    const struct rate rate = {100, 2};
    for (size_t i = 0; i < COUNT_OF(WRITTEN); i++) {
        struct rate_bucket bucket = {WRITTEN[i]};
        assert_int_equal(take(&bucket, &rate, START, 5), 0);
        assert_int_equal(take(&bucket, &rate, START + SECOND, 500), 100);
        assert_int_equal(take(&bucket, &rate, START + 5 * SECOND, 500), 200);
    }
    struct rate_bucket bucket = {0};
    assert_int_equal(take(&bucket, &rate, START, 500), 200);
}

#define PROCESSES 4
#define EACH      20000

/* No more and no fewer than there are, however they meet. */
static void processes_share_a_bucket(void **state)
{
    (void)state;
    const struct rate rate = {25000, 2};
    struct rate_bucket *bucket =
        mmap(NULL, sizeof *bucket, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int results[2];
    unsigned sum = 0, taken;
    assert_ptr_not_equal(bucket, MAP_FAILED);
    assert_int_equal(pipe(results), 0);
    for (unsigned i = 0; i < PROCESSES; i++) {
        if (fork() == 0) {
            taken = take(bucket, &rate, START, EACH);
            _exit(write(results[1], &taken, sizeof taken) == sizeof taken ? 0 : 1);
        }
    }
    for (unsigned i = 0; i < PROCESSES; i++) {
        int status;
        assert_int_equal(read(results[0], &taken, sizeof taken), sizeof taken);
        assert_true(wait(&status) > 0 && status == 0);
        sum += taken;
    }
    assert_int_equal(sum, 50000);
    assert_int_equal(close(results[0]) + close(results[1]), 0);
    assert_int_equal(munmap(bucket, sizeof *bucket), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_bucket_has_its_burst),
        cmocka_unit_test(a_second_brings_the_rate),
        cmocka_unit_test(one_comes_back_in_its_time),
        cmocka_unit_test(refusals_take_nothing),
        cmocka_unit_test(time_may_go_back_a_little),
        cmocka_unit_test(a_rate_may_change),
        cmocka_unit_test(nonsense_lasts_no_longer_than_a_burst),
        cmocka_unit_test(processes_share_a_bucket),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
