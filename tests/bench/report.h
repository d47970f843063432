/* What a run is told and what it tells: options that all runs share, progress, and the result as text or
 * JSON. */
#ifndef KEYLESS_BENCH_REPORT_H
#define KEYLESS_BENCH_REPORT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/histogram.h"

struct bench_limits {
    uint64_t count;   /* operations, or */
    uint64_t seconds; /* time, whichever ends first; 0: no such limit */
    uint64_t warm_up; /* operations before the clock starts */
    unsigned parallel;
    pid_t pid; /* whose CPU is measured; 0: nobody's */
    bool json;
    bool quiet; /* no progress line */
};

/* A run under way. */
struct bench_run {
    const struct bench_limits *limits;
    const char *what; /* "full handshakes" */
    uint64_t began;   /* clock_now, after the warm-up; 0: still warming up */
    uint64_t ended;
    uint64_t warmed;
    uint64_t cpu_began; /* nanoseconds */
    uint64_t cpu_ended;
    bool cpu_known;
    uint64_t failed;
    char first_failure[256];
    struct histogram latency;     /* microseconds */
    struct histogram first_octet; /* of answers, where operations have them apart */
};

void bench_begin(struct bench_run *run, const struct bench_limits *limits, const char *what);
/* One operation has succeeded after so many microseconds. */
void bench_done(struct bench_run *run, uint64_t microseconds);
/* ... and the first octet of what it led to came after so many. */
void bench_answered(struct bench_run *run, uint64_t microseconds, uint64_t first_octet);
void bench_failed(struct bench_run *run, const char *reason);
/* Whether another operation may start. */
bool bench_goes_on(const struct bench_run *run);
/* Prints how far it is, on a terminal, at most once a call; call it about once a second. */
void bench_progress(const struct bench_run *run);
void bench_end(struct bench_run *run);
/* Prints the result; detail is a JSON object's inside ("\"version\": \"TLSv1.3\"") or NULL. Returns the exit
 * status. */
int bench_report(const struct bench_run *run, const char *detail);

#endif
