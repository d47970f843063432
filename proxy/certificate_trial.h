/*
 * Which chains the key server signs for: one worker finds out with test requests, one at a time, so that
 * clients do not wait behind a thousand of them.
 *
 * New chains of files of which another one is served are not served yet. They are tried at once, again and
 * again with growing pauses, and it is told which are good.
 *
 * The chains of the table are served. Each is tried once, in the background. One that the key server does not
 * sign for is tried again as the new ones are, and it is told, each time, that it is not good, and when it is
 * again. A key server that does not answer says nothing of a chain.
 */
#ifndef KEYLESS_PROXY_CERTIFICATE_TRIAL_H
#define KEYLESS_PROXY_CERTIFICATE_TRIAL_H

#include <event2/event.h>

#include "common/log.h"
#include "common/metrics.h"
#include "proxy/certificates.h"
#include "proxy/config.h"
#include "proxy/key_client.h"

struct certificate_trials;

struct certificate_trials_settings {
    struct event_base *base;
    const struct proxy_config *config;
    struct certificates *certificates;
    struct key_client *client;
    struct log *log;
    struct metrics_row *metrics;
    void (*passed)(uint32_t number, void *owner); /* the new chain with this number is good */
    void (*settled)(void *owner);                 /* each of the first list was tried once; called once */
    /* What was found of the chain in this place of the table. certificate_trials_heard must follow. */
    void (*found)(uint64_t place, bool good, void *owner);
    void *owner;
};

/* NULL: no memory. */
struct certificate_trials *certificate_trials_new(const struct certificate_trials_settings *settings);
void certificate_trials_free(struct certificate_trials *trials);

/* The list of all new ones that are to be tried: certificate_handover.h's, whose indexes are the numbers; -1:
 * none. fd is taken over. What is in the list already goes on as it was. */
void certificate_trials_take(struct certificate_trials *trials, int fd);

/* The chains of the table are tried from now on. */
void certificate_trials_begin(struct certificate_trials *trials);
/* Ten times a second or so: looks at what has come into the table. */
void certificate_trials_tick(struct certificate_trials *trials);
/* What was found last is in the table (certificate_verdicts.h). No more of it is tried before, so that
 * messages never pile up between processes, one of which may be busy. */
void certificate_trials_heard(struct certificate_trials *trials);

#endif
