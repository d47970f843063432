/*
 * What a channel is made of, for the files that are its parts and no others: channel.c (states, events, the
 * interface), channel_io.c (moving frames, ending) and channel_time.c (deadlines).
 */
#ifndef KEYLESS_COMMON_CHANNEL_STATE_H
#define KEYLESS_COMMON_CHANNEL_STATE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <event2/event_struct.h>
#include <openssl/ssl.h>

#include "common/channel.h"
#include "common/frame_input.h"
#include "common/frame_output.h"

enum channel_state { CONNECTING, HANDSHAKE, OPEN, FLUSHING, DRAINING, CLOSED };

struct channel {
    enum channel_state state;
    enum channel_state timed; /* the state for which the timer is set */
    int fd;
    SSL *ssl;
    const struct channel_handler *handler;
    void *owner;
    struct channel_limits limits;
    struct address peer;
    X509 *certificate; /* the peer's; there once OPEN has been reached */
    time_t valid_until;

    bool held;         /* a callback of ours is running: who closes must not free */
    bool paused;       /* by the owner */
    bool broken;       /* a TLS call failed for good: no other may follow */
    bool readable;     /* libssl or the input may have something that no event will tell of */
    bool full;         /* the output went above output_high and has not been drained yet */
    bool flush_due;    /* the flush event is active */
    short read_waits;  /* for which event the next SSL_read (or SSL_do_handshake) waits */
    short write_waits; /* the same for SSL_write; 0 while it is not blocked */
    unsigned chatter;  /* handshake messages since data last came */
    short watched;     /* which of the two socket events are added */
    uint64_t since;    /* when the state began (HANDSHAKE: CONNECTING) */
    uint64_t active;   /* when a frame came or the peer took octets */

    struct event on_read, on_write;
    struct event
        on_flush; /* active from the first frame queued in a turn; runs after what was active before */
    struct event on_again; /* the next turn, for what no socket event tells of */
    struct event on_time;

    struct frame_input input;
    struct frame_output output;
    struct failure verification; /* filled by the TLS side when the peer's certificate is refused */
    struct failure end;          /* why it is over, or will be */
    enum channel_cause cause;    /* the kind of it */
};

/* ---- channel_io.c */

void channel_enter(struct channel *channel, enum channel_state state);

/* Reads and delivers until there is nothing more, the owner pauses, or others are to have their turn. */
void channel_receive(struct channel *channel);
/* Writes until all is sent, the peer takes no more, or others are to have their turn. */
void channel_transmit(struct channel *channel);
/* All is sent: sends close_notify and closes our direction. */
void channel_say_goodbye(struct channel *channel);

/* From any state to CLOSED. */
void channel_stop(struct channel *channel);
/* The same, and the owner is told the reason, channel->end. */
void channel_over(struct channel *channel);
/* A TLS call failed for good, as SSL_get_error and errno say. */
void channel_fail(struct channel *channel, int error, int system_error, const char *doing);
void channel_free(struct channel *channel);

/* ---- channel_time.c */

/* Sets the timer for what the state must not outlast. False: the event loop takes no more. */
MUST_CHECK bool channel_time_set(struct channel *channel);
/* Whether the state has lasted too long; channel->end then says so. */
MUST_CHECK bool channel_time_is_up(struct channel *channel);

#endif
