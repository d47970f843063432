/*
 * How many requests of a cost class one connection may have with the signer. Past that its requests wait
 * here, and the other classes go on: so a flood of RSA on a proxy's one connection does not hold up its
 * ECDSA, and a connection that is alone is never told that it waited too long, however many requests it sends
 * at once.
 *
 * The bound is what the signer's threads get done in a tenth of queues.deadline, as signatures have taken of
 * late; at least one for each thread, and never more than the class's queue holds.
 */
#ifndef KEYLESS_KEYSERVER_PACE_H
#define KEYLESS_KEYSERVER_PACE_H

#include <stddef.h>
#include <stdint.h>

#include "keyserver/config.h"
#include "keyserver/key_table.h"

/* Plain values; changed only through the functions below. */
struct pace {
    uint64_t budget; /* microseconds of all threads together */
    size_t threads;
    size_t queues[KEY_CLASSES];
    uint64_t average[KEY_CLASSES]; /* microseconds a signature */
};

void pace_init(struct pace *pace, const struct keyserver_config *config, unsigned threads);
/* A signature took so many microseconds. */
void pace_signed(struct pace *pace, enum key_class class, uint32_t microseconds);
size_t pace_limit(const struct pace *pace, enum key_class class);

#endif
