/*
 * What the master tells of its children in shared memory, for the process that serves the admin endpoint: a
 * status area of PROCESS_STATUS_MAX of these records, one a child.
 */
#ifndef KEYLESS_COMMON_PROCESS_STATUS_H
#define KEYLESS_COMMON_PROCESS_STATUS_H

#include <stdint.h>

#include "common/json.h"
#include "common/metrics.h"
#include "common/result.h"
#include "common/status_area.h"

#define PROCESS_STATUS_MAX METRICS_MAX_ROWS

enum child_state {
    CHILD_STARTING,
    CHILD_READY,
    CHILD_STALLED,  /* ready, but its heartbeat has stopped */
    CHILD_DRAINING, /* told to finish what it has */
    CHILD_ENDING,   /* told to end at once, or killed */
    CHILD_STATES
};

/* A plain value, as it is in shared memory. */
struct process_status {
    char kind[24]; /* "worker" */
    uint32_t index, generation;
    int64_t pid;
    uint32_t state;   /* enum child_state */
    int64_t since;    /* time(2): when it got into that state */
    uint32_t sandbox; /* sandbox_state_pack: how far it is confined; known once it is ready */
};

MUST_CHECK enum result process_status_new(struct status_area **area, struct failure *why);

/* Children of this kind that are in this state; generation 0: of any. */
unsigned process_status_count(const struct status_area *area, const char *kind, enum child_state state,
                              unsigned generation);
/* Whether this child is the ready one that `index` of its kind is. */
bool process_status_is_ready(const struct status_area *area, const char *kind, unsigned index,
                             unsigned generation, int64_t pid);

/* "processes": an array with an object for each child. */
void process_status_write(const struct status_area *area, struct json *json);

#endif
