/* The proxy's table of metrics: whole, and its rows where the functions that choose among them expect them.
 */
#include "proxy/proxy_metrics.h"

#include <stdio.h>

#include "tests/unit/check.h"

static void test_table(void **state)
{
    (void)state;
    struct metrics *metrics = NULL;
    struct failure why = {0};
    for (size_t i = 0; i < PROXY_METRIC_COUNT; i++)
        assert_non_null(proxy_metrics[i].name);
    if (metrics_new(proxy_metrics, PROXY_METRIC_COUNT, &metrics, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    metrics_free(metrics);
}

static void test_successes(void **state)
{
    (void)state;
    char wanted[128];
    for (unsigned version = 2; version <= 3; version++)
        for (unsigned type = KEY_TYPE_NONE; type <= KEY_TYPE_ED448; type++) {
            const struct metric *row = &proxy_metrics[proxy_metric_of_success(version == 3, type)];
            (void)snprintf(wanted, sizeof wanted, "version=\"TLSv1.%u\",key_type=\"%s\",resumed=\"%s\"",
                           version, type == KEY_TYPE_NONE ? "none" : key_type_name(type),
                           type == KEY_TYPE_NONE ? "true" : "false");
            assert_string_equal(row->labels, wanted);
        }
}

static void test_failures(void **state)
{
    (void)state;
    assert_string_equal(proxy_metrics[PROXY_FAILURES + HANDSHAKE_CLASS_CLOSED - 1].labels,
                        "reason=\"client_closed\"");
    assert_string_equal(proxy_metrics[PROXY_FAILURES + HANDSHAKE_CLASS_INTERNAL - 1].labels,
                        "reason=\"internal\"");
    for (unsigned class = HANDSHAKE_CLASS_NONE + 1; class < HANDSHAKE_CLASSES; class ++)
        assert_int_not_equal(handshake_fault_of(class), HANDSHAKE_FAULT_NONE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_successes),
                                       cmocka_unit_test(test_failures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
