/*
 * New chains that are not served yet: one worker asks the key server for a signature as a handshake with them
 * would need it, again and again with growing pauses, and tells which are good. One at a time, so that
 * clients do not wait behind a thousand of them.
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
    struct certificates *certificates; /* whose parser is used */
    struct key_client *client;
    struct log *log;
    struct metrics_row *metrics;
    void (*passed)(uint32_t number, void *owner); /* the chain with this number is good */
    void (*settled)(void *owner);                 /* each of the first list was tried once; called once */
    void *owner;
};

/* NULL: no memory. */
struct certificate_trials *certificate_trials_new(const struct certificate_trials_settings *settings);
void certificate_trials_free(struct certificate_trials *trials);

/* The list of all that are to be tried: certificate_handover.h's, whose indexes are the numbers; -1: none. fd
 * is taken over. What is in the list already goes on as it was. */
void certificate_trials_take(struct certificate_trials *trials, int fd);

#endif
