#include "proxy/key_client_private.h"

#include "common/clock.h"
#include "proxy/proxy_metrics.h"

#define WRONG_SIGNATURE "wrong signature from key server"
#define NOT_OFFERED     "operation not offered by key server"

/* ---- Attempts of a slot. */

static struct key_attempt *attempt_at(struct key_slot *slot, const struct key_server *server)
{
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
        if (slot->attempts[i].server == server)
            return &slot->attempts[i];
    return NULL;
}

static uint32_t bit_of(const struct key_server *server)
{
    return UINT32_C(1) << server->number;
}

/* Those that have it, and those that it is no use to ask. */
static uint32_t without_of(const struct key_slot *slot)
{
    uint32_t without = slot->refused;
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
        if (slot->attempts[i].server != NULL)
            without |= bit_of(slot->attempts[i].server);
    return without;
}

/* Whether an answer may be expected: of those that are overdue, none. */
bool key_attempts_expected(const struct key_slot *slot)
{
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++)
        if (slot->attempts[i].server != NULL && !slot->attempts[i].overdue)
            return true;
    return false;
}

static struct key_wish wish_of(const struct key_client *client, const struct key_slot *slot)
{
    return (struct key_wish){.ski = slot->operation->key->ski,
                             .without = without_of(slot),
                             .in_flight_max = client->in_flight_max,
                             .first = slot->asked == 0};
}

void key_attempts_forget(struct key_slot *slot)
{
    for (unsigned i = 0; i < ATTEMPTS_MAX; i++) {
        struct key_server *server = slot->attempts[i].server;
        if (server == NULL)
            continue;
        slot->answered &= ~UINT64_C(1); /* what may still come is no second answer */
        key_link_settle(server->link);
        key_server_unsent(server, &slot->attempts[i]);
    }
}

/* ---- Sending. */

/* The request as this server's mode has it. False: it cannot be made so. */
static bool request_fit(struct key_slot *slot, enum proxy_key_mode mode)
{
    const char *reason;
    if (slot->mode != mode) {
        bool made = key_request_change(&slot->request, mode, slot->operation, &reason) == KEY_OUTCOME_OK;
        slot->mode = mode;
        slot->unmade = made ? NULL : reason;
    }
    return slot->unmade == NULL;
}

/* Whose it is: what is counted and logged of the operation goes under this server. */
static void name_server(struct key_slot *slot, const struct key_server *server)
{
    slot->operation->server = server->config->name;
    slot->server_value = key_link_metric_value(server->link);
}

static bool send_to(struct key_client *client, struct key_slot *slot, struct key_server *server)
{
    struct writer to = writer_of(client->frame, client->frame_size);
    struct key_attempt *attempt = attempt_at(slot, NULL);
    if (attempt == NULL || !key_request_write(&to, key_slot_id(slot), &slot->request, slot->operation) ||
        key_link_send(server->link, writer_bytes(&to)) != RESULT_OK)
        return false;
    *attempt = (struct key_attempt){.slot = slot, .is_hedge = slot->asked > 0};
    key_server_sent(server, attempt, clock_now());
    if (slot->state == SLOT_WAITING)
        TAILQ_REMOVE(&client->waiting, slot, waiting);
    slot->state = SLOT_ASKED;
    slot->asked++;
    slot->operation->opcode = slot->request.opcode;
    name_server(slot, server);
    return true;
}

/* It is no use to ask that one. What another has answered tells more. */
static void pass_over(struct key_slot *slot, const struct key_server *server)
{
    static const struct key_answer MISSING = {KEY_OUTCOME_REFUSED, RESULT_CONFIG, KSSL_ERROR_BAD_OPCODE,
                                              NOT_OFFERED};
    slot->refused |= bit_of(server);
    if (slot->failed.outcome != KEY_OUTCOME_NO_SERVER)
        return;
    slot->failed = MISSING;
    if (slot->unmade != NULL)
        slot->failed = (struct key_answer){KEY_OUTCOME_REFUSED, RESULT_PROTOCOL, 0, slot->unmade};
}

/* Of servers that do not have the operation the next best is taken. */
static struct key_server *choose(struct key_client *client, struct key_slot *slot, bool hedge, uint64_t now)
{
    for (;;) {
        struct key_wish wish = wish_of(client, slot);
        wish.hedge = hedge;
        struct key_server *server = key_pool_choose(&client->pool, &wish, now);
        if (server == NULL ||
            (request_fit(slot, server->config->mode) && key_link_offers(server->link, slot->request.opcode)))
            return server;
        pass_over(slot, server);
    }
}

static bool start(struct key_client *client, struct key_slot *slot, bool hedge)
{
    const uint64_t now = clock_now();
    struct key_server *server = choose(client, slot, hedge, now);
    if (server == NULL || !send_to(client, slot, server))
        return false;
    key_attempts_arm(client);
    return true;
}

bool key_attempts_start(struct key_client *client, struct key_slot *slot)
{
    return start(client, slot, false);
}

bool key_attempts_hedge(struct key_client *client, struct key_slot *slot)
{
    return start(client, slot, true);
}

bool key_attempts_all_refused(const struct key_client *client, const struct key_slot *slot)
{
    return key_pool_all_refused(&client->pool, slot->refused);
}

/* Behind the older ones alone, which have less time left. */
void key_attempts_wait(struct key_client *client, struct key_slot *slot)
{
    struct key_slot *older = TAILQ_LAST(&client->waiting, key_slot_list);
    while (older != NULL && older->started > slot->started)
        older = TAILQ_PREV(older, key_slot_list, waiting);
    slot->state = SLOT_WAITING;
    if (older != NULL)
        TAILQ_INSERT_AFTER(&client->waiting, older, slot, waiting);
    else
        TAILQ_INSERT_HEAD(&client->waiting, slot, waiting);
    key_attempts_arm(client);
}

/* Nobody will answer it any more: another server gets it, or it waits for one; or it was the last. */
static void go_on(struct key_client *client, struct key_slot *slot)
{
    if (key_attempts_expected(slot) || (!slot->final && key_attempts_start(client, slot)))
        return;
    if (slot->final || key_attempts_all_refused(client, slot))
        key_slot_complete(client, slot, &slot->failed);
    else if (slot->state != SLOT_WAITING)
        key_attempts_wait(client, slot);
}

/* Those that wait for a server that is down must not keep others from one that is not. */
static bool fits(const struct key_slot *slot, uint32_t room)
{
    return (room & ~without_of(slot)) != 0;
}

static bool is_next(const struct key_client *client, const struct key_slot *slot)
{
    const uint32_t room = key_pool_room(&client->pool, client->in_flight_max);
    const struct key_slot *other = TAILQ_FIRST(&client->waiting);
    while (room != 0 && other != slot && !fits(other, room))
        other = TAILQ_NEXT(other, waiting);
    return room != 0 && other == slot;
}

void key_attempts_begin(struct key_client *client, struct key_slot *slot)
{
    if (is_next(client, slot))
        (void)key_attempts_start(client, slot);
}

/* The first that waits and can be sent, or given up, is; false: there is none. */
static bool send_next(struct key_client *client, struct key_slot **slot)
{
    const uint32_t room = key_pool_room(&client->pool, client->in_flight_max);
    while (room != 0 && *slot != NULL && !fits(*slot, room))
        *slot = TAILQ_NEXT(*slot, waiting);
    if (room == 0 || *slot == NULL)
        return false;
    struct key_slot *taken = *slot;
    *slot = TAILQ_NEXT(taken, waiting);
    if (!key_attempts_start(client, taken) && key_attempts_all_refused(client, taken)) {
        key_slot_complete(client, taken, &taken->failed);
        *slot = TAILQ_FIRST(&client->waiting); /* done may have changed the list */
    }
    return true;
}

void key_attempts_send_waiting(struct key_client *client)
{
    struct key_slot *slot = TAILQ_FIRST(&client->waiting);
    while (send_next(client, &slot))
        ;
}

/* ---- Answers. */

static bool verification_due(const struct key_client *client, const struct key_server *server,
                             const struct key_operation *operation)
{
    if (operation->check == NULL)
        return false;
    return client->verify == KEY_VERIFY_ALL || server->lied ||
           signature_check_due(operation->check, server->number, server->trust);
}

/* What a key server that was found lying says next is no better: the checks begin anew for all of its keys.
 */
static void distrust(struct key_client *client, struct key_server *server,
                     const struct key_operation *operation)
{
    log_error(client->log, WRONG_SIGNATURE, log_text("server", server->config->name),
              log_text("request", operation->request_id),
              log_hex("ski", bytes_of(operation->key->ski, sizeof operation->key->ski)));
    key_pool_lied(server, clock_now());
}

static void observe(struct key_client *client, const struct key_server *server, size_t metric, uint64_t took)
{
    metric_observe_for(client->metrics, metric, key_link_metric_value(server->link), took);
}

/* What the key server tells of itself is believed as far as it can be true. */
static void observe_stages(struct key_client *client, const struct key_server *server, struct bytes extra,
                           uint64_t took)
{
    struct kssl_timing timing;
    if (!kssl_timing_parse(extra, &timing) || (uint64_t)timing.queue + timing.sign > took)
        return;
    observe(client, server, PROXY_KEY_STAGE_QUEUE, timing.queue);
    observe(client, server, PROXY_KEY_STAGE_SIGN, timing.sign);
    observe(client, server, PROXY_KEY_STAGE_WIRE, took - timing.queue - timing.sign);
}

static bool verify(struct key_client *client, const struct key_server *server,
                   const struct key_operation *operation)
{
    const uint64_t began = clock_now();
    bool good = key_answer_verify(operation);
    observe(client, server, PROXY_KEY_STAGE_VERIFY, clock_now() - began);
    return good;
}

static struct key_answer answer_take(struct key_client *client, struct key_server *server,
                                     struct key_operation *operation, const struct kssl_message *message)
{
    struct key_answer answer = key_answer_read(operation, message);
    if (answer.outcome != KEY_OUTCOME_OK || !verification_due(client, server, operation))
        return answer;
    if (verify(client, server, operation)) {
        key_pool_told_truth(&client->pool, server);
        return answer;
    }
    distrust(client, server, operation);
    return (struct key_answer){KEY_OUTCOME_WRONG, RESULT_CRYPTO, 0, WRONG_SIGNATURE};
}

/* What an error means for the server, and whether another may do better (the table of protocol.md). */
static bool may_move(struct key_client *client, struct key_server *server, struct key_slot *slot,
                     const struct key_answer *answer)
{
    const uint64_t now = clock_now();
    if (answer->outcome != KEY_OUTCOME_ERROR) {
        if (answer->outcome != KEY_OUTCOME_WRONG)
            key_pool_bad(&client->pool, server, answer->reason, now);
        return true;
    }
    switch (answer->error) {
    case KSSL_ERROR_KEY_NOT_FOUND:
        key_map_note(server->keys, slot->operation->key->ski, false, now);
        return true;
    case KSSL_ERROR_INTERNAL:
        key_pool_bad(&client->pool, server, answer->reason, now);
        return true;
    case KSSL_ERROR_OVERLOADED: {
        bool first = !slot->overloaded;
        key_pool_overloaded(server, now);
        slot->overloaded = true;
        return first;
    }
    default:
        return false;
    }
}

/* That a request goes elsewhere, under the server that it was at; what no handshake waits for is not counted.
 */
void key_attempts_count(struct key_client *client, const struct key_slot *slot,
                        const struct key_server *server, size_t metric)
{
    if (!slot->operation->is_test)
        metric_add_for(client->metrics, metric, key_link_metric_value(server->link), 1);
}

/* Where all others are in trouble only a share of what one could not do is asked of them. That a key is not
 * found must be believed of each: it is asked but once a minute. */
static bool may_be_asked_elsewhere(struct key_client *client, const struct key_slot *slot,
                                   const struct key_answer *answer)
{
    const struct key_wish wish = wish_of(client, slot);
    return answer->error == KSSL_ERROR_KEY_NOT_FOUND || slot->operation->is_test ||
           key_pool_has_fine(&client->pool, &wish, clock_now()) || key_budget_spend(&client->move_budget);
}

/* Whether it goes to another server now, as nobody else's answer is expected. false: it has ended, or waits.
 */
static bool moves_on(struct key_client *client, struct key_slot *slot, const struct key_answer *answer)
{
    if (slot->final || key_attempts_expected(slot) || key_attempts_all_refused(client, slot))
        return false;
    slot->final = !may_be_asked_elsewhere(client, slot, answer);
    return !slot->final;
}

/* Wrong once, wrong for this request: nobody is asked twice who has answered. One that was asked before may
 * still have a good answer, even to what no other is to be asked after. */
static void on_bad_answer(struct key_client *client, struct key_server *server, struct key_slot *slot,
                          const struct key_answer *answer)
{
    bool moves = may_move(client, server, slot, answer);
    const bool last_word = slot->final;
    slot->final = slot->final || !moves;
    if (!last_word)
        slot->failed = *answer;
    if (!last_word && (slot->final || !key_attempts_expected(slot)))
        name_server(slot, server);
    if (moves_on(client, slot, answer))
        key_attempts_count(client, slot, server, PROXY_KEY_MOVED);
    go_on(client, slot);
}

static void on_good_answer(struct key_client *client, struct key_server *server, struct key_slot *slot,
                           bool was_hedge, const struct key_answer *answer)
{
    key_pool_good(&client->pool, server);
    key_map_note(server->keys, slot->operation->key->ski, true, clock_now());
    name_server(slot, server);
    if (was_hedge && key_slot_is_asked(slot))
        key_attempts_count(client, slot, server, PROXY_KEY_HEDGES_WON);
    key_slot_complete(client, slot, answer);
}

/* Of an operation that has ended: it shows at least how long the server took. */
static void on_late_answer(struct key_client *client, const struct key_server *server, struct key_slot *slot,
                           uint32_t id)
{
    key_link_stray(server->link, id, KEY_STRAY_LATE);
    if (!key_slot_is_asked(slot))
        key_slot_release(client, slot);
}

static void on_stray(struct key_client *client, const struct key_server *server, const struct key_slot *slot,
                     uint32_t id)
{
    enum key_stray what = KEY_STRAY_NOT_ASKED;
    if (slot == NULL)
        what = key_slot_stray(client, id);
    else if ((slot->refused & bit_of(server)) != 0)
        what = KEY_STRAY_SECOND;
    key_link_stray(server->link, id, what);
}

static void on_answer(struct key_link *link, uint32_t id, const struct kssl_message *message, void *owner)
{
    struct key_client *client = owner;
    struct key_server *server = key_pool_of(&client->pool, link);
    struct key_slot *slot = key_slot_find(client, id);
    struct key_attempt *attempt = slot != NULL ? attempt_at(slot, server) : NULL;
    if (attempt == NULL) {
        on_stray(client, server, slot, id);
        return;
    }
    const uint64_t took = clock_now() - attempt->sent;
    const bool was_hedge = attempt->is_hedge;
    slot->answered |= 1;
    slot->refused |= bit_of(server);
    key_server_unsent(server, attempt);
    key_link_answered(link, took);
    key_pool_heard(server);
    key_latency_note(&server->latency, took);
    observe_stages(client, server, message->extra, took);
    if (slot->state == SLOT_ORPHAN) {
        on_late_answer(client, server, slot, id);
    } else {
        struct key_answer answer = answer_take(client, server, slot->operation, message);
        if (answer.outcome == KEY_OUTCOME_OK)
            on_good_answer(client, server, slot, was_hedge, &answer);
        else
            on_bad_answer(client, server, slot, &answer);
    }
    key_attempts_send_waiting(client);
}

/* ---- The link's other callbacks. */

/* That nobody offers them is known when all have been heard. */
static bool tickets_are_known(const struct key_client *client, bool *offered)
{
    bool all_up = true;
    *offered = false;
    for (size_t i = 0; i < client->pool.count; i++) {
        const struct key_link *link = client->pool.servers[i].link;
        *offered = *offered || key_link_offers(link, KSSL_OP_TICKET_KEYS);
        all_up = all_up && key_link_up(link);
    }
    return *offered || all_up;
}

static void on_up(struct key_link *link, void *owner)
{
    struct key_client *client = owner;
    bool offered;
    client->down_since = 0;
    if (client->tickets != NULL && tickets_are_known(client, &offered))
        client->tickets->up(key_link_name(link), offered, client->tickets_owner);
    key_attempts_send_waiting(client);
    key_client_check_ready(client);
}

static void on_failed(struct key_link *link, void *owner)
{
    (void)link;
    key_client_check_ready(owner);
}

/* What all are lost that it was sent to begins anew: it may be hedged again. */
static void on_lost(struct key_client *client, const struct key_server *server, struct key_slot *slot)
{
    if (!slot->final)
        slot->failed = key_answer_no_server;
    if (!key_slot_is_asked(slot)) {
        key_attempts_count(client, slot, server, PROXY_KEY_RESENT);
        slot->asked = 0;
    }
    go_on(client, slot);
}

/* What it had been asked somebody else is asked now, in the old order; signing twice is harmless. */
static void move_all(struct key_client *client, struct key_server *server)
{
    struct key_attempt *attempt;
    while ((attempt = TAILQ_FIRST(&server->sent)) != NULL) {
        struct key_slot *slot = attempt->slot;
        key_server_unsent(server, attempt);
        if (slot->state != SLOT_ORPHAN) {
            on_lost(client, server, slot);
        } else if (!key_slot_is_asked(slot)) {
            key_slot_release(client, slot);
        }
    }
}

static void note_down(struct key_client *client)
{
    if (client->down_since == 0 && !key_pool_any_up(&client->pool))
        client->down_since = clock_now();
}

static void on_down(struct key_link *link, void *owner)
{
    struct key_client *client = owner;
    struct key_server *server = key_pool_of(&client->pool, link);
    key_pool_down(server);
    note_down(client);
    move_all(client, server);
    key_attempts_arm(client);
}

void key_attempts_leave(struct key_client *client, struct key_server *server)
{
    server->leaving = true; /* so that nothing comes back to it */
    move_all(client, server);
    key_pool_return(server);
    note_down(client);
    key_attempts_arm(client);
}

static void on_ticket_keys(struct key_link *link, const struct kssl_message *message, void *owner)
{
    struct key_client *client = owner;
    if (message->opcode == KSSL_OP_SUCCESS)
        client->tickets_next = key_pool_of(&client->pool, link)->number;
    if (client->tickets != NULL)
        client->tickets->answer(key_link_name(link), message, client->tickets_owner);
}

static void on_writable(struct key_link *link, void *owner)
{
    (void)link;
    key_attempts_send_waiting(owner);
}

static void on_alive(struct key_link *link, void *owner)
{
    struct key_client *client = owner;
    key_pool_heard(key_pool_of(&client->pool, link));
}

static bool on_keys(struct key_link *link, struct bytes page, bool first,
                    uint8_t after[static KEY_ID_SKI_SIZE], bool *more, void *owner)
{
    struct key_client *client = owner;
    return key_map_take_page(key_pool_of(&client->pool, link)->keys, page, first, clock_now(), after, more);
}

const struct key_link_handler key_attempts_handler = {.up = on_up,
                                                      .down = on_down,
                                                      .failed = on_failed,
                                                      .answer = on_answer,
                                                      .ticket_keys = on_ticket_keys,
                                                      .writable = on_writable,
                                                      .alive = on_alive,
                                                      .keys = on_keys};
