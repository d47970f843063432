/*
 * What the files of the metrics share:
 *
 *   metrics.c       the area and its layout, values of labels, rows, counting
 *   metrics_page.c  sums, and the page for Prometheus
 */
#ifndef KEYLESS_COMMON_METRICS_PRIVATE_H
#define KEYLESS_COMMON_METRICS_PRIVATE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "common/bytes.h"
#include "common/metrics.h"

#define METRIC_BUCKETS  18                   /* of a histogram */
#define HISTOGRAM_CELLS (METRIC_BUCKETS + 1) /* one a bucket, then the sum of microseconds */
#define METRIC_STAR     "\"*\""

/* A histogram's upper bounds, in microseconds and as Prometheus shows them, in seconds. */
struct metric_bucket {
    uint64_t microseconds;
    const char *seconds;
};

extern const struct metric_bucket metric_buckets[METRIC_BUCKETS];

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

/* The values of one label, in shared memory. Written by the master only: first a text, then the count. */
struct values {
    _Atomic uint64_t count; /* "none", the first one, not included */
    char texts[METRIC_VALUES_MAX][METRIC_VALUE_SIZE];
};

struct star {
    struct bytes label; /* its name, in the table */
    struct values *values;
};

/* Where a metric's cells are in a row: those of the first value, then those of the next. */
struct layout {
    size_t first_cell;
    size_t cells;            /* of one value */
    const struct star *star; /* NULL: one value, which is nowhere shown */
    size_t star_at;          /* where in the labels the value stands, as "*" with its quotes */
};

/* Private to each process but for the memory that is in area. */
struct metrics {
    const struct metric *table;
    size_t count;
    struct layout *layouts; /* of each metric */
    struct star stars[METRIC_STARS_MAX];
    size_t star_count;
    size_t row_cells; /* whole cache lines, so that two processes never write to the same one */
    void *area;
    size_t area_size;
    cell *used_rows; /* rows that were ever taken: readers look at no others */
    struct metrics_row rows[METRICS_MAX_ROWS];
};

/* Readers look at the rows below this number only. */
size_t metrics_used_rows(const struct metrics *metrics);
/* Values of the label that are known, "none" included; and each of them. */
size_t metrics_known_values(const struct star *star);
struct bytes metrics_value_text(const struct star *star, size_t value);

static inline uint64_t cell_read(const cell *from)
{
    return atomic_load_explicit(from, memory_order_relaxed);
}

#endif
