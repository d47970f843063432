/* A share of all requests, and a burst. */
#include "proxy/key_budget.h"

#include "tests/unit/check.h"

static unsigned spend_all(struct key_budget *budget)
{
    unsigned spent = 0;
    while (spent < 100000 && key_budget_spend(budget))
        spent++;
    return spent;
}

static void earn(struct key_budget *budget, unsigned requests)
{
    for (unsigned i = 0; i < requests; i++)
        key_budget_earn(budget, 0);
}

static void test_begins_full(void **state)
{
    (void)state;
    struct key_budget budget = key_budget_of(50, 0, 64);
    assert_int_equal(spend_all(&budget), 64);
    assert_false(key_budget_spend(&budget));
}

static void test_share(void **state)
{
    (void)state;
    static const unsigned shares[] = {0, 1, 10, 50, 200, 1000};
    for (size_t i = 0; i < COUNT_OF(shares); i++) {
        struct key_budget budget = key_budget_of(shares[i], 0, 4096);
        (void)spend_all(&budget);
        earn(&budget, 4000);
        assert_int_equal(spend_all(&budget), 4 * shares[i]);
    }
}

/* However few requests there are, and however often they come. */
static void test_a_second(void **state)
{
    (void)state;
    static const uint64_t pauses[] = {50, 300, 1000, 100000, 500000};
    for (size_t i = 0; i < COUNT_OF(pauses); i++) {
        struct key_budget budget = key_budget_of(0, 2, 64);
        uint64_t now = 0;
        (void)spend_all(&budget);
        while (now < 10000000)
            key_budget_earn(&budget, now += pauses[i]);
        assert_int_equal(spend_all(&budget), 2 * now / 1000000);
    }
}

static void test_saves_no_more_than_the_burst(void **state)
{
    (void)state;
    struct key_budget budget = key_budget_of(1000, 0, 8);
    earn(&budget, 100000);
    assert_int_equal(spend_all(&budget), 8);
}

static void test_return(void **state)
{
    (void)state;
    struct key_budget budget = key_budget_of(0, 0, 1);
    assert_true(key_budget_spend(&budget));
    assert_false(key_budget_spend(&budget));
    key_budget_return(&budget);
    assert_int_equal(spend_all(&budget), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_begins_full), cmocka_unit_test(test_share),
        cmocka_unit_test(test_a_second),    cmocka_unit_test(test_saves_no_more_than_the_burst),
        cmocka_unit_test(test_return),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
