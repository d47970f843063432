#include "proxy/text_index.h"

#include <stdalign.h>
#include <string.h>

#define SIZE_FIRST 64

struct text_entry {
    const char *text;
    alignas(max_align_t) unsigned char value[];
};

/* FNV-1a. The texts come from our own files, so nobody can choose them to collide. */
static size_t hash(struct bytes text)
{
    uint64_t value = 0xcbf29ce484222325u;
    for (size_t i = 0; i < text.size; i++)
        value = (value ^ text.data[i]) * 0x100000001b3u;
    return (size_t)(value ^ value >> 32);
}

static bool has_text(const struct text_entry *entry, struct bytes text)
{
    return strlen(entry->text) == text.size && memcmp(entry->text, text.data, text.size) == 0;
}

/* Where the text stands, or the free place where it would. */
static struct text_entry **place_of(const struct text_index *index, struct bytes text)
{
    size_t at = hash(text) & (index->size - 1);
    while (index->places[at] != NULL && !has_text(index->places[at], text))
        at = (at + 1) & (index->size - 1);
    return &index->places[at];
}

static bool grow(struct text_index *index)
{
    struct text_index larger = *index;
    larger.size = index->size == 0 ? SIZE_FIRST : 2 * index->size;
    larger.places = arena_take(index->arena, larger.size * sizeof(struct text_entry *));
    if (larger.places == NULL)
        return false;
    for (size_t i = 0; i < index->size; i++) {
        struct text_entry *entry = index->places[i];
        if (entry != NULL)
            *place_of(&larger, bytes_of(entry->text, strlen(entry->text))) = entry;
    }
    *index = larger;
    return true;
}

void *text_index_find(const struct text_index *index, struct bytes text)
{
    struct text_entry *entry = index->used > 0 ? *place_of(index, text) : NULL;
    return entry != NULL ? entry->value : NULL;
}

static struct text_entry *entry_new(const struct text_index *index, const char *text)
{
    size_t size = strlen(text) + 1;
    struct text_entry *entry = arena_take(index->arena, sizeof *entry + index->value_size + size);
    if (entry != NULL)
        entry->text = memcpy(entry->value + index->value_size, text, size);
    return entry;
}

void *text_index_add(struct text_index *index, const char *text)
{
    if (2 * (index->used + 1) > index->size && !grow(index))
        return NULL;
    struct text_entry **place = place_of(index, bytes_of(text, strlen(text)));
    if (*place == NULL && (*place = entry_new(index, text)) != NULL)
        index->used++;
    return *place != NULL ? (*place)->value : NULL;
}

void *text_index_at(const struct text_index *index, size_t place, const char **text)
{
    struct text_entry *entry = index->places[place];
    *text = entry != NULL ? entry->text : NULL;
    return entry != NULL ? entry->value : NULL;
}
