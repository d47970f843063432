#include "keyserver/replay_table.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#define BUCKET_ENTRIES 4 /* in one cache line */
#define SEED_SIZE      16
#define DIGEST_SIZE    32

/* Of all zeros: free. A tag that is that by chance is never found; that is one in 2^64. */
struct entry {
    uint64_t tag;     /* a piece of the digest that does not choose the bucket */
    uint32_t seconds; /* when it was first asked for */
    uint16_t client;  /* who did */
    uint16_t unused;
};

_Static_assert(sizeof(struct entry) == 16, "four fit a cache line");

struct replay_table {
    EVP_MD_CTX *digest;
    EVP_MD *sha256;
    uint8_t seed[SEED_SIZE]; /* nobody outside can aim at a bucket */
    uint32_t mask;           /* of buckets */
    size_t size;
    struct entry *entries;
};

/* Touched pages alone take memory, so a key server with little to do needs little. */
static struct entry *map_entries(size_t size)
{
    void *memory =
        mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory != MAP_FAILED ? memory : NULL;
}

struct replay_table *replay_table_new(uint32_t entries)
{
    struct replay_table *table = calloc(1, sizeof *table);
    if (table == NULL)
        return NULL;
    table->size = entries * sizeof *table->entries;
    table->mask = entries / BUCKET_ENTRIES - 1;
    table->digest = EVP_MD_CTX_new();
    table->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    table->entries = map_entries(table->size);
    if (table->digest != NULL && table->sha256 != NULL && table->entries != NULL &&
        RAND_bytes(table->seed, sizeof table->seed) == 1)
        return table;
    replay_table_free(table);
    return NULL;
}

void replay_table_free(struct replay_table *table)
{
    if (table == NULL)
        return;
    if (table->entries != NULL)
        (void)munmap(table->entries, table->size);
    EVP_MD_CTX_free(table->digest);
    EVP_MD_free(table->sha256);
    free(table);
}

/* What is signed, as far as the request says it. Whether a hash was computed by the front end from a whole
 * transcript or came from outside makes no difference. */
static struct bytes content_of(const struct sign_request *request, struct writer *to)
{
    if (request->kind == SIGN_DIGEST)
        return bytes_of(request->digest.octets, request->digest.size);
    if (request->kind == SIGN_MESSAGE || request->kind == SIGN_CIPHERTEXT)
        return request->message;
    return sign_request_content(request, to) ? writer_bytes(to) : bytes_of(NULL, 0);
}

static bool digest(const struct replay_table *table, const struct sign_request *request, struct bytes content,
                   uint8_t to[static DIGEST_SIZE])
{
    const bool handshake = request->kind == SIGN_TLS13 || request->kind == SIGN_TLS12;
    const uint8_t operation[2] = {(uint8_t)request->kind, handshake ? 0 : request->opcode};
    return EVP_DigestInit_ex2(table->digest, table->sha256, NULL) == 1 &&
           EVP_DigestUpdate(table->digest, table->seed, sizeof table->seed) == 1 &&
           EVP_DigestUpdate(table->digest, operation, sizeof operation) == 1 &&
           EVP_DigestUpdate(table->digest, request->ski, sizeof request->ski) == 1 &&
           EVP_DigestUpdate(table->digest, content.data, content.size) == 1 &&
           EVP_DigestFinal_ex(table->digest, to, NULL) == 1;
}

static bool is_old(const struct entry *entry, uint32_t seconds)
{
    return seconds - entry->seconds > REPLAY_KEPT;
}

/* The one with this tag, or else the one that makes room for it. */
static struct entry *choose(struct entry *bucket, uint64_t tag, bool *known)
{
    struct entry *oldest = bucket;
    for (size_t i = 0; i < BUCKET_ENTRIES; i++) {
        *known = bucket[i].tag == tag;
        if (*known)
            return &bucket[i];
        if (bucket[i].tag == 0 || (oldest->tag != 0 && bucket[i].seconds < oldest->seconds))
            oldest = &bucket[i];
    }
    return oldest;
}

/* Its place, and what stands there for it. False: it has none. */
static bool find(struct replay_table *table, const struct sign_request *request, struct entry **entry,
                 uint64_t *tag, bool *known)
{
    uint8_t buffer[SIGN_CONTENT_MAX], octets[DIGEST_SIZE];
    struct writer to = writer_of(buffer, sizeof buffer);
    uint32_t number;
    if (request->kind == GIVE_TICKET_KEYS || !digest(table, request, content_of(request, &to), octets))
        return false;
    memcpy(tag, octets, sizeof *tag);
    memcpy(&number, octets + sizeof *tag, sizeof number);
    *entry = choose(&table->entries[(size_t)(number & table->mask) * BUCKET_ENTRIES], *tag, known);
    return true;
}

bool replay_table_note(struct replay_table *table, const struct sign_request *request, uint32_t seconds)
{
    struct entry *entry;
    uint64_t tag;
    bool known;
    if (!find(table, request, &entry, &tag, &known))
        return false;
    if (known && !is_old(entry, seconds))
        return entry->client != request->entry || seconds - entry->seconds > REPLAY_RETRIED;
    *entry = (struct entry){.tag = tag, .seconds = seconds, .client = request->entry};
    return false;
}

void replay_table_forget(struct replay_table *table, const struct sign_request *request)
{
    struct entry *entry;
    uint64_t tag;
    bool known;
    if (find(table, request, &entry, &tag, &known) && known)
        *entry = (struct entry){0};
}
