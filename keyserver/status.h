/* What the admin endpoint shows of the key server: whether it is ready, its state as JSON, and metrics that
 * nobody counts. Made from the configuration in force, and from what master, front ends and signer tell in
 * shared memory. */
#ifndef KEYLESS_KEYSERVER_STATUS_H
#define KEYLESS_KEYSERVER_STATUS_H

#include <stdbool.h>

#include "common/json.h"
#include "keyserver/plan.h"

struct evbuffer;

struct keyserver_status {
    const struct keyserver_plan *plan;
    unsigned generation;
};

/* The signer is there with its keys, and a front end. If not, appends what is missing. */
bool keyserver_status_ready(const struct keyserver_status *status, struct evbuffer *why_not);

/* Members of the object that json is in. */
void keyserver_status_write(const struct keyserver_status *status, struct json *json);

void keyserver_status_metrics(const struct keyserver_status *status, struct evbuffer *to);

#endif
