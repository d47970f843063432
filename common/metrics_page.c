#include "common/metrics_private.h"

#include <inttypes.h>
#include <string.h>

#include <event2/buffer.h>

#include "common/text.h"

/* ---- Sums */

static uint64_t sum_cell(const struct metrics *metrics, size_t at)
{
    uint64_t sum = 0;
    size_t used = metrics_used_rows(metrics);
    for (size_t i = 0; i < used; i++)
        sum += cell_read(&metrics->rows[i].cells[at]);
    return sum;
}

/* What was counted for one value, or the number of observations. */
static uint64_t sum_value(const struct metrics *metrics, size_t id, size_t value)
{
    const struct layout *layout = &metrics->layouts[id];
    size_t first = layout->first_cell + value * layout->cells;
    uint64_t sum = sum_cell(metrics, first);
    for (size_t bucket = 1; bucket < METRIC_BUCKETS && metrics->table[id].type == METRIC_HISTOGRAM; bucket++)
        sum += sum_cell(metrics, first + bucket);
    return sum;
}

int64_t metrics_sum(const struct metrics *metrics, size_t id)
{
    if (id >= metrics->count)
        return 0;
    const struct layout *layout = &metrics->layouts[id];
    size_t known = layout->star != NULL ? metrics_known_values(layout->star) : 1;
    uint64_t sum = 0;
    for (size_t value = 0; value < known; value++)
        sum += sum_value(metrics, id, value);
    return (int64_t)sum;
}

/* ---- Lines */

/* A backslash and a line feed are the two characters that a help text must escape. */
static void write_help(struct evbuffer *to, const char *name, const char *help)
{
    (void)evbuffer_add_printf(to, "# HELP %s ", name);
    for (const char *at = help; *at != '\0'; at++) {
        if (*at == '\\' || *at == '\n')
            (void)evbuffer_add(to, *at == '\n' ? "\\n" : "\\\\", 2);
        else
            (void)evbuffer_add(to, at, 1);
    }
    (void)evbuffer_add(to, "\n", 1);
}

void metrics_write_head(struct evbuffer *to, const char *name, enum metric_type type, const char *help)
{
    static const char *const TYPES[] = {"counter", "gauge", "histogram"};
    write_help(to, name, help);
    (void)evbuffer_add_printf(to, "# TYPE %s %s\n", name, TYPES[type]);
}

void metrics_write_line(struct evbuffer *to, const char *name, const struct metric_label *labels,
                        size_t count, int64_t value)
{
    (void)evbuffer_add_printf(to, "%s", name);
    for (size_t i = 0; i < count; i++) {
        (void)evbuffer_add_printf(to, "%s%s=", i == 0 ? "{" : ",", labels[i].name);
        text_write_quoted(to, bytes_of(labels[i].value, strlen(labels[i].value)));
    }
    (void)evbuffer_add_printf(to, "%s %" PRId64 "\n", count > 0 ? "}" : "", value);
}

/* One line's metric: which, and of what value. */
struct series {
    const struct metrics *metrics;
    size_t id, value;
};

static void write_labels(const struct series *series, struct evbuffer *to)
{
    const struct layout *layout = &series->metrics->layouts[series->id];
    const char *labels = series->metrics->table[series->id].labels;
    if (layout->star == NULL) {
        (void)evbuffer_add_printf(to, "%s", labels);
        return;
    }
    (void)evbuffer_add(to, labels, layout->star_at);
    text_write_quoted(to, metrics_value_text(layout->star, series->value));
    (void)evbuffer_add_printf(to, "%s", labels + layout->star_at + strlen(METRIC_STAR));
}

/* "name_suffix{labels,le=\"bound\"} ", or "name_suffix " where there are none. */
static void write_name(const struct series *series, const char *suffix, const char *bound,
                       struct evbuffer *to)
{
    const struct metric *metric = &series->metrics->table[series->id];
    (void)evbuffer_add_printf(to, "%s%s", metric->name, suffix);
    if (metric->labels != NULL || bound != NULL)
        (void)evbuffer_add(to, "{", 1);
    if (metric->labels != NULL)
        write_labels(series, to);
    if (bound != NULL)
        (void)evbuffer_add_printf(to, "%sle=\"%s\"", metric->labels != NULL ? "," : "", bound);
    if (metric->labels != NULL || bound != NULL)
        (void)evbuffer_add(to, "}", 1);
    (void)evbuffer_add(to, " ", 1);
}

/* The count is that of the buckets as they were read, so that the page agrees with itself. */
static void write_histogram(const struct series *series, struct evbuffer *to)
{
    const struct metrics *metrics = series->metrics;
    const struct layout *layout = &metrics->layouts[series->id];
    size_t first = layout->first_cell + series->value * layout->cells;
    uint64_t below = 0;
    for (size_t bucket = 0; bucket < METRIC_BUCKETS; bucket++) {
        below += sum_cell(metrics, first + bucket);
        write_name(series, "_bucket", metric_buckets[bucket].seconds, to);
        (void)evbuffer_add_printf(to, "%" PRIu64 "\n", below);
    }
    uint64_t sum = sum_cell(metrics, first + METRIC_BUCKETS);
    write_name(series, "_sum", NULL, to);
    (void)evbuffer_add_printf(to, "%" PRIu64 ".%06" PRIu64 "\n", sum / 1000000u, sum % 1000000u);
    write_name(series, "_count", NULL, to);
    (void)evbuffer_add_printf(to, "%" PRIu64 "\n", below);
}

static void write_series(const struct series *series, struct evbuffer *to)
{
    const struct metrics *metrics = series->metrics;
    enum metric_type type = metrics->table[series->id].type;
    if (type == METRIC_HISTOGRAM) {
        write_histogram(series, to);
        return;
    }
    uint64_t value = sum_value(metrics, series->id, series->value);
    write_name(series, "", NULL, to);
    if (type == METRIC_GAUGE)
        (void)evbuffer_add_printf(to, "%" PRId64 "\n", (int64_t)value);
    else
        (void)evbuffer_add_printf(to, "%" PRIu64 "\n", value);
}

/* "none" is there only once something was counted for it. */
static void write_metric(const struct metrics *metrics, size_t id, struct evbuffer *to)
{
    const struct star *star = metrics->layouts[id].star;
    struct series series = {.metrics = metrics, .id = id};
    size_t known = star != NULL ? metrics_known_values(star) : 1;
    if (star == NULL || sum_value(metrics, id, 0) > 0)
        write_series(&series, to);
    for (series.value = 1; series.value < known; series.value++)
        write_series(&series, to);
}

void metrics_write(const struct metrics *metrics, struct evbuffer *to)
{
    const struct metric *table = metrics->table;
    for (size_t id = 0; id < metrics->count; id++) {
        if (id == 0 || strcmp(table[id - 1].name, table[id].name) != 0)
            metrics_write_head(to, table[id].name, table[id].type, table[id].help);
        write_metric(metrics, id, to);
    }
}
