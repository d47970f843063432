/* Handshakes whose key server is slow, wrong, or away, and clients that do not wait for it. */
#include "tests/unit/support/test_world.h"

#include <dirent.h>
#include <malloc.h>

#include "tests/unit/check.h"

#ifdef __SANITIZE_ADDRESS__
size_t __sanitizer_get_current_allocated_bytes(void); /* gcc has no header for it */
#endif

enum { PENDING_MAX = 4 };

static int set_up(void **state)
{
    struct test_world *world = *state;
    test_world_configure(world);
    world->config.limits.handshakes = PENDING_MAX;
    test_world_open(world);
    WORLD_UNTIL(world, key_client_ready(world->keys));
    return 0;
}

static int tear_down(void **state)
{
    test_world_close(*state);
    return 0;
}

/* A setting of world->config, and the world anew with it. */
static void set(struct test_world *world, uint64_t *setting, uint64_t value)
{
    test_world_close(world);
    *setting = value;
    test_world_open(world);
    WORLD_UNTIL(world, key_client_ready(world->keys));
}

static void set_timeout(struct test_world *world, uint64_t timeout)
{
    set(world, &world->config.key_channel.timeout, timeout);
}

static const struct test_offer OFFER = {.sni = "p256.example"};

static void check_served(struct test_world *world)
{
    struct test_client client;
    test_client_start(&client, world, &OFFER);
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    assert_true(client.connected);
    test_client_end(&client);
}

static void check_failure(const struct test_client *client, const char *stage, const char *reason)
{
    const char *seen_stage, *seen_reason;
    assert_int_equal(client->state, HANDSHAKE_FAILED);
    handshake_failure(client->handshake, &seen_stage, &seen_reason);
    assert_string_equal(seen_reason, reason);
    assert_string_equal(seen_stage, stage);
}

/* ---- Clients that leave while their signature is pending. */

static size_t memory_used(void)
{
#ifdef __SANITIZE_ADDRESS__
    return __sanitizer_get_current_allocated_bytes();
#else
    return mallinfo2().uordblks;
#endif
}

static unsigned descriptors_used(void)
{
    unsigned count = 0;
    DIR *directory = opendir("/proc/self/fd");
    assert_non_null(directory);
    while (readdir(directory) != NULL)
        count++;
    (void)closedir(directory);
    return count;
}

/* Half of them are aborted with a reason, as a connection does it, half just freed, as a drain might. One
 * client was served before. */
static void leave_while_pending(struct test_world *world, unsigned from, unsigned to)
{
    for (unsigned i = from; i < to; i++) {
        struct test_client client;
        test_client_start(&client, world, &OFFER);
        test_client_park(&client);
        if (i % 4 < 2) /* the key server has the request, or it has not left yet */
            WORLD_UNTIL(world, world->server.requests == 1 + i + 1);
        test_client_leave(&client);
        if (i % 2 == 0) {
            handshake_abort(client.handshake, HANDSHAKE_ABORT_CLOSED);
            client.state = handshake_run(client.handshake);
            check_failure(&client, "key", "client closed");
        }
        test_client_end(&client);
        assert_int_equal(key_client_pending(world->keys), 0);
        if (world->server.held_count >= 64) { /* the key server answers now and then, always too late */
            test_key_server_release(&world->server);
            world->server.hold = true;
        }
    }
}

static void test_leaving_clients(void **state)
{
    enum { WARM_UP = 500, ROUNDS = 2000 };
    struct test_world *world = *state;
    check_served(world);
    world->server.hold = true;
    leave_while_pending(world, 0, WARM_UP); /* buffers find their size */
    size_t memory = memory_used();
    unsigned descriptors = descriptors_used();
    leave_while_pending(world, WARM_UP, WARM_UP + ROUNDS);
    assert_int_equal(descriptors_used(), descriptors);
    /* One leaked fibre alone is 34 kB. */
    assert_true(memory_used() < memory + 32768);
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_CANCELLED), WARM_UP + ROUNDS);
    assert_int_equal(test_world_metric(world, PROXY_HANDSHAKES_CLIENT_GONE), (WARM_UP + ROUNDS) / 2);
    assert_int_equal(test_world_metric(world, PROXY_HANDSHAKES_ABORTED), (WARM_UP + ROUNDS) / 2);
    test_key_server_release(&world->server);
    for (unsigned i = 0; i < 2 * PENDING_MAX; i++)
        check_served(world);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_LATE) == WARM_UP + ROUNDS);
}

static void test_abort_sends_alert(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    world->server.hold = true;
    test_client_start(&client, world, &OFFER);
    test_client_park(&client);
    handshake_abort(client.handshake, HANDSHAKE_ABORT_TIMEOUT);
    client.state = handshake_run(client.handshake);
    test_client_run(&client);
    check_failure(&client, "key", "timeout");
    assert_int_equal(client.alert, SSL_AD_INTERNAL_ERROR);
    test_client_end(&client);
    assert_int_equal(test_world_metric(world, PROXY_HANDSHAKES_ABORTED), 1);
}

static void test_abort_before_hello(void **state)
{
    struct test_client client;
    test_client_start(&client, *state, &OFFER);
    assert_int_equal(handshake_run(client.handshake), HANDSHAKE_WANT_READ);
    handshake_abort(client.handshake, HANDSHAKE_ABORT_TIMEOUT);
    client.state = handshake_run(client.handshake);
    check_failure(&client, "client hello", "timeout");
    handshake_abort(client.handshake, HANDSHAKE_ABORT_DROPPED);
    check_failure(&client, "client hello", "timeout");
    test_client_end(&client);
}

/* ---- A full house. */

static void fill_house(struct test_world *world, const struct test_offer *offer,
                       struct test_client clients[static PENDING_MAX])
{
    world->server.hold = true;
    for (unsigned i = 0; i < PENDING_MAX; i++) {
        test_client_start(&clients[i], world, offer);
        test_client_park(&clients[i]);
    }
    assert_true(key_client_full(world->keys));
}

/* Before the key exchange; the next one has the place of one that leaves. */
static void test_turned_away(void **state)
{
    struct test_world *world = *state;
    struct test_client clients[PENDING_MAX], late;
    fill_house(world, &OFFER, clients);
    test_client_start(&late, world, &OFFER);
    test_client_run(&late);
    check_failure(&late, "certificate", "limits.handshakes wait for a signature");
    assert_int_equal(handshake_failure_class(late.handshake), HANDSHAKE_CLASS_KEY_TOO_MANY);
    assert_int_equal(late.alert, SSL_AD_INTERNAL_ERROR);
    test_client_end(&late);
    assert_int_equal(test_world_metric(world, PROXY_HANDSHAKES_KEY), 1);
    test_client_end(&clients[0]);
    test_client_start(&clients[0], world, &OFFER);
    test_client_park(&clients[0]);
    WORLD_UNTIL(world, world->server.held_count == PENDING_MAX + 1);
    test_key_server_release(&world->server);
    for (unsigned i = 0; i < PENDING_MAX; i++) {
        test_client_run(&clients[i]);
        assert_int_equal(clients[i].state, HANDSHAKE_DONE);
        test_client_end(&clients[i]);
    }
    check_served(world);
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_TOO_MANY), 0);
}

/* One that has its signature is served, however full the house is. */
static void check_finished_in_full_house(struct test_world *world, int version)
{
    const struct test_offer offer = {.sni = "p256.example", .version = version};
    struct test_client first, others[PENDING_MAX];
    world->server.hold = true;
    test_client_start(&first, world, &offer);
    test_client_park(&first);
    WORLD_UNTIL(world, world->server.held_count == 1);
    test_key_server_release(&world->server);
    WORLD_UNTIL(world, first.woken > 0);
    first.state = handshake_run(first.handshake); /* sends the server's flight, and waits for the client's */
    assert_int_equal(first.state, HANDSHAKE_WANT_READ);
    fill_house(world, &offer, others);
    test_client_run(&first);
    assert_int_equal(first.state, HANDSHAKE_DONE);
    assert_true(first.connected);
    test_client_end(&first);
    for (unsigned i = 0; i < PENDING_MAX; i++)
        test_client_end(&others[i]);
    test_key_server_release(&world->server);
}

static void test_finished_in_full_house_tls13(void **state)
{
    check_finished_in_full_house(*state, TLS1_3_VERSION);
}

static void test_finished_in_full_house_tls12(void **state)
{
    check_finished_in_full_house(*state, TLS1_2_VERSION);
}

/* ---- What goes out before the signature. */

static const int VERSIONS[] = {TLS1_2_VERSION, TLS1_3_VERSION};

static bool has_chain(const struct test_client *client)
{
    return SSL_get0_peer_certificate(client->ssl) != NULL;
}

/* Parks a client, and tells whether it has the chain before the signature is made. */
static bool is_early(struct test_world *world, int version)
{
    struct test_client client;
    world->server.hold = true;
    test_client_start(&client, world, &(struct test_offer){.sni = "p256.example", .version = version});
    test_client_park(&client);
    test_client_step(&client); /* the client reads what there is */
    bool early = has_chain(&client);
    WORLD_UNTIL(world, world->server.held_count == 1);
    test_key_server_release(&world->server);
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    assert_true(client.connected && has_chain(&client));
    test_client_end(&client);
    return early;
}

static void test_early_flush(void **state)
{
    struct test_world *world = *state;
    for (size_t i = 0; i < COUNT_OF(VERSIONS); i++) {
        set(world, &world->config.tls.early_flush, 0);
        assert_true(is_early(world, VERSIONS[i]));
        assert_int_equal(test_world_metric(world, PROXY_FLUSHED_EARLY), 1);
        set(world, &world->config.tls.early_flush, UINT64_MAX);
        assert_false(is_early(world, VERSIONS[i]));
        assert_int_equal(test_world_metric(world, PROXY_FLUSHED_EARLY), 0);
    }
}

/* The threshold is compared with what the key server's answers took: its hello's is the first. */
static void test_early_flush_by_latency(void **state)
{
    struct test_world *world = *state;
    uint64_t hello = key_client_latency(world->keys);
    assert_in_range(hello, 1, UINT64_C(10000000));
    set(world, &world->config.tls.early_flush, UINT64_C(10000000));
    assert_false(is_early(world, TLS1_3_VERSION));
    set(world, &world->config.tls.early_flush, 1);
    assert_true(is_early(world, TLS1_3_VERSION));
}

/* A key server that is away is a long wait too; but off is off. */
static void check_early_flush_without_key_server(struct test_world *world, uint64_t setting, bool early)
{
    struct test_client client;
    set(world, &world->config.tls.early_flush, setting);
    test_key_server_stop(&world->server);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, !key_client_ready(world->keys));
    assert_int_equal(key_client_latency(world->keys), UINT64_MAX);
    test_client_start(&client, world, &OFFER);
    test_client_park(&client);
    test_client_step(&client);
    assert_int_equal(has_chain(&client), early);
    assert_int_equal(test_world_metric(world, PROXY_FLUSHED_EARLY), early);
    test_key_server_start(&world->server);
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    test_client_end(&client);
}

static void test_early_flush_without_key_server(void **state)
{
    check_early_flush_without_key_server(*state, CONFIG_HOUR, true);
    check_early_flush_without_key_server(*state, UINT64_MAX, false);
}

static size_t fill(int fd)
{
    static const uint8_t junk[1024];
    ssize_t sent;
    size_t size = 0;
    while ((sent = send(fd, junk, sizeof junk, MSG_DONTWAIT)) > 0)
        size += (size_t)sent;
    return size;
}

static void drain(int fd, size_t size)
{
    uint8_t junk[1024];
    while (size > 0) {
        ssize_t got = recv(fd, junk, size < sizeof junk ? size : sizeof junk, 0);
        assert_true(got > 0);
        size -= (size_t)got;
    }
}

/* A socket that takes nothing, or a part: libssl sends the rest with the signature, each octet once. */
static void test_early_flush_without_room(void **state)
{
    struct test_world *world = *state;
    for (size_t i = 0; i < COUNT_OF(VERSIONS); i++) {
        struct test_client client;
        set(world, &world->config.tls.early_flush, 0);
        world->server.hold = true;
        test_client_start(&client, world, &(struct test_offer){.sni = "rsa.example", .version = VERSIONS[i]});
        assert_int_equal(SSL_do_handshake(client.ssl), -1);
        size_t junk = fill(client.far_fd);
        client.state = handshake_run(client.handshake);
        assert_int_equal(client.state, HANDSHAKE_WANT_KEY);
        drain(client.fd, junk);
        test_client_step(&client);
        assert_false(has_chain(&client));
        WORLD_UNTIL(world, world->server.held_count == 1);
        test_key_server_release(&world->server);
        test_client_run(&client);
        assert_int_equal(client.state, HANDSHAKE_DONE);
        assert_true(client.connected);
        test_client_end(&client);
    }
}

/* ---- The key server. */

static void test_channel_lost(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    world->server.hold = true;
    test_client_start(&client, world, &OFFER);
    test_client_park(&client);
    WORLD_UNTIL(world, world->server.held_count == 1);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, world->server.held_count == 2);
    assert_int_equal(world->server.hellos, 2);
    assert_int_equal(world->server.held[0].id, world->server.held[1].id);
    assert_string_equal(world->server.held[0].request_id, world->server.held[1].request_id);
    assert_int_equal(world->server.held[0].opcode, KSSL_OP_SIGN_TRANSCRIPT);
    assert_int_equal(world->server.held[0].payload_size, world->server.held[1].payload_size);
    assert_memory_equal(world->server.held[0].content, world->server.held[1].content, 64 + 34 + 32);
    test_key_server_release(&world->server); /* answers it twice */
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    test_client_end(&client);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_UNKNOWN) == 1);
    assert_int_equal(test_world_metric(world, PROXY_KEY_RESENT), 1);
    assert_int_equal(test_world_metric(world, PROXY_KEY_CHANNELS_LOST), 1);
    assert_int_equal(test_world_metric(world, PROXY_KEY_CHANNELS_UP), 1);
}

static void test_key_server_away_and_back(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    test_key_server_stop(&world->server);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, !key_client_ready(world->keys));
    test_client_start(&client, world, &OFFER);
    test_client_park(&client);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_CONNECT_FAILED) >= 3);
    assert_int_equal(client.woken, 0);
    test_key_server_start(&world->server);
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    test_client_end(&client);
}

static void test_no_key_server(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    set_timeout(world, 200000);
    test_key_server_stop(&world->server);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, !key_client_ready(world->keys));
    test_client_start(&client, world, &OFFER);
    test_client_run(&client);
    check_failure(&client, "key", "no key server");
    assert_int_equal(client.alert, SSL_AD_INTERNAL_ERROR);
    test_client_end(&client);
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_NO_SERVER), 1);
    assert_int_equal(test_world_metric(world, PROXY_HANDSHAKES_KEY), 1);
}

static void test_timeout_and_late_answer(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    set_timeout(world, 1000000);
    world->server.hold = true;
    test_client_start(&client, world, &OFFER);
    test_client_run(&client);
    check_failure(&client, "key", "key server timeout");
    test_client_end(&client);
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_TIMEOUT), 1);
    /* The slot's next user gets its own answer, not the one that comes late. */
    test_client_start(&client, world, &(struct test_offer){.sni = "ed25519.example"});
    test_client_park(&client);
    WORLD_UNTIL(world, world->server.held_count == 2);
    test_key_server_answer(&world->server, 0, 0);
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_LATE) == 1);
    assert_int_equal(client.woken, 0);
    test_key_server_answer(&world->server, 1, 0);
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    test_client_end(&client);
}

static void test_wrong_generation(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    world->server.hold = true;
    test_client_start(&client, world, &OFFER);
    test_client_park(&client);
    WORLD_UNTIL(world, world->server.held_count == 1);
    test_key_server_answer(&world->server, 0, 0x00000001); /* another generation */
    test_key_server_answer(&world->server, 0, 0x00400000); /* another slot */
    WORLD_UNTIL(world, test_world_metric(world, PROXY_KEY_UNKNOWN) == 2);
    assert_int_equal(test_world_metric(world, PROXY_KEY_LATE), 0);
    assert_int_equal(client.woken, 0);
    test_key_server_release(&world->server);
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    test_client_end(&client);
}

static const struct {
    size_t bad_size;
    const char *reason;
    enum proxy_metric metric;
    uint8_t error;
} ANSWERS[] = {
    {0, "key not found", PROXY_KEY_REQUESTS_ERROR, KSSL_ERROR_KEY_NOT_FOUND},
    {0, "refused by policy", PROXY_KEY_REQUESTS_ERROR, KSSL_ERROR_POLICY},
    {0, "overloaded", PROXY_KEY_REQUESTS_ERROR, KSSL_ERROR_OVERLOADED},
    {0, "unknown error", PROXY_KEY_REQUESTS_ERROR, 0x99},
    {73, "signature of a wrong size", PROXY_KEY_REQUESTS_INVALID, 0},
    {4000, "signature of a wrong size", PROXY_KEY_REQUESTS_INVALID, 0},
    {72, "wrong signature from key server", PROXY_KEY_REQUESTS_WRONG, 0},
};

static void test_bad_answers(void **state)
{
    struct test_world *world = *state;
    for (size_t i = 0; i < COUNT_OF(ANSWERS); i++) {
        struct test_client client;
        int64_t before = test_world_metric(world, ANSWERS[i].metric);
        world->server.error = ANSWERS[i].error;
        world->server.bad_size = ANSWERS[i].bad_size;
        test_client_start(&client, world, &OFFER);
        test_client_run(&client);
        check_failure(&client, "key", ANSWERS[i].reason);
        CHECK(ANSWERS[i].reason, client.alert == SSL_AD_INTERNAL_ERROR);
        CHECK(ANSWERS[i].reason, test_world_metric(world, ANSWERS[i].metric) == before + 1);
        test_client_end(&client);
    }
    assert_int_equal(test_world_metric(world, PROXY_HANDSHAKES_KEY), COUNT_OF(ANSWERS));
    world->server.error = 0;
    world->server.bad_size = 0;
    check_served(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_leaving_clients, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_abort_sends_alert, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_abort_before_hello, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_turned_away, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finished_in_full_house_tls13, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_finished_in_full_house_tls12, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_early_flush, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_early_flush_by_latency, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_early_flush_without_key_server, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_early_flush_without_room, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_channel_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_key_server_away_and_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_key_server, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_timeout_and_late_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_generation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_bad_answers, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, test_world_make, test_world_remove);
}
