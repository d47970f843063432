#include "common/histogram.h"

/* Values below 64 have a bucket each; above, the highest bit chooses the power and the six bits below it the
 * part. */
static unsigned bucket_of(uint64_t value)
{
    if (value < HISTOGRAM_SUBS)
        return (unsigned)value;
    unsigned highest = 63u - (unsigned)__builtin_clzll(value);
    unsigned power = highest - HISTOGRAM_SUB_BITS + 1;
    unsigned part = (unsigned)(value >> (power - 1)) & (HISTOGRAM_SUBS - 1);
    unsigned bucket = power * HISTOGRAM_SUBS + part;
    return bucket < HISTOGRAM_BUCKETS ? bucket : HISTOGRAM_BUCKETS - 1;
}

/* The largest value that falls into the bucket. */
static uint64_t bucket_top(unsigned bucket)
{
    unsigned power = bucket / HISTOGRAM_SUBS;
    uint64_t part = bucket % HISTOGRAM_SUBS;
    if (power == 0)
        return part;
    return ((HISTOGRAM_SUBS + part + 1) << (power - 1)) - 1;
}

void histogram_add(struct histogram *histogram, uint64_t value)
{
    if (histogram->count == 0 || value < histogram->least)
        histogram->least = value;
    if (value > histogram->most)
        histogram->most = value;
    histogram->count++;
    histogram->sum += value;
    histogram->buckets[bucket_of(value)]++;
}

void histogram_merge(struct histogram *into, const struct histogram *from)
{
    if (from->count == 0)
        return;
    if (into->count == 0 || from->least < into->least)
        into->least = from->least;
    if (from->most > into->most)
        into->most = from->most;
    into->count += from->count;
    into->sum += from->sum;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS; i++)
        into->buckets[i] += from->buckets[i];
}

uint64_t histogram_percentile(const struct histogram *histogram, double percent)
{
    double wanted = (double)histogram->count * percent / 100.0;
    uint64_t seen = 0;
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && histogram->count > 0; i++) {
        seen += histogram->buckets[i];
        if (seen > 0 && (double)seen >= wanted) {
            uint64_t top = bucket_top(i);
            return top < histogram->most && i < HISTOGRAM_BUCKETS - 1 ? top : histogram->most;
        }
    }
    return histogram->most;
}

double histogram_mean(const struct histogram *histogram)
{
    return histogram->count == 0 ? 0 : (double)histogram->sum / (double)histogram->count;
}
