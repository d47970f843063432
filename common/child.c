#include "common/process_private.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>
#include <sys/prctl.h>

#include "common/clock.h"
#include "common/socket.h"

/* A listening socket that the child has inherited. */
struct child_socket {
    int fd; /* -1: closed */
    size_t address;
    bool shared; /* there are fewer for the address than children: everybody accepts on it */
};

struct child {
    const struct process_program *program;
    struct process_plan plan;
    const struct process_kind *kind;
    unsigned index, generation;
    struct log *log;
    struct metrics_row *row;
    struct event_base *base;
    struct child_socket *sockets;
    size_t socket_count;
    size_t *listen; /* room for the list that the handler is given */
    int control;
    struct heartbeat *heartbeat;
    struct event *control_event, *beat, *terminate, *orphan_deadline;
    const struct child_handler *handler;
    void *owner;
    bool draining, ended;
    int status;
    bool files_restricted;
    struct sandbox_state sandbox;
};

/* ---- What the program asks */

struct event_base *child_base(struct child *child)
{
    return child->base;
}

struct log *child_log(struct child *child)
{
    return child->log;
}

struct metrics_row *child_metrics(struct child *child)
{
    return child->row;
}

unsigned child_index(const struct child *child)
{
    return child->index;
}

unsigned child_generation(const struct child *child)
{
    return child->generation;
}

size_t child_listener_count(const struct child *child)
{
    return child->socket_count;
}

int child_listener_fd(const struct child *child, size_t socket)
{
    return socket < child->socket_count ? child->sockets[socket].fd : -1;
}

size_t child_listener_address(const struct child *child, size_t socket)
{
    return child->sockets[socket].address;
}

/* ---- Listening and draining */

static void listen_on_share(struct child *child, uint32_t rank, uint32_t share)
{
    size_t count = 0;
    for (size_t i = 0; i < child->socket_count && share > 0; i++) {
        const struct child_socket *socket = &child->sockets[i];
        if (socket->fd >= 0 && (socket->shared || i % share == rank))
            child->listen[count++] = i;
    }
    if (child->handler->listen != NULL)
        child->handler->listen(child->listen, count, child->owner);
}

static void retire(struct child *child, size_t socket)
{
    if (child->sockets[socket].fd < 0)
        return;
    if (child->handler->retire != NULL)
        child->handler->retire(socket, child->owner);
    socket_close(&child->sockets[socket].fd);
}

static void drain(struct child *child, enum child_drain why)
{
    if (child->draining)
        return;
    child->draining = true;
    if (child->handler->drain != NULL)
        child->handler->drain(why, child->owner);
    else
        child_end(child, 0);
}

static void on_listen(struct child *child, struct message *message)
{
    if (!child->draining)
        listen_on_share(child, message->first, (uint32_t)message->second);
}

static void on_retire(struct child *child, struct message *message)
{
    for (size_t i = 0; i < child->socket_count; i++)
        if (child->sockets[i].address == message->first)
            retire(child, i);
}

static void on_link(struct child *child, struct message *message)
{
    if (child->handler->link == NULL || message->descriptor < 0)
        return;
    int fd = message->descriptor;
    message->descriptor = -1;
    child->handler->link(message->first, (unsigned)message->second, fd, child->owner);
}

static void on_told(struct child *child, struct message *message)
{
    if (child->handler->message == NULL)
        return;
    const struct child_message told = {.kind = (size_t)(child->kind - child->plan.kinds),
                                       .index = child->index,
                                       .what = message->first,
                                       .number = message->second,
                                       .descriptor = message->descriptor};
    message->descriptor = -1;
    child->handler->message(&told, child->owner);
}

/* Others have these sockets now, so that closing them loses nothing. */
static void on_drain(struct child *child, struct message *message)
{
    if (child->draining)
        return;
    listen_on_share(child, 0, 0);
    for (size_t i = 0; i < child->socket_count; i++)
        socket_close(&child->sockets[i].fd);
    drain(child, message->first != 0 ? DRAIN_SUPERSEDED : DRAIN_REPLACED);
}

static void on_end(struct child *child, struct message *message)
{
    (void)message;
    child_end(child, 0);
}

/* Nobody else will accept what is queued. Whoever takes the master's place binds sockets of its own. */
static void on_orphaned(struct child *child)
{
    struct timeval timeout = clock_timeval(child->plan.drain_timeout);
    log_warn(child->log, "master is gone");
    (void)event_del(child->control_event);
    if (child->plan.drain_timeout > 0)
        (void)event_add(child->orphan_deadline, &timeout);
    for (size_t i = 0; i < child->socket_count; i++)
        retire(child, i);
    drain(child, DRAIN_ORPHANED);
}

/* ---- The master's messages */

static void (*const ON_MESSAGE[MESSAGE_TYPES])(struct child *, struct message *) = {
    [MESSAGE_LISTEN] = on_listen, [MESSAGE_RETIRE] = on_retire, [MESSAGE_LINK] = on_link,
    [MESSAGE_DRAIN] = on_drain,   [MESSAGE_END] = on_end,       [MESSAGE_TOLD] = on_told,
};

/* False: nothing more to read now. */
static bool receive_one(struct child *child)
{
    struct message message;
    struct failure why;
    enum result result = message_receive(child->control, &message, &why);
    if (result == RESULT_AGAIN)
        return false;
    if (result == RESULT_OK && ON_MESSAGE[message.type] != NULL)
        ON_MESSAGE[message.type](child, &message);
    socket_close(&message.descriptor);
    if (result == RESULT_OK)
        return true;
    if (result != RESULT_PEER)
        log_error(child->log, "message from the master lost", log_reason(why.text));
    /* Out of descriptors, for one: the next message may be better. */
    if (result != RESULT_PEER && result != RESULT_SYSTEM)
        return true;
    on_orphaned(child);
    return false;
}

static void on_control(evutil_socket_t fd, short events, void *argument)
{
    (void)fd;
    (void)events;
    struct child *child = argument;
    while (!child->ended && receive_one(child))
        continue;
}

static void tell_message(struct child *child, const struct message *message)
{
    struct failure ignored;
    /* A master that has gone is noticed by reading. */
    (void)!message_send(child->control, message, &ignored);
}

static void tell(struct child *child, enum message_type type, uint32_t first, const struct failure *why)
{
    struct message message = {.type = type, .first = first, .descriptor = -1};
    if (why != NULL)
        (void)snprintf(message.text, sizeof message.text, "%s", why->text);
    tell_message(child, &message);
}

static void on_beat(evutil_socket_t fd, short events, void *argument)
{
    (void)fd;
    (void)events;
    struct child *child = argument;
    (void)atomic_fetch_add_explicit(&child->heartbeat->beats, 1, memory_order_relaxed);
    log_flush(child->log);
    if (child->handler->tick != NULL)
        child->handler->tick(child->owner);
}

/* The master gives our sockets to another, and then tells us to drain. */
static void on_terminate(evutil_socket_t number, short events, void *argument)
{
    (void)number;
    (void)events;
    struct child *child = argument;
    if (!child->draining)
        tell(child, MESSAGE_LEAVING, 0, NULL);
}

static void on_orphan_deadline(evutil_socket_t fd, short events, void *argument)
{
    (void)fd;
    (void)events;
    struct child *child = argument;
    log_warn(child->log, "ending", log_reason("drain_timeout has passed"));
    child_end(child, 0);
}

/* ---- Confinement */

static const struct sandbox_profile *profile_of(const struct child *child)
{
    return child->plan.sandbox ? child->kind->sandbox : NULL;
}

enum result child_restrict_files(struct child *child, struct failure *why)
{
    if (profile_of(child) == NULL || child->files_restricted)
        return RESULT_OK;
    child->files_restricted = true;
    return sandbox_restrict_files(profile_of(child), &child->sandbox, why);
}

/* One line for all children of a kind; those of the others are for who looks for them. */
static void tell_sandbox(const struct child *child)
{
    const struct sandbox_state *state = &child->sandbox;
    const char *lack = sandbox_filter_lack(state);
    bool whole = lack == NULL && state->landlock > 0;
    if (lack == NULL)
        lack = sandbox_landlock_lack(state);
    if (!child->plan.sandbox)
        lack = "sandbox: off";
    enum log_level level = whole ? LOG_LEVEL_INFO : LOG_LEVEL_WARN;
    log_write(child->log, child->index == 0 ? level : LOG_LEVEL_DEBUG,
              whole ? "confined" : "not wholly confined",
              LOG_FIELDS(log_bool("system_calls", state->filter), log_number("landlock", state->landlock),
                         log_reason(lack)));
}

static enum result confine(struct child *child, struct failure *why)
{
    if (child->kind->sandbox == NULL)
        return RESULT_OK;
    enum result result = child_restrict_files(child, why);
    if (result == RESULT_OK && profile_of(child) != NULL)
        result = sandbox_filter_calls(profile_of(child), &child->heartbeat->culprit, &child->sandbox, why);
    if (result == RESULT_OK)
        tell_sandbox(child);
    return result;
}

/* ---- What the program tells */

static bool start_events(struct child *child)
{
    struct timeval period = clock_timeval(HEARTBEAT_PERIOD);
    struct event_base *base = child->base;
    child->control_event = event_new(base, child->control, EV_READ | EV_PERSIST, on_control, child);
    child->beat = event_new(base, -1, EV_PERSIST, on_beat, child);
    child->terminate = evsignal_new(base, SIGTERM, on_terminate, child);
    child->orphan_deadline = evtimer_new(base, on_orphan_deadline, child);
    return child->control_event != NULL && child->beat != NULL && child->terminate != NULL &&
           child->orphan_deadline != NULL && event_add(child->control_event, NULL) == 0 &&
           event_add(child->beat, &period) == 0 && event_add(child->terminate, NULL) == 0;
}

void child_start(struct child *child, const struct child_handler *handler, void *owner)
{
    child->handler = handler;
    child->owner = owner;
    struct failure why;
    if (!start_events(child))
        (void)failure_set(&why, RESULT_LIMIT, "no memory for the event loop");
    else if (confine(child, &why) == RESULT_OK)
        return;
    child_failed(child, &why);
    child_end(child, 1);
}

void child_ready(struct child *child)
{
    if (child->ended) /* child_start has failed, and said so */
        return;
    tell(child, MESSAGE_READY, sandbox_state_pack(&child->sandbox), NULL);
}

void child_failed(struct child *child, const struct failure *why)
{
    tell(child, MESSAGE_FAILED, (uint32_t)why->kind, why);
}

void child_tell(struct child *child, uint32_t what, uint64_t number)
{
    const struct message message = {.type = MESSAGE_SAID, .first = what, .second = number, .descriptor = -1};
    tell_message(child, &message);
}

int child_loop(struct child *child)
{
    if (!child->ended)
        (void)event_base_dispatch(child->base);
    return child->status;
}

void child_end(struct child *child, int status)
{
    child->ended = true;
    child->status = status;
    (void)event_base_loopbreak(child->base);
}

/* ---- Birth and death */

static void free_event(struct event *event)
{
    if (event != NULL)
        event_free(event);
}

static void child_free(struct child *child)
{
    free_event(child->control_event);
    free_event(child->beat);
    free_event(child->terminate);
    free_event(child->orphan_deadline);
    if (child->base != NULL) {
        /* What was freed is libevent's until callbacks that were due have been passed over. */
        (void)event_base_loop(child->base, EVLOOP_NONBLOCK);
        event_base_free(child->base);
    }
    for (size_t i = 0; i < child->socket_count; i++)
        socket_close(&child->sockets[i].fd);
    free(child->sockets);
    free(child->listen);
    socket_close(&child->control);
    (void)munmap(child->heartbeat, sizeof *child->heartbeat);
    free(child);
}

static size_t count_sockets(const struct generation *generation, size_t kind)
{
    size_t count = 0;
    for (size_t i = 0; i < generation->plan.listen_count; i++)
        if (listener_kind(&generation->plan, i) == kind)
            count += generation->listeners[i]->count;
    return count;
}

/* With fewer sockets than children each would belong to some of them only. */
static void take_listener(struct child *child, struct listener *listener, size_t address)
{
    bool shared = listener->count < child->kind->count;
    for (size_t i = 0; i < listener->count; i++) {
        child->sockets[child->socket_count++] =
            (struct child_socket){.fd = listener->fds[i], .address = address, .shared = shared};
        listener->fds[i] = -1;
    }
}

/* Takes the kind's listening sockets, so that they are not closed with all others. */
static bool take_sockets(struct child *child, const struct generation *generation, size_t kind)
{
    size_t count = count_sockets(generation, kind);
    child->sockets = calloc(count + 1, sizeof *child->sockets);
    child->listen = calloc(count + 1, sizeof *child->listen);
    if (child->sockets == NULL || child->listen == NULL)
        return false;
    for (size_t i = 0; i < generation->plan.listen_count; i++)
        if (listener_kind(&generation->plan, i) == kind)
            take_listener(child, generation->listeners[i], i);
    return true;
}

static struct event_base *precise_base(void)
{
    struct event_config *config = event_config_new();
    if (config == NULL)
        return NULL;
    struct event_base *base = NULL;
    if (event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER) == 0)
        base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

/* Takes out of the master's memory what is the child's. */
static struct child *child_new(struct process *self, int control)
{
    const struct generation *generation = self->generation;
    struct child *child = calloc(1, sizeof *child);
    if (child == NULL)
        return NULL;
    *child = (struct child){.program = generation->master->program,
                            .plan = generation->plan,
                            .kind = process_kind_of(self),
                            .index = self->slot->index,
                            .generation = generation->number,
                            .log = generation->master->log,
                            .row = self->row,
                            .control = control,
                            .heartbeat = self->heartbeat};
    self->heartbeat = NULL;
    return take_sockets(child, generation, self->slot->kind) ? child : NULL;
}

static void set_signal(int number, void (*action)(int))
{
    (void)signal(number, action);
}

/* The master's handlers went with its events. Signals that reach the whole process group are the master's
 * business. */
static void set_signals(void)
{
    sigset_t none;
    set_signal(SIGHUP, SIG_IGN);
    set_signal(SIGINT, SIG_IGN);
    set_signal(SIGPIPE, SIG_IGN);
    set_signal(SIGUSR1, SIG_IGN);
    set_signal(SIGUSR2, SIG_IGN);
    set_signal(SIGTERM, SIG_DFL);
    set_signal(SIGQUIT, SIG_DFL);
    set_signal(SIGCHLD, SIG_DFL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void take_name(const struct child *child)
{
    char name[16]; /* the kernel's limit */
    (void)snprintf(name, sizeof name, "kless-%s", child->kind->name);
    (void)prctl(PR_SET_NAME, name, 0, 0, 0);
    log_set_process(child->log, child->kind->name, child->index, child->generation);
    log_set_settings(child->log, &child->plan.log);
}

void child_become(struct process *self, int control)
{
    struct child *child = child_new(self, control);
    master_forget(self->generation->master, self->generation);
    set_signals();
    if (child == NULL || (child->base = precise_base()) == NULL)
        exit(1);
    take_name(child);
    int status = child->kind->run(child, child->plan.config);
    const struct process_program *program = child->program;
    struct process_plan plan = child->plan;
    child_free(child);
    program->release(program->context, &plan);
    exit(status);
}
