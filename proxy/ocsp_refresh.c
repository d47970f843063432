#include "proxy/ocsp_refresh.h"

#include <stdlib.h>
#include <string.h>

#include <event2/dns.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/ocsp_fetch.h"
#include "proxy/ocsp_hosts.h"
#include "proxy/ocsp_take.h"
#include "proxy/ocsp_tasks.h"
#include "proxy/proxy_metrics.h"

#define SECOND     UINT64_C(1000000)
#define FETCHES    8 /* at a time */
#define TICK       (SECOND / 5)
#define FORGETTING (3600 * SECOND)

struct running {
    struct ocsp_refresh *refresh;
    struct ocsp_fetch *fetch;              /* NULL: free */
    const struct certificate *certificate; /* held */
    size_t host;
};

struct ocsp_refresh {
    struct ocsp_refresh_settings settings;
    struct evdns_base *dns;
    struct ocsp_hosts hosts;
    struct event *timer;
    struct ocsp_tasks tasks;
    struct running running[FETCHES];
    size_t next; /* whose turn it is */
    uint64_t forgotten;
};

/* ---- What became of one. */

static uint32_t hash_of(const char *reason)
{
    uint32_t hash = 2166136261;
    for (; *reason != '\0'; reason++)
        hash = (hash ^ (unsigned char)*reason) * 16777619;
    return hash != 0 ? hash : 1;
}

/* Once, until there is another reason. */
static void tell(const struct ocsp_refresh *refresh, struct ocsp_task *task,
                 const struct certificate *certificate, const char *reason)
{
    uint32_t hash = hash_of(reason);
    if (task->told != hash)
        log_warn(refresh->settings.log, "OCSP response not taken", log_text("file", certificate->path),
                 log_reason(reason));
    task->told = hash;
}

static void failed(struct ocsp_refresh *refresh, struct ocsp_task *task,
                   const struct certificate *certificate, const char *reason)
{
    ocsp_task_failed(task);
    tell(refresh, task, certificate, reason);
}

static void succeeded(struct ocsp_refresh *refresh, struct ocsp_task *task,
                      const struct certificate *certificate, const struct ocsp_status *status)
{
    ocsp_task_succeeded(task, status->next_update, time(NULL));
    ocsp_taken_log(refresh->settings.log, task->told != 0 ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, certificate,
                   status);
    task->told = 0;
}

/* What one answer was worth, to each task that it is for. */
struct answer {
    const struct certificate *certificate;
    const char *reason; /* NULL: it was good, or says revoked */
    struct ocsp_status status;
};

static void answer_tasks(struct ocsp_refresh *refresh, const struct answer *answer)
{
    for (size_t i = 0; i < ocsp_tasks_count(&refresh->tasks); i++) {
        struct ocsp_task *task = ocsp_tasks_at(&refresh->tasks, i);
        if (task->settings == NULL || !ocsp_task_is_of(task, answer->certificate))
            continue;
        task->running = false;
        if (answer->reason != NULL)
            failed(refresh, task, answer->certificate, answer->reason);
        else
            succeeded(refresh, task, answer->certificate, &answer->status);
    }
}

static void count(const struct ocsp_refresh *refresh, const struct answer *answer)
{
    enum proxy_metric metric = answer->status.revoked ? PROXY_OCSP_REVOKED : PROXY_OCSP_GOOD;
    metric_add(refresh->settings.metrics, answer->reason != NULL ? PROXY_OCSP_FAILED : metric, 1);
}

/* Tasks may have moved meanwhile, or be gone. */
static void on_done(struct bytes body, const char *reason, void *owner)
{
    struct running *running = owner;
    struct ocsp_refresh *refresh = running->refresh;
    struct answer answer = {.certificate = running->certificate, .reason = reason};
    struct failure why;
    running->fetch = NULL;
    ocsp_hosts_ended(&refresh->hosts, running->host, body.data != NULL);
    if (body.data != NULL)
        answer.reason = ocsp_take(refresh->settings.staples, answer.certificate, body, time(NULL),
                                  &answer.status, &why) == RESULT_OK
                            ? NULL
                            : why.text;
    count(refresh, &answer);
    answer_tasks(refresh, &answer);
    certificate_drop(answer.certificate);
    event_active(refresh->timer, EV_TIMEOUT, 0); /* there is a place for the next */
}

/* ---- Asking. */

/* Nobody can be asked: told once, and no failure of anybody's. */
static void no_responder(struct ocsp_refresh *refresh, struct ocsp_task *task,
                         const struct certificate *certificate)
{
    const time_t now = time(NULL);
    const struct staple_times times = {now, now, now};
    task->tried = true;
    task->due = UINT64_MAX;
    if (!staples_put(refresh->settings.staples, certificate, STAPLE_NO_RESPONDER, bytes_of(NULL, 0), &times))
        log_warn(refresh->settings.log, "OCSP response not taken", log_text("file", certificate->path),
                 log_reason("there are too many chains"));
    log_info(refresh->settings.log, "certificate names no OCSP responder",
             log_text("file", certificate->path));
}

static enum result fetch(struct ocsp_refresh *refresh, struct running *running, const struct ocsp_task *task,
                         const struct certificate *certificate, const struct ocsp_url *url,
                         struct failure *why)
{
    struct ocsp_request request;
    enum result result = ocsp_request_make(certificate, &request, why);
    if (result != RESULT_OK)
        return result;
    /* Some responders know only one of the methods, and a name may lead to addresses of which one is dead. */
    const struct ocsp_fetch_settings settings = {.base = refresh->settings.base,
                                                 .dns = refresh->dns,
                                                 .resolver = refresh->settings.resolver,
                                                 .url = url,
                                                 .request = &request,
                                                 .timeout = task->settings->timeout,
                                                 .post = task->failures % 2 == 1,
                                                 .attempt = task->failures,
                                                 .done = on_done,
                                                 .owner = running};
    running->fetch = ocsp_fetch_start(&settings);
    return running->fetch != NULL ? RESULT_OK : failure_set(why, RESULT_SYSTEM, "no memory");
}

static void start(struct ocsp_refresh *refresh, struct running *running, struct ocsp_task *task,
                  const struct certificate *certificate)
{
    struct ocsp_url url;
    struct failure why;
    char *named = task->settings->responder == NULL ? ocsp_responder_of(certificate) : NULL;
    const char *responder = named != NULL ? named : task->settings->responder;
    enum result result = responder != NULL ? ocsp_url_parse(responder, &url, &why) : RESULT_AGAIN;
    free(named);
    if (result == RESULT_OK) {
        task->host = ocsp_hosts_find(&refresh->hosts, &url);
        if (!ocsp_hosts_may_ask(&refresh->hosts, task->host))
            return;
        result = fetch(refresh, running, task, certificate, &url, &why);
    }
    if (result == RESULT_AGAIN) {
        no_responder(refresh, task, certificate);
    } else if (result != RESULT_OK) {
        metric_add(refresh->settings.metrics, PROXY_OCSP_FAILED, 1);
        failed(refresh, task, certificate, why.text);
    } else {
        ocsp_hosts_asked(&refresh->hosts, task->host);
        running->host = task->host;
        running->certificate = certificate_hold(certificate);
        task->running = true;
    }
}

static struct running *free_one(struct ocsp_refresh *refresh)
{
    for (size_t i = 0; i < FETCHES; i++)
        if (refresh->running[i].fetch == NULL)
            return &refresh->running[i];
    return NULL;
}

static bool may_start(const struct ocsp_refresh *refresh, const struct ocsp_task *task, uint64_t now)
{
    return task->settings != NULL && !task->running && task->due <= now &&
           (task->host == OCSP_NO_HOST || ocsp_hosts_may_ask(&refresh->hosts, task->host));
}

/* Those that are due, each in its turn: no chain waits for ever behind others. */
static void start_due(struct ocsp_refresh *refresh)
{
    const uint64_t now = clock_now();
    const size_t count = ocsp_tasks_count(&refresh->tasks);
    struct running *running = free_one(refresh);
    for (size_t i = 0; i < count && running != NULL; i++) {
        size_t index = (refresh->next + i) % count;
        struct ocsp_task *task = ocsp_tasks_at(&refresh->tasks, index);
        if (!may_start(refresh, task, now))
            continue;
        start(refresh, running, task, ocsp_tasks_certificate(&refresh->tasks, index));
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
    for (size_t i = 0; i < ocsp_tasks_count(&refresh->tasks); i++) {
        struct ocsp_task *task = ocsp_tasks_at(&refresh->tasks, i);
        if (task->next_update == 0 || task->next_update > now)
            continue;
        task->next_update = 0;
        log_error(refresh->settings.log, "OCSP response has ended",
                  log_text("file", ocsp_tasks_certificate(&refresh->tasks, i)->path),
                  log_reason("none came in time to take its place"));
    }
}

static void settle(struct ocsp_refresh *refresh)
{
    if (staples_settled(refresh->settings.staples, refresh->settings.generation))
        return;
    for (size_t i = 0; i < ocsp_tasks_count(&refresh->tasks); i++)
        if (ocsp_tasks_at(&refresh->tasks, i)->settings != NULL && !ocsp_tasks_at(&refresh->tasks, i)->tried)
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
    ocsp_tasks_follow(&refresh->tasks);
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

void ocsp_refresh_take(struct ocsp_refresh *refresh, int fd)
{
    struct failure why;
    if (ocsp_tasks_take(&refresh->tasks, fd, &why) != RESULT_AGAIN)
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
    made->tasks = (struct ocsp_tasks){
        .config = settings->config, .certificates = settings->certificates, .staples = settings->staples};
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
    if (refresh->timer != NULL)
        event_free(refresh->timer);
    if (refresh->dns != NULL)
        evdns_base_free(refresh->dns, 0);
    ocsp_tasks_free(&refresh->tasks);
    free(refresh);
}
