/* The responses that all processes share: who finds what, over forks, and when there are too many. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <sys/wait.h>
#include <unistd.h>

#include "proxy/staples.h"
#include "tests/unit/check.h"

static time_t now(void)
{
    static time_t began;
    if (began == 0)
        began = time(NULL);
    return began;
}

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

static bool put_kind(struct staples *staples, const struct certificate *certificate, enum staple_kind kind,
                     struct bytes response, time_t next_update)
{
    const struct staple_times times = {now() - 10, next_update, now()};
    return staples_put(staples, certificate, kind, response, &times);
}

static bool put(struct staples *staples, const struct certificate *certificate, const char *response,
                time_t next_update)
{
    return put_kind(staples, certificate, STAPLE_RESPONSE, bytes_of(response, strlen(response)), next_update);
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
    assert_int_equal(staples_state(staples, &a, now(), &until), STAPLE_MISSING);
    assert_true(put(staples, &a, "one", now() + 10));
    assert_true(holds(staples, &a, "one"));
    assert_false(holds(staples, &b, "one"));
    uint64_t version = staples_version(staples, staples_find(staples, &a));
    assert_true(put(staples, &a, "two", now() + 20));
    assert_true(holds(staples, &a, "two"));
    assert_int_not_equal(staples_version(staples, staples_find(staples, &a)), version);
    assert_int_equal(staples_state(staples, &a, now(), &until), STAPLE_GOOD);
    assert_int_equal(until, now() + 20);
    staples_free(staples);
}

static void shown_until(void **state)
{
    struct staples *staples = make();
    const struct certificate a = with_mark(1);
    time_t until;
    (void)state;
    assert_true(put(staples, &a, "one", now() + 10));
    assert_true(staples_have(staples, &a, now() + 9));
    assert_false(staples_have(staples, &a, now() + 10));
    assert_int_equal(staples_state(staples, &a, now() + 10, &until), STAPLE_MISSING);
    assert_true(put_kind(staples, &a, STAPLE_REVOCATION, bytes_of(NULL, 0), now() + 10));
    assert_false(staples_have(staples, &a, now()));
    assert_int_equal(staples_state(staples, &a, now(), &until), STAPLE_REVOKED);
    assert_int_equal(staples_state(staples, &a, now() + 20, &until), STAPLE_REVOKED);
    assert_true(put_kind(staples, &a, STAPLE_NO_RESPONDER, bytes_of(NULL, 0), now()));
    assert_int_equal(staples_state(staples, &a, now(), &until), STAPLE_UNNAMED);
    staples_free(staples);
}

static void sizes(void **state)
{
    static uint8_t octets[STAPLE_MAX + 1];
    struct staples *staples = make();
    const struct certificate a = with_mark(1);
    (void)state;
    assert_true(put_kind(staples, &a, STAPLE_RESPONSE, bytes_of(octets, STAPLE_MAX), now() + 10));
    assert_false(put_kind(staples, &a, STAPLE_RESPONSE, bytes_of(octets, STAPLE_MAX + 1), now() + 10));
    assert_true(staples_have(staples, &a, now()));
    staples_free(staples);
}

/* Times that would keep all others out for ever are nobody's: a process that was taken over may write
 * anything. */
static void impossible_times(void **state)
{
    static const int64_t LATER = INT64_C(1) << 60;
    struct staples *staples = make();
    const struct certificate a = with_mark(1);
    const struct staple_times BAD[] = {{LATER, now() + 10, now()},
                                       {now(), LATER, now()},
                                       {now(), now() + 10, LATER},
                                       {-1, now() + 10, now()},
                                       {now(), -LATER, now()}};
    time_t until;
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++) {
        assert_true(staples_put(staples, &a, STAPLE_RESPONSE, bytes_of("x", 1), &BAD[i]));
        assert_false(holds(staples, &a, "x"));
        assert_int_equal(staples_state(staples, &a, now(), &until), STAPLE_MISSING);
    }
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
        _exit(put(staples, &a, "one", now() + 10) ? 0 : 1);
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
        good = put(staples, &certificate, "x", count % 2 == 0 ? now() : now() + 200000);
    }
    assert_int_equal(count, 64);
    staples_forget(staples, now() + 86400);
    for (unsigned i = 0; i < count; i++) {
        const struct certificate certificate = with_place(7, i + 1);
        assert_int_equal(holds(staples, &certificate, "x"), i % 2 == 1);
    }
    const struct certificate more = with_place(7, 1000);
    assert_true(put(staples, &more, "y", now() + 10));
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
        assert_true(put(staples, &certificate, text, now() + 10));
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
        cmocka_unit_test(found),   cmocka_unit_test(shown_until),
        cmocka_unit_test(sizes),   cmocka_unit_test(crowded),
        cmocka_unit_test(many),    cmocka_unit_test(of_another_process),
        cmocka_unit_test(settled), cmocka_unit_test(impossible_times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
