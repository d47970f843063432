#include "common/frame_input.h"

#include "tests/unit/check.h"

static void put(struct frame_input *input, struct bytes octets)
{
    uint8_t *room;
    size_t size;
    for (size_t at = 0; at < octets.size;) {
        assert_true(frame_input_room(input, &room, &size));
        assert_true(size > 0);
        size = size < octets.size - at ? size : octets.size - at;
        memcpy(room, octets.data + at, size);
        frame_input_filled(input, size);
        at += size;
    }
}

static void empty(struct frame_input *input)
{
    frame_input_clear(input);
    frame_input_release(input);
    assert_null(input->data);
}

static void test_nothing_held_at_first(void **state)
{
    struct frame_input input = {0};
    struct kssl_header header;
    struct bytes body;
    (void)state;
    assert_false(frame_input_next(&input, &header, &body));
    assert_false(frame_input_amid(&input));
    frame_input_release(&input);
}

/* The same three frames, whatever the reads were. */
static void test_cut_anywhere(void **state)
{
    static const struct bytes STREAM = WIRE("\1\7\0\2\xAA\xBB\xCC\xDD"
                                            "xy"
                                            "\1\0\0\0\0\0\0\1"
                                            "\1\0\0\1\0\0\0\2"
                                            "z");
    (void)state;
    for (size_t piece = 1; piece <= STREAM.size; piece++) {
        struct frame_input input = {0};
        struct kssl_header header;
        struct bytes body;
        char seen[16] = "";
        uint32_t ids[3] = {0};
        size_t frames = 0;
        for (size_t at = 0; at < STREAM.size; at += piece) {
            put(&input, bytes_of(STREAM.data + at, piece < STREAM.size - at ? piece : STREAM.size - at));
            while (frame_input_next(&input, &header, &body)) {
                assert_true(frames < 3);
                ids[frames++] = header.id;
                strncat(seen, (const char *)body.data, body.size);
            }
        }
        assert_int_equal(frames, 3);
        assert_int_equal(ids[0], 0xAABBCCDD);
        assert_int_equal(ids[1], 1);
        assert_int_equal(ids[2], 2);
        assert_string_equal(seen, "xyz");
        assert_false(frame_input_amid(&input));
        empty(&input);
    }
}

static void test_grows_to_one_frame_and_shrinks(void **state)
{
    static const uint8_t LONG[] = {1, 0, 0xFF, 0xFF, 0, 0, 0, 5};
    static const uint8_t PIECE[4096];
    struct frame_input input = {0};
    struct kssl_header header;
    struct bytes body;
    (void)state;
    put(&input, bytes_of(LONG, sizeof LONG));
    size_t base = input.capacity;
    assert_true(base < KSSL_FRAME_MAX);
    for (size_t left = 65535; left > 0;) {
        size_t size = left < sizeof PIECE ? left : sizeof PIECE;
        assert_true(frame_input_amid(&input));
        assert_false(frame_input_next(&input, &header, &body));
        put(&input, bytes_of(PIECE, size));
        left -= size;
    }
    assert_int_equal(input.capacity, KSSL_FRAME_MAX);
    assert_true(frame_input_next(&input, &header, &body));
    assert_int_equal(body.size, 65535);
    put(&input, bytes_of(LONG, 1));
    assert_int_equal(input.capacity, base);
    frame_input_release(&input); /* holds something: nothing happens */
    assert_true(frame_input_amid(&input));
    empty(&input);
}

/* A frame of another version is told when its header is here; its body never takes memory. */
static void test_other_version(void **state)
{
    static const uint8_t OTHER[] = {2, 0, 0xFF, 0xFF, 0, 0, 0, 5};
    static const uint8_t NEXT[] = {1, 0, 0, 1, 0, 0, 0, 6, 'x'};
    static const uint8_t PIECE[1000];
    struct frame_input input = {0};
    struct kssl_header header;
    struct bytes body;
    (void)state;
    put(&input, bytes_of(OTHER, sizeof OTHER));
    size_t base = input.capacity;
    assert_true(frame_input_next(&input, &header, &body));
    assert_int_equal(header.major, 2);
    assert_int_equal(header.length, 65535);
    assert_int_equal(body.size, 0);
    for (size_t left = 65535; left > 0;) {
        size_t size = left < sizeof PIECE ? left : sizeof PIECE;
        assert_true(frame_input_amid(&input));
        put(&input, bytes_of(PIECE, size));
        assert_false(frame_input_next(&input, &header, &body));
        frame_input_release(&input); /* what is to be skipped is not forgotten with the memory */
        left -= size;
    }
    assert_false(frame_input_amid(&input));
    put(&input, bytes_of(NEXT, sizeof NEXT));
    assert_int_equal(input.capacity, base);
    assert_true(frame_input_next(&input, &header, &body));
    assert_int_equal(header.id, 6);
    assert_int_equal(body.data[0], 'x');
    empty(&input);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_held_at_first),
        cmocka_unit_test(test_cut_anywhere),
        cmocka_unit_test(test_grows_to_one_frame_and_shrinks),
        cmocka_unit_test(test_other_version),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
