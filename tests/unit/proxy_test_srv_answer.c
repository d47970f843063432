/* Answers of name servers to questions for SRV records: what is taken of them, and what is refused. */
#include <string.h>

#include "proxy/srv_answer.h"
#include "tests/unit/check.h"

#define HEADER(answers)  "\x12\x34\x85\x80\0\1\0" answers "\0\0\0\0"
#define QUESTION         "\5_keys\4_tcp\7example\0\0\x21\0\1"
#define SRV_HEAD(ttl)    "\xc0\x0c\0\x21\0\1\0\0\0" ttl
#define DATA(p, w, rest) "\0" p "\0" w "\x09\x67" rest
#define TARGET_A         "\1a\7example\0" /* 11 octets */
#define TARGET_B         "\1b\xc0\x17"    /* the rest is in the question */

static struct srv_answer read_whole(const char *octets, size_t size)
{
    struct srv_answer answer;
    assert_true(srv_answer_read(bytes_of(octets, size), &answer));
    return answer;
}

#define READ(octets) read_whole((octets), sizeof(octets) - 1)

static void two_targets(void **state)
{
    (void)state;
    static const char TWO[] = HEADER("\2") QUESTION SRV_HEAD("\x1e") "\0\x11" DATA("\2", "\5", TARGET_A)
        SRV_HEAD("\x0a") "\0\x0a" DATA("\1", "\0", TARGET_B);
    struct srv_answer answer = READ(TWO);
    assert_int_equal(answer.count, 2);
    assert_int_equal(answer.ttl, 10);
    assert_string_equal(answer.targets[0].host, "b.example");
    assert_int_equal(answer.targets[0].priority, 1);
    assert_int_equal(answer.targets[0].port, 2407);
    assert_string_equal(answer.targets[1].host, "a.example");
    assert_int_equal(answer.targets[1].weight, 5);
}

/* Of one priority the heaviest first; of more than there is room for, those that come first. */
static void best_are_kept(void **state)
{
    (void)state;
    char octets[1024] = HEADER("\x0a") QUESTION;
    size_t size = sizeof(HEADER("\x0a") QUESTION) - 1;
    for (unsigned i = 0; i < 10; i++) {
        char record[] = SRV_HEAD("\x0a") "\0\x0a" DATA("\1", "\0", TARGET_B);
        record[12 + 3] = (char)(i + 1); /* the weight */
        memcpy(octets + size, record, sizeof record - 1);
        size += sizeof record - 1;
    }
    struct srv_answer answer = read_whole(octets, size);
    assert_int_equal(answer.count, SRV_TARGETS_MAX);
    assert_int_equal(answer.targets[0].weight, 10);
    assert_int_equal(answer.targets[SRV_TARGETS_MAX - 1].weight, 3);
}

static void passed_over(void **state)
{
    (void)state;
    static const char NOT_OFFERED[] = HEADER("\1") QUESTION SRV_HEAD("\x0a") "\0\7" DATA("\0", "\0", "\0");
    static const char ODD[] = HEADER("\1") QUESTION SRV_HEAD("\x0a") "\0\x0a" DATA("\0", "\0", "\2a/\0");
    static const char ALIAS[] = HEADER("\1") QUESTION "\xc0\x0c\0\5\0\1\0\0\0\7\0\2\xc0\x17";
    assert_int_equal(READ(NOT_OFFERED).count, 0);
    assert_int_equal(READ(ODD).count, 0);
    assert_int_equal(READ(ALIAS).count, 0);
    assert_int_equal(READ(ALIAS).ttl, 7);
}

/* A whole answer cut anywhere, and names that go round. */
static void refused(void **state)
{
    (void)state;
    static const char ONE[] = HEADER("\1") QUESTION SRV_HEAD("\x1e") "\0\x0a" DATA("\2", "\5", TARGET_B);
    static const char ROUND[] = HEADER("\1") QUESTION SRV_HEAD("\x1e") "\0\x08" DATA("\2", "\5", "\xc0\x30");
    struct srv_answer answer;
    assert_int_equal(READ(ONE).count, 1);
    for (size_t size = 0; size + 1 < sizeof ONE; size++)
        assert_false(srv_answer_read(bytes_of(ONE, size), &answer));
    for (unsigned at = 0x28; at < 0x60; at++) {
        char round[sizeof ROUND];
        memcpy(round, ROUND, sizeof ROUND);
        round[sizeof ROUND - 2] = (char)at;
        if (srv_answer_read(bytes_of(round, sizeof ROUND - 1), &answer))
            assert_in_range(answer.count, 0, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_targets),
        cmocka_unit_test(best_are_kept),
        cmocka_unit_test(passed_over),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
