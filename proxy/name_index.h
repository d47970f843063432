/* Names to the chains that serve them: a hash table, all of it in an arena. */
#ifndef KEYLESS_PROXY_NAME_INDEX_H
#define KEYLESS_PROXY_NAME_INDEX_H

#include <stddef.h>

#include "common/bytes.h"
#include "proxy/arena.h"
#include "proxy/certificates.h"

struct name_entry {
    const char *name;
    size_t count;
    const struct certificate *chains[CERTIFICATES_PER_NAME];
};

/* All zero but the arena: empty. It is gone with the arena. */
struct name_index {
    struct arena *arena;
    struct name_entry **places; /* NULL: free */
    size_t size, used;          /* size is a power of two, at least twice used */
};

/* The entry with this name, or NULL. */
struct name_entry *name_index_find(const struct name_index *index, struct bytes name);
/* The entry with this name, a new and empty one if there is none; NULL: no memory. */
struct name_entry *name_index_add(struct name_index *index, const char *name);

#endif
