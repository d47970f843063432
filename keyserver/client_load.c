#include "keyserver/client_load.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>

#define CACHE_LINE 64

_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "counts are shared between processes: no locks behind them");

typedef _Atomic uint32_t shared_count;

struct client_load_area {
    shared_count *counts; /* a row of entries for each front end */
    size_t stride; /* of rows, in counts: whole cache lines, so that no two processes write to the same */
    size_t rows, size;
};

struct entry_load {
    uint32_t connections;
    unsigned in_flight, in_flight_max; /* max 0: any */
    bool full;
};

struct client_load {
    const struct keyserver_config *config;
    struct client_load_area *area; /* NULL: left */
    size_t row;
    struct entry_load *entries;
};

size_t client_load_share(size_t all, unsigned index, unsigned count)
{
    size_t share = all / count + (index < all % count ? 1 : 0);
    return share > 0 ? share : 1;
}

/* ---- The shared counts. */

enum result client_load_area_new(const struct keyserver_config *config, struct client_load_area **area,
                                 struct failure *why)
{
    const size_t per_line = CACHE_LINE / sizeof(shared_count);
    struct client_load_area *made = calloc(1, sizeof *made);
    *area = NULL;
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the clients' connections");
    made->rows = config->workers;
    made->stride = (config->client_count / per_line + 1) * per_line;
    made->size = made->rows * made->stride * sizeof *made->counts;
    made->counts =
        mmap(NULL, made->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made->counts == MAP_FAILED) {
        free(made);
        return failure_set_errno(why, "cannot map the clients' connections");
    }
    *area = made;
    return RESULT_OK;
}

void client_load_area_free(struct client_load_area *area)
{
    if (area == NULL)
        return;
    (void)munmap(area->counts, area->size);
    free(area);
}

/* Not by adding: whatever a predecessor has left there, or still writes, is gone with the next one. */
static void publish(const struct client_load *load, size_t entry)
{
    if (load->area != NULL)
        atomic_store(&load->area->counts[load->row * load->area->stride + entry],
                     load->entries[entry].connections);
}

/* In 64 bits, for what somebody who was taken over has written. */
static uint64_t connections_of_all(const struct client_load *load, size_t entry)
{
    const struct client_load_area *area = load->area;
    uint64_t sum = 0;
    for (size_t row = 0; row < area->rows; row++)
        sum += atomic_load(&area->counts[row * area->stride + entry]);
    return sum;
}

/* ---- A front end's. */

struct client_load *client_load_new(const struct keyserver_config *config, struct client_load_area *area,
                                    unsigned index)
{
    struct client_load *load = calloc(1, sizeof *load);
    if (load == NULL)
        return NULL;
    *load = (struct client_load){.config = config, .area = area, .row = index};
    load->entries = calloc(config->client_count + 1, sizeof *load->entries);
    if (load->entries == NULL) {
        free(load);
        return NULL;
    }
    for (size_t i = 0; i < config->client_count; i++) {
        unsigned in_flight = config->clients[i].in_flight;
        if (in_flight > 0)
            load->entries[i].in_flight_max = (unsigned)client_load_share(in_flight, index, config->workers);
        publish(load, i);
    }
    return load;
}

void client_load_free(struct client_load *load)
{
    if (load == NULL)
        return;
    free(load->entries);
    free(load);
}

void client_load_leave_area(struct client_load *load)
{
    load->area = NULL;
}

/* Counted first and looked at then: of two that come at the same time at two front ends both may be refused,
 * but never both be let in where there is room for one. */
bool client_load_enter(struct client_load *load, size_t entry)
{
    const unsigned most = load->config->clients[entry].connections;
    load->entries[entry].connections++;
    publish(load, entry);
    if (most == 0 || load->area == NULL || connections_of_all(load, entry) <= most)
        return true;
    client_load_leave(load, entry);
    return false;
}

void client_load_leave(struct client_load *load, size_t entry)
{
    load->entries[entry].connections--;
    publish(load, entry);
}

uint32_t client_load_connections(const struct client_load *load, size_t entry)
{
    return load->entries[entry].connections;
}

bool client_load_ask(struct client_load *load, size_t entry)
{
    struct entry_load *of = &load->entries[entry];
    of->in_flight++;
    if (of->full || of->in_flight_max == 0 || of->in_flight < of->in_flight_max)
        return false;
    return of->full = true;
}

bool client_load_answer(struct client_load *load, size_t entry)
{
    struct entry_load *of = &load->entries[entry];
    const unsigned enough = (unsigned)((uint64_t)of->in_flight_max * 3 / 4);
    of->in_flight--;
    if (!of->full || of->in_flight > enough)
        return false;
    of->full = false;
    return true;
}

bool client_load_full(const struct client_load *load, size_t entry)
{
    return load->entries[entry].full;
}
