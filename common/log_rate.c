#include "common/log_rate.h"

#include <string.h>

static bool slot_matches(const struct log_rate_slot *slot, const char *event, struct bytes reason)
{
    return (slot->event == event || strcmp(slot->event, event) == 0) &&
           bytes_equal(bytes_of(slot->reason, slot->reason_size), reason);
}

static struct log_rate_slot *slot_for(struct log_rate *rates, const char *event, struct bytes reason,
                                      int level)
{
    for (size_t i = 0; i < rates->used; i++)
        if (slot_matches(&rates->slots[i], event, reason))
            return &rates->slots[i];
    if (rates->used == LOG_RATE_SLOTS)
        return &rates->slots[LOG_RATE_SLOTS];
    struct log_rate_slot *slot = &rates->slots[rates->used++];
    *slot = (struct log_rate_slot){.event = event, .reason_size = reason.size, .level = level};
    if (reason.size > 0)
        memcpy(slot->reason, reason.data, reason.size);
    return slot;
}

bool log_rate_admit(struct log_rate *rates, unsigned limit, const char *event, struct bytes reason, int level)
{
    if (limit == 0)
        return true;
    if (reason.size > LOG_RATE_REASON_SIZE)
        reason.size = LOG_RATE_REASON_SIZE;
    struct log_rate_slot *slot = slot_for(rates, event, reason, level);
    if (slot->written < limit) {
        slot->written++;
        return true;
    }
    slot->suppressed++;
    return false;
}

bool log_rate_over(const struct log_rate *rates, uint64_t second)
{
    return second != rates->second;
}

void log_rate_clear(struct log_rate *rates, uint64_t second)
{
    rates->second = second;
    rates->used = 0;
    rates->slots[LOG_RATE_SLOTS] = (struct log_rate_slot){.event = NULL, .level = 1};
}
