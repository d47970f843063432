/* Which key makes tickets and which opens them, over time; what a key server may say; keys of files. */
#include "proxy/ticket_keys.h"

#include "tests/unit/check.h"

#define ROTATE   3600u
#define LIFETIME 7200u
#define NOW      (UINT64_C(500000) * ROTATE + 17)

static struct ticket_keys keys;

static void write_key(struct writer *to, uint64_t epoch)
{
    uint8_t octets[32];
    memset(octets, (int)(epoch % 251), sizeof octets);
    const struct kssl_ticket_key key = {.name = bytes_of(octets, TICKET_NAME_SIZE),
                                        .not_before = epoch * ROTATE,
                                        .not_after = (epoch + 1) * ROTATE + LIFETIME,
                                        .aes_key = bytes_of(octets, 32),
                                        .hmac_key = bytes_of(octets, 32)};
    kssl_ticket_key_write(to, &key);
}

static enum result parse(uint64_t present, uint64_t now)
{
    uint8_t octets[1 + 4 * KSSL_TICKET_KEY_SIZE];
    struct writer to = writer_of(octets, sizeof octets);
    write_u8(&to, 4);
    write_key(&to, present);
    write_key(&to, present + 1);
    write_key(&to, present - 1);
    write_key(&to, present - 2);
    assert_true(writer_ok(&to));
    return ticket_keys_parse(writer_bytes(&to), now, &keys, NULL);
}

/* One rotation to either side, to the second. */
static void clocks_may_differ(void **state)
{
    (void)state;
    const uint64_t epoch = NOW / ROTATE, start = epoch * ROTATE;
    assert_int_equal(parse(epoch, start - ROTATE), RESULT_OK);
    assert_int_equal(parse(epoch, start - ROTATE - 1), RESULT_PEER);
    assert_int_equal(parse(epoch, start + 2 * ROTATE - 1), RESULT_OK);
    assert_int_equal(parse(epoch, start + 2 * ROTATE), RESULT_PEER);
}

static void check_use(uint64_t at, uint64_t making, uint64_t oldest)
{
    const uint64_t epoch = NOW / ROTATE;
    const struct ticket_key *key = ticket_keys_making(&keys, at);
    if (key == NULL || key->not_before != making * ROTATE)
        fail_msg("at %llu another key makes tickets", (unsigned long long)at);
    for (uint64_t i = epoch - 2; i <= epoch + 1; i++) {
        uint8_t name[TICKET_NAME_SIZE];
        memset(name, (int)(i % 251), sizeof name);
        assert_int_equal(ticket_keys_opening(&keys, name, at) != NULL, i >= oldest);
    }
}

static void each_has_its_time(void **state)
{
    (void)state;
    const uint64_t epoch = NOW / ROTATE, start = epoch * ROTATE;
    assert_int_equal(parse(epoch, NOW), RESULT_OK);
    check_use(NOW, epoch, epoch - 2);
    check_use(start + ROTATE - 1, epoch, epoch - 2);
    check_use(start + ROTATE, epoch + 1, epoch - 2); /* its not_after is the last second */
    check_use(start + ROTATE + 1, epoch + 1, epoch - 1);
    check_use(start - 1, epoch - 1, epoch - 2); /* a clock that is behind */
    /* Nobody tells any more: the last one goes on until its tickets end. */
    check_use(start + 2 * ROTATE + LIFETIME, epoch + 1, epoch + 1);
    assert_null(ticket_keys_making(&keys, start + 2 * ROTATE + LIFETIME + 1));
}

static void our_own_are_the_same_for_all(void **state)
{
    (void)state;
    static struct ticket_keys other;
    const struct ticket_times times = {ROTATE, LIFETIME};
    struct ticket_chain chain = {.epoch = NOW / ROTATE - 2, .value = "secret"}, later = chain;
    assert_true(ticket_keys_derive(&chain, &times, NOW, &keys));
    assert_int_equal(keys.count, 3); /* one opens tickets to the end of an epoch and two more */
    assert_true(ticket_chain_advance(&later, NOW / ROTATE - 1));
    assert_true(ticket_keys_derive(&later, &times, NOW, &other));
    assert_int_equal(other.count, 2);
    for (uint32_t i = 0; i < other.count; i++)
        assert_memory_equal(&keys.keys[i], &other.keys[i], sizeof keys.keys[i]);
    assert_ptr_equal(ticket_keys_making(&keys, NOW), &keys.keys[0]);
    chain.epoch = NOW / ROTATE + 1;
    assert_false(ticket_keys_derive(&chain, &times, NOW, &keys)); /* the clock went back */
    assert_int_equal(keys.count, 0);
}

static void files_have_two_forms(void **state)
{
    (void)state;
    uint8_t octets[80];
    struct ticket_key key;
    for (size_t i = 0; i < sizeof octets; i++)
        octets[i] = (uint8_t)i;
    for (size_t size = 0; size <= sizeof octets; size++)
        assert_int_equal(ticket_key_from_file(bytes_of(octets, size), &key), size == 48 || size == 80);
    assert_int_equal(key.secret_size, 32);
    assert_memory_equal(key.name, octets, 16);
    assert_memory_equal(key.hmac_key, octets + 16, 32);
    assert_memory_equal(key.aes_key, octets + 48, 32);
    assert_true(ticket_key_from_file(bytes_of(octets, 48), &key));
    assert_int_equal(key.secret_size, 16);
    assert_memory_equal(key.aes_key, octets + 16, 16);
    assert_memory_equal(key.hmac_key, octets + 32, 16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_may_differ),
        cmocka_unit_test(each_has_its_time),
        cmocka_unit_test(our_own_are_the_same_for_all),
        cmocka_unit_test(files_have_two_forms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
