#include "proxy/ticket_memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "common/status_area.h"

/* Workers whose keys are kept. More generations than can be there at a time, so that each has its own places.
 */
#define WORKERS_MAX 64
#define GENERATIONS 16
#define PLACES      ((size_t)GENERATIONS * WORKERS_MAX)

/* Seconds that a clock may go back between two workers' looks at it. */
#define CLOCK_STEP 60

struct own_chain {
    struct ticket_times times; /* rotate 0: there is none */
    struct ticket_chain chain;
};

/* Alone in its pages, of which each process has its own. */
struct ticket_memory {
    struct own_chain chains[2]; /* of the last configuration that was read, and of the one before */
    struct status_area *told;   /* struct ticket_keys; shared */
    _Atomic uint8_t *used; /* for each place whether it ever was: only to look at one takes memory; shared */
    struct ticket_keys scratch; /* while places are looked at */
};

static enum result map_used(struct ticket_memory *memory, struct failure *why)
{
    void *octets = mmap(NULL, PLACES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (octets == MAP_FAILED)
        return failure_set_errno(why, "cannot map memory for ticket keys");
    memory->used = octets;
    return RESULT_OK;
}

enum result ticket_memory_new(struct ticket_memory **memory, struct failure *why)
{
    void *pages = mmap(NULL, sizeof **memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *memory = NULL;
    if (pages == MAP_FAILED)
        return failure_set_errno(why, "cannot map memory for ticket keys");
    struct ticket_memory *made = pages;
    enum result result = status_area_new(sizeof(struct ticket_keys), PLACES, &made->told, why);
    if (result == RESULT_OK)
        result = map_used(made, why);
    if (result != RESULT_OK) {
        ticket_memory_free(made);
        return result;
    }
    (void)mlock(made, sizeof *made); /* whoever uses it tells if it cannot */
    *memory = made;
    return RESULT_OK;
}

void ticket_memory_free(struct ticket_memory *memory)
{
    if (memory == NULL)
        return;
    status_area_free(memory->told);
    if (memory->used != NULL)
        (void)munmap((void *)memory->used, PLACES);
    OPENSSL_cleanse(memory, sizeof *memory);
    (void)munmap(memory, sizeof *memory);
}

/* ---- Keys of our own. */

/* Should libcrypto fail, an older value stays, which does no harm but that. */
static void chain_forget(struct own_chain *own, uint64_t unix_seconds)
{
    const uint64_t oldest = ticket_epoch_needed(unix_seconds, own->times.rotate, own->times.lifetime);
    if (own->chain.epoch < oldest && oldest - own->chain.epoch <= TICKET_STEPS_MAX)
        (void)!ticket_chain_advance(&own->chain, oldest);
}

/* One that no key of now can be made from, because the clock has gone back or is far ahead, is of none. */
static bool is_of_use(const struct own_chain *own, uint32_t rotate, uint64_t unix_seconds)
{
    const uint64_t present = ticket_epoch_of(unix_seconds, rotate);
    return own->times.rotate == rotate && own->chain.epoch <= present &&
           present - own->chain.epoch <= TICKET_STEPS_MAX;
}

enum result ticket_memory_prepare(struct ticket_memory *memory, const struct ticket_times *times,
                                  uint64_t unix_seconds, struct failure *why)
{
    struct own_chain *own = &memory->chains[0];
    if (!is_of_use(own, times->rotate, unix_seconds)) {
        const struct own_chain last = *own;
        *own = memory->chains[1];
        memory->chains[1] = last;
    }
    if (!is_of_use(own, times->rotate, unix_seconds)) {
        own->chain.epoch = ticket_epoch_of(unix_seconds, times->rotate);
        if (RAND_priv_bytes(own->chain.value, sizeof own->chain.value) != 1)
            return failure_set_openssl(why, "no random octets for ticket keys");
    }
    own->times = *times;
    chain_forget(own, unix_seconds);
    return RESULT_OK;
}

bool ticket_memory_take_chain(struct ticket_memory *memory, uint32_t rotate, struct ticket_chain *chain)
{
    bool found = false;
    for (size_t i = 0; i < 2 && !found; i++) {
        found = memory->chains[i].times.rotate == rotate;
        *chain = memory->chains[i].chain;
    }
    OPENSSL_cleanse(memory->chains, sizeof memory->chains);
    return found;
}

/* ---- Keys of a key server. */

static size_t place_of(unsigned generation, unsigned index)
{
    return (size_t)(generation % GENERATIONS) * WORKERS_MAX + index;
}

static bool read_place(struct ticket_memory *memory, size_t place, struct ticket_keys *keys)
{
    return atomic_load_explicit(&memory->used[place], memory_order_relaxed) != 0 &&
           status_area_read(memory->told, place, keys);
}

/* Whoever wrote it may have been taken over. */
static bool is_sound(const struct ticket_keys *keys, uint64_t unix_seconds)
{
    if (keys->count > TICKET_KEYS_MAX || keys->since > unix_seconds + CLOCK_STEP)
        return false;
    for (size_t i = 0; i < keys->count; i++)
        if (keys->keys[i].secret_size != TICKET_SECRET_MAX)
            return false;
    return true;
}

bool ticket_memory_read(struct ticket_memory *memory, uint64_t unix_seconds, struct ticket_keys *keys)
{
    struct ticket_keys *read = &memory->scratch;
    keys->since = 0;
    for (size_t i = 0; i < PLACES; i++)
        if (read_place(memory, i, read) && is_sound(read, unix_seconds) && read->since > keys->since &&
            ticket_keys_making(read, unix_seconds) != NULL)
            *keys = *read;
    OPENSSL_cleanse(read, sizeof *read);
    return keys->since > 0;
}

void ticket_memory_write(struct ticket_memory *memory, unsigned generation, unsigned index,
                         const struct ticket_keys *keys)
{
    if (index >= WORKERS_MAX)
        return;
    atomic_store_explicit(&memory->used[place_of(generation, index)], 1, memory_order_relaxed);
    status_area_write(memory->told, place_of(generation, index), keys);
}

/* Both halves of the record. */
static void clear_place(struct ticket_memory *memory, size_t place)
{
    OPENSSL_cleanse(&memory->scratch, sizeof memory->scratch);
    status_area_write(memory->told, place, &memory->scratch);
    status_area_write(memory->told, place, &memory->scratch);
    status_area_clear(memory->told, place);
}

void ticket_memory_clear(struct ticket_memory *memory)
{
    for (size_t i = 0; i < PLACES; i++)
        if (read_place(memory, i, &memory->scratch))
            clear_place(memory, i);
}

/* Those of workers that have ended, whose last key opens nothing any more. */
static void told_forget(struct ticket_memory *memory, uint64_t unix_seconds)
{
    const struct ticket_keys *read = &memory->scratch;
    for (size_t i = 0; i < PLACES; i++)
        if (read_place(memory, i, &memory->scratch) &&
            (!is_sound(read, unix_seconds) || ticket_keys_making(read, unix_seconds) == NULL))
            clear_place(memory, i);
    OPENSSL_cleanse(&memory->scratch, sizeof memory->scratch);
}

void ticket_memory_forget(struct ticket_memory *memory, uint64_t unix_seconds)
{
    for (size_t i = 0; i < 2; i++)
        if (memory->chains[i].times.rotate > 0)
            chain_forget(&memory->chains[i], unix_seconds);
    told_forget(memory, unix_seconds);
}

bool ticket_memory_lock(const struct ticket_memory *memory, unsigned generation, unsigned index)
{
    return mlock(memory, sizeof *memory) == 0 &&
           (index >= WORKERS_MAX || status_area_lock(memory->told, place_of(generation, index)));
}
