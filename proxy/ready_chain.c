#include "proxy/ready_chain.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "proxy/ocsp_response.h"

/* The response as it was last read from what all processes share. */
struct kept_staple {
    size_t at;        /* in staples; STAPLE_NOWHERE: not known */
    uint64_t version; /* of what was read there */
    uint8_t *response;
    size_t size;
    time_t next_update;
};

/* In the list of its bucket, and in the list of all by their last use. */
struct place {
    struct ready_chain chain;
    const struct certificate *certificate; /* held */
    struct kept_staple staple;
    struct place *next;
    struct place *newer, *older;
};

struct ready_chains {
    struct remote_signer *signer;
    const struct staples *staples;
    struct staple scratch; /* too large for a fibre's stack */
    size_t most, count;
    struct place **buckets;
    size_t bucket_count; /* a power of two, more than most */
    struct place *newest, *oldest;
};

struct ready_chains *ready_chains_new(size_t most, struct remote_signer *signer,
                                      const struct staples *staples)
{
    struct ready_chains *chains = calloc(1, sizeof *chains);
    if (chains == NULL)
        return NULL;
    chains->signer = signer;
    chains->staples = staples;
    chains->most = most;
    chains->bucket_count = 1;
    while (chains->bucket_count <= most)
        chains->bucket_count *= 2;
    chains->buckets = calloc(chains->bucket_count, sizeof(struct place *));
    if (chains->buckets != NULL)
        return chains;
    free(chains);
    return NULL;
}

size_t ready_chains_count(const struct ready_chains *chains)
{
    return chains->count;
}

/* ---- The lists. */

static struct place **bucket_of(const struct ready_chains *chains, const struct certificate *certificate)
{
    uint64_t hash = (uint64_t)(uintptr_t)certificate * UINT64_C(0x9E3779B97F4A7C15);
    return &chains->buckets[(hash >> 32) & (chains->bucket_count - 1)];
}

static void unlink_use(struct ready_chains *chains, struct place *place)
{
    if (place->newer != NULL)
        place->newer->older = place->older;
    else
        chains->newest = place->older;
    if (place->older != NULL)
        place->older->newer = place->newer;
    else
        chains->oldest = place->newer;
}

static void link_use(struct ready_chains *chains, struct place *place)
{
    place->newer = NULL;
    place->older = chains->newest;
    if (chains->newest != NULL)
        chains->newest->newer = place;
    else
        chains->oldest = place;
    chains->newest = place;
}

/* ---- Making and forgetting. */

static void place_free(struct place *place)
{
    EVP_PKEY_free(place->chain.key);
    sk_X509_pop_free(place->chain.issuers, X509_free);
    X509_free(place->chain.leaf);
    free(place->staple.response);
    certificate_drop(place->certificate);
    free(place);
}

static void forget(struct ready_chains *chains, struct place *place)
{
    struct place **at = bucket_of(chains, place->certificate);
    while (*at != place)
        at = &(*at)->next;
    *at = place->next;
    unlink_use(chains, place);
    chains->count--;
    place_free(place);
}

static bool push_issuers(STACK_OF(X509) * stack, const struct certificate *certificate)
{
    for (size_t i = 0; stack != NULL && i < certificate->issuer_count; i++) {
        (void)X509_up_ref(certificate->issuers[i]);
        if (sk_X509_push(stack, certificate->issuers[i]) == 0) {
            X509_free(certificate->issuers[i]);
            return false;
        }
    }
    return stack != NULL;
}

static bool chain_fill(struct ready_chain *chain, const struct certificate *certificate,
                       struct remote_signer *signer)
{
    const unsigned char *at = certificate->leaf.data;
    chain->leaf = d2i_X509(NULL, &at, (long)certificate->leaf.size);
    EVP_PKEY *public_key = chain->leaf != NULL ? X509_get0_pubkey(chain->leaf) : NULL;
    chain->issuers = sk_X509_new_null();
    return public_key != NULL && push_issuers(chain->issuers, certificate) &&
           remote_key_new(NULL, public_key, &certificate->key, signer, &chain->key, NULL) == RESULT_OK;
}

static struct place *place_new(struct ready_chains *chains, const struct certificate *certificate)
{
    struct place *place = calloc(1, sizeof *place);
    if (place == NULL)
        return NULL;
    place->certificate = certificate_hold(certificate);
    place->staple.at = STAPLE_NOWHERE;
    if (!chain_fill(&place->chain, certificate, chains->signer)) {
        place_free(place);
        return NULL;
    }
    if (chains->count == chains->most)
        forget(chains, chains->oldest);
    struct place **bucket = bucket_of(chains, certificate);
    place->next = *bucket;
    *bucket = place;
    chains->count++;
    return place;
}

static struct place *place_find(const struct ready_chains *chains, const struct certificate *certificate)
{
    struct place *place = *bucket_of(chains, certificate);
    while (place != NULL && place->certificate != certificate)
        place = place->next;
    return place;
}

static struct place *place_get(struct ready_chains *chains, const struct certificate *certificate)
{
    struct place *place = place_find(chains, certificate);
    if (place != NULL)
        unlink_use(chains, place);
    else if ((place = place_new(chains, certificate)) == NULL)
        return NULL;
    link_use(chains, place);
    return place;
}

const struct ready_chain *ready_chains_get(struct ready_chains *chains, const struct certificate *certificate)
{
    const struct place *place = place_get(chains, certificate);
    return place != NULL ? &place->chain : NULL;
}

/* ---- Its OCSP response. */

/* False: no memory, and it is tried again. */
static bool staple_set(struct kept_staple *kept, struct bytes response, time_t next_update)
{
    uint8_t *copy = response.size > 0 ? malloc(response.size) : NULL;
    if (copy == NULL && response.size > 0)
        return false;
    if (copy != NULL)
        memcpy(copy, response.data, response.size);
    free(kept->response);
    kept->response = copy;
    kept->size = response.size;
    kept->next_update = next_update;
    return true;
}

/* The process that has put it there talks with responders: it is not believed. */
static bool is_good(const struct certificate *certificate, const struct staple *staple, time_t *next_update)
{
    struct ocsp_status status;
    if (staple->kind != STAPLE_RESPONSE ||
        ocsp_response_check(bytes_of(staple->response, staple->size), certificate, time(NULL), &status,
                            NULL) != RESULT_OK)
        return false;
    *next_update = status.next_update;
    return !status.revoked;
}

/* Where it is not whole, or of another certificate by now, the copy stays, and it is looked for again. */
static void staple_read(struct ready_chains *chains, struct place *place, uint64_t version)
{
    const struct staple *read = &chains->scratch;
    time_t next_update = 0;
    if (!staples_read(chains->staples, place->staple.at, place->certificate, &chains->scratch)) {
        place->staple.at = STAPLE_NOWHERE;
        place->staple.version = 0;
        return;
    }
    bool good = is_good(place->certificate, read, &next_update);
    if (staple_set(&place->staple, bytes_of(read->response, good ? read->size : 0), next_update))
        place->staple.version = version;
}

static void staple_refresh(struct ready_chains *chains, struct place *place)
{
    struct kept_staple *kept = &place->staple;
    if (kept->at == STAPLE_NOWHERE)
        kept->at = staples_find(chains->staples, place->certificate);
    if (kept->at == STAPLE_NOWHERE)
        return;
    uint64_t version = staples_version(chains->staples, kept->at);
    if (version != kept->version)
        staple_read(chains, place, version);
}

struct bytes ready_chains_staple(struct ready_chains *chains, const struct certificate *certificate)
{
    struct place *place = chains->staples != NULL ? place_get(chains, certificate) : NULL;
    if (place == NULL)
        return bytes_of(NULL, 0);
    staple_refresh(chains, place);
    const struct kept_staple *kept = &place->staple;
    bool good = kept->size > 0 && time(NULL) < kept->next_update;
    return bytes_of(good ? kept->response : NULL, good ? kept->size : 0);
}

void ready_chains_free(struct ready_chains *chains)
{
    if (chains == NULL)
        return;
    for (struct place *next, *place = chains->oldest; place != NULL; place = next) {
        next = place->newer;
        place_free(place);
    }
    free(chains->buckets);
    free(chains);
}
