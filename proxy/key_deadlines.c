#include "proxy/key_client_private.h"

#include "common/clock.h"
#include "proxy/proxy_metrics.h"

/* Operations that are given up in one turn of the loop. Each ends a handshake, and all of a house full of
 * them may have been asked at the same time: the worker's other connections want their turn in between. */
#define EXPIRED_PER_TURN 32

static const struct key_answer TIMEOUT = {KEY_OUTCOME_TIMEOUT, RESULT_PEER, 0, "key server timeout"};

/* A server that takes longer than it did lately: the same is asked of another, within the budget. */
static void hedge(struct key_client *client, struct key_attempt *attempt)
{
    struct key_slot *slot = attempt->slot;
    if (slot->state != SLOT_ASKED || slot->asked != 1 || slot->final ||
        !key_budget_spend(&client->hedge_budget))
        return;
    if (key_attempts_hedge(client, slot))
        key_attempts_count(client, slot, attempt->server, PROXY_KEY_HEDGED);
    else
        key_budget_return(&client->hedge_budget);
}

/* It may have died: another is asked, and this one's answer is taken if it still comes. */
static void overdue(struct key_client *client, struct key_attempt *attempt)
{
    struct key_slot *slot = attempt->slot;
    struct key_server *server = attempt->server;
    attempt->overdue = true;
    key_pool_bad(&client->pool, server, "its answers do not come within attempt_timeout", clock_now());
    if (slot->state != SLOT_ASKED || slot->final || key_attempts_expected(slot) || client->pool.count == 1 ||
        !key_budget_spend(&client->retry_budget))
        return;
    if (key_attempts_start(client, slot))
        key_attempts_count(client, slot, server, PROXY_KEY_RETRIED);
    else
        key_attempts_wait(client, slot);
}

static void server_check(struct key_client *client, struct key_server *server, uint64_t now)
{
    const uint64_t late = client->hedges ? key_pool_late_after(&client->pool, server) : UINT64_MAX;
    struct key_attempt *attempt;
    while (late != UINT64_MAX && (attempt = server->next_hedge) != NULL && attempt->sent + late <= now) {
        server->next_hedge = TAILQ_NEXT(attempt, by_sent);
        hedge(client, attempt);
    }
    while ((attempt = server->next_overdue) != NULL && attempt->sent + client->attempt_timeout <= now) {
        server->next_overdue = TAILQ_NEXT(attempt, by_sent);
        overdue(client, attempt);
    }
}

/* When one that waits is given up because nobody can be asked: nobody waits long for that. */
static uint64_t hopeless_at(const struct key_client *client, const struct key_slot *waiting)
{
    if (client->down_since == 0 || waiting == NULL)
        return UINT64_MAX;
    uint64_t since = waiting->started > client->down_since ? waiting->started : client->down_since;
    return since + client->fail_fast;
}

/* Once a second, not once a client. */
static void tell_no_server(struct key_client *client, uint64_t now)
{
    const uint64_t count = log_tally_add(&client->down_tally, now);
    if (count > 0)
        log_error(client->log, "no key server can be reached", log_number("failed", (int64_t)count),
                  log_number("since_ms", (int64_t)((now - client->down_since) / 1000)));
}

/* What has waited for the others ends with what one has said. */
static struct key_answer too_late(const struct key_client *client, const struct key_slot *slot)
{
    if (slot->state == SLOT_WAITING && client->down_since != 0)
        return key_answer_no_server;
    return slot->state == SLOT_WAITING && slot->refused != 0 ? slot->failed : TIMEOUT;
}

/* false: none is due. */
static bool expire_oldest(struct key_client *client, uint64_t now)
{
    struct key_slot *slot = TAILQ_FIRST(&client->by_age), *waiting = TAILQ_FIRST(&client->waiting);
    if (hopeless_at(client, waiting) <= now)
        slot = waiting;
    else if (slot == NULL || slot->started + client->timeout > now)
        return false;
    const struct key_answer answer = too_late(client, slot);
    key_attempts_forget(slot);
    if (slot->state == SLOT_ORPHAN) {
        key_slot_release(client, slot);
    } else {
        if (answer.outcome == KEY_OUTCOME_NO_SERVER && !slot->operation->is_test) /* it counts handshakes */
            tell_no_server(client, now);
        key_slot_complete(client, slot, &answer);
    }
    return true;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t next_due(const struct key_client *client)
{
    const struct key_slot *oldest = TAILQ_FIRST(&client->by_age);
    uint64_t due = oldest != NULL ? oldest->started + client->timeout : UINT64_MAX;
    due = earlier(due, hopeless_at(client, TAILQ_FIRST(&client->waiting)));
    for (size_t i = 0; i < client->pool.count; i++) {
        const struct key_server *server = &client->pool.servers[i];
        const uint64_t late = client->hedges ? key_pool_late_after(&client->pool, server) : UINT64_MAX;
        if (server->next_hedge != NULL && late != UINT64_MAX)
            due = earlier(due, server->next_hedge->sent + late);
        if (server->next_overdue != NULL)
            due = earlier(due, server->next_overdue->sent + client->attempt_timeout);
    }
    return due;
}

/* A timer that comes too early finds nothing, and is set again: cheaper than moving it with each answer. */
static void arm_at(struct key_client *client, uint64_t due)
{
    uint64_t now = clock_now();
    if (due == UINT64_MAX || (client->timer_due != 0 && client->timer_due <= due))
        return;
    struct timeval delay = clock_timeval(due > now ? due - now : 0);
    client->timer_due = due;
    (void)evtimer_add(client->timer, &delay);
}

void key_attempts_arm(struct key_client *client)
{
    arm_at(client, next_due(client));
}

void key_attempts_on_timer(evutil_socket_t fd, short events, void *owner)
{
    struct key_client *client = owner;
    uint64_t now = clock_now();
    (void)fd;
    (void)events;
    client->timer_due = 0;
    for (size_t i = 0; i < client->pool.count; i++)
        server_check(client, &client->pool.servers[i], now);
    unsigned expired = 0;
    while (expired < EXPIRED_PER_TURN && expire_oldest(client, now))
        expired++;
    if (expired == EXPIRED_PER_TURN) { /* what is sent now may be due itself */
        arm_at(client, now);
        return;
    }
    key_attempts_send_waiting(client);
    key_attempts_arm(client);
}
