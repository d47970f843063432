/* A hash table over some of the keys of a table, by SKI or by legacy digest. Both are hashes already, of what
 * only the operator chooses: their first octets serve as the hash. */
#ifndef KEYLESS_KEYSERVER_KEY_INDEX_H
#define KEYLESS_KEYSERVER_KEY_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/result.h"
#include "keyserver/key_table.h"

enum key_index_by { KEY_INDEX_SKI, KEY_INDEX_DIGEST };

struct key_index;

/* Over the keys with these indices; those that have no digest are left out of an index by digest. table is
 * borrowed. NULL: no memory. */
struct key_index *key_index_new(const struct key_table *table, enum key_index_by by, const size_t *members,
                                size_t count);
void key_index_free(struct key_index *index);

/* name has as many octets as what the index is by. */
MUST_CHECK bool key_index_find(const struct key_index *index, const uint8_t *name, size_t *key);

#endif
