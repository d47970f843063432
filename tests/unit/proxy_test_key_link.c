/* The upkeep of one channel when nothing is asked over it. */
#include "proxy/key_link.h"

#include "tests/unit/check.h"
#include "tests/unit/support/test_world.h"

struct owner {
    struct key_link *link;
    unsigned up, down, alive, failed;
    unsigned pages, first_pages;
};

static void on_up(struct key_link *link, void *context)
{
    struct owner *owner = context;
    (void)link;
    owner->up++;
}

static void on_down(struct key_link *link, void *context)
{
    struct owner *owner = context;
    (void)link;
    owner->down++;
}

static void on_alive(struct key_link *link, void *context)
{
    struct owner *owner = context;
    (void)link;
    owner->alive++;
}

static void on_failed(struct key_link *link, void *context)
{
    struct owner *owner = context;
    (void)link;
    owner->failed++;
}

/* Of a key server whose pages have one key each. */
static bool on_keys(struct key_link *link, struct bytes page, bool first,
                    uint8_t after[static KEY_ID_SKI_SIZE], bool *more, void *context)
{
    struct owner *owner = context;
    (void)link;
    assert_int_equal(page.size, 1 + KEY_ID_SKI_SIZE + 2);
    memcpy(after, page.data + 1, KEY_ID_SKI_SIZE);
    *more = page.data[0] != 0;
    owner->pages++;
    owner->first_pages += first;
    return true;
}

static const struct key_link_handler HANDLER = {
    .up = on_up, .down = on_down, .failed = on_failed, .alive = on_alive, .keys = on_keys};

static int set_up(void **state)
{
    struct test_world *world = *state;
    test_world_configure(world);
    test_world_open_keys(world);
    key_client_free(world->keys); /* the link under test is the only one */
    world->keys = NULL;
    return 0;
}

static int tear_down(void **state)
{
    test_world_close(*state);
    return 0;
}

static struct owner *begin(struct test_world *world, uint64_t timeout, uint64_t idle)
{
    static struct owner owner;
    const struct key_link_settings settings = {
        .base = world->base,
        .context = world->edge_context,
        .server = &world->key_server_configs[0],
        .timeout = timeout,
        .idle = idle,
        .list_every = 600000, /* longer than all pages take */
        .metrics = world->row,
    };
    struct failure why;
    owner = (struct owner){0};
    assert_int_equal(key_link_new(&settings, &HANDLER, &owner, &owner.link, &why), RESULT_OK);
    return &owner;
}

static struct owner *start(struct test_world *world, uint64_t timeout, uint64_t idle)
{
    struct owner *owner = begin(world, timeout, idle);
    WORLD_UNTIL(world, owner->up == 1);
    assert_true(key_link_up(owner->link));
    return owner;
}

static void test_idle_pings(void **state)
{
    struct test_world *world = *state;
    struct owner *owner = start(world, 5000000, 20000);
    WORLD_UNTIL(world, world->server.pings == 5);
    assert_int_equal(owner->down, 0);
    assert_int_equal(world->server.accepted, 1);
    key_link_free(owner->link);
    assert_int_equal(test_world_metric(world, PROXY_KEY_CHANNELS_UP), 0);
}

static void test_idle_and_dead(void **state)
{
    struct test_world *world = *state;
    struct owner *owner = start(world, 50000, 20000);
    world->server.deaf = true;
    WORLD_UNTIL(world, owner->down == 1);
    assert_false(key_link_up(owner->link));
    world->server.deaf = false;
    WORLD_UNTIL(world, owner->up == 2);
    key_link_free(owner->link);
}

/* Asked twice, it is done once; and not before whoever asked has returned. */
static void test_probe(void **state)
{
    struct test_world *world = *state;
    struct owner *owner = start(world, 5000000, 5000000);
    key_link_probe(owner->link);
    key_link_probe(owner->link);
    WORLD_UNTIL(world, owner->alive == 1);
    assert_int_equal(world->server.pings, 1);
    key_link_probe(owner->link);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, owner->up == 2);
    assert_int_equal(owner->down, 1);
    key_link_free(owner->link);
}

static void test_probe_of_the_dead(void **state)
{
    struct test_world *world = *state;
    struct owner *owner = start(world, 50000, 5000000);
    world->server.deaf = true;
    key_link_probe(owner->link);
    assert_int_equal(owner->down, 0);
    WORLD_UNTIL(world, owner->down == 1);
    assert_int_equal(owner->alive, 0);
    key_link_probe(owner->link); /* not up: nothing */
    key_link_free(owner->link);
}

static void test_offers(void **state)
{
    struct test_world *world = *state;
    world->server.opcodes[0] = 0x00;
    world->server.opcodes[1] = 0xff;
    world->server.opcodes[2] = KSSL_OP_SIGN_TLS12;
    world->server.opcode_count = 3;
    struct owner *owner = start(world, 5000000, 5000000);
    for (unsigned opcode = 0; opcode <= 0xff; opcode++)
        assert_int_equal(key_link_offers(owner->link, (uint8_t)opcode),
                         opcode == 0x00 || opcode == 0xff || opcode == KSSL_OP_SIGN_TLS12);
    key_link_free(owner->link);
}

/* Ids 0xFFFF.... that it did not use, or that were answered: none of them keeps the channel up, or ends it.
 */
static void test_stray_answers(void **state)
{
    struct test_world *world = *state;
    struct owner *owner = start(world, 5000000, 20000);
    WORLD_UNTIL(world,
                world->server.pings == 3); /* so hello had 1, pings 2 to 4, of which 4 may be pending */
    test_key_server_pong(&world->server, KEY_LINK_OWN_IDS);
    test_key_server_pong(&world->server, KEY_LINK_OWN_IDS | 99);
    test_key_server_pong(&world->server, KEY_LINK_OWN_IDS | 1);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_UNKNOWN) == 3);
    assert_int_equal(test_world_metric(world, PROXY_KEY_LATE), 0);
    test_key_server_pong(&world->server, KEY_LINK_OWN_IDS | 2);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_LATE) == 1);
    WORLD_UNTIL(world, world->server.pings == 5);
    assert_int_equal(test_world_metric(world, PROXY_KEY_UNKNOWN), 3);
    assert_int_equal(owner->down, 0);
    key_link_free(owner->link);
}

/* All pages, and all of them again after a while: each question has the last key of the page before. */
static void test_lists(void **state)
{
    struct test_world *world = *state;
    assert_true(world->server.key_count > 2);
    world->server.opcodes[world->server.opcode_count++] = KSSL_OP_LIST;
    struct owner *owner = start(world, 5000000, 10000);
    WORLD_UNTIL(world, owner->pages == world->server.key_count);
    assert_int_equal(world->server.lists, world->server.key_count);
    assert_int_equal(owner->first_pages, 1);
    WORLD_UNTIL(world, owner->pages == 3 * world->server.key_count);
    assert_int_equal(owner->first_pages, 3);
    key_link_free(owner->link);
}

/* Only the first time is told. */
static void test_failed(void **state)
{
    struct test_world *world = *state;
    world->server.refuse = true;
    struct owner *owner = begin(world, 5000000, 5000000);
    assert_false(key_link_tried(owner->link));
    WORLD_UNTIL(world, world->server.accepted == 3);
    assert_int_equal(owner->failed, 1);
    assert_true(key_link_tried(owner->link) && !key_link_up(owner->link));
    world->server.refuse = false;
    WORLD_UNTIL(world, owner->up == 1);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, owner->up == 2);
    assert_true(owner->failed == 1 && owner->down == 1);
    key_link_free(owner->link);
}

static uint64_t least_of(unsigned attempts)
{
    return key_link_backoff(attempts, 0);
}

/* The longest, found by trying every part of the range. */
static uint64_t most_of(unsigned attempts)
{
    uint64_t most = 0;
    for (uint32_t chance = 0; chance < 1000000; chance++) {
        uint64_t pause = key_link_backoff(attempts, chance);
        most = pause > most ? pause : most;
    }
    return most;
}

/* From a quarter of the longest pause to all of it; that of 800 ms at most leaves time for a handshake within
 * the second. */
static void test_backoff_is_spread(void **state)
{
    (void)state;
    static const uint64_t longest[] = {19999, 19999, 50000, 100000, 200000, 400000, 800000, 800000, 800000};
    for (unsigned attempts = 0; attempts < COUNT_OF(longest); attempts++) {
        assert_int_equal(most_of(attempts), longest[attempts]);
        assert_int_equal(least_of(attempts), attempts < 2 ? 0 : longest[attempts] / 4);
    }
    assert_in_range(key_link_backoff(UINT32_MAX, UINT32_MAX), 200000, 800000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_idle_pings, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_idle_and_dead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_stray_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_probe, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_probe_of_the_dead, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_offers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lists, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failed, set_up, tear_down),
        cmocka_unit_test(test_backoff_is_spread),
    };
    return cmocka_run_group_tests(tests, test_world_make, test_world_remove);
}
