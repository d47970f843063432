/*
 * The child's side of renewed certificates: takes what the master hands over and puts it into the child's own
 * table, a few chains in each turn of the event loop, in the order in which they came.
 */
#ifndef KEYLESS_PROXY_CERTIFICATE_FEED_H
#define KEYLESS_PROXY_CERTIFICATE_FEED_H

#include <event2/event.h>

#include "common/log.h"
#include "proxy/certificates.h"

struct certificate_feed;

/* All are borrowed. NULL: no memory. */
struct certificate_feed *certificate_feed_new(struct event_base *base, const struct proxy_config *config,
                                              struct certificates *certificates, struct log *log);
void certificate_feed_free(struct certificate_feed *feed);

/* fd is taken over. */
void certificate_feed_take(struct certificate_feed *feed, int fd);

#endif
