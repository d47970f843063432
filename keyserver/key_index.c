#include "keyserver/key_index.h"

#include <stdlib.h>
#include <string.h>

struct key_index {
    const struct key_table *table;
    size_t name_offset, name_size; /* of the name within struct key_id */
    size_t mask;                   /* slots - 1; at least half of the slots are free */
    uint32_t slots[];              /* a key's index + 1; 0: free */
};

static const uint8_t *name_of(const struct key_index *index, size_t key)
{
    return (const uint8_t *)&index->table->keys[key].id + index->name_offset;
}

static size_t first_slot(const struct key_index *index, const uint8_t *name)
{
    uint32_t hash;
    memcpy(&hash, name, sizeof hash);
    return hash & index->mask;
}

static bool name_is_absent(const struct key_index *index, const uint8_t *name)
{
    static const uint8_t ZEROS[KEY_ID_DIGEST_SIZE];
    return memcmp(name, ZEROS, index->name_size) == 0;
}

static void insert(struct key_index *index, size_t key)
{
    const uint8_t *name = name_of(index, key);
    if (name_is_absent(index, name))
        return;
    size_t slot = first_slot(index, name);
    while (index->slots[slot] != 0)
        slot = (slot + 1) & index->mask;
    index->slots[slot] = (uint32_t)key + 1;
}

struct key_index *key_index_new(const struct key_table *table, enum key_index_by by, const size_t *members,
                                size_t count)
{
    size_t slots = 4;
    while (slots < 2 * count)
        slots *= 2;
    struct key_index *index = calloc(1, sizeof *index + slots * sizeof index->slots[0]);
    if (index == NULL)
        return NULL;
    index->table = table;
    index->mask = slots - 1;
    index->name_offset = by == KEY_INDEX_SKI ? offsetof(struct key_id, ski) : offsetof(struct key_id, digest);
    index->name_size = by == KEY_INDEX_SKI ? KEY_ID_SKI_SIZE : KEY_ID_DIGEST_SIZE;
    for (size_t i = 0; i < count; i++)
        insert(index, members[i]);
    return index;
}

void key_index_free(struct key_index *index)
{
    free(index);
}

bool key_index_find(const struct key_index *index, const uint8_t *name, size_t *key)
{
    for (size_t slot = first_slot(index, name); index->slots[slot] != 0; slot = (slot + 1) & index->mask) {
        size_t candidate = index->slots[slot] - 1;
        if (memcmp(name_of(index, candidate), name, index->name_size) == 0) {
            *key = candidate;
            return true;
        }
    }
    return false;
}
