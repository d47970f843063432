#include "proxy/name_index.h"

#include <stdlib.h>
#include <string.h>

#define SIZE_FIRST 64

/* FNV-1a. The names come from our own certificates, so nobody can choose them to collide. */
static size_t hash(struct bytes name)
{
    uint64_t value = 0xcbf29ce484222325u;
    for (size_t i = 0; i < name.size; i++)
        value = (value ^ name.data[i]) * 0x100000001b3u;
    return (size_t)(value ^ value >> 32);
}

static bool is_named(const struct name_entry *entry, struct bytes name)
{
    return strlen(entry->name) == name.size && memcmp(entry->name, name.data, name.size) == 0;
}

/* Where the name stands, or the free place where it would. */
static struct name_entry *place(const struct name_index *index, struct bytes name)
{
    size_t at = hash(name) & (index->size - 1);
    while (index->entries[at].name != NULL && !is_named(&index->entries[at], name))
        at = (at + 1) & (index->size - 1);
    return &index->entries[at];
}

static bool grow(struct name_index *index)
{
    struct name_index larger = {.size = index->size == 0 ? SIZE_FIRST : 2 * index->size, .used = index->used};
    larger.entries = calloc(larger.size, sizeof *larger.entries);
    if (larger.entries == NULL)
        return false;
    for (size_t i = 0; i < index->size; i++) {
        struct name_entry *entry = &index->entries[i];
        if (entry->name != NULL)
            *place(&larger, bytes_of(entry->name, strlen(entry->name))) = *entry;
    }
    free(index->entries);
    *index = larger;
    return true;
}

struct name_entry *name_index_find(const struct name_index *index, struct bytes name)
{
    if (index->used == 0)
        return NULL;
    struct name_entry *entry = place(index, name);
    return entry->name != NULL ? entry : NULL;
}

struct name_entry *name_index_add(struct name_index *index, const char *name)
{
    if (2 * (index->used + 1) > index->size && !grow(index))
        return NULL;
    struct name_entry *entry = place(index, bytes_of(name, strlen(name)));
    if (entry->name == NULL) {
        entry->name = strdup(name);
        if (entry->name == NULL)
            return NULL;
        index->used++;
    }
    return entry;
}

void name_index_clear(struct name_index *index)
{
    for (size_t i = 0; i < index->size; i++)
        free(index->entries[i].name);
    free(index->entries);
    *index = (struct name_index){0};
}
