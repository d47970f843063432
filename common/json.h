/* Writes one JSON value (RFC 8259) piece by piece. Texts are made harmless (text.h). Keys are fixed words of
 * our own source; in an array they are NULL. */
#ifndef KEYLESS_COMMON_JSON_H
#define KEYLESS_COMMON_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "common/address.h"
#include "common/bytes.h"

struct evbuffer;

/* A plain value. */
struct json {
    struct evbuffer *to;
    bool comma; /* before the next value */
};

struct json json_to(struct evbuffer *to);

void json_begin_object(struct json *json, const char *key);
void json_end_object(struct json *json);
void json_begin_array(struct json *json, const char *key);
void json_end_array(struct json *json);

void json_text(struct json *json, const char *key, const char *text); /* NULL: null */
void json_bytes(struct json *json, const char *key, struct bytes text);
void json_hex(struct json *json, const char *key, struct bytes octets);
void json_number(struct json *json, const char *key, int64_t number);
void json_bool(struct json *json, const char *key, bool value);
void json_seconds(struct json *json, const char *key, uint64_t microseconds); /* 0.250000 */
void json_time(struct json *json, const char *key, time_t when);              /* "2026-03-01T12:00:00Z" */
void json_address(struct json *json, const char *key, const struct address *address);

#endif
