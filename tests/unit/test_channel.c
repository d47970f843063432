/* Frames through a channel: all sizes, many at once, slow peers, back pressure, other versions. */
#include "tests/unit/support/test_fixture.h"

#include <stdio.h>

#include "tests/unit/check.h"

enum { RAW_ROOM = 1 << 20 };

static void test_opens(void **state)
{
    struct test_fixture *all = *state;
    char name[64];
    test_start_open(all);
    assert_string_equal(channel_tls_version(all->near.channel), "TLSv1.3");
    X509 *peer = channel_peer_certificate(all->far.channel);
    assert_non_null(peer);
    assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, name, sizeof name) >
                0);
    assert_string_equal(name, "edge1");
    assert_true(address_equal(channel_peer_address(all->near.channel), &all->net.address));
}

static void test_no_certificate_before_open(void **state)
{
    struct test_fixture *all = *state;
    test_start(all);
    assert_null(channel_peer_certificate(all->far.channel));
    assert_int_equal(test_end_send(&all->far, 1, 1, 0), RESULT_PEER);
}

/* ---- Sizes and numbers. */

static void echo(struct test_end *end, const struct kssl_header *header, struct bytes body)
{
    for (size_t i = 0; i < body.size; i++)
        assert_int_equal(body.data[i], header->id & 0xFF);
    assert_int_equal(test_end_send(end, header->id, body.size, (uint8_t)header->id), RESULT_OK);
}

static void in_order(struct test_end *end, const struct kssl_header *header, struct bytes body)
{
    (void)body;
    assert_int_equal(header->id, end->count);
    end->count++;
}

static void test_frames_of_all_sizes(void **state)
{
    static const size_t SIZES[] = {0,     1,     1016,  16375, 16376, 16377, 20000,
                                   32760, 32761, 49152, 65535, 3,     65535, 0};
    struct test_fixture *all = *state;
    size_t octets = 0;
    all->net.limits.output_high = 1 << 20;
    all->far.on_frame = echo;
    all->near.on_frame = in_order;
    test_start_open(all);
    for (uint32_t i = 0; i < COUNT_OF(SIZES); i++) {
        assert_int_equal(test_end_send(&all->near, i, SIZES[i], (uint8_t)i), RESULT_OK);
        octets += SIZES[i];
    }
    RUN_UNTIL(&all->net, all->near.frames == COUNT_OF(SIZES));
    assert_int_equal(all->near.octets, octets);
    assert_int_equal(all->near.closed + all->far.closed, 0);
}

static void test_pipelines(void **state)
{
    struct test_fixture *all = *state;
    all->net.limits.output_high = 4 << 20;
    all->far.on_frame = echo;
    all->near.on_frame = in_order;
    test_start_open(all);
    for (uint32_t i = 0; i < 2048; i++)
        assert_int_equal(test_end_send(&all->near, i, 1016, (uint8_t)i), RESULT_OK);
    RUN_UNTIL(&all->net, all->near.frames == 2048);
    assert_int_equal(all->near.octets, 2048 * 1016);
}

static void test_sends_whole_frames_only(void **state)
{
    static const uint8_t SHORT[] = {1, 0, 0, 0, 0, 0, 0};
    static const uint8_t WRONG[] = {1, 0, 0, 2, 0, 0, 0, 1, 0xFF};
    struct test_fixture *all = *state;
    test_start_open(all);
    assert_int_equal(channel_send(all->near.channel, bytes_of(SHORT, sizeof SHORT)), RESULT_PROTOCOL);
    assert_int_equal(channel_send(all->near.channel, bytes_of(WRONG, sizeof WRONG)), RESULT_PROTOCOL);
    assert_int_equal(channel_queued(all->near.channel), 0);
}

static void test_unix_socket(void **state)
{
    struct test_fixture *all = *state;
    char path[TEST_PATH_SIZE];
    (void)snprintf(path, sizeof path, "%s/s", all->ca.directory);
    test_net_close(&all->net);
    test_net_open(&all->net, path);
    all->far.on_frame = echo;
    test_start_open(all);
    assert_int_equal(test_end_send(&all->near, 9, 3000, 9), RESULT_OK);
    RUN_UNTIL(&all->net, all->near.frames == 1);
    assert_true(address_is_unix(channel_peer_address(all->far.channel)));
}

/* ---- A peer whose records say nothing about frames. */

static void raw_send(struct test_fixture *all, const uint8_t *data, size_t size, size_t piece)
{
    for (size_t at = 0; at < size; at += piece)
        RUN_UNTIL(&all->net, test_raw_write(&all->raw, data + at, size - at < piece ? size - at : piece));
}

static void test_octet_at_a_time(void **state)
{
    struct test_fixture *all = *state;
    uint8_t frame[KSSL_FRAME_MAX];
    all->far.on_frame = in_order;
    test_start_raw_client(all);
    for (uint32_t id = 0; id < 3; id++)
        raw_send(all, frame, test_frame(frame, KSSL_MAJOR, id, (size_t)100 * id, 7), 1);
    RUN_UNTIL(&all->net, all->far.frames == 3);
    assert_int_equal(all->far.octets, 300);
}

static void test_records_cut_anywhere(void **state)
{
    static const size_t PIECES[] = {7, 1000, 4096, 16384};
    struct test_fixture *all = *state;
    uint8_t *stream = test_malloc(RAW_ROOM);
    size_t size = 0;
    uint32_t frames = 0;
    all->far.on_frame = in_order;
    test_start_raw_client(all);
    for (size_t i = 0; i < COUNT_OF(PIECES); i++) {
        size = 0;
        for (size_t body = 1; body < 60000; body = 3 * body + 1)
            size += test_frame(stream + size, KSSL_MAJOR, frames++, body, 1);
        raw_send(all, stream, size, PIECES[i]);
    }
    RUN_UNTIL(&all->net, all->far.frames == frames);
    test_free(stream);
}

/* A frame of another major version: told at once, its body skipped to the octet, the next one whole. */
static void test_other_version(void **state)
{
    static const size_t PIECES[] = {1, 16384};
    struct test_fixture *all = *state;
    uint8_t *stream = test_malloc((size_t)2 * KSSL_FRAME_MAX);
    test_start_raw_client(all);
    for (size_t i = 0; i < COUNT_OF(PIECES); i++) {
        size_t body = PIECES[i] == 1 ? 300 : 65535;
        size_t size = test_frame(stream, 2, 0x55, body, 1);
        raw_send(all, stream, size - 1, PIECES[i]);
        RUN_UNTIL(&all->net, all->far.frames == 2 * i + 1);
        assert_int_equal(all->far.last.major, 2);
        assert_int_equal(all->far.last.id, 0x55);
        assert_int_equal(all->far.last.length, body);
        assert_int_equal(all->far.octets, 9 * i);
        size_t last = size - 1;
        size += test_frame(stream + size, KSSL_MAJOR, 0x56, 9, 1);
        raw_send(all, stream + last, size - last, PIECES[i]);
        RUN_UNTIL(&all->net, all->far.frames == 2 * i + 2);
        assert_int_equal(all->far.last.major, 1);
        assert_int_equal(all->far.octets, 9 * (i + 1));
    }
    test_free(stream);
}

/* ---- The record rule: a frame up to 16,384 octets lies within one record, a longer one starts its own. */

static void queue_batch(struct test_end *end)
{
    static const size_t BODIES[] = {1016, 0, 16376, 1, 16377, 5, 8184, 8184, 8184, 65535, 65535, 100, 16376};
    for (uint32_t i = 0; i < COUNT_OF(BODIES); i++)
        assert_int_equal(test_end_send(end, i, BODIES[i], 1), RESULT_OK);
    for (uint32_t i = 0; i < 64; i++)
        assert_int_equal(test_end_send(end, i, 1016, 1), RESULT_OK);
}

/* Checks one record against the frames; *left is what is still to come of a long frame. */
static void check_record(const uint8_t *record, size_t size, size_t *left)
{
    assert_in_range(size, 1, KSSL_RECORD_MAX);
    if (*left > 0) {
        assert_int_equal(size, *left < KSSL_RECORD_MAX ? *left : KSSL_RECORD_MAX);
        *left -= size;
        return;
    }
    for (size_t at = 0; at < size;) {
        struct kssl_header header;
        assert_true(size - at >= KSSL_HEADER_SIZE);
        kssl_header_parse(record + at, &header);
        size_t frame = KSSL_HEADER_SIZE + (size_t)header.length;
        if (frame > KSSL_RECORD_MAX) {
            assert_int_equal(at, 0);
            assert_int_equal(size, KSSL_RECORD_MAX);
            *left = frame - size;
            return;
        }
        assert_true(frame <= size - at);
        at += frame;
    }
}

static void test_record_rule(void **state)
{
    struct test_fixture *all = *state;
    uint8_t *record = test_malloc(RAW_ROOM);
    size_t left = 0;
    size_t total = 0;
    unsigned records = 0;
    all->net.limits.output_high = 1 << 20;
    test_start_raw_client(all);
    queue_batch(&all->far);
    size_t expected = channel_queued(all->far.channel);
    while (total < expected) {
        size_t got = 0;
        RUN_UNTIL(&all->net, (got = test_raw_read(&all->raw, record, RAW_ROOM)) > 0);
        check_record(record, got, &left);
        total += got;
        records++;
    }
    assert_int_equal(total, expected);
    assert_int_equal(left, 0);
    /* libssl's SSL_read gives one record a call; its own count agrees. */
    assert_int_equal(records, all->raw.records);
    /* 1024+8, 16384, 9, 16385 in 2, 13+8192, 8192+8192, twice 65543 in 5, 108, 16384, 64 x 1024 in 4. */
    assert_int_equal(records, 23);
    test_free(record);
}

static void test_one_record_a_turn(void **state)
{
    struct test_fixture *all = *state;
    uint8_t *record = test_malloc(RAW_ROOM);
    size_t got = 0;
    test_start_raw_client(all);
    for (uint32_t i = 0; i < 15; i++)
        assert_int_equal(test_end_send(&all->far, i, 1016, 1), RESULT_OK);
    RUN_UNTIL(&all->net, (got = test_raw_read(&all->raw, record, RAW_ROOM)) > 0);
    assert_int_equal(got, 15 * 1024);
    test_free(record);
}

/* ---- Back pressure. */

static void pause_at_third(struct test_end *end, const struct kssl_header *header, struct bytes body)
{
    in_order(end, header, body);
    if (end->frames % 3 == 0)
        channel_pause(end->channel);
}

static void test_pause(void **state)
{
    struct test_fixture *all = *state;
    uint8_t stream[4096];
    size_t size = 0;
    all->far.on_frame = pause_at_third;
    test_start_raw_client(all);
    for (uint32_t id = 0; id < 12; id++)
        size += test_frame(stream + size, KSSL_MAJOR, id, 100, 1);
    raw_send(all, stream, size, size); /* one record: the rest is already read when the channel pauses */
    for (unsigned stop = 3; stop <= 12; stop += 3) {
        RUN_UNTIL(&all->net, all->far.frames == stop);
        uint64_t turns = all->net.turns;
        RUN_UNTIL(&all->net, all->net.turns > turns + 5);
        assert_int_equal(all->far.frames, stop);
        channel_resume(all->far.channel);
    }
    /* Frames that come while it is paused wait in the socket. */
    channel_pause(all->far.channel);
    raw_send(all, stream, test_frame(stream, KSSL_MAJOR, 12, 100, 1), 108);
    uint64_t turns = all->net.turns;
    RUN_UNTIL(&all->net, all->net.turns > turns + 5);
    assert_int_equal(all->far.frames, 12);
    channel_resume(all->far.channel);
    RUN_UNTIL(&all->net, all->far.frames == 13);
}

static void pause_and_resume(struct test_end *end, const struct kssl_header *header, struct bytes body)
{
    static unsigned depth;
    assert_int_equal(++depth, 1);
    in_order(end, header, body);
    channel_pause(end->channel);
    channel_resume(end->channel);
    depth--;
}

static void test_resume_does_not_recurse(void **state)
{
    struct test_fixture *all = *state;
    all->net.limits.output_high = 1 << 20;
    all->far.on_frame = pause_and_resume;
    test_start_open(all);
    for (uint32_t i = 0; i < 1000; i++)
        assert_int_equal(test_end_send(&all->near, i, 0, 0), RESULT_OK);
    RUN_UNTIL(&all->net, all->far.frames == 1000);
}

static void test_peer_that_never_reads(void **state)
{
    struct test_fixture *all = *state;
    uint8_t *into = test_malloc(RAW_ROOM);
    uint32_t sent = 0;
    test_net_small_buffers(&all->net);
    test_start_raw_client(all);
    /* Until the kernel takes no more either. */
    for (;;) {
        uint64_t turns = all->net.turns;
        RUN_UNTIL(&all->net, channel_queued(all->far.channel) == 0 || all->net.turns > turns + 20);
        if (channel_full(all->far.channel))
            break;
        while (!channel_full(all->far.channel) && test_end_send(&all->far, sent, 8184, 1) == RESULT_OK)
            sent++;
    }
    while (test_end_send(&all->far, sent, 8184, 1) == RESULT_OK)
        sent++;
    assert_int_equal(test_end_send(&all->far, sent, 8184, 1), RESULT_LIMIT);
    assert_in_range(channel_queued(all->far.channel), all->net.limits.output_high,
                    2 * all->net.limits.output_high);
    assert_int_equal(all->far.closed, 0);
    /* Now it reads. */
    all->far.drained = 0;
    size_t got = 0;
    RUN_UNTIL(&all->net, (got += test_raw_read(&all->raw, into, RAW_ROOM)) == (size_t)sent * 8192);
    assert_int_equal(all->far.drained, 1);
    assert_false(channel_full(all->far.channel));
    assert_int_equal(channel_queued(all->far.channel), 0);
    test_free(into);
}

/* Two peers that both send more than the sockets hold, and
 * read only in between, must not wait for each other. */
static void refill(struct test_end *end)
{
    while (end->count < 4000 && !channel_full(end->channel)) {
        assert_int_equal(test_end_send(end, end->count, 2000, 1), RESULT_OK);
        end->count++;
    }
}

static void test_both_send_much(void **state)
{
    struct test_fixture *all = *state;
    all->near.on_open = all->far.on_open = refill;
    all->near.on_drained = all->far.on_drained = refill;
    test_start_open(all);
    RUN_UNTIL(&all->net, all->near.frames == 4000 && all->far.frames == 4000);
}

/* ---- Fairness. */

/* With the socket full of frames of this size, in records of
 * one frame each, one turn delivers at most so many. */
static void check_turn(struct test_fixture *all, size_t body, unsigned most)
{
    uint8_t frame[KSSL_FRAME_MAX];
    size_t size = test_frame(frame, KSSL_MAJOR, 0, body, 1);
    uint32_t sent = 0;
    unsigned before = all->far.frames;
    while (sent < 20000 && test_raw_write(&all->raw, frame, size))
        sent++;
    assert_in_range(sent, most + 1, 20000);
    assert_int_equal(event_base_loop(all->net.base, EVLOOP_ONCE | EVLOOP_NONBLOCK), 0);
    assert_in_range(all->far.frames - before, 1, most);
    if (sent < 20000) /* libssl wants to finish the write it began */
        RUN_UNTIL(&all->net, test_raw_write(&all->raw, frame, size) && ++sent > 0);
    RUN_UNTIL(&all->net, all->far.frames == before + sent);
}

static void test_one_turn_is_bounded(void **state)
{
    struct test_fixture *all = *state;
    test_start_raw_client(all);
    check_turn(all, 0, 64 + 1);
    check_turn(all, 16376, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_WITH_FIXTURE(test_opens),
        TEST_WITH_FIXTURE(test_no_certificate_before_open),
        TEST_WITH_FIXTURE(test_frames_of_all_sizes),
        TEST_WITH_FIXTURE(test_pipelines),
        TEST_WITH_FIXTURE(test_sends_whole_frames_only),
        TEST_WITH_FIXTURE(test_unix_socket),
        TEST_WITH_FIXTURE(test_octet_at_a_time),
        TEST_WITH_FIXTURE(test_records_cut_anywhere),
        TEST_WITH_FIXTURE(test_other_version),
        TEST_WITH_FIXTURE(test_record_rule),
        TEST_WITH_FIXTURE(test_one_record_a_turn),
        TEST_WITH_FIXTURE(test_pause),
        TEST_WITH_FIXTURE(test_resume_does_not_recurse),
        TEST_WITH_FIXTURE(test_peer_that_never_reads),
        TEST_WITH_FIXTURE(test_both_send_much),
        TEST_WITH_FIXTURE(test_one_turn_is_bounded),
    };
    return cmocka_run_group_tests(tests, test_fixture_make, test_fixture_remove);
}
