/* The key server's table of metrics: whole, and its rows where the functions that choose among them expect
 * them. */
#include "keyserver/keyserver_metrics.h"

#include <stdio.h>

#include "common/kssl.h"
#include "keyserver/key_table.h"
#include "tests/unit/check.h"

static void test_table(void **state)
{
    (void)state;
    struct metrics *metrics = NULL;
    struct failure why = {0};
    for (size_t i = 0; i < KEYSERVER_METRIC_COUNT; i++)
        assert_non_null(keyserver_metrics[i].name);
    if (metrics_new(keyserver_metrics, KEYSERVER_METRIC_COUNT, &metrics, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    metrics_free(metrics);
}

static void check_labels(size_t metric, const char *labels)
{
    assert_string_equal(keyserver_metrics[metric].labels, labels);
}

static void test_requests(void **state)
{
    (void)state;
    check_labels(keyserver_metric_of_request(KSSL_OP_SIGN_TLS13, KSSL_ERROR_NONE),
                 "client=\"*\",operation=\"sign-tls13\",outcome=\"ok\"");
    check_labels(keyserver_metric_of_request(KSSL_OP_RSA_SIGN_SHA256, KSSL_ERROR_KEY_NOT_FOUND),
                 "client=\"*\",operation=\"digest\",outcome=\"error\"");
    check_labels(keyserver_metric_of_request(0xee, KSSL_ERROR_BAD_OPCODE),
                 "client=\"*\",operation=\"other\",outcome=\"error\"");
}

static void test_signatures(void **state)
{
    (void)state;
    char labels[64];
    for (unsigned type = KEY_TYPE_RSA; type <= KEY_TYPE_ED448; type++) {
        (void)snprintf(labels, sizeof labels, "key_type=\"%s\",outcome=\"ok\"", key_type_name(type));
        check_labels(keyserver_metric_of_signature(type, KSSL_ERROR_NONE), labels);
        (void)snprintf(labels, sizeof labels, "key_type=\"%s\",outcome=\"error\"", key_type_name(type));
        check_labels(keyserver_metric_of_signature(type, KSSL_ERROR_OVERLOADED), labels);
    }
}

/* Each is shown with the words that the log has for it. */
static void test_refusals(void **state)
{
    (void)state;
    char labels[128];
    for (unsigned error = 1; error < 256; error++) {
        size_t metric = keyserver_metric_of_refusal((uint8_t)error);
        if (metric == KEYSERVER_REFUSED_OTHER)
            continue;
        (void)snprintf(labels, sizeof labels, "error=\"0x%02X\",reason=\"%s\"", error,
                       kssl_error_name((uint8_t)error));
        check_labels(metric, labels);
    }
}

static void test_classes(void **state)
{
    (void)state;
    static const size_t FIRST[] = {KEYSERVER_QUEUED, KEYSERVER_QUEUE_SECONDS, KEYSERVER_SIGN_SECONDS,
                                   KEYSERVER_QUEUE_FULL, KEYSERVER_QUEUE_LATE};
    char labels[64];
    for (size_t i = 0; i < COUNT_OF(FIRST); i++)
        for (unsigned class = 0; class < KEY_CLASSES; class ++) {
            (void)snprintf(labels, sizeof labels, "class=\"%s\"", key_class_name(class));
            check_labels(FIRST[i] + class, labels);
        }
}

static void test_ends(void **state)
{
    (void)state;
    static const char *const REASONS[CONNECTION_ENDS] = {
        "other", "closed", "lost", "idle", "unread", "certificate_expired", "protocol", "drained", "dropped",
    };
    char labels[64];
    for (unsigned end = 0; end < CONNECTION_ENDS; end++) {
        (void)snprintf(labels, sizeof labels, "reason=\"%s\"", REASONS[end]);
        check_labels(KEYSERVER_CLOSED + end, labels);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),    cmocka_unit_test(test_requests), cmocka_unit_test(test_signatures),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_classes),  cmocka_unit_test(test_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
