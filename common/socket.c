#include "common/socket.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define MESSAGE_MAX 4096
/* Accept errors of connections that died in the queue are skipped, but not for ever in one call. */
#define ACCEPT_SKIP_MAX 64

static bool errno_is_limit(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM || error == ETOOMANYREFS;
}

/* "what address: strerror", of the kind that errno stands for on this machine. */
static enum result local_failure(struct failure *why, const char *what, const struct address *address)
{
    int saved = errno;
    char text[ADDRESS_TEXT_SIZE];
    enum result kind = errno_is_limit(saved) ? RESULT_LIMIT : RESULT_SYSTEM;
    return failure_set(why, kind, "cannot %s %s: %s", what, address_format(address, text), strerror(saved));
}

static enum result open_stream(const struct address *address, int *fd, struct failure *why)
{
    *fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return *fd >= 0 ? RESULT_OK : local_failure(why, "open a socket for", address);
}

static bool enable(int fd, int level, int option)
{
    int on = 1;
    return setsockopt(fd, level, option, &on, sizeof on) == 0;
}

/* Small writes leave at once: handshake flights and key requests must not wait for an acknowledgement. */
static void set_no_delay(int fd, const struct address *peer)
{
    if (!address_is_unix(peer))
        (void)enable(fd, IPPROTO_TCP, TCP_NODELAY);
}

/* ---- Listening */

static enum result listen_ip(int fd, const struct address *address,
                             const struct socket_listen_options *options, struct failure *why)
{
    bool ipv6 = address->storage.ss_family == AF_INET6;
    if (!enable(fd, SOL_SOCKET, SO_REUSEADDR) ||
        (options->reuse_port && !enable(fd, SOL_SOCKET, SO_REUSEPORT)) ||
        (ipv6 && !enable(fd, IPPROTO_IPV6, IPV6_V6ONLY)))
        return local_failure(why, "set options for", address);
    if (bind(fd, (const struct sockaddr *)&address->storage, address->size) != 0)
        return local_failure(why, "bind", address);
    if (listen(fd, options->backlog) != 0)
        return local_failure(why, "listen on", address);
    return RESULT_OK;
}

static const char *unix_path(const struct address *address)
{
    return (const char *)&address->storage + offsetof(struct sockaddr_un, sun_path);
}

/* Removes the socket file in our way if nobody answers on it. */
static enum result remove_stale(const struct address *address, struct failure *why)
{
    const char *path = unix_path(address);
    struct stat status;
    if (lstat(path, &status) != 0)
        return errno == ENOENT ? RESULT_OK : local_failure(why, "look at", address);
    if (!S_ISSOCK(status.st_mode))
        return failure_set(why, RESULT_CONFIG, "cannot bind unix:%s: a file that is no socket is there",
                           path);

    int probe CLEANUP(socket_close) = -1;
    enum result result = open_stream(address, &probe, why);
    if (result != RESULT_OK)
        return result;
    if (connect(probe, (const struct sockaddr *)&address->storage, address->size) == 0 || errno == EAGAIN)
        return failure_set(why, RESULT_SYSTEM, "cannot bind unix:%s: another process listens there", path);
    if (errno != ECONNREFUSED)
        return local_failure(why, "probe", address);
    if (unlink(path) != 0 && errno != ENOENT)
        return local_failure(why, "remove the stale", address);
    return RESULT_OK;
}

static enum result listen_unix(int fd, const struct address *address,
                               const struct socket_listen_options *options, struct failure *why)
{
    const struct sockaddr *name = (const struct sockaddr *)&address->storage;
    if (bind(fd, name, address->size) != 0) {
        if (errno != EADDRINUSE)
            return local_failure(why, "bind", address);
        enum result result = remove_stale(address, why);
        if (result != RESULT_OK)
            return result;
        if (bind(fd, name, address->size) != 0)
            return local_failure(why, "bind", address);
    }
    /* Nobody can connect before listen: the permissions are in place by then. */
    mode_t mode = options->unix_mode != 0 ? options->unix_mode : 0660;
    if (chmod(unix_path(address), mode) != 0 || listen(fd, options->backlog) != 0) {
        enum result result = local_failure(why, "listen on", address);
        (void)unlink(unix_path(address));
        return result;
    }
    return RESULT_OK;
}

enum result socket_listen(const struct address *address, const struct socket_listen_options *options, int *fd,
                          struct failure *why)
{
    int opened CLEANUP(socket_close) = -1;
    *fd = -1;
    enum result result = open_stream(address, &opened, why);
    if (result != RESULT_OK)
        return result;
    result = address_is_unix(address) ? listen_unix(opened, address, options, why)
                                      : listen_ip(opened, address, options, why);
    if (result != RESULT_OK)
        return result;
    *fd = opened;
    opened = -1;
    return RESULT_OK;
}

/* ---- Accepting and connecting */

/* accept(2): errors that were already pending on the new connection, and the firewall's. */
static bool accept_error_is_transient(int error)
{
    static const int TRANSIENT[] = {EINTR,  ECONNABORTED, EPROTO,      ENETDOWN,  ENOPROTOOPT, EHOSTDOWN,
                                    ENONET, EHOSTUNREACH, ENETUNREACH, ETIMEDOUT, EPERM};
    for (size_t i = 0; i < sizeof TRANSIENT / sizeof *TRANSIENT; i++)
        if (TRANSIENT[i] == error)
            return true;
    return false;
}

static enum result accept_failure(struct failure *why)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK || accept_error_is_transient(errno))
        return RESULT_AGAIN;
    if (errno_is_limit(errno))
        return failure_set(why, RESULT_LIMIT, "cannot accept: %s", strerror(errno));
    return failure_set_errno(why, "cannot accept");
}

enum result socket_accept(int listener, int *fd, struct address *peer, struct failure *why)
{
    for (unsigned skipped = 0; skipped < ACCEPT_SKIP_MAX; skipped++) {
        memset(peer, 0, sizeof *peer);
        peer->size = sizeof peer->storage;
        *fd = accept4(listener, (struct sockaddr *)&peer->storage, &peer->size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (*fd >= 0) {
            set_no_delay(*fd, peer);
            return RESULT_OK;
        }
        if (!accept_error_is_transient(errno))
            break;
    }
    peer->size = 0;
    return accept_failure(why);
}

static enum result connect_failure(const struct address *address, struct failure *why)
{
    static const int LOCAL[] = {EACCES, EPERM, EINVAL, EAFNOSUPPORT, EPROTOTYPE, EBADF};
    int saved = errno;
    enum result kind = RESULT_PEER;
    for (size_t i = 0; i < sizeof LOCAL / sizeof *LOCAL; i++)
        if (LOCAL[i] == saved)
            kind = RESULT_SYSTEM;
    /* Out of local ports. */
    if (errno_is_limit(saved) || saved == EADDRNOTAVAIL)
        kind = RESULT_LIMIT;
    char text[ADDRESS_TEXT_SIZE];
    return failure_set(why, kind, "cannot connect to %s: %s", address_format(address, text), strerror(saved));
}

enum result socket_connect(const struct address *address, int *fd, struct failure *why)
{
    int opened CLEANUP(socket_close) = -1;
    *fd = -1;
    enum result result = open_stream(address, &opened, why);
    if (result != RESULT_OK)
        return result;
    set_no_delay(opened, address);
    /* A connect interrupted by a signal goes on in the background, as one under way does. */
    if (connect(opened, (const struct sockaddr *)&address->storage, address->size) != 0 &&
        errno != EINPROGRESS && errno != EINTR)
        return connect_failure(address, why);
    *fd = opened;
    opened = -1;
    return RESULT_OK;
}

int socket_error(int fd)
{
    int error = 0;
    socklen_t size = sizeof error;
    return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

/* ---- Messages between our own processes */

enum result socket_pair(int type, int fds[2], struct failure *why)
{
    fds[0] = fds[1] = -1;
    if (socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0)
        return RESULT_OK;
    if (errno_is_limit(errno))
        return failure_set(why, RESULT_LIMIT, "cannot make a socket pair: %s", strerror(errno));
    return failure_set_errno(why, "cannot make a socket pair");
}

/* Room for the control message of one descriptor, aligned as the kernel wants it. */
union descriptor_control {
    struct cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
};

static enum result message_failure(const char *what, struct failure *why)
{
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return RESULT_AGAIN;
    if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
        return failure_set(why, RESULT_PEER, "cannot %s a message: %s", what, strerror(errno));
    if (errno_is_limit(errno))
        return failure_set(why, RESULT_LIMIT, "cannot %s a message: %s", what, strerror(errno));
    return failure_set_errno(why, "cannot %s a message", what);
}

static void attach_descriptor(struct msghdr *message, union descriptor_control *control, int descriptor)
{
    memset(control, 0, sizeof *control);
    message->msg_control = control->space;
    message->msg_controllen = sizeof control->space;
    struct cmsghdr *header = CMSG_FIRSTHDR(message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof descriptor);
    memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
}

enum result socket_send_message(int socket, const void *data, size_t size, int descriptor,
                                struct failure *why)
{
    /* An empty datagram could not be told from the end of the stream. */
    if (size == 0 || size > MESSAGE_MAX)
        return failure_set(why, RESULT_LIMIT, "a message of %zu octets: 1 to %d can be sent", size,
                           MESSAGE_MAX);
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    union descriptor_control control;
    if (descriptor >= 0)
        attach_descriptor(&message, &control, descriptor);
    ssize_t sent;
    do
        sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    while (sent < 0 && errno == EINTR);
    if (sent < 0)
        return message_failure("send", why);
    if ((size_t)sent != size)
        return failure_set(why, RESULT_SYSTEM, "a message of %zu octets was cut to %zd", size, sent);
    return RESULT_OK;
}

/* Takes the first descriptor that came along and closes the others; returns how many there were. */
static size_t take_descriptors(struct msghdr *message, int *descriptor)
{
    size_t count = 0;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header != NULL;
         header = CMSG_NXTHDR(message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
            continue;
        size_t size = header->cmsg_len - CMSG_LEN(0);
        for (size_t at = 0; at + sizeof(int) <= size; at += sizeof(int)) {
            int fd = -1;
            memcpy(&fd, CMSG_DATA(header) + at, sizeof fd);
            if (count++ == 0)
                *descriptor = fd;
            else
                socket_close(&fd);
        }
    }
    return count;
}

/* What is wrong with a message that came, in spite of its having come. */
static enum result check_message(const struct msghdr *message, ssize_t received, size_t descriptors,
                                 struct failure *why)
{
    if (received == 0)
        return failure_set(why, RESULT_PEER, "the other end is closed");
    if (message->msg_flags & MSG_TRUNC)
        return failure_set(why, RESULT_PROTOCOL, "a message is longer than the buffer for it");
    if (descriptors > 1)
        return failure_set(why, RESULT_PROTOCOL, "a message carries %zu descriptors", descriptors);
    /* The kernel could not give us the descriptor: we have too many. */
    if (message->msg_flags & MSG_CTRUNC)
        return failure_set(why, RESULT_LIMIT, "cannot take a message's descriptor: %s", strerror(EMFILE));
    return RESULT_OK;
}

enum result socket_receive_message(int socket, void *data, size_t *size, int *descriptor, struct failure *why)
{
    struct iovec part = {.iov_base = data, .iov_len = *size};
    union descriptor_control control;
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof control.space};
    *descriptor = -1;
    *size = 0;
    ssize_t received;
    /* A peer that ends without having read everything leaves one ECONNRESET in front of its last messages. */
    unsigned resets = 0;
    do
        received = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    while (received < 0 && (errno == EINTR || (errno == ECONNRESET && resets++ == 0)));
    if (received < 0)
        return message_failure("receive", why);
    enum result result = check_message(&message, received, take_descriptors(&message, descriptor), why);
    if (result != RESULT_OK) {
        socket_close(descriptor);
        return result;
    }
    *size = (size_t)received;
    return RESULT_OK;
}

void socket_close(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
    *fd = -1;
}
