/* Which key server is asked, with links that are only told what they say: no loop, no network, and a clock of
 * the test's own. */
#include "proxy/key_pool.h"

#include "common/clock.h"
#include "proxy/key_members.h"
#include "tests/unit/check.h"

#define SECOND UINT64_C(1000000)

enum { SERVERS = 3, MANY = 4000 };

/* ---- The links. */

struct key_link {
    bool up, full;
    unsigned asked, probes;
    uint64_t latency;
    bool untried;
};

void key_link_free(struct key_link *link)
{
    (void)link;
}

bool key_link_up(const struct key_link *link)
{
    return link->up;
}

bool key_link_tried(const struct key_link *link)
{
    return !link->untried;
}

bool key_link_full(const struct key_link *link)
{
    return link->full;
}

unsigned key_link_asked(const struct key_link *link)
{
    return link->asked;
}

uint64_t key_link_latency(const struct key_link *link)
{
    return link->latency;
}

void key_link_probe(struct key_link *link)
{
    link->probes++;
}

void key_link_measure(struct key_link *link)
{
    (void)link;
}

/* Of names there are none here. */
size_t key_members_most(const struct proxy_config *config)
{
    (void)config;
    return 0;
}

/* ---- The pool. */

static const uint8_t SKI[KEY_ID_SKI_SIZE] = "a key";

static struct proxy_key_server configs[SERVERS];
static struct key_link links[SERVERS];
static struct key_pool pool;
static uint64_t now;

static int open_pool(void)
{
    const struct proxy_config config = {.key_servers = configs, .key_server_count = SERVERS};
    struct failure why;
    if (key_pool_new(&config, NULL, &pool, &why) != RESULT_OK)
        return 1;
    for (size_t i = 0; i < SERVERS; i++)
        pool.servers[i].link = &links[i];
    return 0;
}

static int set_up(void **state)
{
    (void)state;
    static char *names[SERVERS] = {"one", "two", "three"};
    for (size_t i = 0; i < SERVERS; i++) {
        configs[i] = (struct proxy_key_server){.name = names[i], .weight = 1};
        links[i] = (struct key_link){.up = true, .latency = 1000};
    }
    now = 1000 * SECOND;
    return open_pool();
}

static int tear_down(void **state)
{
    (void)state;
    key_pool_free(&pool);
    return 0;
}

static struct key_wish wish_without(uint32_t without)
{
    return (struct key_wish){.ski = SKI, .without = without, .in_flight_max = 100, .first = true};
}

/* The number of whom is chosen; -1: nobody. */
static int choose(uint32_t without)
{
    const struct key_wish wish = wish_without(without);
    const struct key_server *server = key_pool_choose(&pool, &wish, now);
    return server == NULL ? -1 : (int)server->number;
}

/* How often each is chosen, while nobody has anything to do. */
static void choose_many(unsigned counts[static SERVERS])
{
    memset(counts, 0, SERVERS * sizeof *counts);
    for (unsigned i = 0; i < MANY; i++)
        counts[choose(0)]++;
}

/* Always these, a bit each, and each of them sometimes. */
static void expect_only(uint32_t expected)
{
    unsigned counts[SERVERS];
    choose_many(counts);
    for (unsigned i = 0; i < SERVERS; i++)
        if ((counts[i] > 0) != ((expected >> i & 1) != 0))
            fail_msg("server %u was chosen %u times", i, counts[i]);
}

static void fail_often(unsigned server)
{
    for (unsigned i = 0; i < 3; i++)
        key_pool_bad(&pool, &pool.servers[server], "test", now);
}

/* ---- Who can take it. */

static void test_who_can(void **state)
{
    (void)state;
    assert_int_equal(key_pool_room(&pool, 100), 7);
    links[0].up = false;
    links[1].full = true;
    expect_only(4);
    assert_int_equal(key_pool_room(&pool, 100), 4);
    links[2].asked = 100;
    assert_int_equal(choose(0), -1);
    assert_int_equal(key_pool_room(&pool, 100), 0);
    assert_int_equal(key_pool_room(&pool, 101), 4);
    assert_true(key_pool_any_up(&pool));
    links[1].full = false;
    assert_int_equal(choose(0), 1);
    assert_int_equal(choose(2), -1);
}

static void test_of(void **state)
{
    (void)state;
    struct key_link another = {.up = true};
    assert_ptr_equal(key_pool_of(&pool, &links[2]), &pool.servers[2]);
    assert_null(key_pool_of(&pool, &another));
}

/* ---- Priority, weight, load. */

static void test_priority(void **state)
{
    (void)state;
    configs[0].priority = 2;
    configs[1].priority = configs[2].priority = 1;
    expect_only(6);
    assert_int_equal(choose(6), 0);
    links[1].up = links[2].up = false;
    expect_only(1);
}

/* Of two drawn the idle one is not known, so that each is chosen by its weight: a half of what is drawn twice
 * goes by it again. */
static void test_weight(void **state)
{
    (void)state;
    unsigned counts[SERVERS];
    choose_many(counts);
    for (size_t i = 0; i < SERVERS; i++)
        assert_in_range(counts[i], MANY / 5, MANY / 2);
    configs[0].weight = 8;
    assert_int_equal(tear_down(NULL), 0);
    assert_int_equal(open_pool(), 0);
    choose_many(counts);
    assert_in_range(counts[0], MANY * 7 / 10, MANY);
}

static void test_load(void **state)
{
    (void)state;
    links[2].up = false;
    links[0].asked = 10;
    expect_only(2); /* of two, the one with less to do */
    links[0].asked = 0;
    links[0].latency = 1150;
    expect_only(3); /* hardly slower */
    links[0].latency = 500;
    expect_only(1);
    links[0].latency = 1500;
    pool.servers[0].weight = 2 * KEY_POOL_WEIGHT_UNIT; /* worth its time */
    expect_only(1);
}

static void test_without_latencies(void **state)
{
    (void)state;
    for (size_t i = 0; i < SERVERS; i++)
        links[i].latency = 0;
    assert_in_range(choose(0), 0, SERVERS - 1);
}

static void test_overloaded(void **state)
{
    (void)state;
    unsigned counts[SERVERS];
    links[2].up = false;
    for (unsigned i = 0; i < 100; i++)
        key_pool_overloaded(&pool.servers[0], now);
    assert_int_equal(pool.servers[0].share, 16); /* never nothing */
    expect_only(2);
    assert_int_equal(pool.servers[0].breaker, KEY_BREAKER_CLOSED);
    now += 3 * SECOND;
    choose_many(counts);
    assert_int_equal(pool.servers[0].share, 128);
    now += 100 * SECOND;
    choose_many(counts);
    assert_int_equal(pool.servers[0].share, 1024);
    assert_true(counts[0] + counts[1] == MANY);
    key_pool_overloaded(&pool.servers[0], now);
    assert_int_equal(pool.servers[0].share, 512);
}

/* What it does not get goes to others, those of a lower priority included, and nothing while it is whole. */
static void test_overloaded_before_a_standby(void **state)
{
    (void)state;
    unsigned counts[SERVERS];
    links[2].up = false;
    configs[1].priority = 100;
    expect_only(1);
    key_pool_overloaded(&pool.servers[0], now);
    choose_many(counts);
    assert_in_range(counts[0], MANY * 45 / 100, MANY * 55 / 100);
    key_pool_overloaded(&pool.servers[0], now);
    choose_many(counts);
    assert_in_range(counts[0], MANY * 20 / 100, MANY * 30 / 100);
    struct key_wish again = wish_without(0);
    again.first = false;
    for (unsigned i = 0; i < 100; i++) /* not what another could not do */
        assert_int_equal(key_pool_choose(&pool, &again, now)->number, 1);
    assert_int_equal(choose(2), 0); /* better than nobody */
    now += 10 * SECOND;
    expect_only(1);
}

static int choose_hedge(uint32_t without)
{
    struct key_wish wish = wish_without(without);
    wish.first = false;
    wish.hedge = true;
    const struct key_server *server = key_pool_choose(&pool, &wish, now);
    return server == NULL ? -1 : (int)server->number;
}

/* Each of these may be asked when nobody else is there, but not as well as somebody else. */
static void test_hedges(void **state)
{
    (void)state;
    static struct key_attempt attempt;
    configs[2].priority = 100;
    assert_int_equal(choose_hedge(1), 1);
    assert_int_equal(choose_hedge(3), 2);
    links[2].up = false;
    key_server_sent(&pool.servers[1], &attempt, now);
    now += 10 * SECOND;
    assert_int_equal(choose_hedge(1), 1); /* late, as the other is */
    key_pool_overloaded(&pool.servers[1], now);
    assert_int_equal(choose_hedge(1), -1);
    key_server_unsent(&pool.servers[1], &attempt);
    assert_int_equal(choose_hedge(1), -1);
    now += 10 * SECOND;
    assert_int_equal(choose_hedge(1), 1);
    key_pool_lied(&pool.servers[1], now);
    assert_int_equal(choose_hedge(1), -1);
    key_pool_told_truth(&pool, &pool.servers[1]);
    fail_often(1);
    assert_int_equal(choose_hedge(1), -1);
    key_pool_good(&pool, &pool.servers[1]);
    assert_int_equal(choose_hedge(1), 1);
    key_map_note(pool.servers[1].keys, SKI, false, now);
    assert_int_equal(choose_hedge(1), -1);
    assert_int_equal(choose(1), 1);
}

static bool has_fine(uint32_t without)
{
    struct key_wish wish = wish_without(without);
    wish.first = false;
    return key_pool_has_fine(&pool, &wish, now);
}

static void test_has_fine(void **state)
{
    (void)state;
    assert_true(has_fine(3));
    assert_false(has_fine(7));
    links[2].full = true;
    assert_true(has_fine(3)); /* soon */
    links[2].up = false;
    assert_false(has_fine(3));
    key_pool_overloaded(&pool.servers[1], now);
    assert_false(has_fine(1));
    now += 10 * SECOND;
    assert_true(has_fine(1));
    key_pool_lied(&pool.servers[1], now);
    assert_false(has_fine(1));
    key_pool_told_truth(&pool, &pool.servers[1]);
    fail_often(1);
    assert_false(has_fine(1));
    key_pool_good(&pool, &pool.servers[1]);
    assert_true(has_fine(1));
    key_map_note(pool.servers[1].keys, SKI, false, now);
    assert_false(has_fine(1));
}

static void test_all_tried(void **state)
{
    (void)state;
    assert_true(key_pool_all_tried(&pool));
    links[1].untried = true;
    assert_false(key_pool_all_tried(&pool));
}

/* ---- Knowledge. */

static void test_who_lacks_the_key(void **state)
{
    (void)state;
    key_map_note(pool.servers[0].keys, SKI, false, now);
    expect_only(6);
    key_map_note(pool.servers[1].keys, SKI, true, now);
    expect_only(6); /* who may have it gets a share */
    assert_int_equal(choose(6), 0);
    now += 61 * SECOND;
    expect_only(7);
}

/* The key is worth more than the priority and any trouble. */
static void test_key_before_trouble(void **state)
{
    (void)state;
    configs[2].priority = 100;
    key_map_note(pool.servers[0].keys, SKI, false, now);
    key_map_note(pool.servers[1].keys, SKI, false, now);
    fail_often(2);
    key_pool_lied(&pool.servers[2], now);
    expect_only(4);
}

/* ---- Trouble. */

static void test_breaker_opens(void **state)
{
    (void)state;
    const uint32_t trust = pool.servers[0].trust;
    key_pool_bad(&pool, &pool.servers[0], "test", now);
    assert_int_not_equal(pool.servers[0].trust, trust); /* what it says next is verified */
    key_pool_bad(&pool, &pool.servers[0], "test", now);
    assert_int_not_equal(pool.servers[0].trust, trust + 1);
    key_pool_good(&pool, &pool.servers[0]);
    key_pool_bad(&pool, &pool.servers[0], "test", now);
    key_pool_bad(&pool, &pool.servers[0], "test", now);
    expect_only(7);
    assert_int_equal(links[0].probes, 0);
    key_pool_bad(&pool, &pool.servers[0], "test", now);
    assert_int_equal(pool.servers[0].breaker, KEY_BREAKER_OPEN);
    assert_int_equal(links[0].probes, 1);
    expect_only(6);
    links[1].up = links[2].up = false;
    expect_only(1); /* better than nobody */
}

/* It has to be heard of, and to wait; then one request at a time tries. */
static void test_breaker_half_opens(void **state)
{
    (void)state;
    struct key_attempt attempt = {0};
    fail_often(0);
    now += SECOND;
    expect_only(6);
    key_pool_heard(&pool.servers[0]);
    expect_only(7);
    assert_int_equal(pool.servers[0].breaker, KEY_BREAKER_HALF);
    key_server_sent(&pool.servers[0], &attempt, now);
    expect_only(6);
    key_server_unsent(&pool.servers[0], &attempt);
    key_pool_good(&pool, &pool.servers[0]);
    assert_int_equal(pool.servers[0].breaker, KEY_BREAKER_CLOSED);
    expect_only(7);
}

/* How long it is left alone after its breaker has opened again. */
static uint64_t pause_after(void)
{
    uint64_t start = now;
    key_pool_heard(&pool.servers[0]);
    do {
        now += SECOND / 100;
        (void)choose(0);
    } while (pool.servers[0].breaker == KEY_BREAKER_OPEN);
    return now - start;
}

static void test_breaker_pauses_grow(void **state)
{
    (void)state;
    fail_often(0);
    uint64_t before = pause_after();
    assert_in_range(before, SECOND / 10, SECOND / 5);
    for (unsigned i = 0; i < 5; i++) {
        key_pool_bad(&pool, &pool.servers[0], "test", now);
        uint64_t pause = pause_after();
        assert_in_range(pause, before * 3 / 2, before * 5 / 2);
        before = pause;
    }
    for (unsigned i = 0; i < 5; i++) {
        key_pool_bad(&pool, &pool.servers[0], "test", now);
        assert_true(pause_after() < 10 * SECOND);
    }
    key_pool_good(&pool, &pool.servers[0]);
    fail_often(0);
    assert_in_range(pause_after(), SECOND / 10, SECOND / 5);
}

/* A server that lied is asked when there is no other, and first now and then, to see whether it still does.
 */
static void test_liar(void **state)
{
    (void)state;
    struct key_wish again = wish_without(0);
    again.first = false;
    uint32_t trust = pool.servers[0].trust;
    key_pool_lied(&pool.servers[0], now);
    assert_true(pool.servers[0].trust != trust);
    expect_only(6);
    assert_int_equal(choose(6), 0);
    now += 2 * SECOND;
    assert_int_not_equal(key_pool_choose(&pool, &again, now)->number, 0);
    assert_int_equal(choose(0), 0);
    expect_only(6); /* once, until the next time */
    key_pool_lied(&pool.servers[0], now);
    now += SECOND + SECOND / 2;
    expect_only(6); /* which is farther away now */
    now += SECOND;
    assert_int_equal(choose(0), 0);
    key_pool_told_truth(&pool, &pool.servers[0]);
    expect_only(7);
}

static void test_liar_without_the_key(void **state)
{
    (void)state;
    key_pool_lied(&pool.servers[0], now);
    now += 40 * SECOND;
    key_map_note(pool.servers[0].keys, SKI, false, now);
    expect_only(6);
}

static void test_late(void **state)
{
    (void)state;
    struct key_attempt attempt = {0};
    configs[0].priority = 0;
    configs[1].priority = configs[2].priority = 1;
    key_server_sent(&pool.servers[0], &attempt, now);
    expect_only(1);
    now += 21000;
    expect_only(6);
    key_server_unsent(&pool.servers[0], &attempt);
    expect_only(1);
}

static void test_late_after(void **state)
{
    (void)state;
    assert_int_equal(key_pool_late_after(&pool, &pool.servers[0]), 20000);
    for (unsigned i = 0; i < KEY_LATENCY_SAMPLES; i++)
        key_latency_note(&pool.servers[0].latency, 100);
    assert_int_equal(key_pool_late_after(&pool, &pool.servers[0]), 1000);
    for (unsigned i = 0; i < 2 * KEY_LATENCY_SAMPLES; i++)
        key_latency_note(&pool.servers[0].latency, 5000);
    assert_int_equal(key_pool_late_after(&pool, &pool.servers[0]), 5000);
    pool.hedge = 700;
    assert_int_equal(key_pool_late_after(&pool, &pool.servers[0]), 700);
}

/* What a lost channel leaves: nothing that was learnt, but the lie. */
static void test_down(void **state)
{
    (void)state;
    uint32_t trust = pool.servers[0].trust;
    fail_often(0);
    key_pool_lied(&pool.servers[0], now);
    key_map_note(pool.servers[0].keys, SKI, false, now);
    key_latency_note(&pool.servers[0].latency, 100);
    key_pool_down(&pool.servers[0]);
    assert_int_equal(pool.servers[0].breaker, KEY_BREAKER_CLOSED);
    assert_int_equal(key_map_find(pool.servers[0].keys, SKI, now), KEY_UNKNOWN);
    assert_int_equal(pool.servers[0].latency.count, 0);
    assert_true(pool.servers[0].lied && pool.servers[0].trust == trust + 3 + 2);
}

/* ---- What is on its way. */

static void test_list_of_what_was_sent(void **state)
{
    (void)state;
    struct key_server *server = &pool.servers[0];
    struct key_attempt attempts[3] = {0};
    for (unsigned i = 0; i < 3; i++)
        key_server_sent(server, &attempts[i], now + i);
    assert_ptr_equal(server->next_hedge, &attempts[0]);
    server->next_hedge = &attempts[1]; /* as if the first had been looked at */
    key_server_unsent(server, &attempts[1]);
    assert_ptr_equal(server->next_hedge, &attempts[2]);
    assert_ptr_equal(server->next_overdue, &attempts[0]);
    key_server_unsent(server, &attempts[2]);
    assert_null(server->next_hedge);
    key_server_unsent(server, &attempts[0]);
    assert_null(server->next_overdue);
    assert_true(TAILQ_EMPTY(&server->sent));
    assert_null(attempts[0].server);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_who_can),
        TEST(test_of),
        TEST(test_priority),
        TEST(test_weight),
        TEST(test_load),
        TEST(test_without_latencies),
        TEST(test_overloaded),
        TEST(test_who_lacks_the_key),
        TEST(test_overloaded_before_a_standby),
        TEST(test_hedges),
        TEST(test_has_fine),
        TEST(test_all_tried),
        TEST(test_key_before_trouble),
        TEST(test_breaker_opens),
        TEST(test_breaker_half_opens),
        TEST(test_breaker_pauses_grow),
        TEST(test_liar),
        TEST(test_liar_without_the_key),
        TEST(test_late),
        TEST(test_late_after),
        TEST(test_down),
        TEST(test_list_of_what_was_sent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
