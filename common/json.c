#include "common/json.h"

#include <inttypes.h>
#include <string.h>

#include <event2/buffer.h>

#include "common/text.h"

struct json json_to(struct evbuffer *to)
{
    return (struct json){.to = to};
}

static void begin_value(struct json *json, const char *key)
{
    if (json->comma)
        (void)evbuffer_add(json->to, ",", 1);
    if (key != NULL)
        (void)evbuffer_add_printf(json->to, "\"%s\":", key);
    json->comma = true;
}

static void begin(struct json *json, const char *key, const char *bracket)
{
    begin_value(json, key);
    (void)evbuffer_add(json->to, bracket, 1);
    json->comma = false;
}

static void end(struct json *json, const char *bracket)
{
    (void)evbuffer_add(json->to, bracket, 1);
    json->comma = true;
}

void json_begin_object(struct json *json, const char *key)
{
    begin(json, key, "{");
}

void json_end_object(struct json *json)
{
    end(json, "}");
}

void json_begin_array(struct json *json, const char *key)
{
    begin(json, key, "[");
}

void json_end_array(struct json *json)
{
    end(json, "]");
}

void json_bytes(struct json *json, const char *key, struct bytes text)
{
    begin_value(json, key);
    text_write_quoted(json->to, text);
}

void json_text(struct json *json, const char *key, const char *text)
{
    if (text != NULL) {
        json_bytes(json, key, bytes_of(text, strlen(text)));
        return;
    }
    begin_value(json, key);
    (void)evbuffer_add_printf(json->to, "null");
}

void json_hex(struct json *json, const char *key, struct bytes octets)
{
    begin_value(json, key);
    (void)evbuffer_add(json->to, "\"", 1);
    for (size_t i = 0; i < octets.size; i++)
        (void)evbuffer_add_printf(json->to, "%02x", octets.data[i]);
    (void)evbuffer_add(json->to, "\"", 1);
}

void json_number(struct json *json, const char *key, int64_t number)
{
    begin_value(json, key);
    (void)evbuffer_add_printf(json->to, "%" PRId64, number);
}

void json_bool(struct json *json, const char *key, bool value)
{
    begin_value(json, key);
    (void)evbuffer_add_printf(json->to, "%s", value ? "true" : "false");
}

void json_seconds(struct json *json, const char *key, uint64_t microseconds)
{
    begin_value(json, key);
    (void)evbuffer_add_printf(json->to, "%" PRIu64 ".%06" PRIu64, microseconds / 1000000u,
                              microseconds % 1000000u);
}

void json_time(struct json *json, const char *key, time_t when)
{
    char text[64];
    struct tm utc;
    if (gmtime_r(&when, &utc) == NULL || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc) == 0)
        json_text(json, key, NULL);
    else
        json_text(json, key, text);
}

void json_address(struct json *json, const char *key, const struct address *address)
{
    char text[ADDRESS_TEXT_SIZE];
    json_text(json, key, address_format(address, text));
}
