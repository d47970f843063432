#include "common/log_sink.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

static enum log_sink_kind kind_of(int fd)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return LOG_SINK_FILE;
    if (S_ISSOCK(status.st_mode))
        return LOG_SINK_SOCKET;
    if (S_ISFIFO(status.st_mode))
        return LOG_SINK_PIPE;
    return isatty(fd) ? LOG_SINK_POLL : LOG_SINK_FILE;
}

void log_sink_init(struct log_sink *sink, int fd)
{
    *sink = (struct log_sink){.fd = fd, .kind = kind_of(fd)};
}

/* A pipe that poll calls writable takes a whole line (at most PIPE_BUF octets) without waiting, unless
 * another process was quicker: hence RWF_NOWAIT where the kernel has it. */
static ssize_t write_polled(int fd, struct bytes part)
{
    struct pollfd ask = {.fd = fd, .events = POLLOUT};
    int ready = poll(&ask, 1, 0);
    if (ready <= 0) {
        errno = ready == 0 ? EAGAIN : errno;
        return -1;
    }
    return write(fd, part.data, part.size);
}

static ssize_t write_pipe(struct log_sink *sink, struct bytes part)
{
    struct iovec vector = {.iov_base = (void *)(uintptr_t)part.data, .iov_len = part.size};
    ssize_t written = pwritev2(sink->fd, &vector, 1, -1, RWF_NOWAIT);
    if (written >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL))
        return written;
    sink->kind = LOG_SINK_POLL;
    return write_polled(sink->fd, part);
}

static ssize_t write_once(struct log_sink *sink, struct bytes part)
{
    switch (sink->kind) {
    case LOG_SINK_SOCKET:
        return send(sink->fd, part.data, part.size, MSG_DONTWAIT | MSG_NOSIGNAL);
    case LOG_SINK_PIPE:
        return write_pipe(sink, part);
    case LOG_SINK_POLL:
        return write_polled(sink->fd, part);
    case LOG_SINK_FILE:
        break;
    }
    return write(sink->fd, part.data, part.size);
}

/* Writes as much as goes in without waiting; returns what is left. */
static struct bytes write_some(struct log_sink *sink, struct bytes rest)
{
    while (rest.size > 0) {
        ssize_t written = write_once(sink, rest);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            break;
        rest = bytes_of(rest.data + written, rest.size - (size_t)written);
    }
    return rest;
}

bool log_sink_write(struct log_sink *sink, struct bytes line)
{
    int saved = errno;
    /* A line that was cut is ended first, so that the next one stands alone. */
    if (sink->torn)
        sink->torn = write_some(sink, bytes_of("\n", 1)).size != 0;
    struct bytes rest = sink->torn ? line : write_some(sink, line);
    errno = saved;
    if (rest.size == 0)
        return true;
    sink->torn = sink->torn || rest.size < line.size;
    sink->lost++;
    return false;
}
