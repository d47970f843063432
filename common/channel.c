#include "common/channel_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "common/channel_tls.h"
#include "common/clock.h"
#include "common/socket.h"

enum {
    STEP_FLUSH = 0x4000,      /* beside libevent's EV_*: the turn of the loop ends */
    DRAIN_BUDGET = 64 * 1024, /* octets dropped in one turn */
};

/* ---- The states: what each does when something may have changed. ready: EV_READ, EV_WRITE, STEP_FLUSH. */

static void step_connecting(struct channel *channel, short ready)
{
    if ((ready & EV_WRITE) == 0)
        return;
    int error = socket_error(channel->fd);
    if (error == 0) {
        channel_enter(channel, HANDSHAKE);
        return;
    }
    (void)failure_set(&channel->end, RESULT_PEER, "cannot connect: %s", strerror(error));
    channel->cause = CHANNEL_CAUSE_CLOSED;
    channel_over(channel);
}

static void opened(struct channel *channel)
{
    if (channel_tls_peer(channel->ssl, &channel->certificate, &channel->valid_until, &channel->end) !=
        RESULT_OK) {
        channel_over(channel);
        return;
    }
    channel_tls_watch_chatter(channel->ssl, &channel->chatter);
    channel_enter(channel, OPEN);
    channel->active = channel->since;
    channel->read_waits = EV_READ;
    channel->readable = true; /* frames may have come with the last flight */
    if (channel->handler->open != NULL)
        channel->handler->open(channel, channel->owner);
}

static void step_handshake(struct channel *channel, short ready)
{
    (void)ready;
    ERR_clear_error();
    errno = 0;
    int outcome = SSL_do_handshake(channel->ssl);
    int system_error = errno;
    int error = SSL_get_error(channel->ssl, outcome);
    if (error == SSL_ERROR_NONE)
        opened(channel);
    else if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        channel->read_waits = error == SSL_ERROR_WANT_READ ? EV_READ : EV_WRITE;
    else
        channel_fail(channel, error, system_error, "the TLS handshake");
}

static void step_open(struct channel *channel, short ready)
{
    bool writable = (ready & (channel->write_waits != 0 ? channel->write_waits : STEP_FLUSH)) != 0;
    if (ready & channel->read_waits)
        channel->readable = true;
    if (channel->readable && !channel->paused)
        channel_receive(channel);
    if (channel->state == OPEN && writable)
        channel_transmit(channel);
}

static void step_flushing(struct channel *channel, short ready)
{
    bool writable = channel->write_waits == 0 || (ready & channel->write_waits) != 0;
    if (channel->certificate == NULL) { /* not open yet: nobody to say anything to */
        channel_over(channel);
        return;
    }
    if (ready & channel->read_waits)
        channel->readable = true;
    if (channel->readable)
        channel_receive(channel);
    if (channel->state == FLUSHING && writable) {
        channel_transmit(channel);
        if (channel->state == FLUSHING && channel->output.size == 0)
            channel_say_goodbye(channel);
    }
}

/* TLS is over; what still arrives is dropped until the peer closes. */
static void step_draining(struct channel *channel, short ready)
{
    uint8_t dropped[4096];
    (void)ready;
    for (size_t spent = 0; spent < DRAIN_BUDGET; spent += sizeof dropped) {
        ssize_t got = recv(channel->fd, dropped, sizeof dropped, MSG_DONTWAIT);
        if (got > 0)
            continue;
        if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR))
            channel_over(channel);
        return;
    }
}

static void (*const STEPS[])(struct channel *channel, short ready) = {
    [CONNECTING] = step_connecting, [HANDSHAKE] = step_handshake, [OPEN] = step_open,
    [FLUSHING] = step_flushing,     [DRAINING] = step_draining,
};

/* ---- Events. */

/* Which socket events the state waits for: decided here and nowhere else. */
static short interest(const struct channel *channel)
{
    switch (channel->state) {
    case CONNECTING:
        return EV_WRITE;
    case HANDSHAKE:
        return channel->read_waits;
    case OPEN:
        return (short)((channel->paused ? 0 : channel->read_waits) | channel->write_waits);
    case FLUSHING:
        return (short)(channel->read_waits | channel->write_waits);
    case DRAINING:
        return EV_READ;
    case CLOSED:
        break;
    }
    return 0;
}

static bool watch(struct channel *channel, struct event *event, short kind, short wanted)
{
    if (((channel->watched ^ wanted) & kind) == 0)
        return true;
    if (((wanted & kind) != 0 ? event_add(event, NULL) : event_del(event)) != 0)
        return false;
    channel->watched = (short)(channel->watched ^ kind);
    return true;
}

static void run_again(struct channel *channel)
{
    static const struct timeval NEXT_TURN = {0};
    if (evtimer_add(&channel->on_again, &NEXT_TURN) != 0)
        event_active(&channel->on_again, EV_TIMEOUT, 0);
}

/* Makes the events what the state asks for. */
static bool arrange(struct channel *channel)
{
    short wanted = interest(channel);
    bool reading = channel->state == FLUSHING || (channel->state == OPEN && !channel->paused);
    if (reading && channel->readable)
        run_again(channel);
    return watch(channel, &channel->on_read, EV_READ, wanted) &&
           watch(channel, &channel->on_write, EV_WRITE, wanted) &&
           (channel->timed == channel->state || channel_time_set(channel));
}

static void release(struct channel *channel)
{
    channel->held = false;
    if (channel->state == CLOSED)
        channel_free(channel);
}

static void settle(struct channel *channel)
{
    if (channel->state != CLOSED && !arrange(channel)) {
        (void)failure_set(&channel->end, RESULT_SYSTEM, "the event loop takes no more events");
        channel_over(channel);
    }
    release(channel);
}

/* Lets the state act until it lasts. */
static void step(struct channel *channel, short ready)
{
    enum channel_state before;
    channel->held = true;
    do {
        before = channel->state;
        STEPS[before](channel, ready);
    } while (channel->state != before && channel->state != CLOSED);
    settle(channel);
}

static void on_socket(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    step(argument, (short)(what & (EV_READ | EV_WRITE)));
}

static void on_flush(evutil_socket_t fd, short what, void *argument)
{
    struct channel *channel = argument;
    (void)fd, (void)what;
    channel->flush_due = false;
    step(channel, STEP_FLUSH);
}

static void on_again(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    step(argument, 0);
}

static void on_time(evutil_socket_t fd, short what, void *argument)
{
    struct channel *channel = argument;
    (void)fd, (void)what;
    channel->held = true;
    channel->timed = CLOSED; /* so that it is set again */
    if (channel_time_is_up(channel))
        channel_over(channel);
    settle(channel);
}

static void flush_at_end_of_turn(struct channel *channel)
{
    if (channel->flush_due)
        return;
    channel->flush_due = true;
    event_active(&channel->on_flush, EV_WRITE, 0);
}

/* ---- The interface. */

static bool assign_events(struct channel *channel, struct event_base *base)
{
    int fd = channel->fd;
    return event_assign(&channel->on_read, base, fd, EV_READ | EV_PERSIST, on_socket, channel) == 0 &&
           event_assign(&channel->on_write, base, fd, EV_WRITE | EV_PERSIST, on_socket, channel) == 0 &&
           evtimer_assign(&channel->on_flush, base, on_flush, channel) == 0 &&
           evtimer_assign(&channel->on_again, base, on_again, channel) == 0 &&
           evtimer_assign(&channel->on_time, base, on_time, channel) == 0;
}

/* Takes *fd and sets it to -1, unless it returns NULL. */
static struct channel *channel_new(struct event_base *base, SSL_CTX *context, int *fd,
                                   const char *server_name, const struct address *peer,
                                   const struct channel_limits *limits, const struct channel_handler *handler,
                                   void *owner, struct failure *why)
{
    struct channel *channel = calloc(1, sizeof *channel);
    if (channel == NULL) {
        (void)failure_set(why, RESULT_LIMIT, "no memory for a key channel");
        return NULL;
    }
    *channel = (struct channel){
        .state = server_name != NULL ? CONNECTING : HANDSHAKE,
        .timed = CLOSED,
        .fd = *fd,
        .handler = handler,
        .owner = owner,
        .limits = *limits,
        .peer = *peer,
        .read_waits = EV_READ,
        .since = clock_now(),
        .end = {.kind = RESULT_OK, .text = "closed"},
    };
    bool ready =
        channel_tls_new(context, *fd, server_name, &channel->verification, &channel->ssl, why) == RESULT_OK;
    if (ready && (!assign_events(channel, base) || !arrange(channel))) {
        (void)failure_set(why, RESULT_SYSTEM, "the event loop takes no more events");
        channel_stop(channel);
        *fd = -1;
        ready = false;
    }
    if (!ready) {
        channel_free(channel);
        return NULL;
    }
    *fd = -1;
    return channel;
}

struct channel *channel_connect(struct event_base *base, SSL_CTX *context, const struct address *to,
                                const char *server_name, const struct channel_limits *limits,
                                const struct channel_handler *handler, void *owner, struct failure *why)
{
    int fd CLEANUP(socket_close) = -1;
    if (socket_connect(to, &fd, why) != RESULT_OK)
        return NULL;
    return channel_new(base, context, &fd, server_name, to, limits, handler, owner, why);
}

struct channel *channel_accept(struct event_base *base, SSL_CTX *context, int fd, const struct address *peer,
                               const struct channel_limits *limits, const struct channel_handler *handler,
                               void *owner, struct failure *why)
{
    int owned CLEANUP(socket_close) = fd;
    return channel_new(base, context, &owned, NULL, peer, limits, handler, owner, why);
}

enum result channel_send(struct channel *channel, struct bytes frame)
{
    if (channel->state != OPEN)
        return RESULT_PEER;
    if (!frame_output_whole(frame))
        return RESULT_PROTOCOL;
    if (channel->output.size + frame.size > 2 * channel->limits.output_high ||
        !frame_output_append(&channel->output, frame))
        return RESULT_LIMIT;
    if (channel->output.size > channel->limits.output_high)
        channel->full = true;
    if (channel->write_waits == 0)
        flush_at_end_of_turn(channel);
    return RESULT_OK;
}

bool channel_full(const struct channel *channel)
{
    return channel->output.size > channel->limits.output_high;
}

size_t channel_queued(const struct channel *channel)
{
    return channel->output.size;
}

void channel_pause(struct channel *channel)
{
    channel->paused = true;
}

void channel_resume(struct channel *channel)
{
    if (!channel->paused)
        return;
    channel->paused = false;
    channel->active = clock_now();
    if (channel->state == OPEN)
        run_again(channel);
}

void channel_finish(struct channel *channel)
{
    if (channel->state >= FLUSHING)
        return;
    channel_enter(channel, FLUSHING);
    flush_at_end_of_turn(channel);
}

void channel_close(struct channel *channel)
{
    if (channel == NULL)
        return;
    if (channel->state != CLOSED)
        channel_stop(channel);
    if (!channel->held)
        channel_free(channel);
}

enum channel_cause channel_cause(const struct channel *channel)
{
    return channel->cause;
}

const struct address *channel_peer_address(const struct channel *channel)
{
    return &channel->peer;
}

X509 *channel_peer_certificate(const struct channel *channel)
{
    return channel->certificate;
}

const char *channel_tls_version(const struct channel *channel)
{
    return SSL_get_version(channel->ssl);
}
