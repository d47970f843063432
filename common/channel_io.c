#include "common/channel_state.h"

#include <errno.h>
#include <stdlib.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include "common/channel_tls.h"
#include "common/clock.h"
#include "common/socket.h"

enum {
    /* Octets that one turn of the loop may read or write: one busy peer must not starve the others. */
    READ_BUDGET = 64 * 1024,
    WRITE_BUDGET = 256 * 1024,
    /* What a read counts at least: a peer that sends one octet a record is cut off after 64 of them. */
    READ_COST = 1024,
};

void channel_enter(struct channel *channel, enum channel_state state)
{
    channel->state = state;
    if (state != HANDSHAKE)
        channel->since = clock_now();
}

/* ---- The end. */

void channel_free(struct channel *channel)
{
    SSL_free(channel->ssl);
    X509_free(channel->certificate);
    frame_input_clear(&channel->input);
    frame_input_release(&channel->input);
    frame_output_release(&channel->output);
    free(channel);
}

/* A healthy peer is told, if that needs no waiting. */
void channel_stop(struct channel *channel)
{
    if (channel->state == OPEN && channel->output.size == 0 && !channel->broken) {
        ERR_clear_error();
        (void)SSL_shutdown(channel->ssl);
        ERR_clear_error();
    }
    (void)event_del(&channel->on_read);
    (void)event_del(&channel->on_write);
    (void)event_del(&channel->on_flush);
    (void)event_del(&channel->on_again);
    (void)event_del(&channel->on_time);
    socket_close(&channel->fd);
    channel->state = CLOSED;
}

void channel_over(struct channel *channel)
{
    channel_stop(channel);
    channel->handler->closed(channel, &channel->end, channel->owner);
}

/* Why our own check refused the peer's certificate is known better than OpenSSL's error tells. */
void channel_fail(struct channel *channel, int error, int system_error, const char *doing)
{
    channel->broken = error != SSL_ERROR_ZERO_RETURN;
    channel->cause = channel_tls_cause(error);
    (void)channel_tls_failure(error, system_error, doing, &channel->end);
    if (channel->verification.kind != RESULT_OK) {
        channel->end = channel->verification;
        channel->cause = CHANNEL_CAUSE_CERTIFICATE;
    }
    if (channel->state != HANDSHAKE || error != SSL_ERROR_SSL) {
        channel_over(channel);
        return;
    }
    /* libssl has sent an alert. To close on unread octets would be a reset, which may overtake it. */
    (void)shutdown(channel->fd, SHUT_WR);
    channel_enter(channel, DRAINING);
}

/* ---- Receiving. */

static void deliver(struct channel *channel)
{
    struct kssl_header header;
    struct bytes body;
    bool any = false;
    if (channel->state == FLUSHING)
        frame_input_clear(&channel->input);
    while (channel->state == OPEN && !channel->paused && frame_input_next(&channel->input, &header, &body)) {
        any = true;
        if (channel->handler->frame != NULL)
            channel->handler->frame(channel, &header, body, channel->owner);
    }
    if (any)
        channel->active = clock_now();
}

/* SSL_read gave nothing. */
static void read_stopped(struct channel *channel, int error, int system_error)
{
    channel->readable = false;
    frame_input_release(&channel->input);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        channel->read_waits = error == SSL_ERROR_WANT_READ ? EV_READ : EV_WRITE;
    } else if (error == SSL_ERROR_ZERO_RETURN && channel->chatter > CHANNEL_TLS_CHATTER_MAX) {
        (void)failure_set(&channel->end, RESULT_PROTOCOL, "the peer sends handshake messages and no data");
        channel->cause = CHANNEL_CAUSE_PROTOCOL;
        channel_over(channel);
    } else if (error == SSL_ERROR_ZERO_RETURN && channel->state == FLUSHING) {
        channel->read_waits = 0;
    } else if (error == SSL_ERROR_ZERO_RETURN && frame_input_amid(&channel->input)) {
        (void)failure_set(&channel->end, RESULT_PROTOCOL,
                          "the peer closed the connection in the middle of a frame");
        channel->cause = CHANNEL_CAUSE_CLOSED;
        channel_over(channel);
    } else {
        channel_fail(channel, error, system_error, "reading");
    }
}

static bool read_some(struct channel *channel, size_t *got)
{
    uint8_t *room;
    size_t size;
    if (!frame_input_room(&channel->input, &room, &size)) {
        (void)failure_set(&channel->end, RESULT_LIMIT, "no memory to read from the peer");
        channel_over(channel);
        return false;
    }
    ERR_clear_error();
    errno = 0;
    int outcome = SSL_read_ex(channel->ssl, room, size, got);
    int system_error = errno;
    if (outcome == 1) {
        channel->chatter = 0;
        frame_input_filled(&channel->input, *got);
    } else {
        read_stopped(channel, SSL_get_error(channel->ssl, outcome), system_error);
    }
    return outcome == 1;
}

void channel_receive(struct channel *channel)
{
    size_t spent = 0;
    bool more = true;
    for (;;) {
        deliver(channel);
        if (channel->state != FLUSHING && (channel->state != OPEN || channel->paused))
            return;
        if (!more || spent >= READ_BUDGET) {
            /* What is still in the socket will be told by its event; what libssl has read ahead will not. */
            channel->readable = SSL_has_pending(channel->ssl) == 1;
            frame_input_release(&channel->input);
            return;
        }
        size_t got = 0;
        if (!read_some(channel, &got))
            return;
        spent += got > READ_COST ? got : READ_COST;
        /* A short record with nothing behind it was probably the last: do not ask the kernel to say so. */
        more = got >= KSSL_RECORD_MAX / 2 || SSL_has_pending(channel->ssl) == 1;
    }
}

/* ---- Sending. */

/* The peer has reset the connection. What it said before, an
 * alert or close_notify, tells why; the reset does not. */
static void write_broke(struct channel *channel, int system_error)
{
    uint8_t dropped[1024];
    size_t got;
    int error = SSL_ERROR_NONE;
    for (size_t spent = 0; spent < READ_BUDGET && error == SSL_ERROR_NONE; spent += sizeof dropped) {
        ERR_clear_error();
        error = SSL_get_error(channel->ssl, SSL_read_ex(channel->ssl, dropped, sizeof dropped, &got));
    }
    OPENSSL_cleanse(dropped, sizeof dropped);
    if (error == SSL_ERROR_SSL || error == SSL_ERROR_ZERO_RETURN)
        channel_fail(channel, error, 0, "reading");
    else
        channel_fail(channel, SSL_ERROR_SYSCALL, system_error, "writing");
}

/* Hands the next chunk to libssl; false when it did not go out whole or in part. */
static bool write_chunk(struct channel *channel, size_t *sent)
{
    struct bytes chunk = frame_output_chunk(&channel->output);
    ERR_clear_error();
    errno = 0;
    int outcome = SSL_write_ex(channel->ssl, chunk.data, chunk.size, sent);
    int system_error = errno;
    if (outcome == 1) {
        frame_output_taken(&channel->output, *sent);
        return true;
    }
    int error = SSL_get_error(channel->ssl, outcome);
    if (error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ)
        channel->write_waits = error == SSL_ERROR_WANT_WRITE ? EV_WRITE : EV_READ;
    else if (error == SSL_ERROR_SYSCALL)
        write_broke(channel, system_error);
    else
        channel_fail(channel, error, system_error, "writing");
    return false;
}

void channel_transmit(struct channel *channel)
{
    size_t before = channel->output.size;
    size_t spent = 0;
    size_t sent = 0;
    channel->write_waits = 0;
    while (channel->output.size > 0 && spent < WRITE_BUDGET && write_chunk(channel, &sent))
        spent += sent;
    if (channel->state == CLOSED)
        return;
    if (channel->output.size > 0 && channel->write_waits == 0)
        channel->write_waits = EV_WRITE;
    if (channel->output.size < before)
        channel->active = clock_now();
    if (channel->output.size == 0)
        frame_output_release(&channel->output);
    if (channel->full && channel->output.size <= channel->limits.output_high / 2) {
        channel->full = false;
        if (channel->state == OPEN && channel->handler->drained != NULL)
            channel->handler->drained(channel, channel->owner);
    }
}

void channel_say_goodbye(struct channel *channel)
{
    ERR_clear_error();
    errno = 0;
    int outcome = SSL_shutdown(channel->ssl);
    int system_error = errno;
    if (outcome < 0) {
        int error = SSL_get_error(channel->ssl, outcome);
        if (error == SSL_ERROR_WANT_WRITE || error == SSL_ERROR_WANT_READ)
            channel->write_waits = error == SSL_ERROR_WANT_WRITE ? EV_WRITE : EV_READ;
        else
            channel_fail(channel, error, system_error, "closing");
        return;
    }
    (void)shutdown(channel->fd, SHUT_WR);
    channel_enter(channel, DRAINING);
}
