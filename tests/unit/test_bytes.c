/* The bounded reader and writer: integers, vectors, truncation at every octet, overflow at every capacity. */
#include "tests/unit/check.h"

/* ---- Reader. */

static bool read_integer_of(struct reader *from, unsigned octets, uint64_t *value)
{
    uint8_t u8 = 0;
    uint16_t u16 = 0;
    uint32_t u32 = 0;
    bool ok = octets == 1   ? read_u8(from, &u8)
              : octets == 2 ? read_u16(from, &u16)
              : octets == 3 ? read_u24(from, &u32)
              : octets == 4 ? read_u32(from, &u32)
                            : read_u64(from, value);
    if (ok && octets < 8)
        *value = (uint64_t)u8 + u16 + u32;
    return ok;
}

static void write_integer_of(struct writer *to, unsigned octets, uint64_t value)
{
    if (octets == 1)
        write_u8(to, (uint8_t)value);
    else if (octets == 2)
        write_u16(to, (uint16_t)value);
    else if (octets == 3)
        write_u24(to, (uint32_t)value);
    else if (octets == 4)
        write_u32(to, (uint32_t)value);
    else
        write_u64(to, value);
}

static const struct {
    unsigned octets;
    struct bytes wire;
    uint64_t value;
} INTEGERS[] = {
    {1, WIRE("\x00"), 0},
    {1, WIRE("\x7f"), 0x7f},
    {1, WIRE("\xff"), 0xff},
    {2, WIRE("\x01\x02"), 0x0102},
    {2, WIRE("\xff\xff"), 0xffff},
    {3, WIRE("\x01\x02\x03"), 0x010203},
    {3, WIRE("\xff\xff\xff"), 0xffffff},
    {4, WIRE("\x01\x02\x03\x04"), 0x01020304},
    {4, WIRE("\x80\x00\x00\x00"), 0x80000000},
    {4, WIRE("\xff\xff\xff\xff"), 0xffffffff},
    {8, WIRE("\x01\x02\x03\x04\x05\x06\x07\x08"), 0x0102030405060708},
    {8, WIRE("\x80\x00\x00\x00\x00\x00\x00\x00"), UINT64_C(1) << 63},
    {8, WIRE("\xff\xff\xff\xff\xff\xff\xff\xff"), UINT64_MAX},
};

static void integers_are_big_endian(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(INTEGERS); i++) {
        struct reader from = reader_of(INTEGERS[i].wire);
        uint64_t value = 0;
        assert_true(read_integer_of(&from, INTEGERS[i].octets, &value));
        assert_true(value == INTEGERS[i].value);
        assert_true(reader_empty(&from));

        uint8_t out[8];
        struct writer to = writer_of(out, sizeof out);
        write_integer_of(&to, INTEGERS[i].octets, value);
        assert_true(bytes_equal(writer_bytes(&to), INTEGERS[i].wire));
    }
}

static void short_input_takes_nothing(void **state)
{
    (void)state;
    static const unsigned SIZES[] = {1, 2, 3, 4, 8};
    for (size_t i = 0; i < COUNT_OF(SIZES); i++) {
        for (unsigned have = 0; have < SIZES[i]; have++) {
            uint8_t *octets = exact_copy(bytes_of("\x01\x02\x03\x04\x05\x06\x07", have));
            struct reader from = reader_of(bytes_of(octets, have));
            uint64_t value = 99;
            assert_false(read_integer_of(&from, SIZES[i], &value));
            assert_ptr_equal(from.next, octets);
            assert_int_equal(from.left, have);
            assert_true(value == 99);
            free(octets);
        }
    }
}

static void slices_borrow(void **state)
{
    (void)state;
    struct bytes all = OCTETS("abcdef");
    struct reader from = reader_of(all);
    struct bytes slice;
    char copy[3];
    assert_true(read_bytes(&from, 2, &slice));
    assert_ptr_equal(slice.data, all.data);
    assert_int_equal(slice.size, 2);
    assert_true(read_copy(&from, copy, 3));
    assert_memory_equal(copy, "cde", 3);
    assert_false(read_copy(&from, copy, 2));
    assert_memory_equal(copy, "cde", 3);
    assert_false(read_bytes(&from, SIZE_MAX, &slice));
    assert_ptr_equal(slice.data, all.data);
    assert_true(read_bytes(&from, 0, &slice));
    assert_int_equal(slice.size, 0);
    assert_int_equal(from.left, 1);
    assert_true(read_bytes(&from, 1, &slice));
    assert_true(reader_empty(&from));
    assert_false(read_bytes(&from, 1, &slice));
}

static void nothing_can_be_read_from_null(void **state)
{
    (void)state;
    struct reader from = reader_of(bytes_of(NULL, 0));
    struct bytes slice = OCTETS("x");
    uint8_t octet;
    assert_true(reader_empty(&from));
    assert_false(read_u8(&from, &octet));
    assert_false(read_vector8(&from, &slice));
    assert_true(read_copy(&from, NULL, 0));
    assert_true(read_bytes(&from, 0, &slice));
    assert_int_equal(slice.size, 0);
}

typedef bool vector_reader(struct reader *from, struct bytes *slice);

static const struct {
    const char *name;
    vector_reader *read;
    struct bytes wire;
    bool ok;
    size_t size;
    size_t left;
} VECTORS[] = {
    {"empty 8", read_vector8, WIRE("\x00"), true, 0, 0},
    {"empty 16", read_vector16, WIRE("\x00\x00"), true, 0, 0},
    {"empty 24", read_vector24, WIRE("\x00\x00\x00"), true, 0, 0},
    {"exact 8", read_vector8, WIRE("\x02xy"), true, 2, 0},
    {"exact 16", read_vector16, WIRE("\x00\x02xy"), true, 2, 0},
    {"exact 24", read_vector24, WIRE("\x00\x00\x02xy"), true, 2, 0},
    {"more behind", read_vector16, WIRE("\x00\x01xyz"), true, 1, 2},
    {"nothing at all", read_vector8, WIRE(""), false, 0, 0},
    {"half a prefix 16", read_vector16, WIRE("\x00"), false, 0, 1},
    {"half a prefix 24", read_vector24, WIRE("\x00\x00"), false, 0, 2},
    {"one short 8", read_vector8, WIRE("\x03xy"), false, 0, 3},
    {"one short 16", read_vector16, WIRE("\x00\x03xy"), false, 0, 4},
    {"one short 24", read_vector24, WIRE("\x00\x00\x03xy"), false, 0, 5},
    {"largest prefix 8", read_vector8, WIRE("\xffxy"), false, 0, 3},
    {"largest prefix 16", read_vector16, WIRE("\xff\xffxy"), false, 0, 4},
    {"largest prefix 24", read_vector24, WIRE("\xff\xff\xffxy"), false, 0, 5},
};

static void vectors_by_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(VECTORS); i++) {
        uint8_t *octets = exact_copy(VECTORS[i].wire);
        struct reader from = reader_of(bytes_of(octets, VECTORS[i].wire.size));
        struct bytes slice = bytes_of(octets, 77);
        CHECK(VECTORS[i].name, VECTORS[i].read(&from, &slice) == VECTORS[i].ok);
        CHECK(VECTORS[i].name, slice.size == (VECTORS[i].ok ? VECTORS[i].size : 77));
        CHECK(VECTORS[i].name, from.left == VECTORS[i].left);
        CHECK(VECTORS[i].name, from.next == octets + (VECTORS[i].wire.size - VECTORS[i].left));
        free(octets);
    }
}

static void vectors_are_copied_up_to_a_bound(void **state)
{
    (void)state;
    uint8_t field[2] = {0}, size = 77;
    struct reader from = reader_of(OCTETS("\x03xyz\x02xy\x00\x02x"));
    assert_false(read_vector8_copy(&from, field, &size, sizeof field));
    assert_int_equal(from.left, 10);
    assert_int_equal(size, 77);
    assert_true(read_bytes(&from, 4, &(struct bytes){0}));
    assert_true(read_vector8_copy(&from, field, &size, sizeof field));
    assert_int_equal(size, 2);
    assert_memory_equal(field, "xy", 2);
    assert_true(read_vector8_copy(&from, NULL, &size, 0));
    assert_int_equal(size, 0);
    assert_false(read_vector8_copy(&from, field, &size, sizeof field));
    assert_int_equal(from.left, 2);
}

static void equality(void **state)
{
    (void)state;
    assert_true(bytes_equal(bytes_of(NULL, 0), bytes_of(NULL, 0)));
    assert_true(bytes_equal(bytes_of(NULL, 0), OCTETS("")));
    assert_true(bytes_equal(OCTETS("a\0b"), OCTETS("a\0b")));
    assert_false(bytes_equal(OCTETS("a\0b"), OCTETS("a\0c")));
    assert_false(bytes_equal(OCTETS("ab"), OCTETS("abc")));
    assert_false(bytes_equal(OCTETS("a"), bytes_of(NULL, 0)));
}

/* ---- Writer. */

/* Every kind of write once, vectors within vectors, some empty. */
static void write_sample(struct writer *to)
{
    write_u8(to, 1);
    WRITE_VECTOR(to, 3)
    {
        write_u16(to, 0x0203);
        WRITE_VECTOR(to, 2)
        {
            WRITE_VECTOR(to, 1)
            {
                write_bytes(to, OCTETS("abc"));
            }
            WRITE_VECTOR(to, 1)
            {
                write_bytes(to, bytes_of(NULL, 0));
            }
        }
        write_u24(to, 0x040506);
    }
    write_fill(to, ' ', 2);
    write_fill(to, ' ', 0);
    write_u32(to, 0x0708090a);
    write_u64(to, 0x1112131415161718);
}

static const char SAMPLE[] = "\x01\x00\x00\x0c\x02\x03\x00\x05\x03"
                             "abc\x00\x04\x05\x06  \x07\x08\x09\x0a\x11\x12\x13\x14\x15\x16\x17\x18";

static void nested_vectors_have_their_lengths(void **state)
{
    (void)state;
    uint8_t octets[64];
    struct writer to = writer_of(octets, sizeof octets);
    write_sample(&to);
    assert_true(writer_ok(&to));
    assert_int_equal(to.size, sizeof SAMPLE - 1);
    assert_memory_equal(octets, SAMPLE, sizeof SAMPLE - 1);
}

static void nested_vectors_read_back(void **state)
{
    (void)state;
    struct reader from = reader_of(OCTETS(SAMPLE));
    struct bytes outer, inner, name, empty;
    uint8_t first;
    uint16_t second;
    assert_true(read_u8(&from, &first) && read_vector24(&from, &outer));
    assert_int_equal(from.left, 2 + 4 + 8);
    from = reader_of(outer);
    assert_true(read_u16(&from, &second) && read_vector16(&from, &inner));
    assert_int_equal(from.left, 3);
    from = reader_of(inner);
    assert_true(read_vector8(&from, &name) && read_vector8(&from, &empty) && reader_empty(&from));
    assert_true(bytes_equal(name, OCTETS("abc")));
    assert_int_equal(empty.size, 0);
}

static void every_capacity_is_respected(void **state)
{
    (void)state;
    size_t needed = sizeof SAMPLE - 1;
    for (size_t capacity = 0; capacity <= needed + 1; capacity++) {
        uint8_t *octets = malloc(capacity > 0 ? capacity : 1);
        assert_non_null(octets);
        struct writer to = writer_of(octets, capacity);
        write_sample(&to);
        assert_int_equal(writer_ok(&to), capacity >= needed);
        assert_true(to.size <= capacity);
        assert_int_equal(writer_bytes(&to).size, capacity >= needed ? needed : 0);
        free(octets);
    }
}

static void overflow_is_sticky(void **state)
{
    (void)state;
    uint8_t octets[4] = {0};
    struct writer to = writer_of(octets, sizeof octets);
    write_u32(&to, 1);
    assert_true(writer_ok(&to)); /* exactly full is no overflow */
    write_bytes(&to, bytes_of(NULL, 0));
    write_fill(&to, 0, 0);
    assert_true(writer_ok(&to));
    write_u8(&to, 9);
    assert_false(writer_ok(&to));

    to = writer_of(octets, sizeof octets);
    write_u64(&to, 1);
    assert_false(writer_ok(&to));
    write_u8(&to, 9); /* would fit, but what was before it is missing */
    assert_false(writer_ok(&to));
    assert_int_equal(to.size, 0);
    assert_int_equal(writer_bytes(&to).size, 0);
}

static void sizes_do_not_wrap(void **state)
{
    (void)state;
    uint8_t octets[4] = {0};
    struct writer to = writer_of(octets, sizeof octets);
    write_u16(&to, 0);
    write_fill(&to, 1, SIZE_MAX); /* size + SIZE_MAX is 1 */
    assert_false(writer_ok(&to));
    to = writer_of(NULL, 0);
    write_u8(&to, 1);
    assert_false(writer_ok(&to));
}

static void u24_takes_24_bits(void **state)
{
    (void)state;
    uint8_t octets[8];
    struct writer to = writer_of(octets, sizeof octets);
    write_u24(&to, 0xffffff);
    assert_true(writer_ok(&to));
    write_u24(&to, 0x1000000);
    assert_false(writer_ok(&to));
}

static const struct {
    unsigned prefix;
    size_t size;
    bool ok;
} VECTOR_LIMITS[] = {
    {1, 0, true},      {1, 255, true},    {1, 256, false},  {2, 256, true},      {2, 65535, true},
    {2, 65536, false}, {2, 65537, false}, {3, 65536, true}, {3, 0xffffff, true}, {3, 0x1000000, false},
};

static void a_vector_too_long_for_its_prefix_spoils(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(VECTOR_LIMITS); i++) {
        size_t capacity = VECTOR_LIMITS[i].size + 8;
        uint8_t *octets = malloc(capacity);
        assert_non_null(octets);
        struct writer to = writer_of(octets, capacity);
        WRITE_VECTOR(&to, VECTOR_LIMITS[i].prefix)
        {
            write_fill(&to, 'x', VECTOR_LIMITS[i].size);
        }
        assert_int_equal(writer_ok(&to), VECTOR_LIMITS[i].ok);
        if (VECTOR_LIMITS[i].ok) {
            struct reader from = reader_of(writer_bytes(&to));
            uint64_t size = 0;
            assert_true(read_integer_of(&from, VECTOR_LIMITS[i].prefix, &size));
            assert_int_equal(size, VECTOR_LIMITS[i].size);
            assert_int_equal(from.left, VECTOR_LIMITS[i].size);
        }
        free(octets);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_big_endian),
        cmocka_unit_test(short_input_takes_nothing),
        cmocka_unit_test(slices_borrow),
        cmocka_unit_test(nothing_can_be_read_from_null),
        cmocka_unit_test(vectors_by_table),
        cmocka_unit_test(vectors_are_copied_up_to_a_bound),
        cmocka_unit_test(equality),
        cmocka_unit_test(nested_vectors_have_their_lengths),
        cmocka_unit_test(nested_vectors_read_back),
        cmocka_unit_test(every_capacity_is_respected),
        cmocka_unit_test(overflow_is_sticky),
        cmocka_unit_test(sizes_do_not_wrap),
        cmocka_unit_test(u24_takes_24_bits),
        cmocka_unit_test(a_vector_too_long_for_its_prefix_spoils),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
