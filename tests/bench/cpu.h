/* Processor time of a process and all its descendants, from /proc. */
#ifndef KEYLESS_BENCH_CPU_H
#define KEYLESS_BENCH_CPU_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Nanoseconds on a CPU so far of every thread of pid and of its live descendants. False: no such process, or
 * the kernel keeps no schedstat. */
bool cpu_time_of(pid_t pid, uint64_t *nanoseconds);

#endif
