/* How many lines of one event and reason were written in this second, in a bounded table. For log.c. */
#ifndef KEYLESS_COMMON_LOG_RATE_H
#define KEYLESS_COMMON_LOG_RATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"

#define LOG_RATE_SLOTS       64 /* events and reasons told apart in one second; the others share one count */
#define LOG_RATE_REASON_SIZE 96 /* octets of a reason by which they are told apart */

struct log_rate_slot {
    const char *event; /* borrowed; NULL in the slot that the others share */
    uint8_t reason[LOG_RATE_REASON_SIZE];
    size_t reason_size;
    int level; /* of the first line */
    unsigned written;
    uint64_t suppressed;
};

struct log_rate {
    uint64_t second;
    size_t used;
    struct log_rate_slot slots[LOG_RATE_SLOTS + 1]; /* the last one: all others */
};

/* Whether a line may be written now; counts it either way. limit 0: always. */
bool log_rate_admit(struct log_rate *rates, unsigned limit, const char *event, struct bytes reason,
                    int level);

/* Whether the slots belong to a second that has passed and must be told and cleared. */
bool log_rate_over(const struct log_rate *rates, uint64_t second);
void log_rate_clear(struct log_rate *rates, uint64_t second);

#endif
