/*
 * One key server as one worker sees it: a channel that is kept up, greeted (operation 0x60), pinged, and made
 * again when it is lost.
 *
 *        ┌───────────── backoff: 0 .. 800 ms, longer and longer, jittered ◀──────┐
 *        ▼                                                                      │
 *      DOWN ──▶ CONNECTING ──▶ HELLO ──▶ UP ──────── lost, silent, closed ───────┤
 *                   └────────────┴── refused, timeout, not a key server ────────┘
 *
 * What is asked over it is the owner's business; ids 0xFFFF.... are the link's own.
 */
#ifndef KEYLESS_PROXY_KEY_LINK_H
#define KEYLESS_PROXY_KEY_LINK_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/kssl.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"
#include "proxy/config.h"
#include "proxy/worker_status.h"

#define KEY_LINK_OWN_IDS 0xFFFF0000u

struct key_link;

/* Answers that nobody waits for. */
enum key_stray {
    KEY_STRAY_LATE,      /* whoever waited has gone */
    KEY_STRAY_SECOND,    /* the request was answered before */
    KEY_STRAY_NOT_ASKED, /* there was no such request */
};

/* Called from the event loop only, never from within key_link_send. */
struct key_link_handler {
    void (*up)(struct key_link *link, void *owner);
    void (*down)(struct key_link *link, void *owner); /* it was up; what was asked over it is lost */
    /* It could not come up, for the first time. NULL: nobody wants to know. */
    void (*failed)(struct key_link *link, void *owner);
    void (*answer)(struct key_link *link, uint32_t id, const struct kssl_message *message, void *owner);
    /* To key_link_ask_ticket_keys; an answer to a question whose channel was lost never comes. */
    void (*ticket_keys)(struct key_link *link, const struct kssl_message *message, void *owner);
    void (*writable)(struct key_link *link, void *owner); /* key_link_full has ended */
    void (*alive)(struct key_link *link,
                  void *owner); /* it has answered a ping. NULL: nobody wants to know */
    /* A page of the keys that it has for us (operation 0x67), which is asked for when the channel is up and
     * then every so often: after is set to the last one, more if others follow. False: it does not parse.
     * NULL: nobody wants them. */
    bool (*keys)(struct key_link *link, struct bytes page, bool first, uint8_t after[static KEY_ID_SKI_SIZE],
                 bool *more, void *owner);
};

struct key_link_settings {
    struct event_base *base;
    SSL_CTX *context;                      /* the channel's; borrowed */
    const struct proxy_key_server *server; /* borrowed */
    uint64_t timeout;                      /* microseconds for connecting, for the hello, for a ping */
    uint64_t idle;                         /* microseconds of silence after which a ping is sent */
    uint64_t list_every;                   /* microseconds after which its keys are asked for again */
    struct log *log;
    struct metrics_row *metrics;
};

/* Starts to connect at the next turn of the loop. */
MUST_CHECK enum result key_link_new(const struct key_link_settings *settings,
                                    const struct key_link_handler *handler, void *owner,
                                    struct key_link **link, struct failure *why);
/* Calls nothing back. NULL is allowed. */
void key_link_free(struct key_link *link);

/* NULL is none that is up, here and in the next. */
bool key_link_up(const struct key_link *link);
/* Whether its hello listed the operation; false when not up. */
bool key_link_offers(const struct key_link *link, uint8_t opcode);
/* Whether it is up, or has shown that it may not be soon. NULL is. */
bool key_link_tried(const struct key_link *link);
bool key_link_full(const struct key_link *link);
const char *key_link_name(const struct key_link *link);
size_t key_link_metric_value(const struct key_link *link); /* what to count under */

/* Sends a request, which counts as asked until key_link_settle or the loss of the channel. */
MUST_CHECK enum result key_link_send(struct key_link *link, struct bytes frame);
/* Asks for ticket keys, beside what key_link_send has asked; an answer to an earlier such question is no
 * longer waited for. False: it cannot be sent. */
MUST_CHECK bool key_link_ask_ticket_keys(struct key_link *link);
/* Asks whether it is alive, at the next turn of the loop: if that fails, down is called from there. */
void key_link_probe(struct key_link *link);
/* Asks how quick it is, if nothing is on its way and the last answer is more than a second old: who was slow
 * is asked for nothing, and could not show otherwise. Never ends the channel itself. */
void key_link_measure(struct key_link *link);
/* One request will not be waited for any longer. */
void key_link_settle(struct key_link *link);
/* One request was answered, so many microseconds after it was sent. A key server that answers is of use, even
 * if it ends the channel after each answer: the next one is made at once. */
void key_link_answered(struct key_link *link, uint64_t took);
unsigned key_link_asked(const struct key_link *link);
/* An answer came to which there is no request: it is counted, and if it cannot even be a late one the log
 * says so, because then the key server is broken or answers somebody else. */
void key_link_stray(struct key_link *link, uint32_t id, enum key_stray what);
/* What answers take, the hello's and pings' included, in microseconds, smoothed over about the last eight; 0:
 * there was none yet. */
uint64_t key_link_latency(const struct key_link *link);

/* How long to wait before that attempt in a row, the first being 1, in microseconds; chance: any number. The
 * first comes at once, as most often the key server was restarted, but not all in the same moment: a thousand
 * of these may have lost it together. Later ones are farther apart, and spread wider. */
uint64_t key_link_backoff(unsigned attempts, uint32_t chance);

void key_link_status(const struct key_link *link, struct key_server_status *status);

#endif
