#include "proxy/ticket_file.h"

#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "common/secret_file.h"

#define FILE_MAX   ((size_t)64 * 1024)
#define KEY_MAX    80
#define BASE64_MAX (4 * ((KEY_MAX + 2) / 3))
#define EXPECTED   "expected a key of 48 or 80 octets, or lines of such keys in base64"

static const struct secret_file_kind KIND = {"a file of ticket keys", FILE_MAX};

static bool add(struct ticket_keys *keys, struct bytes octets)
{
    return keys->count < TICKET_KEYS_MAX && ticket_key_from_file(octets, &keys->keys[keys->count]) &&
           ++keys->count > 0;
}

/* Of one line; base64 is padded, and padding counts as zeros. */
static bool add_line(struct ticket_keys *keys, struct bytes line)
{
    uint8_t octets[3 * BASE64_MAX / 4];
    size_t padding = 0;
    if (line.size == 0 || line.size > BASE64_MAX || line.size % 4 != 0)
        return false;
    while (padding < 2 && line.data[line.size - 1 - padding] == '=')
        padding++;
    int size = EVP_DecodeBlock(octets, line.data, (int)line.size);
    bool added = size > 0 && add(keys, bytes_of(octets, (size_t)size - padding));
    OPENSSL_cleanse(octets, sizeof octets);
    return added;
}

static bool next_line(struct bytes *rest, struct bytes *line)
{
    if (rest->size == 0)
        return false;
    const uint8_t *end = memchr(rest->data, '\n', rest->size);
    size_t size = end != NULL ? (size_t)(end - rest->data) : rest->size;
    *line = bytes_of(rest->data, size);
    if (size > 0 && rest->data[size - 1] == '\r')
        line->size--;
    size += end != NULL ? 1 : 0;
    *rest = bytes_of(rest->data + size, rest->size - size);
    return true;
}

static bool add_lines(struct ticket_keys *keys, struct bytes text)
{
    struct bytes line;
    const uint32_t before = keys->count;
    while (next_line(&text, &line))
        if (line.size > 0 && !add_line(keys, line))
            return false;
    return keys->count > before;
}

static void move_to_front(struct ticket_keys *keys, uint32_t place)
{
    struct ticket_key chosen = keys->keys[place];
    memmove(&keys->keys[1], &keys->keys[0], place * sizeof *keys->keys);
    keys->keys[0] = chosen;
    OPENSSL_cleanse(&chosen, sizeof chosen);
}

static enum result read_one(const char *path, struct ticket_keys *keys, struct failure *why)
{
    struct secret_file file CLEANUP(secret_file_wipe) = {0};
    const uint32_t before = keys->count;
    enum result result = secret_file_read(path, &KIND, &file, why);
    if (result != RESULT_OK)
        return result;
    struct bytes octets = secret_file_bytes(&file);
    if (!add(keys, octets) && !add_lines(keys, octets))
        return failure_set(why, RESULT_CONFIG, "%s: " EXPECTED, path);
    if (before == 0 && keys->count >= 3)
        move_to_front(keys, keys->count - 2);
    return RESULT_OK;
}

enum result ticket_file_read(const struct proxy_config *config, struct ticket_keys *keys, struct failure *why)
{
    const struct config_position where = {.file = config->file};
    struct failure reason;
    *keys = (struct ticket_keys){.since = 1};
    for (size_t i = 0; i < config->tickets.file_count; i++)
        if (read_one(config->tickets.files[i], keys, &reason) != RESULT_OK)
            return config_failure(why, &where, "tickets.files", "%s", reason.text);
    /* Only the first makes tickets: the others' time for that never comes. */
    for (uint32_t i = 1; i < keys->count; i++)
        keys->keys[i].not_before = UINT64_MAX;
    return RESULT_OK;
}
