#include "proxy/ticket_memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <openssl/crypto.h>
#include <openssl/rand.h>

#include "common/status_area.h"

/* Workers whose keys are kept; there are two generations at a time that write. */
#define WORKERS_MAX 256

struct ticket_memory {
    struct ticket_chain chain;
    uint32_t rotate;          /* of the chain; 0: there is none */
    struct status_area *told; /* struct ticket_keys */
};

enum result ticket_memory_new(struct ticket_memory **memory, struct failure *why)
{
    void *page = mmap(NULL, sizeof **memory, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *memory = NULL;
    if (page == MAP_FAILED)
        return failure_set_errno(why, "cannot map memory for ticket keys");
    struct ticket_memory *made = page;
    enum result result =
        status_area_new(sizeof(struct ticket_keys), (size_t)2 * WORKERS_MAX, &made->told, why);
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
    OPENSSL_cleanse(memory, sizeof *memory);
    (void)munmap(memory, sizeof *memory);
}

enum result ticket_memory_prepare(struct ticket_memory *memory, const struct ticket_times *times,
                                  uint64_t unix_seconds, struct failure *why)
{
    if (memory->rotate != times->rotate) {
        memory->rotate = times->rotate;
        memory->chain.epoch = ticket_epoch_of(unix_seconds, times->rotate);
        if (RAND_priv_bytes(memory->chain.value, sizeof memory->chain.value) != 1)
            return failure_set_openssl(why, "no random octets for ticket keys");
    }
    ticket_memory_forget(memory, times, unix_seconds);
    return RESULT_OK;
}

void ticket_memory_forget(struct ticket_memory *memory, const struct ticket_times *times,
                          uint64_t unix_seconds)
{
    const uint64_t oldest = ticket_epoch_needed(unix_seconds, times->rotate, times->lifetime);
    /* Should libcrypto fail, an older value stays, which does no harm but that. */
    if (memory->rotate == times->rotate && memory->chain.epoch < oldest)
        (void)!ticket_chain_advance(&memory->chain, oldest);
}

const struct ticket_chain *ticket_memory_chain(const struct ticket_memory *memory)
{
    return &memory->chain;
}

static size_t place_of(unsigned generation, unsigned index)
{
    return (size_t)(generation % 2) * WORKERS_MAX + index;
}

bool ticket_memory_read(const struct ticket_memory *memory, uint64_t unix_seconds, struct ticket_keys *keys)
{
    struct ticket_keys *read = OPENSSL_malloc(sizeof *read);
    keys->since = 0;
    for (size_t i = 0; read != NULL && i < status_area_count(memory->told); i++)
        if (status_area_read(memory->told, i, read) && read->since > keys->since &&
            read->count <= TICKET_KEYS_MAX && ticket_keys_making(read, unix_seconds) != NULL)
            *keys = *read;
    OPENSSL_clear_free(read, sizeof *read);
    return keys->since > 0;
}

void ticket_memory_write(struct ticket_memory *memory, unsigned generation, unsigned index,
                         const struct ticket_keys *keys)
{
    if (index < WORKERS_MAX)
        status_area_write(memory->told, place_of(generation, index), keys);
}

void ticket_memory_clear(struct ticket_memory *memory, unsigned generation, unsigned index)
{
    if (index < WORKERS_MAX)
        status_area_clear(memory->told, place_of(generation, index));
}

bool ticket_memory_lock(const struct ticket_memory *memory, unsigned generation, unsigned index)
{
    return mlock(memory, sizeof *memory) == 0 &&
           (index >= WORKERS_MAX || status_area_lock(memory->told, place_of(generation, index)));
}
