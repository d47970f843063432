#include "proxy/key_map.h"

#include <stdlib.h>
#include <string.h>

#include <event2/util.h>

#define FIRST_CAPACITY 64
/* Until what an answer has told is forgotten; and how much longer a list is believed than it takes to ask for
 * another. */
#define NOTED_FOR  UINT64_C(60000000)
#define LISTED_FOR UINT64_C(180000000)

struct entry {
    uint8_t ski[KEY_ID_SKI_SIZE];
    bool used, held;
    uint64_t until;
};

struct key_map {
    struct entry *entries;
    size_t capacity, count; /* a power of two, at most three quarters full */
    uint64_t whole_until;   /* all its keys are known until then; 0: they never were */
    bool overflown;
};

struct key_map *key_map_new(void)
{
    struct key_map *map = calloc(1, sizeof *map);
    if (map == NULL)
        return NULL;
    map->capacity = FIRST_CAPACITY;
    map->entries = calloc(map->capacity, sizeof *map->entries);
    if (map->entries != NULL)
        return map;
    free(map);
    return NULL;
}

void key_map_free(struct key_map *map)
{
    if (map != NULL)
        free(map->entries);
    free(map);
}

void key_map_forget(struct key_map *map)
{
    memset(map->entries, 0, map->capacity * sizeof *map->entries);
    map->count = 0;
    map->whole_until = 0;
    map->overflown = false;
}

size_t key_map_count(const struct key_map *map)
{
    return map->count;
}

/* ---- The table. */

/* An SKI should be a digest already, but a key server may list what it likes: with a seed that it does not
 * know, it cannot make all of them fall on one place. */
static size_t hash_of(const uint8_t *ski)
{
    static uint64_t seed;
    uint64_t hash, words[KEY_ID_SKI_SIZE / 8 + 1] = {0};
    while (seed == 0)
        evutil_secure_rng_get_bytes(&seed, sizeof seed);
    memcpy(words, ski, KEY_ID_SKI_SIZE);
    hash = seed;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        hash = (hash ^ words[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29 ^ seed << 7;
    }
    return (size_t)(hash >> 17);
}

static struct entry *place_of(struct entry *entries, size_t capacity, const uint8_t *ski)
{
    size_t at = hash_of(ski) & (capacity - 1);
    while (entries[at].used && memcmp(entries[at].ski, ski, KEY_ID_SKI_SIZE) != 0)
        at = (at + 1) & (capacity - 1);
    return &entries[at];
}

static bool grow(struct key_map *map)
{
    size_t capacity = 2 * map->capacity;
    struct entry *entries = calloc(capacity, sizeof *entries);
    if (entries == NULL)
        return false;
    for (size_t i = 0; i < map->capacity; i++)
        if (map->entries[i].used)
            *place_of(entries, capacity, map->entries[i].ski) = map->entries[i];
    free(map->entries);
    map->entries = entries;
    map->capacity = capacity;
    return true;
}

static struct entry *entry_add(struct key_map *map, const uint8_t *ski)
{
    struct entry *entry = place_of(map->entries, map->capacity, ski);
    if (entry->used)
        return entry;
    if (map->count == KEY_MAP_MAX || (4 * (map->count + 1) > 3 * map->capacity && !grow(map))) {
        map->overflown = true;
        return NULL;
    }
    entry = place_of(map->entries, map->capacity, ski);
    *entry = (struct entry){.used = true};
    memcpy(entry->ski, ski, sizeof entry->ski);
    map->count++;
    return entry;
}

/* ---- What is known. */

enum key_knowledge key_map_find(const struct key_map *map, const uint8_t ski[static KEY_ID_SKI_SIZE],
                                uint64_t now)
{
    const struct entry *entry = place_of(map->entries, map->capacity, ski);
    if (entry->used && now < entry->until)
        return entry->held ? KEY_HELD : KEY_MISSING;
    return now < map->whole_until && !map->overflown ? KEY_MISSING : KEY_UNKNOWN;
}

void key_map_note(struct key_map *map, const uint8_t ski[static KEY_ID_SKI_SIZE], bool held, uint64_t now)
{
    struct entry *entry = entry_add(map, ski);
    if (entry == NULL)
        return;
    uint64_t until = now + NOTED_FOR;
    bool longer = until > entry->until || held != entry->held;
    entry->held = held;
    entry->until = longer ? until : entry->until;
}

/* type(1) name_length(1) name, which are of no use here. */
static bool read_key(struct reader *from, struct bytes *ski)
{
    struct bytes name;
    uint8_t type;
    return read_bytes(from, KEY_ID_SKI_SIZE, ski) && read_u8(from, &type) && read_vector8(from, &name);
}

static void take_key(struct key_map *map, struct bytes ski, uint64_t now)
{
    struct entry *entry = entry_add(map, ski.data);
    if (entry == NULL)
        return;
    entry->held = true;
    entry->until = now + LISTED_FOR;
}

bool key_map_take_page(struct key_map *map, struct bytes payload, bool first, uint64_t now,
                       uint8_t after[static KEY_ID_SKI_SIZE], bool *more)
{
    struct reader from = reader_of(payload);
    struct bytes ski;
    uint8_t follows;
    bool any = !first;
    if (!read_u8(&from, &follows) || follows > 1 || (follows == 1 && reader_empty(&from)))
        return false;
    if (first)
        key_map_forget(map);
    while (!reader_empty(&from)) {
        if (!read_key(&from, &ski) || (any && memcmp(ski.data, after, KEY_ID_SKI_SIZE) <= 0))
            return false;
        memcpy(after, ski.data, KEY_ID_SKI_SIZE);
        any = true;
        take_key(map, ski, now);
    }
    *more = follows == 1 && !map->overflown; /* a list without an end is not read to it */
    map->whole_until = *more || map->overflown ? 0 : now + LISTED_FOR;
    return true;
}
