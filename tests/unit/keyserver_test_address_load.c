/* Who is counted as the same, and for how long. */
#include "keyserver/address_load.h"

#include <stdio.h>

#include "tests/unit/check.h"

static struct address parse(const char *text)
{
    struct address address;
    struct failure why;
    assert_int_equal(address_parse(text, &address, &why), RESULT_OK);
    return address;
}

static bool enter(struct address_load *load, const char *text)
{
    struct address address = parse(text);
    return address_load_enter(load, &address);
}

static void leave(struct address_load *load, const char *text)
{
    struct address address = parse(text);
    address_load_leave(load, &address);
}

/* Which address is the same as 192.0.2.1:1 or [2001:db8:1:2::1]:1, of which there is one already. */
static void test_what_is_one_address(void **state)
{
    static const struct {
        const char *first, *second;
        bool same;
    } ROWS[] = {
        {"192.0.2.1:1", "192.0.2.1:2", true},
        {"192.0.2.1:1", "192.0.2.2:1", false},
        {"192.0.2.1:1", "[::ffff:192.0.2.1]:1", true},
        {"192.0.2.1:1", "[c000:201::]:1", false},
        {"[2001:db8:1:2::1]:1", "[2001:db8:1:2::1]:2", true},
        {"[2001:db8:1:2::1]:1", "[2001:db8:1:2:ffff:ffff:ffff:ffff]:1", true},
        {"[2001:db8:1:2::1]:1", "[2001:db8:1:3::1]:1", false},
        {"unix:/run/keys.sock", "unix:/run/keys.sock", false},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct address_load *load = address_load_new(1, 16);
        assert_non_null(load);
        CHECK(ROWS[i].second, enter(load, ROWS[i].first));
        CHECK(ROWS[i].second, enter(load, ROWS[i].second) == !ROWS[i].same);
        leave(load, ROWS[i].first);
        if (!ROWS[i].same)
            leave(load, ROWS[i].second);
        CHECK(ROWS[i].second, enter(load, ROWS[i].second));
        address_load_free(load);
    }
}

static void test_as_many_as_may_be(void **state)
{
    (void)state;
    struct address_load *load = address_load_new(3, 16);
    assert_non_null(load);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 3; i++)
            assert_true(enter(load, "192.0.2.1:1"));
        for (unsigned i = 0; i < 5; i++)
            assert_false(enter(load, "192.0.2.1:1"));
        leave(load, "192.0.2.1:1");
        assert_true(enter(load, "192.0.2.1:1"));
        assert_false(enter(load, "192.0.2.1:1"));
        for (unsigned i = 0; i < 3; i++)
            leave(load, "192.0.2.1:1");
    }
    /* One that was not let in, or twice: nothing is owed. */
    leave(load, "192.0.2.1:1");
    assert_true(enter(load, "192.0.2.1:1"));
    address_load_free(load);
}

static void test_no_limit(void **state)
{
    (void)state;
    struct address_load *load = address_load_new(0, 16);
    assert_non_null(load);
    for (unsigned i = 0; i < 1000; i++)
        assert_true(enter(load, "192.0.2.1:1"));
    for (unsigned i = 0; i < 1000; i++)
        leave(load, "192.0.2.1:1");
    address_load_free(load);
}

/* More addresses than buckets, which come and go in another order; the sanitizer sees what is left behind. */
static void test_many(void **state)
{
    enum { ADDRESSES = 1000 };
    char text[ADDRESS_TEXT_SIZE];
    (void)state;
    struct address_load *load = address_load_new(2, 1);
    assert_non_null(load);
    for (unsigned i = 0; i < 2 * ADDRESSES; i++) {
        (void)snprintf(text, sizeof text, "[2001:db8:0:%x::1]:1", i % ADDRESSES);
        assert_true(enter(load, text));
    }
    for (unsigned i = 0; i < ADDRESSES; i++) {
        (void)snprintf(text, sizeof text, "[2001:db8:0:%x::2]:1", i * 7 % ADDRESSES);
        assert_false(enter(load, text));
        leave(load, text);
        assert_true(enter(load, text));
        leave(load, text);
        if (i % 2 == 0)
            leave(load, text);
    }
    address_load_free(load);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_one_address),
        cmocka_unit_test(test_as_many_as_may_be),
        cmocka_unit_test(test_no_limit),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
