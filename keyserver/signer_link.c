#include "keyserver/signer_link.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>

#include "keyserver/signer_protocol.h"

/* Holds at least one whole message; more makes for fewer system calls when many wait. */
#define INPUT_SIZE (256 * 1024)

_Static_assert(INPUT_SIZE >= SIGNER_HEADER_SIZE + SIGNER_BODY_MAX, "a message fits the input buffer");

struct signer_link {
    int fd;
    size_t output_high;
    const struct signer_link_handler *handler;
    void *owner;
    struct event *readable, *writable;
    struct event *flush; /* active from the first message queued in a turn until they are written */
    struct evbuffer *output;
    bool reading;
    bool closed; /* freed once nothing of ours is on the stack */
    unsigned held;
    size_t input_size;
    uint8_t input[INPUT_SIZE];
};

static void link_free(struct signer_link *link)
{
    if (link->readable != NULL)
        event_free(link->readable);
    if (link->writable != NULL)
        event_free(link->writable);
    if (link->flush != NULL)
        event_free(link->flush);
    if (link->output != NULL)
        evbuffer_free(link->output);
    close(link->fd);
    free(link);
}

static void link_hold(struct signer_link *link)
{
    link->held++;
}

static void link_release(struct signer_link *link)
{
    if (--link->held == 0 && link->closed)
        link_free(link);
}

void signer_link_close(struct signer_link *link)
{
    if (link == NULL)
        return;
    link->closed = true;
    link_hold(link);
    link_release(link);
}

/* The one way in which a link ends without having been closed by its owner. */
static void link_fail(struct signer_link *link, const struct failure *why)
{
    if (link->closed)
        return;
    link->closed = true;
    link->handler->closed(why, link->owner);
}

/* ---- Interest, from state. */

static void link_update(struct signer_link *link)
{
    if (link->closed)
        return;
    bool want = link->output_high == 0 || evbuffer_get_length(link->output) <= link->output_high;
    if (want == link->reading)
        return;
    link->reading = want;
    (void)(want ? event_add(link->readable, NULL) : event_del(link->readable));
}

/* ---- Receiving. */

/* One message off the front of from, to the owner. RESULT_AGAIN: there is no whole one. */
static enum result deliver_one(struct signer_link *link, struct reader *from, struct failure *why)
{
    struct reader ahead = *from;
    uint8_t type;
    uint32_t size;
    struct bytes body;
    if (!read_u8(&ahead, &type) || !read_u24(&ahead, &size))
        return RESULT_AGAIN;
    if (size > SIGNER_BODY_MAX)
        return failure_set(why, RESULT_PROTOCOL, "a message of type 0x%02x with %u octets", type, size);
    if (!read_bytes(&ahead, size, &body))
        return RESULT_AGAIN;
    *from = ahead;
    if (!link->handler->message(type, body, link->owner))
        return failure_set(why, RESULT_PROTOCOL, "a malformed message of type 0x%02x", type);
    return RESULT_OK;
}

static void deliver(struct signer_link *link)
{
    struct reader from = reader_of(bytes_of(link->input, link->input_size));
    struct failure why = {RESULT_OK, ""};
    enum result result = RESULT_OK;
    while (result == RESULT_OK && !link->closed)
        result = deliver_one(link, &from, &why);
    if (link->closed)
        return;
    if (result != RESULT_AGAIN) {
        link_fail(link, &why);
        return;
    }
    memmove(link->input, from.next, from.left);
    link->input_size = from.left;
}

static void on_readable(evutil_socket_t fd, short events, void *owner)
{
    (void)events;
    struct signer_link *link = owner;
    ssize_t got = read(fd, link->input + link->input_size, sizeof link->input - link->input_size);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    link_hold(link);
    struct failure why = {RESULT_OK, "the other end has closed the link"};
    if (got > 0) {
        link->input_size += (size_t)got;
        deliver(link);
        link_update(link);
    } else {
        /* A reset: the other end went without having read everything. */
        if (got < 0 && errno != ECONNRESET)
            (void)failure_set_errno(&why, "cannot read from the link");
        link_fail(link, &why);
    }
    link_release(link);
}

/* ---- Sending. */

static void write_output(struct signer_link *link)
{
    while (evbuffer_get_length(link->output) > 0) {
        int written = evbuffer_write(link->output, link->fd);
        if (written > 0 || (written < 0 && errno == EINTR))
            continue;
        if (written < 0 && errno == EAGAIN) {
            (void)event_add(link->writable, NULL);
        } else if (written < 0 && (errno == EPIPE || errno == ECONNRESET)) {
            /* The other end has gone. What it said before may still be there: reading comes to the end. */
            (void)evbuffer_drain(link->output, evbuffer_get_length(link->output));
        } else {
            struct failure why;
            (void)failure_set_errno(&why, "cannot write to the link");
            link_fail(link, &why);
        }
        break;
    }
}

static void on_writable(evutil_socket_t fd, short events, void *owner)
{
    (void)fd;
    (void)events;
    struct signer_link *link = owner;
    link_hold(link);
    write_output(link);
    link_update(link);
    link_release(link);
}

bool signer_link_send(struct signer_link *link, struct bytes message)
{
    if (link->closed || evbuffer_add(link->output, message.data, message.size) != 0)
        return false;
    /* The event stands behind everything that this turn of the loop still has to do. */
    if (!event_pending(link->writable, EV_WRITE, NULL))
        event_active(link->flush, EV_WRITE, 0);
    return true;
}

size_t signer_link_queued(const struct signer_link *link)
{
    return evbuffer_get_length(link->output);
}

struct signer_link *signer_link_new(struct event_base *base, int fd, size_t output_high,
                                    const struct signer_link_handler *handler, void *owner)
{
    struct signer_link *link = calloc(1, sizeof *link);
    if (link == NULL) {
        close(fd);
        return NULL;
    }
    link->fd = fd;
    link->output_high = output_high;
    link->handler = handler;
    link->owner = owner;
    link->output = evbuffer_new();
    link->readable = event_new(base, fd, EV_READ | EV_PERSIST, on_readable, link);
    link->writable = event_new(base, fd, EV_WRITE, on_writable, link);
    link->flush = event_new(base, -1, 0, on_writable, link);
    if (link->output == NULL || link->readable == NULL || link->writable == NULL || link->flush == NULL ||
        evutil_make_socket_nonblocking(fd) != 0 || event_add(link->readable, NULL) != 0) {
        link_free(link);
        return NULL;
    }
    link->reading = true;
    return link;
}
