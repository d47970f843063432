/*
 * Counters, gauges and histograms in memory that all processes of a program share. Every process writes a row
 * of its own, without atomics or locks; a reader adds the rows up. A row outlives its process and is given to
 * a later one, which goes on counting, so that no counter ever falls.
 */
#ifndef KEYLESS_COMMON_METRICS_H
#define KEYLESS_COMMON_METRICS_H

#include <stddef.h>
#include <stdint.h>

#include "common/result.h"

struct evbuffer;

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

/* A row of a program's metrics table; its index in the table is the metric's id. */
struct metric {
    const char *name;   /* "keyless_handshakes_total"; rows that share a name stand together and share help */
    const char *labels; /* "outcome=\"ok\"", or NULL */
    enum metric_type type;
    const char *help;
};

#define METRICS_MAX_ROWS 512 /* processes at one time, draining ones included */

struct metrics;     /* the whole area */
struct metrics_row; /* one process's cells: the only thing it writes */

/* Made by the master before it forks. table is borrowed for ever (a static array). */
MUST_CHECK enum result metrics_new(const struct metric *table, size_t count, struct metrics **metrics,
                                   struct failure *why);
void metrics_free(struct metrics *metrics);

/* A row for a process about to be forked, its gauges at zero; NULL when METRICS_MAX_ROWS are in use. */
struct metrics_row *metrics_take_row(struct metrics *metrics);
/* The process has ended: gauges are cleared, counters stay in the sum, the row may be given out again. */
void metrics_return_row(struct metrics *metrics, struct metrics_row *row);

/* id is the index in the table. A NULL row is allowed and counts nothing. */
void metric_add(struct metrics_row *row, size_t id, uint64_t amount);
void metric_set(struct metrics_row *row, size_t id, int64_t value); /* gauge */
void metric_change(struct metrics_row *row, size_t id, int64_t by); /* gauge */
void metric_observe(struct metrics_row *row, size_t id,
                    uint64_t microseconds); /* histogram; shown in seconds */

/* The sum over all rows. For a histogram: the number of observations. */
int64_t metrics_sum(const struct metrics *metrics, size_t id);

/* Appends everything in Prometheus's text format, version 0.0.4. */
void metrics_write(const struct metrics *metrics, struct evbuffer *to);

#endif
