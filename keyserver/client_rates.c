#include "keyserver/client_rates.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <openssl/lhash.h>

/* Twice what a configuration may have: there are always some left that are not of the present one. */
#define BUCKETS_MAX 8192
#define SET_SIZE    (BUCKETS_MAX * sizeof(struct rate_bucket))

/* Whose a bucket is. */
struct holder {
    char *match;
    unsigned long hash;
    uint64_t reading; /* the last one of the configuration that it was in */
};

struct client_rates {
    struct holder holders[BUCKETS_MAX];
    size_t count;
    uint64_t reading;
    struct rate_bucket *sets[RATES_SETS];
};

static enum result map_set(struct rate_bucket **set, struct failure *why)
{
    void *memory =
        mmap(NULL, SET_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED)
        return failure_set_errno(why, "cannot map the clients' rates");
    *set = memory;
    return RESULT_OK;
}

enum result client_rates_new(struct client_rates **rates, struct failure *why)
{
    struct client_rates *made = calloc(1, sizeof *made);
    *rates = NULL;
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the clients' rates");
    for (size_t set = 0; set < RATES_SETS; set++) {
        enum result result = map_set(&made->sets[set], why);
        if (result != RESULT_OK) {
            client_rates_free(made);
            return result;
        }
    }
    *rates = made;
    return RESULT_OK;
}

void client_rates_free(struct client_rates *rates)
{
    if (rates == NULL)
        return;
    for (size_t i = 0; i < rates->count; i++)
        free(rates->holders[i].match);
    for (size_t set = 0; set < RATES_SETS; set++)
        client_rates_leave(rates, (enum client_rates_set)set);
    free(rates);
}

static bool find_holder(const struct client_rates *rates, const char *match, size_t *number)
{
    const unsigned long hash = OPENSSL_LH_strhash(match);
    for (*number = 0; *number < rates->count; ++*number)
        if (rates->holders[*number].hash == hash && strcmp(rates->holders[*number].match, match) == 0)
            return true;
    return false;
}

/* One that nobody has had, or else whose holder has been away the longest. */
static size_t find_free(const struct client_rates *rates)
{
    size_t oldest = 0;
    if (rates->count < BUCKETS_MAX)
        return rates->count;
    for (size_t i = 1; i < BUCKETS_MAX; i++)
        if (rates->holders[i].reading < rates->holders[oldest].reading)
            oldest = i;
    return oldest;
}

static bool take_free(struct client_rates *rates, const char *match, size_t *number)
{
    char *copy = strdup(match);
    if (copy == NULL)
        return false;
    *number = find_free(rates);
    rates->count += *number == rates->count ? 1 : 0;
    free(rates->holders[*number].match);
    rates->holders[*number] = (struct holder){.match = copy, .hash = OPENSSL_LH_strhash(copy)};
    for (size_t set = 0; set < RATES_SETS; set++)
        atomic_store_explicit(&rates->sets[set][*number].full, 0, memory_order_relaxed);
    return true;
}

static bool hold(struct client_rates *rates, const char *match, size_t *number)
{
    if (!find_holder(rates, match, number) && !take_free(rates, match, number))
        return false;
    rates->holders[*number].reading = rates->reading;
    return true;
}

enum result client_rates_assign(struct client_rates *rates, const struct keyserver_config *config,
                                size_t **numbers, struct failure *why)
{
    rates->reading++;
    *numbers = calloc(config->client_count + 1, sizeof **numbers);
    bool held = *numbers != NULL;
    for (size_t i = 0; i < config->client_count && held; i++)
        if (config->clients[i].rate > 0)
            held = hold(rates, config->clients[i].match, &(*numbers)[i]);
    return held ? RESULT_OK : failure_set(why, RESULT_LIMIT, "no memory for the clients' rates");
}

struct rate_bucket *client_rates_buckets(const struct client_rates *rates, enum client_rates_set set)
{
    return rates->sets[set];
}

void client_rates_leave(struct client_rates *rates, enum client_rates_set set)
{
    if (rates->sets[set] != NULL)
        (void)munmap(rates->sets[set], SET_SIZE);
    rates->sets[set] = NULL;
}
