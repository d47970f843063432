#include "proxy/certificates_private.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "proxy/certificate_file.h"
#include "proxy/certificate_verdicts.h"
#include "proxy/ocsp_settings.h"

/* Lines of one kind that are written while all is read: of thousands of chains, a number tells the rest. */
#define LINES_MAX 20

/* What reading needs besides. */
struct reading {
    const struct proxy_config *config;
    const struct certificates *before;
    struct log *log;
    struct certificates *into;
    struct certificates_rivals rivals;
    time_t now;
    struct stat channel_key;
    bool has_channel_key;
    bool same_key_servers; /* as before */
    bool has_valid;
    size_t duplicates, invalid, bare; /* lines about them, written or not */
};

/* ---- Files. */

struct file_mark file_mark_of(const struct stat *status)
{
    return (struct file_mark){.device = status->st_dev,
                              .inode = status->st_ino,
                              .size = status->st_size,
                              .modified = status->st_mtim,
                              .changed = status->st_ctim};
}

static bool times_equal(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

bool file_mark_equal(const struct file_mark *a, const struct file_mark *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           times_equal(&a->modified, &b->modified) && times_equal(&a->changed, &b->changed);
}

/* A time in the future is no reason to wait. */
bool file_mark_rests(const struct file_mark *mark)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    int64_t age = (int64_t)(now.tv_sec - mark->modified.tv_sec) * 1000000 +
                  (now.tv_nsec - mark->modified.tv_nsec) / 1000;
    return age < 0 || age >= FILE_MARK_RESTING;
}

static int is_visible(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static bool is_chain_name(const char *name)
{
    const char *suffix = strrchr(name, '.');
    return suffix != NULL && (strcmp(suffix, ".pem") == 0 || strcmp(suffix, ".crt") == 0);
}

static enum result entry_visit(const struct certificate_visitor *visitor, const struct proxy_site *site,
                               const char *dir, const char *name, struct failure *why)
{
    char path[4096];
    int size = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (size < 0 || (size_t)size >= sizeof path)
        return failure_set(why, RESULT_CONFIG, "%s: the path of %s is too long", dir, name);
    if (is_chain_name(name))
        return visitor->chain(path, site, visitor->owner, why);
    return visitor->other != NULL ? visitor->other(path, visitor->owner, why) : RESULT_OK;
}

static enum result dir_visit(const struct certificate_visitor *visitor, const struct proxy_site *site,
                             const char *dir, struct failure *why)
{
    struct dirent **entries;
    int count = scandir(dir, &entries, is_visible, alphasort);
    if (count < 0)
        return failure_set_errno(why, "%s", dir);
    enum result result = RESULT_OK;
    for (int i = 0; i < count; i++) {
        if (result == RESULT_OK)
            result = entry_visit(visitor, site, dir, entries[i]->d_name, why);
        free(entries[i]);
    }
    free(entries);
    return result;
}

static enum result source_visit(const struct certificate_visitor *visitor, const struct proxy_site *site,
                                const struct proxy_certificate_source *source, struct failure *why)
{
    bool is_dir = source->dir != NULL;
    struct failure reason;
    enum result result = is_dir ? dir_visit(visitor, site, source->dir, &reason)
                                : visitor->chain(source->file, site, visitor->owner, &reason);
    if (result == RESULT_OK)
        return RESULT_OK;
    char key[64];
    (void)snprintf(key, sizeof key, "%scertificates.%s", site != NULL ? "sites." : "",
                   is_dir ? "dir" : "file");
    return config_failure(why, &source->where, key, "%s", reason.text);
}

static enum result site_visit(const struct certificate_visitor *visitor, const struct proxy_site *site,
                              struct failure *why)
{
    enum result result = RESULT_OK;
    for (size_t i = 0; result == RESULT_OK && i < site->certificate_count; i++)
        result = source_visit(visitor, site, &site->certificates[i], why);
    return result;
}

enum result certificate_sources_visit(const struct proxy_config *config,
                                      const struct certificate_visitor *visitor, struct failure *why)
{
    enum result result = RESULT_OK;
    for (size_t i = 0; result == RESULT_OK && i < config->certificate_count; i++)
        result = source_visit(visitor, NULL, &config->certificates[i], why);
    for (size_t i = 0; result == RESULT_OK && i < config->site_count; i++)
        result = site_visit(visitor, &config->sites[i], why);
    return result;
}

/* ---- What is known of a file. */

#define KEY_SIZE 4128

static bool make_key(const struct certificates *certificates, const struct proxy_site *site, const char *path,
                     char key[static KEY_SIZE])
{
    int size = site != NULL ? snprintf(key, KEY_SIZE, "%s\n%td", path, site - certificates->config->sites)
                            : snprintf(key, KEY_SIZE, "%s", path);
    return size > 0 && size < KEY_SIZE;
}

struct bytes file_state_path(const char *key)
{
    return bytes_of(key, strcspn(key, "\n"));
}

struct file_state *file_state_find(const struct certificates *certificates, const struct proxy_site *site,
                                   const char *path)
{
    char key[KEY_SIZE];
    return make_key(certificates, site, path, key)
               ? text_index_find(&certificates->files, bytes_of(key, strlen(key)))
               : NULL;
}

struct file_state *file_state_add(struct certificates *certificates, const struct proxy_site *site,
                                  const char *path)
{
    char key[KEY_SIZE];
    struct file_state *state = file_state_find(certificates, site, path);
    if (state != NULL || !make_key(certificates, site, path, key))
        return state;
    state = text_index_add(&certificates->files, key);
    if (state != NULL)
        state->chain = SIZE_MAX;
    return state;
}

/* ---- Lines. */

static void tell_rivals(const char *name, const struct certificate *served, const struct certificate *unused,
                        void *owner)
{
    struct reading *reading = owner;
    if (reading->duplicates++ < LINES_MAX)
        log_warn(reading->log, "two chains of one type for a name", log_text("name", name),
                 log_text("type", key_type_name(served->key.type)), log_text("served", served->path),
                 log_text("unused", unused->path));
}

static void tell_validity(struct reading *reading, const struct certificate *certificate)
{
    bool expired = certificate->not_after < reading->now;
    if (certificate_is_valid(certificate, reading->now))
        reading->has_valid = true;
    else if (reading->invalid++ < LINES_MAX)
        log_warn(reading->log, expired ? "certificate has expired" : "certificate is not valid yet",
                 log_text("file", certificate->path));
}

static void tell_bare(struct reading *reading, const struct certificate *certificate)
{
    if (certificate->must_staple && ocsp_settings_of(reading->config, certificate)->source == OCSP_OFF &&
        reading->bare++ < LINES_MAX)
        log_warn(reading->log, "certificate must be stapled", log_text("file", certificate->path),
                 log_reason("ocsp is off for it: some clients will refuse it"));
}

static void tell_rest(struct reading *reading)
{
    if (reading->duplicates > LINES_MAX)
        log_warn(reading->log, "more chains of one type for a name",
                 log_number("count", (int64_t)(reading->duplicates - LINES_MAX)));
    if (reading->invalid > LINES_MAX)
        log_warn(reading->log, "more certificates out of their validity",
                 log_number("count", (int64_t)(reading->invalid - LINES_MAX)));
    if (reading->bare > LINES_MAX)
        log_warn(reading->log, "more certificates must be stapled",
                 log_number("count", (int64_t)(reading->bare - LINES_MAX)));
}

static void tell_ignored(const char *what, struct bytes value, void *owner)
{
    log_debug(owner, "name in certificate not used", log_text("kind", what), log_bytes("value", value));
}

/* ---- One chain. */

static enum result file_read(struct chain_parser *parser, struct arena *arena, struct log *log,
                             const char *path, struct certificate **certificate, struct failure *why)
{
    struct certificate_chain chain;
    enum result result = certificate_file_read(path, &chain, why);
    if (result != RESULT_OK)
        return result;
    result =
        chain_parser_make(parser, arena, path, chain.der, chain.count, tell_ignored, log, certificate, why);
    certificate_chain_clear(&chain);
    return result;
}

/* What an earlier reading knows of this file; or NULL. The sites' numbers may have been others: that costs a
 * reading, or finds the same file of another. */
static const struct file_state *find_before(const struct reading *reading, const struct proxy_site *site,
                                            const char *path)
{
    const struct certificates *before = reading->before;
    char key[KEY_SIZE];
    if (before == NULL || !make_key(reading->into, site, path, key))
        return NULL;
    const struct file_state *state = text_index_find(&before->files, bytes_of(key, strlen(key)));
    return state != NULL && state->chain != SIZE_MAX ? state : NULL;
}

static enum result check_site(struct certificates *certificates, struct certificate *certificate,
                              const struct proxy_site *site, struct failure *why)
{
    certificate->site = site;
    if (certificates_would_serve(certificates, certificate))
        return RESULT_OK;
    (void)failure_set(why, RESULT_CONFIG, "%s: is for none of the site's names", certificate->path);
    certificate_drop(certificate);
    return RESULT_CONFIG;
}

enum result certificates_read_file(struct certificates *certificates, const char *path,
                                   const struct proxy_site *site, struct certificate **certificate,
                                   struct failure *why)
{
    enum result result = file_read(certificates->parser, NULL, NULL, path, certificate, why);
    return result == RESULT_OK ? check_site(certificates, *certificate, site, why) : result;
}

/* The proxy's own key towards the key server is named in the configuration and may lie in the same directory.
 */
static void find_channel_key(struct reading *reading)
{
    const char *own = reading->config->key_channel.key;
    reading->has_channel_key = own != NULL && stat(own, &reading->channel_key) == 0;
}

static bool is_channel_key(const struct reading *reading, const struct stat *status)
{
    return reading->has_channel_key && status->st_dev == reading->channel_key.st_dev &&
           status->st_ino == reading->channel_key.st_ino;
}

static bool is_same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool is_same_place(const struct proxy_key_server *a, const struct proxy_key_server *b)
{
    return address_equal(&a->at.address, &b->at.address) && is_same_text(a->at.host, b->at.host) &&
           a->at.port == b->at.port && is_same_text(a->srv, b->srv);
}

/* Whether what was found of a chain still holds. */
static bool has_same_key_servers(const struct proxy_config *a, const struct proxy_config *b)
{
    bool same = a->key_server_count == b->key_server_count;
    for (size_t i = 0; same && i < a->key_server_count; i++)
        same = is_same_place(&a->key_servers[i], &b->key_servers[i]) &&
               a->key_servers[i].mode == b->key_servers[i].mode;
    return same;
}

static enum result copy_before(struct reading *reading, const struct file_state *before, const char *path,
                               struct certificate **certificate, struct failure *why)
{
    const struct certificate *old = reading->before->list[before->chain];
    *certificate = certificate_copy(old, &reading->into->arena);
    if (*certificate == NULL)
        return failure_set_errno(why, "%s", path);
    (*certificate)->verdict =
        reading->same_key_servers ? certificates_verdict(reading->before, old) : CERTIFICATE_UNTRIED;
    return RESULT_OK;
}

static enum result enter(struct reading *reading, struct certificate *certificate, struct file_state *state,
                         struct failure *why)
{
    tell_validity(reading, certificate);
    tell_bare(reading, certificate);
    if (!certificates_add(reading->into, certificate, &reading->rivals))
        return failure_set(why, RESULT_SYSTEM, "no memory for certificates");
    state->chain = certificate->index;
    return RESULT_OK;
}

/* The chain of before goes on being served until the key server is known to sign for the new one; if it is
 * still of use, and the site is still for it. NULL: nothing goes on. */
static struct certificate *served_before(struct reading *reading, const struct file_state *before,
                                         const struct certificate *now)
{
    struct certificate *old;
    struct failure ignored;
    if (before == NULL || copy_before(reading, before, now->path, &old, &ignored) != RESULT_OK)
        return NULL;
    bool of_use = certificate_is_valid(old, reading->now) && !certificate_same_chain(old, now) &&
                  check_site(reading->into, old, now->site, &ignored) == RESULT_OK;
    return of_use ? old : NULL; /* what is of none stays in the arena */
}

/* With or without an earlier reading, which has another chain of this file. */
static enum result read_new(struct reading *reading, const struct proxy_site *site, const char *path,
                            struct file_state *state, struct failure *why)
{
    struct certificates *into = reading->into;
    const struct file_state *before = find_before(reading, site, path);
    struct certificate *certificate;
    struct arena *arena = before == NULL ? &into->arena : NULL;
    enum result result = file_read(into->parser, arena, reading->log, path, &certificate, why);
    if (result == RESULT_OK)
        result = check_site(into, certificate, site, why);
    if (result != RESULT_OK)
        return result;
    struct certificate *old = served_before(reading, before, certificate);
    if (old == NULL)
        return enter(reading, certificate, state, why);
    state->is_other = true;
    if (!certificates_hold_back(into, certificate, state))
        return failure_set(why, RESULT_SYSTEM, "no memory for certificates");
    return enter(reading, old, state, why);
}

static enum result read_same(struct reading *reading, const struct proxy_site *site, const char *path,
                             const struct file_state *before, struct file_state *state, struct failure *why)
{
    struct certificate *certificate;
    enum result result = copy_before(reading, before, path, &certificate, why);
    if (result == RESULT_OK)
        result = check_site(reading->into, certificate, site, why);
    return result == RESULT_OK ? enter(reading, certificate, state, why) : result;
}

/* The file's mark is taken first: what is written meanwhile is seen by who looks next. */
static enum result chain_read(const char *path, const struct proxy_site *site, void *owner,
                              struct failure *why)
{
    struct reading *reading = owner;
    struct stat status = {0};
    if (stat(path, &status) == 0 && is_channel_key(reading, &status))
        return RESULT_OK;
    struct file_state *state = file_state_add(reading->into, site, path);
    if (state == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory for certificates");
    *state = (struct file_state){.mark = file_mark_of(&status), .chain = SIZE_MAX};
    const struct file_state *before = find_before(reading, site, path);
    bool same = before != NULL && !before->is_other && file_mark_equal(&before->mark, &state->mark);
    return same ? read_same(reading, site, path, before, state, why)
                : read_new(reading, site, path, state, why);
}

static enum result other_read(const char *path, void *owner, struct failure *why)
{
    const struct reading *reading = owner;
    struct stat status;
    if (stat(path, &status) == 0 && is_channel_key(reading, &status))
        return RESULT_OK;
    return certificate_file_refuse_key(path, why);
}

/* ---- All of them. */

/* What a client may be sent to that has no name: told when it is read, since nobody else notices. */
static void tell_nameless(const struct reading *reading)
{
    for (size_t i = 0; i < reading->config->site_name_count; i++) {
        const struct proxy_site_name *one = &reading->config->site_names[i];
        if (!certificates_have_name(reading->into, one->site, one->name))
            log_warn(reading->log, "no certificate for a site's name", log_text("name", one->name));
    }
}

static enum result sources_read(struct reading *reading, struct failure *why)
{
    const struct certificate_visitor visitor = {chain_read, other_read, reading};
    const struct config_position where = {.file = reading->config->file};
    find_channel_key(reading);
    enum result result = certificate_sources_visit(reading->config, &visitor, why);
    tell_rest(reading);
    if (result != RESULT_OK)
        return result;
    if (reading->into->count == 0)
        return config_failure(why, &where, "certificates",
                              "no chain found: expected files named *.pem or *.crt");
    if (!reading->has_valid)
        return config_failure(why, &where, "certificates", "every chain is expired or not valid yet");
    if (!certificates_choose_fallback(reading->into))
        return config_failure(why, &where, "tls.default", "no certificate is for the name \"%s\"",
                              reading->config->tls.default_name);
    tell_nameless(reading);
    return RESULT_OK;
}

static enum result table_new(const struct proxy_config *config, const struct certificates *before,
                             struct certificates **table, struct failure *why)
{
    struct certificates *made = calloc(1, sizeof *made);
    *table = made;
    if (made == NULL)
        return failure_set_errno(why, "certificates");
    made->names = (struct text_index){.arena = &made->arena, .value_size = sizeof(struct name_entry)};
    made->files = (struct text_index){.arena = &made->arena, .value_size = sizeof(struct file_state)};
    made->site_names = made->names;
    made->config = config;
    if (before == NULL)
        return chain_parser_new(&made->parser, why);
    made->parser = chain_parser_hold(before->parser);
    return RESULT_OK;
}

enum result certificates_read(const struct proxy_config *config, const struct certificates *before,
                              struct log *log, struct certificates **certificates, struct failure *why)
{
    struct reading reading = {.config = config, .before = before, .log = log, .now = time(NULL)};
    reading.rivals = (struct certificates_rivals){tell_rivals, &reading};
    reading.same_key_servers = before != NULL && has_same_key_servers(before->config, config);
    enum result result = table_new(config, before, &reading.into, why);
    if (result == RESULT_OK)
        result = sources_read(&reading, why);
    if (result != RESULT_OK) {
        certificates_free(reading.into);
        reading.into = NULL;
    }
    *certificates = reading.into;
    return result;
}
