#include "common/metrics_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>

#define CACHE_LINE 64

const struct metric_bucket metric_buckets[METRIC_BUCKETS] = {
    {50, "0.00005"},  {100, "0.0001"},  {250, "0.00025"},     {500, "0.0005"},  {1000, "0.001"},
    {2500, "0.0025"}, {5000, "0.005"},  {10000, "0.01"},      {25000, "0.025"}, {50000, "0.05"},
    {100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},      {1000000, "1"},   {2500000, "2.5"},
    {5000000, "5"},   {10000000, "10"}, {UINT64_MAX, "+Inf"},
};

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

static const struct star *find_star(const struct metrics *metrics, struct bytes label)
{
    for (size_t i = 0; i < metrics->star_count; i++)
        if (bytes_equal(metrics->stars[i].label, label))
            return &metrics->stars[i];
    return NULL;
}

/* The name in front of a "*": from the comma before it, or from the beginning. */
static struct bytes label_before(const char *labels, const char *star)
{
    const char *end = star > labels ? star - 1 : star; /* its '=' */
    const char *begin = end;
    while (begin > labels && begin[-1] != ',')
        begin--;
    return bytes_of(begin, (size_t)(end - begin));
}

static enum result lay_out_star(struct metrics *metrics, size_t id, struct failure *why)
{
    const char *labels = metrics->table[id].labels;
    const char *star = labels != NULL ? strstr(labels, METRIC_STAR) : NULL;
    struct layout *layout = &metrics->layouts[id];
    if (star == NULL)
        return RESULT_OK;
    struct bytes label = label_before(labels, star);
    layout->star = find_star(metrics, label);
    layout->star_at = (size_t)(star - labels);
    if (layout->star == NULL && metrics->star_count < METRIC_STARS_MAX) {
        metrics->stars[metrics->star_count].label = label;
        layout->star = &metrics->stars[metrics->star_count++];
    }
    if (layout->star == NULL || strstr(star + 1, METRIC_STAR) != NULL ||
        metrics->table[id].type == METRIC_GAUGE)
        return failure_set(why, RESULT_CONFIG, "metric %zu, %s{%s}, cannot have a \"*\" there", id,
                           metrics->table[id].name, labels);
    return RESULT_OK;
}

static size_t values_of(const struct layout *layout)
{
    return layout->star != NULL ? METRIC_VALUES_MAX : 1;
}

static enum result lay_out(struct metrics *metrics, struct failure *why)
{
    size_t next = 0;
    metrics->layouts = calloc(metrics->count + 1, sizeof *metrics->layouts);
    if (metrics->layouts == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the metrics' layout");
    for (size_t id = 0; id < metrics->count; id++) {
        struct layout *layout = &metrics->layouts[id];
        enum result result = check_row(metrics->table, id, why);
        if (result == RESULT_OK)
            result = lay_out_star(metrics, id, why);
        if (result != RESULT_OK)
            return result;
        layout->first_cell = next;
        layout->cells = metrics->table[id].type == METRIC_HISTOGRAM ? HISTOGRAM_CELLS : 1;
        next += layout->cells * values_of(layout);
    }
    size_t in_line = CACHE_LINE / sizeof(cell);
    metrics->row_cells = (next + in_line - 1) / in_line * in_line;
    return RESULT_OK;
}

/* In front of the rows a cache line has the number of rows used, and then come the values of labels. The
 * kernel gives the pages out zeroed, and only when they are touched. */
static enum result map_area(struct metrics *metrics, struct failure *why)
{
    size_t values_size = metrics->star_count * sizeof(struct values);
    size_t rows_at = (CACHE_LINE + values_size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE;
    metrics->area_size = rows_at + METRICS_MAX_ROWS * metrics->row_cells * sizeof(cell);
    uint8_t *area = mmap(NULL, metrics->area_size, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED)
        return failure_set_errno(why, "cannot map %zu octets for the metrics", metrics->area_size);
    metrics->area = area;
    metrics->used_rows = (cell *)area;
    struct values *values = (struct values *)(area + CACHE_LINE);
    for (size_t i = 0; i < metrics->star_count; i++)
        metrics->stars[i].values = &values[i];
    cell *cells = (cell *)(area + rows_at);
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
    free(metrics->layouts);
    free(metrics);
}

/* ---- Values of labels */

/* A child that was broken into may have changed the number, or the zero at the end of a text. */
size_t metrics_known_values(const struct star *star)
{
    uint64_t count = atomic_load_explicit(&star->values->count, memory_order_acquire);
    return count < METRIC_VALUES_MAX ? (size_t)count + 1 : METRIC_VALUES_MAX;
}

struct bytes metrics_value_text(const struct star *star, size_t value)
{
    const char *text = value == 0 ? "none" : star->values->texts[value];
    return bytes_of(text, strnlen(text, METRIC_VALUE_SIZE - 1));
}

static size_t find_value(const struct star *star, const char *value)
{
    struct bytes wanted = bytes_of(value, strnlen(value, METRIC_VALUE_SIZE - 1));
    size_t known = metrics_known_values(star);
    for (size_t i = 0; i < known; i++)
        if (bytes_equal(metrics_value_text(star, i), wanted))
            return i;
    return METRIC_VALUES_MAX;
}

void metrics_know(struct metrics *metrics, const char *label, const char *value)
{
    const struct star *star = find_star(metrics, bytes_of(label, strlen(label)));
    if (star == NULL || find_value(star, value) < METRIC_VALUES_MAX)
        return;
    size_t known = metrics_known_values(star);
    if (known == METRIC_VALUES_MAX)
        return;
    (void)snprintf(star->values->texts[known], METRIC_VALUE_SIZE, "%s", value);
    atomic_store_explicit(&star->values->count, known, memory_order_release);
}

size_t metric_value(const struct metrics_row *row, const char *label, const char *value)
{
    const struct star *star = row != NULL ? find_star(row->metrics, bytes_of(label, strlen(label))) : NULL;
    size_t found = star != NULL ? find_value(star, value) : 0;
    return found < METRIC_VALUES_MAX ? found : 0;
}

/* ---- Rows */

static void clear_gauges(const struct metrics *metrics, const struct metrics_row *row)
{
    for (size_t id = 0; id < metrics->count; id++)
        if (metrics->table[id].type == METRIC_GAUGE)
            cell_write(&row->cells[metrics->layouts[id].first_cell], 0);
}

/* Written by one process only, the master; read by any. A child that was broken into may have changed it. */
size_t metrics_used_rows(const struct metrics *metrics)
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
        if (metrics_used_rows(metrics) < i + 1)
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
static cell *cells_of(struct metrics_row *row, size_t id, size_t value, enum metric_type type)
{
    if (row == NULL || id >= row->metrics->count || row->metrics->table[id].type != type)
        return NULL;
    const struct layout *layout = &row->metrics->layouts[id];
    if (value >= values_of(layout))
        value = 0;
    return row->cells + layout->first_cell + value * layout->cells;
}

void metric_add_for(struct metrics_row *row, size_t id, size_t value, uint64_t amount)
{
    cell *counter = cells_of(row, id, value, METRIC_COUNTER);
    if (counter != NULL)
        cell_add(counter, amount);
}

void metric_add(struct metrics_row *row, size_t id, uint64_t amount)
{
    metric_add_for(row, id, 0, amount);
}

void metric_set(struct metrics_row *row, size_t id, int64_t value)
{
    cell *gauge = cells_of(row, id, 0, METRIC_GAUGE);
    if (gauge != NULL)
        cell_write(gauge, (uint64_t)value);
}

void metric_change(struct metrics_row *row, size_t id, int64_t by)
{
    cell *gauge = cells_of(row, id, 0, METRIC_GAUGE);
    if (gauge != NULL)
        cell_add(gauge, (uint64_t)by);
}

static size_t bucket_of(uint64_t microseconds)
{
    size_t bucket = 0;
    while (microseconds > metric_buckets[bucket].microseconds)
        bucket++;
    return bucket;
}

void metric_observe_for(struct metrics_row *row, size_t id, size_t value, uint64_t microseconds)
{
    cell *histogram = cells_of(row, id, value, METRIC_HISTOGRAM);
    if (histogram == NULL)
        return;
    cell_add(&histogram[bucket_of(microseconds)], 1);
    cell_add(&histogram[METRIC_BUCKETS], microseconds);
}

void metric_observe(struct metrics_row *row, size_t id, uint64_t microseconds)
{
    metric_observe_for(row, id, 0, microseconds);
}
