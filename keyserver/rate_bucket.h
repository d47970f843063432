/*
 * A rate that several processes keep together: a token bucket in memory that they share, without locks. All
 * that is kept is when the bucket will be full again; taking one moves that on by what one takes to come
 * back.
 *
 * Whoever can write to the memory can empty a bucket or fill it. What makes no sense there is taken for an
 * empty bucket, which fills as any other.
 */
#ifndef KEYLESS_KEYSERVER_RATE_BUCKET_H
#define KEYLESS_KEYSERVER_RATE_BUCKET_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Zero is a full one. Alone in its cache line: each is for another client. */
struct rate_bucket {
    alignas(64) _Atomic uint64_t full; /* when, in nanoseconds of clock_now's time */
};

struct rate {
    unsigned per_second; /* at least 1 */
    unsigned burst;      /* seconds' worth that may be taken at once */
};

/* Takes one; false: there is none. now is clock_now(). */
bool rate_bucket_take(struct rate_bucket *bucket, const struct rate *rate, uint64_t now);

#endif
