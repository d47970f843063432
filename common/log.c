#include "common/log.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/log_rate.h"
#include "common/log_sink.h"
#include "common/text.h"

#define LINE_MAX_SIZE 4096 /* PIPE_BUF: a pipe takes it whole or not at all */
#define LINE_TAIL     16   /* kept free for what ends a line */
#define VALUE_MAX     640  /* octets of a value as written, before it is cut */
#define NAME_SIZE     48

struct log {
    pthread_mutex_t lock; /* everything below but level */
    atomic_int level;
    struct log_settings settings;
    char program[NAME_SIZE];
    char process[NAME_SIZE]; /* "worker/3", or empty */
    unsigned generation;     /* of the process */
    struct log_sink sink;
    struct log_rate rates;
};

/* ---- A line under construction */

struct line {
    enum log_format format;
    bool cut; /* a field was left out */
    struct writer to;
    uint8_t data[LINE_MAX_SIZE];
};

static void put(struct line *line, const char *text)
{
    write_bytes(&line->to, bytes_of(text, strlen(text)));
}

static void put_key(struct line *line, const char *key)
{
    if (line->format == LOG_FORMAT_JSON) {
        put(line, line->to.size == 0 ? "{\"" : ",\"");
        put(line, key);
        put(line, "\":");
    } else {
        put(line, line->to.size == 0 ? "" : " ");
        put(line, key);
        put(line, "=");
    }
}

/* The backslash is doubled since both formats' quoted strings halve it again. */
static void put_escaped_octet(struct line *line, uint8_t octet)
{
    char text[8];
    (void)snprintf(text, sizeof text, "\\\\x%02x", octet);
    put(line, text);
}

static void put_cut_mark(struct line *line, size_t left)
{
    char text[32];
    (void)snprintf(text, sizeof text, "...(+%zu)", left);
    put(line, text);
}

static void put_quoted(struct line *line, struct bytes text)
{
    size_t start = line->to.size;
    put(line, "\"");
    while (text.size > 0 && !line->to.overflow) {
        if (line->to.size - start > VALUE_MAX) {
            put_cut_mark(line, text.size);
            break;
        }
        size_t size = text_harmless_size(text);
        if (size == 0)
            put_escaped_octet(line, text.data[0]);
        else if (text.data[0] == '"')
            put(line, "\\\"");
        else
            write_bytes(&line->to, bytes_of(text.data, size));
        text = bytes_of(text.data + (size > 0 ? size : 1), text.size - (size > 0 ? size : 1));
    }
    put(line, "\"");
}

/* logfmt leaves the quotes out where nothing needs them. */
static bool text_is_bare(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t octet = text.data[i];
        if (octet <= ' ' || octet >= 0x7f || octet == '"' || octet == '=' || octet == '\\')
            return false;
    }
    return text.size > 0 && text.size <= VALUE_MAX;
}

static void put_text(struct line *line, struct bytes text)
{
    if (line->format == LOG_FORMAT_LOGFMT && text_is_bare(text))
        write_bytes(&line->to, text);
    else
        put_quoted(line, text);
}

static void put_string(struct line *line, const char *key, const char *text)
{
    put_key(line, key);
    put_text(line, bytes_of(text, strlen(text)));
}

static void put_hex(struct line *line, struct bytes octets)
{
    char text[VALUE_MAX + 32];
    size_t used = 0;
    size_t shown = octets.size < VALUE_MAX / 2 ? octets.size : VALUE_MAX / 2;
    for (size_t i = 0; i < shown; i++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%02x", octets.data[i]);
    if (shown < octets.size)
        used += (size_t)snprintf(text + used, sizeof text - used, "...(+%zu)", octets.size - shown);
    bool quotes = line->format == LOG_FORMAT_JSON || octets.size == 0;
    put(line, quotes ? "\"" : "");
    write_bytes(&line->to, bytes_of(text, used));
    put(line, quotes ? "\"" : "");
}

static void put_number(struct line *line, int64_t number)
{
    char text[32];
    (void)snprintf(text, sizeof text, "%" PRId64, number);
    put(line, text);
}

static void put_address(struct line *line, const struct address *address)
{
    char text[ADDRESS_TEXT_SIZE];
    (void)address_format(address, text);
    put_text(line, bytes_of(text, strlen(text)));
}

static bool field_is_absent(const struct log_field *field)
{
    return (field->type == LOG_FIELD_TEXT && field->bytes.data == NULL) ||
           (field->type == LOG_FIELD_ADDRESS && field->address == NULL);
}

static void put_value(struct line *line, const struct log_field *field)
{
    switch (field->type) {
    case LOG_FIELD_TEXT:
    case LOG_FIELD_BYTES:
        put_text(line, field->bytes);
        break;
    case LOG_FIELD_HEX:
        put_hex(line, field->bytes);
        break;
    case LOG_FIELD_NUMBER:
        put_number(line, field->number);
        break;
    case LOG_FIELD_ADDRESS:
        put_address(line, field->address);
        break;
    case LOG_FIELD_BOOL:
        put(line, field->number != 0 ? "true" : "false");
        break;
    case LOG_FIELD_END:
        break;
    }
}

/* The whole field, or, if the line has no room for it, nothing of it. */
static void put_field(struct line *line, const struct log_field *field)
{
    size_t before = line->to.size;
    if (field_is_absent(field))
        return;
    put_key(line, field->key);
    put_value(line, field);
    if (line->to.overflow) {
        line->to.overflow = false;
        line->to.size = before;
        line->cut = true;
    }
}

static void put_time(struct line *line)
{
    struct timespec now = {0};
    struct tm utc = {0};
    char text[80];
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    (void)snprintf(text, sizeof text, "%04d-%02d-%02dT%02d:%02d:%02d.%03ldZ", utc.tm_year + 1900,
                   utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, now.tv_nsec / 1000000);
    put_string(line, "time", text);
}

static void line_begin(struct line *line, const struct log *log, enum log_level level, const char *event)
{
    static const char *const LEVELS[] = {"error", "warn", "info", "debug"};
    line->format = log->settings.format;
    line->cut = false;
    line->to = writer_of(line->data, sizeof line->data - LINE_TAIL);
    put_time(line);
    put_string(line, "level", LEVELS[level]);
    put_string(line, "program", log->program);
    if (log->process[0] != '\0') {
        put_string(line, "process", log->process);
        put_key(line, "generation");
        put_number(line, log->generation);
    }
    put_string(line, "event", event);
}

static struct bytes line_end(struct line *line)
{
    line->to.capacity = sizeof line->data;
    if (line->cut) {
        put_key(line, "cut");
        put(line, "true");
    }
    put(line, line->format == LOG_FORMAT_JSON ? "}\n" : "\n");
    return writer_bytes(&line->to);
}

/* ---- The log */

struct log *log_new(const char *program, int fd, const struct log_settings *settings)
{
    struct log *log = calloc(1, sizeof *log);
    if (log == NULL)
        return NULL;
    if (pthread_mutex_init(&log->lock, NULL) != 0) {
        free(log);
        return NULL;
    }
    (void)snprintf(log->program, sizeof log->program, "%s", program);
    log_sink_init(&log->sink, fd);
    log_rate_clear(&log->rates, 0);
    log_set_settings(log, settings);
    return log;
}

struct log *log_new_beside(struct log *log, int fd, const struct log_settings *settings)
{
    struct log *made = log_new(log->program, fd, settings);
    if (made == NULL)
        return NULL;
    (void)pthread_mutex_lock(&log->lock);
    memcpy(made->process, log->process, sizeof made->process);
    made->generation = log->generation;
    (void)pthread_mutex_unlock(&log->lock);
    return made;
}

static bool write_line(struct log *log, enum log_level level, const char *event,
                       const struct log_field *fields)
{
    struct line line;
    line_begin(&line, log, level, event);
    for (; fields->type != LOG_FIELD_END; fields++)
        put_field(&line, fields);
    return log_sink_write(&log->sink, line_end(&line));
}

/* The lines lost before this one come first, so that the gap shows where it is. */
static bool write_with_losses(struct log *log, enum log_level level, const char *event,
                              const struct log_field *fields)
{
    uint64_t lost = log->sink.lost;
    if (lost > 0 &&
        write_line(log, LOG_LEVEL_WARN, "lines lost", LOG_FIELDS(log_number("count", (int64_t)lost))))
        log->sink.lost = 0;
    else
        log->sink.lost = lost;
    return write_line(log, level, event, fields);
}

static void tell_suppressed(struct log *log, const struct log_rate_slot *slot)
{
    if (slot->suppressed == 0)
        return;
    struct log_field reason = log_bytes("reason", bytes_of(slot->reason, slot->reason_size));
    if (slot->reason_size == 0)
        reason = log_text("reason", NULL);
    (void)write_with_losses(log, (enum log_level)slot->level, "suppressed",
                            LOG_FIELDS(log_text("of", slot->event != NULL ? slot->event : "other lines"),
                                       reason, log_number("count", (int64_t)slot->suppressed)));
}

/* Tells what was suppressed in a second that is over, and begins the present one. */
static void turn_second(struct log *log, bool always)
{
    uint64_t second = clock_now() / 1000000u;
    if (!always && !log_rate_over(&log->rates, second))
        return;
    for (size_t i = 0; i < log->rates.used; i++)
        tell_suppressed(log, &log->rates.slots[i]);
    tell_suppressed(log, &log->rates.slots[LOG_RATE_SLOTS]);
    log_rate_clear(&log->rates, second);
}

void log_free(struct log *log)
{
    if (log == NULL)
        return;
    turn_second(log, true);
    (void)pthread_mutex_destroy(&log->lock);
    free(log);
}

void log_set_process(struct log *log, const char *process, unsigned index, unsigned generation)
{
    if (log == NULL)
        return;
    (void)pthread_mutex_lock(&log->lock);
    (void)snprintf(log->process, sizeof log->process, "%.32s/%u", process, index);
    log->generation = generation;
    log_rate_clear(&log->rates, 0);
    log->sink.lost = 0;
    (void)pthread_mutex_unlock(&log->lock);
}

void log_set_settings(struct log *log, const struct log_settings *settings)
{
    if (log == NULL)
        return;
    (void)pthread_mutex_lock(&log->lock);
    log->settings = *settings;
    atomic_store_explicit(&log->level, (int)settings->level, memory_order_relaxed);
    (void)pthread_mutex_unlock(&log->lock);
}

bool log_enabled(const struct log *log, enum log_level level)
{
    return log != NULL && (int)level <= atomic_load_explicit(&log->level, memory_order_relaxed);
}

void log_flush(struct log *log)
{
    if (log == NULL)
        return;
    (void)pthread_mutex_lock(&log->lock);
    turn_second(log, false);
    (void)pthread_mutex_unlock(&log->lock);
}

static struct bytes reason_of(const struct log_field *fields)
{
    for (; fields->type != LOG_FIELD_END; fields++)
        if (fields->type == LOG_FIELD_TEXT && strcmp(fields->key, "reason") == 0)
            return fields->bytes;
    return bytes_of(NULL, 0);
}

bool log_write(struct log *log, enum log_level level, const char *event, const struct log_field *fields)
{
    bool written = true;
    if (!log_enabled(log, level))
        return true;
    (void)pthread_mutex_lock(&log->lock);
    turn_second(log, false);
    if (log_rate_admit(&log->rates, log->settings.rate, event, reason_of(fields), (int)level))
        written = write_with_losses(log, level, event, fields);
    (void)pthread_mutex_unlock(&log->lock);
    return written;
}

/* ---- Fields */

struct log_field log_text(const char *key, const char *text)
{
    return (struct log_field){
        .type = LOG_FIELD_TEXT, .key = key, .bytes = bytes_of(text, text != NULL ? strlen(text) : 0)};
}

struct log_field log_bytes(const char *key, struct bytes slice)
{
    return (struct log_field){.type = LOG_FIELD_BYTES, .key = key, .bytes = slice};
}

struct log_field log_hex(const char *key, struct bytes slice)
{
    return (struct log_field){.type = LOG_FIELD_HEX, .key = key, .bytes = slice};
}

struct log_field log_number(const char *key, int64_t number)
{
    return (struct log_field){.type = LOG_FIELD_NUMBER, .key = key, .number = number};
}

struct log_field log_bool(const char *key, bool value)
{
    return (struct log_field){.type = LOG_FIELD_BOOL, .key = key, .number = value};
}

struct log_field log_address(const char *key, const struct address *address)
{
    return (struct log_field){.type = LOG_FIELD_ADDRESS, .key = key, .address = address};
}

struct log_field log_reason(const char *reason)
{
    return log_text("reason", reason);
}
