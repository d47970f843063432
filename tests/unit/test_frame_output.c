#include "common/frame_output.h"

#include "tests/unit/check.h"

enum { WRITES_MAX = 8 };

static void append(struct frame_output *output, size_t size)
{
    static uint8_t frame[KSSL_FRAME_MAX];
    size_t body = size - KSSL_HEADER_SIZE;
    frame[0] = KSSL_MAJOR;
    frame[2] = (uint8_t)(body >> 8);
    frame[3] = (uint8_t)body;
    assert_true(frame_output_append(output, bytes_of(frame, size)));
}

/* Frames of these sizes go out in writes of these. */
static const struct row {
    const char *name;
    size_t frames[WRITES_MAX];
    size_t writes[WRITES_MAX];
} ROWS[] = {
    {"one", {8}, {8}},
    {"together", {1024, 1024, 8}, {2056}},
    {"exactly a record", {16384}, {16384}},
    {"exactly a record of two", {8192, 8192, 8}, {16384, 8}},
    {"one octet too many", {8192, 8193}, {8192, 8193}},
    {"a record, not shared", {1000, 16384, 1000}, {1000, 16384, 1000}},
    {"long", {16385, 8}, {16384, 1, 8}},
    {"long behind short", {100, 40000, 100}, {100, 16384, 16384, 7232, 100}},
    {"two long", {16385, 32768, 8}, {16384, 1, 16384, 16384, 8}},
    {"longest", {65543}, {16384, 16384, 16384, 16384, 7}},
};

static void check_row(const struct row *row, size_t part)
{
    struct frame_output output = {0};
    for (size_t i = 0; i < WRITES_MAX && row->frames[i] > 0; i++)
        append(&output, row->frames[i]);
    for (size_t i = 0; i < WRITES_MAX && row->writes[i] > 0; i++) {
        for (size_t left = row->writes[i]; left > 0;) {
            size_t taken = left < part ? left : part;
            CHECK(row->name, frame_output_chunk(&output).size == left);
            CHECK(row->name, frame_output_chunk(&output).size == left); /* asking takes nothing */
            frame_output_taken(&output, taken);
            left -= taken;
        }
    }
    CHECK(row->name, output.size == 0);
    frame_output_release(&output);
}

static void test_cuts(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        check_row(&ROWS[i], KSSL_RECORD_MAX);
        check_row(&ROWS[i], 999); /* a peer that negotiated shorter records */
    }
}

/* What is handed out stays as it is while more is queued behind, though the memory moves. */
static void test_chunk_is_pinned(void **state)
{
    struct frame_output output = {0};
    (void)state;
    append(&output, 1000);
    struct bytes before = frame_output_chunk(&output);
    assert_int_equal(before.size, 1000);
    for (int i = 0; i < 100; i++)
        append(&output, 5000);
    struct bytes after = frame_output_chunk(&output);
    assert_int_equal(after.size, 1000);
    assert_int_equal(after.data[3], (1000 - KSSL_HEADER_SIZE) & 0xFF);
    frame_output_taken(&output, 1000);
    assert_int_equal(frame_output_chunk(&output).size, 15000);
    frame_output_release(&output);
}

/* A queue that never empties keeps to memory in proportion to what is queued. */
static void test_memory_is_bounded(void **state)
{
    struct frame_output output = {0};
    size_t queued = 100000;
    (void)state;
    for (size_t size = 0; size < queued; size += 1000)
        append(&output, 1000);
    for (int i = 0; i < 10000; i++) {
        append(&output, 1000);
        assert_int_equal(output.size, queued + 1000);
        for (size_t left = 1000; left > 0;) {
            size_t chunk = frame_output_chunk(&output).size;
            size_t taken = chunk < left ? chunk : left;
            frame_output_taken(&output, taken);
            left -= taken;
        }
        assert_true(output.capacity <= 3 * (queued + 1000));
    }
    frame_output_release(&output);
    assert_null(output.data);
}

static void test_whole(void **state)
{
    (void)state;
    assert_true(frame_output_whole(OCTETS("\1\0\0\0\0\0\0\0")));
    assert_true(frame_output_whole(OCTETS("\1\0\0\1\0\0\0\0x")));
    assert_false(frame_output_whole(OCTETS("\1\0\0\1\0\0\0\0")));
    assert_false(frame_output_whole(OCTETS("\1\0\0\0\0\0\0\0x")));
    assert_false(frame_output_whole(OCTETS("\1\0\0\0\0\0\0")));
    assert_false(frame_output_whole(bytes_of(NULL, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_chunk_is_pinned),
        cmocka_unit_test(test_memory_is_bounded),
        cmocka_unit_test(test_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
