#include "common/process_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/clock.h"
#include "common/socket.h"

/* How long the first bind waits for the port: the children of a master that was killed let go of it at once,
 * but not in no time. */
#define LISTENER_PATIENCE ((uint64_t)SECOND)
#define LISTENER_RETRY_NS 20000000L

static const char *unix_path(const struct address *address)
{
    return ((const struct sockaddr_un *)&address->storage)->sun_path;
}

static in_port_t *port_of(struct address *address)
{
    return address->storage.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&address->storage)->sin6_port
                                                  : &((struct sockaddr_in *)&address->storage)->sin_port;
}

void listener_unlink(struct listener *listener)
{
    struct stat file;
    if (listener->inherited || !address_is_unix(&listener->address) ||
        lstat(unix_path(&listener->address), &file) != 0)
        return;
    if (file.st_dev == listener->device && file.st_ino == listener->inode)
        (void)unlink(unix_path(&listener->address));
}

/* ---- Binding */

size_t listener_kind(const struct process_plan *plan, size_t address)
{
    if (plan->listen_kind != NULL)
        return plan->listen_kind[address];
    size_t kind = 0;
    while (kind < plan->kind_count && !plan->kinds[kind].accepts)
        kind++;
    return kind;
}

/* As many as may accept at the same time, so that nobody is left without; but few enough to be worth polling.
 */
static size_t sockets_wanted(const struct process_plan *plan, size_t index)
{
    size_t wanted = process_cores();
    size_t children = plan->kinds[listener_kind(plan, index)].count;
    if (address_is_unix(&plan->listen[index]))
        return 1;
    wanted = children > wanted ? children : wanted;
    wanted = wanted > LISTENER_SOCKETS_MIN ? wanted : LISTENER_SOCKETS_MIN;
    return wanted < LISTENER_SOCKETS_MAX ? wanted : LISTENER_SOCKETS_MAX;
}

/*
 * SO_REUSEPORT would let us share the port with a stranger of the same user (another instance of this
 * program), and each would get half of the connections. A bind without it tells.
 */
static enum result probe_address(const struct address *address, struct failure *why)
{
    int on = 1;
    char text[ADDRESS_TEXT_SIZE];
    int fd CLEANUP(socket_close) = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        (address->storage.ss_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) != 0) ||
        bind(fd, (const struct sockaddr *)&address->storage, address->size) != 0)
        return failure_set_errno(why, "cannot bind %s", address_format(address, text));
    return RESULT_OK;
}

/* A listener of our own on that port would make the probe fail: 0.0.0.0:443 that becomes 192.0.2.1:443 by a
 * reload. */
static bool port_is_ours(const struct listener *list, const struct address *address)
{
    struct address wanted = *address;
    for (; list != NULL; list = list->next) {
        struct address other = list->address;
        if (!address_is_unix(&other) && *port_of(&other) == *port_of(&wanted))
            return true;
    }
    return false;
}

static enum result bind_sockets(struct listener *listener, const struct process_plan *plan,
                                struct failure *why)
{
    struct address address = listener->address;
    struct socket_listen_options options = {
        .backlog = plan->listen_backlog, .reuse_port = true, .unix_mode = plan->unix_mode};
    for (size_t i = 0; i < listener->count; i++) {
        enum result result = socket_listen(&address, &options, &listener->fds[i], why);
        if (result != RESULT_OK)
            return result;
        /* Port 0: what the kernel chose for the first is for all. */
        address.size = sizeof address.storage;
        if (getsockname(listener->fds[i], (struct sockaddr *)&address.storage, &address.size) != 0)
            return failure_set_errno(why, "cannot tell the address of a new socket");
    }
    return RESULT_OK;
}

static enum result own_unix_file(struct listener *listener, const struct process_plan *plan,
                                 struct failure *why)
{
    const char *path = unix_path(&listener->address);
    struct stat file;
    if (lstat(path, &file) != 0)
        return failure_set_errno(why, "cannot look at unix:%s", path);
    listener->device = file.st_dev;
    listener->inode = file.st_ino;
    if (plan->unix_group != 0 && lchown(path, (uid_t)-1, plan->unix_group) != 0) {
        enum result result =
            failure_set_errno(why, "cannot give unix:%s to group %ld", path, (long)plan->unix_group);
        listener_unlink(listener);
        return result;
    }
    return RESULT_OK;
}

static enum result bind_listener(const struct listener *list, struct listener *listener,
                                 const struct process_plan *plan, struct failure *why)
{
    enum result result = RESULT_OK;
    if (!address_is_unix(&listener->address) && !port_is_ours(list, &listener->address))
        result = probe_address(&listener->address, why);
    if (result == RESULT_OK)
        result = bind_sockets(listener, plan, why);
    if (result == RESULT_OK && address_is_unix(&listener->address))
        result = own_unix_file(listener, plan, why);
    return result;
}

static void log_listening(struct log *log, const struct listener *listener)
{
    struct address bound = {.size = sizeof bound.storage};
    if (getsockname(listener->fds[0], (struct sockaddr *)&bound.storage, &bound.size) == 0)
        log_info(log, "listening", log_address("address", &bound),
                 log_number("sockets", (int64_t)listener->count),
                 log_text("opened_by", listener->inherited ? "the service manager" : NULL));
}

static void close_sockets(struct listener *listener)
{
    for (size_t i = 0; i < listener->count; i++)
        socket_close(&listener->fds[i]);
}

static struct listener *listener_allocate(const struct address *address, size_t count)
{
    struct listener *listener = calloc(1, sizeof *listener);
    int *fds = calloc(count, sizeof *fds);
    if (listener == NULL || fds == NULL) {
        free(listener);
        free(fds);
        return NULL;
    }
    memset(fds, -1, count * sizeof *fds);
    *listener = (struct listener){.address = *address, .fds = fds, .count = count};
    return listener;
}

static void listener_free(struct listener *listener)
{
    close_sockets(listener);
    free(listener->fds);
    free(listener);
}

/* The list, and what is to be done to it. */
struct binding {
    struct listener **list;
    struct inherited *inherited;
    const struct process_plan *plan;
    struct log *log;
    uint64_t give_up; /* when to stop trying */
};

static enum result try_to_bind(const struct binding *binding, struct listener *listener, struct failure *why)
{
    enum result result = bind_listener(*binding->list, listener, binding->plan, why);
    while (result == RESULT_SYSTEM && clock_now() < binding->give_up) {
        close_sockets(listener);
        (void)nanosleep(&(struct timespec){.tv_nsec = LISTENER_RETRY_NS}, NULL);
        result = bind_listener(*binding->list, listener, binding->plan, why);
    }
    return result;
}

/* What the service manager has opened is taken as it is; all else is bound. */
static enum result open_listener(const struct binding *binding, struct listener *listener,
                                 struct failure *why)
{
    if (!listener->inherited)
        return try_to_bind(binding, listener, why);
    inherited_use(binding->inherited, &listener->address, listener->fds);
    return RESULT_OK;
}

/* Opens it and puts it into the list; NULL: why says what is wrong. */
static struct listener *listener_new(const struct binding *binding, size_t index, struct failure *why)
{
    const struct process_plan *plan = binding->plan;
    size_t inherited = inherited_count(binding->inherited, &plan->listen[index]);
    struct listener *listener =
        listener_allocate(&plan->listen[index], inherited > 0 ? inherited : sockets_wanted(plan, index));
    if (listener == NULL) {
        (void)failure_set(why, RESULT_LIMIT, "no memory for a listening address");
        return NULL;
    }
    listener->inherited = inherited > 0;
    if (open_listener(binding, listener, why) != RESULT_OK) {
        listener_free(listener);
        return NULL;
    }
    listener->next = *binding->list;
    *binding->list = listener;
    log_listening(binding->log, listener);
    return listener;
}

/* ---- The list */

static struct listener *find(struct listener *list, const struct address *address)
{
    while (list != NULL && !address_equal(&list->address, address))
        list = list->next;
    return list;
}

static enum result acquire(const struct binding *binding, size_t index, struct listener **used,
                           struct failure *why)
{
    const struct process_plan *plan = binding->plan;
    const struct address *address = &plan->listen[index];
    char text[ADDRESS_TEXT_SIZE];
    size_t kind = listener_kind(plan, index);
    if (kind >= plan->kind_count || !plan->kinds[kind].accepts)
        return failure_set(why, RESULT_CONFIG, "no process accepts on address %s",
                           address_format(address, text));
    for (size_t i = 0; i < index; i++)
        if (address_equal(&plan->listen[i], address))
            return failure_set(why, RESULT_CONFIG, "address %s is listed twice",
                               address_format(address, text));
    struct listener *listener = find(*binding->list, address);
    if (listener == NULL)
        listener = listener_new(binding, index, why);
    if (listener == NULL)
        return why->kind;
    /* Linux takes a new backlog on a socket that listens already. */
    for (size_t i = 0; i < listener->count; i++)
        (void)listen(listener->fds[i], plan->listen_backlog);
    listener->users++;
    used[index] = listener;
    return RESULT_OK;
}

enum result listeners_acquire(struct listener **list, struct inherited *inherited,
                              const struct process_plan *plan, struct listener **used, struct log *log,
                              struct failure *why)
{
    struct binding binding = {.list = list, .inherited = inherited, .plan = plan, .log = log};
    if (*list == NULL)
        binding.give_up = clock_now() + LISTENER_PATIENCE;
    for (size_t i = 0; i < plan->listen_count; i++) {
        enum result result = acquire(&binding, i, used, why);
        if (result != RESULT_OK) {
            listeners_release(list, used, i);
            return result;
        }
    }
    return RESULT_OK;
}

static void listeners_remove(struct listener **list, struct listener *listener)
{
    struct listener **at = list;
    while (*at != listener)
        at = &(*at)->next;
    *at = listener->next;
    listener_unlink(listener);
    listener_free(listener);
}

void listeners_release(struct listener **list, struct listener *const *used, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (--used[i]->users == 0)
            listeners_remove(list, used[i]);
}

void listeners_forget(struct listener **list)
{
    while (*list != NULL) {
        struct listener *listener = *list;
        *list = listener->next;
        listener_free(listener);
    }
}
