/*
 * Which bucket is which client entry's, for as long as the key server runs: an entry that a reload keeps, by
 * its `match`, keeps its bucket, so that reloading fills none.
 *
 * There are two sets. Front ends take from the first, all from the same buckets, so that a rate holds over
 * all of a client's connections. One that was taken over can empty buckets and fill them there: then others
 * are refused, or not. So the signer takes from buckets of its own, which are mapped in no other process that
 * does anything (client_rates_leave): what a front end asks it, it gets at that rate and no faster.
 */
#ifndef KEYLESS_KEYSERVER_CLIENT_RATES_H
#define KEYLESS_KEYSERVER_CLIENT_RATES_H

#include <stddef.h>

#include "common/result.h"
#include "keyserver/config.h"
#include "keyserver/rate_bucket.h"

struct client_rates;

enum client_rates_set { RATES_OF_FRONTENDS, RATES_OF_SIGNER, RATES_SETS };

/* The master's, made before it forks anybody. */
MUST_CHECK enum result client_rates_new(struct client_rates **rates, struct failure *why);
/* This process's view of it; NULL is allowed. */
void client_rates_free(struct client_rates *rates);

/* For a configuration whose processes are about to be forked: the number of the bucket of each entry that has
 * a `rate`, by the entry's number; the caller's to free. Entries that have gone lose theirs only when there
 * are no others left. */
MUST_CHECK enum result client_rates_assign(struct client_rates *rates, const struct keyserver_config *config,
                                           size_t **numbers, struct failure *why);

/* A set's buckets, by those numbers; NULL: this process has left it. */
struct rate_bucket *client_rates_buckets(const struct client_rates *rates, enum client_rates_set set);
/* The set is no longer in this process's memory. */
void client_rates_leave(struct client_rates *rates, enum client_rates_set set);

#endif
