#include "proxy/key_pool.h"

#include <stdlib.h>

#include <event2/util.h>

#include "common/clock.h"
#include "proxy/key_members.h"

#define SECOND        UINT64_C(1000000)
#define OPENS_AFTER   3 /* failures in a row */
#define RECHECK_FIRST SECOND
#define RECHECK_MOST  (30 * SECOND)
#define RETRY_FIRST   (SECOND / 10)
#define RETRY_MOST    (5 * SECOND)
#define WHOLE_SHARE   1024
#define SHARE_LEAST   16
/* What an answer may take before there were enough to know better, and at least. */
#define LATE_UNKNOWN UINT64_C(20000)
#define LATE_LEAST   UINT64_C(1000)

_Static_assert(KEY_MEMBERS_MOST * 2u <= 16u, "ranks fit below a tier");
_Static_assert(PROXY_KEY_SERVERS_MAX <= 32, "a bit for each");

static size_t places_of(const struct proxy_config *config)
{
    size_t places = 0;
    for (size_t i = 0; i < config->key_server_count; i++)
        places += proxy_key_server_is_named(&config->key_servers[i]) ? key_members_most(config) : 1;
    return places;
}

static void place_fill(struct key_server *server, const struct proxy_key_server *config, size_t entry)
{
    server->config = config;
    server->entry = entry;
    server->weight = config->weight * KEY_POOL_WEIGHT_UNIT;
}

static void fill(struct key_pool *pool, const struct proxy_config *config)
{
    size_t next = 0;
    for (size_t i = 0; i < config->key_server_count; i++)
        if (!proxy_key_server_is_named(&config->key_servers[i]))
            place_fill(&pool->servers[next++], &config->key_servers[i], i);
}

enum result key_pool_new(const struct proxy_config *config, struct log *log, struct key_pool *pool,
                         struct failure *why)
{
    *pool = (struct key_pool){.hedge = config->key_channel.hedge, .log = log};
    const size_t places = places_of(config);
    pool->servers = calloc(places > 0 ? places : 1, sizeof *pool->servers);
    if (pool->servers == NULL)
        return failure_set_errno(why, "key servers");
    for (; pool->count < places; pool->count++) {
        struct key_server *server = &pool->servers[pool->count];
        *server = (struct key_server){.number = pool->count, .share = WHOLE_SHARE, .keys = key_map_new()};
        TAILQ_INIT(&server->sent);
        if (server->keys == NULL)
            return failure_set_errno(why, "key servers");
    }
    fill(pool, config);
    return RESULT_OK;
}

struct key_server *key_pool_take(struct key_pool *pool, const struct proxy_key_server *entry, size_t number,
                                 const struct address *address)
{
    for (size_t i = 0; i < pool->count; i++) {
        struct key_server *server = &pool->servers[i];
        if (server->config != NULL)
            continue;
        server->own = *entry;
        server->own.at.address = *address;
        place_fill(server, &server->own, number);
        return server;
    }
    return NULL;
}

/* Of what was learnt nothing stays but the number of its trust, which the next one must not have. */
void key_pool_return(struct key_server *server)
{
    key_link_free(server->link);
    key_pool_down(server);
    server->link = NULL;
    server->config = NULL;
    server->rank = 0;
    server->gone = server->leaving = server->lied = false;
    server->share = WHOLE_SHARE;
    server->recheck_pause = 0;
}

static bool is_among(const struct key_server *server, uint32_t servers)
{
    return (servers >> server->number & 1) != 0;
}

static bool has_refused(const struct key_server *server, uint32_t refused)
{
    return server->config != NULL && is_among(server, refused);
}

static bool entry_has_refused(const struct key_pool *pool, size_t entry, uint32_t refused)
{
    for (size_t i = 0; i < pool->count; i++)
        if (pool->servers[i].entry == entry && has_refused(&pool->servers[i], refused))
            return true;
    return false;
}

bool key_pool_all_refused(const struct key_pool *pool, uint32_t refused)
{
    bool any = false;
    for (size_t i = 0; i < pool->count; i++) {
        const struct key_server *server = &pool->servers[i];
        bool has = has_refused(server, refused);
        any = any || has;
        if (server->config != NULL && !has &&
            (key_link_up(server->link) || !entry_has_refused(pool, server->entry, refused)))
            return false;
    }
    return any;
}

void key_pool_free(struct key_pool *pool)
{
    for (size_t i = 0; i < pool->count; i++) {
        key_link_free(pool->servers[i].link);
        key_map_free(pool->servers[i].keys);
    }
    free(pool->servers);
    *pool = (struct key_pool){0};
}

bool key_pool_any_up(const struct key_pool *pool)
{
    for (size_t i = 0; i < pool->count; i++)
        if (key_link_up(pool->servers[i].link))
            return true;
    return false;
}

bool key_pool_all_tried(const struct key_pool *pool)
{
    for (size_t i = 0; i < pool->count; i++)
        if (!key_link_tried(pool->servers[i].link))
            return false;
    return true;
}

struct key_server *key_pool_of(struct key_pool *pool, const struct key_link *link)
{
    for (size_t i = 0; i < pool->count; i++)
        if (pool->servers[i].link == link)
            return &pool->servers[i];
    return NULL;
}

/* ---- Late. */

/* Without measurements, or where they are of a moment when all was quick, it is not taken too strictly. */
static uint64_t usual(const struct key_server *server)
{
    uint64_t late = key_latency_late(&server->latency);
    if (late == 0)
        return LATE_UNKNOWN;
    return late > LATE_LEAST ? late : LATE_LEAST;
}

uint64_t key_pool_late_after(const struct key_pool *pool, const struct key_server *server)
{
    return pool->hedge != 0 ? pool->hedge : usual(server);
}

static bool is_late(const struct key_server *server, uint64_t now)
{
    const struct key_attempt *oldest = TAILQ_FIRST(&server->sent);
    return oldest != NULL && oldest->sent + usual(server) < now;
}

/* ---- Choosing. */

/* What the grade is made of: the digits of a number, the most important first. */
#define GRADE_MISSING 16000u
#define GRADE_OUT     8000u
#define GRADE_LATE    4000u
#define GRADE_BURDEN  2000u
#define GRADE_TIER    16u

static void half_open_in_time(struct key_server *server, uint64_t now)
{
    if (server->breaker == KEY_BREAKER_OPEN && server->heard && now >= server->retry)
        server->breaker = KEY_BREAKER_HALF;
}

/* Doubles every second until it is whole again. */
static unsigned share_of(struct key_server *server, uint64_t now)
{
    while (server->share < WHOLE_SHARE && now - server->share_at >= SECOND) {
        server->share *= 2;
        server->share_at += SECOND;
    }
    return server->share;
}

/* The part of its weight that an overloaded one has not goes to others, those of a lower priority included;
 * and all that somebody else has answered badly already. */
static bool is_spared(struct key_server *server, const struct key_wish *wish, uint64_t now)
{
    const unsigned share = share_of(server, now);
    uint32_t chance = WHOLE_SHARE - 1;
    if (share < WHOLE_SHARE && wish->first)
        evutil_secure_rng_get_bytes(&chance, sizeof chance);
    return chance % WHOLE_SHARE >= share;
}

/* One that may have the key is as good as one that is known to: else those that list none, or were not asked
 * for it yet, would never get their share. */
static unsigned grade_of(struct key_server *server, const struct key_wish *wish, uint64_t now)
{
    half_open_in_time(server, now);
    bool missing = key_map_find(server->keys, wish->ski, now) == KEY_MISSING;
    bool out = server->breaker == KEY_BREAKER_OPEN || server->lied ||
               (server->breaker == KEY_BREAKER_HALF && !TAILQ_EMPTY(&server->sent));
    return (missing ? GRADE_MISSING : 0u) + (out ? GRADE_OUT : 0u) +
           (is_late(server, now) ? GRADE_LATE : 0u) + (is_spared(server, wish, now) ? GRADE_BURDEN : 0u) +
           server->config->priority * GRADE_TIER + server->rank;
}

/* It would be wasted on one that fails or has not got the key, and one that is overloaded is not to get more.
 */
static bool is_worth_a_hedge(unsigned grade)
{
    return grade < GRADE_OUT && grade % GRADE_LATE < GRADE_BURDEN;
}

static bool is_of_use(const struct key_server *server)
{
    return key_link_up(server->link) && !server->leaving;
}

static bool has_room(const struct key_server *server, unsigned in_flight_max)
{
    return is_of_use(server) && !key_link_full(server->link) && key_link_asked(server->link) < in_flight_max;
}

uint32_t key_pool_room(const struct key_pool *pool, unsigned in_flight_max)
{
    uint32_t room = 0;
    for (size_t i = 0; i < pool->count; i++)
        room |= has_room(&pool->servers[i], in_flight_max) ? UINT32_C(1) << i : 0;
    return room;
}

static bool can_take(const struct key_server *server, const struct key_wish *wish)
{
    return !is_among(server, wish->without) && has_room(server, wish->in_flight_max);
}

static uint64_t weight_of(struct key_server *server, uint64_t now)
{
    return (uint64_t)server->weight * share_of(server, now);
}

/* What it would take to be answered: the less the better. */
static uint64_t load_of(struct key_server *server, uint64_t now)
{
    uint64_t latency = key_link_latency(server->link);
    return (key_link_asked(server->link) + 1) * (latency > 0 ? latency : 1) * WHOLE_SHARE *
           KEY_POOL_WEIGHT_UNIT / weight_of(server, now);
}

/* By so much that it matters: what is measured is never quite the same, and a server that is hardly slower
 * than another gets its share all the same. */
static bool is_less(uint64_t load, uint64_t than)
{
    return load < than * 4 / 5;
}

struct candidates {
    struct key_server *list[PROXY_KEY_SERVERS_MAX];
    size_t count;
    unsigned grade;
};

static void collect(struct key_pool *pool, const struct key_wish *wish, uint64_t now,
                    struct candidates *found)
{
    for (size_t i = 0; i < pool->count; i++) {
        struct key_server *server = &pool->servers[i];
        if (!can_take(server, wish))
            continue;
        unsigned grade = grade_of(server, wish, now);
        if (wish->hedge && !is_worth_a_hedge(grade))
            continue;
        if (found->count == 0 || grade < found->grade) {
            found->grade = grade;
            found->count = 0;
        }
        if (grade == found->grade)
            found->list[found->count++] = server;
    }
}

/* By chance, after their weights; taken out of the list. */
static struct key_server *draw(struct candidates *from, uint64_t now)
{
    uint64_t sum = 0, at;
    size_t i = 0;
    for (size_t k = 0; k < from->count; k++)
        sum += weight_of(from->list[k], now);
    evutil_secure_rng_get_bytes(&at, sizeof at);
    at %= sum;
    while (at >= weight_of(from->list[i], now))
        at -= weight_of(from->list[i++], now);
    struct key_server *drawn = from->list[i];
    from->list[i] = from->list[--from->count];
    return drawn;
}

/* One that has lied, and may show that it no longer does: whatever it answers is verified, and if it is wrong
 * another one is asked at once. */
static struct key_server *suspect(struct key_pool *pool, const struct key_wish *wish, uint64_t now)
{
    for (size_t i = 0; i < pool->count; i++) {
        struct key_server *server = &pool->servers[i];
        if (!server->lied || now < server->recheck || !can_take(server, wish) ||
            key_map_find(server->keys, wish->ski, now) == KEY_MISSING)
            continue;
        server->recheck = now + server->recheck_pause;
        return server;
    }
    return NULL;
}

struct key_server *key_pool_choose(struct key_pool *pool, const struct key_wish *wish, uint64_t now)
{
    struct candidates found = {.count = 0};
    struct key_server *checked = wish->first ? suspect(pool, wish, now) : NULL;
    if (checked != NULL)
        return checked;
    collect(pool, wish, now, &found);
    if (found.count == 0)
        return NULL;
    if (found.count == 1)
        return found.list[0];
    struct key_server *one = draw(&found, now), *other = draw(&found, now);
    const bool other_has_less = is_less(load_of(other, now), load_of(one, now));
    key_link_measure((other_has_less ? one : other)->link);
    return other_has_less ? other : one;
}

bool key_pool_has_fine(struct key_pool *pool, const struct key_wish *wish, uint64_t now)
{
    for (size_t i = 0; i < pool->count; i++) {
        struct key_server *server = &pool->servers[i];
        if (!is_among(server, wish->without) && is_of_use(server) &&
            grade_of(server, wish, now) < GRADE_BURDEN)
            return true;
    }
    return false;
}

/* ---- The list of what is on its way. */

void key_server_sent(struct key_server *server, struct key_attempt *attempt, uint64_t now)
{
    attempt->server = server;
    attempt->sent = now;
    attempt->overdue = false;
    TAILQ_INSERT_TAIL(&server->sent, attempt, by_sent);
    if (server->next_hedge == NULL)
        server->next_hedge = attempt;
    if (server->next_overdue == NULL)
        server->next_overdue = attempt;
}

void key_server_unsent(struct key_server *server, struct key_attempt *attempt)
{
    if (server->next_hedge == attempt)
        server->next_hedge = TAILQ_NEXT(attempt, by_sent);
    if (server->next_overdue == attempt)
        server->next_overdue = TAILQ_NEXT(attempt, by_sent);
    TAILQ_REMOVE(&server->sent, attempt, by_sent);
    attempt->server = NULL;
}

/* ---- Trouble. */

void key_pool_good(struct key_pool *pool, struct key_server *server)
{
    server->failures = 0;
    if (server->breaker == KEY_BREAKER_CLOSED)
        return;
    log_info(pool->log, "key server used again", log_text("server", server->config->name));
    server->breaker = KEY_BREAKER_CLOSED;
}

/* It is told once, not each time that another try fails: those are farther and farther apart. */
static void breaker_open(struct key_pool *pool, struct key_server *server, const char *reason, uint64_t now)
{
    if (server->breaker == KEY_BREAKER_CLOSED) {
        server->retry_pause = RETRY_FIRST;
        log_warn(pool->log, "key server avoided", log_text("server", server->config->name),
                 log_reason(reason));
    } else if (server->retry_pause < RETRY_MOST) {
        server->retry_pause *= 2;
    }
    server->breaker = KEY_BREAKER_OPEN;
    server->heard = false;
    server->retry = now + server->retry_pause;
}

void key_pool_bad(struct key_pool *pool, struct key_server *server, const char *reason, uint64_t now)
{
    server->trust++;
    if (pool->count == 1)
        return; /* nobody could be asked instead */
    server->failures++;
    if (server->failures < OPENS_AFTER && server->breaker == KEY_BREAKER_CLOSED)
        return;
    if (server->breaker != KEY_BREAKER_OPEN)
        breaker_open(pool, server, reason, now);
    key_link_probe(server->link);
}

void key_pool_heard(struct key_server *server)
{
    server->heard = true;
}

void key_pool_lied(struct key_server *server, uint64_t now)
{
    server->trust++;
    server->recheck_pause = server->lied ? 2 * server->recheck_pause : RECHECK_FIRST;
    if (server->recheck_pause > RECHECK_MOST)
        server->recheck_pause = RECHECK_MOST;
    server->recheck = now + server->recheck_pause;
    server->lied = true;
}

void key_pool_told_truth(struct key_pool *pool, struct key_server *server)
{
    if (server->lied)
        log_info(pool->log, "key server trusted again", log_text("server", server->config->name));
    server->lied = false;
}

void key_pool_overloaded(struct key_server *server, uint64_t now)
{
    if (server->share > SHARE_LEAST)
        server->share /= 2;
    server->share_at = now;
}

/* What was measured and learnt is another's, perhaps. */
void key_pool_down(struct key_server *server)
{
    server->trust++;
    server->failures = 0;
    server->breaker = KEY_BREAKER_CLOSED;
    key_latency_forget(&server->latency);
    key_map_forget(server->keys);
}
