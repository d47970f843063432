/* The proxy's table of metrics: whole, and its rows where the functions that choose among them expect them.
 */
#include "proxy/proxy_metrics.h"

#include <stdio.h>

#include "common/kssl.h"
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

/* The name of each reason, which dashboards and alerts are made of. */
static const char *const REASONS[HANDSHAKE_CLASSES] = {
    [HANDSHAKE_CLASS_CLOSED] = "client_closed",
    [HANDSHAKE_CLASS_RESET] = "client_reset",
    [HANDSHAKE_CLASS_NOT_TLS] = "not_tls",
    [HANDSHAKE_CLASS_VERSION] = "protocol_version",
    [HANDSHAKE_CLASS_CIPHER] = "no_shared_cipher",
    [HANDSHAKE_CLASS_GROUP] = "no_shared_group",
    [HANDSHAKE_CLASS_SCHEME] = "no_shared_signature_algorithm",
    [HANDSHAKE_CLASS_ALPN] = "no_shared_application_protocol",
    [HANDSHAKE_CLASS_NAME] = "unknown_name",
    [HANDSHAKE_CLASS_CERTIFICATE] = "client_refused_certificate",
    [HANDSHAKE_CLASS_NO_CLIENT_CERTIFICATE] = "no_client_certificate",
    [HANDSHAKE_CLASS_CLIENT_CERTIFICATE] = "client_certificate",
    [HANDSHAKE_CLASS_ALERT] = "client_alert",
    [HANDSHAKE_CLASS_MALFORMED] = "malformed",
    [HANDSHAKE_CLASS_KEY_NO_SERVER] = "no_key_server",
    [HANDSHAKE_CLASS_KEY_TIMEOUT] = "key_timeout",
    [HANDSHAKE_CLASS_KEY_ERROR] = "key_error",
    [HANDSHAKE_CLASS_KEY_INVALID] = "key_invalid",
    [HANDSHAKE_CLASS_KEY_WRONG] = "key_wrong",
    [HANDSHAKE_CLASS_KEY_REFUSED] = "key_refused",
    [HANDSHAKE_CLASS_KEY_TOO_MANY] = "too_many_pending",
    [HANDSHAKE_CLASS_KEY_TRANSCRIPT] = "key_transcript",
    [HANDSHAKE_CLASS_TIMEOUT] = "timeout",
    [HANDSHAKE_CLASS_DROPPED] = "dropped",
    [HANDSHAKE_CLASS_INTERNAL] = "internal",
};

static void test_failures(void **state)
{
    (void)state;
    char wanted[64];
    for (unsigned class = HANDSHAKE_CLASS_NONE + 1; class < HANDSHAKE_CLASSES; class ++) {
        const struct metric *row = &proxy_metrics[PROXY_FAILURES + class - 1];
        assert_non_null(REASONS[class]);
        (void)snprintf(wanted, sizeof wanted, "reason=\"%s\"", REASONS[class]);
        assert_string_equal(row->labels, wanted);
        assert_string_equal(row->name, "keyless_handshake_failures_total");
        assert_int_not_equal(handshake_fault_of(class), HANDSHAKE_FAULT_NONE);
    }
}

/* Each is shown with the words that the log has for it. */
static void test_key_errors(void **state)
{
    (void)state;
    char labels[128];
    unsigned named = 0;
    for (unsigned error = 0; error < 256; error++) {
        size_t metric = proxy_metric_of_key_error((uint8_t)error);
        if (metric == PROXY_KEY_ERROR_OTHER)
            continue;
        (void)snprintf(labels, sizeof labels, "server=\"*\",error=\"0x%02X\",reason=\"%s\"", error,
                       kssl_error_name((uint8_t)error));
        assert_string_equal(proxy_metrics[metric].labels, labels);
        named++;
    }
    assert_int_equal(named, PROXY_KEY_ERROR_OTHER - PROXY_KEY_ERROR_CRYPTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_table), cmocka_unit_test(test_successes),
                                       cmocka_unit_test(test_failures), cmocka_unit_test(test_key_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
