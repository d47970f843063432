#include "proxy/key_client_private.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <event2/util.h>

#include "common/clock.h"
#include "proxy/proxy_metrics.h"

/* A request's id is its slot's number and, below it, the slot's generation; the numbers from here on are the
 * link's. */
#define SLOTS_MAX       (KEY_LINK_OWN_IDS >> 16)
#define GENERATION_BITS 16

#define WARM_WITHIN 500000 /* microseconds */

#define TESTS_MAX 1 /* at a time, beside what handshakes wait for */

_Static_assert(PROXY_HANDSHAKES_MAX + PROXY_IN_FLIGHT_MAX + TESTS_MAX <= SLOTS_MAX,
               "a slot for each request there may be");

/* Hedges have their share in the configuration. With these, per mille, a tenth of all requests is asked twice
 * where that could do harm: those whose first server may be dead or only slow, and those that move to one
 * that is in trouble, too. */
#define RETRY_SHARE 30
#define MOVE_SHARE  20
/* Where there are few requests, so many more are no storm. */
#define A_SECOND 1
/* What may be asked twice at once when all went well for long. A server that stops leaves all that it has. */
#define BURST 64

const char key_client_full_reason[] = "limits.handshakes wait for a signature";
const struct key_answer key_answer_no_server = {KEY_OUTCOME_NO_SERVER, RESULT_PEER, 0, "no key server"};

/* ---- Slots. */

static struct key_slot *slot_take(struct key_client *client)
{
    struct key_slot *slot = TAILQ_FIRST(&client->unused);
    if (slot != NULL) {
        TAILQ_REMOVE(&client->unused, slot, waiting);
    } else if (client->slots_used < client->slot_count) {
        slot = &client->slots[client->slots_used];
        slot->number = (uint16_t)client->slots_used++;
    }
    return slot;
}

void key_slot_release(struct key_client *client, struct key_slot *slot)
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

bool key_slot_is_asked(const struct key_slot *slot)
{
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
        if (slot->attempts[i].server != NULL)
            return true;
    return false;
}

struct key_slot *key_slot_find(struct key_client *client, uint32_t id)
{
    uint32_t number = id >> GENERATION_BITS;
    if (number >= client->slots_used)
        return NULL;
    struct key_slot *slot = &client->slots[number];
    return slot->state != SLOT_FREE && (uint16_t)slot->generation == (uint16_t)id ? slot : NULL;
}

/* Half of all generations are those that were, the other half are yet to come. */
enum key_stray key_slot_stray(const struct key_client *client, uint32_t id)
{
    uint32_t number = id >> GENERATION_BITS;
    if (number >= client->slots_used)
        return KEY_STRAY_NOT_ASKED;
    const struct key_slot *slot = &client->slots[number];
    uint32_t age = (uint16_t)(slot->generation - id);
    if (age == 0 || age > slot->generation || age > UINT16_MAX / 2)
        return KEY_STRAY_NOT_ASKED;
    return age < 64 && (slot->answered >> age & 1) != 0 ? KEY_STRAY_SECOND : KEY_STRAY_LATE;
}

uint32_t key_slot_id(const struct key_slot *slot)
{
    return (uint32_t)slot->number << GENERATION_BITS | (uint16_t)slot->generation;
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
static void count(struct key_client *client, const struct key_slot *slot,
                  const struct key_operation *operation)
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

/* Others may still answer: until they have, or the time is over, their answers are known for what they are.
 */
static void release_or_leave(struct key_client *client, struct key_slot *slot)
{
    slot->operation = NULL;
    if (!key_slot_is_asked(slot)) {
        key_slot_release(client, slot);
        return;
    }
    if (slot->state == SLOT_WAITING)
        TAILQ_REMOVE(&client->waiting, slot, waiting);
    slot->state = SLOT_ORPHAN;
}

void key_slot_complete(struct key_client *client, struct key_slot *slot, const struct key_answer *answer)
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
    release_or_leave(client, slot);
    live_change(client, operation, -1);
    operation->done(operation);
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

static void slot_start(struct key_client *client, struct key_slot *slot, struct key_operation *operation)
{
    slot->state = SLOT_WAITING;
    slot->operation = operation;
    slot->server_value = 0;
    slot->asked = 0;
    slot->refused = 0;
    slot->overloaded = false;
    slot->final = false;
    slot->unmade = NULL;
    slot->failed = key_answer_no_server;
    slot->started = clock_now();
    operation->slot = slot->number;
    operation->pending = true;
    request_id_make(client, operation->request_id);
    TAILQ_INSERT_TAIL(&client->by_age, slot, by_age);
    TAILQ_INSERT_TAIL(&client->waiting, slot, waiting);
    live_change(client, operation, +1);
    key_budget_earn(&client->hedge_budget, slot->started);
    key_budget_earn(&client->retry_budget, slot->started);
    key_budget_earn(&client->move_budget, slot->started);
}

/* None of the key servers has the operation: done is not called for that. */
static enum result slot_take_back(struct key_client *client, struct key_slot *slot)
{
    struct key_operation *operation = slot->operation;
    const struct key_answer answer = slot->failed;
    operation->pending = false;
    live_change(client, operation, -1);
    key_slot_release(client, slot);
    return refuse(client, operation, answer.result, answer.outcome, answer.reason);
}

/* For the first mode that can have it; for those of other servers it is made when one is chosen. A transcript
 * that is not libssl's ends the handshake, even if there is a server that would not look at it. */
static enum key_outcome request_begin(const struct key_client *client, struct key_slot *slot,
                                      const struct key_operation *operation, const char **reason)
{
    enum key_outcome outcome = KEY_OUTCOME_REFUSED;
    for (size_t i = 0; outcome == KEY_OUTCOME_REFUSED && i < client->entry_count; i++) {
        slot->mode = client->entries[i].mode;
        outcome = key_request_make(&slot->request, slot->mode, operation, reason);
    }
    return outcome;
}

enum result key_client_sign(struct key_client *client, struct key_operation *operation)
{
    operation->error = 0;
    operation->server = NULL;
    operation->signature_size = 0;
    operation->duration = 0;
    bool has_place = operation->is_test || !key_client_full(client);
    struct key_slot *slot = has_place ? slot_take(client) : NULL;
    if (slot == NULL)
        return refuse(client, operation, RESULT_LIMIT, KEY_OUTCOME_TOO_MANY, key_client_full_reason);
    const char *reason = "";
    enum key_outcome outcome = request_begin(client, slot, operation, &reason);
    if (outcome != KEY_OUTCOME_OK) {
        key_slot_release(client, slot);
        return refuse(client, operation, RESULT_PROTOCOL, outcome, reason);
    }
    operation->opcode = slot->request.opcode;
    slot_start(client, slot, operation);
    key_attempts_begin(client, slot);
    if (slot->state == SLOT_WAITING && key_attempts_all_refused(client, slot))
        return slot_take_back(client, slot);
    key_attempts_arm(client);
    return RESULT_OK;
}

void key_client_cancel(struct key_client *client, struct key_operation *operation)
{
    if (!operation->pending)
        return;
    struct key_slot *slot = &client->slots[operation->slot];
    operation->pending = false;
    live_change(client, operation, -1);
    operation->outcome = KEY_OUTCOME_CANCELLED;
    count(client, slot, operation);
    release_or_leave(client, slot);
}

void key_client_watch_ticket_keys(struct key_client *client, const struct key_client_ticket_handler *handler,
                                  void *owner)
{
    client->tickets = handler;
    client->tickets_owner = owner;
}

/* Whoever told the last ones, as long as it answers: those of another may be others. */
bool key_client_ask_ticket_keys(struct key_client *client)
{
    for (size_t i = 0; i < client->pool.count; i++) {
        struct key_server *server = &client->pool.servers[(client->tickets_next + i) % client->pool.count];
        if (!key_link_offers(server->link, KSSL_OP_TICKET_KEYS) || !key_link_ask_ticket_keys(server->link))
            continue;
        client->tickets_next = server->number + 1; /* unless it answers, which sets it back */
        return true;
    }
    return false;
}

static void tell_ready(struct key_client *client)
{
    void (*ready)(void *) = client->ready;
    client->ready = NULL;
    if (ready != NULL)
        ready(client->ready_owner);
}

static void on_warm(evutil_socket_t fd, short events, void *client)
{
    (void)fd;
    (void)events;
    if (key_client_ready(client)) /* else when it is up again */
        tell_ready(client);
}

/* The first clients shall find all key servers: each may have keys that the others have not. One that is
 * neither up nor refused in a moment is not waited for. */
void key_client_check_ready(struct key_client *client)
{
    static const struct timeval MOMENT = {.tv_usec = WARM_WITHIN};
    if (client->ready == NULL || !key_client_ready(client))
        return;
    if (key_pool_all_tried(&client->pool))
        tell_ready(client);
    else if (!evtimer_pending(client->warm, NULL))
        (void)evtimer_add(client->warm, &MOMENT);
}

void key_client_when_ready(struct key_client *client, void (*ready)(void *owner), void *owner)
{
    client->ready = ready;
    client->ready_owner = owner;
    key_client_check_ready(client);
}

bool key_client_ready(const struct key_client *client)
{
    return key_pool_any_up(&client->pool);
}

uint64_t key_client_latency(const struct key_client *client)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < client->pool.count; i++) {
        const struct key_link *link = client->pool.servers[i].link;
        if (key_link_up(link) && key_link_latency(link) < least)
            least = key_link_latency(link);
    }
    return least;
}

unsigned key_client_pending(const struct key_client *client)
{
    return client->live;
}

bool key_client_full(const struct key_client *client)
{
    return client->live >= client->live_max ||
           (TAILQ_EMPTY(&client->unused) && client->slots_used == client->slot_count);
}

/* Of several addresses: what they have together, the best latency, the newest failure. */
static void status_add(const struct key_server *server, struct key_server_status *sum)
{
    struct key_server_status one;
    key_link_status(server->link, &one);
    sum->up |= one.up;
    sum->in_flight += one.in_flight;
    if (one.latency != 0 && (sum->latency == 0 || one.latency < sum->latency))
        sum->latency = one.latency;
    sum->breaker = (uint32_t)server->breaker > sum->breaker ? (uint32_t)server->breaker : sum->breaker;
    sum->lied |= server->lied;
    if (one.failed <= sum->failed)
        return;
    sum->failed = one.failed;
    memcpy(sum->failure, one.failure, sizeof sum->failure);
}

void key_client_status(const struct key_client *client, struct key_server_status *servers)
{
    memset(servers, 0, client->entry_count * sizeof *servers);
    for (size_t i = 0; i < client->pool.count; i++)
        if (client->pool.servers[i].config != NULL)
            status_add(&client->pool.servers[i], &servers[client->pool.servers[i].entry]);
}

static enum result links_make(struct key_client *client, struct failure *why)
{
    enum result result = RESULT_OK;
    for (size_t i = 0; result == RESULT_OK && i < client->pool.count; i++)
        if (client->pool.servers[i].config != NULL)
            result = key_member_connect(client, &client->pool.servers[i], why);
    return result;
}

static bool needs_transcript(const struct proxy_config *config)
{
    for (size_t i = 0; i < config->key_server_count; i++)
        if (config->key_servers[i].mode == KEY_MODE_TRANSCRIPT)
            return true;
    return false;
}

static void client_configure(struct key_client *client, const struct proxy_config *config)
{
    const uint64_t most = (uint64_t)config->limits.handshakes +
                          (uint64_t)config->key_channel.in_flight * client->pool.count + TESTS_MAX;
    client->entries = config->key_servers;
    client->entry_count = config->key_server_count;
    client->members_most = key_members_most(config);
    client->timeout = config->key_channel.timeout;
    client->attempt_timeout = config->key_channel.attempt_timeout;
    client->fail_fast = config->key_channel.fail_fast;
    client->hedges = config->key_channel.hedge != UINT64_MAX && config->key_channel.hedge_share > 0 &&
                     client->pool.count > 1;
    client->hedge_budget = key_budget_of(10 * config->key_channel.hedge_share, 0, BURST);
    client->retry_budget = key_budget_of(RETRY_SHARE, A_SECOND, config->key_channel.in_flight);
    client->move_budget = key_budget_of(MOVE_SHARE, A_SECOND, BURST);
    client->verify = config->key_channel.verify;
    client->in_flight_max = config->key_channel.in_flight;
    client->live_max = config->limits.handshakes;
    client->slot_count = most < SLOTS_MAX ? (unsigned)most : SLOTS_MAX;
    client->frame_size = needs_transcript(config) ? KEY_REQUEST_TRANSCRIPT_FRAME_MAX : KEY_REQUEST_FRAME_MAX;
    client->down_since = clock_now();
}

static enum result client_set_up(struct key_client *client, const struct proxy_config *config,
                                 SSL_CTX *channel_context, struct failure *why)
{
    TAILQ_INIT(&client->by_age);
    TAILQ_INIT(&client->waiting);
    TAILQ_INIT(&client->unused);
    client->channel_context = channel_context;
    enum result result = key_pool_new(config, client->log, &client->pool, why);
    if (result != RESULT_OK)
        return result;
    client_configure(client, config);
    evutil_secure_rng_get_bytes(&client->id_prefix, sizeof client->id_prefix);
    client->slots = calloc(client->slot_count, sizeof *client->slots);
    client->frame = malloc(client->frame_size);
    client->timer = evtimer_new(client->base, key_attempts_on_timer, client);
    client->warm = evtimer_new(client->base, on_warm, client);
    if (client->slots == NULL || client->frame == NULL || client->timer == NULL || client->warm == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory for %u signatures at a time", client->slot_count);
    return links_make(client, why);
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
    key_pool_free(&client->pool);
    if (client->timer != NULL)
        event_free(client->timer);
    if (client->warm != NULL)
        event_free(client->warm);
    free(client->slots);
    free(client->frame);
    free(client);
}
