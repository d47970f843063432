/* What the signer keeps for the auditor: until it is told that it is written, and no more than it has room
 * for. */
#include "keyserver/audit_feed.h"

#include <sys/socket.h>
#include <unistd.h>

#include "keyserver/keyserver_metrics.h"
#include "tests/unit/check.h"

struct fixture {
    struct event_base *base;
    struct metrics *metrics;
    struct metrics_row *row;
    struct audit_feed *feed;
    unsigned emptied;
};

static void on_emptied(void *owner)
{
    ((struct fixture *)owner)->emptied++;
}

static const struct audit_feed_handler HANDLER = {.emptied = on_emptied};

static void open_fixture(struct fixture *fixture)
{
    *fixture = (struct fixture){.base = event_base_new()};
    assert_int_equal(metrics_new(keyserver_metrics, KEYSERVER_METRIC_COUNT, &fixture->metrics, NULL),
                     RESULT_OK);
    fixture->row = metrics_take_row(fixture->metrics);
    fixture->feed = audit_feed_new(fixture->base, NULL, fixture->row, &HANDLER, fixture);
    assert_non_null(fixture->feed);
}

static void close_fixture(struct fixture *fixture)
{
    audit_feed_free(fixture->feed);
    event_base_free(fixture->base);
    metrics_return_row(fixture->metrics, fixture->row);
    metrics_free(fixture->metrics);
}

static bool add(struct fixture *fixture, uint64_t *number)
{
    struct audit_record record = {.outcome = AUDIT_DONE, .opcode = KSSL_OP_SIGN_TLS13};
    bool added = audit_feed_add(fixture->feed, &record);
    *number = record.number;
    return added;
}

/* Reads whole messages that are there; the number of the last record. */
static unsigned read_records(struct fixture *fixture, int fd, uint64_t *last)
{
    static uint8_t octets[1 << 20];
    unsigned count = 0;
    (void)event_base_loop(fixture->base, EVLOOP_NONBLOCK);
    ssize_t size = recv(fd, octets, sizeof octets, MSG_DONTWAIT);
    struct reader from = reader_of(bytes_of(octets, size > 0 ? (size_t)size : 0));
    while (!reader_empty(&from)) {
        struct audit_record record;
        struct bytes body;
        uint8_t type;
        assert_true(read_u8(&from, &type) && type == AUDIT_RECORD && read_vector24(&from, &body));
        assert_true(audit_record_parse(body, &record));
        *last = record.number;
        count++;
    }
    return count;
}

static void tell_written(struct fixture *fixture, int fd, uint64_t number)
{
    uint8_t octets[16];
    struct writer to = writer_of(octets, sizeof octets);
    audit_written_write(&to, number);
    assert_int_equal(write(fd, octets, to.size), to.size);
    (void)event_base_loop(fixture->base, EVLOOP_NONBLOCK);
}

static int link_auditor(struct fixture *fixture)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    audit_feed_link(fixture->feed, ends[0]);
    return ends[1];
}

static void what_is_not_written_is_told_again(void **state)
{
    (void)state;
    struct fixture fixture;
    uint64_t numbers[3], last = 0;
    open_fixture(&fixture);
    for (size_t i = 0; i < 3; i++)
        assert_true(add(&fixture, &numbers[i])); /* before there is an auditor */
    int first = link_auditor(&fixture);
    assert_int_equal(read_records(&fixture, first, &last), 3);
    assert_int_equal(last, numbers[2]);
    assert_true(numbers[0] < numbers[1] && numbers[1] < numbers[2]);
    tell_written(&fixture, first, numbers[0]);
    assert_false(audit_feed_is_empty(fixture.feed));
    close(first);
    (void)event_base_loop(fixture.base, EVLOOP_NONBLOCK);
    int second = link_auditor(&fixture);
    assert_int_equal(read_records(&fixture, second, &last), 2);
    tell_written(&fixture, second, numbers[2]);
    assert_true(audit_feed_is_empty(fixture.feed));
    assert_int_equal(fixture.emptied, 1);
    close(second);
    close_fixture(&fixture);
}

/* An auditor that says what it cannot know is none. */
static void numbers_to_come_are_not_written(void **state)
{
    (void)state;
    struct fixture fixture;
    uint64_t number, last;
    open_fixture(&fixture);
    int fd = link_auditor(&fixture);
    assert_true(add(&fixture, &number));
    assert_int_equal(read_records(&fixture, fd, &last), 1);
    tell_written(&fixture, fd, number + 1);
    assert_false(audit_feed_is_empty(fixture.feed));
    char end;
    assert_int_equal(read(fd, &end, 1), 0); /* cut off */
    close(fd);
    close_fixture(&fixture);
}

/* Room for those that are under way is not given to others; what has none is not kept. */
static void there_is_an_end_to_it(void **state)
{
    (void)state;
    struct fixture fixture;
    uint64_t number;
    open_fixture(&fixture);
    for (size_t i = 0; i < AUDIT_FEED_MAX - 2; i++)
        assert_true(add(&fixture, &number));
    assert_true(audit_feed_has_room(fixture.feed, 0));
    assert_true(audit_feed_has_room(fixture.feed, 1));
    assert_false(audit_feed_has_room(fixture.feed, 2));
    assert_false(audit_feed_has_room(fixture.feed, SIZE_MAX));
    assert_true(add(&fixture, &number) && add(&fixture, &number));
    assert_false(audit_feed_has_room(fixture.feed, 0));
    assert_false(add(&fixture, &number));
    close_fixture(&fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_written_is_told_again),
        cmocka_unit_test(numbers_to_come_are_not_written),
        cmocka_unit_test(there_is_an_end_to_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
