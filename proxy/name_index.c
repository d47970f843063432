#include "proxy/name_index.h"

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
static struct name_entry **place(const struct name_index *index, struct bytes name)
{
    size_t at = hash(name) & (index->size - 1);
    while (index->places[at] != NULL && !is_named(index->places[at], name))
        at = (at + 1) & (index->size - 1);
    return &index->places[at];
}

static bool grow(struct name_index *index)
{
    struct name_index larger = *index;
    larger.size = index->size == 0 ? SIZE_FIRST : 2 * index->size;
    larger.places = arena_take(index->arena, larger.size * sizeof(struct name_entry *));
    if (larger.places == NULL)
        return false;
    for (size_t i = 0; i < index->size; i++) {
        struct name_entry *entry = index->places[i];
        if (entry != NULL)
            *place(&larger, bytes_of(entry->name, strlen(entry->name))) = entry;
    }
    *index = larger;
    return true;
}

struct name_entry *name_index_find(const struct name_index *index, struct bytes name)
{
    return index->used > 0 ? *place(index, name) : NULL;
}

static struct name_entry *entry_new(struct arena *arena, const char *name)
{
    size_t size = strlen(name) + 1;
    struct name_entry *entry = arena_take(arena, sizeof *entry + size);
    if (entry != NULL)
        entry->name = memcpy(entry + 1, name, size);
    return entry;
}

struct name_entry *name_index_add(struct name_index *index, const char *name)
{
    if (2 * (index->used + 1) > index->size && !grow(index))
        return NULL;
    struct name_entry **at = place(index, bytes_of(name, strlen(name)));
    if (*at == NULL && (*at = entry_new(index->arena, name)) != NULL)
        index->used++;
    return *at;
}
