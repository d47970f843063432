/*
 * Which keys a key server has, as far as one worker has learnt it: from its list (operation 0x67), from its
 * answers, and from "key not found". A hint, for choosing whom to ask first: the key server's own answer
 * decides, and what was learnt is forgotten after a while.
 */
#ifndef KEYLESS_PROXY_KEY_MAP_H
#define KEYLESS_PROXY_KEY_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/key_id.h"

/* More are not remembered, and are as if nothing were known of them. */
#define KEY_MAP_MAX 65536

enum key_knowledge { KEY_MISSING, KEY_UNKNOWN, KEY_HELD }; /* the later, the better to ask */

struct key_map;

/* NULL: no memory. */
struct key_map *key_map_new(void);
void key_map_free(struct key_map *map); /* NULL is allowed */

/* now: microseconds, of clock_now. */
enum key_knowledge key_map_find(const struct key_map *map, const uint8_t ski[static KEY_ID_SKI_SIZE],
                                uint64_t now);
/* It has answered with a signature of the key, or that it does not have it. */
void key_map_note(struct key_map *map, const uint8_t ski[static KEY_ID_SKI_SIZE], bool held, uint64_t now);

/* A page of its list; the first one forgets all that was known. *after is set to the last SKI. False: it does
 * not parse, or is not in order. *more: another page follows, after that one. */
bool key_map_take_page(struct key_map *map, struct bytes payload, bool first, uint64_t now,
                       uint8_t after[static KEY_ID_SKI_SIZE], bool *more);
/* Nothing is known any more. */
void key_map_forget(struct key_map *map);
size_t key_map_count(const struct key_map *map);

#endif
