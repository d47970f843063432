/* Texts and what is known of each: a hash table, all of it in an arena. Nothing is ever taken out. */
#ifndef KEYLESS_PROXY_TEXT_INDEX_H
#define KEYLESS_PROXY_TEXT_INDEX_H

#include <stddef.h>

#include "common/bytes.h"
#include "proxy/arena.h"

struct text_entry;

/* All zero but the first two: empty. It is gone with the arena. */
struct text_index {
    struct arena *arena;
    size_t value_size;          /* of what is kept with each text */
    struct text_entry **places; /* NULL: free */
    size_t size, used;          /* size is a power of two, at least twice used */
};

/* The value of a text, or NULL. */
void *text_index_find(const struct text_index *index, struct bytes text);
/* The same; a new one, all zero, if there is none. NULL: no memory. Values stay where they are. */
void *text_index_add(struct text_index *index, const char *text);
/* The value in a place, 0 .. size - 1, and its text; NULL: the place is free. */
void *text_index_at(const struct text_index *index, size_t place, const char **text);

#endif
