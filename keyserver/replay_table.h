/*
 * What the signer was asked for in the last ten minutes, so that a request that comes again is seen. It is
 * harmless in itself (the ephemeral key in what is signed is not the replayer's) but no client of ours does
 * it.
 *
 * A table of fixed size with digests of operation, key and signed octets; when it is full the oldest of a few
 * make room, so that a replay may go unseen and never is one seen that was none.
 */
#ifndef KEYLESS_KEYSERVER_REPLAY_TABLE_H
#define KEYLESS_KEYSERVER_REPLAY_TABLE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "keyserver/sign_request.h"

struct replay_table;

enum {
    REPLAY_KEPT = 600,  /* seconds */
    REPLAY_RETRIED = 5, /* seconds within which the same client's is a retry */
    REPLAY_ENTRIES = 1 << 20,
};

/* NULL: no memory. entries: how many are kept, a power of two of four at least; each takes 16 octets once it
 * is used. */
struct replay_table *replay_table_new(uint32_t entries);
void replay_table_free(struct replay_table *table);

/* Notes the request; true: somebody has asked for the same, and this is no retry. seconds: of any clock that
 * goes forward. Never true for what makes no signature of something. */
bool replay_table_note(struct replay_table *table, const struct sign_request *request, uint32_t seconds);
/* It came to nothing after all. */
void replay_table_forget(struct replay_table *table, const struct sign_request *request);

#endif
