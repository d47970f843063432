/*
 * What is to be asked of OCSP responders, and when: a task for each chain that is served, and for each that
 * is held back. It knows the table of chains and what is kept of responses; it asks nobody.
 */
#ifndef KEYLESS_PROXY_OCSP_TASKS_H
#define KEYLESS_PROXY_OCSP_TASKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/result.h"
#include "proxy/certificates.h"
#include "proxy/config.h"
#include "proxy/staples.h"

#define OCSP_NO_HOST SIZE_MAX

struct ocsp_task {
    uint8_t mark[CERTIFICATE_MARK_SIZE]; /* of the leaf */
    const struct proxy_ocsp *settings;   /* NULL: nothing is fetched for it */
    uint64_t due;                        /* by clock_now */
    unsigned failures;                   /* since the last success */
    time_t next_update; /* of the response that is there; 0: there is none, or its end was told */
    uint32_t told;      /* the reason that the log has; 0: none */
    size_t host;        /* that was asked last (ocsp_hosts.h); OCSP_NO_HOST: none yet */
    bool tried, running;
};

struct ocsp_task_list {
    struct ocsp_task *tasks;
    size_t count, capacity;
};

struct ocsp_tasks {
    const struct proxy_config *config; /* borrowed, as all of it */
    const struct certificates *certificates;
    const struct staples *staples;
    struct ocsp_task_list served;  /* by the index of the chain */
    struct ocsp_task_list waiting; /* of those held back ... */
    struct certificate **pending;  /* ... which are here */
};

void ocsp_tasks_free(struct ocsp_tasks *tasks);

/* Chains that have come, or have taken another's place, get a task of their own. What stands in tasks may
 * move. */
void ocsp_tasks_follow(struct ocsp_tasks *tasks);
/* The chains that are held back, in place of those before: certificate_handover.h's; -1: none. What was under
 * way for one that still waits goes on. RESULT_AGAIN: all of them were read. */
MUST_CHECK enum result ocsp_tasks_take(struct ocsp_tasks *tasks, int fd, struct failure *why);

/* By number: first those of chains that are served. */
size_t ocsp_tasks_count(const struct ocsp_tasks *tasks);
struct ocsp_task *ocsp_tasks_at(struct ocsp_tasks *tasks, size_t number);
const struct certificate *ocsp_tasks_certificate(const struct ocsp_tasks *tasks, size_t number);

bool ocsp_task_is_of(const struct ocsp_task *task, const struct certificate *certificate);
/* A response was taken, to be in force until then. */
void ocsp_task_succeeded(struct ocsp_task *task, time_t next_update, time_t now);
/* None was: it is due again after a pause, which grows. */
void ocsp_task_failed(struct ocsp_task *task);

#endif
