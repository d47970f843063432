/* A link whose other end goes: what it said before is heard, and its going is no fault. */
#include "keyserver/signer_link.h"

#include "tests/unit/check.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/socket.h"
#include "keyserver/signer_protocol.h"

#define PATIENCE 5000000 /* microseconds */

struct world {
    struct event_base *base;
    struct signer_link *link;
    int other;
    unsigned messages, closed;
    struct failure why;
};

static bool on_message(uint8_t type, struct bytes body, void *owner)
{
    struct world *world = owner;
    assert_int_equal(type, SIGNER_TELL_KEYS_END);
    assert_int_equal(body.size, 4);
    world->messages++;
    return true;
}

static void on_closed(const struct failure *why, void *owner)
{
    struct world *world = owner;
    world->closed++;
    world->why = *why;
    signer_link_close(world->link);
    world->link = NULL;
}

static const struct signer_link_handler HANDLER = {.message = on_message, .closed = on_closed};

static int make_world(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    int ends[2];
    (void)signal(SIGPIPE, SIG_IGN);
    world->base = event_base_new();
    assert_int_equal(socket_pair(SOCK_STREAM, ends, NULL), RESULT_OK);
    world->other = ends[1];
    world->link = signer_link_new(world->base, ends[0], 0, &HANDLER, world);
    assert_non_null(world->link);
    *state = world;
    return 0;
}

static int free_world(void **state)
{
    struct world *world = *state;
    signer_link_close(world->link);
    socket_close(&world->other);
    event_base_free(world->base);
    free(world);
    return 0;
}

/* The other end says something. */
static void say(struct world *world)
{
    uint8_t octets[64];
    struct writer to = writer_of(octets, sizeof octets);
    signer_keys_end_write(&to, 1);
    assert_int_equal(write(world->other, to.data, to.size), to.size);
}

static void send_one(struct world *world)
{
    uint8_t octets[64];
    struct writer to = writer_of(octets, sizeof octets);
    signer_keys_end_write(&to, 1);
    assert_true(signer_link_send(world->link, writer_bytes(&to)));
}

static void await_end(struct world *world)
{
    uint64_t until = clock_now() + PATIENCE;
    while (world->closed == 0 && clock_now() < until)
        (void)event_base_loop(world->base, EVLOOP_NONBLOCK);
    assert_int_equal(world->closed, 1);
}

static void check_good_order(const struct world *world)
{
    if (world->why.kind != RESULT_OK)
        fail_msg("%s: %s", result_name(world->why.kind), world->why.text);
    assert_string_equal(world->why.text, "the other end has closed the link");
}

static void closed_in_good_order(void **state)
{
    struct world *world = *state;
    say(world);
    socket_close(&world->other);
    await_end(world);
    assert_int_equal(world->messages, 1);
    check_good_order(world);
}

static void gone_while_we_write(void **state)
{
    struct world *world = *state;
    say(world);
    say(world);
    socket_close(&world->other);
    send_one(world);
    await_end(world);
    assert_int_equal(world->messages, 2);
    check_good_order(world);
}

static void gone_without_reading(void **state)
{
    struct world *world = *state;
    send_one(world);
    (void)event_base_loop(world->base, EVLOOP_NONBLOCK);
    say(world);
    socket_close(&world->other);
    await_end(world);
    assert_int_equal(world->messages, 1);
    check_good_order(world);
}

static void nonsense_is_a_fault(void **state)
{
    struct world *world = *state;
    assert_int_equal(write(world->other, "\x11\xff\xff\xff", 4), 4);
    await_end(world);
    assert_int_equal(world->messages, 0);
    assert_int_equal(world->why.kind, RESULT_PROTOCOL);
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, make_world, free_world)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_WORLD(closed_in_good_order),
        WITH_WORLD(gone_while_we_write),
        WITH_WORLD(gone_without_reading),
        WITH_WORLD(nonsense_is_a_fault),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
