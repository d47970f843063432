#include "common/status_area.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <sys/mman.h>

#define CACHE_LINE 64
/* A reader starts again when two records were written while it read one. */
#define READ_ATTEMPTS 1000

typedef _Atomic uint64_t word;
_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words are shared between processes: no locks behind them");

/* In shared memory. The next one is written where readers do not look, and then they are told to look there.
 * First of the words is whether the record is there. */
struct record {
    word written; /* how many were; the last one is in the half with this number mod 2 */
    word halves[];
};

struct status_area {
    void *memory;
    size_t memory_size;
    size_t record_size;
    size_t words;  /* of a half */
    size_t stride; /* whole cache lines, so that two processes never write to the same one */
    size_t count;
};

enum result status_area_new(size_t record_size, size_t count, struct status_area **area, struct failure *why)
{
    *area = NULL;
    struct status_area *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for a status area");
    size_t words = 1 + (record_size + sizeof(word) - 1) / sizeof(word);
    size_t size = sizeof(struct record) + 2 * words * sizeof(word);
    *made = (struct status_area){.record_size = record_size,
                                 .words = words,
                                 .stride = (size + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE,
                                 .count = count};
    made->memory_size = made->stride * (count > 0 ? count : 1);
    made->memory = mmap(NULL, made->memory_size, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made->memory == MAP_FAILED) {
        free(made);
        return failure_set_errno(why, "cannot map a status area of %zu records", count);
    }
    *area = made;
    return RESULT_OK;
}

void status_area_free(struct status_area *area)
{
    if (area == NULL)
        return;
    (void)munmap(area->memory, area->memory_size);
    free(area);
}

size_t status_area_count(const struct status_area *area)
{
    return area != NULL ? area->count : 0;
}

static struct record *record_at(const struct status_area *area, size_t index)
{
    if (index >= status_area_count(area))
        return NULL;
    return (struct record *)((uint8_t *)area->memory + index * area->stride);
}

static size_t octets_of_word(const struct status_area *area, size_t index)
{
    size_t left = area->record_size - index * sizeof(word);
    return left < sizeof(word) ? left : sizeof(word);
}

/* ---- Writing */

/* from NULL: no longer there. */
static void write_half(const struct status_area *area, word *half, const uint8_t *from)
{
    atomic_store_explicit(&half[0], from != NULL, memory_order_relaxed);
    for (size_t i = 0; i + 1 < area->words && from != NULL; i++) {
        uint64_t value = 0;
        memcpy(&value, from + i * sizeof value, octets_of_word(area, i));
        atomic_store_explicit(&half[1 + i], value, memory_order_relaxed);
    }
}

/* The fence: who sees a word of this record also sees that the one before it has been told of, and so that
 * the half it reads is about to change. */
static void put(struct status_area *area, size_t index, const uint8_t *from)
{
    struct record *record = record_at(area, index);
    if (record == NULL)
        return;
    uint64_t next = atomic_load_explicit(&record->written, memory_order_relaxed) + 1;
    atomic_thread_fence(memory_order_release);
    write_half(area, record->halves + (next & 1) * area->words, from);
    atomic_store_explicit(&record->written, next, memory_order_release);
}

void status_area_write(struct status_area *area, size_t index, const void *record)
{
    put(area, index, record);
}

void status_area_clear(struct status_area *area, size_t index)
{
    put(area, index, NULL);
}

/* ---- Reading */

static bool read_half(const struct status_area *area, const word *half, uint8_t *to)
{
    bool there = atomic_load_explicit(&half[0], memory_order_relaxed) != 0;
    for (size_t i = 0; i + 1 < area->words && there; i++) {
        uint64_t value = atomic_load_explicit(&half[1 + i], memory_order_relaxed);
        memcpy(to + i * sizeof value, &value, octets_of_word(area, i));
    }
    return there;
}

bool status_area_read(const struct status_area *area, size_t index, void *to)
{
    const struct record *record = record_at(area, index);
    for (unsigned i = 0; record != NULL && i < READ_ATTEMPTS; i++) {
        uint64_t written = atomic_load_explicit(&record->written, memory_order_acquire);
        bool there = read_half(area, record->halves + (written & 1) * area->words, to);
        atomic_thread_fence(memory_order_acquire);
        if (atomic_load_explicit(&record->written, memory_order_relaxed) == written)
            return there;
    }
    return false;
}

uint64_t status_area_version(const struct status_area *area, size_t index)
{
    const struct record *record = record_at(area, index);
    return record != NULL ? atomic_load_explicit(&record->written, memory_order_acquire) : 0;
}

bool status_area_lock(const struct status_area *area, size_t index)
{
    const struct record *record = record_at(area, index);
    return record == NULL || mlock(record, area->stride) == 0;
}
