/* What would be a line each, for one line a second with their number. Plain values, zero at the beginning. */
#ifndef KEYLESS_COMMON_LOG_TALLY_H
#define KEYLESS_COMMON_LOG_TALLY_H

#include <stdint.h>

struct log_tally {
    uint64_t count; /* that were not told yet */
    uint64_t told;  /* when some were, by clock_now */
};

/* One more, now (clock_now). Returns how many are to be told now; 0: it is too soon. */
uint64_t log_tally_add(struct log_tally *tally, uint64_t now);

#endif
