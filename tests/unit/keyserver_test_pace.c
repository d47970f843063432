/* How many requests of a class one connection may have with the signer. */
#include "keyserver/pace.h"

#include "tests/unit/check.h"

static struct pace pace_of(uint64_t deadline, unsigned threads)
{
    const struct keyserver_config config = {
        .queues = {.ec = 8192, .rsa = 2048, .rsa_large = 256, .deadline = deadline}};
    struct pace pace;
    pace_init(&pace, &config, threads);
    return pace;
}

static void sign_many(struct pace *pace, enum key_class class, uint32_t microseconds)
{
    for (unsigned i = 0; i < 1000; i++)
        pace_signed(pace, class, microseconds);
}

static void test_limits(void **state)
{
    static const struct limit_row {
        const char *name;
        enum key_class class;
        uint32_t microseconds; /* that each signature takes */
        uint64_t deadline;
        unsigned threads;
        size_t least, most;
    } ROWS[] = {
        {"no more than the queue holds", KEY_CLASS_EC, 30, 10000000, 4, 8192, 8192},
        {"RSA-4096 on one core", KEY_CLASS_RSA_LARGE, 5000, 1000000, 1, 19, 21},
        {"RSA-4096 on two cores", KEY_CLASS_RSA_LARGE, 5000, 1000000, 2, 38, 42},
        {"a machine ten times as slow", KEY_CLASS_RSA, 4000, 1000000, 1, 24, 26},
        {"one for each thread at least", KEY_CLASS_RSA_LARGE, 900000, 1000000, 4, 4, 4},
        {"signatures that take no time", KEY_CLASS_RSA, 0, 1000000, 1, 2048, 2048},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct pace pace = pace_of(ROWS[i].deadline, ROWS[i].threads);
        sign_many(&pace, ROWS[i].class, ROWS[i].microseconds);
        size_t limit = pace_limit(&pace, ROWS[i].class);
        if (limit < ROWS[i].least || limit > ROWS[i].most)
            fail_msg("%s: %zu", ROWS[i].name, limit);
    }
}

/* The first burst is small enough for the slowest keys of the class that are usual. */
static void test_first_burst(void **state)
{
    static const uint64_t SLOW[KEY_CLASSES] = {1000, 20000, 300000}; /* RSA-16384, and a busy machine */
    (void)state;
    struct pace pace = pace_of(1000000, 1);
    for (enum key_class class = 0; class < KEY_CLASSES; class ++)
        assert_in_range(pace_limit(&pace, class) * SLOW[class], 1, 300000);
}

/* Short queues are the operator's wish, even where there are more threads. */
static void test_short_queue(void **state)
{
    const struct keyserver_config config = {.queues = {.ec = 3, .rsa = 2, .rsa_large = 1, .deadline = 1000}};
    struct pace pace;
    (void)state;
    pace_init(&pace, &config, 8);
    assert_int_equal(pace_limit(&pace, KEY_CLASS_EC), 3);
    assert_int_equal(pace_limit(&pace, KEY_CLASS_RSA), 2);
    assert_int_equal(pace_limit(&pace, KEY_CLASS_RSA_LARGE), 1);
}

static void test_adapts(void **state)
{
    (void)state;
    struct pace pace = pace_of(1000000, 1);
    sign_many(&pace, KEY_CLASS_RSA, 400);
    size_t fast = pace_limit(&pace, KEY_CLASS_RSA);
    sign_many(&pace, KEY_CLASS_RSA, 4000);
    size_t slow = pace_limit(&pace, KEY_CLASS_RSA);
    assert_in_range(fast / slow, 9, 11);
    assert_int_equal(pace_limit(&pace, KEY_CLASS_EC), 100); /* others have nothing to do with it */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_first_burst),
        cmocka_unit_test(test_short_queue),
        cmocka_unit_test(test_adapts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
