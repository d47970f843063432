/* Which bucket is which entry's, over many readings of the configuration. */
#include "keyserver/client_rates.h"

#include "tests/unit/keyserver_fixture.h"

static struct client_rates *new_rates(void)
{
    struct client_rates *rates = NULL;
    assert_int_equal(client_rates_new(&rates, NULL), RESULT_OK);
    return rates;
}

static size_t *assign(struct client_rates *rates, const char *clients)
{
    char text[1024];
    size_t *numbers = NULL;
    (void)snprintf(text, sizeof text, FIXTURE_CONFIG_HEAD "clients: [%s]\n", clients);
    struct keyserver_config *config = fixture_config(text);
    assert_int_equal(client_rates_assign(rates, config, &numbers, NULL), RESULT_OK);
    keyserver_config_free(config);
    return numbers;
}

#define CLIENT(name, rate) "{match: \"CN:" name "\", keys: a, rate: " rate "}"

/* By `match`, whatever its place and its rate. */
static void entries_keep_their_buckets(void **state)
{
    (void)state;
    struct client_rates *rates = new_rates();
    size_t *first = assign(rates, CLIENT("a", "5") "," CLIENT("b", "0") "," CLIENT("c", "5"));
    size_t *second = assign(rates, CLIENT("d", "5") "," CLIENT("c", "7") "," CLIENT("b", "5"));
    size_t *third = assign(rates, CLIENT("a", "5"));
    assert_int_not_equal(first[0], first[2]);
    assert_int_equal(second[1], first[2]);
    assert_int_equal(third[0], first[0]); /* although it was away */
    assert_int_not_equal(second[0], first[0]);
    assert_int_not_equal(second[0], second[1]);
    assert_int_not_equal(second[2], second[0]);
    free(first);
    free(second);
    free(third);
    client_rates_free(rates);
}

#define MANY 4096

static void assign_many(struct client_rates *rates, struct keyserver_config *config, unsigned from,
                        size_t *to)
{
    size_t *numbers = NULL;
    for (unsigned i = 0; i < MANY; i++)
        (void)snprintf(config->clients[i].match, 16, "CN:%u", from + i);
    assert_int_equal(client_rates_assign(rates, config, &numbers, NULL), RESULT_OK);
    memcpy(to, numbers, MANY * sizeof *numbers);
    free(numbers);
}

static int by_number(const void *a, const void *b)
{
    return *(const size_t *)a < *(const size_t *)b ? -1 : *(const size_t *)a > *(const size_t *)b;
}

/* As many as a configuration can have, all of them others each time: nobody shares one, and who gets one that
 * somebody else had gets it full. */
static void there_are_always_enough(void **state)
{
    (void)state;
    static struct keyserver_client clients[MANY];
    static char names[MANY][16];
    static size_t numbers[MANY], kept[MANY];
    struct keyserver_config config = {.clients = clients, .client_count = MANY};
    struct client_rates *rates = new_rates();
    struct rate_bucket *signers = client_rates_buckets(rates, RATES_OF_SIGNER);
    for (unsigned i = 0; i < MANY; i++)
        clients[i] = (struct keyserver_client){.match = names[i], .rate = 1};
    for (unsigned round = 0; round < 4; round++) {
        assign_many(rates, &config, round * MANY, numbers);
        for (unsigned i = 0; i < MANY; i++) {
            assert_int_equal(signers[numbers[i]].full, 0);
            signers[numbers[i]].full = 1;
        }
        qsort(numbers, MANY, sizeof *numbers, by_number);
        for (unsigned i = 1; i < MANY; i++)
            assert_int_not_equal(numbers[i], numbers[i - 1]);
    }
    assign_many(rates, &config, 3 * MANY, numbers);
    assign_many(rates, &config, 3 * MANY, kept);
    assert_memory_equal(numbers, kept, sizeof kept);
    client_rates_free(rates);
}

static void sets_are_apart_and_can_be_left(void **state)
{
    (void)state;
    struct client_rates *rates = new_rates();
    struct rate_bucket *frontends = client_rates_buckets(rates, RATES_OF_FRONTENDS);
    struct rate_bucket *signers = client_rates_buckets(rates, RATES_OF_SIGNER);
    frontends[0].full = 1;
    assert_int_equal(signers[0].full, 0);
    client_rates_leave(rates, RATES_OF_SIGNER);
    assert_null(client_rates_buckets(rates, RATES_OF_SIGNER));
    assert_ptr_equal(client_rates_buckets(rates, RATES_OF_FRONTENDS), frontends);
    client_rates_leave(rates, RATES_OF_SIGNER);
    client_rates_free(rates);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(entries_keep_their_buckets),
        cmocka_unit_test(there_are_always_enough),
        cmocka_unit_test(sets_are_apart_and_can_be_left),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
