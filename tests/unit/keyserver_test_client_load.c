/* What the connections of a client entry hold together, over several front ends, which are here in one
 * process. */
#include "keyserver/client_load.h"

#include "tests/unit/check.h"

#define WORKERS 3

/* Entry 0 may have 4 connections and 10 requests, entry 1 what it likes. */
static struct keyserver_client clients[] = {{.connections = 4, .in_flight = 10}, {.deny = false}};
static const struct keyserver_config CONFIG = {.workers = WORKERS, .clients = clients, .client_count = 2};

struct world {
    struct client_load_area *area;
    struct client_load *loads[WORKERS];
};

static int world_make(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    assert_int_equal(client_load_area_new(&CONFIG, &world->area, NULL), RESULT_OK);
    for (unsigned i = 0; i < WORKERS; i++)
        assert_non_null(world->loads[i] = client_load_new(&CONFIG, world->area, i));
    *state = world;
    return 0;
}

static int world_free(void **state)
{
    struct world *world = *state;
    for (unsigned i = 0; i < WORKERS; i++)
        client_load_free(world->loads[i]);
    client_load_area_free(world->area);
    free(world);
    return 0;
}

static void connections_are_bounded_together(void **state)
{
    struct world *world = *state;
    assert_true(client_load_enter(world->loads[0], 0));
    assert_true(client_load_enter(world->loads[1], 0));
    assert_true(client_load_enter(world->loads[1], 0));
    assert_true(client_load_enter(world->loads[2], 0));
    for (unsigned i = 0; i < WORKERS; i++)
        assert_false(client_load_enter(world->loads[i], 0));
    assert_int_equal(client_load_connections(world->loads[1], 0), 2);
    assert_int_equal(client_load_connections(world->loads[2], 0), 1);
    client_load_leave(world->loads[1], 0);
    assert_true(client_load_enter(world->loads[0], 0));
    assert_false(client_load_enter(world->loads[1], 0));
    for (unsigned i = 0; i < 100; i++)
        assert_true(client_load_enter(world->loads[i % WORKERS], 1));
}

/* It is dead, or drains: its successor begins with none, whatever the predecessor does from now on. */
static void a_place_is_taken_over(void **state)
{
    struct world *world = *state;
    for (unsigned i = 0; i < 4; i++)
        assert_true(client_load_enter(world->loads[0], 0));
    assert_false(client_load_enter(world->loads[1], 0));
    struct client_load *old = world->loads[0];
    client_load_leave_area(old);
    assert_non_null(world->loads[0] = client_load_new(&CONFIG, world->area, 0));
    assert_true(client_load_enter(world->loads[1], 0));
    for (unsigned i = 0; i < 4; i++)
        client_load_leave(old, 0);
    assert_true(client_load_enter(old, 0)); /* it has nothing to compare with */
    client_load_free(old);
    for (unsigned i = 0; i < 3; i++)
        assert_true(client_load_enter(world->loads[2], 0));
    assert_false(client_load_enter(world->loads[0], 0));
}

/* Each front end has its share of 10: 4, 3, 3. It is full until a quarter of it is free. */
static void requests_are_bounded_by_share(void **state)
{
    static const unsigned SHARES[WORKERS] = {4, 3, 3}, ENOUGH[WORKERS] = {3, 2, 2};
    struct world *world = *state;
    for (unsigned i = 0; i < WORKERS; i++) {
        struct client_load *load = world->loads[i];
        for (unsigned asked = 0; asked < SHARES[i]; asked++) {
            assert_false(client_load_full(load, 0));
            assert_int_equal(client_load_ask(load, 0), asked + 1 == SHARES[i]);
        }
        assert_true(client_load_full(load, 0));
        assert_false(client_load_ask(load, 0)); /* more may come from what was already read */
        for (unsigned left = SHARES[i]; left > ENOUGH[i]; left--)
            assert_false(client_load_answer(load, 0));
        assert_true(client_load_full(load, 0));
        assert_true(client_load_answer(load, 0));
        assert_false(client_load_full(load, 0));
        assert_false(client_load_answer(load, 0)); /* told once */
    }
}

static void entries_without_bound_are_never_full(void **state)
{
    struct world *world = *state;
    for (unsigned i = 0; i < 100000; i++)
        assert_false(client_load_ask(world->loads[0], 1));
    assert_false(client_load_full(world->loads[0], 1));
    for (unsigned i = 0; i < 100000; i++)
        assert_false(client_load_answer(world->loads[0], 1));
}

static void shares_add_up(void **state)
{
    (void)state;
    static const struct {
        size_t all;
        unsigned count;
        size_t sum;
    } ROWS[] = {{10, 3, 10}, {3, 3, 3}, {1024, 7, 1024}, {2, 5, 5}, {1, 1, 1}};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        size_t sum = 0;
        for (unsigned index = 0; index < ROWS[i].count; index++)
            sum += client_load_share(ROWS[i].all, index, ROWS[i].count);
        assert_int_equal(sum, ROWS[i].sum);
    }
}

#define IN_WORLD(test) cmocka_unit_test_setup_teardown(test, world_make, world_free)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_WORLD(connections_are_bounded_together),
        IN_WORLD(a_place_is_taken_over),
        IN_WORLD(requests_are_bounded_by_share),
        IN_WORLD(entries_without_bound_are_never_full),
        cmocka_unit_test(shares_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
