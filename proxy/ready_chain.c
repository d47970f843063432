#include "proxy/ready_chain.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

/* In the list of its bucket, and in the list of all by their last use. */
struct place {
    struct ready_chain chain;
    const struct certificate *certificate; /* held */
    struct place *next;
    struct place *newer, *older;
};

struct ready_chains {
    struct remote_signer *signer;
    size_t most, count;
    struct place **buckets;
    size_t bucket_count; /* a power of two, more than most */
    struct place *newest, *oldest;
};

struct ready_chains *ready_chains_new(size_t most, struct remote_signer *signer)
{
    struct ready_chains *chains = calloc(1, sizeof *chains);
    if (chains == NULL)
        return NULL;
    chains->signer = signer;
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

const struct ready_chain *ready_chains_get(struct ready_chains *chains, const struct certificate *certificate)
{
    struct place *place = place_find(chains, certificate);
    if (place != NULL)
        unlink_use(chains, place);
    else if ((place = place_new(chains, certificate)) == NULL)
        return NULL;
    link_use(chains, place);
    return &place->chain;
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
