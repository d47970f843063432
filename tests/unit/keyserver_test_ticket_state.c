/* What the secret's file holds: there and back, every cut and every octet changed; who has left which group.
 */
#include "keyserver/ticket_state.h"

#include "tests/unit/check.h"

static struct ticket_member member(char group, char id)
{
    struct ticket_member made;
    memset(&made.group, group, sizeof made.group);
    memset(&made.id, id, sizeof made.id);
    return made;
}

static uint32_t generation_of(const struct ticket_state *state, char group)
{
    const struct ticket_member wanted = member(group, 0);
    const struct ticket_group *found = ticket_state_group(state, &wanted.group);
    assert_non_null(found);
    return found->generation;
}

static bool settle(struct ticket_state *state, const struct ticket_member *members, size_t count)
{
    bool changed = false;
    assert_int_equal(ticket_state_settle(state, members, count, &changed, NULL), RESULT_OK);
    return changed;
}

static struct ticket_state example(void)
{
    const struct ticket_member members[] = {member('b', '2'), member('a', '1'), member('b', '1')};
    struct ticket_state made = {.rotate = 3600, .chain = {.epoch = 12, .value = "a value"}};
    assert_true(settle(&made, members, COUNT_OF(members)));
    return made;
}

static uint8_t *write_exact(const struct ticket_state *state, size_t *size)
{
    *size = ticket_state_size(state);
    uint8_t *octets = malloc(*size);
    struct writer to = writer_of(octets, *size);
    assert_non_null(octets);
    assert_true(ticket_state_write(&to, state));
    assert_int_equal(to.size, *size);
    return octets;
}

static bool parses(struct bytes octets, struct ticket_state *state)
{
    uint8_t *exact = exact_copy(octets);
    bool parsed = ticket_state_parse(bytes_of(exact, octets.size), state, NULL) == RESULT_OK;
    free(exact);
    return parsed;
}

static void there_and_back(void **unused)
{
    (void)unused;
    struct ticket_state state = example(), read;
    size_t size;
    uint8_t *octets = write_exact(&state, &size);
    assert_true(parses(bytes_of(octets, size), &read));
    assert_int_equal(read.rotate, state.rotate);
    assert_memory_equal(&read.chain, &state.chain, sizeof read.chain);
    assert_int_equal(read.group_count, 2);
    assert_int_equal(read.member_count, 3);
    assert_memory_equal(read.groups, state.groups, 2 * sizeof *read.groups);
    assert_memory_equal(read.members, state.members, 3 * sizeof *read.members);
    ticket_state_clear(&read);
    ticket_state_clear(&state);
    free(octets);
}

/* A raw secret is the only thing of its size that is no such file. */
static void no_cut_parses(void **unused)
{
    (void)unused;
    struct ticket_state state = example(), read;
    size_t size;
    uint8_t *octets = write_exact(&state, &size);
    for (size_t cut = 0; cut < size; cut++) {
        if (parses(bytes_of(octets, cut), &read) != (cut == TICKET_CHAIN_SIZE))
            fail_msg("cut to %zu octets", cut);
        ticket_state_clear(&read);
    }
    ticket_state_clear(&state);
    free(octets);
}

/* One chain record may be torn: then the other one counts. Nothing else may. */
static void changes_are_seen(void **unused)
{
    (void)unused;
    struct ticket_state state = example(), read;
    size_t size;
    uint8_t *octets = write_exact(&state, &size);
    for (size_t at = 0; at < size; at++) {
        octets[at] ^= 0x40;
        bool parsed = parses(bytes_of(octets, size), &read);
        octets[at] ^= 0x40;
        if (parsed != (at < 2 * TICKET_CHAIN_RECORD_SIZE))
            fail_msg("octet %zu", at);
        if (parsed && memcmp(&read.chain, &state.chain, sizeof read.chain) != 0)
            fail_msg("octet %zu: another chain", at);
        ticket_state_clear(&read);
    }
    ticket_state_clear(&state);
    free(octets);
}

static void the_newer_record_counts(void **unused)
{
    (void)unused;
    struct ticket_state state = example(), read;
    size_t size;
    uint8_t *octets = write_exact(&state, &size);
    state.chain.epoch++;
    for (size_t i = 0; i < 2; i++) {
        struct writer to = writer_of(octets + i * TICKET_CHAIN_RECORD_SIZE, TICKET_CHAIN_RECORD_SIZE);
        assert_true(ticket_chain_record_write(&to, &state));
        assert_true(parses(bytes_of(octets, size), &read));
        assert_int_equal(read.chain.epoch, state.chain.epoch);
        ticket_state_clear(&read);
    }
    ticket_state_clear(&state);
    free(octets);
}

static void who_leaves_raises_the_generation(void **unused)
{
    (void)unused;
    struct ticket_state state = example();
    const struct ticket_member all[] = {member('a', '1'), member('b', '1'), member('b', '2')};
    assert_false(settle(&state, all, 3)); /* in whatever order */
    assert_true(settle(&state, all, 2));
    assert_int_equal(generation_of(&state, 'a'), 0);
    assert_int_equal(generation_of(&state, 'b'), 1);
    assert_true(settle(&state, all, 3)); /* who comes back does not */
    assert_int_equal(generation_of(&state, 'b'), 1);
    assert_true(settle(&state, NULL, 0)); /* each that leaves once: whether at once or one by one */
    assert_int_equal(generation_of(&state, 'a'), 1);
    assert_int_equal(generation_of(&state, 'b'), 3);
    const struct ticket_member moved[] = {member('c', '1'), member('b', '1')};
    assert_true(settle(&state, moved, 2)); /* a group that all had left goes on from there */
    assert_int_equal(generation_of(&state, 'b'), 3);
    assert_int_equal(generation_of(&state, 'c'), 0);
    ticket_state_clear(&state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_and_back),
        cmocka_unit_test(no_cut_parses),
        cmocka_unit_test(changes_are_seen),
        cmocka_unit_test(the_newer_record_counts),
        cmocka_unit_test(who_leaves_raises_the_generation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
