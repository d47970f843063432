/* What the answer to a test request says of the chain. */
#include "proxy/test_request.h"

#include "tests/unit/check.h"

static const struct {
    const char *name;
    enum key_outcome outcome;
    enum result result;
    uint8_t error;
    enum test_finding finding;
} ROWS[] = {
    {"a signature", KEY_OUTCOME_OK, RESULT_OK, 0, TEST_GOOD},
    {"no such key", KEY_OUTCOME_ERROR, RESULT_PEER, KSSL_ERROR_KEY_NOT_FOUND, TEST_BAD},
    {"a key that does not work", KEY_OUTCOME_ERROR, RESULT_PEER, KSSL_ERROR_CRYPTO, TEST_BAD},
    {"another key", KEY_OUTCOME_WRONG, RESULT_CRYPTO, 0, TEST_BAD},
    {"no signature", KEY_OUTCOME_INVALID, RESULT_PROTOCOL, 0, TEST_BAD},
    {"away", KEY_OUTCOME_NO_SERVER, RESULT_PEER, 0, TEST_UNANSWERED},
    {"slow", KEY_OUTCOME_TIMEOUT, RESULT_PEER, 0, TEST_UNANSWERED},
    {"overloaded", KEY_OUTCOME_ERROR, RESULT_PEER, KSSL_ERROR_OVERLOADED, TEST_UNANSWERED},
    {"over its rate", KEY_OUTCOME_ERROR, RESULT_PEER, KSSL_ERROR_RATE, TEST_UNANSWERED},
    {"in trouble", KEY_OUTCOME_ERROR, RESULT_PEER, KSSL_ERROR_INTERNAL, TEST_UNANSWERED},
    {"not offered", KEY_OUTCOME_REFUSED, RESULT_CONFIG, KSSL_ERROR_BAD_OPCODE, TEST_UNANSWERED},
    {"not sent", KEY_OUTCOME_REFUSED, RESULT_LIMIT, 0, TEST_UNANSWERED},
    {"against the policy", KEY_OUTCOME_ERROR, RESULT_PEER, KSSL_ERROR_POLICY, TEST_IRRELEVANT},
    {"content", KEY_OUTCOME_ERROR, RESULT_PEER, KSSL_ERROR_CONTENT, TEST_IRRELEVANT},
    {"not made well", KEY_OUTCOME_MISMATCH, RESULT_PROTOCOL, 0, TEST_IRRELEVANT},
};

static void test_findings(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        const struct test_request request = {
            .operation = {.outcome = ROWS[i].outcome, .result = ROWS[i].result, .error = ROWS[i].error}};
        CHECK(ROWS[i].name, test_request_finding(&request) == ROWS[i].finding);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_findings)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
