/*
 * What one socket is watched for. The owner computes what it wants from its own state and sets it; setting
 * what is set already costs nothing.
 */
#ifndef KEYLESS_PROXY_WATCH_H
#define KEYLESS_PROXY_WATCH_H

#include <event2/event.h>
#include <event2/event_struct.h>

struct watch {
    struct event in, out;
    void (*ready)(short events, void *owner);
    void *owner;
    struct event_base *base;
    int fd;
    short events;
};

/* ready is called with what has come; it may free the watch's owner. fd is borrowed. */
void watch_init(struct watch *watch, struct event_base *base, int fd,
                void (*ready)(short events, void *owner), void *owner);

/*
 * EV_READ and EV_WRITE, as long as the socket is ready for either; or EV_CLOSED alone, to see the peer leave
 * while nothing is read: `ready` then gets EV_CLOSED once when the peer has ended its side, and EV_READ when
 * more bytes have come or the connection was reset (socket_error tells which). Bytes that stay unread cost
 * no further call. Or 0.
 */
void watch_set(struct watch *watch, short events);

#endif
