/* The JSON writer: one value with everything in it, as it must stand there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <event2/buffer.h>

#include "common/json.h"

static void write_array(struct json *json)
{
    json_begin_array(json, "list");
    json_number(json, NULL, -7);
    json_begin_object(json, NULL);
    json_end_object(json);
    json_begin_array(json, NULL);
    json_end_array(json);
    json_bool(json, NULL, true);
    json_end_array(json);
}

static void test_everything(void **state)
{
    (void)state;
    struct evbuffer *buffer = evbuffer_new();
    struct address address;
    struct failure why;
    assert_int_equal(address_parse("[2001:db8::1]:443", &address, &why), RESULT_OK);
    struct json json = json_to(buffer);
    json_begin_object(&json, NULL);
    json_text(&json, "text", "a \"b\"\\\n");
    json_text(&json, "none", NULL);
    json_bytes(&json, "bytes", bytes_of("a\0b", 3));
    json_hex(&json, "hex", bytes_of("\x00\xff\x10", 3));
    json_number(&json, "least", INT64_MIN);
    json_bool(&json, "no", false);
    json_seconds(&json, "seconds", 1250000);
    json_time(&json, "time", 1772366400);
    json_time(&json, "no_time", INT64_MAX);
    json_address(&json, "address", &address);
    write_array(&json);
    json_number(&json, "after", UINT32_MAX);
    json_end_object(&json);
    (void)evbuffer_add(buffer, "", 1);
    assert_string_equal(
        (const char *)evbuffer_pullup(buffer, -1),
        "{\"text\":\"a \\\"b\\\"\\\\x5c\\\\x0a\",\"none\":null,\"bytes\":\"a\\\\x00b\","
        "\"hex\":\"00ff10\",\"least\":-9223372036854775808,\"no\":false,\"seconds\":1.250000,"
        "\"time\":\"2026-03-01T12:00:00Z\",\"no_time\":null,\"address\":\"[2001:db8::1]:443\","
        "\"list\":[-7,{},[],true],\"after\":4294967295}");
    evbuffer_free(buffer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_everything)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
