#include "proxy/certificate_watch.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/inotify.h>
#include <sys/stat.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/certificates_private.h"

enum {
    SETTLE = 200000,        /* microseconds without an event until files are looked at */
    SETTLE_MAX = 1000000,   /* ... but not longer than this after the first */
    LOOK_ANYWAY = 60000000, /* between two looks without an event */
    LINKS_MAX = 32,         /* on the way to one file */
};

#define EVENTS                                                                                               \
    (IN_CLOSE_WRITE | IN_CREATE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF |     \
     IN_MOVE_SELF | IN_ONLYDIR)

struct certificate_watch {
    const struct proxy_config *config;
    struct certificates *certificates;
    struct certificate_watch_handler handler;
    struct log *log;
    int inotify;
    uint64_t first_event; /* of those that were not acted upon yet; 0: none */
    uint64_t due;         /* when to look; never 0 */
    unsigned scan;
    bool told_inotify, told_sources;
};

/* ---- Where files lie. */

static void tell_inotify(struct certificate_watch *watch, const char *path)
{
    if (!watch->told_inotify)
        log_warn(watch->log, "certificates watched less closely", log_text("path", path),
                 log_reason(strerror(errno)));
    watch->told_inotify = true;
}

static void watch_dir(struct certificate_watch *watch, const char *dir)
{
    if (watch->inotify >= 0 && inotify_add_watch(watch->inotify, dir, EVENTS) < 0 && errno != ENOENT)
        tell_inotify(watch, dir);
}

/* The directory of the part of path that ends at `end`. */
static void watch_dir_of(struct certificate_watch *watch, const char *path, const char *end)
{
    char dir[PATH_MAX];
    const char *slash = end;
    while (slash > path && slash[-1] != '/')
        slash--;
    size_t size = (size_t)(slash - path);
    if (size == 0)
        (void)snprintf(dir, sizeof dir, ".");
    else
        (void)snprintf(dir, sizeof dir, "%.*s", (int)size, path);
    watch_dir(watch, dir);
}

/* If what path begins with, up to `end`, is a symbolic link: the path that it makes of the whole. */
static bool follow(const char *path, const char *end, char into[static PATH_MAX])
{
    char link[PATH_MAX], target[PATH_MAX];
    size_t size = (size_t)(end - path);
    memcpy(link, path, size);
    link[size] = '\0';
    ssize_t length = readlink(link, target, sizeof target - 1);
    if (length <= 0)
        return false;
    target[length] = '\0';
    const char *slash = strrchr(link, '/');
    int before = target[0] == '/' || slash == NULL ? 0 : (int)(slash - link) + 1;
    int made = snprintf(into, PATH_MAX, "%.*s%s%s", before, link, target, end);
    return made > 0 && made < PATH_MAX;
}

/* The first link on the way is followed, then the first on the new way, and so on. */
static void watch_way(struct certificate_watch *watch, const char *to)
{
    char path[PATH_MAX], next[PATH_MAX];
    int size = snprintf(path, sizeof path, "%s", to);
    const char *end = path;
    for (int links = 0; size < PATH_MAX && links < LINKS_MAX && *end != '\0';) {
        end += strspn(end, "/");
        end += strcspn(end, "/");
        if (!follow(path, end, next))
            continue;
        watch_dir_of(watch, path, end);
        memcpy(path, next, sizeof path);
        end = path;
        links++;
    }
    watch_dir_of(watch, path, path + strlen(path));
}

static void watch_list(struct certificate_watch *watch, const struct proxy_certificate_source *list,
                       size_t count)
{
    char path[PATH_MAX];
    for (size_t i = 0; i < count; i++) {
        bool is_dir = list[i].dir != NULL;
        (void)snprintf(path, sizeof path, "%s%s", is_dir ? list[i].dir : list[i].file, is_dir ? "/." : "");
        watch_way(watch, path);
    }
}

static void watch_sources(struct certificate_watch *watch)
{
    const struct proxy_config *config = watch->config;
    watch_list(watch, config->certificates, config->certificate_count);
    for (size_t i = 0; i < config->site_count; i++)
        watch_list(watch, config->sites[i].certificates, config->sites[i].certificate_count);
}

/* ---- One file. */

static bool is_served(const struct certificate_watch *watch, const struct file_state *state,
                      const struct certificate *certificate)
{
    return state->chain != SIZE_MAX &&
           certificate_same_chain(certificate, certificates_at(watch->certificates, state->chain));
}

static void read_again(struct certificate_watch *watch, const char *path, const struct proxy_site *site,
                       struct file_state *state)
{
    struct certificate *certificate;
    struct failure why;
    state->is_other = true;
    if (certificates_read_file(watch->certificates, path, site, &certificate, &why) != RESULT_OK) {
        watch->handler.failed(path, &why, watch->handler.owner);
    } else if (is_served(watch, state, certificate)) {
        state->is_other = false;
        certificate_drop(certificate);
        watch->handler.unchanged(state, watch->handler.owner);
    } else {
        watch->handler.changed(certificate, state, watch->handler.owner);
    }
}

static bool is_channel_key(const struct certificate_watch *watch, const struct stat *status)
{
    struct stat own;
    const char *path = watch->config->key_channel.key;
    return path != NULL && stat(path, &own) == 0 && own.st_dev == status->st_dev &&
           own.st_ino == status->st_ino;
}

static enum result look_at(const char *path, const struct proxy_site *site, void *owner, struct failure *why)
{
    struct certificate_watch *watch = owner;
    struct stat status;
    if (lstat(path, &status) == 0 && S_ISLNK(status.st_mode))
        watch_way(watch, path);
    if (stat(path, &status) != 0)
        return RESULT_OK; /* gone, as the scan will find */
    struct file_state *state = file_state_add(watch->certificates, site, path);
    if (state == NULL)
        return failure_set(why, RESULT_SYSTEM, "%s: no memory", path);
    const struct file_mark mark = file_mark_of(&status);
    state->scan = watch->scan;
    state->is_gone = false;
    if (file_mark_equal(&state->mark, &mark))
        return RESULT_OK;
    if (!file_mark_rests(&mark)) {
        watch->due = clock_now() + FILE_MARK_RESTING;
        return RESULT_OK;
    }
    state->mark = mark;
    if (!is_channel_key(watch, &status))
        read_again(watch, path, site, state);
    return RESULT_OK;
}

/* ---- All of them. */

static void find_gone(struct certificate_watch *watch)
{
    const struct text_index *files = &watch->certificates->files;
    const char *path;
    for (size_t i = 0; i < files->size; i++) {
        struct file_state *state = text_index_at(files, i, &path);
        if (state == NULL || state->is_gone || state->scan == watch->scan)
            continue;
        state->is_gone = true;
        if (state->chain != SIZE_MAX)
            log_warn(watch->log, "certificate file is gone", log_bytes("file", file_state_path(path)),
                     log_reason("its chain is served until the next reload"));
    }
}

static void look(struct certificate_watch *watch)
{
    const struct certificate_visitor visitor = {look_at, NULL, watch};
    struct failure why;
    watch->scan++;
    watch->first_event = 0;
    watch->due = clock_now() + LOOK_ANYWAY;
    watch_sources(watch);
    enum result result = certificate_sources_visit(watch->config, &visitor, &why);
    if (result == RESULT_OK)
        find_gone(watch);
    else if (!watch->told_sources)
        log_warn(watch->log, "certificates cannot be looked at", log_reason(why.text));
    watch->told_sources = result != RESULT_OK;
    if (watch->handler.looked(watch->handler.owner))
        watch->due = clock_now() + FILE_MARK_RESTING;
}

/* What happened where is not asked: all is looked at. */
static bool take_events(const struct certificate_watch *watch)
{
    char events[4096];
    bool any = false;
    while (watch->inotify >= 0 && read(watch->inotify, events, sizeof events) > 0)
        any = true;
    return any;
}

void certificate_watch_tick(struct certificate_watch *watch)
{
    uint64_t now = clock_now();
    if (take_events(watch)) {
        if (watch->first_event == 0)
            watch->first_event = now;
        uint64_t settled = now + SETTLE, latest = watch->first_event + SETTLE_MAX;
        watch->due = settled < latest ? settled : latest;
    }
    if (now >= watch->due)
        look(watch);
}

struct certificate_watch *certificate_watch_new(const struct proxy_config *config,
                                                struct certificates *certificates,
                                                const struct certificate_watch_handler *handler,
                                                struct log *log)
{
    struct certificate_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return NULL;
    *watch = (struct certificate_watch){
        .config = config, .certificates = certificates, .handler = *handler, .log = log};
    watch->inotify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (watch->inotify < 0)
        tell_inotify(watch, "");
    watch->due = clock_now(); /* what has changed since it was read */
    return watch;
}

void certificate_watch_forget(struct certificate_watch *watch)
{
    socket_close(&watch->inotify);
}

void certificate_watch_free(struct certificate_watch *watch)
{
    if (watch == NULL)
        return;
    socket_close(&watch->inotify);
    free(watch);
}
