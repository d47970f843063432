#include "proxy/certificates.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "common/certificate_names.h"
#include "proxy/certificate_file.h"
#include "proxy/chain_parser.h"
#include "proxy/name_index.h"

struct certificates {
    struct certificate **list; /* each of its own, so that pointers stay good while the list grows */
    size_t count, capacity;
    struct name_index names;
    struct name_index site_names;      /* the chains of `sites`: an entry's are all of one site */
    const struct name_entry *fallback; /* what an unknown or absent SNI gets; NULL: there is none */
    struct chain_parser *parser;
    struct arena arena; /* of what was read at the start */
};

/* Lines of one kind that are written while all is read: of thousands of chains, a number tells the rest. */
#define LINES_MAX 20

/* What reading needs besides. */
struct reading {
    const struct proxy_config *config;
    struct log *log;
    struct certificates *into;
    struct certificate *current; /* whose names are being entered */
    size_t current_names;
    const struct proxy_site *site;   /* whose chains are being read; NULL: nobody's in particular */
    struct certificate *first_valid; /* the first chain within its validity, of no site's */
    bool has_valid;                  /* whosever */
    time_t now;
    struct stat channel_key;
    bool has_channel_key;
    size_t duplicates, invalid; /* lines about them, written or not */
};

/* ---- Chains. */

const struct certificate *certificate_hold(const struct certificate *certificate)
{
    ((struct certificate *)certificate)->users++;
    return certificate;
}

void certificate_drop(const struct certificate *certificate)
{
    struct certificate *dropped = (struct certificate *)certificate;
    if (dropped != NULL && --dropped->users == 0 && !dropped->in_arena)
        free(dropped);
}

/* ---- Validity. */

static bool has_expired(const struct certificate *certificate, time_t now)
{
    return certificate->not_after < now;
}

static bool is_early(const struct certificate *certificate, time_t now)
{
    return certificate->not_before > now;
}

/* Of two chains of one type for one name, one that is valid now is served, and then the one that lasts
 * longer: one made for next month must not take the place of this month's. */
static bool is_better(const struct certificate *certificate, const struct certificate *than, time_t now)
{
    if (is_early(certificate, now) != is_early(than, now))
        return is_early(than, now);
    return certificate->not_after > than->not_after;
}

/* ---- Names. */

static void tell_duplicate(struct reading *reading, const char *name, const struct certificate *served,
                           const struct certificate *unused)
{
    if (reading->duplicates++ < LINES_MAX)
        log_warn(reading->log, "two chains of one type for a name", log_text("name", name),
                 log_text("type", key_type_name(served->key.type)), log_text("served", served->path),
                 log_text("unused", unused->path));
}

static void replace_if_better(struct reading *reading, const struct certificate **place, const char *name)
{
    const struct certificate *challenger = reading->current, *champion = *place;
    bool better = is_better(challenger, champion, reading->now);
    if (better)
        *place = challenger;
    tell_duplicate(reading, name, better ? challenger : champion, better ? champion : challenger);
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

static bool name_found(struct reading *reading, const char *name)
{
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
    log_debug(reading->log, "name in certificate not used", log_text("kind", what),
              log_bytes("value", value));
}

static enum result names_enter(struct reading *reading, struct failure *why)
{
    const char *name = reading->current->names;
    reading->current_names = 0;
    for (size_t i = 0; i < reading->current->name_count; i++, name += strlen(name) + 1)
        if (!name_found(reading, name))
            return failure_set(why, RESULT_SYSTEM, "%s: no memory for its names", reading->current->path);
    if (reading->current_names == 0)
        return failure_set(why, RESULT_CONFIG, "%s: is for none of the site's names", reading->current->path);
    return RESULT_OK;
}

/* ---- Reading. */

static void validity_check(struct reading *reading)
{
    struct certificate *certificate = reading->current;
    bool expired = has_expired(certificate, reading->now);
    if (!expired && !is_early(certificate, reading->now)) {
        reading->has_valid = true;
        if (reading->first_valid == NULL && reading->site == NULL)
            reading->first_valid = certificate;
    } else if (reading->invalid++ < LINES_MAX) {
        log_warn(reading->log, expired ? "certificate has expired" : "certificate is not valid yet",
                 log_text("file", certificate->path));
    }
}

static void tell_rest(struct reading *reading)
{
    if (reading->duplicates > LINES_MAX)
        log_warn(reading->log, "more chains of one type for a name",
                 log_number("count", (int64_t)(reading->duplicates - LINES_MAX)));
    if (reading->invalid > LINES_MAX)
        log_warn(reading->log, "more certificates out of their validity",
                 log_number("count", (int64_t)(reading->invalid - LINES_MAX)));
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

static enum result chain_make(struct reading *reading, const char *path, struct certificate **certificate,
                              struct failure *why)
{
    struct certificate_chain chain;
    enum result result = certificate_file_read(path, &chain, why);
    if (result != RESULT_OK)
        return result;
    result = chain_parser_make(reading->into->parser, &reading->into->arena, path, chain.der, chain.count,
                               name_ignored, reading, certificate, why);
    certificate_chain_clear(&chain);
    return result;
}

static enum result chain_read(struct reading *reading, const char *path, struct failure *why)
{
    struct certificate *certificate;
    enum result result = chain_make(reading, path, &certificate, why);
    if (result != RESULT_OK)
        return result;
    if (!list_push(reading->into, certificate)) {
        certificate_drop(certificate);
        return failure_set_errno(why, "%s", path);
    }
    certificate->site = reading->site;
    reading->current = certificate;
    validity_check(reading);
    return names_enter(reading, why);
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
static void find_channel_key(struct reading *reading)
{
    const char *own = reading->config->key_channel.key;
    reading->has_channel_key = own != NULL && stat(own, &reading->channel_key) == 0;
}

static bool is_channel_key(const struct reading *reading, const char *path)
{
    const struct stat *own = &reading->channel_key;
    struct stat status;
    return reading->has_channel_key && stat(path, &status) == 0 && status.st_dev == own->st_dev &&
           status.st_ino == own->st_ino;
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

static enum result fallback_choose(struct reading *reading, struct failure *why)
{
    const char *name = reading->config->tls.default_name;
    const struct config_position where = {.file = reading->config->file};
    struct certificates *into = reading->into;
    struct bytes wanted = name != NULL ? bytes_of(name, strlen(name)) : (struct bytes){0};
    if (name != NULL) {
        into->fallback = find(into, proxy_config_site(reading->config, wanted), wanted);
    } else if (reading->first_valid != NULL) {
        const char *first = reading->first_valid->names; /* may be a wildcard */
        into->fallback = name_index_find(&into->names, bytes_of(first, strlen(first)));
    }
    /* With sites' own chains alone there may be none: those serve no other names. */
    if (into->fallback == NULL && name != NULL)
        return config_failure(why, &where, "tls.default", "no certificate is for the name \"%s\"", name);
    sites_check(reading);
    return RESULT_OK;
}

/* ---- The interface. */

enum result certificates_read(const struct proxy_config *config, struct log *log,
                              struct certificates **certificates, struct failure *why)
{
    *certificates = NULL;
    struct reading reading = {
        .config = config, .log = log, .into = calloc(1, sizeof *reading.into), .now = time(NULL)};
    if (reading.into == NULL)
        return failure_set_errno(why, "certificates");
    reading.into->names.arena = &reading.into->arena;
    reading.into->site_names.arena = &reading.into->arena;
    find_channel_key(&reading);
    enum result result = chain_parser_new(&reading.into->parser, why);
    if (result == RESULT_OK)
        result = sources_read(&reading, why);
    if (result == RESULT_OK)
        result = fallback_choose(&reading, why);
    tell_rest(&reading);
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
    /* Those in the arena are not looked at: a child frees what it shares with its parent. */
    free(certificates->list);
    chain_parser_free(certificates->parser);
    arena_clear(&certificates->arena);
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
