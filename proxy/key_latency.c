#include "proxy/key_latency.h"

#include <stdlib.h>
#include <string.h>

/* Fewer tell nothing of a percentile. */
#define ENOUGH 20
/* It is worked out anew after so many. */
#define SORT_EVERY 16

static int compare(const void *a, const void *b)
{
    const uint32_t *one = a, *other = b;
    return (*one > *other) - (*one < *other);
}

static void sort(struct key_latency *latency)
{
    uint32_t sorted[KEY_LATENCY_SAMPLES];
    memcpy(sorted, latency->samples, latency->count * sizeof *sorted);
    qsort(sorted, latency->count, sizeof *sorted, compare);
    latency->late = sorted[latency->count * 95 / 100];
    latency->unsorted = 0;
}

void key_latency_note(struct key_latency *latency, uint64_t microseconds)
{
    uint64_t took = microseconds > 0 ? microseconds : 1;
    latency->samples[latency->next] = took < UINT32_MAX ? (uint32_t)took : UINT32_MAX;
    latency->next = (latency->next + 1) % KEY_LATENCY_SAMPLES;
    if (latency->count < KEY_LATENCY_SAMPLES)
        latency->count++;
    latency->unsorted++;
    if (latency->count >= ENOUGH && (latency->late == 0 || latency->unsorted >= SORT_EVERY))
        sort(latency);
}

uint64_t key_latency_late(const struct key_latency *latency)
{
    return latency->late;
}

void key_latency_forget(struct key_latency *latency)
{
    *latency = (struct key_latency){0};
}
