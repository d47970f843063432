#include "proxy/certificates.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "common/certificate_names.h"
#include "proxy/certificate_file.h"
#include "proxy/name_index.h"

struct certificates {
    struct certificate **list; /* each of its own, so that pointers stay good while the list grows */
    size_t count, capacity;
    struct name_index names;
    struct name_index site_names;      /* the chains of `sites`: an entry's are all of one site */
    const struct name_entry *fallback; /* what an unknown or absent SNI gets; NULL: there is none */
};

/* What reading needs besides. */
struct reading {
    const struct proxy_config *config;
    struct log *log;
    SSL_CTX *scratch; /* libssl, asked what it will take when a client comes */
    struct certificates *into;
    struct certificate *current; /* whose names are being entered */
    size_t current_names;
    const struct proxy_site *site;   /* whose chains are being read; NULL: nobody's in particular */
    struct certificate *first_valid; /* the first chain within its validity, of no site's */
    bool has_valid;                  /* whosever */
};

/* ---- Validity. */

static bool has_expired(const X509 *leaf)
{
    return X509_cmp_time(X509_get0_notAfter(leaf), NULL) < 0;
}

static bool is_early(const X509 *leaf)
{
    return X509_cmp_time(X509_get0_notBefore(leaf), NULL) > 0;
}

/* Of two chains of one type for one name, one that is valid now is served, and then the one that lasts
 * longer: one made for next month must not take the place of this month's. */
static bool is_better(const X509 *leaf, const X509 *than)
{
    if (is_early(leaf) != is_early(than))
        return is_early(than);
    return ASN1_TIME_compare(X509_get0_notAfter(leaf), X509_get0_notAfter(than)) > 0;
}

/* ---- Names. */

static void replace_if_better(struct reading *reading, const struct certificate **place, const char *name)
{
    struct certificate *challenger = reading->current;
    bool better = is_better(challenger->leaf, (*place)->leaf);
    log_warn(reading->log, "two chains of one type for a name", log_text("name", name),
             log_text("type", key_type_name(challenger->key.type)),
             log_text("served", better ? challenger->path : (*place)->path),
             log_text("unused", better ? (*place)->path : challenger->path));
    if (better)
        *place = challenger;
}

static bool name_enter(struct reading *reading, struct name_index *index, const char *name)
{
    struct name_entry *entry = name_index_add(index, name);
    if (entry == NULL)
        return false;
    reading->current_names++;
    for (size_t i = 0; i < entry->count; i++) {
        if (entry->chains[i] == reading->current)
            return true; /* the same name twice in one certificate */
        if (entry->chains[i]->key.type == reading->current->key.type) {
            replace_if_better(reading, &entry->chains[i], name);
            return true;
        }
    }
    entry->chains[entry->count++] = reading->current; /* there are fewer key types than places */
    return true;
}

/* Whether a wildcard stands for a name. */
static bool stands_for(const char *wildcard, const char *name)
{
    const char *parent = strchr(name, '.');
    return wildcard[0] == '*' && parent != NULL && name[0] != '*' && strcmp(wildcard + 1, parent) == 0;
}

/* What a site's chain for `name` serves of the site's own name; NULL: nothing. An exact name may be another
 * site's than the wildcard around it. */
static const char *shared_name(const struct reading *reading, const char *own, const char *name)
{
    if (strcmp(own, name) == 0 || stands_for(name, own))
        return own;
    bool served = stands_for(own, name) &&
                  proxy_config_site(reading->config, bytes_of(name, strlen(name))) == reading->site;
    return served ? name : NULL;
}

static bool name_found(const char *name, void *owner)
{
    struct reading *reading = owner;
    const struct proxy_site *site = reading->site;
    bool entered = true;
    if (site == NULL)
        return name_enter(reading, &reading->into->names, name);
    for (size_t i = 0; entered && i < site->name_count; i++) {
        const char *shared = shared_name(reading, site->names[i], name);
        entered = shared == NULL || name_enter(reading, &reading->into->site_names, shared);
    }
    return entered;
}

_Static_assert(KEY_TYPE_ED448 <= CERTIFICATES_PER_NAME, "a place for each key type");

static void name_ignored(const char *what, struct bytes value, void *owner)
{
    const struct reading *reading = owner;
    log_debug(reading->log, "name in certificate not used", log_text("file", reading->current->path),
              log_text("kind", what), log_bytes("value", value));
}

static enum result names_enter(struct reading *reading, struct failure *why)
{
    static const struct certificate_names_handler handler = {name_found, name_ignored};
    const char *path = reading->current->path;
    reading->current_names = 0;
    if (!certificate_names(reading->current->leaf, &handler, reading))
        return failure_set(why, RESULT_SYSTEM, "%s: no memory for its names", path);
    if (reading->current_names == 0 && reading->site != NULL)
        return failure_set(why, RESULT_CONFIG, "%s: is for none of the site's names", path);
    if (reading->current_names == 0)
        return failure_set(why, RESULT_CONFIG,
                           "%s: has no name that can be served: expected a dNSName in its subjectAltName",
                           path);
    return RESULT_OK;
}

/* ---- Chains. */

static void validity_check(struct reading *reading)
{
    struct certificate *certificate = reading->current;
    bool expired = has_expired(certificate->leaf);
    if (expired || is_early(certificate->leaf))
        log_warn(reading->log, expired ? "certificate has expired" : "certificate is not valid yet",
                 log_text("file", certificate->path));
    else if (reading->first_valid == NULL && reading->site == NULL)
        reading->first_valid = certificate;
    reading->has_valid = reading->has_valid || (!expired && !is_early(certificate->leaf));
}

static bool list_push(struct certificates *certificates, struct certificate *certificate)
{
    if (certificates->count == certificates->capacity) {
        size_t capacity = certificates->capacity == 0 ? 16 : 2 * certificates->capacity;
        struct certificate **list = realloc(certificates->list, capacity * sizeof(struct certificate *));
        if (list == NULL)
            return false;
        certificates->list = list;
        certificates->capacity = capacity;
    }
    certificate->index = certificates->count;
    certificates->list[certificates->count++] = certificate;
    return true;
}

/* Bits of security of a signature with SHA-1 and worse, which clients refuse. OpenSSL 3.5 serves it all the
 * same. Nobody looks at a root's. */
#define SIGNATURE_BITS_MIN 80

static bool is_badly_signed(X509 *certificate)
{
    int bits;
    bool self_signed = (X509_get_extension_flags(certificate) & EXFLAG_SS) != 0;
    return !self_signed && X509_get_signature_info(certificate, NULL, NULL, &bits, NULL) == 1 &&
           bits < SIGNATURE_BITS_MIN;
}

static enum result signatures_check(const struct certificate *certificate, struct failure *why)
{
    bool bad = is_badly_signed(certificate->leaf);
    for (int i = 0; !bad && i < sk_X509_num(certificate->chain); i++)
        bad = is_badly_signed(sk_X509_value(certificate->chain, i));
    return bad ? failure_set(why, RESULT_CONFIG,
                             "%s: a certificate is signed with a digest that clients refuse",
                             certificate->path)
               : RESULT_OK;
}

/* libssl serves no key and no signature below its security level: better told now than to every client. */
static enum result strength_check(const struct reading *reading, struct failure *why)
{
    const struct certificate *certificate = reading->current;
    if (SSL_CTX_get_security_level(reading->scratch) > 0 && signatures_check(certificate, why) != RESULT_OK)
        return why->kind;
    bool taken = SSL_CTX_use_certificate(reading->scratch, certificate->leaf) == 1;
    for (int i = 0; taken && i < sk_X509_num(certificate->chain); i++)
        taken = SSL_CTX_add1_chain_cert(reading->scratch, sk_X509_value(certificate->chain, i)) == 1;
    (void)SSL_CTX_clear_chain_certs(reading->scratch);
    if (taken)
        return RESULT_OK;
    return failure_set_openssl(why, "%s: cannot be served at OpenSSL's security level %d", certificate->path,
                               SSL_CTX_get_security_level(reading->scratch));
}

static enum result chain_read(struct reading *reading, const char *path, struct failure *why)
{
    struct certificate *certificate = calloc(1, sizeof *certificate);
    if (certificate == NULL)
        return failure_set_errno(why, "%s", path);
    enum result result = certificate_file_read(path, certificate, why);
    if (result == RESULT_OK && !list_push(reading->into, certificate)) {
        certificate_clear(certificate);
        result = failure_set_errno(why, "%s", path);
    }
    if (result != RESULT_OK) {
        free(certificate);
        return result;
    }
    certificate->site = reading->site;
    reading->current = certificate;
    validity_check(reading);
    result = strength_check(reading, why);
    return result == RESULT_OK ? names_enter(reading, why) : result;
}

/* ---- Files and directories. */

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static bool is_chain_name(const char *name)
{
    const char *suffix = strrchr(name, '.');
    return suffix != NULL && (strcmp(suffix, ".pem") == 0 || strcmp(suffix, ".crt") == 0);
}

/* The proxy's own key towards the key server is named in the configuration and may lie in the same directory.
 */
static bool is_channel_key(const struct reading *reading, const char *path)
{
    struct stat a, b;
    const char *own = reading->config->key_channel.key;
    return own != NULL && stat(path, &a) == 0 && stat(own, &b) == 0 && a.st_dev == b.st_dev &&
           a.st_ino == b.st_ino;
}

static enum result dir_entry_read(struct reading *reading, const char *dir, const char *name,
                                  struct failure *why)
{
    char path[4096];
    int size = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (size < 0 || (size_t)size >= sizeof path)
        return failure_set(why, RESULT_CONFIG, "%s: the path of %s is too long", dir, name);
    if (is_channel_key(reading, path))
        return RESULT_OK;
    return is_chain_name(name) ? chain_read(reading, path, why) : certificate_file_refuse_key(path, why);
}

static enum result dir_read(struct reading *reading, const char *dir, struct failure *why)
{
    struct dirent **entries;
    int count = scandir(dir, &entries, is_visible, alphasort);
    if (count < 0)
        return failure_set_errno(why, "%s", dir);
    enum result result = RESULT_OK;
    for (int i = 0; i < count; i++) {
        if (result == RESULT_OK)
            result = dir_entry_read(reading, dir, entries[i]->d_name, why);
        free(entries[i]);
    }
    free(entries);
    return result;
}

static enum result source_read(struct reading *reading, const struct proxy_certificate_source *source,
                               struct failure *why)
{
    bool is_dir = source->dir != NULL;
    struct failure reason;
    enum result result =
        is_dir ? dir_read(reading, source->dir, &reason) : chain_read(reading, source->file, &reason);
    if (result == RESULT_OK)
        return RESULT_OK;
    char key[64];
    (void)snprintf(key, sizeof key, "%scertificates.%s", reading->site != NULL ? "sites." : "",
                   is_dir ? "dir" : "file");
    return config_failure(why, &source->where, key, "%s", reason.text);
}

static enum result site_sources_read(struct reading *reading, const struct proxy_site *site,
                                     struct failure *why)
{
    enum result result = RESULT_OK;
    reading->site = site;
    for (size_t i = 0; result == RESULT_OK && i < site->certificate_count; i++)
        result = source_read(reading, &site->certificates[i], why);
    return result;
}

static enum result sources_read(struct reading *reading, struct failure *why)
{
    const struct config_position where = {.file = reading->config->file};
    enum result result = RESULT_OK;
    for (size_t i = 0; result == RESULT_OK && i < reading->config->certificate_count; i++)
        result = source_read(reading, &reading->config->certificates[i], why);
    for (size_t i = 0; result == RESULT_OK && i < reading->config->site_count; i++)
        result = site_sources_read(reading, &reading->config->sites[i], why);
    reading->site = NULL;
    if (result == RESULT_OK && reading->into->list == NULL)
        return config_failure(why, &where, "certificates",
                              "no chain found: expected files named *.pem or *.crt");
    if (result == RESULT_OK && !reading->has_valid)
        return config_failure(why, &where, "certificates", "every chain is expired or not valid yet");
    return result;
}

/* ---- Finding. */

/* A wildcard stands for exactly one label, the left-most (RFC 9525 section 6.3). */
static const struct name_entry *find_wildcard(const struct name_index *index, const char *name)
{
    char wildcard[DNS_NAME_MAX + 2] = "*";
    const char *parent = strchr(name, '.');
    if (parent == NULL)
        return NULL;
    size_t size = strlen(parent);
    memcpy(wildcard + 1, parent, size + 1);
    return name_index_find(index, bytes_of(wildcard, size + 1));
}

static const struct name_entry *find_in(const struct name_index *index, struct bytes sni)
{
    char name[DNS_NAME_MAX + 1];
    if (sni.data == NULL || !dns_name_normalise(sni, false, name))
        return NULL;
    const struct name_entry *entry = name_index_find(index, bytes_of(name, strlen(name)));
    return entry != NULL ? entry : find_wildcard(index, name);
}

/* The site's own chains, then those that are for everybody. */
static const struct name_entry *find(const struct certificates *certificates, const struct proxy_site *site,
                                     struct bytes sni)
{
    const struct name_entry *entry = site != NULL ? find_in(&certificates->site_names, sni) : NULL;
    if (entry != NULL && entry->chains[0]->site == site)
        return entry;
    return find_in(&certificates->names, sni);
}

/* What a client may be sent to that has no name: told when it is read, since nobody else notices. */
static void sites_check(const struct reading *reading)
{
    for (size_t i = 0; i < reading->config->site_name_count; i++) {
        const struct proxy_site_name *one = &reading->config->site_names[i];
        struct bytes name = bytes_of(one->name, strlen(one->name));
        bool wildcard = one->name[0] == '*';
        if (wildcard ? name_index_find(&reading->into->names, name) == NULL &&
                           name_index_find(&reading->into->site_names, name) == NULL
                     : find(reading->into, one->site, name) == NULL)
            log_warn(reading->log, "no certificate for a site's name", log_text("name", one->name));
    }
}

/* ---- The default. */

static bool first_name(const char *name, void *owner)
{
    struct reading *reading = owner;
    reading->into->fallback = name_index_find(&reading->into->names, bytes_of(name, strlen(name)));
    return false;
}

static enum result fallback_choose(struct reading *reading, struct failure *why)
{
    static const struct certificate_names_handler handler = {first_name, name_ignored};
    const char *name = reading->config->tls.default_name;
    const struct config_position where = {.file = reading->config->file};
    struct bytes wanted = name != NULL ? bytes_of(name, strlen(name)) : (struct bytes){0};
    if (name != NULL) {
        reading->into->fallback = find(reading->into, proxy_config_site(reading->config, wanted), wanted);
    } else if (reading->first_valid != NULL) {
        reading->current = reading->first_valid;
        (void)certificate_names(reading->current->leaf, &handler, reading);
    }
    /* With sites' own chains alone there may be none: those serve no other names. */
    if (reading->into->fallback == NULL && name != NULL)
        return config_failure(why, &where, "tls.default", "no certificate is for the name \"%s\"", name);
    sites_check(reading);
    return RESULT_OK;
}

/* ---- The interface. */

enum result certificates_read(const struct proxy_config *config, struct log *log,
                              struct certificates **certificates, struct failure *why)
{
    *certificates = NULL;
    struct reading reading = {.config = config, .log = log, .into = calloc(1, sizeof *reading.into)};
    if (reading.into == NULL)
        return failure_set_errno(why, "certificates");
    reading.scratch = SSL_CTX_new(TLS_server_method());
    enum result result = reading.scratch != NULL ? sources_read(&reading, why)
                                                 : failure_set_openssl(why, "cannot make a TLS context");
    if (result == RESULT_OK)
        result = fallback_choose(&reading, why);
    SSL_CTX_free(reading.scratch);
    if (result != RESULT_OK) {
        certificates_free(reading.into);
        return result;
    }
    *certificates = reading.into;
    return RESULT_OK;
}

void certificates_free(struct certificates *certificates)
{
    if (certificates == NULL)
        return;
    for (size_t i = 0; i < certificates->count; i++) {
        certificate_clear(certificates->list[i]);
        free(certificates->list[i]);
    }
    free(certificates->list);
    name_index_clear(&certificates->names);
    name_index_clear(&certificates->site_names);
    free(certificates);
}

size_t certificates_count(const struct certificates *certificates)
{
    return certificates->count;
}

const struct certificate *certificates_at(const struct certificates *certificates, size_t index)
{
    return certificates->list[index];
}

size_t certificates_find(const struct certificates *certificates, const struct proxy_site *site,
                         struct bytes sni, const struct certificate *found[static CERTIFICATES_PER_NAME],
                         bool *matched)
{
    const struct name_entry *entry = find(certificates, site, sni);
    *matched = entry != NULL;
    if (entry == NULL)
        entry = certificates->fallback;
    if (entry == NULL)
        return 0;
    for (size_t i = 0; i < entry->count; i++)
        found[i] = entry->chains[i];
    return entry->count;
}
