#include "proxy/watch.h"

static void watch_event(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    struct watch *watch = context;
    watch->ready((short)(what & (EV_READ | EV_WRITE | EV_CLOSED)), watch->owner);
}

void watch_init(struct watch *watch, struct event_base *base, int fd,
                void (*ready)(short events, void *owner), void *owner)
{
    *watch = (struct watch){.ready = ready, .owner = owner, .base = base, .fd = fd};
    (void)event_assign(&watch->in, base, fd, EV_READ | EV_PERSIST, watch_event, watch);
    (void)event_assign(&watch->out, base, fd, EV_WRITE | EV_PERSIST, watch_event, watch);
}

/*
 * With EV_CLOSED alone libevent would never hear of a reset (epoll reports it as EPOLLERR, which libevent
 * takes for readable and writable) and spin. So reading is watched too, edge-triggered, so that what a client
 * sends too early is told of once and then left alone.
 */
static void watch_set_in(struct watch *watch, short events)
{
    short flags = events & EV_CLOSED ? EV_READ | EV_CLOSED | EV_ET | EV_PERSIST : EV_READ | EV_PERSIST;
    (void)event_del(&watch->in);
    if ((events & (EV_READ | EV_CLOSED)) == 0)
        return;
    (void)event_assign(&watch->in, watch->base, watch->fd, flags, watch_event, watch);
    (void)event_add(&watch->in, NULL);
}

static void watch_set_out(struct watch *watch, short events)
{
    if (events & EV_WRITE)
        (void)event_add(&watch->out, NULL);
    else
        (void)event_del(&watch->out);
}

void watch_set(struct watch *watch, short events)
{
    short changed = (short)(events ^ watch->events);
    if (changed == 0)
        return;
    watch->events = events;
    /* libevent refuses edge- and level-triggered events on one socket: out goes before in turns. */
    if (!(events & EV_WRITE) && changed & EV_WRITE)
        watch_set_out(watch, events);
    if (changed & (EV_READ | EV_CLOSED))
        watch_set_in(watch, events);
    if (events & EV_WRITE && changed & EV_WRITE)
        watch_set_out(watch, events);
}
