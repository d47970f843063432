/* What is known of a key server's keys: pages of its list, its answers, and how long they are believed. */
#include "proxy/key_map.h"

#include "common/clock.h"
#include "tests/unit/check.h"

#define SECOND UINT64_C(1000000)
#define NOW    (1000 * SECOND)

static struct key_map *map;
static uint8_t after[KEY_ID_SKI_SIZE];
static bool more;

static int set_up(void **state)
{
    (void)state;
    map = key_map_new();
    more = false;
    memset(after, 0xff, sizeof after); /* the first page does not look at it */
    return map == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    key_map_free(map);
    return 0;
}

struct ski {
    uint8_t octets[KEY_ID_SKI_SIZE];
};

/* In the order of their numbers. */
static struct ski ski_of(uint32_t number)
{
    return (struct ski){
        {0, 0, (uint8_t)(number >> 24), (uint8_t)(number >> 16), (uint8_t)(number >> 8), (uint8_t)number}};
}

static enum key_knowledge find(uint32_t number, uint64_t now)
{
    return key_map_find(map, ski_of(number).octets, now);
}

static void note(uint32_t number, bool held, uint64_t now)
{
    key_map_note(map, ski_of(number).octets, held, now);
}

static void write_key(struct writer *to, uint32_t number)
{
    struct ski ski = ski_of(number);
    write_bytes(to, bytes_of(ski.octets, sizeof ski.octets));
    write_u8(to, 2);
    write_vector8(to, OCTETS("site"));
}

/* Keys from .. to - 1. */
static bool take(bool first, bool follows, uint32_t from, uint32_t to, uint64_t now)
{
    static uint8_t page[60000];
    struct writer out = writer_of(page, sizeof page);
    write_u8(&out, follows);
    for (uint32_t i = from; i < to; i++)
        write_key(&out, i);
    assert_true(writer_ok(&out));
    uint8_t *exact = exact_copy(writer_bytes(&out));
    bool taken = key_map_take_page(map, bytes_of(exact, out.size), first, now, after, &more);
    free(exact);
    return taken;
}

static void test_knows_nothing(void **state)
{
    (void)state;
    assert_int_equal(find(1, NOW), KEY_UNKNOWN);
    assert_int_equal(key_map_count(map), 0);
    key_map_free(NULL);
}

static void test_pages(void **state)
{
    (void)state;
    assert_true(take(true, true, 0, 100, NOW) && more);
    assert_memory_equal(after, ski_of(99).octets, sizeof after);
    assert_int_equal(find(99, NOW), KEY_HELD);
    assert_int_equal(find(100, NOW), KEY_UNKNOWN); /* may be on a later page */
    assert_true(take(false, true, 100, 1500, NOW) && more);
    assert_true(take(false, false, 1500, 1501, NOW) && !more);
    for (uint32_t i = 0; i < 1501; i++)
        assert_int_equal(find(i, NOW), KEY_HELD);
    assert_int_equal(find(1501, NOW), KEY_MISSING);
    assert_int_equal(key_map_count(map), 1501);
}

static void test_empty_list(void **state)
{
    (void)state;
    assert_true(take(true, false, 0, 0, NOW) && !more);
    assert_int_equal(find(1, NOW), KEY_MISSING);
}

static void test_last_page_may_be_empty(void **state)
{
    (void)state;
    assert_true(take(true, true, 0, 1, NOW));
    assert_true(take(false, false, 0, 0, NOW) && !more);
    assert_int_equal(find(0, NOW), KEY_HELD);
    assert_int_equal(find(1, NOW), KEY_MISSING);
}

static void test_first_page_forgets(void **state)
{
    (void)state;
    note(7, true, NOW);
    assert_true(take(true, false, 0, 3, NOW));
    assert_true(take(true, true, 2, 4, NOW));
    assert_int_equal(find(7, NOW), KEY_UNKNOWN);
    assert_int_equal(find(0, NOW), KEY_UNKNOWN);
    assert_int_equal(find(3, NOW), KEY_HELD);
}

static void test_order(void **state)
{
    (void)state;
    assert_true(take(true, true, 5, 7, NOW));
    assert_false(take(false, false, 6, 8, NOW)); /* twice */
    assert_false(take(false, false, 1, 2, NOW)); /* back */
    assert_true(take(true, true, 5, 7, NOW));
    assert_true(take(false, false, 7, 8, NOW));
}

static const struct {
    const char *name;
    struct bytes page;
} BROKEN[] = {
    {"nothing", WIRE("")},
    {"neither yes nor no", WIRE("\x02")},
    {"more, but none", WIRE("\x01")},
    {"half an SKI", WIRE("\x00"
                         "0123456789")},
    {"no type", WIRE("\x00"
                     "01234567890123456789")},
    {"no name", WIRE("\x00"
                     "01234567890123456789\x02")},
    {"half a name", WIRE("\x00"
                         "01234567890123456789\x02\x04sit")},
    {"the same twice", WIRE("\x00"
                            "01234567890123456789\x02\x00"
                            "01234567890123456789\x02\x00")},
    {"something behind", WIRE("\x00"
                              "01234567890123456789\x02\x00\x00")},
};

static void test_broken_pages(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(BROKEN); i++) {
        uint8_t *exact = exact_copy(BROKEN[i].page);
        struct bytes page = bytes_of(exact, BROKEN[i].page.size);
        CHECK(BROKEN[i].name, !key_map_take_page(map, page, true, NOW, after, &more));
        CHECK(BROKEN[i].name, find(1, NOW) == KEY_UNKNOWN); /* it is no whole list */
        free(exact);
    }
}

static void test_list_grows_old(void **state)
{
    (void)state;
    assert_true(take(true, false, 0, 3, NOW));
    assert_int_equal(find(0, NOW + 120 * SECOND), KEY_HELD);
    assert_int_equal(find(5, NOW + 120 * SECOND), KEY_MISSING);
    assert_int_equal(find(0, NOW + 200 * SECOND), KEY_UNKNOWN);
    assert_int_equal(find(5, NOW + 200 * SECOND), KEY_UNKNOWN);
}

static void test_notes(void **state)
{
    (void)state;
    note(1, true, NOW);
    note(2, false, NOW);
    assert_int_equal(find(1, NOW), KEY_HELD);
    assert_int_equal(find(2, NOW), KEY_MISSING);
    assert_int_equal(find(3, NOW), KEY_UNKNOWN);
    note(1, false, NOW + SECOND);
    note(2, true, NOW + SECOND);
    assert_int_equal(find(1, NOW + SECOND), KEY_MISSING);
    assert_int_equal(find(2, NOW + SECOND), KEY_HELD);
    assert_int_equal(find(1, NOW + 70 * SECOND), KEY_UNKNOWN);
    assert_int_equal(find(2, NOW + 70 * SECOND), KEY_UNKNOWN);
}

/* An answer does not shorten what the list has told, unless it says the contrary. */
static void test_notes_beside_a_list(void **state)
{
    (void)state;
    assert_true(take(true, false, 0, 3, NOW));
    note(0, true, NOW);
    note(1, false, NOW);
    note(8, true, NOW); /* new since */
    assert_int_equal(find(0, NOW + 120 * SECOND), KEY_HELD);
    assert_int_equal(find(1, NOW), KEY_MISSING);
    assert_int_equal(find(8, NOW), KEY_HELD);
    assert_true(take(true, false, 0, 3, NOW + 60 * SECOND));
    assert_int_equal(find(1, NOW + 60 * SECOND), KEY_HELD);
    assert_int_equal(find(8, NOW + 60 * SECOND), KEY_MISSING);
}

static void test_forget(void **state)
{
    (void)state;
    assert_true(take(true, false, 0, 1000, NOW));
    key_map_forget(map);
    assert_int_equal(find(0, NOW), KEY_UNKNOWN);
    assert_int_equal(key_map_count(map), 0);
}

/* A list that has no end is not asked for to the end; nothing is missing then. */
static void test_overflow(void **state)
{
    (void)state;
    uint32_t taken = 0;
    for (more = true; more; taken += 2000)
        assert_true(take(taken == 0, true, taken, taken + 2000, NOW));
    assert_in_range(taken, KEY_MAP_MAX, KEY_MAP_MAX + 2000);
    assert_int_equal(key_map_count(map), KEY_MAP_MAX);
    assert_int_equal(find(KEY_MAP_MAX - 1, NOW), KEY_HELD);
    assert_int_equal(find(KEY_MAP_MAX, NOW), KEY_UNKNOWN);
    note(KEY_MAP_MAX, true, NOW);
    assert_int_equal(find(KEY_MAP_MAX, NOW), KEY_UNKNOWN);
    assert_true(take(true, false, 0, 10, NOW));
    assert_int_equal(find(10, NOW), KEY_MISSING);
}

/* SKIs that differ only where a careless hash does not look: all look-ups stay short. */
static void test_chosen_skis(void **state)
{
    (void)state;
    const uint64_t start = clock_now();
    for (uint32_t i = 0; i < KEY_MAP_MAX; i++) {
        struct ski ski = {{[16] = (uint8_t)(i >> 24), (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}};
        key_map_note(map, ski.octets, true, NOW);
    }
    assert_int_equal(key_map_count(map), KEY_MAP_MAX);
    assert_true(clock_now() - start < 5 * SECOND);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_knows_nothing),
        TEST(test_pages),
        TEST(test_empty_list),
        TEST(test_last_page_may_be_empty),
        TEST(test_first_page_forgets),
        TEST(test_order),
        TEST(test_broken_pages),
        TEST(test_list_grows_old),
        TEST(test_notes),
        TEST(test_notes_beside_a_list),
        TEST(test_forget),
        TEST(test_overflow),
        TEST(test_chosen_skis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
