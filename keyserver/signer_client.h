/*
 * A front end's side of the link to the signer: what is asked and not yet answered.
 *
 * When the signer goes, what it has not answered is kept and asked again of its replacement; only what has
 * waited too long is given up. A call's handle on the wire is a slot and a generation: an answer that comes
 * late or twice finds another generation there, or another link than it was asked on, and is dropped.
 */
#ifndef KEYLESS_KEYSERVER_SIGNER_CLIENT_H
#define KEYLESS_KEYSERVER_SIGNER_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <event2/event.h>

#include "common/log.h"
#include "common/metrics.h"
#include "keyserver/key_table.h"
#include "keyserver/sign_request.h"
#include "keyserver/signer_protocol.h"

struct signer_client;
struct signer_connection;

/* One signature wanted; embedded in an object of the asker's. */
struct signer_call {
    /* Once, unless the call is cancelled; the call is the asker's again before it is called. */
    void (*answered)(struct signer_call *call, const struct signer_reply *reply);

    /* The client's. */
    TAILQ_ENTRY(signer_call) by_age; /* once asked */
    uint32_t slot;
    bool asked;
    struct signer_connection *asked_on; /* NULL: waits for a signer */
    uint64_t give_up;                   /* clock_now */
    uint8_t *message;                   /* as sent, to send it again */
    size_t message_size;
};

struct signer_client_handler {
    /* A signer is there, with these keys, which are the callee's from now on: at first and whenever the
     * signer was replaced. False: they cannot be used, and neither can that signer. */
    bool (*keys)(struct key_table *keys, void *owner);
    /* There was a signer, and has been none for a long time. */
    void (*lost)(void *owner);
};

struct signer_client_settings {
    uint64_t give_up; /* microseconds after which a call is answered KSSL_ERROR_INTERNAL */
    uint64_t lost;    /* microseconds without a signer until `lost` */
};

/* Everything is borrowed. NULL: no memory. */
struct signer_client *signer_client_new(struct event_base *base,
                                        const struct signer_client_settings *settings, struct log *log,
                                        struct metrics_row *metrics,
                                        const struct signer_client_handler *handler, void *owner);
/* No call may be left. */
void signer_client_free(struct signer_client *client);

/* A link to a signer, owned from now on; the one before leads to one that is dead or about to end. */
void signer_client_link(struct signer_client *client, int fd);

/* Makes a call of the request, whose handle it sets; nothing is borrowed. False: no memory, and nothing was
 * done. */
MUST_CHECK bool signer_client_prepare(struct signer_client *client, struct sign_request *request,
                                      struct signer_call *call);
/* Sends a call that is prepared; its time runs from here. `answered` is never called from within. */
void signer_client_ask(struct signer_client *client, struct signer_call *call);
/* Nobody waits for the answer any more, whether it was asked for yet or not; what the signer has not begun it
 * will not sign. */
void signer_client_cancel(struct signer_client *client, struct signer_call *call);

/* Octets kept for a call of this request until it is answered. */
size_t signer_client_cost(const struct sign_request *request);

#endif
