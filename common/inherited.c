#include "common/inherited.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/environment.h"
#include "common/socket.h"

/* The first descriptor, by the protocol; and more than anybody passes on. */
#define FIRST_DESCRIPTOR 3
#define DESCRIPTORS_MAX  4096
#define NAME_SIZE        256 /* the manager's own bound, with the terminating zero */

struct inherited_socket {
    int fd; /* -1: given away, or none of ours */
    struct address address;
    char name[NAME_SIZE]; /* the manager's; "" when it gave none */
};

struct inherited {
    size_t count;
    struct inherited_socket sockets[];
};

/* ---- What the environment says. */

static enum result count_descriptors(size_t *count, struct failure *why)
{
    const char *text = getenv("LISTEN_FDS");
    uint64_t number = 0;
    *count = 0;
    if (!environment_means_us("LISTEN_PID"))
        return RESULT_OK;
    if (!environment_number("LISTEN_FDS", &number) || number > DESCRIPTORS_MAX)
        return failure_set(why, RESULT_CONFIG, "LISTEN_FDS is \"%.32s\": expected a number of at most %d",
                           text != NULL ? text : "", DESCRIPTORS_MAX);
    *count = (size_t)number;
    return RESULT_OK;
}

/* Names are separated by colons; there may be fewer than descriptors. */
static void take_name(const char **names, char name[static NAME_SIZE])
{
    size_t size = strcspn(*names, ":");
    (void)snprintf(name, NAME_SIZE, "%.*s", (int)(size < NAME_SIZE ? size : NAME_SIZE - 1), *names);
    *names += size;
    if (**names == ':')
        ++*names;
}

/* Nobody whom this process starts is meant. */
static void forget_environment(void)
{
    static const char *const NAMES[] = {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        (void)unsetenv(NAMES[i]);
}

/* ---- The sockets. */

static bool option_is(int fd, int option, int wanted)
{
    int value = 0;
    socklen_t size = sizeof value;
    return getsockopt(fd, SOL_SOCKET, option, &value, &size) == 0 && value == wanted;
}

static enum result take_socket(struct inherited_socket *inherited, int fd, struct failure *why)
{
    int flags = fcntl(fd, F_GETFL);
    struct address *address = &inherited->address;
    inherited->fd = -1;
    address->size = sizeof address->storage;
    if (flags < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return failure_set(why, RESULT_CONFIG,
                           "descriptor %d (%s) is not there: the service manager says it has passed it on",
                           fd, inherited->name);
    if (!option_is(fd, SO_TYPE, SOCK_STREAM) || !option_is(fd, SO_ACCEPTCONN, 1) ||
        getsockname(fd, (struct sockaddr *)&address->storage, &address->size) != 0)
        return failure_set(why, RESULT_CONFIG,
                           "descriptor %d (%s), passed on by the service manager, is not a listening stream "
                           "socket: ListenStream= and Accept=no make one",
                           fd, inherited->name);
    if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return failure_set_errno(why, "cannot make descriptor %d non-blocking", fd);
    inherited->fd = fd;
    return RESULT_OK;
}

static enum result take_sockets(struct inherited *inherited, size_t count, struct failure *why)
{
    const char *names = getenv("LISTEN_FDNAMES");
    if (names == NULL)
        names = "";
    for (size_t i = 0; i < count; i++) {
        struct inherited_socket *socket = &inherited->sockets[inherited->count++];
        take_name(&names, socket->name);
        enum result result = take_socket(socket, FIRST_DESCRIPTOR + (int)i, why);
        if (result != RESULT_OK)
            return result;
    }
    return RESULT_OK;
}

static enum result take(struct inherited **inherited, struct failure *why)
{
    size_t count;
    enum result result = count_descriptors(&count, why);
    if (result != RESULT_OK || count == 0)
        return result;
    struct inherited *made = calloc(1, sizeof *made + count * sizeof made->sockets[0]);
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for inherited sockets");
    result = take_sockets(made, count, why);
    if (result == RESULT_OK)
        *inherited = made;
    else
        inherited_free(made, NULL);
    return result;
}

enum result inherited_take(struct inherited **inherited, struct failure *why)
{
    *inherited = NULL;
    enum result result = take(inherited, why);
    forget_environment();
    return result;
}

/* ---- Giving them away. */

static bool is_for(const struct inherited_socket *inherited, const struct address *address)
{
    return inherited->fd >= 0 && address_equal(&inherited->address, address);
}

size_t inherited_count(const struct inherited *inherited, const struct address *address)
{
    size_t found = 0;
    for (size_t i = 0; inherited != NULL && i < inherited->count; i++)
        found += is_for(&inherited->sockets[i], address);
    return found;
}

void inherited_use(struct inherited *inherited, const struct address *address, int *fds)
{
    for (size_t i = 0; inherited != NULL && i < inherited->count; i++)
        if (is_for(&inherited->sockets[i], address)) {
            *fds++ = inherited->sockets[i].fd;
            inherited->sockets[i].fd = -1;
        }
}

void inherited_free(struct inherited *inherited, struct log *log)
{
    if (inherited == NULL)
        return;
    for (size_t i = 0; i < inherited->count; i++) {
        struct inherited_socket *socket = &inherited->sockets[i];
        if (socket->fd >= 0)
            log_warn(log, "inherited socket closed", log_address("address", &socket->address),
                     log_text("name", socket->name[0] != '\0' ? socket->name : NULL),
                     log_reason("no listen or admin address of the configuration is the same"));
        socket_close(&socket->fd);
    }
    free(inherited);
}
