/*
 * One end of a link between a front end and the signer: whole messages of signer_protocol over a stream
 * socket, on an event loop. Messages sent in one turn of the loop leave together.
 *
 * The other end is a process that may have been taken over: what it sends is bounded and parsed, and the
 * worst it can do is to lose its link. Freeing inside a callback is legal.
 */
#ifndef KEYLESS_KEYSERVER_SIGNER_LINK_H
#define KEYLESS_KEYSERVER_SIGNER_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <event2/event.h>

#include "common/bytes.h"
#include "common/result.h"

struct signer_link;

struct signer_link_handler {
    /* A message; body is valid during the call. False: it makes no sense, and the link is to be closed. */
    bool (*message)(uint8_t type, struct bytes body, void *owner);
    /* The other end has gone, or is cut off; the link frees itself afterwards. RESULT_OK: it closed in good
     * order. */
    void (*closed)(const struct failure *why, void *owner);
};

/* fd is owned from now on, even when NULL (no memory) is returned. output_high, if not 0: with more octets
 * than that waiting to be taken by the other end, nothing is read from it. Handler and base are borrowed. */
struct signer_link *signer_link_new(struct event_base *base, int fd, size_t output_high,
                                    const struct signer_link_handler *handler, void *owner);

/* At once; no callback follows. NULL is allowed. */
void signer_link_close(struct signer_link *link);

/* Queues one whole message, header included. False: no memory; the link is then as good as dead. */
MUST_CHECK bool signer_link_send(struct signer_link *link, struct bytes message);
size_t signer_link_queued(const struct signer_link *link);

#endif
