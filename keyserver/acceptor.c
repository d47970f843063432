#include "keyserver/acceptor.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/socket.h"

/* Connections accepted in one turn, so that those there are get their turn too. */
#define ACCEPT_BATCH 16
/* ... from a socket that is to be closed: more than any backlog holds, less than a flood. */
#define RETIRE_BATCH             4096
#define DESCRIPTORS_MICROSECONDS 100000

struct acceptor {
    struct child *child;
    struct acceptor_metrics metrics;
    const struct acceptor_handler *handler;
    void *owner;
    struct event **events; /* by socket; NULL: not ours to accept on */
    size_t count;
    struct event *retry; /* pending: no descriptors */
    bool watching;       /* the events are added */
    bool told_no_room, told_no_descriptors;
};

/* ---- When to accept, from state. */

static bool wants(struct acceptor *acceptor)
{
    return !event_pending(acceptor->retry, EV_TIMEOUT, NULL) && acceptor->handler->room(acceptor->owner);
}

static void watch(struct acceptor *acceptor, bool want)
{
    acceptor->watching = want;
    for (size_t i = 0; i < acceptor->count; i++)
        if (acceptor->events[i] != NULL)
            (void)(want ? event_add(acceptor->events[i], NULL) : event_del(acceptor->events[i]));
}

static void update(struct acceptor *acceptor)
{
    bool want = wants(acceptor);
    if (want != acceptor->watching)
        watch(acceptor, want);
    bool no_room = !acceptor->handler->room(acceptor->owner);
    if (no_room && !acceptor->told_no_room) {
        log_warn(child_log(acceptor->child), "accepting paused", log_reason("limits.connections is reached"));
        metric_add(child_metrics(acceptor->child), acceptor->metrics.no_room, 1);
    }
    acceptor->told_no_room = no_room;
}

static void out_of_descriptors(struct acceptor *acceptor, const char *reason)
{
    struct timeval later = clock_timeval(DESCRIPTORS_MICROSECONDS);
    if (!acceptor->told_no_descriptors) {
        log_warn(child_log(acceptor->child), "accepting paused", log_reason(reason));
        metric_add(child_metrics(acceptor->child), acceptor->metrics.no_descriptors, 1);
    }
    acceptor->told_no_descriptors = true;
    (void)event_add(acceptor->retry, &later);
}

/* ---- Accepting. */

/* RESULT_OK: one was accepted. */
static enum result accept_one(struct acceptor *acceptor, int listener)
{
    struct failure why;
    struct address peer;
    int fd = -1;
    enum result result = socket_accept(listener, &fd, &peer, &why);
    if (result == RESULT_OK) {
        acceptor->told_no_descriptors = false;
        acceptor->handler->accepted(fd, &peer, acceptor->owner);
    } else if (result != RESULT_AGAIN) {
        out_of_descriptors(acceptor, why.text);
    }
    return result;
}

static void on_connection(evutil_socket_t listener, short events, void *owner)
{
    (void)events;
    struct acceptor *acceptor = owner;
    for (unsigned i = 0; i < ACCEPT_BATCH && wants(acceptor); i++)
        if (accept_one(acceptor, listener) != RESULT_OK)
            break;
    update(acceptor);
}

static void on_retry(evutil_socket_t fd, short events, void *owner)
{
    (void)fd;
    (void)events;
    update(owner);
}

/* ---- Sockets. */

static void give_up_socket(struct acceptor *acceptor, size_t socket)
{
    if (acceptor->events[socket] != NULL)
        event_free(acceptor->events[socket]);
    acceptor->events[socket] = NULL;
}

static void take_socket(struct acceptor *acceptor, size_t socket)
{
    int fd = child_listener_fd(acceptor->child, socket);
    if (fd < 0 || acceptor->events[socket] != NULL)
        return;
    acceptor->events[socket] =
        event_new(child_base(acceptor->child), fd, EV_READ | EV_PERSIST, on_connection, acceptor);
    if (acceptor->events[socket] == NULL)
        log_error(child_log(acceptor->child), "cannot accept", log_reason("no memory"));
    else if (acceptor->watching)
        (void)event_add(acceptor->events[socket], NULL);
}

static bool listed(size_t socket, const size_t *sockets, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (sockets[i] == socket)
            return true;
    return false;
}

void acceptor_listen(struct acceptor *acceptor, const size_t *sockets, size_t count)
{
    for (size_t i = 0; i < acceptor->count; i++)
        if (!listed(i, sockets, count))
            give_up_socket(acceptor, i);
    for (size_t i = 0; i < count; i++)
        if (sockets[i] < acceptor->count)
            take_socket(acceptor, sockets[i]);
    update(acceptor);
}

/* What is queued on the socket would be reset when it is closed. */
void acceptor_retire(struct acceptor *acceptor, size_t socket)
{
    if (socket >= acceptor->count || acceptor->events[socket] == NULL)
        return;
    for (unsigned i = 0; i < RETIRE_BATCH; i++)
        if (accept_one(acceptor, child_listener_fd(acceptor->child, socket)) != RESULT_OK)
            break;
    give_up_socket(acceptor, socket);
    update(acceptor);
}

void acceptor_resume(struct acceptor *acceptor)
{
    update(acceptor);
}

struct acceptor *acceptor_new(struct child *child, const struct acceptor_metrics *metrics,
                              const struct acceptor_handler *handler, void *owner)
{
    struct acceptor *acceptor = calloc(1, sizeof *acceptor);
    if (acceptor == NULL)
        return NULL;
    *acceptor = (struct acceptor){
        .child = child, .metrics = *metrics, .handler = handler, .owner = owner, .watching = true};
    acceptor->count = child_listener_count(child);
    acceptor->events = calloc(acceptor->count + 1, sizeof(struct event *));
    acceptor->retry = evtimer_new(child_base(child), on_retry, acceptor);
    if (acceptor->events == NULL || acceptor->retry == NULL) {
        acceptor_free(acceptor);
        return NULL;
    }
    return acceptor;
}

void acceptor_free(struct acceptor *acceptor)
{
    if (acceptor == NULL)
        return;
    for (size_t i = 0; acceptor->events != NULL && i < acceptor->count; i++)
        give_up_socket(acceptor, i);
    free(acceptor->events);
    if (acceptor->retry != NULL)
        event_free(acceptor->retry);
    free(acceptor);
}
