/* What the admin endpoint shows of the proxy: whether it is ready, its state as JSON, and metrics that nobody
 * counts. Made from the configuration in force, and from what master and workers tell in shared memory. */
#ifndef KEYLESS_PROXY_STATUS_H
#define KEYLESS_PROXY_STATUS_H

#include <stdbool.h>

#include "common/json.h"
#include "proxy/master.h"

struct evbuffer;

struct proxy_status {
    const struct proxy_setup *setup;
    unsigned generation;
};

/* At least one worker is alive, and one has a channel to a key server. If not, appends what is missing. */
bool proxy_status_ready(const struct proxy_status *status, struct evbuffer *why_not);

/* Members of the object that json is in. */
void proxy_status_write(const struct proxy_status *status, struct json *json);

void proxy_status_metrics(const struct proxy_status *status, struct evbuffer *to);

#endif
