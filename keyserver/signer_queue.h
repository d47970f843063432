/*
 * The signer's threads: for each cost class a bounded queue and a thread for each core. The classes run side
 * by side, those with dear operations at a lower priority, so that cheap operations never wait behind them.
 *
 *   event loop ── signer_queue_add ──▶ queue of the class ──▶ thread: signs ──▶ done list ── eventfd ──▶ loop
 *
 * Jobs are made and freed by the event loop's thread alone. Under load a thread takes several cheap jobs at
 * once and hands them back together, and the loop is woken once for all that is done by then.
 */
#ifndef KEYLESS_KEYSERVER_SIGNER_QUEUE_H
#define KEYLESS_KEYSERVER_SIGNER_QUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/result.h"
#include "keyserver/key_store.h"
#include "keyserver/sign_request.h"

struct signer_job {
    struct signer_job *next;
    struct sign_request request; /* its message, if it has one, is the job's own copy */
    size_t key;
    enum key_class class;
    void *asker;                      /* the owner's: whom to tell */
    TAILQ_ENTRY(signer_job) of_asker; /* the owner's */
    bool replay;                      /* the owner's: it had been asked for before */
    uint64_t added;                   /* clock_now */
    _Atomic bool cancelled;           /* by the owner: not signed any more, if it is not yet */
    /* The outcome. */
    bool dropped; /* for having been cancelled; then there is nothing else */
    enum kssl_error error;
    uint32_t queue, sign; /* microseconds waited and worked */
    size_t signed_size;   /* of the digest of what was signed; 0: nobody wants it */
    uint8_t signed_octets[SIGN_DIGEST_OF_MAX];
    size_t signature_size;
    uint8_t *signature; /* within the job */
    size_t room;        /* for the signature */
};

/* A copy of the request, and room for a signature of the key's. NULL: no memory. */
struct signer_job *signer_job_new(const struct sign_request *request, size_t key, const struct key_id *id);
void signer_job_free(struct signer_job *job);

struct signer_queue;

struct signer_queue_settings {
    size_t lengths[KEY_CLASSES]; /* jobs that may wait in each class */
    unsigned threads;            /* of each class */
    bool digests;                /* of what is signed are wanted */
    uint64_t deadline;           /* microseconds; jobs that have waited longer are not tried */
};

/* Starts the threads. store must outlive the queue. */
MUST_CHECK enum result signer_queue_new(struct key_store *store, const struct signer_queue_settings *settings,
                                        struct signer_queue **queue, struct failure *why);
/* Ends the threads, when each is through with what it is at, and frees all jobs. */
void signer_queue_free(struct signer_queue *queue);

/* Queues the job, which the queue owns from now on. False: the class's queue is full, and the job still the
 * caller's. */
MUST_CHECK bool signer_queue_add(struct signer_queue *queue, struct signer_job *job);

/* Readable when jobs are done. */
int signer_queue_descriptor(const struct signer_queue *queue);
/* All that are done, oldest first, chained by next, the caller's from now on; NULL: none. */
struct signer_job *signer_queue_take(struct signer_queue *queue);

#endif
