/* What is seen as a replay, and what never is. */
#include "keyserver/replay_table.h"

#include "tests/unit/check.h"

static struct sign_request tls13_request(uint16_t client, uint8_t octet)
{
    struct sign_request request = {.entry = client, .opcode = KSSL_OP_SIGN_TLS13, .kind = SIGN_TLS13};
    request.tls13.scheme = 0x0403;
    request.tls13.hash_size = 32;
    memset(request.tls13.hash, octet, 32);
    return request;
}

static bool note(struct replay_table *table, uint16_t client, uint8_t octet, uint32_t seconds)
{
    const struct sign_request request = tls13_request(client, octet);
    return replay_table_note(table, &request, seconds);
}

static void who_and_when(void **state)
{
    (void)state;
    struct replay_table *table = replay_table_new(64);
    assert_false(note(table, 1, 'a', 1000));
    assert_false(note(table, 1, 'b', 1000));
    assert_false(note(table, 1, 'a', 1000));
    assert_false(note(table, 1, 'a', 1005)); /* retries */
    assert_true(note(table, 1, 'a', 1006));
    assert_true(note(table, 2, 'b', 1000)); /* another client's never is one */
    assert_true(note(table, 2, 'b', 1001));
    assert_true(note(table, 1, 'b', 1600));
    assert_false(note(table, 1, 'b', 1601)); /* forgotten, and new again */
    assert_false(note(table, 1, 'b', 1606));
    assert_true(note(table, 1, 'b', 1607));
    replay_table_free(table);
}

/* Operation, key and what is signed: all of it counts. That a hash was computed from a transcript does not.
 */
static void what_is_the_same(void **state)
{
    (void)state;
    struct replay_table *table = replay_table_new(64);
    struct sign_request request = tls13_request(1, 'a');
    assert_false(replay_table_note(table, &request, 1));
    request.entry = 2;
    request.opcode = KSSL_OP_SIGN_TRANSCRIPT;
    assert_true(replay_table_note(table, &request, 1));
    request.ski[0] = 1;
    assert_false(replay_table_note(table, &request, 1));
    struct sign_request digests[] = {
        {.entry = 1, .kind = SIGN_DIGEST, .opcode = KSSL_OP_ECDSA_SHA256, .digest = {.size = 32}},
        {.entry = 2, .kind = SIGN_DIGEST, .opcode = KSSL_OP_RSA_PSS_SHA256, .digest = {.size = 32}},
        {.entry = 3, .kind = SIGN_DIGEST, .opcode = KSSL_OP_ECDSA_SHA224, .digest = {.size = 28}},
        {.entry = 4, .kind = SIGN_MESSAGE, .opcode = KSSL_OP_ED25519, .message = OCTETS("m")},
        {.entry = 5, .kind = SIGN_MESSAGE, .opcode = KSSL_OP_ED25519, .message = OCTETS("")},
        {.entry = 6, .kind = SIGN_CIPHERTEXT, .opcode = KSSL_OP_RSA_DECRYPT, .message = OCTETS("m")},
    };
    for (size_t i = 0; i < COUNT_OF(digests); i++)
        assert_false(replay_table_note(table, &digests[i], 1));
    for (size_t i = 0; i < COUNT_OF(digests); i++) {
        digests[i].entry = 7;
        assert_true(replay_table_note(table, &digests[i], 1));
    }
    assert_true(replay_table_note(table, &request, 100));
    replay_table_forget(table, &request);
    assert_false(replay_table_note(table, &request, 100));
    const struct sign_request keys = {.kind = GIVE_TICKET_KEYS, .opcode = KSSL_OP_TICKET_KEYS};
    assert_false(replay_table_note(table, &keys, 1));
    assert_false(replay_table_note(table, &keys, 100));
    replay_table_forget(table, &keys);
    replay_table_free(table);
}

/* Ten times as many as fit: nothing is taken for what it is not, and the last ones are still known. */
static void a_full_table_forgets_the_oldest(void **state)
{
    (void)state;
    struct replay_table *table = replay_table_new(1024);
    struct sign_request request = tls13_request(1, 0);
    for (uint32_t i = 0; i < 10240; i++) {
        memcpy(request.tls13.hash, &i, sizeof i);
        assert_false(replay_table_note(table, &request, i / 100));
    }
    request.entry = 2;
    unsigned known = 0;
    for (uint32_t i = 10240 - 256; i < 10240; i++) {
        memcpy(request.tls13.hash, &i, sizeof i);
        known += replay_table_note(table, &request, 103) ? 1 : 0;
    }
    assert_true(known > 200);
    replay_table_free(table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_and_when),
        cmocka_unit_test(what_is_the_same),
        cmocka_unit_test(a_full_table_forgets_the_oldest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
