/*
 * The key servers as one worker sees them, and which of them is asked next.
 *
 * Of those that can take a request the best grade is asked: that is not known to lack the key, nor to be in
 * trouble, and has the lowest priority number; among several of one grade, of two taken by chance the one
 * with clearly less to do. One that says that it is overloaded goes behind those of all priorities, as often
 * as its weight has been cut, and for what another has answered badly always. Trouble is: a breaker that is
 * open (too many failures in a row; after a while a ping half-opens it), a wrong signature (until a right
 * one: now and then it is asked first, and its answer verified), an answer that is late at this moment.
 */
#ifndef KEYLESS_PROXY_KEY_POOL_H
#define KEYLESS_PROXY_KEY_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "proxy/config.h"
#include "proxy/key_latency.h"
#include "proxy/key_link.h"
#include "proxy/key_map.h"

/*
 *   CLOSED ── failures in a row ──▶ OPEN ── it answers something; a pause ──▶ HALF ── success ──▶ CLOSED
 *                                     ▲                                       │
 *                                     └── failure: the next pause is longer ──┘
 */
enum key_breaker { KEY_BREAKER_CLOSED, KEY_BREAKER_HALF, KEY_BREAKER_OPEN };

struct key_slot;

/* A request that was sent to one server. */
struct key_attempt {
    struct key_slot *slot;
    struct key_server *server; /* NULL: this place is free */
    uint64_t sent;
    bool is_hedge;
    bool overdue; /* another server is asked instead; its answer is taken all the same */
    TAILQ_ENTRY(key_attempt) by_sent;
};

TAILQ_HEAD(key_attempt_list, key_attempt);

/* What a weight of 1 is, so that a name's can be shared by its addresses. */
#define KEY_POOL_WEIGHT_UNIT 128u

struct key_server {
    const struct proxy_key_server *config; /* NULL: this place is free */
    struct key_link *link;
    size_t number;
    size_t entry;                /* of the configuration */
    struct proxy_key_server own; /* what config is for one of a name's addresses: the entry, at the address */
    unsigned rank;               /* by the priorities of SRV records, within the entry's */
    unsigned weight;
    bool gone;      /* the name no longer has the address */
    bool leaving;   /* it is asked no more */
    uint32_t trust; /* another number after each reconnect and each failure: signature_check.h */
    struct key_map *keys;
    struct key_latency latency;

    struct key_attempt_list sent;   /* without an answer, oldest first */
    struct key_attempt *next_hedge; /* the first that was not looked at yet; NULL: all were */
    struct key_attempt *next_overdue;

    enum key_breaker breaker;
    unsigned failures; /* in a row */
    bool heard;        /* since the breaker opened */
    uint64_t retry, retry_pause;
    bool lied;
    uint64_t recheck, recheck_pause; /* when it may show that it no longer does */
    unsigned share; /* of its weight, in 1024ths: halved when it says that it is overloaded */
    uint64_t share_at;
};

struct key_pool {
    struct key_server *servers; /* first those that need no name */
    size_t count;               /* places */
    uint64_t hedge;             /* as configured */
    struct log *log;
};

MUST_CHECK enum result key_pool_new(const struct proxy_config *config, struct log *log, struct key_pool *pool,
                                    struct failure *why);
void key_pool_free(struct key_pool *pool);

/* One more, at one of the addresses of an entry's name. Without a link; NULL: there is no place. */
struct key_server *key_pool_take(struct key_pool *pool, const struct proxy_key_server *entry, size_t number,
                                 const struct address *address);
/* Nothing is asked of it any more. Its link ends. */
void key_pool_return(struct key_server *server);
/* Whether nobody is left, now or later, who may do what these (a bit each by number) have refused: addresses
 * of one name are as good as each other, so that one of them that is down is not waited for. */
bool key_pool_all_refused(const struct key_pool *pool, uint32_t refused);

/* What is to be asked. */
struct key_wish {
    const uint8_t *ski;
    uint32_t without; /* servers that are not to be asked, a bit each by number */
    unsigned in_flight_max;
    bool first; /* nobody was asked yet */
    bool hedge; /* somebody was, and may still answer: none is asked of whom something bad is known but that
                   it is late, which all may be for a moment */
};

/* NULL: none can take it now. */
struct key_server *key_pool_choose(struct key_pool *pool, const struct key_wish *wish, uint64_t now);
/* Those that can take a request, a bit each. */
uint32_t key_pool_room(const struct key_pool *pool, unsigned in_flight_max);
bool key_pool_any_up(const struct key_pool *pool);
/* Whether one is up for it of which nothing bad is known. */
bool key_pool_has_fine(struct key_pool *pool, const struct key_wish *wish, uint64_t now);
/* Whether each link is up, or has failed to come up once. */
bool key_pool_all_tried(const struct key_pool *pool);
struct key_server *key_pool_of(struct key_pool *pool, const struct key_link *link);

/* After which an answer of the server is late; UINT64_MAX: never. */
uint64_t key_pool_late_after(const struct key_pool *pool, const struct key_server *server);

/* ---- What becomes of attempts. */

void key_server_sent(struct key_server *server, struct key_attempt *attempt, uint64_t now);
/* It is off the list: answered, lost or given up. */
void key_server_unsent(struct key_server *server, struct key_attempt *attempt);

/* It has answered with something good; or not at all, or with what shows that something is wrong with it. */
void key_pool_good(struct key_pool *pool, struct key_server *server);
void key_pool_bad(struct key_pool *pool, struct key_server *server, const char *reason, uint64_t now);
/* Anything has come from it. */
void key_pool_heard(struct key_server *server);
/* Its signature was wrong; or right, although it had lied before. */
void key_pool_lied(struct key_server *server, uint64_t now);
void key_pool_told_truth(struct key_pool *pool, struct key_server *server);
/* It says that it has too much to do. */
void key_pool_overloaded(struct key_server *server, uint64_t now);
/* Its channel is lost. */
void key_pool_down(struct key_server *server);

#endif
