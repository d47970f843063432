/*
 * Where a worker's ticket keys come from (tickets.source).
 *
 * keyserver: operation 0x66, asked when a channel comes up and every minute; what is no longer listed is
 * dropped.
 *
 * local: derived from a chain that the master made, the same in all workers and kept over reloads.
 *
 * file: read by the master with the configuration.
 */
#ifndef KEYLESS_PROXY_TICKET_SOURCE_H
#define KEYLESS_PROXY_TICKET_SOURCE_H

#include "common/log.h"
#include "common/metrics.h"
#include "proxy/config.h"
#include "proxy/key_client.h"
#include "proxy/ticket_keys.h"
#include "proxy/ticket_memory.h"

struct ticket_source;

/* Everything is borrowed. */
struct ticket_source_settings {
    const struct proxy_config *config;
    const struct ticket_keys *from_file; /* tickets.source: file; else NULL */
    struct ticket_memory *memory;
    unsigned generation, index; /* the worker's */
    struct key_client *client;  /* whose channel is asked */
    struct log *log;
    struct metrics_row *metrics;
};

/* Locks what it needs into memory, for which the process must not be confined yet. */
MUST_CHECK enum result ticket_source_new(const struct ticket_source_settings *settings,
                                         struct ticket_source **source, struct failure *why);
/* Clears the keys; NULL is allowed. */
void ticket_source_free(struct ticket_source *source);

/* Those of now; none with tickets.source: off, or while there are none. */
const struct ticket_keys *ticket_source_keys(const struct ticket_source *source);

/* Looks after them: to be called several times a second. */
void ticket_source_tick(struct ticket_source *source);

#endif
