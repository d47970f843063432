/* The key client and its channel to a key server, without any handshake around. */
#include "proxy/key_client.h"

#include "common/tls_message.h"
#include "tests/unit/check.h"
#include "tests/unit/support/test_world.h"

enum { OPERATIONS_MAX = 64, KEY_P256 = 1 };

static struct key_operation operations[OPERATIONS_MAX];
static unsigned done_count;

static void on_done(struct key_operation *operation)
{
    assert_false(operation->pending);
    assert_ptr_equal(operation->owner, &done_count);
    done_count++;
}

static int set_up(void **state)
{
    memset(operations, 0, sizeof operations);
    done_count = 0;
    struct test_world *world = *state;
    test_world_configure(world);
    world->key_server_configs[0].mode = KEY_MODE_TBS;
    return 0;
}

static int tear_down(void **state)
{
    test_world_close(*state);
    return 0;
}

static void open_ready(struct test_world *world)
{
    test_world_open_keys(world);
    WORLD_UNTIL(world, key_client_ready(world->keys));
}

/* Signs some content of TLS 1.3; each number has its own. */
static enum result sign_as(struct test_world *world, unsigned number, bool is_test)
{
    uint8_t hash[32] = {(uint8_t)number}, content[TLS_CERTIFICATE_VERIFY_MAX];
    struct writer to = writer_of(content, sizeof content);
    assert_true(tls_certificate_verify_write(&to, bytes_of(hash, sizeof hash)));
    struct key_operation *operation = &operations[number];
    *operation = (struct key_operation){
        .key = &world->server.keys[KEY_P256].id,
        .scheme = 0x0403,
        .content = writer_bytes(&to),
        .done = on_done,
        .owner = &done_count,
        .is_test = is_test,
    };
    return key_client_sign(world->keys, operation);
}

static enum result sign(struct test_world *world, unsigned number)
{
    return sign_as(world, number, false);
}

static void sign_some(struct test_world *world, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++)
        assert_int_equal(sign(world, i), RESULT_OK);
}

/* A TLS 1.2 content, with X25519. */
static enum result sign_tls12(struct test_world *world, unsigned number)
{
    uint8_t content[64 + 36] = {[64] = 3, 0, 0x1d, 32};
    operations[number] = (struct key_operation){
        .key = &world->server.keys[KEY_P256].id,
        .scheme = 0x0403,
        .content = bytes_of(content, sizeof content),
        .done = on_done,
        .owner = &done_count,
    };
    return key_client_sign(world->keys, &operations[number]);
}

/* ---- */

static void test_pipelined(void **state)
{
    struct test_world *world = *state;
    open_ready(world);
    sign_some(world, 0, 50);
    assert_int_equal(done_count, 0);
    assert_int_equal(key_client_pending(world->keys), 50);
    WORLD_UNTIL(world, done_count == 50);
    for (unsigned i = 0; i < 50; i++) {
        assert_int_equal(operations[i].result, RESULT_OK);
        assert_true(operations[i].signature_size > 60 && operations[i].duration > 0);
        assert_string_equal(operations[i].server, "keys");
        assert_true(i == 0 || strcmp(operations[i].request_id, operations[i - 1].request_id) != 0);
    }
    assert_int_equal(key_client_pending(world->keys), 0);
}

static void test_before_the_channel_is_up(void **state)
{
    struct test_world *world = *state;
    test_world_open_keys(world);
    assert_false(key_client_ready(world->keys));
    sign_some(world, 0, 5);
    assert_int_equal(sign_tls12(world, 5), RESULT_OK);
    WORLD_UNTIL(world, done_count == 6);
    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(operations[i].result, RESULT_OK);
    assert_int_equal(world->server.last.opcode, KSSL_OP_SIGN_TLS12);
}

static void test_in_flight_bound(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.in_flight = 8;
    open_ready(world);
    world->server.hold = true;
    sign_some(world, 0, 50);
    for (unsigned answered = 0; answered < 50; answered++) {
        unsigned expected = answered + 8 < 50 ? answered + 8 : 50;
        WORLD_UNTIL(world, world->server.requests == expected);
        test_key_server_answer(&world->server, answered, 0);
    }
    WORLD_UNTIL(world, done_count == 50);
}

/* What was cancelled is still on the wire, and counts until it is answered. */
static void test_cancelled_in_flight(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.in_flight = 2;
    open_ready(world);
    world->server.hold = true;
    sign_some(world, 0, 3);
    WORLD_UNTIL(world, world->server.requests == 2);
    key_client_cancel(world->keys, &operations[0]);
    key_client_cancel(world->keys, &operations[1]);
    key_client_cancel(world->keys, &operations[1]); /* not pending: nothing */
    assert_int_equal(key_client_pending(world->keys), 1);
    assert_int_equal(test_world_metric(world, PROXY_KEY_PENDING), 1);
    test_key_server_answer(&world->server, 0, 0);
    WORLD_UNTIL(world, world->server.requests == 3);
    test_key_server_answer(&world->server, 2, 0);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[2].result, RESULT_OK);
    assert_int_equal(test_world_metric(world, PROXY_KEY_LATE), 1);
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_CANCELLED), 2);
}

/* ... or until its time is up: a key server that answers nothing cannot stop the client for good. */
static void test_cancelled_and_never_answered(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.in_flight = 1;
    world->config.key_channel.timeout = 1000000;
    open_ready(world);
    world->server.hold = true;
    sign_some(world, 0, 1);
    WORLD_UNTIL(world, world->server.requests == 1);
    key_client_cancel(world->keys, &operations[0]);
    WORLD_UNTIL(world, world->server.pings >= 1); /* so that the next one is younger */
    sign_some(world, 1, 2);
    WORLD_UNTIL(world, world->server.requests == 2);
    test_key_server_answer(&world->server, 1, 0);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[1].result, RESULT_OK);
}

static void test_refusals(void **state)
{
    struct test_world *world = *state;
    world->config.limits.handshakes = 4;
    open_ready(world);
    world->server.hold = true;
    sign_some(world, 0, 4);
    assert_int_equal(sign(world, 4), RESULT_LIMIT);
    assert_string_equal(operations[4].reason, "limits.handshakes wait for a signature");
    key_client_cancel(world->keys, &operations[0]);
    operations[4].content = OCTETS("hello");
    assert_int_equal(key_client_sign(world->keys, &operations[4]), RESULT_PROTOCOL);
    assert_string_equal(operations[4].reason, "not a content that a TLS server signs");
    assert_int_equal(sign(world, 4), RESULT_OK);
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_REFUSED), 1);
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_TOO_MANY), 1);
    assert_int_equal(key_client_pending(world->keys), 4);
}

static void test_operation_not_offered(void **state)
{
    struct test_world *world = *state;
    test_world_open_keys(world);
    world->server.opcode_count = 2; /* no 0x62 */
    sign_some(world, 0, 1);
    assert_int_equal(sign_tls12(world, 1), RESULT_OK); /* not known yet */
    assert_int_equal(sign_tls12(world, 2), RESULT_OK);
    WORLD_UNTIL(world, done_count == 3);
    assert_int_equal(operations[0].result, RESULT_OK);
    assert_int_equal(operations[1].result, RESULT_CONFIG);
    assert_string_equal(operations[2].reason, "operation not offered by key server");
    assert_int_equal(sign_tls12(world, 3), RESULT_CONFIG);
    assert_int_equal(world->server.requests, 1);
}

static void test_timeout_in_order(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.timeout = 500000;
    open_ready(world);
    world->server.hold = true;
    sign_some(world, 0, 20);
    WORLD_UNTIL(world, done_count == 20);
    for (unsigned i = 0; i < 20; i++) {
        assert_int_equal(operations[i].result, RESULT_PEER);
        assert_string_equal(operations[i].reason, "key server timeout");
        assert_true(operations[i].duration >= 500000);
    }
    world->server.held_count = 0;
    world->server.hold = false;
    sign_some(world, 0, 1);
    WORLD_UNTIL(world, done_count == 21);
    assert_int_equal(operations[0].result, RESULT_OK);
}

/* A house full of handshakes that end at the same time leaves the loop to others in between. */
static void test_timeouts_in_turns(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.timeout = 100000;
    open_ready(world);
    world->server.hold = true;
    sign_some(world, 0, 60);
    uint64_t signed_at = clock_now();
    while (clock_now() <= signed_at + world->config.key_channel.timeout)
        ; /* by now all of them are due */
    WORLD_UNTIL(world, done_count > 0);
    assert_true(done_count < 60);
    WORLD_UNTIL(world, done_count == 60);
}

/* ---- Answers that nobody waits for. All requests use the one slot, in generations 0, 1, 2 ... */

static void expect_strays(struct test_world *world, int64_t late, int64_t unknown)
{
    WORLD_UNTIL(world,
                test_world_metric(world, PROXY_KEY_LATE) + test_world_metric(world, PROXY_KEY_UNKNOWN) ==
                    late + unknown);
    assert_int_equal(test_world_metric(world, PROXY_KEY_LATE), late);
    assert_int_equal(test_world_metric(world, PROXY_KEY_UNKNOWN), unknown);
}

static void test_stray_answers(void **state)
{
    struct test_world *world = *state;
    open_ready(world);
    world->server.hold = true;
    for (unsigned i = 0; i < 3; i++) { /* 0 and 2 are answered, 1 is cancelled */
        sign_some(world, i, i + 1);
        WORLD_UNTIL(world, world->server.requests == i + 1);
        assert_int_equal(world->server.held[i].id, i);
        if (i == 1)
            key_client_cancel(world->keys, &operations[i]);
        test_key_server_answer(&world->server, i, 0);
        if (i == 1)
            expect_strays(world, 1, 0);
        else
            WORLD_UNTIL(world, !operations[i].pending);
    }
    test_key_server_answer(&world->server, 2, 0);
    expect_strays(world, 1, 1);
    test_key_server_answer(&world->server, 0, 0);
    expect_strays(world, 1, 2);
    test_key_server_answer(&world->server, 0, 3); /* the next one's */
    test_key_server_answer(&world->server, 0, 0x8000);
    test_key_server_answer(&world->server, 0, 0xffff);
    test_key_server_answer(&world->server, 0, 0x10000); /* a slot that was never used */
    expect_strays(world, 1, 6);
    assert_int_equal(done_count, 2);
}

/* A slot's generations come back after 65,536 requests; what was answered is known of the last 63. */
static void test_stray_answers_of_long_ago(void **state)
{
    struct test_world *world = *state;
    open_ready(world);
    for (unsigned i = 0; i < 70; i++) {
        sign_some(world, 0, 1);
        WORLD_UNTIL(world, done_count == i + 1);
    }
    world->server.hold = true;
    sign_some(world, 0, 1);
    WORLD_UNTIL(world, world->server.held_count == 1);
    assert_int_equal(world->server.held[0].id, 70);
    test_key_server_answer(&world->server, 0, 70 ^ 7); /* 63 before */
    expect_strays(world, 0, 1);
    test_key_server_answer(&world->server, 0, 70 ^ 6);
    expect_strays(world, 1, 1);
    assert_true(operations[0].pending);
}

/* ---- The channel. */

static void count_ready(void *owner)
{
    ++*(unsigned *)owner;
}

static void test_ready(void **state)
{
    struct test_world *world = *state;
    unsigned ready = 0;
    test_world_open_keys(world);
    key_client_when_ready(world->keys, count_ready, &ready);
    assert_int_equal(ready, 0);
    WORLD_UNTIL(world, ready == 1);
    key_client_when_ready(world->keys, count_ready, &ready);
    assert_int_equal(ready, 2);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, !key_client_ready(world->keys));
    WORLD_UNTIL(world, key_client_ready(world->keys));
    assert_int_equal(ready, 2);
    assert_int_equal(test_world_metric(world, PROXY_KEY_CHANNELS_UP), 1);
}

static void test_hello_refused(void **state)
{
    struct test_world *world = *state;
    test_world_open_keys(world);
    world->server.hello_error = KSSL_ERROR_BAD_OPCODE;
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_CONNECT_FAILED) == 3);
    assert_false(key_client_ready(world->keys));
    assert_int_equal(world->server.requests, 0);
}

/* Two attempts at once, then a delay that doubles from 50 ms, of which jitter takes at most three quarters.
 */
static void test_backoff(void **state)
{
    struct test_world *world = *state;
    test_world_open_keys(world);
    world->server.refuse = true;
    uint64_t start = clock_now();
    WORLD_UNTIL(world, world->server.accepted == 6);
    assert_in_range(clock_now() - start, 12500 + 25000 + 50000 + 100000, 5000000);
    assert_int_equal(test_world_metric(world, PROXY_KEY_CHANNELS_LOST), 0);
    world->server.refuse = false;
    WORLD_UNTIL(world, key_client_ready(world->keys));
}

static void test_clock_skew(void **state)
{
    struct test_world *world = *state;
    test_world_open_keys(world);
    world->server.clock_ahead = 50;
    WORLD_UNTIL(world, key_client_ready(world->keys));
    assert_int_equal(test_world_metric(world, PROXY_KEY_CLOCK_SKEWED), 0);
    world->server.clock_ahead = -70;
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_CLOCK_SKEWED) == 1);
    world->server.clock_ahead = 0;
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, world->server.hellos == 3 && key_client_ready(world->keys));
    assert_int_equal(test_world_metric(world, PROXY_KEY_CLOCK_SKEWED), 0);
}

/* A key server that is frozen while requests are out is found out by a ping. */
static void test_silent_server(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.timeout = 800000;
    open_ready(world);
    world->server.deaf = true;
    sign_some(world, 0, 1);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_CHANNELS_LOST) == 1);
    assert_int_equal(done_count, 1);
    world->server.deaf = false;
    WORLD_UNTIL(world, key_client_ready(world->keys));
    sign_some(world, 1, 2);
    WORLD_UNTIL(world, done_count == 2);
    assert_int_equal(operations[1].result, RESULT_OK);
}

/* One that is slow with a signature, but answers pings, keeps its channel. */
static void test_slow_server(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.timeout = 500000;
    open_ready(world);
    world->server.hold = true;
    for (unsigned i = 0; i < 4; i++) {
        sign_some(world, i, i + 1);
        WORLD_UNTIL(world, done_count == i + 1);
        assert_string_equal(operations[i].reason, "key server timeout");
    }
    assert_true(world->server.pings >= 4);
    assert_int_equal(test_world_metric(world, PROXY_KEY_CHANNELS_LOST), 0);
}

static void test_free_while_pending(void **state)
{
    struct test_world *world = *state;
    open_ready(world);
    world->server.hold = true;
    sign_some(world, 0, 10);
    WORLD_UNTIL(world, world->server.requests == 10);
    key_client_free(world->keys);
    world->keys = NULL;
    assert_int_equal(done_count, 0);
    assert_false(operations[0].pending);
}

/* ---- Key servers that begin to lie. Operation 0 is used again and again. */

/* Which signatures were found wrong, of so many one after the other. */
static unsigned sign_checked(struct test_world *world, struct signature_check *check, unsigned count)
{
    int64_t before = test_world_metric(world, PROXY_KEY_REQUESTS_WRONG);
    uint8_t hash[32] = {7}, content[TLS_CERTIFICATE_VERIFY_MAX];
    struct writer to = writer_of(content, sizeof content);
    assert_true(tls_certificate_verify_write(&to, bytes_of(hash, sizeof hash)));
    for (unsigned i = 0; i < count; i++) {
        struct key_operation *operation = &operations[0];
        *operation = (struct key_operation){
            .key = &world->server.keys[KEY_P256].id,
            .check = check,
            .scheme = 0x0403,
            .content = writer_bytes(&to),
            .done = on_done,
            .owner = &done_count,
        };
        done_count = 0;
        assert_int_equal(key_client_sign(world->keys, operation), RESULT_OK);
        WORLD_UNTIL(world, done_count == 1);
        if (operation->result != RESULT_OK) {
            assert_int_equal(operation->outcome, KEY_OUTCOME_WRONG);
            assert_string_equal(operation->reason, "wrong signature from key server");
        }
    }
    return (unsigned)(test_world_metric(world, PROXY_KEY_REQUESTS_WRONG) - before);
}

static struct signature_check *p256_check(struct test_world *world)
{
    struct signature_check *check =
        signature_check_new(NULL, world->server.keys[KEY_P256].key, KEY_TYPE_P256);
    assert_non_null(check);
    return check;
}

static void test_lie_is_found_and_ends_trust(void **state)
{
    struct test_world *world = *state;
    open_ready(world);
    struct signature_check *check = p256_check(world);
    assert_int_equal(sign_checked(world, check, SIGNATURE_CHECK_FIRST), 0);
    int64_t ok = test_world_metric(world, PROXY_KEY_REQUESTS_OK);
    world->server.wrong_content = true;
    unsigned lies = 1;
    while (sign_checked(world, check, 1) == 0)
        assert_true(++lies < 600); /* (15/16)^600 is nothing */
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_OK), ok + lies - 1);
    assert_int_equal(sign_checked(world, check, SIGNATURE_CHECK_FIRST), SIGNATURE_CHECK_FIRST);
    signature_check_free(check);
}

static void test_trust_ends_with_the_channel(void **state)
{
    struct test_world *world = *state;
    open_ready(world);
    struct signature_check *check = p256_check(world);
    assert_int_equal(sign_checked(world, check, SIGNATURE_CHECK_FIRST), 0);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, world->server.hellos == 2);
    world->server.wrong_content = true;
    assert_int_equal(sign_checked(world, check, 20), 20);
    signature_check_free(check);
}

static void test_verify_all(void **state)
{
    struct test_world *world = *state;
    world->config.key_channel.verify = KEY_VERIFY_ALL;
    open_ready(world);
    struct signature_check *check = p256_check(world);
    assert_int_equal(sign_checked(world, check, SIGNATURE_CHECK_FIRST + 1), 0);
    world->server.wrong_content = true;
    assert_int_equal(sign_checked(world, check, 100), 100);
    signature_check_free(check);
}

/* It goes out although as many handshakes wait as may, and is not counted as one of them. */
static void test_test_requests(void **state)
{
    struct test_world *world = *state;
    world->config.limits.handshakes = 2;
    open_ready(world);
    world->server.hold = true;
    sign_some(world, 0, 2);
    assert_int_equal(sign(world, 2), RESULT_LIMIT);
    assert_int_equal(sign_as(world, 3, true), RESULT_OK);
    assert_int_equal(key_client_pending(world->keys), 2);
    assert_int_equal(test_world_metric(world, PROXY_KEY_PENDING), 2);
    WORLD_UNTIL(world, world->server.requests == 3);
    for (unsigned i = 0; i < 3; i++)
        test_key_server_answer(&world->server, i, 0);
    WORLD_UNTIL(world, done_count == 3);
    assert_int_equal(operations[3].result, RESULT_OK);
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_OK), 2);
    assert_int_equal(key_client_pending(world->keys), 0);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_pipelined),
        TEST(test_before_the_channel_is_up),
        TEST(test_in_flight_bound),
        TEST(test_cancelled_in_flight),
        TEST(test_cancelled_and_never_answered),
        TEST(test_refusals),
        TEST(test_operation_not_offered),
        TEST(test_timeout_in_order),
        TEST(test_timeouts_in_turns),
        TEST(test_stray_answers),
        TEST(test_stray_answers_of_long_ago),
        TEST(test_ready),
        TEST(test_hello_refused),
        TEST(test_backoff),
        TEST(test_clock_skew),
        TEST(test_silent_server),
        TEST(test_slow_server),
        TEST(test_free_while_pending),
        TEST(test_lie_is_found_and_ends_trust),
        TEST(test_trust_ends_with_the_channel),
        TEST(test_verify_all),
        TEST(test_test_requests),
    };
    return cmocka_run_group_tests(tests, test_world_make, test_world_remove);
}
