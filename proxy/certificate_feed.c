#include "proxy/certificate_feed.h"

#include <stdlib.h>

#include "common/socket.h"
#include "proxy/certificate_handover.h"

/* Some 100 us each; clients wait meanwhile. */
#define CHAINS_AT_ONCE 8

struct batch {
    struct batch *next;
    struct certificate_handover handover;
};

struct certificate_feed {
    const struct proxy_config *config;
    struct certificates *certificates;
    struct log *log;
    struct event *turn;
    struct batch *first, **end;
};

static void on_turn(evutil_socket_t fd, short what, void *owner);

struct certificate_feed *certificate_feed_new(struct event_base *base, const struct proxy_config *config,
                                              struct certificates *certificates, struct log *log)
{
    struct certificate_feed *feed = calloc(1, sizeof *feed);
    if (feed == NULL)
        return NULL;
    *feed = (struct certificate_feed){
        .config = config, .certificates = certificates, .log = log, .end = &feed->first};
    feed->turn = evtimer_new(base, on_turn, feed);
    if (feed->turn != NULL)
        return feed;
    free(feed);
    return NULL;
}

static void first_done(struct certificate_feed *feed)
{
    struct batch *batch = feed->first;
    feed->first = batch->next;
    if (feed->first == NULL)
        feed->end = &feed->first;
    certificate_handover_close(&batch->handover);
    free(batch);
}

void certificate_feed_free(struct certificate_feed *feed)
{
    if (feed == NULL)
        return;
    while (feed->first != NULL)
        first_done(feed);
    event_free(feed->turn);
    free(feed);
}

static void tell_failure(const struct certificate_feed *feed, const struct failure *why)
{
    log_error(feed->log, "renewed certificate not taken", log_reason(why->text));
}

static void put(const struct certificate_feed *feed, struct certificate *certificate)
{
    log_debug(feed->log, "renewed certificate taken", log_text("file", certificate->path));
    if (!certificates_put(feed->certificates, certificate->index, certificate))
        log_error(feed->log, "renewed certificate not taken", log_reason("no memory for its names"));
}

/* False: the first batch is used up. */
static bool put_one(const struct certificate_feed *feed)
{
    struct certificate *certificate;
    struct failure why;
    enum result result = certificate_handover_next(
        &feed->first->handover, feed->config, certificates_parser(feed->certificates), &certificate, &why);
    if (result == RESULT_OK)
        put(feed, certificate);
    else if (result != RESULT_AGAIN)
        tell_failure(feed, &why);
    return result == RESULT_OK;
}

static void go_on_later(const struct certificate_feed *feed)
{
    const struct timeval now = {0};
    if (feed->first != NULL)
        (void)event_add(feed->turn, &now);
}

static void on_turn(evutil_socket_t fd, short what, void *owner)
{
    struct certificate_feed *feed = owner;
    (void)fd;
    (void)what;
    for (unsigned i = 0; i < CHAINS_AT_ONCE && feed->first != NULL; i++)
        if (!put_one(feed))
            first_done(feed);
    go_on_later(feed);
}

void certificate_feed_take(struct certificate_feed *feed, int fd)
{
    struct failure why;
    struct batch *batch = calloc(1, sizeof *batch);
    enum result result = batch != NULL ? certificate_handover_open(fd, &batch->handover, &why)
                                       : failure_set_errno(&why, "chains handed over");
    socket_close(&fd);
    if (result != RESULT_OK) {
        tell_failure(feed, &why);
        free(batch);
        return;
    }
    *feed->end = batch;
    feed->end = &batch->next;
    go_on_later(feed);
}
