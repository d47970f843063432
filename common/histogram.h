/*
 * A histogram of durations with bounded relative error, after HdrHistogram: powers of two, each cut into 64
 * equal parts, so that every value is kept to better than 1.6 % from 1 to 2^40 microseconds in 18 kB.
 */
#ifndef KEYLESS_COMMON_HISTOGRAM_H
#define KEYLESS_COMMON_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_SUBS     (1u << HISTOGRAM_SUB_BITS)
#define HISTOGRAM_POWERS   35
#define HISTOGRAM_BUCKETS  (HISTOGRAM_POWERS * HISTOGRAM_SUBS)

/* A plain value; all zero is an empty histogram. */
struct histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t least;
    uint64_t most;
    uint64_t buckets[HISTOGRAM_BUCKETS];
};

/* Values above the last bucket are counted in it; most keeps them exactly. */
void histogram_add(struct histogram *histogram, uint64_t value);
void histogram_merge(struct histogram *into, const struct histogram *from);

/* The value that `percent` of the observations do not exceed (the upper end of its bucket, never above most);
 * 0 when empty. */
uint64_t histogram_percentile(const struct histogram *histogram, double percent);
double histogram_mean(const struct histogram *histogram);

#endif
