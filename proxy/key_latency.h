/* How long a key server has lately taken to answer: the 95th percentile, after which an answer is late. Plain
 * values, all zero at the beginning. */
#ifndef KEYLESS_PROXY_KEY_LATENCY_H
#define KEYLESS_PROXY_KEY_LATENCY_H

#include <stdint.h>

#define KEY_LATENCY_SAMPLES 128

struct key_latency {
    uint32_t samples[KEY_LATENCY_SAMPLES]; /* microseconds */
    unsigned count, next;                  /* samples there are; where the next goes */
    unsigned unsorted;                     /* that have come since late was worked out */
    uint64_t late;
};

void key_latency_note(struct key_latency *latency, uint64_t microseconds);
/* The 95th percentile of the last 128 answers, in microseconds; 0: there were too few to tell. */
uint64_t key_latency_late(const struct key_latency *latency);
/* What was is no longer: another server, or the same one after a failure. */
void key_latency_forget(struct key_latency *latency);

#endif
