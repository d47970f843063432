#include "keyserver/pace.h"

/* Before any was signed: rather too long, so that the first burst is small; with what it tells, the next ones
 * grow. */
static const uint64_t GUESSES[KEY_CLASSES] = {
    [KEY_CLASS_EC] = 1000,
    [KEY_CLASS_RSA] = 20000,
    [KEY_CLASS_RSA_LARGE] = 100000,
};

/* One connection's requests wait no longer than this part of the deadline for each other: it leaves room for
 * others' requests, and for a machine that suddenly has less time for us. */
#define DEADLINE_SHARE 10

/* The weight of a new signature in the average: one part in so many. */
#define SMOOTHING 32

void pace_init(struct pace *pace, const struct keyserver_config *config, unsigned threads)
{
    *pace = (struct pace){.budget = config->queues.deadline / DEADLINE_SHARE * threads,
                          .threads = threads,
                          .queues = {[KEY_CLASS_EC] = config->queues.ec,
                                     [KEY_CLASS_RSA] = config->queues.rsa,
                                     [KEY_CLASS_RSA_LARGE] = config->queues.rsa_large}};
    for (enum key_class class = 0; class < KEY_CLASSES; class ++)
        pace->average[class] = GUESSES[class];
}

void pace_signed(struct pace *pace, enum key_class class, uint32_t microseconds)
{
    uint64_t sum = pace->average[class] * (SMOOTHING - 1) + microseconds;
    pace->average[class] = sum / SMOOTHING > 0 ? sum / SMOOTHING : 1;
}

size_t pace_limit(const struct pace *pace, enum key_class class)
{
    uint64_t limit = pace->budget / pace->average[class];
    if (limit < pace->threads)
        limit = pace->threads;
    return limit < pace->queues[class] ? (size_t)limit : pace->queues[class];
}
