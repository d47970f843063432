#include "keyserver/key_store.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <openssl/err.h>

#include "common/process.h"
#include "keyserver/key_file.h"

struct key_store {
    struct key_table table;
    EVP_PKEY **private; /* one for each key of the table */
    pthread_mutex_t duplicating;
};

/* While loading: not yet sorted. */
struct loaded_key {
    struct key_id id;
    EVP_PKEY *key;
    char *path;
    char *label;
};

struct loader {
    struct key_decoder *decoder;
    struct loaded_key *keys;
    size_t count, capacity;
    bool changes_user;
    uid_t front_ends; /* the user they run as, if it is another */
};

static void loader_clear(struct loader *loader)
{
    for (size_t i = 0; i < loader->count; i++) {
        EVP_PKEY_free(loader->keys[i].key);
        free(loader->keys[i].path);
        free(loader->keys[i].label);
    }
    free(loader->keys);
    key_decoder_free(loader->decoder);
}

static struct loaded_key *loader_add(struct loader *loader)
{
    if (loader->count == loader->capacity) {
        size_t capacity = loader->capacity == 0 ? 64 : 2 * loader->capacity;
        struct loaded_key *keys = realloc(loader->keys, capacity * sizeof *keys);
        if (keys == NULL)
            return NULL;
        loader->keys = keys;
        loader->capacity = capacity;
    }
    struct loaded_key *added = &loader->keys[loader->count++];
    *added = (struct loaded_key){0};
    return added;
}

/* ---- One key. */

static void digest_context_free(EVP_MD_CTX **context)
{
    EVP_MD_CTX_free(*context);
}

/* Signs something and verifies it: a private half that is not that of the public one, or whose parts do not
 * belong together, shows here and not in a handshake (where a faulty RSA signature would give the key away).
 */
static bool key_works(EVP_PKEY *key, const struct key_id *id)
{
    static const unsigned char SAMPLE[] = "keyless key check";
    bool edwards = id->type == KEY_TYPE_ED25519 || id->type == KEY_TYPE_ED448;
    const char *digest = edwards ? NULL : "SHA256";
    EVP_MD_CTX *context CLEANUP(digest_context_free) = EVP_MD_CTX_new();
    unsigned char signature[KEY_RSA_MAX_BITS / 8];
    size_t size = sizeof signature;
    return context != NULL && EVP_DigestSignInit_ex(context, NULL, digest, NULL, NULL, key, NULL) == 1 &&
           EVP_DigestSign(context, signature, &size, SAMPLE, sizeof SAMPLE) == 1 &&
           EVP_MD_CTX_reset(context) == 1 &&
           EVP_DigestVerifyInit_ex(context, NULL, digest, NULL, NULL, key, NULL) == 1 &&
           EVP_DigestVerify(context, signature, size, SAMPLE, sizeof SAMPLE) == 1;
}

static enum result identify(struct loaded_key *loaded, struct failure *why)
{
    struct failure reason;
    enum result result = key_id_of(loaded->key, &loaded->id, &reason);
    if (result != RESULT_OK)
        return failure_set(why, RESULT_CONFIG, "%s: %s", loaded->path, reason.text);
    if (key_works(loaded->key, &loaded->id))
        return RESULT_OK;
    ERR_clear_error();
    return failure_set(why, RESULT_CONFIG,
                       "%s: the private key does not belong to its public key, or is damaged", loaded->path);
}

/* The suffix of a file that may hold a key; NULL: not one of ours. */
static const char *key_suffix(const char *name)
{
    const char *suffix = strrchr(name, '.');
    if (suffix == NULL || name[0] == '.')
        return NULL;
    return strcmp(suffix, ".key") == 0 || strcmp(suffix, ".pem") == 0 ? suffix : NULL;
}

/* Front ends run as that user, and must not be able to read keys. */
static enum result check_owner(const struct loader *loader, const char *path, struct failure *why)
{
    struct stat status;
    if (!loader->changes_user || stat(path, &status) != 0 || status.st_uid != loader->front_ends)
        return RESULT_OK;
    return failure_set(
        why, RESULT_CONFIG,
        "%s: it belongs to the user that the front ends run as, who could read it (chown root)", path);
}

static enum result load_file(struct loader *loader, const char *dir, const char *name, struct failure *why)
{
    struct loaded_key *loaded = loader_add(loader);
    if (loaded == NULL || asprintf(&loaded->path, "%s/%s", dir, name) < 0)
        return failure_set(why, RESULT_LIMIT, "no memory for the keys in %s", dir);
    loaded->label = strndup(name, (size_t)(key_suffix(name) - name));
    if (loaded->label == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the keys in %s", dir);
    enum result result = key_file_read(loader->decoder, loaded->path, &loaded->key, why);
    if (result == RESULT_OK)
        result = check_owner(loader, loaded->path, why);
    return result == RESULT_OK ? identify(loaded, why) : result;
}

/* ---- All of them. */

static int wanted(const struct dirent *entry)
{
    return key_suffix(entry->d_name) != NULL;
}

static enum result load_dir(struct loader *loader, const struct keyserver_key_source *source,
                            struct failure *why)
{
    struct dirent **entries;
    int count = scandir(source->dir, &entries, wanted, alphasort);
    if (count < 0)
        return config_failure(why, &source->where, "keys.dir", "cannot read the directory %s: %s",
                              source->dir, strerror(errno));
    enum result result = RESULT_OK;
    for (int i = 0; i < count; i++) {
        if (result == RESULT_OK)
            result = load_file(loader, source->dir, entries[i]->d_name, why);
        free(entries[i]);
    }
    free(entries);
    return result;
}

static int by_ski(const void *a, const void *b)
{
    return memcmp(((const struct loaded_key *)a)->id.ski, ((const struct loaded_key *)b)->id.ski,
                  KEY_ID_SKI_SIZE);
}

static enum result refuse_duplicates(const struct loader *loader, struct failure *why)
{
    for (size_t i = 1; i < loader->count; i++)
        if (by_ski(&loader->keys[i - 1], &loader->keys[i]) == 0)
            return failure_set(why, RESULT_CONFIG, "%s: the same key as in %s", loader->keys[i].path,
                               loader->keys[i - 1].path);
    return RESULT_OK;
}

static enum result store_fill(struct key_store *store, struct loader *loader, struct failure *why)
{
    store->private = calloc(loader->count + 1, sizeof(EVP_PKEY *));
    if (store->private == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the keys");
    for (size_t i = 0; i < loader->count; i++) {
        struct loaded_key *loaded = &loader->keys[i];
        enum result result =
            key_table_add(&store->table, &loaded->id, bytes_of(loaded->label, strlen(loaded->label)), why);
        if (result != RESULT_OK)
            return result;
        store->private[i] = loaded->key;
        loaded->key = NULL;
    }
    return RESULT_OK;
}

static enum result load_all(const struct keyserver_config *config, struct loader *loader, struct failure *why)
{
    for (size_t i = 0; i < config->key_count; i++) {
        enum result result = load_dir(loader, &config->keys[i], why);
        if (result != RESULT_OK)
            return result;
    }
    if (loader->count == 0)
        return failure_set(why, RESULT_CONFIG, "no private key: no *.key or *.pem file in %s%s",
                           config->key_count > 0 ? config->keys[0].dir : "the directories of keys",
                           config->key_count > 1 ? " and the other directories" : "");
    qsort(loader->keys, loader->count, sizeof *loader->keys, by_ski);
    return refuse_duplicates(loader, why);
}

enum result key_store_load(const struct keyserver_config *config, struct key_store **store,
                           struct failure *why)
{
    struct loader loader CLEANUP(loader_clear) = {.decoder = key_decoder_new()};
    *store = NULL;
    if (loader.decoder == NULL)
        return failure_set_openssl(why, "cannot decode private keys");
    loader.changes_user = process_changes_user(config->user, &loader.front_ends);
    enum result result = load_all(config, &loader, why);
    if (result != RESULT_OK)
        return result;
    struct key_store *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the keys");
    (void)pthread_mutex_init(&made->duplicating, NULL);
    result = store_fill(made, &loader, why);
    if (result != RESULT_OK) {
        key_store_free(made);
        return result;
    }
    *store = made;
    return RESULT_OK;
}

void key_store_free(struct key_store *store)
{
    if (store == NULL)
        return;
    for (size_t i = 0; store->private != NULL && i < store->table.count; i++)
        EVP_PKEY_free(store->private[i]);
    free(store->private);
    (void)pthread_mutex_destroy(&store->duplicating);
    key_table_clear(&store->table);
    free(store);
}

const struct key_table *key_store_table(const struct key_store *store)
{
    return &store->table;
}

EVP_PKEY *key_store_duplicate(struct key_store *store, size_t key)
{
    (void)pthread_mutex_lock(&store->duplicating);
    EVP_PKEY *duplicate = EVP_PKEY_dup(store->private[key]);
    (void)pthread_mutex_unlock(&store->duplicating);
    return duplicate;
}
