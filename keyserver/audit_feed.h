/*
 * The signer's side of the link to the auditor: hands each record on before the answer leaves, and keeps it
 * until the auditor says that it is written, so that one that is replaced misses none. Bounded: when there is
 * no room for the record of one more operation, that operation must not begin.
 */
#ifndef KEYLESS_KEYSERVER_AUDIT_FEED_H
#define KEYLESS_KEYSERVER_AUDIT_FEED_H

#include <stdbool.h>
#include <stddef.h>

#include <event2/event.h>

#include "common/log.h"
#include "common/metrics.h"
#include "keyserver/audit_record.h"

struct audit_feed;

/* Records that are kept, at most; what they take is some 200 octets each. */
#define AUDIT_FEED_MAX 32768

struct audit_feed_handler {
    void (*emptied)(void *owner); /* everything is written */
};

/* Everything is borrowed. NULL: no memory. */
struct audit_feed *audit_feed_new(struct event_base *base, struct log *log, struct metrics_row *metrics,
                                  const struct audit_feed_handler *handler, void *owner);
/* NULL is allowed. */
void audit_feed_free(struct audit_feed *feed);

/* A link to an auditor, owned from now on, in place of the one before: it is told all that is not written. */
void audit_feed_link(struct audit_feed *feed, int fd);

/* Whether there is room for the records of `begun` operations that are under way, and one more. */
bool audit_feed_has_room(const struct audit_feed *feed, size_t begun);

/* Hands a record on, and sets its number and time. False: without room, or memory, it is lost, told and
 * counted. */
MUST_CHECK bool audit_feed_add(struct audit_feed *feed, struct audit_record *record);

bool audit_feed_is_empty(const struct audit_feed *feed);

#endif
