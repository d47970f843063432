/*
 * Structured log lines: time, level, event, then fields, as logfmt or JSON, one write(2) a line to standard
 * error. Text from outside is escaped here, not by the callers:
 *
 *     time=2026-03-01T12:00:00.123Z level=info program=proxy process=worker/3 generation=2 event=started ...
 *
 * In both formats a value is first made harmless (text.h), then quoted. A value of more than 640 octets is
 * cut and ends in "...(+N)", N the octets left out. A line has at most 4096 octets; fields that do not fit
 * are left out, and the line then says cut=true.
 *
 * More than `rate` lines a second for one event and reason are counted, not written; one line then tells the
 * number (event=suppressed). Distinct reasons past a bound share one count, so that a peer who chooses the
 * reason's text cannot flood the log. Writing never waits: when a pipe's or socket's reader is behind, lines
 * are lost, and the next one that gets through is preceded by their number (event="lines lost").
 *
 * A log may be used from several threads. A program may have several, also to the same place: as a line is
 * one write, lines of one do not get into those of another.
 */
#ifndef KEYLESS_COMMON_LOG_H
#define KEYLESS_COMMON_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"
#include "common/bytes.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_FORMAT_LOGFMT, LOG_FORMAT_JSON };

struct log_settings {
    enum log_level level;
    enum log_format format;
    unsigned rate; /* lines a second for one event and reason; 0: no limit */
};

struct log;

/* A log for this process that writes to fd (not owned). program is "proxy" or "keyserver". NULL: no memory.
 */
struct log *log_new(const char *program, int fd, const struct log_settings *settings);
/* Another one of the same process, that names itself in its lines as this one does now: for lines that have a
 * place, a format or a level of their own. NULL: no memory. */
struct log *log_new_beside(struct log *log, int fd, const struct log_settings *settings);
/* Writes the numbers suppressed that were not yet told. NULL is allowed. */
void log_free(struct log *log);

/* After a fork: names the process in each line ("worker", 3, of generation 2: during a reload there are two
 * worker/3) and forgets the rates counted so far. */
void log_set_process(struct log *log, const char *process, unsigned index, unsigned generation);
void log_set_settings(struct log *log, const struct log_settings *settings);
bool log_enabled(const struct log *log, enum log_level level);
/* Tells the numbers suppressed in past seconds. log_write does so too: this is for a timer, once a second or
 * so, so that the last number does not wait for the next line. */
void log_flush(struct log *log);

/* One key and value. The constructors below borrow; the value is formatted before log_write returns. */
struct log_field {
    enum {
        LOG_FIELD_END,
        LOG_FIELD_TEXT,
        LOG_FIELD_BYTES,
        LOG_FIELD_HEX,
        LOG_FIELD_NUMBER,
        LOG_FIELD_ADDRESS,
        LOG_FIELD_BOOL
    } type;
    const char *key;
    struct bytes bytes;            /* TEXT, BYTES, HEX */
    int64_t number;                /* NUMBER, BOOL */
    const struct address *address; /* ADDRESS */
};

struct log_field log_text(const char *key, const char *text); /* NULL: the field is left out */
struct log_field log_bytes(const char *key, struct bytes slice);
struct log_field log_hex(const char *key, struct bytes slice);
struct log_field log_number(const char *key, int64_t number);
struct log_field log_bool(const char *key, bool value);
struct log_field log_address(const char *key, const struct address *address);
/* The field named "reason", by which lines of one event are also rate-limited. */
struct log_field log_reason(const char *reason);

/* event is a fixed word or phrase in our own source: "handshake failed". log may be NULL: nothing happens.
 * false: the line is lost, its reader being behind. */
bool log_write(struct log *log, enum log_level level, const char *event, const struct log_field *fields);

#define LOG_FIELDS(...)            ((const struct log_field[]){__VA_ARGS__ __VA_OPT__(, ){.type = LOG_FIELD_END}})
#define log_error(log, event, ...) (void)log_write((log), LOG_LEVEL_ERROR, (event), LOG_FIELDS(__VA_ARGS__))
#define log_warn(log, event, ...)  (void)log_write((log), LOG_LEVEL_WARN, (event), LOG_FIELDS(__VA_ARGS__))
#define log_info(log, event, ...)  (void)log_write((log), LOG_LEVEL_INFO, (event), LOG_FIELDS(__VA_ARGS__))
/* Costs nothing but a comparison when debug is off. */
#define log_debug(log, event, ...)                                                                           \
    do {                                                                                                     \
        if (log_enabled((log), LOG_LEVEL_DEBUG))                                                             \
            (void)log_write((log), LOG_LEVEL_DEBUG, (event), LOG_FIELDS(__VA_ARGS__));                       \
    } while (0)

#endif
