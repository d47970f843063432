#include "common/channel_state.h"

#include "common/clock.h"

#define SECOND  UINT64_C(1000000)
#define FOREVER UINT64_MAX
/* How long a refused peer is given to take our alert. */
#define LINGER_TIME SECOND
/* The longest wait in one piece: the wall clock, by which certificates expire, may be set meanwhile. */
#define WAIT_MAX (60 * SECOND)

/* Microseconds that the state may still last; 0: it has lasted too long. */
static uint64_t time_left(const struct channel *channel, uint64_t now)
{
    uint64_t limit = channel->limits.handshake_timeout;
    uint64_t from = channel->since;
    if (channel->state == OPEN) {
        limit = channel->limits.idle_timeout;
        from = channel->paused && channel->output.size == 0 ? now : channel->active;
    } else if (channel->state == DRAINING && channel->end.kind != RESULT_OK) {
        limit = LINGER_TIME;
    }
    uint64_t elapsed = now > from ? now - from : 0;
    if (limit == 0)
        return FOREVER;
    return elapsed < limit ? limit - elapsed : 0;
}

/* Microseconds for which the peer's chain is still valid, its
 * last second included; never so many as to overflow. */
static uint64_t validity_left(const struct channel *channel)
{
    time_t now = time(NULL);
    if (channel->state != OPEN)
        return FOREVER;
    if (now > channel->valid_until)
        return 0;
    uint64_t seconds = (uint64_t)channel->valid_until - (uint64_t)now;
    return seconds < WAIT_MAX / SECOND ? (seconds + 1) * SECOND : WAIT_MAX;
}

static void timed_out(struct channel *channel)
{
    struct failure *end = &channel->end;
    double handshake = (double)channel->limits.handshake_timeout / (double)SECOND;
    double idle = (double)channel->limits.idle_timeout / (double)SECOND;
    if (channel->state > FLUSHING && end->kind != RESULT_OK)
        return; /* the reason for which it is closing */
    channel->cause = CHANNEL_CAUSE_TIMEOUT;
    if (channel->state == CONNECTING)
        (void)failure_set(end, RESULT_PEER, "no connection within %g s", handshake);
    else if (channel->state == HANDSHAKE)
        (void)failure_set(end, RESULT_PEER,
                          "the TLS handshake was not complete within %g s, in the state \"%s\"", handshake,
                          SSL_state_string_long(channel->ssl));
    else if (channel->state == OPEN && channel->output.size > 0)
        (void)failure_set(end, RESULT_PEER, "the peer took none of the %zu octets queued for it within %g s",
                          channel->output.size, idle);
    else if (channel->state == OPEN)
        (void)failure_set(end, RESULT_PEER, "idle: no frame within %g s", idle);
    else if (channel->state == FLUSHING)
        (void)failure_set(end, RESULT_PEER, "closing: the peer did not take the last %zu octets within %g s",
                          channel->output.size, handshake);
    else
        (void)failure_set(end, RESULT_PEER, "closing: the peer did not close its side within %g s",
                          handshake);
}

bool channel_time_set(struct channel *channel)
{
    uint64_t wait = time_left(channel, clock_now());
    uint64_t validity = validity_left(channel);
    if (wait > validity)
        wait = validity;
    struct timeval delay = clock_timeval(wait < WAIT_MAX ? wait : WAIT_MAX);
    channel->timed = channel->state;
    return evtimer_add(&channel->on_time, &delay) == 0;
}

bool channel_time_is_up(struct channel *channel)
{
    bool expired = validity_left(channel) == 0;
    if (time_left(channel, clock_now()) == 0) {
        timed_out(channel);
    } else if (expired) {
        (void)failure_set(&channel->end, RESULT_PEER,
                          "the peer's certificate, or one of its chain, has expired");
        channel->cause = CHANNEL_CAUSE_CERTIFICATE;
    } else {
        return false;
    }
    return true;
}
