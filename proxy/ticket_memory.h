/*
 * What ticket keys need to outlive a worker, and a reading of the configuration: made by the master before it
 * forks anybody, and only ever in memory.
 *
 * Of keys of our own (tickets.source: local) that is the chain that they are derived from: each worker gets a
 * copy as it is forked and goes on from there. Of keys of a key server it is the last ones that were told, so
 * that a worker which is started while no key server answers resumes sessions all the same.
 */
#ifndef KEYLESS_PROXY_TICKET_MEMORY_H
#define KEYLESS_PROXY_TICKET_MEMORY_H

#include <stdint.h>

#include "common/result.h"
#include "common/ticket_chain.h"
#include "proxy/ticket_keys.h"

struct ticket_memory;

MUST_CHECK enum result ticket_memory_new(struct ticket_memory **memory, struct failure *why);
/* This process's view of it; NULL is allowed. A process that has no use for it frees it, too. */
void ticket_memory_free(struct ticket_memory *memory);

/* For a reading of the configuration with keys of our own: a chain of this rotation, at the oldest epoch that
 * is still of use. A new one if there is none that is; the one of the configuration before stays, whose
 * workers may have to be replaced yet. */
MUST_CHECK enum result ticket_memory_prepare(struct ticket_memory *memory, const struct ticket_times *times,
                                             uint64_t unix_seconds, struct failure *why);
/* Forgets what is no longer of use, of either kind of keys; for the master, now and then. */
void ticket_memory_forget(struct ticket_memory *memory, uint64_t unix_seconds);
/* For a worker: takes the chain of this rotation out of its view of the memory, so that what it is derived
 * from is not there for longer than the worker itself keeps it. False: there is none. */
MUST_CHECK bool ticket_memory_take_chain(struct ticket_memory *memory, uint32_t rotate,
                                         struct ticket_chain *chain);

/* The keys that a key server has told last, to any worker. False: none that are still of use. */
MUST_CHECK bool ticket_memory_read(struct ticket_memory *memory, uint64_t unix_seconds,
                                   struct ticket_keys *keys);
/* Keeps them for others. Each worker has a place of its own, by its generation and index. */
void ticket_memory_write(struct ticket_memory *memory, unsigned generation, unsigned index,
                         const struct ticket_keys *keys);
/* What workers have written is to be used no longer. */
void ticket_memory_clear(struct ticket_memory *memory);

/* Keeps this process's pages of it from being swapped out; false: the limit is too low. */
bool ticket_memory_lock(const struct ticket_memory *memory, unsigned generation, unsigned index);

#endif
