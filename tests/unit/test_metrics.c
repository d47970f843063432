/* Metrics: rows of several processes, rows given back, and the page that Prometheus reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <event2/buffer.h>
#include <sys/wait.h>

#include "common/metrics.h"

enum { OK, FAILED, OPEN, LATENCY, QUEUE, PLAIN };

static const struct metric TABLE[] = {
    [OK] = {"keyless_handshakes_total", "outcome=\"ok\"", METRIC_COUNTER, "Handshakes, by outcome"},
    [FAILED] = {"keyless_handshakes_total", "outcome=\"failed\"", METRIC_COUNTER, "Not shown"},
    [OPEN] = {"keyless_connections", NULL, METRIC_GAUGE, "A \\ and a\nline feed"},
    [LATENCY] = {"keyless_sign_seconds", "class=\"ec\"", METRIC_HISTOGRAM, "Time to sign"},
    [QUEUE] = {"keyless_queue_seconds", NULL, METRIC_HISTOGRAM, "Time in the queue"},
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

static char *page(const struct metrics *metrics)
{
    struct evbuffer *buffer = evbuffer_new();
    assert_non_null(buffer);
    metrics_write(metrics, buffer);
    size_t size = evbuffer_get_length(buffer);
    char *text = malloc(size + 1);
    assert_non_null(text);
    assert_int_equal(evbuffer_remove(buffer, text, size), size);
    text[size] = '\0';
    evbuffer_free(buffer);
    return text;
}

static void test_counts(void **state)
{
    struct metrics *metrics = *state;
    struct metrics_row *a = metrics_take_row(metrics);
    struct metrics_row *b = metrics_take_row(metrics);
    assert_non_null(a);
    assert_non_null(b);
    assert_ptr_not_equal(a, b);
    metric_add(a, OK, 1);
    metric_add(a, OK, 2);
    metric_add(b, OK, 40);
    metric_add(b, FAILED, 5);
    metric_set(a, OPEN, 10);
    metric_change(a, OPEN, -3);
    metric_change(b, OPEN, -9);
    metric_observe(a, LATENCY, 0);
    metric_observe(b, LATENCY, 1000000000);
    assert_int_equal(metrics_sum(metrics, OK), 43);
    assert_int_equal(metrics_sum(metrics, FAILED), 5);
    assert_int_equal(metrics_sum(metrics, OPEN), -2);
    assert_int_equal(metrics_sum(metrics, LATENCY), 2);
    assert_int_equal(metrics_sum(metrics, QUEUE), 0);
    assert_int_equal(metrics_sum(metrics, PLAIN), 0);
    assert_int_equal(metrics_sum(metrics, COUNT), 0);
}

/* Neither a missing row nor an id of another type may touch a neighbour's cells. */
static void test_misuse_counts_nothing(void **state)
{
    struct metrics *metrics = *state;
    struct metrics_row *row = metrics_take_row(metrics);
    char *before = page(metrics);
    metric_add(NULL, OK, 1);
    metric_set(NULL, OPEN, 1);
    metric_change(NULL, OPEN, 1);
    metric_observe(NULL, LATENCY, 1);
    metric_add(row, COUNT, 1);
    metric_add(row, SIZE_MAX, 1);
    metric_add(row, OPEN, 1);
    metric_set(row, OK, 1);
    metric_change(row, LATENCY, 1);
    metric_observe(row, PLAIN, 1);
    char *after = page(metrics);
    assert_string_equal(before, after);
    free(before);
    free(after);
    metrics_return_row(metrics, NULL);
    metrics_free(NULL);
}

static void test_returned_row_keeps_counters(void **state)
{
    struct metrics *metrics = *state;
    struct metrics_row *first = metrics_take_row(metrics);
    struct metrics_row *other = metrics_take_row(metrics);
    metric_add(first, OK, 100);
    metric_set(first, OPEN, 7);
    metric_set(other, OPEN, 1);
    metric_observe(first, LATENCY, 50);
    metrics_return_row(metrics, first);
    assert_int_equal(metrics_sum(metrics, OK), 100);
    assert_int_equal(metrics_sum(metrics, OPEN), 1);
    assert_int_equal(metrics_sum(metrics, LATENCY), 1);

    struct metrics_row *again = metrics_take_row(metrics);
    assert_ptr_equal(again, first);
    metric_add(again, OK, 1);
    metric_observe(again, LATENCY, 50);
    assert_int_equal(metrics_sum(metrics, OK), 101);
    assert_int_equal(metrics_sum(metrics, OPEN), 1);
    assert_int_equal(metrics_sum(metrics, LATENCY), 2);
}

static void test_rows_run_out(void **state)
{
    struct metrics *metrics = *state;
    struct metrics_row *last = NULL;
    for (size_t i = 0; i < METRICS_MAX_ROWS; i++) {
        last = metrics_take_row(metrics);
        assert_non_null(last);
        metric_add(last, OK, 1);
    }
    assert_null(metrics_take_row(metrics));
    metrics_return_row(metrics, last);
    assert_ptr_equal(metrics_take_row(metrics), last);
    assert_null(metrics_take_row(metrics));
    assert_int_equal(metrics_sum(metrics, OK), METRICS_MAX_ROWS);
}

/* ---- Several processes at once */

#define CHILDREN 4
#define ROUNDS   3
#define STEPS    100000u

static void child_counts(struct metrics_row *row)
{
    metric_set(row, OPEN, 3);
    for (unsigned i = 0; i < STEPS; i++) {
        metric_add(row, OK, 1);
        metric_add(row, FAILED, 1u << 31);
        metric_observe(row, LATENCY, i);
    }
    _exit(0);
}

static pid_t start_child(struct metrics_row *row)
{
    pid_t child = fork();
    if (child == 0)
        child_counts(row);
    assert_true(child > 0);
    return child;
}

struct sums {
    int64_t ok, failed, latency;
};

/* None of the sums may ever be less than it was. */
static void assert_not_fallen(const struct metrics *metrics, struct sums *sums)
{
    struct sums now = {metrics_sum(metrics, OK), metrics_sum(metrics, FAILED), metrics_sum(metrics, LATENCY)};
    assert_true(now.ok >= sums->ok);
    assert_true(now.failed >= sums->failed);
    assert_true(now.latency >= sums->latency);
    assert_int_equal(now.failed & 0x7fffffff, 0);
    *sums = now;
}

static void run_children(struct metrics *metrics, struct sums *sums)
{
    struct metrics_row *rows[CHILDREN];
    pid_t children[CHILDREN];
    for (size_t i = 0; i < CHILDREN; i++) {
        rows[i] = metrics_take_row(metrics);
        assert_non_null(rows[i]);
        children[i] = start_child(rows[i]);
    }
    for (size_t left = CHILDREN; left > 0;) {
        assert_not_fallen(metrics, sums);
        int status = 0;
        pid_t ended = waitpid(-1, &status, WNOHANG);
        assert_true(ended >= 0);
        if (ended == 0)
            continue;
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        for (size_t i = 0; i < CHILDREN; i++)
            if (children[i] == ended)
                metrics_return_row(metrics, rows[i]);
        left--;
    }
}

static void test_processes(void **state)
{
    struct metrics *metrics = *state;
    struct sums sums = {0, 0, 0};
    for (unsigned round = 1; round <= ROUNDS; round++) {
        run_children(metrics, &sums);
        int64_t steps = (int64_t)round * CHILDREN * STEPS;
        assert_int_equal(metrics_sum(metrics, OK), steps);
        assert_int_equal(metrics_sum(metrics, FAILED), steps << 31);
        assert_int_equal(metrics_sum(metrics, LATENCY), steps);
        assert_int_equal(metrics_sum(metrics, OPEN), 0);
    }
}

/* A process forked before a row was taken (the one that serves the page) sees it all the same. */
static void test_reader_forked_earlier(void **state)
{
    struct metrics *metrics = *state;
    int start[2];
    assert_int_equal(pipe(start), 0);
    pid_t reader = fork();
    if (reader == 0) {
        char octet;
        _exit(read(start[0], &octet, 1) == 1 && metrics_sum(metrics, OK) == 12 ? 0 : 1);
    }
    assert_true(reader > 0);
    metric_add(metrics_take_row(metrics), OK, 5);
    metric_add(metrics_take_row(metrics), OK, 7);
    assert_int_equal(write(start[1], "x", 1), 1);
    int status = -1;
    assert_int_equal(waitpid(reader, &status, 0), reader);
    assert_int_equal(status, 0);
    assert_int_equal(close(start[0]), 0);
    assert_int_equal(close(start[1]), 0);
}

/* ---- The page */

static const char PAGE[] = "# HELP keyless_handshakes_total Handshakes, by outcome\n"
                           "# TYPE keyless_handshakes_total counter\n"
                           "keyless_handshakes_total{outcome=\"ok\"} 18446744073709551615\n"
                           "keyless_handshakes_total{outcome=\"failed\"} 0\n"
                           "# HELP keyless_connections A \\\\ and a\\nline feed\n"
                           "# TYPE keyless_connections gauge\n"
                           "keyless_connections -4\n"
                           "# HELP keyless_sign_seconds Time to sign\n"
                           "# TYPE keyless_sign_seconds histogram\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.00005\"} 2\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.0001\"} 3\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.00025\"} 3\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.0005\"} 3\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.001\"} 3\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.0025\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.005\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.01\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.025\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.05\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.1\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.25\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"0.5\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"1\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"2.5\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"5\"} 4\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"10\"} 5\n"
                           "keyless_sign_seconds_bucket{class=\"ec\",le=\"+Inf\"} 6\n"
                           "keyless_sign_seconds_sum{class=\"ec\"} 20.001104\n"
                           "keyless_sign_seconds_count{class=\"ec\"} 6\n"
                           "# HELP keyless_queue_seconds Time in the queue\n"
                           "# TYPE keyless_queue_seconds histogram\n"
                           "keyless_queue_seconds_bucket{le=\"0.00005\"} 0\n"
                           "keyless_queue_seconds_bucket{le=\"0.0001\"} 0\n"
                           "keyless_queue_seconds_bucket{le=\"0.00025\"} 0\n"
                           "keyless_queue_seconds_bucket{le=\"0.0005\"} 0\n"
                           "keyless_queue_seconds_bucket{le=\"0.001\"} 0\n"
                           "keyless_queue_seconds_bucket{le=\"0.0025\"} 0\n"
                           "keyless_queue_seconds_bucket{le=\"0.005\"} 0\n"
                           "keyless_queue_seconds_bucket{le=\"0.01\"} 0\n"
                           "keyless_queue_seconds_bucket{le=\"0.025\"} 0\n"
                           "keyless_queue_seconds_bucket{le=\"0.05\"} 1\n"
                           "keyless_queue_seconds_bucket{le=\"0.1\"} 1\n"
                           "keyless_queue_seconds_bucket{le=\"0.25\"} 1\n"
                           "keyless_queue_seconds_bucket{le=\"0.5\"} 1\n"
                           "keyless_queue_seconds_bucket{le=\"1\"} 1\n"
                           "keyless_queue_seconds_bucket{le=\"2.5\"} 1\n"
                           "keyless_queue_seconds_bucket{le=\"5\"} 1\n"
                           "keyless_queue_seconds_bucket{le=\"10\"} 1\n"
                           "keyless_queue_seconds_bucket{le=\"+Inf\"} 1\n"
                           "keyless_queue_seconds_sum 0.050000\n"
                           "keyless_queue_seconds_count 1\n"
                           "# HELP keyless_reloads_total Reloads\n"
                           "# TYPE keyless_reloads_total counter\n"
                           "keyless_reloads_total 3\n";

static void test_page(void **state)
{
    struct metrics *metrics = *state;
    struct metrics_row *a = metrics_take_row(metrics);
    struct metrics_row *b = metrics_take_row(metrics);
    static const uint64_t TIMES[] = {1, 50, 51, 1001, 10000000, 10000001};
    metric_add(a, OK, UINT64_MAX);
    metric_change(a, OPEN, -5);
    metric_change(b, OPEN, 1);
    for (size_t i = 0; i < sizeof TIMES / sizeof *TIMES; i++)
        metric_observe(i % 2 == 0 ? a : b, LATENCY, TIMES[i]);
    metric_observe(a, QUEUE, 50000);
    metric_add(b, PLAIN, 3);
    char *text = page(metrics);
    assert_string_equal(text, PAGE);
    free(text);
}

/* ---- Tables that Prometheus would refuse */

static void test_bad_tables(void **state)
{
    (void)state;
    static const struct metric APART[] = {{"a", "x=\"1\"", METRIC_COUNTER, ""},
                                          {"b", NULL, METRIC_COUNTER, ""},
                                          {"a", "x=\"2\"", METRIC_COUNTER, ""}};
    static const struct metric TYPES[] = {{"a", "x=\"1\"", METRIC_COUNTER, ""},
                                          {"a", "x=\"2\"", METRIC_GAUGE, ""}};
    static const struct metric TWICE[] = {{"a", NULL, METRIC_COUNTER, ""}, {"a", NULL, METRIC_COUNTER, ""}};
    static const struct {
        const struct metric *table;
        size_t count;
        const char *text;
    } ROWS[] = {
        {APART, 3, "metric 2, a{x=\"2\"}, does not fit the rows before it"},
        {TYPES, 2, "metric 1, a{x=\"2\"}, does not fit the rows before it"},
        {TWICE, 2, "metric 1, a{}, does not fit the rows before it"},
    };
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        struct metrics *metrics = NULL;
        struct failure why = {0};
        assert_int_equal(metrics_new(ROWS[i].table, ROWS[i].count, &metrics, &why), RESULT_CONFIG);
        assert_null(metrics);
        assert_string_equal(why.text, ROWS[i].text);
    }
}

static void test_empty_table(void **state)
{
    (void)state;
    struct metrics *metrics = NULL;
    assert_int_equal(metrics_new(TABLE, 0, &metrics, NULL), RESULT_OK);
    assert_non_null(metrics_take_row(metrics));
    char *text = page(metrics);
    assert_string_equal(text, "");
    free(text);
    metrics_free(metrics);
}

#define WITH_METRICS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_METRICS(test_counts),
        WITH_METRICS(test_misuse_counts_nothing),
        WITH_METRICS(test_returned_row_keeps_counters),
        WITH_METRICS(test_rows_run_out),
        WITH_METRICS(test_processes),
        WITH_METRICS(test_reader_forked_earlier),
        WITH_METRICS(test_page),
        cmocka_unit_test(test_bad_tables),
        cmocka_unit_test(test_empty_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
