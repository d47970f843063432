/*
 * What the files of the key client share:
 *
 *   key_client.c    operations: their slots, how they begin and end
 *   key_attempts.c  asking for them: whom, whom else, what came back
 *   key_deadlines.c when another is asked as well, and when it is too late
 *   key_pool.c      the key servers, and the choice among them
 *   key_members.c   those that come and go, as names have other addresses
 */
#ifndef KEYLESS_PROXY_KEY_CLIENT_PRIVATE_H
#define KEYLESS_PROXY_KEY_CLIENT_PRIVATE_H

#include <sys/queue.h>

#include "common/log_tally.h"
#include "proxy/key_answer.h"
#include "proxy/key_budget.h"
#include "proxy/key_client.h"
#include "proxy/key_members.h"
#include "proxy/key_pool.h"
#include "proxy/key_request.h"

/* One for what is asked first, and for each that is asked because of it. */
#define ATTEMPTS_MAX 4

/*
 *  FREE ──▶ WAITING ──▶ ASKED ──▶ FREE           answered, or out of time
 *              ▲          │ └──▶ ORPHAN ──▶ FREE  it has ended, but some server has not answered yet
 *              └──────────┘ nobody has it any more, or only servers whose answers are overdue
 */
enum key_slot_state { SLOT_FREE, SLOT_WAITING, SLOT_ASKED, SLOT_ORPHAN };

struct key_slot {
    enum key_slot_state state;
    uint16_t number;
    uint32_t generation; /* its low half is on the wire */
    uint64_t answered;   /* a bit for each of the last generations, the lowest for this one */
    size_t server_value; /* what it is counted under: the key server that it was sent to last; 0: none */
    uint64_t started;
    struct key_operation *operation; /* NULL: free or orphan */
    TAILQ_ENTRY(key_slot) by_age;    /* all but free ones, oldest first: all have the same time to live */
    TAILQ_ENTRY(key_slot) waiting;   /* to be sent, oldest first; or free */
    struct key_attempt attempts[ATTEMPTS_MAX];
    unsigned asked;   /* servers, all in all */
    uint32_t refused; /* servers that cannot do it, or have answered: a bit each */
    bool overloaded;  /* a server was: one other is asked, no more */
    bool final; /* a server has said what no other is to be asked after, or none may be asked any more */
    struct key_answer failed; /* what the last of those said */
    enum proxy_key_mode mode; /* that `request` was made for */
    struct key_request request;
    const char *unmade; /* why `request` could not be made for that mode; NULL: it was */
};

TAILQ_HEAD(key_slot_list, key_slot);

struct key_client {
    struct event_base *base;
    struct log *log;
    struct metrics_row *metrics;
    uint64_t timeout, attempt_timeout, fail_fast;
    enum proxy_key_verify verify;
    bool hedges;
    unsigned in_flight_max; /* on the wire to one server */
    unsigned live_max;      /* operations, asked or waiting */

    SSL_CTX *channel_context;               /* borrowed */
    const struct proxy_key_server *entries; /* of the configuration; borrowed */
    size_t entry_count;
    size_t members_most;               /* of one name */
    const struct endpoints *endpoints; /* NULL: nobody finds any */
    const size_t *places;              /* one for each entry */
    uint64_t versions[PROXY_KEY_SERVERS_MAX];

    struct key_pool pool;
    struct key_budget hedge_budget, retry_budget, move_budget;
    uint64_t down_since;         /* no server can be reached since then; 0: some can */
    struct log_tally down_tally; /* of those that failed for it */

    struct key_slot *slots; /* live_max, what may be on the wire beside, and TESTS_MAX */
    unsigned slot_count, slots_used;
    struct key_slot_list by_age, waiting, unused;
    unsigned live;
    struct event *timer;
    uint64_t timer_due; /* 0: not set */

    uint32_t id_prefix, id_count; /* of request ids */
    uint8_t *frame;               /* where each is put together before the channel takes it */
    size_t frame_size;

    void (*ready)(void *owner); /* NULL: nobody waits to be told */
    void *ready_owner;
    struct event *warm; /* pending: the first channel is up, the others get a moment */

    const struct key_client_ticket_handler *tickets; /* NULL: nobody wants them */
    void *tickets_owner;
    size_t tickets_next; /* whom to ask first */
};

/* ---- key_client.c */

extern const struct key_answer key_answer_no_server;

void key_slot_release(struct key_client *client, struct key_slot *slot);
struct key_slot *key_slot_find(struct key_client *client, uint32_t id);
uint32_t key_slot_id(const struct key_slot *slot);
/* What an answer is to which key_slot_find has no request. */
enum key_stray key_slot_stray(const struct key_client *client, uint32_t id);
/* The operation has ended so: its owner is told, which may do anything. The slot is free, or an orphan. */
void key_slot_complete(struct key_client *client, struct key_slot *slot, const struct key_answer *answer);
bool key_slot_is_asked(const struct key_slot *slot);

/* A channel has come up, or could not. */
void key_client_check_ready(struct key_client *client);

/* ---- key_attempts.c */

extern const struct key_link_handler key_attempts_handler; /* its owner is the client */

/* Whether there is nobody left to ask: none has the operation, or all have refused. */
bool key_attempts_all_refused(const struct key_client *client, const struct key_slot *slot);
/* A new one is sent, if nobody who could be waits before it; nobody's done is called. */
void key_attempts_begin(struct key_client *client, struct key_slot *slot);
/* Takes what is on its way off all lists: nobody waits for it. */
void key_attempts_forget(struct key_slot *slot);
void key_attempts_send_waiting(struct key_client *client);
/* False: it went to nobody, and is where it was. */
bool key_attempts_start(struct key_client *client, struct key_slot *slot);
/* The same, while another may still answer: to nobody in trouble. */
bool key_attempts_hedge(struct key_client *client, struct key_slot *slot);
/* It is among those that wait for a server. */
void key_attempts_wait(struct key_client *client, struct key_slot *slot);
/* Whether some server may still answer in time. */
bool key_attempts_expected(const struct key_slot *slot);
/* Counts under the server it was at that a request goes elsewhere. */
void key_attempts_count(struct key_client *client, const struct key_slot *slot,
                        const struct key_server *server, size_t metric);
/* What it was asked somebody else is asked now; its place is free. */
void key_attempts_leave(struct key_client *client, struct key_server *server);

/* ---- key_deadlines.c */

/* Sets the timer to what is due next. */
void key_attempts_arm(struct key_client *client);
void key_attempts_on_timer(evutil_socket_t fd, short events, void *client);

#endif
