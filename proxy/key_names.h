/* Looks up the names of key servers, in the helper: at its start, and again whenever their TTL ends. What was
 * found last stays in use while nothing is. */
#ifndef KEYLESS_PROXY_KEY_NAMES_H
#define KEYLESS_PROXY_KEY_NAMES_H

#include <event2/event.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"
#include "proxy/config.h"
#include "proxy/endpoints.h"
#include "proxy/resolver.h"

struct key_names;

struct key_names_settings {
    struct event_base *base;
    struct resolver *resolver;
    const struct proxy_config *config; /* borrowed, as everything in here */
    struct endpoints *endpoints;
    const size_t *places; /* one for each key server */
    struct log *log;
    struct metrics_row *metrics;
};

/* Nothing is asked before the loop runs. */
MUST_CHECK enum result key_names_new(const struct key_names_settings *settings, struct key_names **names,
                                     struct failure *why);
/* NULL is allowed. */
void key_names_free(struct key_names *names);

#endif
