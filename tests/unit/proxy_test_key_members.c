/* A worker's key servers that are configured by name: addresses that come and go under a key client. */
#include "proxy/key_members.h"

#include "common/tls_message.h"
#include "proxy/key_client_private.h"
#include "tests/unit/check.h"
#include "tests/unit/support/test_world.h"

enum { OPERATIONS_MAX = 8, KEY_P256 = 1 };

static struct key_operation operations[OPERATIONS_MAX];
static uint8_t contents[OPERATIONS_MAX][TLS_CERTIFICATE_VERIFY_MAX];
static unsigned done_count;
static char name[] = "keys.example";

static struct endpoints *endpoints;
static size_t places[PROXY_KEY_SERVERS_MAX];
static struct test_key_server other;

static void on_done(struct key_operation *operation)
{
    (void)operation;
    done_count++;
}

static int set_up(void **state)
{
    struct test_world *world = *state;
    struct failure why;
    done_count = 0;
    test_world_configure(world);
    world->key_server_configs[0].mode = KEY_MODE_TBS;
    world->key_server_configs[0].weight = 1;
    world->key_server_configs[0].at = (struct config_host_address){.host = name, .port = 2407};
    assert_int_equal(endpoints_new(&endpoints, &why), RESULT_OK);
    places[0] = endpoints_place(endpoints, &world->key_server_configs[0]);
    test_world_open_keys(world);
    test_key_server_open(&other, world->base, world->server_context);
    for (size_t i = 0; i < WORLD_SITES; i++)
        test_key_server_load(&other, world->sites[i].key);
    key_client_follow(world->keys, endpoints, places);
    return 0;
}

static int tear_down(void **state)
{
    struct test_world *world = *state;
    key_client_free(world->keys);
    world->keys = NULL;
    test_key_server_close(&other);
    test_world_close(world);
    endpoints_free(endpoints);
    return 0;
}

static void sign(struct test_world *world, unsigned number)
{
    uint8_t hash[32] = {(uint8_t)number};
    struct writer to = writer_of(contents[number], sizeof contents[number]);
    assert_true(tls_certificate_verify_write(&to, bytes_of(hash, sizeof hash)));
    operations[number] = (struct key_operation){.key = &world->server.keys[KEY_P256].id,
                                                .scheme = 0x0403,
                                                .content = writer_bytes(&to),
                                                .done = on_done};
    assert_int_equal(key_client_sign(world->keys, &operations[number]), RESULT_OK);
}

/* The key server's name has these addresses from now on. */
static void found(struct test_world *world, const struct address *addresses, size_t count)
{
    struct endpoint_list list = {.count = 0};
    for (size_t i = 0; i < count; i++) {
        struct bytes ip;
        address_ip(&addresses[i], &ip);
        struct endpoint *endpoint = &list.list[list.count++];
        *endpoint = (struct endpoint){.ip_size = (uint16_t)ip.size, .weight = 1};
        memcpy(endpoint->ip, ip.data, ip.size);
        endpoint->port = ntohs(((const struct sockaddr_in *)&addresses[i].storage)->sin_port);
    }
    endpoints_write(endpoints, places[0], &world->key_server_configs[0], &list);
    key_client_tick(world->keys);
}

static size_t members(const struct test_world *world)
{
    size_t count = 0;
    for (size_t i = 0; i < world->keys->pool.count; i++)
        count += world->keys->pool.servers[i].config != NULL;
    return count;
}

static int64_t up(const struct test_world *world)
{
    return test_world_metric(world, PROXY_KEY_CHANNELS_UP);
}

/* What is asked before the name is found waits for it. */
static void found_later(void **state)
{
    struct test_world *world = *state;
    assert_int_equal(members(world), 0);
    assert_false(key_client_ready(world->keys));
    sign(world, 0);
    found(world, &world->server.address, 1);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].result, RESULT_OK);
    struct key_server_status status;
    key_client_status(world->keys, &status);
    assert_int_equal(status.up, 1);
}

/* The first is used until the second is up, and answers what it has been asked. */
static void moves(void **state)
{
    struct test_world *world = *state;
    found(world, &world->server.address, 1);
    WORLD_UNTIL(world, up(world) == 1);
    world->server.hold = true;
    sign(world, 0);
    found(world, &other.address, 1);
    assert_int_equal(members(world), 2);
    WORLD_UNTIL(world, up(world) == 2);
    key_client_tick(world->keys);
    assert_int_equal(members(world), 2);
    sign(world, 1);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[1].result, RESULT_OK);
    test_key_server_release(&world->server);
    WORLD_UNTIL(world, done_count == 2);
    assert_int_equal(operations[0].result, RESULT_OK);
    key_client_tick(world->keys);
    assert_int_equal(members(world), 1);
    assert_int_equal(up(world), 1);
}

/* An address that comes back before it has gone is the same. */
static void comes_back(void **state)
{
    struct test_world *world = *state;
    found(world, &world->server.address, 1);
    WORLD_UNTIL(world, up(world) == 1);
    found(world, &other.address, 1);
    found(world, &world->server.address, 1);
    key_client_tick(world->keys);
    assert_int_equal(members(world), 1);
    assert_int_equal(up(world), 1);
    assert_int_equal(test_world_metric(world, PROXY_KEY_CHANNELS_LOST), 0);
}

/* Who has lost its channel is asked elsewhere, and does not come again. */
static void gone_and_lost(void **state)
{
    struct test_world *world = *state;
    found(world, &world->server.address, 1);
    WORLD_UNTIL(world, up(world) == 1);
    world->server.hold = true;
    sign(world, 0);
    found(world, &other.address, 1);
    test_key_server_stop(&world->server);
    test_key_server_cut(&world->server);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].result, RESULT_OK);
    key_client_tick(world->keys);
    assert_int_equal(members(world), 1);
}

/* What one address of a name has refused, another one that is down would refuse, too: nobody waits for it. */
static void refused(void **state)
{
    struct test_world *world = *state;
    struct address both[] = {world->server.address, other.address};
    test_key_server_stop(&other);
    found(world, both, 2);
    WORLD_UNTIL(world, up(world) == 1);
    world->server.error = KSSL_ERROR_KEY_NOT_FOUND;
    const uint64_t began = clock_now();
    sign(world, 0);
    WORLD_UNTIL(world, done_count == 1);
    assert_int_equal(operations[0].error, KSSL_ERROR_KEY_NOT_FOUND);
    assert_in_range(clock_now() - began, 0, 2000000);
}

/* Of many addresses eight; those that take their places are others', with nothing learnt before. */
static void too_many(void **state)
{
    struct test_world *world = *state;
    struct address many[ENDPOINTS_MAX];
    for (unsigned i = 0; i < ENDPOINTS_MAX; i++) {
        many[i] = other.address;
        address_set_port(&many[i], (uint16_t)(1 + i));
    }
    many[3] = world->server.address;
    found(world, many, ENDPOINTS_MAX);
    assert_int_equal(members(world), KEY_MEMBERS_MOST);
    WORLD_UNTIL(world, up(world) == 1);
    sign(world, 0);
    WORLD_UNTIL(world, done_count == 1);
    found(world, many + 8, 8);
    assert_int_equal(members(world), KEY_MEMBERS_MOST);
    found(world, &other.address, 1);
    WORLD_UNTIL(world, up(world) >= 1 && key_client_ready(world->keys));
    sign(world, 1);
    WORLD_UNTIL(world, done_count == 2);
    assert_int_equal(operations[1].result, RESULT_OK);
}

/* All names get the same share of what the others leave. */
static void room(void **state)
{
    (void)state;
    static const struct {
        size_t named, plain, most;
    } ROWS[] = {{1, 0, 8}, {2, 0, 8}, {3, 0, 5}, {1, 10, 6}, {1, 15, 1}, {16, 0, 1}, {0, 16, 0}};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct proxy_key_server servers[PROXY_KEY_SERVERS_MAX] = {{.name = NULL}};
        for (size_t k = 0; k < ROWS[i].named; k++)
            servers[k].at.host = name;
        struct proxy_config config = {.key_servers = servers,
                                      .key_server_count = ROWS[i].named + ROWS[i].plain};
        assert_int_equal(key_members_most(&config), ROWS[i].most);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(found_later, set_up, tear_down),
        cmocka_unit_test_setup_teardown(moves, set_up, tear_down),
        cmocka_unit_test_setup_teardown(comes_back, set_up, tear_down),
        cmocka_unit_test_setup_teardown(gone_and_lost, set_up, tear_down),
        cmocka_unit_test_setup_teardown(refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(too_many, set_up, tear_down),
        cmocka_unit_test(room),
    };
    return cmocka_run_group_tests(tests, test_world_make, test_world_remove);
}
