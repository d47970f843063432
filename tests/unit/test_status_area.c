/* Records shared between processes: there or not, whole, and never waited for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/status_area.h"

#define OCTETS 1003 /* no whole number of words */

struct record {
    uint8_t octets[OCTETS];
};

static struct status_area *new_area(size_t count)
{
    struct status_area *area = NULL;
    struct failure why;
    assert_int_equal(status_area_new(sizeof(struct record), count, &area, &why), RESULT_OK);
    assert_int_equal(status_area_count(area), count);
    return area;
}

static struct record filled(uint8_t octet)
{
    struct record record;
    memset(record.octets, octet, sizeof record.octets);
    return record;
}

static bool is_whole(const struct record *record)
{
    return memcmp(record->octets, record->octets + 1, OCTETS - 1) == 0;
}

static void test_write_read_clear(void **state)
{
    (void)state;
    struct status_area *area = new_area(3);
    struct record read, one = filled(1), two = filled(2);
    for (size_t i = 0; i < 3; i++)
        assert_false(status_area_read(area, i, &read));
    status_area_write(area, 0, &one);
    status_area_write(area, 2, &two);
    assert_true(status_area_read(area, 0, &read));
    assert_memory_equal(&read, &one, sizeof one);
    assert_false(status_area_read(area, 1, &read));
    assert_true(status_area_read(area, 2, &read));
    assert_memory_equal(&read, &two, sizeof two);
    status_area_write(area, 0, &two);
    assert_true(status_area_read(area, 0, &read));
    assert_memory_equal(&read, &two, sizeof two);
    status_area_clear(area, 0);
    assert_false(status_area_read(area, 0, &read));
    assert_true(status_area_read(area, 2, &read));
    status_area_free(area);
}

static void test_bounds(void **state)
{
    (void)state;
    struct status_area *area = new_area(1), *none = new_area(0);
    struct record record = filled(1);
    status_area_write(area, 1, &record);
    status_area_clear(area, SIZE_MAX);
    assert_false(status_area_read(area, 1, &record));
    status_area_write(none, 0, &record);
    assert_false(status_area_read(none, 0, &record));
    status_area_write(NULL, 0, &record);
    status_area_clear(NULL, 0);
    assert_false(status_area_read(NULL, 0, &record));
    assert_int_equal(status_area_count(NULL), 0);
    status_area_free(area);
    status_area_free(none);
    status_area_free(NULL);
}

_Noreturn static void write_for_ever(struct status_area *area)
{
    for (unsigned i = 0;; i++) {
        struct record record = filled((uint8_t)i);
        status_area_write(area, 0, &record);
    }
}

static pid_t start_writer(struct status_area *area)
{
    pid_t writer = fork();
    if (writer == 0)
        write_for_ever(area);
    assert_true(writer > 0);
    return writer;
}

/* Writers are killed wherever they are; what a reader gets is whole, then and afterwards. */
static void test_writers_die(void **state)
{
    (void)state;
    struct status_area *area = new_area(1);
    struct record record, last = filled(99);
    unsigned got = 0;
    for (unsigned round = 0; round < 50; round++) {
        struct record first = filled(0);
        status_area_write(area, 0, &first);
        pid_t writer = start_writer(area);
        for (uint64_t end = clock_now() + 5000; clock_now() < end;) {
            if (!status_area_read(area, 0, &record))
                continue;
            assert_true(is_whole(&record));
            got++;
        }
        assert_int_equal(kill(writer, SIGKILL), 0);
        assert_int_equal(waitpid(writer, NULL, 0), writer);
        assert_true(status_area_read(area, 0, &record));
        assert_true(is_whole(&record));
    }
    assert_int_not_equal(got, 0);
    status_area_write(area, 0, &last);
    assert_true(status_area_read(area, 0, &record));
    assert_memory_equal(&record, &last, sizeof last);
    status_area_free(area);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_write_read_clear),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_writers_die),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
