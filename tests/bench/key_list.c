#include "tests/bench/key_list.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <event2/buffer.h>

#include "common/kssl.h"

bool key_list_begin(struct key_list *list, bool as_json)
{
    list->as_json = as_json;
    list->text = evbuffer_new();
    if (list->text == NULL)
        return false;
    list->json = json_to(list->text);
    if (as_json) {
        json_begin_object(&list->json, NULL);
        json_begin_array(&list->json, "keys");
    }
    return true;
}

static void add_json(struct json *json, const struct kssl_list_entry *entry)
{
    json_begin_object(json, NULL);
    json_hex(json, "ski", bytes_of(entry->ski, KEY_ID_SKI_SIZE));
    json_text(json, "type", key_type_name(entry->type));
    json_bytes(json, "name", entry->name);
    json_end_object(json);
}

static void add_text(struct evbuffer *text, const struct kssl_list_entry *entry)
{
    for (size_t i = 0; i < KEY_ID_SKI_SIZE; i++)
        (void)evbuffer_add_printf(text, "%02x", entry->ski[i]);
    (void)evbuffer_add_printf(text, "  %-8s  ", key_type_name(entry->type));
    for (size_t i = 0; i < entry->name.size; i++) {
        uint8_t octet = entry->name.data[i];
        (void)evbuffer_add_printf(text, "%c", octet >= 0x20 && octet < 0x7F ? octet : '?');
    }
    (void)evbuffer_add_printf(text, "\n");
}

bool key_list_take(struct key_list *list, struct bytes page, bool *more)
{
    struct reader from = reader_of(page);
    uint8_t flag = 0;
    if (!read_u8(&from, &flag))
        return false;
    *more = flag != 0;
    for (struct kssl_list_entry entry; !reader_empty(&from); list->count++) {
        if (!kssl_list_entry_read(&from, &entry))
            return false;
        if (list->as_json)
            add_json(&list->json, &entry);
        else
            add_text(list->text, &entry);
        memcpy(list->last, entry.ski, sizeof list->last);
    }
    return true;
}

void key_list_print(struct key_list *list)
{
    if (list->as_json) {
        json_end_array(&list->json);
        json_end_object(&list->json);
        (void)evbuffer_add_printf(list->text, "\n");
    }
    (void)fwrite(evbuffer_pullup(list->text, -1), 1, evbuffer_get_length(list->text), stdout);
    if (!list->as_json)
        (void)fprintf(stderr, "%" PRIu64 " keys\n", list->count);
}

void key_list_free(struct key_list *list)
{
    if (list->text != NULL)
        evbuffer_free(list->text);
}
