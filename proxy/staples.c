#include "proxy/staples.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <openssl/evp.h>

#include "common/status_area.h"

/* More than there are chains; memory is taken for those in use alone. */
#define PLACES ((size_t)16384)
/* Where a mark may be: from its own place on. */
#define PROBES    64
#define DAY       86400
#define AHEAD_MAX 600                   /* seconds that another process's clock may be ahead */
#define LIFE_MAX  ((int64_t)3660 * DAY) /* of a response, or a certificate */

_Static_assert(ATOMIC_LLONG_LOCK_FREE == 2, "words are shared between processes: no locks behind them");

struct shared {
    _Atomic uint64_t keys[PLACES]; /* the beginning of the mark; 0: free */
    _Atomic uint32_t settled;      /* the generation */
};

struct staples {
    struct shared *shared;
    struct status_area *records; /* struct staple */
};

enum result staples_new(struct staples **staples, struct failure *why)
{
    *staples = NULL;
    struct staples *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set_errno(why, "OCSP responses");
    enum result result = status_area_new(sizeof(struct staple), PLACES, &made->records, why);
    void *shared =
        mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared != MAP_FAILED)
        made->shared = shared;
    else if (result == RESULT_OK)
        result = failure_set_errno(why, "cannot map memory for OCSP responses");
    if (result != RESULT_OK) {
        staples_free(made);
        return result;
    }
    *staples = made;
    return RESULT_OK;
}

void staples_free(struct staples *staples)
{
    if (staples == NULL)
        return;
    status_area_free(staples->records);
    if (staples->shared != NULL)
        (void)munmap(staples->shared, sizeof *staples->shared);
    free(staples);
}

/* ---- Places. */

static uint64_t key_of(const struct certificate *certificate)
{
    uint64_t key;
    memcpy(&key, certificate->mark, sizeof key);
    return key != 0 ? key : 1;
}

static size_t place_at(uint64_t key, size_t probe)
{
    return (size_t)((key >> 32) + probe) % PLACES;
}

/* The first place that holds this: the certificate's key, or 0 for a free one; in the certificate's reach. */
static size_t find(const struct staples *staples, uint64_t key, uint64_t wanted)
{
    for (size_t i = 0; i < PROBES; i++) {
        size_t place = place_at(key, i);
        if (atomic_load_explicit(&staples->shared->keys[place], memory_order_acquire) == wanted)
            return place;
    }
    return STAPLE_NOWHERE;
}

size_t staples_find(const struct staples *staples, const struct certificate *certificate)
{
    uint64_t key = key_of(certificate);
    return staples != NULL ? find(staples, key, key) : STAPLE_NOWHERE;
}

uint64_t staples_version(const struct staples *staples, size_t place)
{
    return status_area_version(staples->records, place);
}

/* ---- Reading: whoever wrote it may have been taken over, and two may have written at a time. */

static bool digest_of(struct bytes response, uint8_t mark[static CERTIFICATE_MARK_SIZE])
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (EVP_Digest(response.data, response.size, digest, NULL, EVP_sha256(), NULL) != 1)
        return false;
    memcpy(mark, digest, CERTIFICATE_MARK_SIZE);
    return true;
}

static bool is_whole(const struct staple *staple)
{
    uint8_t digest[CERTIFICATE_MARK_SIZE];
    return staple->size <= STAPLE_MAX && digest_of(bytes_of(staple->response, staple->size), digest) &&
           memcmp(digest, staple->digest, sizeof digest) == 0;
}

/* Times that would keep everything else out for ever. */
static bool is_possible(const struct staple *staple)
{
    const int64_t latest = (int64_t)time(NULL) + AHEAD_MAX;
    return staple->this_update >= 0 && staple->this_update <= latest && staple->taken >= 0 &&
           staple->taken <= latest && staple->next_update >= 0 && staple->next_update <= latest + LIFE_MAX;
}

static bool read_record(const struct staples *staples, size_t place, const struct certificate *certificate,
                        struct staple *staple)
{
    return status_area_read(staples->records, place, staple) &&
           memcmp(staple->mark, certificate->mark, sizeof staple->mark) == 0 && is_possible(staple);
}

bool staples_read(const struct staples *staples, size_t place, const struct certificate *certificate,
                  struct staple *staple)
{
    return read_record(staples, place, certificate, staple) && is_whole(staple);
}

bool staple_is_good(const struct staple *staple, time_t now)
{
    return staple->kind == STAPLE_RESPONSE && staple->size > 0 && now < staple->next_update;
}

bool staples_have(const struct staples *staples, const struct certificate *certificate, time_t now)
{
    struct staple staple;
    size_t place = staples_find(staples, certificate);
    return place != STAPLE_NOWHERE && staples_read(staples, place, certificate, &staple) &&
           staple_is_good(&staple, now);
}

enum staple_state staples_state(const struct staples *staples, const struct certificate *certificate,
                                time_t now, time_t *next_update)
{
    struct staple staple;
    size_t place = staples_find(staples, certificate);
    if (place == STAPLE_NOWHERE || !read_record(staples, place, certificate, &staple))
        return STAPLE_MISSING;
    if (staple.kind == STAPLE_NO_RESPONDER)
        return STAPLE_UNNAMED;
    *next_update = (time_t)staple.next_update;
    if (staple.kind == STAPLE_REVOCATION)
        return STAPLE_REVOKED;
    return now < staple.next_update ? STAPLE_GOOD : STAPLE_MISSING;
}

/* ---- Writing. */

/* Another writer may claim a place meanwhile, and for the same certificate. */
static size_t claim(struct staples *staples, uint64_t key)
{
    for (;;) {
        uint64_t none = 0;
        size_t place = find(staples, key, key);
        if (place != STAPLE_NOWHERE)
            return place;
        place = find(staples, key, 0);
        if (place == STAPLE_NOWHERE ||
            atomic_compare_exchange_strong(&staples->shared->keys[place], &none, key))
            return place;
    }
}

bool staples_put(struct staples *staples, const struct certificate *certificate, enum staple_kind kind,
                 struct bytes response, const struct staple_times *times)
{
    struct staple staple = {.this_update = times->this_update,
                            .next_update = times->next_update,
                            .taken = times->taken,
                            .size = (uint32_t)response.size,
                            .kind = kind};
    size_t place = response.size <= STAPLE_MAX ? claim(staples, key_of(certificate)) : STAPLE_NOWHERE;
    if (place == STAPLE_NOWHERE || !digest_of(response, staple.digest))
        return false;
    memcpy(staple.mark, certificate->mark, sizeof staple.mark);
    if (response.size > 0)
        memcpy(staple.response, response.data, response.size);
    status_area_write(staples->records, place, &staple);
    return true;
}

void staples_forget(struct staples *staples, time_t now)
{
    struct staple staple;
    for (size_t place = 0; place < PLACES; place++) {
        uint64_t key = atomic_load_explicit(&staples->shared->keys[place], memory_order_relaxed);
        if (key == 0 || !status_area_read(staples->records, place, &staple) || staple.next_update + DAY > now)
            continue;
        status_area_clear(staples->records, place);
        atomic_store_explicit(&staples->shared->keys[place], 0, memory_order_release);
    }
}

/* ---- Settled. */

void staples_settle(struct staples *staples, unsigned generation)
{
    atomic_store_explicit(&staples->shared->settled, generation, memory_order_release);
}

bool staples_settled(const struct staples *staples, unsigned generation)
{
    return atomic_load_explicit(&staples->shared->settled, memory_order_acquire) == generation;
}
