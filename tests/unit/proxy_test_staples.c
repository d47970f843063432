/* The responses that all processes share: who finds what, over forks, and when there are too many. */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proxy/staples.h"
#include "tests/unit/check.h"

#define NOW 1800000000

/* Only the mark tells one from another here. */
static struct certificate with_mark(unsigned number)
{
    struct certificate made = {0};
    memset(made.mark, 0x5a, sizeof made.mark);
    memcpy(made.mark, &number, sizeof number);
    return made;
}

/* Those of one number have the same place to begin with. */
static struct certificate with_place(unsigned place, unsigned number)
{
    struct certificate made = {0};
    memcpy(made.mark, &number, sizeof number);
    memcpy(made.mark + 4, &place, sizeof place);
    return made;
}

static struct staples *make(void)
{
    struct staples *staples;
    struct failure why;
    assert_int_equal(staples_new(&staples, &why), RESULT_OK);
    return staples;
}

static bool put(struct staples *staples, const struct certificate *certificate, const char *response,
                time_t next_update)
{
    return staples_put(staples, certificate, bytes_of(response, strlen(response)), false, NOW - 10,
                       next_update, NOW);
}

static bool holds(const struct staples *staples, const struct certificate *certificate, const char *response)
{
    struct staple staple;
    size_t place = staples_find(staples, certificate);
    return place != STAPLE_NOWHERE && staples_read(staples, place, certificate, &staple) &&
           bytes_equal(bytes_of(staple.response, staple.size), bytes_of(response, strlen(response)));
}

static void found(void **state)
{
    struct staples *staples = make();
    const struct certificate a = with_mark(1), b = with_mark(2);
    time_t until = 0;
    (void)state;
    assert_int_equal(staples_find(NULL, &a), STAPLE_NOWHERE);
    assert_int_equal(staples_find(staples, &a), STAPLE_NOWHERE);
    assert_int_equal(staples_state(staples, &a, NOW, &until), STAPLE_MISSING);
    assert_true(put(staples, &a, "one", NOW + 10));
    assert_true(holds(staples, &a, "one"));
    assert_false(holds(staples, &b, "one"));
    uint64_t version = staples_version(staples, staples_find(staples, &a));
    assert_true(put(staples, &a, "two", NOW + 20));
    assert_true(holds(staples, &a, "two"));
    assert_int_not_equal(staples_version(staples, staples_find(staples, &a)), version);
    assert_int_equal(staples_state(staples, &a, NOW, &until), STAPLE_GOOD);
    assert_int_equal(until, NOW + 20);
    staples_free(staples);
}

static void shown_until(void **state)
{
    struct staples *staples = make();
    const struct certificate a = with_mark(1);
    time_t until;
    (void)state;
    assert_true(put(staples, &a, "one", NOW + 10));
    assert_true(staples_have(staples, &a, NOW + 9));
    assert_false(staples_have(staples, &a, NOW + 10));
    assert_int_equal(staples_state(staples, &a, NOW + 10, &until), STAPLE_MISSING);
    assert_true(staples_put(staples, &a, bytes_of(NULL, 0), true, NOW, NOW + 10, NOW));
    assert_false(staples_have(staples, &a, NOW));
    assert_int_equal(staples_state(staples, &a, NOW, &until), STAPLE_REVOKED);
    staples_free(staples);
}

static void sizes(void **state)
{
    static uint8_t octets[STAPLE_MAX + 1];
    struct staples *staples = make();
    const struct certificate a = with_mark(1);
    (void)state;
    assert_true(staples_put(staples, &a, bytes_of(octets, STAPLE_MAX), false, NOW, NOW + 10, NOW));
    assert_false(staples_put(staples, &a, bytes_of(octets, STAPLE_MAX + 1), false, NOW, NOW + 10, NOW));
    assert_true(staples_have(staples, &a, NOW));
    staples_free(staples);
}

static void of_another_process(void **state)
{
    struct staples *staples = make();
    const struct certificate a = with_mark(1);
    int status;
    (void)state;
    pid_t child = fork();
    if (child == 0)
        _exit(put(staples, &a, "one", NOW + 10) ? 0 : 1);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_true(holds(staples, &a, "one"));
    staples_free(staples);
}

/* As many as have one beginning find no more room; what is long out of date makes some. */
static void crowded(void **state)
{
    struct staples *staples = make();
    unsigned count = 0;
    (void)state;
    for (bool good = true; good; count += good) {
        const struct certificate certificate = with_place(7, count + 1);
        good = put(staples, &certificate, "x", count % 2 == 0 ? NOW : NOW + 200000);
    }
    assert_int_equal(count, 64);
    staples_forget(staples, NOW + 86400);
    for (unsigned i = 0; i < count; i++) {
        const struct certificate certificate = with_place(7, i + 1);
        assert_int_equal(holds(staples, &certificate, "x"), i % 2 == 1);
    }
    const struct certificate more = with_place(7, 1000);
    assert_true(put(staples, &more, "y", NOW + 10));
    assert_true(holds(staples, &more, "y"));
    staples_free(staples);
}

static void many(void **state)
{
    struct staples *staples = make();
    char text[16];
    (void)state;
    for (unsigned i = 1; i <= 10000; i++) {
        const struct certificate certificate = with_place(i * 2654435761u, i);
        (void)snprintf(text, sizeof text, "r%u", i);
        assert_true(put(staples, &certificate, text, NOW + 10));
    }
    for (unsigned i = 1; i <= 10000; i++) {
        const struct certificate certificate = with_place(i * 2654435761u, i);
        (void)snprintf(text, sizeof text, "r%u", i);
        assert_true(holds(staples, &certificate, text));
    }
    staples_free(staples);
}

static void settled(void **state)
{
    struct staples *staples = make();
    (void)state;
    assert_false(staples_settled(staples, 1));
    staples_settle(staples, 1);
    assert_true(staples_settled(staples, 1));
    assert_false(staples_settled(staples, 2));
    staples_free(staples);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found),   cmocka_unit_test(shown_until), cmocka_unit_test(sizes),
        cmocka_unit_test(crowded), cmocka_unit_test(many),        cmocka_unit_test(of_another_process),
        cmocka_unit_test(settled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
