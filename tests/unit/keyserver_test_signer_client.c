/* A front end's side of the link, against a signer that the test plays: answers, losses, replacements, and
 * what is too late. */
#include "keyserver/signer_client.h"

#include "tests/unit/check.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/socket.h"

#define PATIENCE 5000000 /* microseconds */

struct client_test {
    struct event_base *base;
    struct signer_client *client;
    unsigned keys_told, lost;
    size_t key_count;
    bool refuse_keys;
};

struct ask {
    struct signer_call call; /* first: the one is the other */
    unsigned answered;
    uint8_t error;
    uint8_t signature[8];
    size_t signature_size;
};

static void on_answered(struct signer_call *call, const struct signer_reply *reply)
{
    struct ask *ask = (struct ask *)call;
    ask->answered++;
    ask->error = reply->error;
    assert_true(reply->answer.size <= sizeof ask->signature);
    if (reply->answer.size > 0)
        memcpy(ask->signature, reply->answer.data, reply->answer.size);
    ask->signature_size = reply->answer.size;
}

static bool on_keys(struct key_table *keys, void *owner)
{
    struct client_test *test = owner;
    test->keys_told++;
    test->key_count = keys->count;
    key_table_clear(keys);
    return !test->refuse_keys;
}

static void on_lost(void *owner)
{
    ((struct client_test *)owner)->lost++;
}

static const struct signer_client_handler HANDLER = {.keys = on_keys, .lost = on_lost};

static struct client_test *fixture_new(uint64_t give_up, uint64_t lost)
{
    struct client_test *test = calloc(1, sizeof *test);
    const struct signer_client_settings settings = {.give_up = give_up, .lost = lost};
    test->base = event_base_new();
    test->client = signer_client_new(test->base, &settings, NULL, NULL, &HANDLER, test);
    assert_non_null(test->client);
    return test;
}

static void fixture_free(struct client_test *test)
{
    signer_client_free(test->client);
    event_base_free(test->base);
    free(test);
}

/* Runs the loop until it holds. */
#define AWAIT(test, holds)                                                                                   \
    do {                                                                                                     \
        uint64_t until = clock_now() + PATIENCE;                                                             \
        while (!(holds)) {                                                                                   \
            if (clock_now() > until)                                                                         \
                fail_msg("waited in vain for: %s", #holds);                                                  \
            (void)event_base_loop((test)->base, EVLOOP_NONBLOCK);                                            \
        }                                                                                                    \
    } while (0)

static void ask(struct client_test *test, struct ask *ask)
{
    struct sign_request request = {.opcode = KSSL_OP_SIGN_TLS13, .kind = SIGN_TLS13};
    *ask = (struct ask){.call = {.answered = on_answered}};
    assert_true(signer_client_prepare(test->client, &request, &ask->call));
    signer_client_ask(test->client, &ask->call);
}

/* ---- The signer that the test plays. */

static int connect_signer(struct client_test *test)
{
    int fds[2];
    assert_int_equal(socket_pair(SOCK_STREAM, fds, NULL), RESULT_OK);
    signer_client_link(test->client, fds[0]);
    return fds[1];
}

static void say(int fd, const struct writer *message)
{
    assert_true(writer_ok(message));
    assert_int_equal(write(fd, message->data, message->size), message->size);
}

static void tell_keys(int fd, uint32_t count, uint32_t claimed)
{
    uint8_t octets[4096];
    struct writer to = writer_of(octets, sizeof octets);
    for (uint32_t i = 0; i < count; i++) {
        char label[] = "key";
        struct key_info key = {.id = {.type = KEY_TYPE_P256, .signature_size = 72}, .label = label};
        key.id.ski[0] = (uint8_t)(i + 1);
        signer_key_write(&to, &key);
    }
    signer_keys_end_write(&to, claimed);
    say(fd, &to);
}

static int start_signer(struct client_test *test)
{
    unsigned before = test->keys_told;
    int fd = connect_signer(test);
    tell_keys(fd, 2, 2);
    AWAIT(test, test->keys_told > before);
    return fd;
}

/* The next message, as far as one has come. */
static bool hear_message(int fd, uint8_t *type, uint8_t body[static 256], uint32_t *size)
{
    uint8_t octets[SIGNER_HEADER_SIZE + 256];
    ssize_t got = recv(fd, octets, SIGNER_HEADER_SIZE, MSG_DONTWAIT | MSG_PEEK);
    if (got < SIGNER_HEADER_SIZE)
        return false;
    struct reader header = reader_of(bytes_of(octets, SIGNER_HEADER_SIZE));
    assert_true(read_u8(&header, type) && read_u24(&header, size) && *size <= 256);
    assert_int_equal(recv(fd, octets, SIGNER_HEADER_SIZE + *size, MSG_WAITALL), SIGNER_HEADER_SIZE + *size);
    memcpy(body, octets + SIGNER_HEADER_SIZE, *size);
    return true;
}

/* The next request's handle. */
static bool hear(int fd, uint64_t *handle)
{
    uint8_t type, body[256];
    uint32_t size;
    struct sign_request request;
    if (!hear_message(fd, &type, body, &size))
        return false;
    assert_true(signer_ask_parse(type, bytes_of(body, size), &request));
    *handle = request.handle;
    return true;
}

/* That a request is cancelled, and which. */
static bool hear_cancel(int fd, uint64_t *handle)
{
    uint8_t type, body[256];
    uint32_t size;
    if (!hear_message(fd, &type, body, &size))
        return false;
    assert_int_equal(type, SIGNER_CANCEL);
    assert_true(signer_cancel_parse(bytes_of(body, size), handle));
    return true;
}

static void reply(int fd, uint64_t handle, const char *signature)
{
    uint8_t octets[256];
    struct writer to = writer_of(octets, sizeof octets);
    const struct signer_reply message = {.handle = handle, .answer = bytes_of(signature, strlen(signature))};
    signer_reply_write(&to, &message);
    say(fd, &to);
}

static bool is_closed(int fd)
{
    uint8_t octet;
    return recv(fd, &octet, 1, MSG_DONTWAIT) == 0;
}

/* ---- Tests. */

static void calls_are_answered_in_any_order(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, PATIENCE);
    struct ask asks[3];
    uint64_t handles[3];
    int signer = start_signer(test);
    assert_int_equal(test->key_count, 2);
    for (int i = 0; i < 3; i++)
        ask(test, &asks[i]);
    for (int i = 0; i < 3; i++)
        AWAIT(test, hear(signer, &handles[i]));
    reply(signer, handles[2], "two");
    reply(signer, handles[0], "zero");
    reply(signer, handles[1], "one");
    AWAIT(test, asks[0].answered && asks[1].answered && asks[2].answered);
    assert_memory_equal(asks[0].signature, "zero", 4);
    assert_memory_equal(asks[1].signature, "one", 3);
    assert_memory_equal(asks[2].signature, "two", 3);
    close(signer);
    fixture_free(test);
}

static void a_second_answer_is_dropped(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, PATIENCE);
    struct ask first, second;
    uint64_t old, new;
    int signer = start_signer(test);
    ask(test, &first);
    AWAIT(test, hear(signer, &old));
    reply(signer, old, "a");
    AWAIT(test, first.answered == 1);
    ask(test, &second); /* in the slot of the first */
    AWAIT(test, hear(signer, &new));
    assert_int_equal((uint32_t)old, (uint32_t) new);
    reply(signer, old, "stale");
    reply(signer, new, "fresh");
    AWAIT(test, second.answered == 1);
    assert_memory_equal(second.signature, "fresh", 5);
    assert_int_equal(first.answered, 1);
    close(signer);
    fixture_free(test);
}

static void cancelled_calls_are_not_answered(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, PATIENCE);
    struct ask gone, stays;
    uint64_t handles[2];
    int signer = start_signer(test);
    ask(test, &gone);
    ask(test, &stays);
    AWAIT(test, hear(signer, &handles[0]));
    AWAIT(test, hear(signer, &handles[1]));
    signer_client_cancel(test->client, &gone.call);
    uint64_t cancelled;
    AWAIT(test, hear_cancel(signer, &cancelled));
    assert_int_equal(cancelled, handles[0]);
    reply(signer, handles[0], "a");
    reply(signer, handles[1], "b");
    AWAIT(test, stays.answered == 1);
    assert_int_equal(gone.answered, 0);
    close(signer);
    fixture_free(test);
}

static void calls_wait_for_the_first_signer(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, PATIENCE);
    struct ask waits;
    uint64_t handle;
    ask(test, &waits);
    int signer = start_signer(test);
    AWAIT(test, hear(signer, &handle));
    reply(signer, handle, "x");
    AWAIT(test, waits.answered == 1);
    close(signer);
    fixture_free(test);
}

static void a_dead_signers_calls_go_to_the_next(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, PATIENCE);
    struct ask asks[3];
    uint64_t handles[3];
    int dead = start_signer(test);
    ask(test, &asks[0]);
    ask(test, &asks[1]);
    AWAIT(test, hear(dead, &handles[0]));
    AWAIT(test, hear(dead, &handles[1]));
    reply(dead, handles[1], "done");
    AWAIT(test, asks[1].answered == 1);
    close(dead);
    ask(test, &asks[2]); /* while there is none */
    int next = start_signer(test);
    AWAIT(test, hear(next, &handles[0]));
    AWAIT(test, hear(next, &handles[2]));
    reply(next, handles[0], "again");
    reply(next, handles[2], "new");
    AWAIT(test, asks[0].answered == 1 && asks[2].answered == 1);
    assert_memory_equal(asks[0].signature, "again", 5);
    assert_memory_equal(asks[2].signature, "new", 3);
    assert_false(hear(next, &handles[1])); /* what was answered is not asked again */
    close(next);
    fixture_free(test);
}

/* A signer that is being replaced still answers what it was asked; new calls wait for the other. */
static void a_draining_signer_finishes(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, PATIENCE);
    struct ask before, between;
    uint64_t handle, other;
    int draining = start_signer(test);
    ask(test, &before);
    AWAIT(test, hear(draining, &handle));
    int next = connect_signer(test);
    ask(test, &between);
    reply(draining, handle, "last");
    AWAIT(test, before.answered == 1);
    assert_memory_equal(before.signature, "last", 4);
    tell_keys(next, 1, 1);
    AWAIT(test, hear(next, &other));
    assert_false(hear(draining, &handle));
    close(draining);
    reply(next, other, "next");
    AWAIT(test, between.answered == 1);
    close(next);
    fixture_free(test);
}

/* Asked again on the second link: the first one's late answer counts no more. */
static void an_answer_of_another_link_is_dropped(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, PATIENCE);
    struct ask one;
    uint64_t handle, again;
    int dead = start_signer(test);
    ask(test, &one);
    AWAIT(test, hear(dead, &handle));
    close(dead);
    int second = start_signer(test);
    AWAIT(test, hear(second, &again));
    assert_int_equal(handle, again);
    int third = start_signer(test);
    reply(third, handle, "forged");
    reply(second, handle, "true");
    AWAIT(test, one.answered == 1);
    assert_memory_equal(one.signature, "true", 4);
    close(second);
    close(third);
    fixture_free(test);
}

static void calls_are_given_up(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(1000, PATIENCE);
    struct ask one;
    uint64_t handle;
    int signer = start_signer(test);
    ask(test, &one);
    AWAIT(test, one.answered == 1);
    assert_int_equal(one.error, KSSL_ERROR_INTERNAL);
    assert_int_equal(one.signature_size, 0);
    uint64_t cancelled;
    assert_true(hear(signer, &handle));
    AWAIT(test, hear_cancel(signer, &cancelled));
    assert_int_equal(cancelled, handle);
    reply(signer, handle, "late");
    struct ask two;
    ask(test, &two);
    AWAIT(test, hear(signer, &handle));
    reply(signer, handle, "fine");
    AWAIT(test, two.answered == 1);
    assert_int_equal(one.answered, 1);
    close(signer);
    fixture_free(test);
}

static void a_lost_signer_is_told(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, 1000);
    struct ask one;
    ask(test, &one);
    int signer = start_signer(test);
    AWAIT(test, test->keys_told == 1);
    assert_int_equal(test->lost, 0); /* none was there: that is not yet a loss */
    close(signer);
    AWAIT(test, test->lost >= 1);
    signer_client_cancel(test->client, &one.call);
    fixture_free(test);
}

static const struct {
    const char *name;
    struct bytes octets;
} MALFORMED_ROWS[] = {
    {"a type that a front end sends", WIRE("\x01\0\0\0")},
    {"an unknown type", WIRE("\x77\0\0\x01x")},
    {"a length beyond all", WIRE("\x13\xFF\xFF\xFF")},
    {"a reply without a signature", WIRE("\x13\0\0\x11"
                                         "12345678"
                                         "\0"
                                         "1234"
                                         "1234")},
    {"keys, again", WIRE("\x12\0\0\x04\0\0\0\0")},
    {"a key behind the end", WIRE("\x11\0\0\x01\x02")},
};

static void malformed_messages_end_the_link(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(MALFORMED_ROWS); i++) {
        struct client_test *test = fixture_new(PATIENCE, PATIENCE);
        int signer = start_signer(test);
        assert_int_equal(write(signer, MALFORMED_ROWS[i].octets.data, MALFORMED_ROWS[i].octets.size),
                         MALFORMED_ROWS[i].octets.size);
        AWAIT(test, is_closed(signer));
        close(signer);
        fixture_free(test);
    }
}

static void a_wrong_number_of_keys_ends_the_link(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, PATIENCE);
    int signer = connect_signer(test);
    tell_keys(signer, 2, 3);
    AWAIT(test, is_closed(signer));
    assert_int_equal(test->keys_told, 0);
    close(signer);
    fixture_free(test);
}

static void keys_that_cannot_be_used_end_the_link(void **state)
{
    (void)state;
    struct client_test *test = fixture_new(PATIENCE, PATIENCE);
    test->refuse_keys = true;
    int signer = connect_signer(test);
    tell_keys(signer, 1, 1);
    AWAIT(test, is_closed(signer));
    assert_int_equal(test->keys_told, 1);
    close(signer);
    fixture_free(test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_are_answered_in_any_order),
        cmocka_unit_test(a_second_answer_is_dropped),
        cmocka_unit_test(cancelled_calls_are_not_answered),
        cmocka_unit_test(calls_wait_for_the_first_signer),
        cmocka_unit_test(a_dead_signers_calls_go_to_the_next),
        cmocka_unit_test(a_draining_signer_finishes),
        cmocka_unit_test(an_answer_of_another_link_is_dropped),
        cmocka_unit_test(calls_are_given_up),
        cmocka_unit_test(a_lost_signer_is_told),
        cmocka_unit_test(malformed_messages_end_the_link),
        cmocka_unit_test(a_wrong_number_of_keys_ends_the_link),
        cmocka_unit_test(keys_that_cannot_be_used_end_the_link),
    };
    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
