#include "proxy/key_client.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <event2/util.h>

#include "common/clock.h"
#include "proxy/key_answer.h"
#include "proxy/key_link.h"
#include "proxy/key_request.h"
#include "proxy/proxy_metrics.h"

/* A request's id is its slot's number and, below it, the slot's generation; the numbers from here on are the
 * link's. */
#define SLOTS_MAX       (KEY_LINK_OWN_IDS >> 16)
#define GENERATION_BITS 16

#define TESTS_MAX 1 /* at a time, beside what handshakes wait for */

_Static_assert(PROXY_HANDSHAKES_MAX + PROXY_IN_FLIGHT_MAX + TESTS_MAX <= SLOTS_MAX,
               "a slot for each request there may be");

/* Operations that are given up in one turn of the loop. Each ends a handshake, and all of a house full of
 * them may have been asked at the same time: the worker's other connections want their turn in between. */
#define EXPIRED_PER_TURN 32

/* Many key servers close what is idle for 30 s. */
#define IDLE_PING 15000000u

#define WRONG_SIGNATURE "wrong signature from key server"
#define NOT_OFFERED     "operation not offered by key server"

/*
 *  FREE ──▶ WAITING ──▶ SENT ──▶ FREE           answered, or out of time
 *              ▲          │ └──▶ ORPHAN ──▶ FREE  cancelled, but the key server still has it
 *              └──────────┘ channel lost
 */
enum slot_state { SLOT_FREE, SLOT_WAITING, SLOT_SENT, SLOT_ORPHAN };

struct slot {
    enum slot_state state;
    uint16_t number;
    bool sent_before;
    uint32_t generation; /* its low half is on the wire */
    uint64_t answered;   /* a bit for each of the last generations, the lowest for this one */
    size_t server_value; /* what it is counted under: the key server that it was sent to; 0: none */
    uint64_t started, sent;
    struct key_operation *operation; /* NULL: free or orphan */
    TAILQ_ENTRY(slot) by_age;        /* all but free ones, oldest first: all have the same time to live */
    TAILQ_ENTRY(slot) waiting;       /* to be sent, oldest first; or free */
    struct key_request request;
};

TAILQ_HEAD(slot_list, slot);

struct key_client {
    struct event_base *base;
    struct log *log;
    struct metrics_row *metrics;
    uint64_t timeout;
    enum proxy_key_mode mode;
    enum proxy_key_verify verify;
    unsigned in_flight_max; /* on the wire */
    unsigned live_max;      /* operations, sent or waiting */

    struct key_link *link;
    uint32_t trust; /* another number after each reconnect and each wrong signature: signature_check.h */

    struct slot *slots; /* live_max + in_flight_max + TESTS_MAX: orphans are on the wire */
    unsigned slot_count, slots_used;
    struct slot_list by_age, waiting, unused;
    unsigned live;
    struct event *timer; /* the oldest slot's deadline, or earlier */

    uint32_t id_prefix, id_count; /* of request ids */
    uint8_t *frame;               /* where each is put together before the channel takes it */
    size_t frame_size;

    void (*ready)(void *owner);
    void *ready_owner;

    const struct key_client_ticket_handler *tickets; /* NULL: nobody wants them */
    void *tickets_owner;
};

/* ---- Slots. */

static struct slot *slot_take(struct key_client *client)
{
    struct slot *slot = TAILQ_FIRST(&client->unused);
    if (slot != NULL) {
        TAILQ_REMOVE(&client->unused, slot, waiting);
    } else if (client->slots_used < client->slot_count) {
        slot = &client->slots[client->slots_used];
        slot->number = (uint16_t)client->slots_used++;
    }
    return slot;
}

static void slot_release(struct key_client *client, struct slot *slot)
{
    if (slot->state == SLOT_WAITING)
        TAILQ_REMOVE(&client->waiting, slot, waiting);
    if (slot->state != SLOT_FREE)
        TAILQ_REMOVE(&client->by_age, slot, by_age);
    slot->state = SLOT_FREE;
    slot->operation = NULL;
    slot->generation++;
    slot->answered <<= 1;
    TAILQ_INSERT_TAIL(&client->unused, slot, waiting);
}

static struct slot *slot_find(struct key_client *client, uint32_t id)
{
    uint32_t number = id >> GENERATION_BITS;
    if (number >= client->slots_used)
        return NULL;
    struct slot *slot = &client->slots[number];
    bool asked = slot->state == SLOT_SENT || slot->state == SLOT_ORPHAN;
    return asked && (uint16_t)slot->generation == (uint16_t)id ? slot : NULL;
}

/* What an answer is to which slot_find has no request. Half of all generations are those that were, the other
 * half are yet to come. */
static enum key_stray stray_of(const struct key_client *client, uint32_t id)
{
    uint32_t number = id >> GENERATION_BITS;
    if (number >= client->slots_used)
        return KEY_STRAY_NOT_ASKED;
    const struct slot *slot = &client->slots[number];
    uint32_t age = (uint16_t)(slot->generation - id);
    if (age == 0 || age > slot->generation || age > UINT16_MAX / 2)
        return KEY_STRAY_NOT_ASKED;
    return age < 64 && (slot->answered >> age & 1) != 0 ? KEY_STRAY_SECOND : KEY_STRAY_LATE;
}

static uint32_t slot_id(const struct slot *slot)
{
    return (uint32_t)slot->number << GENERATION_BITS | (uint16_t)slot->generation;
}

static void timer_arm(struct key_client *client)
{
    const struct slot *oldest = TAILQ_FIRST(&client->by_age);
    if (oldest == NULL)
        return;
    uint64_t now = clock_now(), due = oldest->started + client->timeout;
    struct timeval delay = clock_timeval(due > now ? due - now : 0);
    (void)evtimer_add(client->timer, &delay);
}

static void live_change(struct key_client *client, const struct key_operation *operation, int by)
{
    if (operation->is_test)
        return;
    client->live = by > 0 ? client->live + 1 : client->live - 1;
    metric_set(client->metrics, PROXY_KEY_PENDING, client->live);
}

/* ---- The end of an operation. */

_Static_assert(PROXY_KEY_REQUESTS_OK + (size_t)KEY_OUTCOME_MISMATCH == PROXY_KEY_REQUESTS_MISMATCH,
               "one order");

/* Under the key server that has it, or had it last. */
static void count(struct key_client *client, const struct slot *slot, const struct key_operation *operation)
{
    const size_t value = slot->server_value;
    if (operation->is_test)
        return;
    metric_add_for(client->metrics, PROXY_KEY_REQUESTS_OK + (size_t)operation->outcome, value, 1);
    if (operation->outcome == KEY_OUTCOME_ERROR)
        metric_add_for(client->metrics, proxy_metric_of_key_error(operation->error), value, 1);
    if (operation->outcome == KEY_OUTCOME_OK)
        metric_observe_for(client->metrics, PROXY_KEY_SECONDS, value, operation->duration);
}

static void complete(struct key_client *client, struct slot *slot, const struct key_answer *answer)
{
    struct key_operation *operation = slot->operation;
    assert(operation != NULL); /* only orphans have none */
    operation->result = answer->result;
    operation->outcome = answer->outcome;
    operation->error = answer->error;
    operation->reason = answer->reason;
    operation->duration = clock_now() - slot->started;
    operation->pending = false;
    count(client, slot, operation);
    slot_release(client, slot);
    live_change(client, operation, -1);
    operation->done(operation);
}

/* What a key server that was found lying says next is no better: the checks begin anew for all of its keys.
 */
static void distrust(struct key_client *client, const struct key_operation *operation)
{
    client->trust++;
    log_error(client->log, WRONG_SIGNATURE, log_text("server", operation->server),
              log_text("request", operation->request_id),
              log_hex("ski", bytes_of(operation->key->ski, sizeof operation->key->ski)));
}

static bool verification_due(const struct key_client *client, const struct key_operation *operation)
{
    if (operation->check == NULL)
        return false;
    return client->verify == KEY_VERIFY_ALL || signature_check_due(operation->check, client->trust);
}

static struct key_answer answer_take(struct key_client *client, struct key_operation *operation,
                                     const struct kssl_message *message)
{
    struct key_answer answer = key_answer_read(operation, message);
    if (answer.outcome != KEY_OUTCOME_OK || !verification_due(client, operation) ||
        key_answer_verify(operation))
        return answer;
    distrust(client, operation);
    return (struct key_answer){KEY_OUTCOME_WRONG, RESULT_CRYPTO, 0, WRONG_SIGNATURE};
}

static struct key_answer timeout_outcome(const struct key_client *client, const struct slot *slot)
{
    if (slot->state == SLOT_WAITING && !key_link_up(client->link))
        return (struct key_answer){KEY_OUTCOME_NO_SERVER, RESULT_PEER, 0, "no key server"};
    return (struct key_answer){KEY_OUTCOME_TIMEOUT, RESULT_PEER, 0, "key server timeout"};
}

/* ---- Sending. */

static bool slot_send(struct key_client *client, struct slot *slot)
{
    struct writer to = writer_of(client->frame, client->frame_size);
    if (!key_request_write(&to, slot_id(slot), &slot->request, slot->operation) ||
        key_link_send(client->link, writer_bytes(&to)) != RESULT_OK)
        return false;
    TAILQ_REMOVE(&client->waiting, slot, waiting);
    slot->state = SLOT_SENT;
    slot->sent = clock_now();
    slot->operation->server = key_link_name(client->link);
    slot->server_value = key_link_metric_value(client->link);
    metric_add_for(client->metrics, PROXY_KEY_RESENT, slot->server_value, slot->sent_before ? 1 : 0);
    slot->sent_before = true;
    return true;
}

static void send_waiting(struct key_client *client)
{
    struct slot *slot;
    while ((slot = TAILQ_FIRST(&client->waiting)) != NULL && key_link_up(client->link) &&
           key_link_asked(client->link) < client->in_flight_max && !key_link_full(client->link)) {
        if (!slot_send(client, slot))
            break;
    }
}

/* ---- The link's callbacks. */

/* What waits for an operation that this key server does not have would wait in vain. */
static void fail_not_offered(struct key_client *client)
{
    const struct key_answer outcome = {KEY_OUTCOME_REFUSED, RESULT_CONFIG, KSSL_ERROR_BAD_OPCODE,
                                       NOT_OFFERED};
    struct slot *slot = TAILQ_FIRST(&client->waiting);
    while (slot != NULL) {
        if (key_link_offers(client->link, slot->request.opcode)) {
            slot = TAILQ_NEXT(slot, waiting);
        } else {
            complete(client, slot, &outcome);
            slot = TAILQ_FIRST(&client->waiting); /* done may have changed the list */
        }
    }
}

static void on_up(struct key_link *link, void *owner)
{
    struct key_client *client = owner;
    if (client->tickets != NULL)
        client->tickets->up(key_link_name(link), key_link_offers(link, KSSL_OP_TICKET_KEYS),
                            client->tickets_owner);
    fail_not_offered(client);
    send_waiting(client);
    if (client->ready != NULL) {
        void (*ready)(void *) = client->ready;
        client->ready = NULL;
        ready(client->ready_owner);
    }
}

/* Everything asked is waiting again, in the old order; signing twice is harmless. */
static void on_down(struct key_link *link, void *owner)
{
    struct key_client *client = owner;
    struct slot *slot = TAILQ_FIRST(&client->by_age), *next;
    (void)link;
    client->trust++;
    TAILQ_INIT(&client->waiting);
    for (; slot != NULL; slot = next) {
        next = TAILQ_NEXT(slot, by_age);
        if (slot->state == SLOT_ORPHAN) {
            slot_release(client, slot);
            continue;
        }
        slot->state = SLOT_WAITING;
        TAILQ_INSERT_TAIL(&client->waiting, slot, waiting);
    }
}

static void on_answer(struct key_link *link, uint32_t id, const struct kssl_message *message, void *owner)
{
    struct key_client *client = owner;
    struct slot *slot = slot_find(client, id);
    if (slot == NULL) {
        key_link_stray(link, id, stray_of(client, id));
        return;
    }
    slot->answered |= 1;
    key_link_answered(link, clock_now() - slot->sent);
    if (slot->state == SLOT_ORPHAN) {
        key_link_stray(link, id, KEY_STRAY_LATE);
        slot_release(client, slot);
    } else {
        struct key_answer answer = answer_take(client, slot->operation, message);
        complete(client, slot, &answer);
    }
    send_waiting(client);
}

static void on_ticket_keys(struct key_link *link, const struct kssl_message *message, void *owner)
{
    struct key_client *client = owner;
    if (client->tickets != NULL)
        client->tickets->answer(key_link_name(link), message, client->tickets_owner);
}

static void on_writable(struct key_link *link, void *owner)
{
    (void)link;
    send_waiting(owner);
}

static const struct key_link_handler LINK_HANDLER = {
    .up = on_up,
    .down = on_down,
    .answer = on_answer,
    .ticket_keys = on_ticket_keys,
    .writable = on_writable,
};

/* ---- Deadlines. */

static void expire(struct key_client *client, struct slot *slot)
{
    struct key_answer outcome = timeout_outcome(client, slot);
    if (slot->state != SLOT_WAITING)
        key_link_settle(client->link);
    if (slot->state == SLOT_ORPHAN)
        slot_release(client, slot);
    else
        complete(client, slot, &outcome);
}

/* false: none is due. */
static bool expire_oldest(struct key_client *client, uint64_t now)
{
    struct slot *slot = TAILQ_FIRST(&client->by_age);
    if (slot == NULL || slot->started + client->timeout > now)
        return false;
    expire(client, slot);
    return true;
}

static void on_timer(evutil_socket_t fd, short events, void *owner)
{
    struct key_client *client = owner;
    uint64_t now = clock_now();
    (void)fd;
    (void)events;
    unsigned expired = 0;
    while (expired < EXPIRED_PER_TURN && expire_oldest(client, now))
        expired++;
    if (expired < EXPIRED_PER_TURN) /* else what is sent now may be due itself */
        send_waiting(client);
    timer_arm(client);
}

/* ---- The interface. */

/* "5f0c9a1e-0000002a": told apart by worker and request. Written by hand, because it runs on a fibre. */
static void request_id_make(struct key_client *client, char id[static KSSL_REQUEST_ID_MAX + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint32_t parts[2] = {client->id_prefix, client->id_count++};
    for (unsigned i = 0; i < 16; i++)
        id[i + i / 8] = digits[parts[i / 8] >> (28 - 4 * (i % 8)) & 15];
    id[8] = '-';
    id[17] = '\0';
}

static enum result refuse(struct key_client *client, struct key_operation *operation, enum result result,
                          enum key_outcome outcome, const char *reason)
{
    operation->result = result;
    operation->outcome = outcome;
    operation->reason = reason;
    if (!operation->is_test)
        metric_add(client->metrics, PROXY_KEY_REQUESTS_OK + (size_t)outcome, 1);
    return result;
}

static void slot_start(struct key_client *client, struct slot *slot, struct key_operation *operation)
{
    slot->state = SLOT_WAITING;
    slot->operation = operation;
    slot->sent_before = false;
    slot->server_value = 0;
    slot->started = clock_now();
    operation->slot = slot->number;
    operation->pending = true;
    request_id_make(client, operation->request_id);
    bool first = TAILQ_EMPTY(&client->by_age);
    TAILQ_INSERT_TAIL(&client->by_age, slot, by_age);
    TAILQ_INSERT_TAIL(&client->waiting, slot, waiting);
    live_change(client, operation, +1);
    if (first)
        timer_arm(client);
}

enum result key_client_sign(struct key_client *client, struct key_operation *operation)
{
    operation->error = 0;
    operation->server = NULL;
    operation->signature_size = 0;
    operation->duration = 0;
    bool has_place = operation->is_test || client->live < client->live_max;
    struct slot *slot = has_place ? slot_take(client) : NULL;
    if (slot == NULL)
        return refuse(client, operation, RESULT_LIMIT, KEY_OUTCOME_REFUSED, "too many signatures pending");
    const char *reason;
    enum key_outcome outcome = key_request_make(&slot->request, client->mode, operation, &reason);
    if (outcome != KEY_OUTCOME_OK) {
        slot_release(client, slot);
        return refuse(client, operation, RESULT_PROTOCOL, outcome, reason);
    }
    operation->opcode = slot->request.opcode;
    if (key_link_up(client->link) && !key_link_offers(client->link, slot->request.opcode)) {
        slot_release(client, slot);
        return refuse(client, operation, RESULT_CONFIG, KEY_OUTCOME_REFUSED, NOT_OFFERED);
    }
    slot_start(client, slot, operation);
    send_waiting(client);
    return RESULT_OK;
}

void key_client_cancel(struct key_client *client, struct key_operation *operation)
{
    if (!operation->pending)
        return;
    struct slot *slot = &client->slots[operation->slot];
    operation->pending = false;
    slot->operation = NULL;
    if (slot->state == SLOT_SENT)
        slot->state = SLOT_ORPHAN;
    else
        slot_release(client, slot);
    live_change(client, operation, -1);
    operation->outcome = KEY_OUTCOME_CANCELLED;
    count(client, slot, operation);
}

void key_client_watch_ticket_keys(struct key_client *client, const struct key_client_ticket_handler *handler,
                                  void *owner)
{
    client->tickets = handler;
    client->tickets_owner = owner;
}

bool key_client_ask_ticket_keys(struct key_client *client)
{
    return key_link_offers(client->link, KSSL_OP_TICKET_KEYS) && key_link_ask_ticket_keys(client->link);
}

void key_client_when_ready(struct key_client *client, void (*ready)(void *owner), void *owner)
{
    if (key_client_ready(client)) {
        ready(owner);
        return;
    }
    client->ready = ready;
    client->ready_owner = owner;
}

bool key_client_ready(const struct key_client *client)
{
    return key_link_up(client->link);
}

uint64_t key_client_latency(const struct key_client *client)
{
    return key_link_up(client->link) ? key_link_latency(client->link) : UINT64_MAX;
}

unsigned key_client_pending(const struct key_client *client)
{
    return client->live;
}

void key_client_status(const struct key_client *client, struct key_server_status *servers)
{
    key_link_status(client->link, &servers[0]);
}

static enum result client_set_up(struct key_client *client, const struct proxy_config *config,
                                 SSL_CTX *channel_context, struct failure *why)
{
    TAILQ_INIT(&client->by_age);
    TAILQ_INIT(&client->waiting);
    TAILQ_INIT(&client->unused);
    client->timeout = config->key_channel.timeout;
    client->mode = config->key_servers[0].mode;
    client->verify = config->key_channel.verify;
    client->in_flight_max = config->key_channel.in_flight;
    client->live_max = config->limits.handshakes;
    evutil_secure_rng_get_bytes(&client->id_prefix, sizeof client->id_prefix);
    client->slot_count = client->live_max + client->in_flight_max + TESTS_MAX;
    client->slots = calloc(client->slot_count, sizeof *client->slots);
    client->frame_size =
        client->mode == KEY_MODE_TRANSCRIPT ? KEY_REQUEST_TRANSCRIPT_FRAME_MAX : KEY_REQUEST_FRAME_MAX;
    client->frame = malloc(client->frame_size);
    client->timer = evtimer_new(client->base, on_timer, client);
    if (client->slots == NULL || client->frame == NULL || client->timer == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory for %u signatures at a time", client->slot_count);
    const struct key_link_settings settings = {
        .base = client->base,
        .context = channel_context,
        .server = &config->key_servers[0],
        .timeout = client->timeout,
        .idle = IDLE_PING,
        .log = client->log,
        .metrics = client->metrics,
    };
    return key_link_new(&settings, &LINK_HANDLER, client, &client->link, why);
}

enum result key_client_new(struct event_base *base, const struct proxy_config *config,
                           SSL_CTX *channel_context, struct log *log, struct metrics_row *metrics,
                           struct key_client **client, struct failure *why)
{
    *client = NULL;
    struct key_client *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set_errno(why, "key client");
    made->base = base;
    made->log = log;
    made->metrics = metrics;
    enum result result = client_set_up(made, config, channel_context, why);
    if (result != RESULT_OK) {
        key_client_free(made);
        return result;
    }
    *client = made;
    return RESULT_OK;
}

void key_client_free(struct key_client *client)
{
    if (client == NULL)
        return;
    for (unsigned i = 0; i < client->slots_used; i++) {
        if (client->slots[i].operation != NULL)
            client->slots[i].operation->pending = false;
    }
    key_link_free(client->link);
    if (client->timer != NULL)
        event_free(client->timer);
    free(client->slots);
    free(client->frame);
    free(client);
}
