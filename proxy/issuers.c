#include "proxy/issuers.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#define DIGEST_SIZE 32
#define SIZE_FIRST  64

struct issuer {
    X509 *certificate; /* NULL: the place is free */
    uint8_t digest[DIGEST_SIZE];
};

/* A hash table whose hash is the digest itself. */
struct issuers {
    struct chain_strength *strength;
    struct issuer *places;
    size_t size, used; /* size is a power of two, at least twice used */
};

struct issuers *issuers_new(struct chain_strength *strength)
{
    struct issuers *issuers = calloc(1, sizeof *issuers);
    if (issuers == NULL)
        return NULL;
    issuers->strength = strength;
    issuers->size = SIZE_FIRST;
    issuers->places = calloc(SIZE_FIRST, sizeof *issuers->places);
    if (issuers->places != NULL)
        return issuers;
    free(issuers);
    return NULL;
}

void issuers_free(struct issuers *issuers)
{
    if (issuers == NULL)
        return;
    for (size_t i = 0; i < issuers->size; i++)
        X509_free(issuers->places[i].certificate);
    free(issuers->places);
    free(issuers);
}

size_t issuers_count(const struct issuers *issuers)
{
    return issuers->used;
}

/* Where it stands, or the free place where it would. */
static struct issuer *place_of(struct issuer *places, size_t size, const uint8_t digest[static DIGEST_SIZE])
{
    size_t at;
    memcpy(&at, digest, sizeof at);
    for (at &= size - 1; places[at].certificate != NULL; at = (at + 1) & (size - 1))
        if (memcmp(places[at].digest, digest, DIGEST_SIZE) == 0)
            break;
    return &places[at];
}

static bool grow(struct issuers *issuers)
{
    size_t size = 2 * issuers->size;
    struct issuer *places = calloc(size, sizeof *places);
    if (places == NULL)
        return false;
    for (size_t i = 0; i < issuers->size; i++)
        if (issuers->places[i].certificate != NULL)
            *place_of(places, size, issuers->places[i].digest) = issuers->places[i];
    free(issuers->places);
    issuers->places = places;
    issuers->size = size;
    return true;
}

static enum result parse(struct issuers *issuers, struct bytes der, X509 **issuer, struct failure *why)
{
    const unsigned char *at = der.data;
    *issuer = d2i_X509(NULL, &at, (long)der.size);
    if (*issuer == NULL || at != der.data + der.size) {
        X509_free(*issuer);
        (void)failure_set_openssl(why, "an issuer does not parse");
        return RESULT_CONFIG;
    }
    enum result result = chain_strength_issuer(issuers->strength, *issuer, why);
    if (result != RESULT_OK)
        X509_free(*issuer);
    return result;
}

enum result issuers_take(struct issuers *issuers, struct bytes der, X509 **issuer, struct failure *why)
{
    uint8_t digest[DIGEST_SIZE];
    if (EVP_Digest(der.data, der.size, digest, NULL, EVP_sha256(), NULL) != 1)
        return failure_set_openssl(why, "an issuer's digest");
    if (2 * (issuers->used + 1) > issuers->size && !grow(issuers))
        return failure_set_errno(why, "an issuer");
    struct issuer *place = place_of(issuers->places, issuers->size, digest);
    if (place->certificate == NULL) {
        enum result result = parse(issuers, der, &place->certificate, why);
        if (result != RESULT_OK) {
            place->certificate = NULL;
            return result;
        }
        memcpy(place->digest, digest, sizeof digest);
        issuers->used++;
    }
    *issuer = place->certificate;
    return RESULT_OK;
}
