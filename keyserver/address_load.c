#include "keyserver/address_load.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/rand.h>

#define BUCKETS_MIN 64
#define BUCKETS_MAX 65536

struct source {
    struct source *next; /* in its bucket */
    uint64_t prefix;
    size_t count;
};

struct address_load {
    size_t most;
    uint64_t secret; /* so that nobody can choose addresses that all share a bucket */
    size_t mask;     /* buckets, a power of two, less one */
    struct source *buckets[];
};

/* IPv4 addresses lie in ::/32, where no IPv6 client comes from. False: a Unix socket. */
static bool prefix_of(const struct address *peer, uint64_t *prefix)
{
    struct bytes ip;
    address_ip(peer, &ip);
    *prefix = 0;
    for (size_t i = 0; i < ip.size && i < sizeof *prefix; i++)
        *prefix = *prefix << 8 | ip.data[i];
    return ip.size > 0;
}

/* MurmurHash3's last step: every bit counts for every other. */
static uint64_t mix(uint64_t value)
{
    value = (value ^ value >> 33) * UINT64_C(0xff51afd7ed558ccd);
    value = (value ^ value >> 33) * UINT64_C(0xc4ceb9fe1a85ec53);
    return value ^ value >> 33;
}

/* Where the source is linked, or would be. */
static struct source **find(struct address_load *load, uint64_t prefix)
{
    struct source **at = &load->buckets[mix(prefix ^ load->secret) & load->mask];
    while (*at != NULL && (*at)->prefix != prefix)
        at = &(*at)->next;
    return at;
}

struct address_load *address_load_new(size_t most, size_t connections)
{
    size_t buckets = BUCKETS_MIN;
    while (buckets < connections && buckets < BUCKETS_MAX)
        buckets *= 2;
    struct address_load *load = calloc(1, sizeof *load + buckets * sizeof(struct source *));
    if (load == NULL)
        return NULL;
    load->most = most;
    load->mask = buckets - 1;
    if (RAND_bytes((unsigned char *)&load->secret, sizeof load->secret) != 1) {
        free(load);
        return NULL;
    }
    return load;
}

void address_load_free(struct address_load *load)
{
    if (load == NULL)
        return;
    for (size_t i = 0; i <= load->mask; i++)
        while (load->buckets[i] != NULL) {
            struct source *source = load->buckets[i];
            load->buckets[i] = source->next;
            free(source);
        }
    free(load);
}

bool address_load_enter(struct address_load *load, const struct address *peer)
{
    uint64_t prefix;
    if (load->most == 0 || !prefix_of(peer, &prefix))
        return true;
    struct source **at = find(load, prefix);
    if (*at == NULL && (*at = calloc(1, sizeof **at)) == NULL)
        return false;
    struct source *source = *at;
    source->prefix = prefix;
    if (source->count >= load->most)
        return false;
    source->count++;
    return true;
}

void address_load_leave(struct address_load *load, const struct address *peer)
{
    uint64_t prefix;
    if (load->most == 0 || !prefix_of(peer, &prefix))
        return;
    struct source **at = find(load, prefix);
    struct source *source = *at;
    if (source == NULL || --source->count > 0)
        return;
    *at = source->next;
    free(source);
}
