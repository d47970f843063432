#include "keyserver/site_certificates.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/certificate_names.h"

struct site_certificates {
    struct site_leaf *leaves; /* by ascending SKI */
    size_t count, capacity;
};

/* ---- One leaf. */

static void leaf_clear(struct site_leaf *leaf)
{
    OPENSSL_free((void *)leaf->der.data);
    for (size_t i = 0; i < leaf->name_count; i++)
        free(leaf->names[i]);
    free(leaf->names);
    *leaf = (struct site_leaf){0};
}

static bool on_name(const char *name, void *owner)
{
    struct site_leaf *leaf = owner;
    char **names = realloc(leaf->names, (leaf->name_count + 1) * sizeof *names);
    if (names == NULL)
        return false;
    leaf->names = names;
    names[leaf->name_count] = strdup(name);
    return names[leaf->name_count] != NULL && ++leaf->name_count > 0;
}

static void on_ignored(const char *what, struct bytes value, void *owner)
{
    (void)what;
    (void)value;
    (void)owner;
}

static bool seconds_of(const ASN1_TIME *time, int64_t *seconds)
{
    struct tm parts;
    if (ASN1_TIME_to_tm(time, &parts) != 1)
        return false;
    *seconds = timegm(&parts);
    return true;
}

static enum result leaf_identify(struct site_leaf *leaf, X509 *certificate, struct failure *why)
{
    struct key_id id;
    EVP_PKEY *key = X509_get0_pubkey(certificate);
    if (key == NULL)
        return failure_set_openssl(why, "the certificate's key cannot be read");
    enum result result = key_id_of(key, &id, why);
    memcpy(leaf->ski, id.ski, sizeof leaf->ski);
    return result;
}

static enum result leaf_fill(struct site_leaf *leaf, X509 *certificate, struct failure *why)
{
    static const struct certificate_names_handler NAMES = {.found = on_name, .ignored = on_ignored};
    unsigned char *der = NULL;
    int size = i2d_X509(certificate, &der);
    if (size <= 0)
        return failure_set_openssl(why, "the certificate cannot be encoded");
    leaf->der = bytes_of(der, (size_t)size);
    if (!seconds_of(X509_get0_notBefore(certificate), &leaf->not_before) ||
        !seconds_of(X509_get0_notAfter(certificate), &leaf->not_after))
        return failure_set(why, RESULT_CONFIG, "the certificate's validity does not parse");
    if (!certificate_names(certificate, &NAMES, leaf))
        return failure_set(why, RESULT_LIMIT, "no memory for the certificate's names");
    return leaf_identify(leaf, certificate, why);
}

/* ---- The set. */

struct site_certificates *site_certificates_new(void)
{
    return calloc(1, sizeof(struct site_certificates));
}

void site_certificates_free(struct site_certificates *certificates)
{
    if (certificates == NULL)
        return;
    for (size_t i = 0; i < certificates->count; i++)
        leaf_clear(&certificates->leaves[i]);
    free(certificates->leaves);
    free(certificates);
}

size_t site_certificates_count(const struct site_certificates *certificates)
{
    return certificates->count;
}

static bool grow(struct site_certificates *certificates)
{
    if (certificates->count < certificates->capacity)
        return true;
    size_t capacity = certificates->capacity == 0 ? 16 : 2 * certificates->capacity;
    struct site_leaf *leaves = realloc(certificates->leaves, capacity * sizeof *leaves);
    if (leaves == NULL)
        return false;
    certificates->leaves = leaves;
    certificates->capacity = capacity;
    return true;
}

static enum result append(struct site_certificates *certificates, X509 *certificate, struct failure *why)
{
    if (!grow(certificates))
        return failure_set(why, RESULT_LIMIT, "no memory for the sites' certificates");
    struct site_leaf *leaf = &certificates->leaves[certificates->count];
    *leaf = (struct site_leaf){0};
    enum result result = leaf_fill(leaf, certificate, why);
    if (result == RESULT_OK)
        certificates->count++;
    else
        leaf_clear(leaf);
    return result;
}

static int by_ski(const void *a, const void *b)
{
    return memcmp(((const struct site_leaf *)a)->ski, ((const struct site_leaf *)b)->ski, KEY_ID_SKI_SIZE);
}

static void sort(struct site_certificates *certificates)
{
    if (certificates->count > 0)
        qsort(certificates->leaves, certificates->count, sizeof *certificates->leaves, by_ski);
}

enum result site_certificates_add(struct site_certificates *certificates, X509 *leaf, struct failure *why)
{
    enum result result = append(certificates, leaf, why);
    sort(certificates);
    return result;
}

const struct site_leaf *site_certificates_of(const struct site_certificates *certificates,
                                             const uint8_t ski[static KEY_ID_SKI_SIZE], size_t *count)
{
    size_t low = 0, high = certificates->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (memcmp(certificates->leaves[middle].ski, ski, KEY_ID_SKI_SIZE) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    *count = 0;
    while (low + *count < certificates->count &&
           memcmp(certificates->leaves[low + *count].ski, ski, KEY_ID_SKI_SIZE) == 0)
        ++*count;
    return *count > 0 ? &certificates->leaves[low] : NULL;
}

const struct site_leaf *site_certificates_find(const struct site_certificates *certificates,
                                               const uint8_t ski[static KEY_ID_SKI_SIZE], struct bytes der)
{
    size_t count;
    const struct site_leaf *leaves = site_certificates_of(certificates, ski, &count);
    for (size_t i = 0; i < count; i++)
        if (bytes_equal(leaves[i].der, der))
            return &leaves[i];
    return NULL;
}

/* ---- Names. */

bool site_name_matches(const char *pattern, const char *name)
{
    if (strcmp(pattern, name) == 0)
        return true;
    const char *dot = strchr(name, '.');
    return pattern[0] == '*' && pattern[1] == '.' && dot != NULL && strcmp(pattern + 1, dot) == 0;
}

bool site_leaf_covers(const struct site_leaf *leaf, const char *name)
{
    for (size_t i = 0; i < leaf->name_count; i++)
        if (site_name_matches(leaf->names[i], name))
            return true;
    return false;
}

/* ---- Files. */

static void x509_free(X509 **certificate)
{
    X509_free(*certificate);
}

static void bio_free(BIO **bio)
{
    BIO_free_all(*bio);
}

/* PEM, or else DER. */
static X509 *read_leaf(BIO *file)
{
    X509 *leaf = PEM_read_bio_X509(file, NULL, NULL, NULL);
    if (leaf == NULL && BIO_reset(file) == 0)
        leaf = d2i_X509_bio(file, NULL);
    ERR_clear_error();
    return leaf;
}

static enum result load_file(struct site_certificates *certificates, const char *dir, const char *name,
                             struct failure *why)
{
    char path[4096];
    if ((size_t)snprintf(path, sizeof path, "%s/%s", dir, name) >= sizeof path)
        return failure_set(why, RESULT_CONFIG, "%.200s: the name of a file in it is too long", dir);
    BIO *file CLEANUP(bio_free) = BIO_new_file(path, "r");
    if (file == NULL)
        return failure_set_openssl(why, "cannot read %s", path);
    X509 *leaf CLEANUP(x509_free) = read_leaf(file);
    if (leaf == NULL)
        return failure_set(why, RESULT_CONFIG, "%s: no certificate in it", path);
    struct failure reason;
    enum result result = append(certificates, leaf, &reason);
    return result == RESULT_OK ? RESULT_OK : failure_set(why, result, "%s: %s", path, reason.text);
}

static int wanted(const struct dirent *entry)
{
    const char *suffix = strrchr(entry->d_name, '.');
    return suffix != NULL && entry->d_name[0] != '.' &&
           (strcmp(suffix, ".pem") == 0 || strcmp(suffix, ".crt") == 0);
}

static enum result load_dir(struct site_certificates *certificates,
                            const struct keyserver_certificate_source *source, struct failure *why)
{
    struct dirent **entries;
    int count = scandir(source->dir, &entries, wanted, alphasort);
    if (count < 0)
        return config_failure(why, &source->where, "certificates.dir", "cannot read the directory %s: %s",
                              source->dir, strerror(errno));
    enum result result = RESULT_OK;
    for (int i = 0; i < count; i++) {
        if (result == RESULT_OK)
            result = load_file(certificates, source->dir, entries[i]->d_name, why);
        free(entries[i]);
    }
    free(entries);
    return result;
}

enum result site_certificates_load(const struct keyserver_config *config,
                                   struct site_certificates **certificates, struct failure *why)
{
    struct site_certificates *made = site_certificates_new();
    *certificates = NULL;
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the sites' certificates");
    for (size_t i = 0; i < config->certificate_count; i++) {
        enum result result = load_dir(made, &config->certificates[i], why);
        if (result != RESULT_OK) {
            site_certificates_free(made);
            return result;
        }
    }
    sort(made);
    *certificates = made;
    return RESULT_OK;
}
