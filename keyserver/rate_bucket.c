#include "keyserver/rate_bucket.h"

#define SECOND UINT64_C(1000000000)

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "buckets are shared between processes: no locks behind them");

bool rate_bucket_take(struct rate_bucket *bucket, const struct rate *rate, uint64_t now)
{
    const uint64_t one = SECOND / rate->per_second, empty = now * 1000 + rate->burst * SECOND;
    uint64_t full = atomic_load_explicit(&bucket->full, memory_order_relaxed);
    for (;;) {
        uint64_t from = full > now * 1000 ? full : now * 1000;
        bool taken = from + one <= empty && full <= empty;
        uint64_t next = taken ? from + one : full;
        if (full > empty)
            next = empty; /* a rate that was raised, or nonsense: else it would stay empty for longer */
        if (next == full || atomic_compare_exchange_weak_explicit(&bucket->full, &full, next,
                                                                  memory_order_relaxed, memory_order_relaxed))
            return taken;
    }
}
