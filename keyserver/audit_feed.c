#include "keyserver/audit_feed.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "keyserver/keyserver_metrics.h"
#include "keyserver/signer_link.h"

struct kept_record {
    STAILQ_ENTRY(kept_record) next;
    uint64_t number;
    size_t size;
    uint8_t message[]; /* as sent */
};

struct audit_feed {
    struct event_base *base;
    struct log *log;
    struct metrics_row *metrics;
    const struct audit_feed_handler *handler;
    void *owner;
    struct signer_link *link;           /* NULL: there is no auditor */
    STAILQ_HEAD(, kept_record) records; /* oldest first */
    size_t count;
    uint64_t
        last; /* number of the newest; counted from the time of the start, so that no two signers share one */
};

/* A link that takes no more is about to be told of as closed; what was not written is told to the next one.
 */
static void tell(struct audit_feed *feed, const struct kept_record *record)
{
    if (feed->link != NULL && !signer_link_send(feed->link, bytes_of(record->message, record->size)))
        log_error(feed->log, "audit record waits", log_reason("no memory to hand it on"));
}

static void forget_first(struct audit_feed *feed)
{
    struct kept_record *record = STAILQ_FIRST(&feed->records);
    STAILQ_REMOVE_HEAD(&feed->records, next);
    free(record);
    feed->count--;
    metric_change(feed->metrics, KEYSERVER_AUDIT_PENDING, -1);
}

static bool on_message(uint8_t type, struct bytes body, void *owner)
{
    struct audit_feed *feed = owner;
    uint64_t number;
    if (type != AUDIT_WRITTEN || !audit_written_parse(body, &number) || number > feed->last)
        return false;
    while (feed->count > 0 && STAILQ_FIRST(&feed->records)->number <= number)
        forget_first(feed);
    if (feed->count == 0)
        feed->handler->emptied(feed->owner);
    return true;
}

static void on_closed(const struct failure *why, void *owner)
{
    struct audit_feed *feed = owner;
    feed->link = NULL;
    log_warn(feed->log, "auditor gone", log_number("records", (int64_t)feed->count), log_reason(why->text));
}

static const struct signer_link_handler LINK_HANDLER = {.message = on_message, .closed = on_closed};

static uint64_t unix_microseconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

struct audit_feed *audit_feed_new(struct event_base *base, struct log *log, struct metrics_row *metrics,
                                  const struct audit_feed_handler *handler, void *owner)
{
    struct audit_feed *feed = calloc(1, sizeof *feed);
    if (feed == NULL)
        return NULL;
    *feed = (struct audit_feed){.base = base,
                                .log = log,
                                .metrics = metrics,
                                .handler = handler,
                                .owner = owner,
                                .last = unix_microseconds()};
    STAILQ_INIT(&feed->records);
    return feed;
}

static void tell_lost(const struct audit_feed *feed, size_t count, const char *reason)
{
    metric_add(feed->metrics, KEYSERVER_AUDIT_LOST, count);
    log_error(feed->log, "audit records lost", log_number("records", (int64_t)count), log_reason(reason));
}

void audit_feed_free(struct audit_feed *feed)
{
    if (feed == NULL)
        return;
    if (feed->count > 0)
        tell_lost(feed, feed->count, "the signer ends before they are written");
    signer_link_close(feed->link);
    while (feed->count > 0)
        forget_first(feed);
    free(feed);
}

void audit_feed_link(struct audit_feed *feed, int fd)
{
    const struct kept_record *record;
    signer_link_close(feed->link);
    feed->link = signer_link_new(feed->base, fd, 0, &LINK_HANDLER, feed);
    if (feed->link == NULL) {
        log_error(feed->log, "auditor gone", log_reason("no memory for the link to it"));
        return;
    }
    STAILQ_FOREACH(record, &feed->records, next)
    {
        tell(feed, record);
    }
}

bool audit_feed_has_room(const struct audit_feed *feed, size_t begun)
{
    return begun < AUDIT_FEED_MAX && feed->count < AUDIT_FEED_MAX - begun;
}

static struct kept_record *keep(struct audit_feed *feed, const struct audit_record *record)
{
    uint8_t message[AUDIT_MESSAGE_MAX];
    struct writer to = writer_of(message, sizeof message);
    audit_record_write(&to, record);
    struct kept_record *kept = writer_ok(&to) ? malloc(sizeof *kept + to.size) : NULL;
    if (kept == NULL)
        return NULL;
    kept->number = record->number;
    kept->size = to.size;
    memcpy(kept->message, message, to.size);
    STAILQ_INSERT_TAIL(&feed->records, kept, next);
    feed->count++;
    metric_change(feed->metrics, KEYSERVER_AUDIT_PENDING, 1);
    return kept;
}

bool audit_feed_add(struct audit_feed *feed, struct audit_record *record)
{
    record->number = ++feed->last;
    record->time = unix_microseconds();
    const struct kept_record *kept = feed->count < AUDIT_FEED_MAX ? keep(feed, record) : NULL;
    if (kept != NULL)
        tell(feed, kept);
    else
        tell_lost(feed, 1, "the auditor does not keep up");
    return kept != NULL;
}

bool audit_feed_is_empty(const struct audit_feed *feed)
{
    return feed->count == 0;
}
