/* What runs in the toy program's children. One struct per process, freed before it ends. */
#include "tests/unit/support/toy_program.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <netinet/in.h>

#include "common/socket.h"

enum { TOY_SOCKETS = 64, TOY_LINK_TIMEOUT_MS = 2000, TOY_HOLD_POLL_US = 5000 };

struct toy_child;

/* A client's connection (worker), or a link (store). */
struct toy_connection {
    struct toy_connection *next;
    struct toy_child *owner;
    struct event *event;
    int fd;
};

struct toy_child {
    struct child *child;
    const struct toy_plan *plan;
    enum toy_kind kind;
    struct event *accepting[TOY_SOCKETS];
    struct event *hold;
    int links[TOY_CHILDREN]; /* to stores */
    struct toy_connection *connections;
    bool draining, orphaned;
};

/* ---- Connections */

static void end_if_done(struct toy_child *self)
{
    /* A store that the master tells to drain has no workers any more. */
    if (self->draining && self->connections == NULL)
        child_end(self->child, 0);
}

static void connection_free(struct toy_connection *connection)
{
    event_free(connection->event);
    socket_close(&connection->fd);
    free(connection);
}

static void connection_end(struct toy_connection *connection)
{
    struct toy_connection **at = &connection->owner->connections;
    while (*at != connection)
        at = &(*at)->next;
    *at = connection->next;
    connection_free(connection);
}

static void connection_new(struct toy_child *self, int fd, event_callback_fn callback)
{
    struct toy_connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        abort();
    connection->owner = self;
    connection->fd = fd;
    connection->next = self->connections;
    self->connections = connection;
    connection->event = event_new(child_base(self->child), fd, EV_READ | EV_PERSIST, callback, connection);
    (void)event_add(connection->event, NULL);
}

/* Asks the store, and waits: a toy may. */
static pid_t ask_store(struct toy_child *self, unsigned store)
{
    pid_t pid = 0;
    int fd = store < TOY_CHILDREN ? self->links[store] : -1;
    struct pollfd answered = {.fd = fd, .events = POLLIN};
    if (fd < 0 || write(fd, "?", 1) != 1 || poll(&answered, 1, TOY_LINK_TIMEOUT_MS) != 1 ||
        read(fd, &pid, sizeof pid) != (ssize_t)sizeof pid)
        return 0;
    return pid;
}

static void on_client(evutil_socket_t fd, short events, void *argument)
{
    (void)events;
    struct toy_connection *connection = argument;
    struct toy_child *self = connection->owner;
    char question;
    if (read(fd, &question, 1) == 1) {
        struct toy_answer answer = {.pid = getpid(),
                                    .index = child_index(self->child),
                                    .generation = child_generation(self->child),
                                    .store = ask_store(self, (unsigned)(question - '0'))};
        (void)!write(fd, &answer, sizeof answer);
        return;
    }
    connection_end(connection);
    end_if_done(self);
}

static void on_worker(evutil_socket_t fd, short events, void *argument)
{
    (void)events;
    struct toy_connection *connection = argument;
    struct toy_child *self = connection->owner;
    pid_t pid = getpid();
    char question;
    if (read(fd, &question, 1) == 1) {
        (void)!write(fd, &pid, sizeof pid);
        return;
    }
    connection_end(connection);
    end_if_done(self);
}

/* ---- The master's wishes */

static void on_accept(evutil_socket_t fd, short events, void *argument)
{
    (void)events;
    int accepted;
    struct address peer;
    struct failure why;
    while (socket_accept(fd, &accepted, &peer, &why) == RESULT_OK)
        connection_new(argument, accepted, on_client);
}

static bool contains(const size_t *list, size_t count, size_t value)
{
    for (size_t i = 0; i < count; i++)
        if (list[i] == value)
            return true;
    return false;
}

static void stop_accepting(struct toy_child *self, size_t socket)
{
    if (self->accepting[socket] != NULL)
        event_free(self->accepting[socket]);
    self->accepting[socket] = NULL;
}

static void start_accepting(struct toy_child *self, size_t socket)
{
    if (self->accepting[socket] != NULL)
        return;
    self->accepting[socket] = event_new(child_base(self->child), child_listener_fd(self->child, socket),
                                        EV_READ | EV_PERSIST, on_accept, self);
    (void)event_add(self->accepting[socket], NULL);
}

static void toy_listen(const size_t *sockets, size_t count, void *owner)
{
    struct toy_child *self = owner;
    for (size_t i = 0; i < child_listener_count(self->child); i++)
        if (contains(sockets, count, i))
            start_accepting(self, i);
        else
            stop_accepting(self, i);
}

static void toy_retire(size_t socket, void *owner)
{
    struct toy_child *self = owner;
    if (self->accepting[socket] != NULL)
        on_accept(child_listener_fd(self->child, socket), EV_READ, self);
    stop_accepting(self, socket);
}

static void toy_link(size_t kind, unsigned index, int fd, void *owner)
{
    struct toy_child *self = owner;
    if (kind == TOY_WORKER) {
        connection_new(self, fd, on_worker);
        return;
    }
    socket_close(&self->links[index]);
    self->links[index] = fd;
}

static void toy_drain(enum child_drain why, void *owner)
{
    struct toy_child *self = owner;
    self->draining = true;
    self->orphaned = why == DRAIN_ORPHANED;
    if (why == DRAIN_SUPERSEDED)
        child_end(self->child, 0);
    else
        end_if_done(self);
}

static void toy_tick(void *owner)
{
    struct toy_child *self = owner;
    (void)atomic_fetch_add(&self->plan->shared->ticks, 1);
}

/* Answers with the number in the descriptor. */
static void toy_message(const struct child_message *message, void *owner)
{
    struct toy_child *self = owner;
    int fd CLEANUP(socket_close) = message->descriptor;
    unsigned number = 0;
    if (message->index == child_index(self->child) &&
        pread(fd, &number, sizeof number, 0) == (ssize_t)sizeof number)
        child_tell(self->child, message->what, number + message->number);
}

static const struct child_handler HANDLER = {.listen = toy_listen,
                                             .retire = toy_retire,
                                             .link = toy_link,
                                             .drain = toy_drain,
                                             .message = toy_message,
                                             .tick = toy_tick};

/* ---- Life */

static void publish_ports(const struct toy_child *self)
{
    for (size_t i = 0; i < child_listener_count(self->child); i++) {
        struct sockaddr_in bound = {0};
        socklen_t size = sizeof bound;
        if (getsockname(child_listener_fd(self->child, i), (struct sockaddr *)&bound, &size) == 0 &&
            bound.sin_family == AF_INET)
            atomic_store(&self->plan->shared->ports[child_listener_address(self->child, i)],
                         ntohs(bound.sin_port));
    }
}

/* The one SOCK_SEQPACKET socket of a child is its way to the master. */
static void speak_nonsense(void)
{
    for (int fd = STDERR_FILENO + 1; fd < 256; fd++) {
        int type = 0;
        socklen_t size = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET)
            (void)send(fd, "nonsense", 8, MSG_NOSIGNAL);
    }
}

static void on_hold(evutil_socket_t fd, short events, void *argument)
{
    (void)fd;
    (void)events;
    struct toy_child *self = argument;
    const struct toy_config *config = &self->plan->config;
    if (atomic_load(&self->plan->shared->hold))
        return;
    if (config->fault == TOY_NEVER_READY && self->kind == TOY_WORKER && child_index(self->child) == 1)
        return;
    (void)event_del(self->hold);
    publish_ports(self);
    atomic_store(&self->plan->shared->pids[self->kind][child_index(self->child)], getpid());
    child_ready(self->child);
    if (config->fault == TOY_NONSENSE && self->kind == TOY_WORKER && child_index(self->child) == 1)
        speak_nonsense();
}

static int play_fault(const struct toy_child *self)
{
    struct failure why;
    if (self->kind != TOY_WORKER || child_index(self->child) != 1)
        return 0;
    if (self->plan->config.fault == TOY_CHILD_FAILS) {
        (void)failure_set(&why, RESULT_CONFIG, "no such file");
        child_failed(self->child, &why);
        return 2;
    }
    return self->plan->config.fault == TOY_CHILD_EXITS ? 7 : 0;
}

static void toy_child_free(struct toy_child *self)
{
    for (struct toy_connection *at = self->connections, *next; at != NULL; at = next) {
        next = at->next;
        connection_free(at);
    }
    for (size_t i = 0; i < TOY_SOCKETS; i++)
        stop_accepting(self, i);
    for (size_t i = 0; i < TOY_CHILDREN; i++)
        socket_close(&self->links[i]);
    event_free(self->hold);
}

static int toy_run(struct child *child, const void *config, enum toy_kind kind)
{
    struct toy_child self = {.child = child, .plan = config, .kind = kind};
    struct timeval poll_hold = clock_timeval(TOY_HOLD_POLL_US);
    struct failure why;
    int fault = play_fault(&self);
    if (fault != 0)
        return fault;
    if (process_drop_privileges(NULL, &why) != RESULT_OK) {
        child_failed(child, &why);
        return 1;
    }
    for (size_t i = 0; i < TOY_CHILDREN; i++)
        self.links[i] = -1;
    self.hold = event_new(child_base(child), -1, EV_PERSIST, on_hold, &self);
    (void)event_add(self.hold, &poll_hold);
    child_start(child, &HANDLER, &self);
    int status = child_loop(child);
    toy_child_free(&self);
    return status;
}

int toy_worker_run(struct child *child, const void *config)
{
    return toy_run(child, config, TOY_WORKER);
}

int toy_store_run(struct child *child, const void *config)
{
    return toy_run(child, config, TOY_STORE);
}
