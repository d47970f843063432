/* How a channel ends: in good order, by deadlines, by what the
 * peer does, from inside each callback; and that it says why. */
#include "tests/unit/support/test_fixture.h"

#include <stdio.h>

#include <sys/socket.h>

#include "common/socket.h"
#include "tests/unit/check.h"

#define MILLISECOND UINT64_C(1000)

/* The end's reason is of this kind and begins with this text. */
static void check_end(const struct test_end *end, enum result kind, const char *text)
{
    assert_int_equal(end->closed, 1);
    if (end->why.kind != kind || strncmp(end->why.text, text, strlen(text)) != 0)
        fail_msg("expected %s: %s; it was %s: %s", result_name(kind), text, result_name(end->why.kind),
                 end->why.text);
}

/* ---- In good order. */

static void echo(struct test_end *end, const struct kssl_header *header, struct bytes body)
{
    assert_int_equal(test_end_send(end, header->id, body.size, 1), RESULT_OK);
}

static void test_finish_sends_what_is_queued(void **state)
{
    struct test_fixture *all = *state;
    test_start_open(all);
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(test_end_send(&all->near, i, 2000, 1), RESULT_OK);
    channel_finish(all->near.channel);
    channel_finish(all->near.channel); /* once is enough */
    assert_int_equal(test_end_send(&all->near, 101, 0, 0), RESULT_PEER);
    RUN_UNTIL(&all->net, all->near.closed && all->far.closed);
    assert_int_equal(all->far.frames, 100);
    check_end(&all->near, RESULT_OK, "closed");
    check_end(&all->far, RESULT_OK, "the peer closed the connection");
}

static void finish(struct test_end *end)
{
    channel_finish(end->channel);
}

static void finish_on_frame(struct test_end *end, const struct kssl_header *header, struct bytes body)
{
    echo(end, header, body);
    finish(end);
}

static void test_finish_in_a_callback(void **state)
{
    struct test_fixture *all = *state;
    all->far.on_frame = finish_on_frame;
    test_start_open(all);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(test_end_send(&all->near, i, 2000, 1), RESULT_OK);
    RUN_UNTIL(&all->net, all->near.closed && all->far.closed);
    assert_int_equal(all->far.frames, 1);
    assert_int_equal(all->near.frames, 1);
    check_end(&all->far, RESULT_OK, "closed");
}

static void test_finish_when_it_opens(void **state)
{
    struct test_fixture *all = *state;
    all->near.on_open = finish;
    test_start(all);
    RUN_UNTIL(&all->net, all->near.closed && all->far.closed);
    check_end(&all->near, RESULT_OK, "closed");
    check_end(&all->far, RESULT_OK, "the peer closed the connection");
}

static void test_finish_before_it_opens(void **state)
{
    struct test_fixture *all = *state;
    test_start(all);
    channel_finish(all->near.channel);
    assert_int_equal(all->near.closed, 0);
    RUN_UNTIL(&all->net, all->near.closed && all->far.closed);
    assert_int_equal(all->near.opened, 0);
    check_end(&all->near, RESULT_OK, "closed");
    check_end(&all->far, RESULT_PEER,
              "the peer closed the connection without close_notify during the TLS handshake");
}

static void test_finish_while_the_peer_sends(void **state)
{
    struct test_fixture *all = *state;
    test_start_open(all);
    channel_pause(all->near.channel); /* does not keep it from ending */
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(test_end_send(&all->far, i, 2000, 1), RESULT_OK);
    channel_finish(all->near.channel);
    RUN_UNTIL(&all->net, all->near.closed && all->far.closed);
    assert_int_equal(all->near.frames, 0);
    check_end(&all->near, RESULT_OK, "closed");
}

static void test_close_tells_the_peer(void **state)
{
    struct test_fixture *all = *state;
    test_start_open(all);
    test_end_close(&all->near);
    RUN_UNTIL(&all->net, all->far.closed);
    assert_int_equal(all->near.closed, 0);
    check_end(&all->far, RESULT_OK, "the peer closed the connection");
}

/* ---- Freed inside each callback: the address sanitizer watches. */

static void close_it(struct test_end *end)
{
    test_end_close(end);
}

static void close_on_frame(struct test_end *end, const struct kssl_header *header, struct bytes body)
{
    test_end_close(end);
    assert_int_equal(header->major, KSSL_MAJOR);
    assert_int_equal(body.data[body.size - 1], 1); /* still valid until we return */
}

static void test_close_in_open(void **state)
{
    struct test_fixture *all = *state;
    all->far.on_open = close_it;
    test_start(all);
    RUN_UNTIL(&all->net, all->near.closed);
    assert_int_equal(all->far.closed, 0);
    check_end(&all->near, RESULT_OK, "the peer closed the connection");
}

static void test_close_in_frame(void **state)
{
    struct test_fixture *all = *state;
    all->far.on_frame = close_on_frame;
    test_start_open(all);
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(test_end_send(&all->near, i, 2000, 1), RESULT_OK);
    RUN_UNTIL(&all->net, all->near.closed);
    assert_int_equal(all->far.frames, 1);
    assert_int_equal(all->far.closed, 0);
}

static void test_close_in_drained(void **state)
{
    struct test_fixture *all = *state;
    all->near.on_drained = close_it;
    test_start_open(all);
    while (!channel_full(all->near.channel))
        assert_int_equal(test_end_send(&all->near, 0, 60000, 1), RESULT_OK);
    RUN_UNTIL(&all->net, all->far.closed);
    assert_int_equal(all->near.drained, 1);
    assert_int_equal(all->near.closed, 0);
}

static void test_close_in_closed(void **state)
{
    struct test_fixture *all = *state;
    all->near.on_closed = close_it;
    test_start_open(all);
    test_end_close(&all->far);
    RUN_UNTIL(&all->net, all->near.closed);
}

/* ---- Deadlines. */

static void test_no_connection(void **state)
{
    /* Linux lets one more connection than the backlog wait to be accepted; the next gets no answer. */
    static const struct socket_listen_options ONE = {.backlog = 0};
    struct test_fixture *all = *state;
    struct test_end ends[4] = {0};
    struct failure why;
    unsigned unconnected = 0;
    struct address any = all->net.address;
    socket_close(&all->net.listener);
    assert_int_equal(socket_listen(&any, &ONE, &all->net.listener, &why), RESULT_OK);
    all->net.limits.handshake_timeout = 50 * MILLISECOND;
    for (size_t i = 0; i < COUNT_OF(ends); i++)
        test_end_connect(&ends[i], &all->net, all->client, TEST_SERVER_NAME);
    for (size_t i = 0; i < COUNT_OF(ends); i++) {
        RUN_UNTIL(&all->net, ends[i].closed);
        unconnected += strcmp(ends[i].why.text, "no connection within 0.05 s") == 0;
    }
    assert_in_range(unconnected, 1, 3);
}

static void test_handshake_timeout(void **state)
{
    struct test_fixture *all = *state;
    all->net.limits.handshake_timeout = 50 * MILLISECOND;
    uint64_t start = clock_now();
    test_raw_connect(&all->raw, &all->net, &all->ca, &all->client_identity); /* and says nothing */
    test_end_accept(&all->far, &all->net, all->server);
    RUN_UNTIL(&all->net, all->far.closed);
    assert_in_range(clock_now() - start, 50 * MILLISECOND, 8000 * MILLISECOND);
    check_end(&all->far, RESULT_PEER, "the TLS handshake was not complete within 0.05 s, in the state \"");
    assert_int_equal(all->far.cause, CHANNEL_CAUSE_TIMEOUT);

    test_raw_close(&all->raw);
    test_end_connect(&all->near, &all->net, all->client, TEST_SERVER_NAME);
    test_raw_accept(&all->raw, &all->net, &all->ca, &all->server_identity);
    RUN_UNTIL(&all->net, all->near.closed);
    check_end(&all->near, RESULT_PEER, "the TLS handshake was not complete within 0.05 s, in the state \"");
    assert_int_equal(all->near.opened, 0);
}

static void test_idle_timeout(void **state)
{
    struct test_fixture *all = *state;
    all->net.limits.idle_timeout = 1000 * MILLISECOND;
    test_start_open(all);
    /* Frames keep it alive, on either side. */
    uint64_t start = clock_now();
    while (clock_now() - start < 1500 * MILLISECOND) {
        unsigned frames = all->far.frames;
        assert_int_equal(test_end_send(&all->near, 1, 1, 1), RESULT_OK);
        RUN_UNTIL(&all->net, all->far.frames > frames);
    }
    assert_int_equal(all->near.closed + all->far.closed, 0);
    RUN_UNTIL(&all->net, all->near.closed && all->far.closed);
    /* One is first, and tells the other. */
    const struct test_end *first = all->near.why.kind == RESULT_PEER ? &all->near : &all->far;
    check_end(first, RESULT_PEER, "idle: no frame within 1 s");
}

/* Half a frame is no frame: octets alone do not keep a channel. */
static void test_dribbling_is_idle(void **state)
{
    struct test_fixture *all = *state;
    uint8_t frame[KSSL_FRAME_MAX];
    size_t size = test_frame(frame, KSSL_MAJOR, 1, 60000, 1);
    size_t at = 0;
    all->net.limits.idle_timeout = 250 * MILLISECOND; /* several octets' time, on a busy machine */
    test_start_raw_client(all);
    RUN_UNTIL(&all->net,
              all->far.closed || (at < size && test_raw_write(&all->raw, frame + at++, 1) && false));
    assert_in_range(at, 2, size - 1);
    check_end(&all->far, RESULT_PEER, "idle: no frame within 0.25 s");
}

static void test_paused_is_not_idle(void **state)
{
    struct test_fixture *all = *state;
    all->net.limits.idle_timeout = 30 * MILLISECOND;
    test_start_raw_client(all);
    channel_pause(all->far.channel);
    uint64_t start = clock_now();
    RUN_UNTIL(&all->net, clock_now() - start > 150 * MILLISECOND);
    assert_int_equal(all->far.closed, 0);
    channel_resume(all->far.channel);
    RUN_UNTIL(&all->net, all->far.closed);
    check_end(&all->far, RESULT_PEER, "idle: no frame within 0.03 s");
}

static void test_stalled_peer(void **state)
{
    struct test_fixture *all = *state;
    all->net.limits.idle_timeout = 60 * MILLISECOND;
    test_net_small_buffers(&all->net);
    test_start_raw_client(all);
    channel_pause(all->far.channel); /* not our wait: it has something to send */
    RUN_UNTIL(&all->net, all->far.closed || (test_end_send(&all->far, 1, 60000, 1) == RESULT_OK && false));
    check_end(&all->far, RESULT_PEER, "the peer took none of the ");
}

static void test_finish_with_a_peer_that_never_reads(void **state)
{
    struct test_fixture *all = *state;
    all->net.limits.handshake_timeout = 300 * MILLISECOND;
    test_net_small_buffers(&all->net);
    test_start_raw_client(all);
    for (unsigned quiet = 0; quiet < 20; quiet = channel_full(all->far.channel) ? quiet + 1 : 0) {
        while (!channel_full(all->far.channel))
            assert_int_equal(test_end_send(&all->far, 1, 60000, 1), RESULT_OK);
        uint64_t turns = all->net.turns;
        RUN_UNTIL(&all->net, all->net.turns > turns);
    }
    channel_finish(all->far.channel);
    RUN_UNTIL(&all->net, all->far.closed);
    check_end(&all->far, RESULT_PEER, "closing: the peer did not take the last ");
}

static void test_finish_with_a_peer_that_never_closes(void **state)
{
    struct test_fixture *all = *state;
    all->net.limits.handshake_timeout = 300 * MILLISECOND;
    test_start_raw_client(all);
    channel_finish(all->far.channel);
    RUN_UNTIL(&all->net, test_raw_ended(&all->raw));
    assert_int_equal(all->raw.error, SSL_ERROR_ZERO_RETURN);
    RUN_UNTIL(&all->net, all->far.closed);
    check_end(&all->far, RESULT_PEER, "closing: the peer did not close its side within 0.3 s");
}

/* ---- What the peer does. */

static void test_connect_refused(void **state)
{
    struct test_fixture *all = *state;
    socket_close(&all->net.listener);
    test_end_connect(&all->near, &all->net, all->client, TEST_SERVER_NAME);
    RUN_UNTIL(&all->net, all->near.closed);
    check_end(&all->near, RESULT_PEER, "cannot connect: Connection refused");
    assert_int_equal(all->near.cause, CHANNEL_CAUSE_CLOSED);
}

static void test_eof_without_close_notify(void **state)
{
    struct test_fixture *all = *state;
    test_start_raw_client(all);
    socket_close(&all->raw.fd);
    RUN_UNTIL(&all->net, all->far.closed);
    check_end(&all->far, RESULT_PEER, "the peer closed the connection without close_notify during reading");
}

static void test_eof_in_a_frame(void **state)
{
    struct test_fixture *all = *state;
    uint8_t frame[KSSL_FRAME_MAX];
    size_t size = test_frame(frame, KSSL_MAJOR, 1, 100, 1);
    test_start_raw_client(all);
    RUN_UNTIL(&all->net, test_raw_write(&all->raw, frame, size - 1));
    assert_true(SSL_shutdown(all->raw.ssl) >= 0);
    RUN_UNTIL(&all->net, all->far.closed);
    check_end(&all->far, RESULT_PROTOCOL, "the peer closed the connection in the middle of a frame");
}

static void test_reset(void **state)
{
    struct test_fixture *all = *state;
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    test_start_raw_client(all);
    assert_int_equal(setsockopt(all->raw.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    socket_close(&all->raw.fd);
    RUN_UNTIL(&all->net, all->far.closed);
    check_end(&all->far, RESULT_PEER, "the connection broke during reading: Connection reset by peer");
}

/* We write first and find the connection gone; what the peer said before it went is the reason. */
static void test_write_to_one_that_said_goodbye(void **state)
{
    struct test_fixture *all = *state;
    const struct linger now = {.l_onoff = 1, .l_linger = 0};
    test_start_raw_client(all);
    channel_pause(all->far.channel);
    assert_true(SSL_shutdown(all->raw.ssl) >= 0);
    assert_int_equal(setsockopt(all->raw.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    socket_close(&all->raw.fd);
    assert_int_equal(test_end_send(&all->far, 1, 100, 1), RESULT_OK);
    RUN_UNTIL(&all->net, all->far.closed);
    check_end(&all->far, RESULT_OK, "the peer closed the connection");
}

static void test_garbage_client(void **state)
{
    static const struct bytes ROWS[] = {
        WIRE("GET / HTTP/1.1\r\n\r\n"),
        WIRE("\x16\x03\x01\x00\x04\x01\x00\x00\x00"),
        WIRE("\x80\x2e\x01\x03\x01..............................................."),
        WIRE("\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
    };
    struct test_fixture *all = *state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        all->far = (struct test_end){0};
        test_raw_connect(&all->raw, &all->net, &all->ca, NULL);
        test_end_accept(&all->far, &all->net, all->server);
        assert_true(send(all->raw.fd, ROWS[i].data, ROWS[i].size, MSG_NOSIGNAL) > 0);
        (void)shutdown(all->raw.fd, SHUT_WR);
        RUN_UNTIL(&all->net, all->far.closed);
        check_end(&all->far, RESULT_PROTOCOL, "TLS error during the TLS handshake: ");
        test_raw_close(&all->raw);
    }
}

static void test_garbage_server(void **state)
{
    static const char ANSWER[] = "HTTP/1.1 400 Bad Request\r\n\r\n";
    struct test_fixture *all = *state;
    test_end_connect(&all->near, &all->net, all->client, TEST_SERVER_NAME);
    test_raw_accept(&all->raw, &all->net, &all->ca, &all->server_identity);
    assert_true(send(all->raw.fd, ANSWER, sizeof ANSWER, MSG_NOSIGNAL) > 0);
    (void)shutdown(all->raw.fd, SHUT_WR);
    RUN_UNTIL(&all->net, all->near.closed);
    check_end(&all->near, RESULT_PROTOCOL, "TLS error during the TLS handshake: wrong version number");
}

static void test_garbage_in_an_open_channel(void **state)
{
    struct test_fixture *all = *state;
    uint8_t dropped[64];
    test_start_raw_client(all);
    assert_true(send(all->raw.fd, "\x17\x03\x03\x00\x20................................", 37, MSG_NOSIGNAL) ==
                37);
    RUN_UNTIL(&all->net, all->far.closed);
    check_end(&all->far, RESULT_PROTOCOL, "TLS error during reading: ");
    RUN_UNTIL(&all->net, test_raw_read(&all->raw, dropped, sizeof dropped) == 0 && all->raw.alert != 0);
    assert_int_equal(all->raw.alert, SSL_AD_BAD_RECORD_MAC);
}

static bool update_key(struct test_raw *raw)
{
    /* A second one is refused while the first has not gone out. */
    (void)SSL_key_update(raw->ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
    return test_raw_handshake(raw);
}

static void test_key_updates(void **state)
{
    struct test_fixture *all = *state;
    uint8_t frame[KSSL_FRAME_MAX];
    size_t size = test_frame(frame, KSSL_MAJOR, 1, 100, 1);
    test_start_raw_client(all);
    for (unsigned i = 0; i < 100; i++) {
        RUN_UNTIL(&all->net, update_key(&all->raw));
        RUN_UNTIL(&all->net, test_raw_write(&all->raw, frame, size));
    }
    RUN_UNTIL(&all->net, all->far.frames == 100);
    assert_int_equal(all->far.closed, 0);
}

/* Each costs us more than the peer, and libssl would take them all in one call. */
static void test_key_updates_without_data(void **state)
{
    struct test_fixture *all = *state;
    test_start_raw_client(all);
    for (unsigned i = 0; i < 100; i++)
        RUN_UNTIL(&all->net, all->far.closed || update_key(&all->raw));
    RUN_UNTIL(&all->net, all->far.closed);
    check_end(&all->far, RESULT_PROTOCOL, "the peer sends handshake messages and no data");
}

static void test_no_channel_without_a_name(void **state)
{
    static const struct channel_handler NONE = {0};
    struct test_fixture *all = *state;
    struct failure why = {0};
    assert_null(channel_connect(all->net.base, all->client, &all->net.address, "", &all->net.limits, &NONE,
                                NULL, &why));
    assert_int_equal(why.kind, RESULT_CONFIG);
    assert_string_equal(why.text, "\"\" is not a server name that a certificate can prove");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_WITH_FIXTURE(test_finish_sends_what_is_queued),
        TEST_WITH_FIXTURE(test_finish_in_a_callback),
        TEST_WITH_FIXTURE(test_finish_when_it_opens),
        TEST_WITH_FIXTURE(test_finish_before_it_opens),
        TEST_WITH_FIXTURE(test_finish_while_the_peer_sends),
        TEST_WITH_FIXTURE(test_close_tells_the_peer),
        TEST_WITH_FIXTURE(test_close_in_open),
        TEST_WITH_FIXTURE(test_close_in_frame),
        TEST_WITH_FIXTURE(test_close_in_drained),
        TEST_WITH_FIXTURE(test_close_in_closed),
        TEST_WITH_FIXTURE(test_no_connection),
        TEST_WITH_FIXTURE(test_handshake_timeout),
        TEST_WITH_FIXTURE(test_idle_timeout),
        TEST_WITH_FIXTURE(test_dribbling_is_idle),
        TEST_WITH_FIXTURE(test_paused_is_not_idle),
        TEST_WITH_FIXTURE(test_stalled_peer),
        TEST_WITH_FIXTURE(test_finish_with_a_peer_that_never_reads),
        TEST_WITH_FIXTURE(test_finish_with_a_peer_that_never_closes),
        TEST_WITH_FIXTURE(test_connect_refused),
        TEST_WITH_FIXTURE(test_eof_without_close_notify),
        TEST_WITH_FIXTURE(test_eof_in_a_frame),
        TEST_WITH_FIXTURE(test_reset),
        TEST_WITH_FIXTURE(test_write_to_one_that_said_goodbye),
        TEST_WITH_FIXTURE(test_garbage_client),
        TEST_WITH_FIXTURE(test_garbage_server),
        TEST_WITH_FIXTURE(test_garbage_in_an_open_channel),
        TEST_WITH_FIXTURE(test_key_updates),
        TEST_WITH_FIXTURE(test_key_updates_without_data),
        TEST_WITH_FIXTURE(test_no_channel_without_a_name),
    };
    return cmocka_run_group_tests(tests, test_fixture_make, test_fixture_remove);
}
