#include "common/log_tally.h"

#define TELL_EVERY UINT64_C(1000000)

uint64_t log_tally_add(struct log_tally *tally, uint64_t now)
{
    tally->count++;
    if (tally->told != 0 && now - tally->told < TELL_EVERY)
        return 0;
    const uint64_t count = tally->count;
    *tally = (struct log_tally){.told = now};
    return count;
}
