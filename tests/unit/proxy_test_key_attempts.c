/* Several key servers: whom a request goes to when the first one is slow, wrong, refuses or goes away. The
 * first has the best priority number, so that it is asked first. */
#include "common/tls_message.h"
#include "proxy/key_client_private.h"
#include "tests/unit/check.h"
#include "tests/unit/support/test_world.h"

enum { OPERATIONS_MAX = 128, KEY_P256 = 1, MILLISECOND = 1000 };

static struct key_operation operations[OPERATIONS_MAX];
static unsigned done_count;
static void (*when_done)(struct test_world *world); /* once */
static struct test_world *done_world;

static void on_done(struct key_operation *operation)
{
    void (*then)(struct test_world *) = when_done;
    assert_false(operation->pending);
    done_count++;
    when_done = NULL;
    if (then != NULL)
        then(done_world);
}

static int set_up(void **state)
{
    memset(operations, 0, sizeof operations);
    done_count = 0;
    when_done = NULL;
    struct test_world *world = done_world = *state;
    test_world_configure(world);
    world->config.key_server_count = 2;
    world->config.key_channel.hedge_share = 5;
    world->config.limits.handshakes = OPERATIONS_MAX;
    for (unsigned i = 0; i < WORLD_KEY_SERVERS; i++) {
        world->key_server_configs[i].mode = KEY_MODE_TBS;
        world->key_server_configs[i].priority = i;
    }
    return 0;
}

static int tear_down(void **state)
{
    test_world_close(*state);
    return 0;
}

static bool all_up(const struct test_world *world)
{
    return test_world_metric(world, PROXY_KEY_CHANNELS_UP) == (int64_t)world->config.key_server_count;
}

static void open_up(struct test_world *world)
{
    test_world_open_keys(world);
    WORLD_UNTIL(world, all_up(world));
}

static struct key_operation operation_of(const struct test_world *world, struct bytes content)
{
    return (struct key_operation){
        .key = &world->server.keys[KEY_P256].id, .scheme = 0x0403, .content = content, .done = on_done};
}

/* Its content lives as long as the test. */
static struct key_operation *operation_make(const struct test_world *world, unsigned number)
{
    static uint8_t contents[OPERATIONS_MAX][TLS_CERTIFICATE_VERIFY_MAX];
    uint8_t hash[32] = {(uint8_t)number};
    struct writer to = writer_of(contents[number], sizeof contents[number]);
    assert_true(tls_certificate_verify_write(&to, bytes_of(hash, sizeof hash)));
    operations[number] = operation_of(world, writer_bytes(&to));
    return &operations[number];
}

static void sign(struct test_world *world, unsigned number)
{
    assert_int_equal(key_client_sign(world->keys, operation_make(world, number)), RESULT_OK);
}

static void pass_time(struct test_world *world, uint64_t microseconds)
{
    const uint64_t until = clock_now() + microseconds;
    WORLD_UNTIL(world, clock_now() >= until);
}

static void expect_signed_by(struct test_world *world, unsigned number, const char *server)
{
    WORLD_UNTIL(world, !operations[number].pending);
    assert_int_equal(operations[number].outcome, KEY_OUTCOME_OK);
    assert_string_equal(operations[number].server, server);
}

static void expect_strays(struct test_world *world, int64_t late)
{
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_LATE) >= late);
    assert_int_equal(test_world_metric(world, PROXY_KEY_LATE), late);
    assert_int_equal(test_world_metric(world, PROXY_KEY_UNKNOWN), 0);
}

/* ---- Hedges. */

static void open_hedged(struct test_world *world)
{
    world->config.key_channel.hedge = 20 * MILLISECOND;
    open_up(world);
    world->server.hold = true;
}

static void test_hedge_wins(void **state)
{
    struct test_world *world = *state;
    open_hedged(world);
    sign(world, 0);
    expect_signed_by(world, 0, "second");
    assert_true(operations[0].duration >= 20 * MILLISECOND);
    assert_int_equal(test_world_metric(world, PROXY_KEY_HEDGED), 1);
    assert_int_equal(test_world_metric(world, PROXY_KEY_HEDGES_WON), 1);
    test_key_server_answer(&world->server, 0, 0);
    expect_strays(world, 1);
    assert_int_equal(done_count, 1);
}

static void hold_both(struct test_world *world)
{
    world->others[0].hold = true;
    sign(world, 0);
    WORLD_UNTIL(world, world->others[0].held_count == 1);
}

static void test_hedge_loses(void **state)
{
    struct test_world *world = *state;
    open_hedged(world);
    hold_both(world);
    test_key_server_answer(&world->server, 0, 0);
    expect_signed_by(world, 0, "keys");
    assert_int_equal(test_world_metric(world, PROXY_KEY_HEDGES_WON), 0);
    test_key_server_answer(&world->others[0], 0, 0);
    expect_strays(world, 1);
    test_key_server_answer(&world->others[0], 0, 0);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_UNKNOWN) == 1);
}

/* Whoever was asked only to be quick does not spoil what the first can do. */
static void test_hedge_refused(void **state)
{
    struct test_world *world = *state;
    open_hedged(world);
    world->others[0].error = KSSL_ERROR_POLICY;
    sign(world, 0);
    WORLD_UNTIL(world, world->others[0].requests == 1);
    pass_time(world, 10 * MILLISECOND);
    assert_true(operations[0].pending);
    test_key_server_release(&world->server);
    expect_signed_by(world, 0, "keys");
}

static void test_hedge_refused_and_first_fails(void **state)
{
    struct test_world *world = *state;
    world->config.key_server_count = 3;
    open_hedged(world);
    world->server.error = KSSL_ERROR_INTERNAL;
    world->others[0].error = KSSL_ERROR_POLICY;
    sign(world, 0);
    WORLD_UNTIL(world, world->others[0].requests == 1);
    pass_time(world, 10 * MILLISECOND);
    test_key_server_release(&world->server);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].outcome, KEY_OUTCOME_ERROR);
    assert_int_equal(operations[0].error, KSSL_ERROR_POLICY);
    assert_string_equal(operations[0].server, "second");
    assert_int_equal(world->others[1].requests, 0);
}

static void test_cancelled_while_hedged(void **state)
{
    struct test_world *world = *state;
    open_hedged(world);
    hold_both(world);
    key_client_cancel(world->keys, &operations[0]);
    assert_int_equal(key_client_pending(world->keys), 0);
    test_key_server_answer(&world->server, 0, 0);
    test_key_server_answer(&world->others[0], 0, 0);
    expect_strays(world, 2);
    assert_int_equal(done_count, 0);
}

static void test_hedges_end_with_their_budget(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.hedge_share = 1;
    open_hedged(world);
    for (unsigned i = 0; i < 100; i++)
        sign(world, i);
    WORLD_UNTIL(world, world->server.held_count + world->others[0].requests >= 100);
    pass_time(world, 100 * MILLISECOND);
    const unsigned first = (unsigned)world->server.held_count;
    assert_int_equal(test_world_metric(world, PROXY_KEY_HEDGED), first < 64 ? first : 64);
    test_key_server_release(&world->server);
    WORLD_UNTIL(world, done_count == 100);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(operations[i].outcome, KEY_OUTCOME_OK);
}

/* Without a time of its own: later than the answers were lately. */
static void test_hedge_auto(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.hedge = 0;
    world->config.key_channel.attempt_timeout = 10000 * MILLISECOND;
    world->config.key_channel.timeout = 20000 * MILLISECOND;
    open_up(world);
    for (unsigned i = 0; i < 40; i++) {
        sign(world, i);
        WORLD_UNTIL(world, !operations[i].pending);
    }
    const int64_t hedged = test_world_metric(world, PROXY_KEY_HEDGED); /* of those that were quick, perhaps */
    world->server.hold = true;
    sign(world, 40);
    expect_signed_by(world, 40, "second");
    assert_int_equal(test_world_metric(world, PROXY_KEY_HEDGED), hedged + 1);
    assert_true(operations[40].duration < 5000 * MILLISECOND);
}

static void test_no_hedges_without_a_share(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.hedge_share = 0;
    world->config.key_channel.attempt_timeout = 200 * MILLISECOND;
    open_hedged(world);
    sign(world, 0);
    expect_signed_by(world, 0, "second"); /* once it is overdue */
    assert_int_equal(test_world_metric(world, PROXY_KEY_HEDGED), 0);
    assert_int_equal(test_world_metric(world, PROXY_KEY_RETRIED), 1);
    assert_true(operations[0].duration >= 200 * MILLISECOND);
}

/* ---- Overdue. */

static void open_impatient(struct test_world *world, size_t servers)
{
    world->config.key_server_count = servers;
    world->config.key_channel.attempt_timeout = 50 * MILLISECOND;
    open_up(world);
    world->server.hold = true;
}

static void test_overdue(void **state)
{
    struct test_world *world = *state;
    open_impatient(world, 2);
    sign(world, 0);
    expect_signed_by(world, 0, "second");
    assert_true(operations[0].duration >= 50 * MILLISECOND);
    assert_int_equal(test_world_metric(world, PROXY_KEY_RETRIED), 1);
    test_key_server_answer(&world->server, 0, 0);
    expect_strays(world, 1);
}

static void test_overdue_but_first(void **state)
{
    struct test_world *world = *state;
    open_impatient(world, 2);
    hold_both(world);
    test_key_server_answer(&world->server, 0, 0);
    expect_signed_by(world, 0, "keys");
}

/* What was given up as overdue does not count as being asked when the second fails. */
static void test_overdue_and_second_fails(void **state)
{
    struct test_world *world = *state;
    open_impatient(world, 3);
    world->others[0].error = KSSL_ERROR_INTERNAL;
    sign(world, 0);
    expect_signed_by(world, 0, "third");
}

static void test_overdue_and_second_comes_back(void **state)
{
    struct test_world *world = *state;
    open_impatient(world, 2);
    hold_both(world);
    test_key_server_cut(&world->others[0]);
    WORLD_UNTIL(world, world->others[0].requests == 2);
    test_key_server_release(&world->others[0]);
    expect_signed_by(world, 0, "second");
}

/* ---- What is asked elsewhere, and what is not. */

static const struct {
    const char *name;
    uint8_t error;
    size_t bad_size;
    bool wrong_content, moves;
} ANSWERS[] = {
    {"key not found", KSSL_ERROR_KEY_NOT_FOUND, 0, false, true},
    {"internal", KSSL_ERROR_INTERNAL, 0, false, true},
    {"overloaded", KSSL_ERROR_OVERLOADED, 0, false, true},
    {"signature of a wrong size", 0, 500, false, true},
    {"wrong signature", 0, 0, true, true},
    {"policy", KSSL_ERROR_POLICY, 0, false, false},
    {"content", KSSL_ERROR_CONTENT, 0, false, false},
    {"rate", KSSL_ERROR_RATE, 0, false, false},
    {"replay", KSSL_ERROR_REPLAY, 0, false, false},
    {"crypto", KSSL_ERROR_CRYPTO, 0, false, false},
    {"bad opcode", KSSL_ERROR_BAD_OPCODE, 0, false, false},
    {"format", KSSL_ERROR_FORMAT, 0, false, false},
    {"unknown", 0x99, 0, false, false},
};

static void ask_and_compare(struct test_world *world, size_t row, struct signature_check *check)
{
    const char *name = ANSWERS[row].name;
    world->server.error = ANSWERS[row].error;
    world->server.bad_size = ANSWERS[row].bad_size;
    world->server.wrong_content = ANSWERS[row].wrong_content;
    operation_make(world, 0)->check = check;
    CHECK(name, key_client_sign(world->keys, &operations[0]) == RESULT_OK);
    WORLD_UNTIL(world, !operations[0].pending);
    CHECK(name, world->server.requests == 1);
    CHECK(name, world->others[0].requests == (ANSWERS[row].moves ? 1 : 0));
    CHECK(name, operations[0].outcome == (ANSWERS[row].moves ? KEY_OUTCOME_OK : KEY_OUTCOME_ERROR));
    CHECK(name, operations[0].error == (ANSWERS[row].moves ? 0 : ANSWERS[row].error));
    CHECK(name, strcmp(operations[0].server, ANSWERS[row].moves ? "second" : "keys") == 0);
    CHECK(name, test_world_metric(world, PROXY_KEY_MOVED) == (ANSWERS[row].moves ? 1 : 0));
}

static void test_answers(void **state)
{
    struct test_world *world = *state;
    for (size_t i = 0; i < COUNT_OF(ANSWERS); i++) {
        open_up(world);
        struct signature_check *check =
            signature_check_new(NULL, world->server.keys[KEY_P256].key, KEY_TYPE_P256);
        ask_and_compare(world, i, check);
        signature_check_free(check);
        if (i + 1 < COUNT_OF(ANSWERS))
            test_world_close(world);
    }
}

static void test_overloaded_once(void **state)
{
    struct test_world *world = *state;
    world->config.key_server_count = 3;
    world->config.key_channel.hedge = 200 * MILLISECOND;
    open_up(world);
    world->server.error = world->others[0].error = KSSL_ERROR_OVERLOADED;
    world->others[0].hold = true;
    sign(world, 0);
    WORLD_UNTIL(world, world->others[0].held_count == 1);
    pass_time(world, 300 * MILLISECOND); /* later than others are hedged */
    test_key_server_release(&world->others[0]);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].error, KSSL_ERROR_OVERLOADED);
    assert_int_equal(world->others[1].requests, 0);
    const struct key_server *servers = world->keys->pool.servers;
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(servers[i].share, i < 2 ? servers[2].share / 2 : servers[2].share);
        assert_int_equal(servers[i].breaker, KEY_BREAKER_CLOSED);
    }
}

/* The standby takes over, without being asked for everything only after the other was. */
static void test_overloaded_before_a_standby(void **state)
{
    enum { REQUESTS = 1000 };
    struct test_world *world = *state;
    open_up(world);
    world->server.error = KSSL_ERROR_OVERLOADED;
    for (unsigned i = 0; i < REQUESTS; i++) {
        sign(world, 0);
        expect_signed_by(world, 0, "second");
    }
    assert_int_equal(world->others[0].requests, REQUESTS);
    assert_in_range(world->server.requests, 1, REQUESTS / 10);
}

/* Where all are in trouble, asking another would double what they have to do. */
static void check_no_storm(struct test_world *world, uint8_t error)
{
    enum { REQUESTS = 1000, BURST = 64, SHARE = 20 * REQUESTS / 1000, FREE = 10 };
    open_up(world);
    world->server.error = world->others[0].error = error;
    const uint64_t began = clock_now();
    for (unsigned i = 0; i < REQUESTS; i++) {
        sign(world, 0);
        WORLD_UNTIL(world, done_count == i + 1);
        assert_int_equal(operations[0].error, error);
    }
    const uint64_t most = FREE + BURST + SHARE + (clock_now() - began) / 1000000 + 1;
    const uint64_t moved = (uint64_t)test_world_metric(world, PROXY_KEY_MOVED);
    assert_int_equal(world->server.requests + world->others[0].requests, REQUESTS + moved);
    assert_in_range(moved, BURST, most);
}

static void test_overload_is_no_storm(void **state)
{
    check_no_storm(*state, KSSL_ERROR_OVERLOADED);
}

/* That the only one that has the key is full is no reason to believe the others. */
static void test_not_found_while_its_holder_is_full(void **state)
{
    enum { REQUESTS = 120 };
    struct test_world *world = *state;
    world->config.key_channel.in_flight = 1;
    world->config.key_channel.hedge_share = 0;
    world->config.key_channel.attempt_timeout = 20000 * MILLISECOND;
    world->config.key_channel.timeout = 20000 * MILLISECOND;
    open_up(world);
    world->others[0].error = KSSL_ERROR_KEY_NOT_FOUND;
    world->server.hold = true;
    for (unsigned i = 0; i < REQUESTS; i++)
        sign(world, i);
    WORLD_UNTIL(world, world->others[0].requests == REQUESTS - 1);
    assert_int_equal(done_count, 0);
    test_key_server_release(&world->server);
    for (unsigned i = 0; i < REQUESTS; i++)
        expect_signed_by(world, i, "keys");
}

static void test_errors_are_no_storm(void **state)
{
    check_no_storm(*state, KSSL_ERROR_INTERNAL);
}

/* A tenth, with the default hedge_share. */
static void test_shares(void **state)
{
    struct test_world *world = *state;
    open_up(world);
    const struct key_client *keys = world->keys;
    assert_int_equal(keys->hedge_budget.share, 50);
    assert_int_equal(keys->hedge_budget.share + keys->retry_budget.share + keys->move_budget.share, 100);
}

/* There is nobody else: nothing moves. */
static void test_a_lone_one_that_fails(void **state)
{
    struct test_world *world = *state;
    world->config.key_server_count = 1;
    open_up(world);
    world->server.error = KSSL_ERROR_OVERLOADED;
    sign(world, 0);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].error, KSSL_ERROR_OVERLOADED);
    assert_int_equal(test_world_metric(world, PROXY_KEY_MOVED), 0);
}

static void test_all_refuse(void **state)
{
    struct test_world *world = *state;
    open_up(world);
    world->server.error = KSSL_ERROR_INTERNAL;
    world->others[0].error = KSSL_ERROR_KEY_NOT_FOUND;
    sign(world, 0);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].error, KSSL_ERROR_KEY_NOT_FOUND);
    assert_string_equal(operations[0].server, "second");
}

/* ---- Channels that are lost. */

static void test_loss_moves(void **state)
{
    struct test_world *world = *state;
    open_up(world);
    world->server.hold = true;
    for (unsigned i = 0; i < 10; i++)
        sign(world, i);
    WORLD_UNTIL(world, world->server.held_count + world->others[0].requests == 10);
    const unsigned lost = (unsigned)world->server.held_count;
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, done_count == 10);
    assert_true(lost > 0);
    assert_int_equal(test_world_metric(world, PROXY_KEY_RESENT), lost);
    assert_int_equal(world->others[0].requests, 10);
}

/* A key server that ends the channel after each answer is of use, however many were asked over it. */
static void test_loss_after_each_answer(void **state)
{
    struct test_world *world = *state;
    world->config.key_server_count = 1;
    open_up(world);
    world->server.hold = true;
    for (unsigned i = 0; i < 10; i++)
        sign(world, i);
    for (unsigned i = 0, requests = 0; i < 10; i++) {
        requests += 10 - i;
        WORLD_UNTIL(world, world->server.requests == requests);
        test_key_server_answer(&world->server, world->server.held_count - 1, 0);
        WORLD_UNTIL(world, done_count == i + 1);
        test_key_server_cut(&world->server);
    }
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(operations[i].outcome, KEY_OUTCOME_OK);
}

/* What was lost goes before what was never sent. */
static void test_loss_keeps_the_order(void **state)
{
    struct test_world *world = *state;
    world->config.key_server_count = 1;
    world->config.key_channel.in_flight = 2;
    open_up(world);
    world->server.hold = true;
    for (unsigned i = 0; i < 5; i++)
        sign(world, i);
    WORLD_UNTIL(world, world->server.held_count == 2);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, world->server.held_count == 4);
    for (unsigned i = 0; i < 4; i++)
        assert_string_equal(world->server.held[i].request_id, operations[i % 2].request_id);
}

static void take_away(struct test_key_server *server)
{
    test_key_server_stop(server);
    test_key_server_cut(server);
}

static void test_both_lost(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.fail_fast = 100 * MILLISECOND;
    open_up(world);
    world->server.hold = world->others[0].hold = true;
    for (unsigned i = 0; i < 5; i++)
        sign(world, i);
    WORLD_UNTIL(world, world->server.held_count + world->others[0].held_count == 5);
    take_away(&world->server);
    take_away(&world->others[0]);
    WORLD_UNTIL(world, !key_client_ready(world->keys));
    WORLD_UNTIL(world, done_count == 5);
    sign(world, 5);
    WORLD_UNTIL(world, done_count == 6);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(operations[i].outcome, KEY_OUTCOME_NO_SERVER);
    assert_in_range(operations[5].duration, 100 * MILLISECOND, 2000 * MILLISECOND);
}

static void test_before_any_is_up(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.fail_fast = 100 * MILLISECOND;
    test_world_open_keys(world);
    take_away(&world->server);
    take_away(&world->others[0]);
    sign(world, 0);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].outcome, KEY_OUTCOME_NO_SERVER);
    assert_true(operations[0].duration >= 100 * MILLISECOND);
}

/* Full is not down: it waits, and is sent when there is room. */
static void test_full_is_not_down(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.fail_fast = 20 * MILLISECOND;
    world->config.key_channel.in_flight = 1;
    open_up(world);
    world->server.hold = world->others[0].hold = true;
    for (unsigned i = 0; i < 3; i++)
        sign(world, i);
    WORLD_UNTIL(world, world->server.held_count == 1 && world->others[0].held_count == 1);
    pass_time(world, 100 * MILLISECOND);
    assert_int_equal(done_count, 0);
    test_key_server_release(&world->others[0]);
    expect_signed_by(world, 2, "second");
}

static void lose_second(struct test_world *world)
{
    open_up(world);
    take_away(&world->others[0]);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_CHANNELS_UP) == 1);
    world->server.error = KSSL_ERROR_KEY_NOT_FOUND;
    sign(world, 0);
    WORLD_UNTIL(world, world->server.requests == 1);
    pass_time(world, 10 * MILLISECOND);
    assert_true(operations[0].pending);
}

/* What only the other can do waits for it, and keeps nobody from the one that is there. */
static void test_who_waits_is_not_in_the_way(void **state)
{
    struct test_world *world = *state;
    lose_second(world);
    world->server.error = 0;
    for (unsigned i = 1; i < 20; i++)
        sign(world, i);
    WORLD_UNTIL(world, done_count == 19);
    assert_true(operations[0].pending);
    test_key_server_start(&world->others[0]);
    expect_signed_by(world, 0, "second");
}

static void test_waits_in_vain(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.timeout = world->config.key_channel.attempt_timeout = 300 * MILLISECOND;
    lose_second(world);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].error, KSSL_ERROR_KEY_NOT_FOUND);
    assert_true(operations[0].duration >= 300 * MILLISECOND);
}

static void cancel_and_sign(struct test_world *world)
{
    for (unsigned i = 0; i < 8; i++)
        key_client_cancel(world->keys, &operations[i]);
    sign(world, 20);
}

/* done may end the others, and begin new ones. */
static void test_done_changes_everything(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.fail_fast = 20 * MILLISECOND;
    open_up(world);
    world->server.hold = world->others[0].hold = true;
    for (unsigned i = 0; i < 10; i++)
        sign(world, i);
    take_away(&world->server);
    take_away(&world->others[0]);
    when_done = cancel_and_sign;
    WORLD_UNTIL(world, done_count == 4); /* 0, 8, 9, 20 */
    assert_int_equal(operations[20].outcome, KEY_OUTCOME_NO_SERVER);
    assert_int_equal(key_client_pending(world->keys), 0);
}

/* ---- Modes. */

/* Those of a mode that cannot have it are passed over, all of them; what is sent is what the first could. */
static void test_mode_without_a_transcript(void **state)
{
    struct test_world *world = *state;
    world->config.key_server_count = 3;
    world->key_server_configs[1].mode = world->key_server_configs[2].mode = KEY_MODE_TRANSCRIPT;
    open_up(world);
    world->server.error = KSSL_ERROR_INTERNAL;
    sign(world, 0);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].error, KSSL_ERROR_INTERNAL);
    assert_int_equal(world->others[0].requests + world->others[1].requests, 0);
}

static void test_mode_of_the_second(void **state)
{
    struct test_world *world = *state;
    world->key_server_configs[0].mode = KEY_MODE_TRANSCRIPT;
    open_up(world);
    sign(world, 0);
    expect_signed_by(world, 0, "second");
    assert_int_equal(world->server.requests, 0);
}

/* The SNI is borrowed only until key_client_sign returns. */
static void test_mode_changes_without_the_sni(void **state)
{
    struct test_world *world = *state;
    static const uint8_t content[64 + 36] = {[64] = 3, 0, 0x1d, 32};
    world->key_server_configs[1].mode = KEY_MODE_TRANSCRIPT;
    open_up(world);
    world->server.error = KSSL_ERROR_INTERNAL;
    uint8_t *sni = exact_copy(OCTETS("p256.example"));
    operations[0] = operation_of(world, bytes_of(content, sizeof content));
    operations[0].sni = bytes_of(sni, strlen("p256.example"));
    assert_int_equal(key_client_sign(world->keys, &operations[0]), RESULT_OK);
    free(sni);
    expect_signed_by(world, 0, "second");
    assert_string_equal(world->others[0].last.sni, "p256.example");
}

/* ---- Breakers. */

static uint32_t breaker(const struct test_world *world)
{
    struct key_server_status status[WORLD_KEY_SERVERS];
    key_client_status(world->keys, status);
    return status[0].breaker;
}

static void test_breaker(void **state)
{
    struct test_world *world = *state;
    open_up(world);
    world->server.error = KSSL_ERROR_INTERNAL;
    for (unsigned i = 0; i < 3; i++) {
        sign(world, i);
        expect_signed_by(world, i, "second");
    }
    assert_int_equal(world->server.requests, 3);
    assert_true(breaker(world) != 0);
    WORLD_UNTIL(world, world->server.pings > 0);
    sign(world, 3); /* the pause is not over */
    expect_signed_by(world, 3, "second");
    world->server.error = 0;
    for (unsigned i = 4; breaker(world) != 0; i = i % 100 + 4) {
        pass_time(world, 20 * MILLISECOND);
        sign(world, i);
        WORLD_UNTIL(world, !operations[i].pending);
        assert_int_equal(operations[i].outcome, KEY_OUTCOME_OK);
    }
    sign(world, 0);
    expect_signed_by(world, 0, "keys");
}

/* ---- What the key server tells of itself. */

/* What cannot be true, as it is longer than the answer took, is not counted. */
static void test_stages(void **state)
{
    struct test_world *world = *state;
    world->config.key_server_count = 1;
    open_up(world);
    world->server.has_timing = true;
    world->server.timing = (struct kssl_timing){.queue = 1, .sign = 2};
    sign(world, 0);
    WORLD_UNTIL(world, !operations[0].pending);
    for (size_t stage = PROXY_KEY_STAGE_QUEUE; stage <= PROXY_KEY_STAGE_WIRE; stage++)
        assert_int_equal(test_world_metric(world, stage), 1);
    world->server.timing.queue = 60000000;
    sign(world, 1);
    WORLD_UNTIL(world, !operations[1].pending);
    for (size_t stage = PROXY_KEY_STAGE_QUEUE; stage <= PROXY_KEY_STAGE_WIRE; stage++)
        assert_int_equal(test_world_metric(world, stage), 1);
}

/* ---- Ticket keys. */

static unsigned told_offered, told_missing;

static void on_tickets_up(const char *server, bool offered, void *owner)
{
    (void)server, (void)owner;
    ++*(offered ? &told_offered : &told_missing);
}

static void test_ticket_keys_of_one(void **state)
{
    struct test_world *world = *state;
    static const struct key_client_ticket_handler HANDLER = {.up = on_tickets_up};
    told_offered = told_missing = 0;
    test_world_open_keys(world);
    world->server.opcodes[world->server.opcode_count++] = KSSL_OP_TICKET_KEYS;
    key_client_watch_ticket_keys(world->keys, &HANDLER, world);
    WORLD_UNTIL(world, all_up(world));
    test_key_server_cut(&world->others[0]);
    WORLD_UNTIL(world, world->others[0].hellos == 2 && all_up(world));
    assert_true(told_offered >= 2);
    assert_int_equal(told_missing, 0);
}

static void test_ticket_keys_of_none(void **state)
{
    struct test_world *world = *state;
    static const struct key_client_ticket_handler HANDLER = {.up = on_tickets_up};
    told_offered = told_missing = 0;
    test_world_open_keys(world);
    key_client_watch_ticket_keys(world->keys, &HANDLER, world);
    WORLD_UNTIL(world, all_up(world));
    assert_int_equal(told_offered, 0);
    assert_int_equal(told_missing, 1);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_hedge_wins),
        TEST(test_hedge_loses),
        TEST(test_hedge_refused),
        TEST(test_hedge_refused_and_first_fails),
        TEST(test_cancelled_while_hedged),
        TEST(test_hedges_end_with_their_budget),
        TEST(test_hedge_auto),
        TEST(test_no_hedges_without_a_share),
        TEST(test_overdue),
        TEST(test_overdue_but_first),
        TEST(test_overdue_and_second_fails),
        TEST(test_overdue_and_second_comes_back),
        TEST(test_answers),
        TEST(test_overloaded_once),
        TEST(test_overloaded_before_a_standby),
        TEST(test_overload_is_no_storm),
        TEST(test_errors_are_no_storm),
        TEST(test_not_found_while_its_holder_is_full),
        TEST(test_shares),
        TEST(test_a_lone_one_that_fails),
        TEST(test_all_refuse),
        TEST(test_loss_moves),
        TEST(test_loss_after_each_answer),
        TEST(test_loss_keeps_the_order),
        TEST(test_both_lost),
        TEST(test_before_any_is_up),
        TEST(test_full_is_not_down),
        TEST(test_who_waits_is_not_in_the_way),
        TEST(test_waits_in_vain),
        TEST(test_done_changes_everything),
        TEST(test_mode_without_a_transcript),
        TEST(test_mode_of_the_second),
        TEST(test_mode_changes_without_the_sni),
        TEST(test_breaker),
        TEST(test_stages),
        TEST(test_ticket_keys_of_one),
        TEST(test_ticket_keys_of_none),
    };
    return cmocka_run_group_tests(tests, test_world_make, test_world_remove);
}
