#include "keyserver/auditor.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/stat.h>
#include <unistd.h>

#include <arpa/inet.h>

#include <event2/buffer.h>

#include "common/clock.h"
#include "common/json.h"
#include "common/kssl.h"
#include "common/socket.h"
#include "keyserver/audit_record.h"
#include "keyserver/client_rates.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/plan.h"
#include "keyserver/signer_link.h"

#define FILE_MODE 0640

/* Lines that wait for room on the disk. A signer never has more under way than this holds (AUDIT_FEED_MAX).
 */
#define LINES_MAX ((size_t)64 * 1024 * 1024)
/* How long to wait when the file took nothing. */
#define RETRY_MICROSECONDS 200000
/* Octets of one write, and of the longest line. */
#define WRITE_MAX      ((size_t)64 * 1024)
#define AUDIT_LINE_MAX ((size_t)8 * 1024)
/* Records that are told to be written together. */
#define MARK_RECORDS 256

/* A signer. There is more than one only while one is being replaced. */
struct source {
    struct auditor *auditor;
    struct signer_link *link;
    TAILQ_ENTRY(source) entry;
    uint64_t number; /* of its newest record in the lines */
    unsigned index;
};

/* When so many octets of lines are written, the source's records up to this number are. */
struct mark {
    TAILQ_ENTRY(mark) entry;
    struct source *source; /* NULL: gone */
    uint64_t number;
    uint64_t records;
    uint64_t end;
};

struct auditor {
    struct child *child;
    struct log *log;
    struct metrics_row *metrics;
    const struct keyserver_config *config;
    int fd;
    struct evbuffer *lines;
    struct event
        *flush; /* active from the first line of a turn until they are written; or the time to retry */
    TAILQ_HEAD(, source) sources;
    TAILQ_HEAD(mark_list, mark) marks; /* oldest first */
    uint64_t added, written;           /* octets of lines since the start */
    bool draining;
};

/* ---- The end. */

static void end_if_drained(struct auditor *auditor)
{
    if (auditor->draining && TAILQ_EMPTY(&auditor->sources) && evbuffer_get_length(auditor->lines) == 0)
        child_end(auditor->child, 0);
}

/* ---- Writing. */

static void tell_written(const struct mark *mark)
{
    uint8_t octets[16];
    struct writer to = writer_of(octets, sizeof octets);
    if (mark->source == NULL)
        return;
    audit_written_write(&to, mark->number);
    if (!writer_ok(&to) || !signer_link_send(mark->source->link, writer_bytes(&to)))
        log_error(mark->source->auditor->log, "signer not told", log_reason("no memory"));
}

static void pass_marks(struct auditor *auditor)
{
    struct mark *mark;
    while ((mark = TAILQ_FIRST(&auditor->marks)) != NULL && mark->end <= auditor->written) {
        metric_add(auditor->metrics, KEYSERVER_AUDIT_RECORDS, mark->records);
        tell_written(mark);
        TAILQ_REMOVE(&auditor->marks, mark, entry);
        free(mark);
    }
}

static void retry_later(struct auditor *auditor, const char *reason)
{
    const struct timeval delay = clock_timeval(RETRY_MICROSECONDS);
    metric_add(auditor->metrics, KEYSERVER_AUDIT_ERRORS, 1);
    log_error(auditor->log, "audit log not written", log_text("file", auditor->config->audit.file),
              log_number("octets", (int64_t)evbuffer_get_length(auditor->lines)), log_reason(reason));
    (void)event_add(auditor->flush, &delay);
}

/* How much of the lines one call can write and end with a whole one: other auditors append to the file, too,
 * while one replaces the other, and libevent writes no more than some pieces of memory at once. */
static ev_ssize_t whole_lines(const struct auditor *auditor)
{
    struct evbuffer_ptr end, start;
    size_t size = evbuffer_get_length(auditor->lines);
    if (size <= WRITE_MAX)
        return (ev_ssize_t)size;
    (void)evbuffer_ptr_set(auditor->lines, &start, WRITE_MAX - AUDIT_LINE_MAX, EVBUFFER_PTR_SET);
    end = evbuffer_search(auditor->lines, "\n", 1, &start);
    return end.pos >= 0 ? end.pos + 1 : (ev_ssize_t)size;
}

static void write_lines(struct auditor *auditor)
{
    while (evbuffer_get_length(auditor->lines) > 0) {
        ev_ssize_t most = whole_lines(auditor);
        (void)evbuffer_pullup(auditor->lines, most);
        int written = evbuffer_write_atmost(auditor->lines, auditor->fd, most);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0) {
            retry_later(auditor, written < 0 ? strerror(errno) : "nothing was taken");
            return;
        }
        auditor->written += (uint64_t)written;
        pass_marks(auditor);
    }
    end_if_drained(auditor);
}

static void on_flush(evutil_socket_t fd, short events, void *owner)
{
    (void)fd;
    (void)events;
    write_lines(owner);
}

/* ---- A record's line. */

static void add_time(struct json *json, uint64_t microseconds)
{
    char text[64];
    const time_t seconds = (time_t)(microseconds / 1000000);
    struct tm when;
    if (gmtime_r(&seconds, &when) == NULL)
        return;
    size_t size = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &when);
    (void)snprintf(text + size, sizeof text - size, ".%06uZ", (unsigned)(microseconds % 1000000));
    json_text(json, "time", text);
}

static void add_bytes(struct json *json, const char *key, const uint8_t *octets, size_t size)
{
    if (size > 0)
        json_bytes(json, key, bytes_of(octets, size));
}

static void add_hex(struct json *json, const char *key, const uint8_t *octets, size_t size)
{
    if (size > 0)
        json_hex(json, key, bytes_of(octets, size));
}

static bool names_a_key(const struct audit_record *record)
{
    static const uint8_t NONE[KEY_ID_SKI_SIZE];
    return memcmp(record->ski, NONE, sizeof NONE) != 0;
}

static void add_client_ip(struct json *json, const struct audit_record *record)
{
    char text[INET6_ADDRSTRLEN];
    const int family = record->client_ip_size == 4 ? AF_INET : AF_INET6;
    if (record->client_ip_size > 0 && inet_ntop(family, record->client_ip, text, sizeof text) != NULL)
        json_text(json, "client_address", text);
}

/* Who, which key, which name, what, and what became of it. */
static void add_fields(struct json *json, const struct source *source, const struct audit_record *record)
{
    const struct keyserver_config *config = source->auditor->config;
    add_time(json, record->time);
    json_number(json, "number", (int64_t)record->number);
    json_text(json, "client",
              record->entry < config->client_count ? config->clients[record->entry].match : NULL);
    json_text(json, "operation", kssl_opcode_name(record->opcode));
    if (names_a_key(record))
        json_hex(json, "key", bytes_of(record->ski, sizeof record->ski));
    add_bytes(json, "sni", record->sni, record->sni_size);
    if (record->sni_size > 0)
        json_bool(json, "claimed", record->opcode != KSSL_OP_SIGN_TRANSCRIPT);
    add_client_ip(json, record);
    add_bytes(json, "request", record->name, record->name_size);
    add_hex(json, "signed", record->signed_octets, record->signed_size);
    if (record->replay)
        json_bool(json, "replay", true);
    json_text(json, "outcome", audit_outcome_name(record->outcome));
    if (record->error != KSSL_ERROR_NONE)
        json_text(json, "error", kssl_error_name(record->error));
}

/* The newest mark, if it is this source's and not far from its beginning; otherwise a new one. */
static struct mark *mark_for(struct source *source)
{
    struct auditor *auditor = source->auditor;
    struct mark *mark = TAILQ_LAST(&auditor->marks, mark_list);
    if (mark != NULL && mark->source == source && mark->records < MARK_RECORDS)
        return mark;
    mark = calloc(1, sizeof *mark);
    if (mark == NULL)
        return NULL;
    mark->source = source;
    TAILQ_INSERT_TAIL(&auditor->marks, mark, entry);
    return mark;
}

static bool add_line(struct source *source, const struct audit_record *record)
{
    struct auditor *auditor = source->auditor;
    struct mark *mark = mark_for(source);
    const size_t before = evbuffer_get_length(auditor->lines);
    struct json json = json_to(auditor->lines);
    if (mark == NULL)
        return false;
    json_begin_object(&json, NULL);
    add_fields(&json, source, record);
    json_end_object(&json);
    (void)evbuffer_add(auditor->lines, "\n", 1);
    auditor->added += evbuffer_get_length(auditor->lines) - before;
    mark->number = record->number;
    mark->records++;
    mark->end = auditor->added;
    return true;
}

/* ---- Signers. */

/* The master starts another, to which signers tell again what is not written: a link that was cut off would
 * not be made again. */
static void give_up(struct auditor *auditor, const char *reason)
{
    log_error(auditor->log, "auditor begins anew", log_reason(reason));
    child_end(auditor->child, 1);
}

/* Each is told from the first that is not written; the auditor that was there before may have written some.
 */
static bool on_message(uint8_t type, struct bytes body, void *owner)
{
    struct source *source = owner;
    struct audit_record record;
    if (type != AUDIT_RECORD || !audit_record_parse(body, &record) || record.number <= source->number)
        return false;
    if (evbuffer_get_length(source->auditor->lines) > LINES_MAX)
        give_up(source->auditor, "too many lines wait for room on the disk");
    source->number = record.number;
    if (!add_line(source, &record))
        give_up(source->auditor, "no memory for a record");
    if (!event_pending(source->auditor->flush, EV_TIMEOUT, NULL))
        event_active(source->auditor->flush, EV_TIMEOUT, 0);
    return true;
}

static void source_free(struct source *source)
{
    struct mark *mark;
    TAILQ_FOREACH(mark, &source->auditor->marks, entry)
    {
        if (mark->source == source)
            mark->source = NULL;
    }
    TAILQ_REMOVE(&source->auditor->sources, source, entry);
    free(source);
}

static void on_closed(const struct failure *why, void *owner)
{
    struct source *source = owner;
    struct auditor *auditor = source->auditor;
    if (why->kind != RESULT_OK) {
        log_error(auditor->log, "signer cut off", log_number("signer", source->index), log_reason(why->text));
        metric_add(auditor->metrics, KEYSERVER_LINKS_BROKEN, 1);
    }
    source_free(source);
    end_if_drained(auditor);
}

static const struct signer_link_handler LINK_HANDLER = {.message = on_message, .closed = on_closed};

static void on_link(size_t kind, unsigned index, int fd, void *owner)
{
    (void)kind;
    struct auditor *auditor = owner;
    struct source *source = calloc(1, sizeof *source);
    struct signer_link *link = signer_link_new(child_base(auditor->child), fd, 0, &LINK_HANDLER, source);
    if (source == NULL || link == NULL) {
        log_error(auditor->log, "signer cut off", log_number("signer", index), log_reason("no memory"));
        signer_link_close(link);
        free(source);
        return;
    }
    *source = (struct source){.auditor = auditor, .link = link, .index = index};
    TAILQ_INSERT_TAIL(&auditor->sources, source, entry);
}

/* A signer ends when all that it has told is written, and its link with it. */
static void on_drain(enum child_drain why, void *owner)
{
    (void)why;
    struct auditor *auditor = owner;
    auditor->draining = true;
    end_if_drained(auditor);
}

static const struct child_handler CHILD_HANDLER = {.link = on_link, .drain = on_drain};

/* ---- The process. */

const struct sandbox_profile auditor_sandbox = {.rules = NULL};

static enum result cannot(const struct keyserver_config *config, const char *what, struct failure *why)
{
    (void)failure_set_errno(why, "audit.file: %s: cannot %s", config->audit.file, what);
    why->kind = RESULT_CONFIG;
    return RESULT_CONFIG;
}

/* One that an auditor before us could not write whole: what is appended must not be taken for a part of it.
 */
static enum result end_last_line(struct auditor *auditor, off_t size, struct failure *why)
{
    char last = '\n';
    int fd CLEANUP(socket_close) = open(auditor->config->audit.file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0 || (size > 0 && pread(fd, &last, 1, size - 1) != 1))
        return cannot(auditor->config, "be read", why);
    if (last != '\n' && write(auditor->fd, "\n", 1) != 1)
        return cannot(auditor->config, "be appended to", why);
    return RESULT_OK;
}

static enum result open_file(struct auditor *auditor, struct failure *why)
{
    const struct keyserver_config *config = auditor->config;
    struct stat status;
    auditor->fd = open(config->audit.file, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY | O_NONBLOCK,
                       FILE_MODE);
    if (auditor->fd < 0 || fstat(auditor->fd, &status) != 0)
        return cannot(config, "be appended to", why);
    if (!S_ISREG(status.st_mode))
        return failure_set(why, RESULT_CONFIG, "audit.file: %s: not a regular file", config->audit.file);
    return end_last_line(auditor, status.st_size, why);
}

enum result auditor_check(const struct keyserver_config *config, struct failure *why)
{
    char copy[PATH_MAX];
    struct stat status;
    if (config->audit.file == NULL)
        return RESULT_OK;
    if (stat(config->audit.file, &status) == 0) {
        if (!S_ISREG(status.st_mode))
            return failure_set(why, RESULT_CONFIG, "audit.file: %s: not a regular file", config->audit.file);
        return access(config->audit.file, W_OK) == 0 ? RESULT_OK : cannot(config, "be appended to", why);
    }
    (void)snprintf(copy, sizeof copy, "%s", config->audit.file);
    return access(dirname(copy), W_OK) == 0 ? RESULT_OK : cannot(config, "be made", why);
}

static enum result start(struct auditor *auditor, const struct keyserver_plan *plan, struct failure *why)
{
    client_rates_leave(plan->rates, RATES_OF_FRONTENDS);
    client_rates_leave(plan->rates, RATES_OF_SIGNER);
    enum result result = open_file(auditor, why);
    if (result == RESULT_OK)
        result = process_drop_privileges(plan->config->user, why);
    if (result != RESULT_OK)
        return result;
    auditor->lines = evbuffer_new();
    auditor->flush = event_new(child_base(auditor->child), -1, 0, on_flush, auditor);
    return auditor->lines != NULL && auditor->flush != NULL
               ? RESULT_OK
               : failure_set(why, RESULT_LIMIT, "no memory for the auditor");
}

static void stop(struct auditor *auditor)
{
    struct source *source;
    struct mark *mark;
    while ((source = TAILQ_FIRST(&auditor->sources)) != NULL) {
        signer_link_close(source->link);
        source_free(source);
    }
    while ((mark = TAILQ_FIRST(&auditor->marks)) != NULL) {
        TAILQ_REMOVE(&auditor->marks, mark, entry);
        free(mark);
    }
    if (auditor->flush != NULL)
        event_free(auditor->flush);
    if (auditor->lines != NULL && evbuffer_get_length(auditor->lines) > 0)
        log_warn(auditor->log, "audit lines not written",
                 log_number("octets", (int64_t)evbuffer_get_length(auditor->lines)),
                 log_reason("a signer that goes on tells them again"));
    if (auditor->lines != NULL)
        evbuffer_free(auditor->lines);
    socket_close(&auditor->fd);
}

int auditor_run(struct child *child, const void *config)
{
    const struct keyserver_plan *plan = config;
    struct auditor auditor = {.child = child,
                              .log = child_log(child),
                              .metrics = child_metrics(child),
                              .config = plan->config,
                              .fd = -1};
    struct failure why;
    TAILQ_INIT(&auditor.sources);
    TAILQ_INIT(&auditor.marks);
    int status = 1;
    if (start(&auditor, plan, &why) == RESULT_OK) {
        child_start(child, &CHILD_HANDLER, &auditor);
        child_ready(child);
        status = child_loop(child);
    } else {
        child_failed(child, &why);
    }
    stop(&auditor);
    return status;
}
