/* Verdicts on the chains of a table, which a chain in another's place does not inherit. */
#include "proxy/certificate_verdicts.h"

#include "proxy/certificates_private.h"
#include "tests/unit/check.h"

enum { CHAINS = 4 };

struct fixture {
    struct certificate chains[CHAINS];
    struct certificate *list[CHAINS];
    uint8_t verdicts[CHAINS];
    struct certificates table;
};

static void put(struct fixture *fixture, size_t index, struct certificate *certificate)
{
    certificate->index = index;
    fixture->list[index] = certificate;
    certificates_verdict_begin(&fixture->table, index);
}

static int set_up(void **state)
{
    static struct fixture fixture;
    fixture = (struct fixture){
        .table = {.list = fixture.list, .verdicts = fixture.verdicts, .count = CHAINS, .capacity = CHAINS}};
    for (size_t i = 0; i < CHAINS; i++) {
        fixture.chains[i].mark[3] = (uint8_t)i;
        put(&fixture, i, &fixture.chains[i]);
    }
    *state = &fixture;
    return 0;
}

static void check_verdict(const struct fixture *fixture, size_t index, enum certificate_verdict verdict)
{
    assert_int_equal(certificates_verdict(&fixture->table, fixture->list[index]), verdict);
}

static bool judge(struct fixture *fixture, size_t index, bool is_signed)
{
    return certificates_judge(&fixture->table, certificate_place(fixture->list[index]), is_signed);
}

/* Each once, in order, whatever is found of it. */
static void test_each_is_tried_once(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < CHAINS; i++) {
        assert_ptr_equal(certificates_untried(&fixture->table), fixture->list[i]);
        assert_ptr_equal(certificates_untried(&fixture->table), fixture->list[i]);
        (void)judge(fixture, i, i % 2 == 0);
    }
    assert_null(certificates_untried(&fixture->table));
    check_verdict(fixture, 2, CERTIFICATE_GOOD);
    check_verdict(fixture, 3, CERTIFICATE_KEPT_OUT);
}

static void test_what_came_with_a_verdict_is_not_tried(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < CHAINS; i++) {
        fixture->chains[i].verdict = i == 2 ? CERTIFICATE_UNTRIED : CERTIFICATE_GOOD;
        put(fixture, i, &fixture->chains[i]);
    }
    assert_ptr_equal(certificates_untried(&fixture->table), fixture->list[2]);
}

static void test_changes_are_told(void **state)
{
    struct fixture *fixture = *state;
    assert_false(judge(fixture, 1, true));
    assert_true(judge(fixture, 1, false));
    assert_false(judge(fixture, 1, false));
    assert_true(judge(fixture, 1, true));
    assert_true(judge(fixture, 2, false));
}

static void test_another_in_its_place(void **state)
{
    struct fixture *fixture = *state;
    struct certificate renewed = {.mark = {9}};
    const uint64_t place = certificate_place(&fixture->chains[1]);
    for (size_t i = 0; i < CHAINS; i++)
        (void)judge(fixture, i, false);
    put(fixture, 1, &renewed);
    check_verdict(fixture, 1, CERTIFICATE_UNTRIED);
    assert_ptr_equal(certificates_untried(&fixture->table), &renewed);
    assert_false(certificates_judge(&fixture->table, place, false));
    check_verdict(fixture, 1, CERTIFICATE_UNTRIED);
    check_verdict(fixture, 2, CERTIFICATE_KEPT_OUT);
    /* ... and who still holds the old one finds nothing against it. */
    assert_int_equal(certificates_verdict(&fixture->table, &fixture->chains[1]), CERTIFICATE_UNTRIED);
}

static void test_no_such_place(void **state)
{
    struct fixture *fixture = *state;
    const struct certificate beyond = {.index = CHAINS};
    assert_false(certificates_judge(&fixture->table, certificate_place(&beyond), false));
    assert_false(certificates_judge(&fixture->table, UINT64_MAX, false));
    assert_int_equal(certificates_verdict(&fixture->table, &beyond), CERTIFICATE_UNTRIED);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup(function, set_up)
    const struct CMUnitTest tests[] = {
        TEST(test_each_is_tried_once), TEST(test_what_came_with_a_verdict_is_not_tried),
        TEST(test_changes_are_told),   TEST(test_another_in_its_place),
        TEST(test_no_such_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
