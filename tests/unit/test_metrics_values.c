/* Metrics with a label whose values come from the configuration, and lines that are not counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <event2/buffer.h>
#include <sys/wait.h>

#include "common/metrics.h"

enum { OK, FAILED, SECONDS, BY_CLIENT, PLAIN };

static const struct metric TABLE[] = {
    [OK] = {"keyless_requests_total", "server=\"*\",outcome=\"ok\"", METRIC_COUNTER, "Requests"},
    [FAILED] = {"keyless_requests_total", "server=\"*\",outcome=\"failed\"", METRIC_COUNTER, "Requests"},
    [SECONDS] = {"keyless_request_seconds", "server=\"*\"", METRIC_HISTOGRAM, "Time"},
    [BY_CLIENT] = {"keyless_answers_total", "kind=\"a\",client=\"*\"", METRIC_COUNTER, "Answers"},
    [PLAIN] = {"keyless_reloads_total", NULL, METRIC_COUNTER, "Reloads"},
};
#define COUNT (sizeof TABLE / sizeof *TABLE)

static int set_up(void **state)
{
    struct metrics *metrics = NULL;
    struct failure why = {0};
    if (metrics_new(TABLE, COUNT, &metrics, &why) != RESULT_OK)
        return -1;
    *state = metrics;
    return 0;
}

static int tear_down(void **state)
{
    metrics_free(*state);
    return 0;
}

/* Whether the page has this line; the caller's text ends it. */
static bool has_line(const struct metrics *metrics, const char *line)
{
    char wanted[512];
    struct evbuffer *buffer = evbuffer_new();
    assert_non_null(buffer);
    (void)evbuffer_add(buffer, "\n", 1);
    metrics_write(metrics, buffer);
    (void)snprintf(wanted, sizeof wanted, "\n%s\n", line);
    struct evbuffer_ptr found = evbuffer_search(buffer, wanted, strlen(wanted), NULL);
    evbuffer_free(buffer);
    return found.pos >= 0;
}

static unsigned count_lines(const struct metrics *metrics, const char *beginning)
{
    struct evbuffer *buffer = evbuffer_new();
    unsigned count = 0;
    char *line;
    assert_non_null(buffer);
    metrics_write(metrics, buffer);
    while ((line = evbuffer_readln(buffer, NULL, EVBUFFER_EOL_LF)) != NULL) {
        count += strncmp(line, beginning, strlen(beginning)) == 0;
        free(line);
    }
    evbuffer_free(buffer);
    return count;
}

static void test_counts_by_value(void **state)
{
    struct metrics *metrics = *state;
    metrics_know(metrics, "server", "keys-a");
    metrics_know(metrics, "server", "keys-b");
    metrics_know(metrics, "server", "keys-a");
    struct metrics_row *row = metrics_take_row(metrics);
    size_t a = metric_value(row, "server", "keys-a");
    size_t b = metric_value(row, "server", "keys-b");
    assert_int_not_equal(a, b);
    metric_add_for(row, OK, a, 3);
    metric_add_for(row, FAILED, b, 2);
    metric_observe_for(row, SECONDS, b, 60);
    metric_observe_for(row, SECONDS, b, 2000000);
    metric_add(row, PLAIN, 1);
    assert_int_equal(metrics_sum(metrics, OK), 3);
    assert_int_equal(metrics_sum(metrics, SECONDS), 2);
    assert_true(has_line(metrics, "keyless_requests_total{server=\"keys-a\",outcome=\"ok\"} 3"));
    assert_true(has_line(metrics, "keyless_requests_total{server=\"keys-a\",outcome=\"failed\"} 0"));
    assert_true(has_line(metrics, "keyless_requests_total{server=\"keys-b\",outcome=\"ok\"} 0"));
    assert_true(has_line(metrics, "keyless_requests_total{server=\"keys-b\",outcome=\"failed\"} 2"));
    assert_true(has_line(metrics, "keyless_request_seconds_bucket{server=\"keys-b\",le=\"0.0001\"} 1"));
    assert_true(has_line(metrics, "keyless_request_seconds_bucket{server=\"keys-b\",le=\"+Inf\"} 2"));
    assert_true(has_line(metrics, "keyless_request_seconds_sum{server=\"keys-b\"} 2.000060"));
    assert_true(has_line(metrics, "keyless_request_seconds_count{server=\"keys-a\"} 0"));
    /* One head for all of a name's lines, none for values that there are not, no values of another label. */
    assert_int_equal(count_lines(metrics, "# TYPE keyless_requests_total"), 1);
    assert_int_equal(count_lines(metrics, "keyless_requests_total{"), 4);
    assert_int_equal(count_lines(metrics, "keyless_answers_total{"), 0);
}

/* What nobody has made known, or no place was left for, is counted all the same. */
static void test_none(void **state)
{
    struct metrics *metrics = *state;
    struct metrics_row *row = metrics_take_row(metrics);
    char name[32];
    assert_int_equal(metric_value(row, "server", "nobody"), 0);
    assert_int_equal(metric_value(row, "no such label", "keys-a"), 0);
    assert_int_equal(metric_value(NULL, "server", "keys-a"), 0);
    assert_int_equal(count_lines(metrics, "keyless_requests_total{"), 0);
    metrics_know(metrics, "server", "none");
    assert_int_equal(metric_value(row, "server", "none"), 0);
    for (unsigned i = 0; i < METRIC_VALUES_MAX + 10; i++) {
        (void)snprintf(name, sizeof name, "keys-%u", i);
        metrics_know(metrics, "server", name);
        metric_add_for(row, OK, metric_value(row, "server", name), 1);
    }
    metric_add(row, OK, 5);
    metric_add_for(row, OK, METRIC_VALUES_MAX, 7); /* out of bounds */
    metric_add_for(row, PLAIN, 3, 1);              /* has no values */
    assert_int_equal(metrics_sum(metrics, OK), METRIC_VALUES_MAX + 10 + 5 + 7);
    assert_int_equal(metrics_sum(metrics, PLAIN), 1);
    assert_true(has_line(metrics, "keyless_requests_total{server=\"keys-254\",outcome=\"ok\"} 1"));
    assert_true(has_line(metrics, "keyless_requests_total{server=\"none\",outcome=\"ok\"} 23"));
    assert_int_equal(count_lines(metrics, "keyless_requests_total{server=\"none\",outcome=\"failed\"}"), 0);
}

static void test_names_are_escaped_and_cut(void **state)
{
    struct metrics *metrics = *state;
    char long_name[METRIC_VALUE_SIZE + 10], other_name[METRIC_VALUE_SIZE + 10];
    memset(long_name, 'x', sizeof long_name);
    memset(other_name, 'x', sizeof other_name);
    long_name[sizeof long_name - 1] = other_name[sizeof other_name - 1] = '\0';
    other_name[METRIC_VALUE_SIZE - 1] = 'y'; /* behind the part by which they are told apart */
    metrics_know(metrics, "client", "CN:a \"b\"\nc\\");
    metrics_know(metrics, "client", long_name);
    struct metrics_row *row = metrics_take_row(metrics);
    metric_add_for(row, BY_CLIENT, metric_value(row, "client", "CN:a \"b\"\nc\\"), 1);
    assert_true(
        has_line(metrics, "keyless_answers_total{kind=\"a\",client=\"CN:a \\\"b\\\"\\\\x0ac\\\\x5c\"} 1"));
    assert_int_not_equal(metric_value(row, "client", long_name), 0);
    assert_int_equal(metric_value(row, "client", other_name), metric_value(row, "client", long_name));
}

/* As at a reload: values come while processes run, and stay when their processes have gone. */
static void test_values_outlive_processes(void **state)
{
    struct metrics *metrics = *state;
    metrics_know(metrics, "server", "keys-a");
    struct metrics_row *row = metrics_take_row(metrics);
    metric_add_for(row, OK, metric_value(row, "server", "keys-a"), 10);
    int start[2];
    assert_int_equal(pipe(start), 0);
    pid_t reader = fork(); /* before the second value, the second row and what is counted there */
    if (reader == 0) {
        char octet;
        bool good = read(start[0], &octet, 1) == 1 &&
                    has_line(metrics, "keyless_requests_total{server=\"keys-a\",outcome=\"ok\"} 10") &&
                    has_line(metrics, "keyless_requests_total{server=\"keys-b\",outcome=\"ok\"} 4");
        _exit(good ? 0 : 1);
    }
    metrics_return_row(metrics, row);
    metrics_know(metrics, "server", "keys-b");
    row = metrics_take_row(metrics);
    pid_t writer = fork();
    if (writer == 0) {
        metric_add_for(row, OK, metric_value(row, "server", "keys-b"), 4);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(writer, &status, 0), writer);
    assert_int_equal(status, 0);
    assert_int_equal(write(start[1], "x", 1), 1);
    assert_int_equal(waitpid(reader, &status, 0), reader);
    assert_int_equal(status, 0);
    (void)close(start[0]);
    (void)close(start[1]);
}

static void test_bad_stars(void **state)
{
    (void)state;
    static const struct metric GAUGE[] = {{"a", "server=\"*\"", METRIC_GAUGE, ""}};
    static const struct metric TWO[] = {{"a", "server=\"*\",client=\"*\"", METRIC_COUNTER, ""}};
    static const struct metric MANY[] = {
        {"a", "a=\"*\"", METRIC_COUNTER, ""}, {"b", "b=\"*\"", METRIC_COUNTER, ""},
        {"c", "c=\"*\"", METRIC_COUNTER, ""}, {"d", "d=\"*\"", METRIC_COUNTER, ""},
        {"e", "e=\"*\"", METRIC_COUNTER, ""},
    };
    static const struct {
        const struct metric *table;
        size_t count;
        const char *text;
    } ROWS[] = {
        {GAUGE, 1, "metric 0, a{server=\"*\"}, cannot have a \"*\" there"},
        {TWO, 1, "metric 0, a{server=\"*\",client=\"*\"}, cannot have a \"*\" there"},
        {MANY, 5, "metric 4, e{e=\"*\"}, cannot have a \"*\" there"},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        struct metrics *metrics = NULL;
        struct failure why = {0};
        assert_int_equal(metrics_new(ROWS[i].table, ROWS[i].count, &metrics, &why), RESULT_CONFIG);
        assert_string_equal(why.text, ROWS[i].text);
    }
}

static void test_lines(void **state)
{
    (void)state;
    const struct metric_label labels[] = {{"version", "0.1"}, {"file", "a\"b"}};
    struct evbuffer *page = evbuffer_new();
    metrics_write_head(page, "keyless_build_info", METRIC_GAUGE, "What\nthis is");
    metrics_write_line(page, "keyless_build_info", labels, 2, 1);
    metrics_write_line(page, "keyless_other", NULL, 0, -5);
    (void)evbuffer_add(page, "", 1);
    assert_string_equal((const char *)evbuffer_pullup(page, -1),
                        "# HELP keyless_build_info What\\nthis is\n# TYPE keyless_build_info gauge\n"
                        "keyless_build_info{version=\"0.1\",file=\"a\\\"b\"} 1\nkeyless_other -5\n");
    evbuffer_free(page);
}

#define WITH_METRICS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_METRICS(test_counts_by_value),
        WITH_METRICS(test_none),
        WITH_METRICS(test_names_are_escaped_and_cut),
        WITH_METRICS(test_values_outlive_processes),
        cmocka_unit_test(test_bad_stars),
        cmocka_unit_test(test_lines),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
