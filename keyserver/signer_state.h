/* The signer from within: shared by signer.c (its life, and its links) and signer_requests.c (what front ends
 * ask and are answered). */
#ifndef KEYLESS_KEYSERVER_SIGNER_STATE_H
#define KEYLESS_KEYSERVER_SIGNER_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/process.h"
#include "keyserver/audit_feed.h"
#include "keyserver/config.h"
#include "keyserver/key_store.h"
#include "keyserver/policy.h"
#include "keyserver/replay_table.h"
#include "keyserver/signer_link.h"
#include "keyserver/signer_queue.h"
#include "keyserver/ticket_keys.h"

struct signer;

/* A front end. Lives until its link is closed and the last of its jobs is done. */
struct asker {
    struct signer *signer;
    struct signer_link *link; /* NULL: gone */
    unsigned index;
    TAILQ_HEAD(, signer_job) jobs;
    TAILQ_ENTRY(asker) entry;
};

struct signer {
    struct child *child;
    struct log *log;
    struct metrics_row *metrics;
    const struct keyserver_config *config;
    struct key_store *store;
    struct policy *policy;
    struct signer_queue *queue;
    struct audit_feed *audit; /* NULL: none is kept */
    struct replay_table *replays;
    struct ticket_keys *ticket_keys; /* NULL: none are configured */
    uint64_t ticket_keys_seen;       /* Unix seconds when there was last looked after them */
    struct event *done;
    TAILQ_HEAD(, asker) askers;
    size_t jobs;
    size_t message_octets;
    bool draining, orphaned;
};

/* A message of a front end's, as signer_link_handler has it. */
bool asker_message(uint8_t type, struct bytes body, void *asker);
/* Nobody waits for this job any more. */
void signer_cancel_job(struct signer_job *job);
/* Answers all jobs that are done. */
void signer_answer_done(struct signer *signer);

/* After its link or its last job has gone. */
void asker_free_if_gone(struct asker *asker);

#endif
