#include "keyserver/key_table.h"

#include <stdlib.h>
#include <string.h>

static enum result key_table_grow(struct key_table *table, struct failure *why)
{
    if (table->count < table->capacity)
        return RESULT_OK;
    if (table->count >= KEY_TABLE_LIMIT)
        return failure_set(why, RESULT_LIMIT, "more than %u keys", KEY_TABLE_LIMIT);
    size_t capacity = table->capacity == 0 ? 16 : 2 * table->capacity;
    struct key_info *keys = realloc(table->keys, capacity * sizeof *keys);
    if (keys == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for %zu keys", capacity);
    table->keys = keys;
    table->capacity = capacity;
    return RESULT_OK;
}

enum result key_table_add(struct key_table *table, const struct key_id *id, struct bytes label,
                          struct failure *why)
{
    if (label.size > KEY_LABEL_MAX)
        return failure_set(why, RESULT_LIMIT, "a key's label has %zu octets; at most %d fit", label.size,
                           KEY_LABEL_MAX);
    enum result result = key_table_grow(table, why);
    if (result != RESULT_OK)
        return result;
    char *copy = strndup(label.size > 0 ? (const char *)label.data : "", label.size);
    if (copy == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for a key's label");
    table->keys[table->count++] = (struct key_info){.id = *id, .label = copy};
    return RESULT_OK;
}

bool key_table_is_sorted(const struct key_table *table)
{
    for (size_t i = 1; i < table->count; i++)
        if (memcmp(table->keys[i - 1].id.ski, table->keys[i].id.ski, KEY_ID_SKI_SIZE) >= 0)
            return false;
    return true;
}

void key_table_clear(struct key_table *table)
{
    for (size_t i = 0; i < table->count; i++)
        free(table->keys[i].label);
    free(table->keys);
    *table = (struct key_table){0};
}

/* Measured with OpenSSL 3.0 on x86-64, in microseconds a signature: Ed25519 45, P-256 27; Ed448 290, P-521
 * 320, RSA-2048 380, P-384 1280; RSA-3072 2300, RSA-4096 4900. */
#define RSA_LARGE_BITS 2048

enum key_class key_class_of(const struct key_id *id)
{
    if (id->type == KEY_TYPE_P256 || id->type == KEY_TYPE_ED25519)
        return KEY_CLASS_EC;
    if (id->type == KEY_TYPE_RSA && id->bits > RSA_LARGE_BITS)
        return KEY_CLASS_RSA_LARGE;
    return KEY_CLASS_RSA;
}

const char *key_class_name(enum key_class class)
{
    static const char *const NAMES[KEY_CLASSES] = {"ec", "rsa", "rsa_large"};
    return class < KEY_CLASSES ? NAMES[class] : "unknown";
}

const char *key_ski_format(const uint8_t ski[static KEY_ID_SKI_SIZE], char text[static KEY_SKI_TEXT_SIZE])
{
    static const char DIGITS[] = "0123456789abcdef";
    for (size_t i = 0; i < KEY_ID_SKI_SIZE; i++) {
        text[2 * i] = DIGITS[ski[i] >> 4];
        text[2 * i + 1] = DIGITS[ski[i] & 15];
    }
    text[KEY_SKI_DIGITS] = '\0';
    return text;
}
