/* Names to the chains that serve them: a hash table, filled once, then only read. */
#ifndef KEYLESS_PROXY_NAME_INDEX_H
#define KEYLESS_PROXY_NAME_INDEX_H

#include <stddef.h>

#include "common/bytes.h"
#include "proxy/certificates.h"

struct name_entry {
    char *name; /* NULL: the table's place is free */
    size_t count;
    const struct certificate *chains[CERTIFICATES_PER_NAME];
};

struct name_index {
    struct name_entry *entries;
    size_t size, used; /* size is a power of two, at least twice used */
};

/* The entry with this name, or NULL. */
struct name_entry *name_index_find(const struct name_index *index, struct bytes name);
/* The entry with this name, a new and empty one if there is none; NULL: no memory. Pointers to entries are
 * good until the next call. */
struct name_entry *name_index_add(struct name_index *index, const char *name);
void name_index_clear(struct name_index *index);

#endif
