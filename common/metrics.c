#include "common/metrics.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <sys/mman.h>

/* A histogram's upper bounds, in microseconds and as Prometheus shows them, in seconds. */
static const struct {
    uint64_t microseconds;
    const char *seconds;
} BUCKETS[] = {
    {50, "0.00005"},  {100, "0.0001"},  {250, "0.00025"},     {500, "0.0005"},  {1000, "0.001"},
    {2500, "0.0025"}, {5000, "0.005"},  {10000, "0.01"},      {25000, "0.025"}, {50000, "0.05"},
    {100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},      {1000000, "1"},   {2500000, "2.5"},
    {5000000, "5"},   {10000000, "10"}, {UINT64_MAX, "+Inf"},
};

#define BUCKET_COUNT    (sizeof BUCKETS / sizeof *BUCKETS)
#define HISTOGRAM_CELLS (BUCKET_COUNT + 1) /* one a bucket, then the sum of microseconds */
#define CACHE_LINE      64

/* One writer, any number of readers: relaxed atomics cost nothing and keep a reader from seeing half a value.
 */
typedef _Atomic uint64_t cell;
_Static_assert(sizeof(cell) == sizeof(uint64_t), "cells are plain 64-bit words");
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "cells are shared between processes: no locks behind them");

struct metrics_row {
    const struct metrics *metrics;
    cell *cells;
    bool taken; /* known to the master only */
};

/* Private to each process but for the memory that used_rows and the rows' cells point to. */
struct metrics {
    const struct metric *table;
    size_t count;
    size_t *first_cell; /* of each metric, in a row */
    size_t row_cells;   /* whole cache lines, so that two processes never write to the same one */
    void *area;
    size_t area_size;
    cell *used_rows; /* rows that were ever taken: readers look at no others */
    struct metrics_row rows[METRICS_MAX_ROWS];
};

static uint64_t cell_read(const cell *from)
{
    return atomic_load_explicit(from, memory_order_relaxed);
}

static void cell_write(cell *to, uint64_t value)
{
    atomic_store_explicit(to, value, memory_order_relaxed);
}

static void cell_add(cell *to, uint64_t amount)
{
    cell_write(to, cell_read(to) + amount);
}

/* ---- The area */

static bool same_name(const struct metric *a, const struct metric *b)
{
    return strcmp(a->name, b->name) == 0;
}

static bool same_labels(const struct metric *a, const struct metric *b)
{
    return strcmp(a->labels != NULL ? a->labels : "", b->labels != NULL ? b->labels : "") == 0;
}

/* Prometheus refuses a page on which a name's rows are apart, of two types, or twice the same. */
static enum result check_row(const struct metric *table, size_t id, struct failure *why)
{
    for (size_t before = 0; before < id; before++) {
        if (!same_name(&table[before], &table[id]))
            continue;
        if (!same_name(&table[id - 1], &table[id]) || table[before].type != table[id].type ||
            same_labels(&table[before], &table[id]))
            return failure_set(why, RESULT_CONFIG, "metric %zu, %s{%s}, does not fit the rows before it", id,
                               table[id].name, table[id].labels != NULL ? table[id].labels : "");
    }
    return RESULT_OK;
}

static enum result lay_out(struct metrics *metrics, struct failure *why)
{
    size_t next = 0;
    metrics->first_cell = calloc(metrics->count + 1, sizeof *metrics->first_cell);
    if (metrics->first_cell == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the metrics' layout");
    for (size_t id = 0; id < metrics->count; id++) {
        enum result result = check_row(metrics->table, id, why);
        if (result != RESULT_OK)
            return result;
        metrics->first_cell[id] = next;
        next += metrics->table[id].type == METRIC_HISTOGRAM ? HISTOGRAM_CELLS : 1;
    }
    size_t in_line = CACHE_LINE / sizeof(cell);
    metrics->row_cells = (next + in_line - 1) / in_line * in_line;
    return RESULT_OK;
}

/* The number of rows used has a cache line in front of the rows. The kernel gives the pages out zeroed, and
 * only when they are touched. */
static enum result map_area(struct metrics *metrics, struct failure *why)
{
    metrics->area_size = CACHE_LINE + METRICS_MAX_ROWS * metrics->row_cells * sizeof(cell);
    void *area = mmap(NULL, metrics->area_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (area == MAP_FAILED)
        return failure_set_errno(why, "cannot map %zu octets for the metrics", metrics->area_size);
    metrics->area = area;
    metrics->used_rows = area;
    cell *cells = metrics->used_rows + CACHE_LINE / sizeof(cell);
    for (size_t i = 0; i < METRICS_MAX_ROWS; i++)
        metrics->rows[i] = (struct metrics_row){.metrics = metrics, .cells = cells + i * metrics->row_cells};
    return RESULT_OK;
}

enum result metrics_new(const struct metric *table, size_t count, struct metrics **metrics,
                        struct failure *why)
{
    *metrics = NULL;
    struct metrics *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the metrics");
    made->table = table;
    made->count = count;
    enum result result = lay_out(made, why);
    if (result == RESULT_OK)
        result = map_area(made, why);
    if (result != RESULT_OK) {
        metrics_free(made);
        return result;
    }
    *metrics = made;
    return RESULT_OK;
}

void metrics_free(struct metrics *metrics)
{
    if (metrics == NULL)
        return;
    if (metrics->area != NULL)
        (void)munmap(metrics->area, metrics->area_size);
    free(metrics->first_cell);
    free(metrics);
}

/* ---- Rows */

static void clear_gauges(const struct metrics *metrics, const struct metrics_row *row)
{
    for (size_t id = 0; id < metrics->count; id++)
        if (metrics->table[id].type == METRIC_GAUGE)
            cell_write(&row->cells[metrics->first_cell[id]], 0);
}

/* Written by one process only, the master; read by any. A child that was broken into may have changed it. */
static size_t used_rows(const struct metrics *metrics)
{
    uint64_t used = cell_read(metrics->used_rows);
    return used < METRICS_MAX_ROWS ? (size_t)used : METRICS_MAX_ROWS;
}

struct metrics_row *metrics_take_row(struct metrics *metrics)
{
    for (size_t i = 0; i < METRICS_MAX_ROWS; i++) {
        struct metrics_row *row = &metrics->rows[i];
        if (row->taken)
            continue;
        row->taken = true;
        clear_gauges(metrics, row);
        if (used_rows(metrics) < i + 1)
            cell_write(metrics->used_rows, i + 1);
        return row;
    }
    return NULL;
}

void metrics_return_row(struct metrics *metrics, struct metrics_row *row)
{
    if (row == NULL)
        return;
    clear_gauges(metrics, row);
    row->taken = false;
}

/* ---- Counting */

/* The first cell of a metric of this type; NULL if there is nothing to count in. */
static cell *cells_of(struct metrics_row *row, size_t id, enum metric_type type)
{
    if (row == NULL || id >= row->metrics->count || row->metrics->table[id].type != type)
        return NULL;
    return row->cells + row->metrics->first_cell[id];
}

void metric_add(struct metrics_row *row, size_t id, uint64_t amount)
{
    cell *counter = cells_of(row, id, METRIC_COUNTER);
    if (counter != NULL)
        cell_add(counter, amount);
}

void metric_set(struct metrics_row *row, size_t id, int64_t value)
{
    cell *gauge = cells_of(row, id, METRIC_GAUGE);
    if (gauge != NULL)
        cell_write(gauge, (uint64_t)value);
}

void metric_change(struct metrics_row *row, size_t id, int64_t by)
{
    cell *gauge = cells_of(row, id, METRIC_GAUGE);
    if (gauge != NULL)
        cell_add(gauge, (uint64_t)by);
}

static size_t bucket_of(uint64_t microseconds)
{
    size_t bucket = 0;
    while (microseconds > BUCKETS[bucket].microseconds)
        bucket++;
    return bucket;
}

void metric_observe(struct metrics_row *row, size_t id, uint64_t microseconds)
{
    cell *histogram = cells_of(row, id, METRIC_HISTOGRAM);
    if (histogram == NULL)
        return;
    cell_add(&histogram[bucket_of(microseconds)], 1);
    cell_add(&histogram[BUCKET_COUNT], microseconds);
}

/* ---- Reading */

static uint64_t sum_cell(const struct metrics *metrics, size_t at)
{
    uint64_t sum = 0;
    size_t used = used_rows(metrics);
    for (size_t i = 0; i < used; i++)
        sum += cell_read(&metrics->rows[i].cells[at]);
    return sum;
}

int64_t metrics_sum(const struct metrics *metrics, size_t id)
{
    if (id >= metrics->count)
        return 0;
    size_t first = metrics->first_cell[id];
    if (metrics->table[id].type != METRIC_HISTOGRAM)
        return (int64_t)sum_cell(metrics, first);
    uint64_t observations = 0;
    for (size_t bucket = 0; bucket < BUCKET_COUNT; bucket++)
        observations += sum_cell(metrics, first + bucket);
    return (int64_t)observations;
}

/* A backslash and a line feed are the two characters that a help text must escape. */
static void write_help(const struct metric *metric, struct evbuffer *to)
{
    (void)evbuffer_add_printf(to, "# HELP %s ", metric->name);
    for (const char *at = metric->help; *at != '\0'; at++) {
        if (*at == '\\' || *at == '\n')
            (void)evbuffer_add(to, *at == '\n' ? "\\n" : "\\\\", 2);
        else
            (void)evbuffer_add(to, at, 1);
    }
    (void)evbuffer_add(to, "\n", 1);
}

static void write_head(const struct metric *metric, struct evbuffer *to)
{
    static const char *const TYPES[] = {"counter", "gauge", "histogram"};
    write_help(metric, to);
    (void)evbuffer_add_printf(to, "# TYPE %s %s\n", metric->name, TYPES[metric->type]);
}

/* "name_suffix{labels} ", or "name_suffix " where there are none. */
static void write_name(const struct metric *metric, const char *suffix, struct evbuffer *to)
{
    (void)evbuffer_add_printf(to, "%s%s", metric->name, suffix);
    if (metric->labels != NULL)
        (void)evbuffer_add_printf(to, "{%s}", metric->labels);
    (void)evbuffer_add(to, " ", 1);
}

/* The count is that of the buckets as they were read, so that the page agrees with itself. */
static void write_histogram(const struct metrics *metrics, size_t id, struct evbuffer *to)
{
    const struct metric *metric = &metrics->table[id];
    const char *labels = metric->labels != NULL ? metric->labels : "";
    size_t first = metrics->first_cell[id];
    uint64_t below = 0;
    for (size_t bucket = 0; bucket < BUCKET_COUNT; bucket++) {
        below += sum_cell(metrics, first + bucket);
        (void)evbuffer_add_printf(to, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", metric->name, labels,
                                  labels[0] != '\0' ? "," : "", BUCKETS[bucket].seconds, below);
    }
    uint64_t sum = sum_cell(metrics, first + BUCKET_COUNT);
    write_name(metric, "_sum", to);
    (void)evbuffer_add_printf(to, "%" PRIu64 ".%06" PRIu64 "\n", sum / 1000000u, sum % 1000000u);
    write_name(metric, "_count", to);
    (void)evbuffer_add_printf(to, "%" PRIu64 "\n", below);
}

static void write_metric(const struct metrics *metrics, size_t id, struct evbuffer *to)
{
    const struct metric *metric = &metrics->table[id];
    if (metric->type == METRIC_HISTOGRAM) {
        write_histogram(metrics, id, to);
        return;
    }
    uint64_t value = sum_cell(metrics, metrics->first_cell[id]);
    write_name(metric, "", to);
    if (metric->type == METRIC_GAUGE)
        (void)evbuffer_add_printf(to, "%" PRId64 "\n", (int64_t)value);
    else
        (void)evbuffer_add_printf(to, "%" PRIu64 "\n", value);
}

void metrics_write(const struct metrics *metrics, struct evbuffer *to)
{
    for (size_t id = 0; id < metrics->count; id++) {
        if (id == 0 || !same_name(&metrics->table[id - 1], &metrics->table[id]))
            write_head(&metrics->table[id], to);
        write_metric(metrics, id, to);
    }
}
