/*
 * Counters, gauges and histograms in memory that all processes of a program share. Every process writes a row
 * of its own, without atomics or locks; a reader adds the rows up. A row outlives its process and is given to
 * a later one, which goes on counting, so that no counter ever falls.
 *
 * One label of a metric may have values from the configuration: server="*" stands for all values that the
 * master has made known for the label "server". A value stays known for as long as the program runs, whatever
 * reloads bring, so what is counted for it never falls either. What is counted for no value, or for one of
 * more than METRIC_VALUES_MAX, is shown under "none".
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
    const char *labels; /* "outcome=\"ok\"", "server=\"*\",outcome=\"ok\"", or NULL */
    enum metric_type type;
    const char *help;
};

#define METRICS_MAX_ROWS  512 /* processes at one time, draining ones included */
#define METRIC_VALUES_MAX 256 /* values of one label, "none" included */
#define METRIC_VALUE_SIZE                                                                                    \
    128                    /* octets by which values are told apart, and shown; with the zero at the end     \
                            */
#define METRIC_STARS_MAX 4 /* labels with values from the configuration */

struct metrics;     /* the whole area */
struct metrics_row; /* one process's cells: the only thing it writes */

/* Made by the master before it forks. table is borrowed for ever (a static array). Gauges have no "*": one of
 * a value that has left the configuration would be shown for ever. */
MUST_CHECK enum result metrics_new(const struct metric *table, size_t count, struct metrics **metrics,
                                   struct failure *why);
void metrics_free(struct metrics *metrics);

/* A row for a process about to be forked, its gauges at zero; NULL when METRICS_MAX_ROWS are in use. */
struct metrics_row *metrics_take_row(struct metrics *metrics);
/* The process has ended: gauges are cleared, counters stay in the sum, the row may be given out again. */
void metrics_return_row(struct metrics *metrics, struct metrics_row *row);

/* Makes a value known for the label "*" of that name. By the master, before it forks those who count for it.
 */
void metrics_know(struct metrics *metrics, const char *label, const char *value);
/* What to count a value under; 0, which is "none", if it is not known. For the start of a process. */
size_t metric_value(const struct metrics_row *row, const char *label, const char *value);

/* id is the index in the table. A NULL row is allowed and counts nothing. */
void metric_add(struct metrics_row *row, size_t id, uint64_t amount);
void metric_set(struct metrics_row *row, size_t id, int64_t value); /* gauge */
void metric_change(struct metrics_row *row, size_t id, int64_t by); /* gauge */
void metric_observe(struct metrics_row *row, size_t id,
                    uint64_t microseconds); /* histogram; shown in seconds */
/* The same for metrics with a "*"; the functions above count those under "none". */
void metric_add_for(struct metrics_row *row, size_t id, size_t value, uint64_t amount);
void metric_observe_for(struct metrics_row *row, size_t id, size_t value, uint64_t microseconds);

/* The sum over all rows and values. For a histogram: the number of observations. */
int64_t metrics_sum(const struct metrics *metrics, size_t id);

/* Appends everything in Prometheus's text format, version 0.0.4. */
void metrics_write(const struct metrics *metrics, struct evbuffer *to);

/* The same for what is not counted but known when the page is made: the head of a metric, then a line for
 * each of its sets of labels. */
struct metric_label {
    const char *name, *value;
};

void metrics_write_head(struct evbuffer *to, const char *name, enum metric_type type, const char *help);
void metrics_write_line(struct evbuffer *to, const char *name, const struct metric_label *labels,
                        size_t count, int64_t value);

#endif
