#include "keyserver/signer_queue.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "common/clock.h"
#include "keyserver/signer_sign.h"

/* libcrypto's deepest call needs some 20 kB; locked memory is dear. */
#define STACK_SIZE ((size_t)256 * 1024)

/* How a class's threads run. Each batch costs a turn of the signer's loop and of a front end's, some 100 us;
 * how long its first job waits for its last is less than what is waiting has to wait anyway. */
static const struct class_rule {
    int nice;
    unsigned batch; /* jobs that a thread takes at once, at most */
} CLASSES[KEY_CLASSES] = {
    [KEY_CLASS_EC] = {0, 32},
    [KEY_CLASS_RSA] = {5, 16},
    [KEY_CLASS_RSA_LARGE] = {10, 1},
};

struct class_queue {
    struct signer_queue *all;
    const struct class_rule *rule;
    pthread_mutex_t lock;
    pthread_cond_t wakeup;
    struct signer_job *first, **last;
    size_t count, length;
    pthread_cond_t started_one;
    unsigned started; /* threads that are done with setting themselves up */
    unsigned waiting; /* threads that wait for a job */
    bool ending;
    struct worker *workers;
    unsigned worker_count;
};

struct worker {
    struct class_queue *class;
    struct signer_sign *sign;
    pthread_t thread;
};

struct signer_queue {
    struct key_store *store;
    struct signer_queue_settings settings;
    struct class_queue classes[KEY_CLASSES];
    _Atomic(struct signer_job *) done; /* newest first; only ever taken whole */
    int wakeup;                        /* eventfd */
};

/* ---- Jobs. */

struct signer_job *signer_job_new(const struct sign_request *request, size_t key, const struct key_id *id)
{
    const struct bytes borrowed = sign_request_borrowed(request);
    struct signer_job *job = malloc(sizeof *job + id->signature_size + borrowed.size);
    if (job == NULL)
        return NULL;
    *job = (struct signer_job){.request = *request, .key = key, .class = key_class_of(id)};
    job->signature = (uint8_t *)(job + 1);
    job->room = id->signature_size;
    if (borrowed.size > 0) {
        memcpy(job->signature + job->room, borrowed.data, borrowed.size);
        job->request.message.data = job->signature + job->room;
    }
    return job;
}

/* What was decrypted is a secret; a signature is none. */
void signer_job_free(struct signer_job *job)
{
    if (job != NULL && job->request.kind == SIGN_CIPHERTEXT)
        OPENSSL_cleanse(job->signature, job->room);
    free(job);
}

static void jobs_free(struct signer_job *job)
{
    while (job != NULL) {
        struct signer_job *next = job->next;
        signer_job_free(job);
        job = next;
    }
}

/* ---- What is done. */

/* Puts a chain on the list. Only who finds the list empty wakes the loop: it takes the rest along. */
static void hand_back(struct signer_queue *queue, struct signer_job *newest, struct signer_job *oldest)
{
    struct signer_job *head = atomic_load_explicit(&queue->done, memory_order_relaxed);
    do
        oldest->next = head;
    while (!atomic_compare_exchange_weak_explicit(&queue->done, &head, newest, memory_order_release,
                                                  memory_order_relaxed));
    if (head == NULL)
        (void)eventfd_write(queue->wakeup, 1);
}

static struct signer_job *reversed(struct signer_job *job)
{
    struct signer_job *result = NULL;
    while (job != NULL) {
        struct signer_job *next = job->next;
        job->next = result;
        result = job;
        job = next;
    }
    return result;
}

struct signer_job *signer_queue_take(struct signer_queue *queue)
{
    eventfd_t count;
    (void)eventfd_read(queue->wakeup, &count);
    return reversed(atomic_exchange_explicit(&queue->done, NULL, memory_order_acquire));
}

int signer_queue_descriptor(const struct signer_queue *queue)
{
    return queue->wakeup;
}

/* ---- Threads. */

/* A thread's fair share of what waits, so that jobs are not signed one after the other while a thread idles.
 */
static size_t batch_size(const struct class_queue *class)
{
    size_t share = class->count / class->worker_count;
    if (share > class->rule->batch)
        share = class->rule->batch;
    return share > 0 ? share : 1;
}

/* Waits for jobs and takes a batch of them; NULL: it is over. */
static struct signer_job *take_batch(struct class_queue *class)
{
    (void)pthread_mutex_lock(&class->lock);
    while (class->count == 0 && !class->ending) {
        class->waiting++;
        (void)pthread_cond_wait(&class->wakeup, &class->lock);
        class->waiting--;
    }
    struct signer_job *batch = NULL;
    if (!class->ending) {
        batch = class->first;
        struct signer_job **end = &batch;
        for (size_t i = batch_size(class); i > 0; i--, class->count--)
            end = &(*end)->next;
        class->first = *end;
        *end = NULL;
        if (class->first == NULL)
            class->last = &class->first;
    }
    (void)pthread_mutex_unlock(&class->lock);
    return batch;
}

static void work_on(struct signer_sign *sign, struct signer_job *job,
                    const struct signer_queue_settings *settings)
{
    uint64_t began = clock_now();
    job->queue = clock_passed(job->added, began);
    job->dropped = atomic_load_explicit(&job->cancelled, memory_order_relaxed);
    if (job->dropped)
        return;
    if (job->queue > settings->deadline) {
        job->error = KSSL_ERROR_OVERLOADED;
        return;
    }
    job->signature_size = job->room;
    job->error = signer_sign(sign, &job->request, job->key, job->signature, &job->signature_size);
    job->sign = clock_passed(began, clock_now());
    if (settings->digests)
        job->signed_size = sign_request_digest(&job->request, job->signed_octets);
}

static void set_up_thread(struct class_queue *class)
{
    /* Linux: a thread's id in place of a process's means that thread. Lowering takes no privilege. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), class->rule->nice);
    (void)pthread_mutex_lock(&class->lock);
    class->started++;
    (void)pthread_cond_signal(&class->started_one);
    (void)pthread_mutex_unlock(&class->lock);
}

/* The process is confined next, for all threads: none may still be making itself. */
static void wait_until_set_up(struct class_queue *class)
{
    (void)pthread_mutex_lock(&class->lock);
    while (class->started < class->worker_count)
        (void)pthread_cond_wait(&class->started_one, &class->lock);
    (void)pthread_mutex_unlock(&class->lock);
}

static void *worker_run(void *argument)
{
    struct worker *worker = argument;
    struct class_queue *class = worker->class;
    set_up_thread(class);
    struct signer_job *batch;
    while ((batch = take_batch(class)) != NULL) {
        struct signer_job *done = NULL, *oldest = batch;
        while (batch != NULL) {
            struct signer_job *job = batch;
            batch = job->next;
            work_on(worker->sign, job, &class->all->settings);
            job->next = done;
            done = job;
        }
        hand_back(class->all, done, oldest);
    }
    OPENSSL_thread_stop();
    return NULL;
}

static bool worker_start(struct class_queue *class, const pthread_attr_t *attributes)
{
    struct worker *worker = &class->workers[class->worker_count];
    worker->class = class;
    worker->sign = signer_sign_new(class->all->store);
    if (worker->sign == NULL || pthread_create(&worker->thread, attributes, worker_run, worker) != 0) {
        signer_sign_free(worker->sign);
        return false;
    }
    class->worker_count++;
    return true;
}

static bool workers_start(struct class_queue *class, unsigned count)
{
    pthread_attr_t attributes;
    sigset_t every, before;
    class->workers = calloc(count, sizeof *class->workers);
    if (class->workers == NULL || pthread_attr_init(&attributes) != 0)
        return false;
    (void)pthread_attr_setstacksize(&attributes, STACK_SIZE);
    /* Signals are the event loop's; but for what a thread does itself. */
    (void)sigfillset(&every);
    (void)sigdelset(&every, SIGSYS);
    (void)pthread_sigmask(SIG_SETMASK, &every, &before);
    while (class->worker_count < count && worker_start(class, &attributes))
        continue;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    wait_until_set_up(class);
    (void)pthread_attr_destroy(&attributes);
    return class->worker_count == count;
}

/* ---- All of it. */

static bool class_start(struct signer_queue *queue, enum key_class number)
{
    struct class_queue *class = &queue->classes[number];
    class->all = queue;
    class->rule = &CLASSES[number];
    class->length = queue->settings.lengths[number];
    class->last = &class->first;
    (void)pthread_mutex_init(&class->lock, NULL);
    (void)pthread_cond_init(&class->wakeup, NULL);
    (void)pthread_cond_init(&class->started_one, NULL);
    return workers_start(class, queue->settings.threads);
}

enum result signer_queue_new(struct key_store *store, const struct signer_queue_settings *settings,
                             struct signer_queue **queue, struct failure *why)
{
    *queue = NULL;
    struct signer_queue *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the signer's queues");
    made->store = store;
    made->settings = *settings;
    made->wakeup = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    bool started = made->wakeup >= 0;
    for (enum key_class i = 0; i < KEY_CLASSES && started; i++)
        started = class_start(made, i);
    if (!started) {
        signer_queue_free(made);
        return failure_set(why, RESULT_SYSTEM, "cannot start %u threads for each class of keys",
                           settings->threads);
    }
    *queue = made;
    return RESULT_OK;
}

static void class_end(struct class_queue *class)
{
    if (class->all == NULL)
        return;
    (void)pthread_mutex_lock(&class->lock);
    class->ending = true;
    (void)pthread_cond_broadcast(&class->wakeup);
    (void)pthread_mutex_unlock(&class->lock);
    for (unsigned i = 0; i < class->worker_count; i++) {
        (void)pthread_join(class->workers[i].thread, NULL);
        signer_sign_free(class->workers[i].sign);
    }
    jobs_free(class->first);
    free(class->workers);
    (void)pthread_cond_destroy(&class->wakeup);
    (void)pthread_cond_destroy(&class->started_one);
    (void)pthread_mutex_destroy(&class->lock);
}

void signer_queue_free(struct signer_queue *queue)
{
    if (queue == NULL)
        return;
    for (enum key_class i = 0; i < KEY_CLASSES; i++)
        class_end(&queue->classes[i]);
    jobs_free(atomic_load(&queue->done));
    if (queue->wakeup >= 0)
        close(queue->wakeup);
    free(queue);
}

bool signer_queue_add(struct signer_queue *queue, struct signer_job *job)
{
    struct class_queue *class = &queue->classes[job->class];
    job->added = clock_now();
    job->next = NULL;
    (void)pthread_mutex_lock(&class->lock);
    bool room = class->count < class->length;
    if (room) {
        *class->last = job;
        class->last = &job->next;
        class->count++;
    }
    bool wake = room && class->waiting > 0;
    (void)pthread_mutex_unlock(&class->lock);
    if (wake)
        (void)pthread_cond_signal(&class->wakeup);
    return room;
}
