/* Text from outside, made harmless: as one line, and as a quoted string. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <event2/buffer.h>

#include "common/text.h"

static const struct {
    const char *text;
    size_t size; /* 0: up to the zero at its end */
    const char *plain, *quoted;
} ROWS[] = {
    {"", 0, "", "\"\""},
    {"keys-a", 0, "keys-a", "\"keys-a\""},
    {"a \"b\"", 0, "a \"b\"", "\"a \\\"b\\\"\""},
    {"a\\b", 0, "a\\x5cb", "\"a\\\\x5cb\""},
    {"a\nb\r\t\x1b[2J", 0, "a\\x0ab\\x0d\\x09\\x1b[2J", "\"a\\\\x0ab\\\\x0d\\\\x09\\\\x1b[2J\""},
    {"a\0b", 3, "a\\x00b", "\"a\\\\x00b\""},
    {"\x7f", 0, "\\x7f", "\"\\\\x7f\""},
    {"Z\xc3\xbcrich \xe2\x82\xac \xf0\x9f\x94\x91", 0, "Z\xc3\xbcrich \xe2\x82\xac \xf0\x9f\x94\x91",
     "\"Z\xc3\xbcrich \xe2\x82\xac \xf0\x9f\x94\x91\""},
    {"\xe2\x80\xae", 0, "\\xe2\\x80\\xae", "\"\\\\xe2\\\\x80\\\\xae\""}, /* right-to-left override */
    {"\xc2\x9b", 0, "\\xc2\\x9b", "\"\\\\xc2\\\\x9b\""},                 /* a C1 control */
    {"\xff\xc3", 0, "\\xff\\xc3", "\"\\\\xff\\\\xc3\""},                 /* no UTF-8, and half a character */
    {"\xc0\xaf", 0, "\\xc0\\xaf", "\"\\\\xc0\\\\xaf\""},                 /* too long a form */
    {"\xed\xa0\x80", 0, "\\xed\\xa0\\x80", "\"\\\\xed\\\\xa0\\\\x80\""}, /* a surrogate */
};

static void assert_written(void (*write)(struct evbuffer *, struct bytes), struct bytes text,
                           const char *wanted)
{
    struct evbuffer *buffer = evbuffer_new();
    assert_non_null(buffer);
    write(buffer, text);
    (void)evbuffer_add(buffer, "", 1);
    assert_string_equal((const char *)evbuffer_pullup(buffer, -1), wanted);
    evbuffer_free(buffer);
}

static void test_writing(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        struct bytes text = bytes_of(ROWS[i].text, ROWS[i].size > 0 ? ROWS[i].size : strlen(ROWS[i].text));
        assert_written(text_write_plain, text, ROWS[i].plain);
        assert_written(text_write_quoted, text, ROWS[i].quoted);
    }
    assert_written(text_write_quoted, bytes_of(NULL, 0), "\"\"");
    assert_int_equal(text_harmless_size(bytes_of(NULL, 0)), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_writing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
