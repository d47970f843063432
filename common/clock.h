/* Time for durations and deadlines: CLOCK_MONOTONIC, never libevent's cached time (which is as old as the
 * loop turn). */
#ifndef KEYLESS_COMMON_CLOCK_H
#define KEYLESS_COMMON_CLOCK_H

#include <stdint.h>
#include <sys/time.h>
#include <time.h>

/* Microseconds since some fixed point. */
static inline uint64_t clock_now(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
}

/* Between two times, in 32 bits: the longest that fits if it is longer. */
static inline uint32_t clock_passed(uint64_t from, uint64_t to)
{
    uint64_t passed = to > from ? to - from : 0;
    return passed < UINT32_MAX ? (uint32_t)passed : UINT32_MAX;
}

static inline struct timeval clock_timeval(uint64_t microseconds)
{
    return (struct timeval){.tv_sec = (time_t)(microseconds / 1000000u),
                            .tv_usec = (suseconds_t)(microseconds % 1000000u)};
}

#endif
