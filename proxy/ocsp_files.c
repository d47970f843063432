#include "proxy/ocsp_files.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/socket.h"
#include "proxy/certificates_private.h"
#include "proxy/ocsp_settings.h"
#include "proxy/ocsp_take.h"
#include "proxy/proxy_metrics.h"

#define FORGETTING 3600 /* seconds */

/* The file of one chain, as it was last looked at. */
struct file {
    uint8_t mark[CERTIFICATE_MARK_SIZE]; /* of the chain */
    struct file_mark is;
    time_t next_update; /* of its response, if that was good; 0: none, or its end was told */
    bool seen;
};

struct ocsp_files {
    const struct proxy_config *config;
    const struct certificates *certificates;
    struct staples *staples;
    struct log *log;
    struct file *files; /* of the chains by their index; then of those held back */
    size_t count;
    time_t told;      /* when ends were last looked for */
    time_t forgotten; /* ... and what is long out of date */
};

struct ocsp_files *ocsp_files_new(const struct proxy_config *config, const struct certificates *certificates,
                                  struct staples *staples, struct log *log)
{
    struct ocsp_files *files = calloc(1, sizeof *files);
    if (files != NULL)
        *files = (struct ocsp_files){
            .config = config, .certificates = certificates, .staples = staples, .log = log};
    return files;
}

void ocsp_files_free(struct ocsp_files *files)
{
    if (files == NULL)
        return;
    free(files->files);
    free(files);
}

/* ---- One file. */

static enum result read_response(int fd, const char *path, uint8_t *into, size_t *size, struct failure *why)
{
    ssize_t got = read(fd, into, STAPLE_MAX + 1);
    if (got < 0)
        return failure_set_errno(why, "%s", path);
    if (got == 0 || got > STAPLE_MAX)
        return failure_set(why, RESULT_CONFIG, "%s: expected a response of 1 .. %d octets", path, STAPLE_MAX);
    *size = (size_t)got;
    return RESULT_OK;
}

/* As an earlier reading has left it: it was verified then. */
static bool is_there(const struct ocsp_files *files, const struct certificate *certificate,
                     struct bytes response, struct ocsp_status *status)
{
    struct staple there;
    size_t place = staples_find(files->staples, certificate);
    if (place == STAPLE_NOWHERE || !staples_read(files->staples, place, certificate, &there) ||
        !staple_is_good(&there, time(NULL)) || !bytes_equal(bytes_of(there.response, there.size), response))
        return false;
    *status = (struct ocsp_status){.this_update = (time_t)there.this_update,
                                   .next_update = (time_t)there.next_update};
    return true;
}

static enum result take(struct ocsp_files *files, const struct certificate *certificate, const char *path,
                        struct ocsp_status *status, struct failure *why)
{
    uint8_t response[STAPLE_MAX + 1];
    size_t size = 0;
    struct failure reason;
    int fd CLEANUP(socket_close) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return failure_set_errno(why, "%s", path);
    enum result result = read_response(fd, path, response, &size, why);
    if (result != RESULT_OK)
        return result;
    if (is_there(files, certificate, bytes_of(response, size), status))
        return RESULT_OK;
    result = ocsp_take(files->staples, certificate, bytes_of(response, size), time(NULL), status, &reason);
    return result == RESULT_OK ? RESULT_OK : failure_set(why, result, "%s: %s", path, reason.text);
}

static void read_file(struct ocsp_files *files, struct file *file, const struct certificate *certificate,
                      const char *path, struct metrics_row *metrics)
{
    struct ocsp_status status = {0};
    struct failure why;
    if (take(files, certificate, path, &status, &why) != RESULT_OK) {
        metric_add(metrics, PROXY_OCSP_FAILED, 1);
        log_warn(files->log, "OCSP response not taken", log_text("file", certificate->path),
                 log_reason(why.text));
        return;
    }
    file->next_update = status.next_update;
    metric_add(metrics, status.revoked ? PROXY_OCSP_REVOKED : PROXY_OCSP_GOOD, 1);
    ocsp_taken_log(files->log, LOG_LEVEL_DEBUG, certificate, &status);
}

static void tell_missing(const struct ocsp_files *files, struct file *file,
                         const struct certificate *certificate, const char *path)
{
    if (!file->seen)
        log_warn(files->log, "OCSP response not taken", log_text("file", certificate->path),
                 log_text("response", path), log_reason("there is no such file"));
    file->seen = true;
}

/* True: it is to be looked at again soon, when it rests. */
static bool look_at(struct ocsp_files *files, struct file *file, const struct certificate *certificate,
                    bool wait, struct metrics_row *metrics)
{
    char path[PATH_MAX];
    struct stat status;
    (void)snprintf(path, sizeof path, "%s.ocsp", certificate->path);
    if (memcmp(file->mark, certificate->mark, sizeof file->mark) != 0) {
        *file = (struct file){0};
        memcpy(file->mark, certificate->mark, sizeof file->mark);
    }
    if (ocsp_settings_of(files->config, certificate)->source != OCSP_FILE)
        return false;
    if (stat(path, &status) != 0) {
        tell_missing(files, file, certificate, path);
        return false;
    }
    const struct file_mark is = file_mark_of(&status);
    if (file_mark_equal(&is, &file->is))
        return false;
    if (wait && !file_mark_rests(&is))
        return true;
    file->seen = true;
    file->is = is;
    read_file(files, file, certificate, path, metrics);
    return false;
}

/* ---- All of them. */

static const struct certificate *certificate_number(const struct ocsp_files *files, size_t i)
{
    size_t served = certificates_count(files->certificates);
    return i < served ? certificates_at(files->certificates, i)
                      : certificates_held_back(files->certificates, i - served);
}

static bool make_room(struct ocsp_files *files, size_t count)
{
    if (count <= files->count)
        return true;
    struct file *more = realloc(files->files, count * sizeof *more);
    if (more == NULL)
        return false;
    memset(more + files->count, 0, (count - files->count) * sizeof *more);
    files->files = more;
    files->count = count;
    return true;
}

static bool look(struct ocsp_files *files, bool wait, struct metrics_row *metrics)
{
    const struct certificate *certificate;
    bool again = false;
    if (!ocsp_settings_use(files->config, OCSP_FILE))
        return false;
    for (size_t i = 0; (certificate = certificate_number(files, i)) != NULL; i++)
        if (make_room(files, i + 1) && look_at(files, &files->files[i], certificate, wait, metrics))
            again = true;
    return again;
}

void ocsp_files_begin(struct ocsp_files *files)
{
    (void)look(files, false, NULL);
}

bool ocsp_files_look(struct ocsp_files *files, struct metrics_row *metrics)
{
    return look(files, true, metrics);
}

/* Where there is a helper that fetches it is the helper's to do. */
static void forget(struct ocsp_files *files, time_t now)
{
    if (now - files->forgotten < FORGETTING || ocsp_settings_use(files->config, OCSP_FETCH))
        return;
    files->forgotten = now;
    staples_forget(files->staples, now);
}

void ocsp_files_tick(struct ocsp_files *files)
{
    const time_t now = time(NULL);
    const struct certificate *certificate;
    if (now == files->told)
        return;
    files->told = now;
    forget(files, now);
    for (size_t i = 0; i < files->count && (certificate = certificate_number(files, i)) != NULL; i++) {
        struct file *file = &files->files[i];
        bool same = memcmp(file->mark, certificate->mark, sizeof file->mark) == 0;
        if (!same || file->next_update == 0 || file->next_update > now)
            continue;
        file->next_update = 0;
        log_error(files->log, "OCSP response has ended", log_text("file", certificate->path),
                  log_reason("the file beside it was not renewed in time"));
    }
}
