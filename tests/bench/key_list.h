/* The keys that a client may use, as a key server lists them, page by page; printed when the last has come.
 */
#ifndef KEYLESS_BENCH_KEY_LIST_H
#define KEYLESS_BENCH_KEY_LIST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/json.h"
#include "common/key_id.h"

/* A plain value; zero it before key_list_begin. */
struct key_list {
    bool as_json;
    struct evbuffer *text;
    struct json json;
    uint64_t count;
    uint8_t last[KEY_ID_SKI_SIZE]; /* the next page comes after it */
};

MUST_CHECK bool key_list_begin(struct key_list *list, bool as_json);
/* The payload of one answer. False: it is malformed. *more: there is another page. */
MUST_CHECK bool key_list_take(struct key_list *list, struct bytes page, bool *more);
/* To standard output; text ends with the number of keys, on standard error. */
void key_list_print(struct key_list *list);
void key_list_free(struct key_list *list);

#endif
