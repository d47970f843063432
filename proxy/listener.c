#include "proxy/listener.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <event2/event_struct.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/proxy_metrics.h"

/* Clients accepted from one socket in one turn of the loop, so that those already here are not starved. */
#define BATCH 64
/* Descriptors kept free for what is neither a client nor its backend: key channels, mostly. */
#define DESCRIPTORS_KEPT         6
#define DESCRIPTORS_AT_START_MAX 4096
#define RETRY_AFTER              UINT64_C(100000)
/* Between two lines that say the same. */
#define SAY_AGAIN_AFTER UINT64_C(10000000)

enum pause { RUNNING, OUT_OF_DESCRIPTORS, AT_LIMIT };

static const struct {
    const char *reason;
    enum proxy_metric metric;
    uint64_t retry_after; /* 0: when a connection ends, not before */
} PAUSES[] = {
    [OUT_OF_DESCRIPTORS] = {"out of descriptors", PROXY_ACCEPT_PAUSED_DESCRIPTORS, RETRY_AFTER},
    [AT_LIMIT] = {"limits.connections", PROXY_ACCEPT_PAUSED_LIMIT, 0},
};

struct listener {
    struct listener_set *set;
    struct event event;
    const struct proxy_listen *config;
    int fd;
    bool wanted;
};

struct listener_set {
    struct connections *connections;
    struct redirects *redirects;
    struct log *log;
    struct metrics_row *metrics;
    unsigned limit; /* this worker's share */
    rlim_t descriptors_at_start;
    enum pause paused;
    uint64_t said[sizeof PAUSES / sizeof *PAUSES];
    struct event retry;
    size_t count;
    struct listener list[];
};

static unsigned clients_count(const struct listener_set *set)
{
    return connections_count(set->connections) + redirects_count(set->redirects);
}

/* ---- Descriptors. */

/* Those that are open before the first client. All of them were made at the start, so their numbers are low.
 */
static rlim_t descriptors_open(void)
{
    rlim_t open = 0;
    for (int fd = 0; fd < DESCRIPTORS_AT_START_MAX; fd++)
        open += fcntl(fd, F_GETFD) >= 0;
    return open;
}

/* Whether so many connections can all have what they want, their backends' descriptors included: what was
 * accepted is never short of them. The limit may be changed from outside (prlimit), so it is asked for. */
static bool descriptors_suffice(const struct listener_set *set, unsigned connections)
{
    struct rlimit limit;
    rlim_t needed =
        set->descriptors_at_start + DESCRIPTORS_KEPT + (rlim_t)connections * CONNECTION_DESCRIPTORS;
    return getrlimit(RLIMIT_NOFILE, &limit) != 0 || needed <= limit.rlim_cur;
}

static bool descriptors_suffice_for_next(const struct listener_set *set)
{
    return descriptors_suffice(set, clients_count(set) + 1);
}

/* ---- Pausing. */

/* What is watched follows from what is wanted and whether accepting is paused. */
static void listeners_watch(struct listener_set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        struct listener *listener = &set->list[i];
        if (listener->wanted && set->paused == RUNNING)
            (void)event_add(&listener->event, NULL);
        else if (listener->fd >= 0)
            (void)event_del(&listener->event);
    }
}

static void retry_later(struct listener_set *set)
{
    struct timeval after = clock_timeval(PAUSES[set->paused].retry_after);
    if (PAUSES[set->paused].retry_after != 0)
        (void)event_add(&set->retry, &after);
}

static void listeners_pause(struct listener_set *set, enum pause why)
{
    uint64_t now = clock_now();
    set->paused = why;
    metric_add(set->metrics, PAUSES[why].metric, 1);
    if (set->said[why] == 0 || now - set->said[why] >= SAY_AGAIN_AFTER) {
        set->said[why] = now;
        log_warn(set->log, "accepting paused", log_number("connections", clients_count(set)),
                 log_reason(PAUSES[why].reason));
    }
    retry_later(set);
    listeners_watch(set);
}

static void listeners_resume(struct listener_set *set)
{
    set->paused = RUNNING;
    (void)event_del(&set->retry);
    listeners_watch(set);
}

static void on_retry(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    struct listener_set *set = context;
    if (descriptors_suffice_for_next(set))
        listeners_resume(set);
    else
        retry_later(set);
}

void listener_set_room(struct listener_set *set)
{
    if (set->paused == RUNNING || clients_count(set) >= set->limit)
        return;
    if (set->paused == AT_LIMIT || descriptors_suffice_for_next(set))
        listeners_resume(set);
}

/* ---- Accepting. */

/* Accepts one; RESULT_AGAIN: there is none. */
static enum result listener_accept(struct listener *listener)
{
    struct address client;
    struct failure why;
    int fd;
    enum result result = socket_accept(listener->fd, &fd, &client, &why);
    if (result == RESULT_OK && listener->config->redirect_port != 0)
        redirect_accept(listener->set->redirects, fd, &client, listener->config);
    else if (result == RESULT_OK)
        connection_accept(listener->set->connections, fd, &client, listener->config);
    else if (result != RESULT_AGAIN && result != RESULT_LIMIT)
        log_error(listener->set->log, "accept failed", log_address("listener", &listener->config->address),
                  log_reason(why.text));
    return result;
}

static void on_client(evutil_socket_t socket, short what, void *context)
{
    (void)socket;
    (void)what;
    struct listener *listener = context;
    struct listener_set *set = listener->set;
    for (unsigned i = 0; i < BATCH; i++) {
        if (clients_count(set) >= set->limit) {
            listeners_pause(set, AT_LIMIT);
            return;
        }
        enum result result = descriptors_suffice_for_next(set) ? listener_accept(listener) : RESULT_LIMIT;
        if (result == RESULT_AGAIN)
            return;
        if (result != RESULT_OK) {
            listeners_pause(set, OUT_OF_DESCRIPTORS);
            return;
        }
    }
}

/* ---- What the master says. */

void listener_set_listen(struct listener_set *set, const size_t *sockets, size_t count)
{
    for (size_t i = 0; i < set->count; i++)
        set->list[i].wanted = false;
    for (size_t i = 0; i < count; i++)
        if (sockets[i] < set->count && set->list[sockets[i]].fd >= 0)
            set->list[sockets[i]].wanted = true;
    listeners_watch(set);
}

/* Those who wait have been promised a connection by the kernel: limits.connections does not apply. */
void listener_set_retire(struct listener_set *set, size_t socket)
{
    if (socket >= set->count || set->list[socket].fd < 0)
        return;
    struct listener *listener = &set->list[socket];
    while (listener->wanted && listener_accept(listener) == RESULT_OK)
        ;
    listener->wanted = false;
    (void)event_del(&listener->event);
    listener->fd = -1;
}

/* ---- The set. */

static unsigned limit_share(const struct proxy_config *config)
{
    unsigned workers = config->workers > 0 ? config->workers : 1;
    return (config->limits.connections + workers - 1) / workers;
}

struct listener_set *listener_set_new(struct child *child, const struct proxy_config *config,
                                      struct connections *connections, struct redirects *redirects)
{
    size_t count = child_listener_count(child);
    struct listener_set *set = calloc(1, sizeof *set + count * sizeof(struct listener));
    if (set == NULL)
        return NULL;
    set->connections = connections;
    set->redirects = redirects;
    set->log = child_log(child);
    set->metrics = child_metrics(child);
    set->limit = limit_share(config);
    set->descriptors_at_start = descriptors_open();
    set->count = count;
    (void)evtimer_assign(&set->retry, child_base(child), on_retry, set);
    for (size_t i = 0; i < count; i++) {
        struct listener *listener = &set->list[i];
        *listener = (struct listener){.set = set,
                                      .config = &config->listen[child_listener_address(child, i)],
                                      .fd = child_listener_fd(child, i)};
        (void)event_assign(&listener->event, child_base(child), listener->fd, EV_READ | EV_PERSIST, on_client,
                           listener);
    }
    return set;
}

void listener_set_free(struct listener_set *set)
{
    if (set == NULL)
        return;
    for (size_t i = 0; i < set->count; i++)
        if (set->list[i].fd >= 0)
            (void)event_del(&set->list[i].event);
    (void)event_del(&set->retry);
    free(set);
}
