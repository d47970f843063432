#include "proxy/ocsp_refresh.h"

#include <stdlib.h>
#include <string.h>

#include <event2/dns.h>
#include <openssl/rand.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/certificate_handover.h"
#include "proxy/ocsp_fetch.h"
#include "proxy/ocsp_settings.h"
#include "proxy/ocsp_take.h"
#include "proxy/proxy_metrics.h"

#define SECOND     UINT64_C(1000000)
#define FETCHES    8 /* at a time */
#define TICK       (SECOND / 5)
#define PAUSE_MIN  SECOND
#define PAUSE_MAX  (300 * SECOND)
#define FORGETTING (3600 * SECOND)

/* What is to be done for one chain. */
struct task {
    uint8_t mark[CERTIFICATE_MARK_SIZE];
    const struct proxy_ocsp *settings; /* NULL: nothing is fetched for it */
    uint64_t due;
    unsigned failures;  /* since the last success */
    time_t next_update; /* of the response that is there; 0: there is none, or its end was told */
    uint32_t told;      /* the reason that the log has; 0: none */
    bool tried, running;
};

struct task_list {
    struct task *tasks;
    size_t count, capacity;
};

struct running {
    struct ocsp_refresh *refresh;
    struct ocsp_fetch *fetch;              /* NULL: free */
    const struct certificate *certificate; /* held */
};

struct ocsp_refresh {
    struct ocsp_refresh_settings settings;
    struct evdns_base *dns;
    struct event *timer;
    struct task_list served; /* by the index of the chain */
    struct task_list waiting;
    struct certificate **pending; /* those of waiting */
    struct running running[FETCHES];
    size_t next; /* whose turn it is */
    uint64_t forgotten;
};

/* ---- Tasks. */

static uint64_t jitter(uint64_t of)
{
    uint32_t random = 0;
    (void)RAND_bytes((unsigned char *)&random, sizeof random);
    return of / 10 * (random % 1000) / 1000;
}

/* At half of its life, or when it is as old as `refresh`; a little earlier, so that not all come at once. */
static uint64_t due_after(const struct task *task, time_t taken, time_t now)
{
    uint64_t life = (uint64_t)(task->next_update > taken ? task->next_update - taken : 0) * SECOND;
    uint64_t wait = life / 2 < task->settings->refresh ? life / 2 : task->settings->refresh;
    uint64_t age = (uint64_t)(now > taken ? now - taken : 0) * SECOND;
    if (wait < SECOND)
        wait = SECOND;
    wait -= jitter(wait);
    return clock_now() + (wait > age ? wait - age : 0);
}

/* A task for this chain from the beginning, with what another process has left. */
static void task_begin(const struct ocsp_refresh *refresh, struct task *task,
                       const struct certificate *certificate)
{
    const struct proxy_ocsp *settings = ocsp_settings_of(refresh->settings.config, certificate);
    const time_t now = time(NULL);
    struct staple staple;
    *task = (struct task){.settings = settings->source == OCSP_FETCH ? settings : NULL};
    memcpy(task->mark, certificate->mark, sizeof task->mark);
    size_t place =
        task->settings != NULL ? staples_find(refresh->settings.staples, certificate) : STAPLE_NOWHERE;
    if (place == STAPLE_NOWHERE || !staples_read(refresh->settings.staples, place, certificate, &staple) ||
        staple.next_update <= now)
        return;
    task->tried = true;
    task->next_update = (time_t)staple.next_update;
    task->due = due_after(task, (time_t)staple.taken, now);
}

static struct task *task_at(struct task_list *list, size_t index)
{
    if (index >= list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        struct task *tasks = realloc(list->tasks, capacity * sizeof *tasks);
        if (tasks == NULL)
            return NULL;
        list->tasks = tasks;
        list->capacity = capacity;
    }
    if (index == list->count)
        list->tasks[list->count++] = (struct task){0};
    return &list->tasks[index];
}

static const struct certificate *certificate_of(const struct ocsp_refresh *refresh, size_t index)
{
    size_t served = refresh->served.count;
    return index < served ? certificates_at(refresh->settings.certificates, index)
                          : refresh->pending[index - served];
}

/* By its number among all: first those that are served. */
static struct task *task_number(struct ocsp_refresh *refresh, size_t index)
{
    size_t served = refresh->served.count;
    return index < served ? &refresh->served.tasks[index] : &refresh->waiting.tasks[index - served];
}

static size_t task_count(const struct ocsp_refresh *refresh)
{
    return refresh->served.count + refresh->waiting.count;
}

/* Chains that have come, or have taken another's place, get a task of their own. */
static void tasks_follow(struct ocsp_refresh *refresh)
{
    size_t count = certificates_count(refresh->settings.certificates);
    for (size_t i = 0; i < count; i++) {
        const struct certificate *certificate = certificates_at(refresh->settings.certificates, i);
        bool is_new = i >= refresh->served.count;
        struct task *task = task_at(&refresh->served, i);
        if (task == NULL)
            return;
        if (is_new || memcmp(task->mark, certificate->mark, sizeof task->mark) != 0)
            task_begin(refresh, task, certificate);
    }
}

/* ---- What became of one. */

static uint32_t hash_of(const char *reason)
{
    uint32_t hash = 2166136261;
    for (; *reason != '\0'; reason++)
        hash = (hash ^ (unsigned char)*reason) * 16777619;
    return hash != 0 ? hash : 1;
}

/* Once, until there is another reason. */
static void tell(const struct ocsp_refresh *refresh, struct task *task, const struct certificate *certificate,
                 const char *reason)
{
    uint32_t hash = hash_of(reason);
    if (task->told != hash)
        log_warn(refresh->settings.log, "OCSP response not taken", log_text("file", certificate->path),
                 log_reason(reason));
    task->told = hash;
}

static void failed(struct ocsp_refresh *refresh, struct task *task, const struct certificate *certificate,
                   const char *reason)
{
    uint64_t pause = PAUSE_MAX;
    if (task->failures < 9)
        pause = PAUSE_MIN << task->failures;
    if (pause > PAUSE_MAX)
        pause = PAUSE_MAX;
    task->failures++;
    task->tried = true;
    task->due = clock_now() + pause + jitter(pause);
    metric_add(refresh->settings.metrics, PROXY_OCSP_FAILED, 1);
    tell(refresh, task, certificate, reason);
}

static void tell_success(const struct ocsp_refresh *refresh, const struct task *task,
                         const struct certificate *certificate, bool revoked)
{
    int64_t lasts = (int64_t)(task->next_update - time(NULL));
    if (revoked)
        log_error(refresh->settings.log, "certificate is revoked", log_text("file", certificate->path),
                  log_text("name", certificate->names));
    else if (task->told != 0)
        log_info(refresh->settings.log, "OCSP response taken", log_text("file", certificate->path),
                 log_number("lasts_s", lasts));
    else
        log_debug(refresh->settings.log, "OCSP response taken", log_text("file", certificate->path),
                  log_number("lasts_s", lasts));
}

static void succeeded(struct ocsp_refresh *refresh, struct task *task, const struct certificate *certificate,
                      const struct ocsp_status *status)
{
    const time_t now = time(NULL);
    task->tried = true;
    task->failures = 0;
    task->next_update = status->next_update;
    task->due = due_after(task, now, now);
    metric_add(refresh->settings.metrics, status->revoked ? PROXY_OCSP_REVOKED : PROXY_OCSP_GOOD, 1);
    tell_success(refresh, task, certificate, status->revoked);
    task->told = 0;
}

static void take_answer(struct ocsp_refresh *refresh, struct task *task,
                        const struct certificate *certificate, struct bytes body, const char *reason)
{
    struct ocsp_status status;
    struct failure why;
    if (body.data == NULL)
        failed(refresh, task, certificate, reason);
    else if (ocsp_take(refresh->settings.staples, certificate, body, time(NULL), &status, &why) != RESULT_OK)
        failed(refresh, task, certificate, why.text);
    else
        succeeded(refresh, task, certificate, &status);
}

/* Tasks may have moved meanwhile, or be gone. */
static void on_done(struct bytes body, const char *reason, void *owner)
{
    struct running *running = owner;
    struct ocsp_refresh *refresh = running->refresh;
    const struct certificate *certificate = running->certificate;
    running->fetch = NULL;
    for (size_t i = 0; i < task_count(refresh); i++) {
        struct task *task = task_number(refresh, i);
        if (task->settings == NULL || memcmp(task->mark, certificate->mark, sizeof task->mark) != 0)
            continue;
        task->running = false;
        take_answer(refresh, task, certificate, body, reason);
    }
    certificate_drop(certificate);
    event_active(refresh->timer, EV_TIMEOUT, 0); /* there is a place for the next */
}

/* ---- Asking. */

static enum result start(struct ocsp_refresh *refresh, struct running *running, struct task *task,
                         const struct certificate *certificate, struct failure *why)
{
    struct ocsp_request request;
    struct ocsp_url url;
    char *named = task->settings->responder == NULL ? ocsp_responder_of(certificate) : NULL;
    const char *responder = named != NULL ? named : task->settings->responder;
    enum result result = responder != NULL ? ocsp_url_parse(responder, &url, why)
                                           : failure_set(why, RESULT_CONFIG, "it names no responder by http");
    free(named);
    if (result == RESULT_OK)
        result = ocsp_request_make(certificate, &request, why);
    if (result != RESULT_OK)
        return result;
    /* Some responders know only one of the methods, and a name may lead to addresses of which one is dead. */
    const struct ocsp_fetch_settings settings = {.base = refresh->settings.base,
                                                 .dns = refresh->dns,
                                                 .url = &url,
                                                 .request = &request,
                                                 .timeout = task->settings->timeout,
                                                 .post = task->failures % 2 == 1,
                                                 .only_ipv4 = task->failures % 4 >= 2,
                                                 .done = on_done,
                                                 .owner = running};
    running->fetch = ocsp_fetch_start(&settings);
    if (running->fetch == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory");
    running->certificate = certificate_hold(certificate);
    task->running = true;
    return RESULT_OK;
}

static struct running *free_one(struct ocsp_refresh *refresh)
{
    for (size_t i = 0; i < FETCHES; i++)
        if (refresh->running[i].fetch == NULL)
            return &refresh->running[i];
    return NULL;
}

/* Those that are due, each in its turn: no chain waits for ever behind others. */
static void start_due(struct ocsp_refresh *refresh)
{
    const uint64_t now = clock_now();
    const size_t count = task_count(refresh);
    struct running *running = free_one(refresh);
    struct failure why;
    for (size_t i = 0; i < count && running != NULL; i++) {
        size_t index = (refresh->next + i) % count;
        struct task *task = task_number(refresh, index);
        if (task->settings == NULL || task->running || task->due > now)
            continue;
        const struct certificate *certificate = certificate_of(refresh, index);
        if (start(refresh, running, task, certificate, &why) != RESULT_OK)
            failed(refresh, task, certificate, why.text);
        running = free_one(refresh);
        if (running == NULL)
            refresh->next = index + 1;
    }
}

/* ---- Now and then. */

/* Nothing is shown that is out of date: told, as clients may mind. */
static void tell_ended(struct ocsp_refresh *refresh)
{
    const time_t now = time(NULL);
    for (size_t i = 0; i < task_count(refresh); i++) {
        struct task *task = task_number(refresh, i);
        if (task->next_update == 0 || task->next_update > now)
            continue;
        task->next_update = 0;
        log_error(refresh->settings.log, "OCSP response has ended",
                  log_text("file", certificate_of(refresh, i)->path),
                  log_reason("none came in time to take its place"));
    }
}

static void settle(struct ocsp_refresh *refresh)
{
    if (staples_settled(refresh->settings.staples, refresh->settings.generation))
        return;
    for (size_t i = 0; i < task_count(refresh); i++)
        if (task_number(refresh, i)->settings != NULL && !task_number(refresh, i)->tried)
            return;
    staples_settle(refresh->settings.staples, refresh->settings.generation);
}

static void forget(struct ocsp_refresh *refresh)
{
    if (clock_now() - refresh->forgotten < FORGETTING)
        return;
    refresh->forgotten = clock_now();
    staples_forget(refresh->settings.staples, time(NULL));
}

static void go_on(struct ocsp_refresh *refresh)
{
    const struct timeval pause = clock_timeval(TICK);
    tasks_follow(refresh);
    tell_ended(refresh);
    start_due(refresh);
    settle(refresh);
    forget(refresh);
    (void)event_add(refresh->timer, &pause);
}

static void on_timer(evutil_socket_t fd, short what, void *owner)
{
    (void)fd;
    (void)what;
    go_on(owner);
}

/* ---- What the master says. */

static void waiting_clear(struct ocsp_refresh *refresh)
{
    for (size_t i = 0; i < refresh->waiting.count; i++)
        certificate_drop(refresh->pending[i]);
    refresh->waiting.count = 0;
}

static bool waiting_add(struct ocsp_refresh *refresh, struct certificate *certificate)
{
    size_t count = refresh->waiting.count;
    struct certificate **pending = realloc(refresh->pending, (count + 1) * sizeof(struct certificate *));
    if (pending != NULL)
        refresh->pending = pending;
    struct task *task = pending != NULL ? task_at(&refresh->waiting, count) : NULL;
    if (task == NULL)
        return false;
    refresh->pending[count] = certificate;
    task_begin(refresh, task, certificate);
    return true;
}

static enum result waiting_read(struct ocsp_refresh *refresh, int fd, struct failure *why)
{
    struct certificate_handover handover;
    struct certificate *certificate;
    enum result result = certificate_handover_open(fd, &handover, why);
    while (result == RESULT_OK) {
        result =
            certificate_handover_next(&handover, refresh->settings.config,
                                      certificates_parser(refresh->settings.certificates), &certificate, why);
        if (result == RESULT_OK && !waiting_add(refresh, certificate)) {
            certificate_drop(certificate);
            result = failure_set(why, RESULT_SYSTEM, "no memory");
        }
    }
    certificate_handover_close(&handover);
    return result;
}

void ocsp_refresh_take(struct ocsp_refresh *refresh, int fd)
{
    struct failure why;
    waiting_clear(refresh);
    if (fd >= 0 && waiting_read(refresh, fd, &why) != RESULT_AGAIN)
        log_error(refresh->settings.log, "renewed certificate not taken", log_reason(why.text));
    socket_close(&fd);
}

/* ---- Life. */

enum result ocsp_refresh_new(const struct ocsp_refresh_settings *settings, struct ocsp_refresh **refresh,
                             struct failure *why)
{
    const struct timeval now = {0};
    struct ocsp_refresh *made = calloc(1, sizeof *made);
    *refresh = made;
    if (made == NULL)
        return failure_set_errno(why, "OCSP responses");
    made->settings = *settings;
    made->forgotten = clock_now();
    for (size_t i = 0; i < FETCHES; i++)
        made->running[i].refresh = made;
    made->dns = ocsp_fetch_dns(settings->base);
    made->timer = evtimer_new(settings->base, on_timer, made);
    if (made->dns != NULL && made->timer != NULL && event_add(made->timer, &now) == 0)
        return RESULT_OK;
    ocsp_refresh_free(made);
    *refresh = NULL;
    return failure_set(why, RESULT_SYSTEM, "no memory for OCSP responses");
}

void ocsp_refresh_free(struct ocsp_refresh *refresh)
{
    if (refresh == NULL)
        return;
    for (size_t i = 0; i < FETCHES; i++) {
        if (refresh->running[i].fetch == NULL)
            continue;
        ocsp_fetch_cancel(refresh->running[i].fetch);
        certificate_drop(refresh->running[i].certificate);
    }
    waiting_clear(refresh);
    if (refresh->timer != NULL)
        event_free(refresh->timer);
    if (refresh->dns != NULL)
        evdns_base_free(refresh->dns, 0);
    free(refresh->pending);
    free(refresh->served.tasks);
    free(refresh->waiting.tasks);
    free(refresh);
}
