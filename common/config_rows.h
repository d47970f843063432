/* Settings that both programs have, for their tables of rows; and what both check in the same way. */
#ifndef KEYLESS_COMMON_CONFIG_ROWS_H
#define KEYLESS_COMMON_CONFIG_ROWS_H

#include "common/config_table.h"
#include "common/log.h"

extern const struct config_word CONFIG_WORKERS_WORDS[];
extern const struct config_word CONFIG_LOG_LEVEL_WORDS[];
extern const struct config_word CONFIG_LOG_FORMAT_WORDS[];

/* NOLINTBEGIN(bugprone-macro-parentheses): types and members cannot stand in parentheses. */

#define CONFIG_WORKERS_ROW(type_, member, text)                                                              \
    {                                                                                                        \
        .path = "workers", .type = &CONFIG_COUNT, CONFIG_AT(type_, member), .min = 1, .max = 1024,           \
        .words = CONFIG_WORKERS_WORDS, .fallback = "auto", .unit = "processes", .help = (text),              \
    }

#define CONFIG_USER_ROW(type_, member)                                                                       \
    {                                                                                                        \
        .path = "user", .type = &CONFIG_TEXT, CONFIG_AT(type_, member), .max = 32,                           \
        .expected = "a user's name",                                                                         \
        .help = "The user to become when started as root, once everything is open that only root can open. " \
                "Without it: nobody.",                                                                       \
    }

#define CONFIG_SANDBOX_ROW(type_, member)                                                                    \
    {                                                                                                        \
        .path = "sandbox", .type = &CONFIG_BOOL, CONFIG_AT(type_, member), .fallback = "on",                 \
        .help =                                                                                              \
            "Confine each process, before it handles anything from outside, to the system calls that it "    \
            "needs and to no files: by seccomp and Landlock, as far as the kernel has them. off: for "       \
            "debuggers and profilers.",                                                                      \
    }

#define CONFIG_ADMIN_ROW(type_, member)                                                                      \
    {                                                                                                        \
        .path = "admin.listen", .type = &CONFIG_ADDRESS, CONFIG_AT(type_, member),                           \
        .help = "Where /metrics, /healthz, /readyz and /status are served over HTTP. Without it: nowhere. "  \
                "Not for the public: it tells much, to whoever can connect.",                                \
    }

#define CONFIG_LOG_ROWS(type_, member)                                                                       \
    {                                                                                                        \
        .path = "log.level",                                                                                 \
        .type = &CONFIG_CHOICE,                                                                              \
        CONFIG_AT(type_, member.level),                                                                      \
        .words = CONFIG_LOG_LEVEL_WORDS,                                                                     \
        .fallback = "info",                                                                                  \
        .help = "The least important lines that are written to standard error.",                             \
    },                                                                                                       \
        {                                                                                                    \
            .path = "log.format",                                                                            \
            .type = &CONFIG_CHOICE,                                                                          \
            CONFIG_AT(type_, member.format),                                                                 \
            .words = CONFIG_LOG_FORMAT_WORDS,                                                                \
            .fallback = "logfmt",                                                                            \
            .help = "key=value pairs, or one JSON object a line.",                                           \
        },                                                                                                   \
    {                                                                                                        \
        .path = "log.rate", .type = &CONFIG_COUNT, CONFIG_AT(type_, member.rate), .max = 1000000,            \
        .fallback = "100", .unit = "lines a second",                                                         \
        .help = "For one event and reason; past it, one line tells how many were left out. 0: no limit.",    \
    }

/* NOLINTEND(bugprone-macro-parentheses) */

/*
 * Puts the number of cores in place of "auto" (0), at most `connections`: a worker needs at least one.
 * RESULT_CONFIG: more workers were asked for than there may be connections.
 */
MUST_CHECK enum result config_settle_workers(const struct config_scope *scope, unsigned *workers,
                                             unsigned connections, struct failure *why);

/*
 * For a pair of settings of which one must not exceed the other: a default yields to what was set. false: the
 * smaller one was given, and is too large.
 */
MUST_CHECK bool config_settle_most(const struct config_scope *scope, const char *path, uint64_t *value,
                                   uint64_t most);

/* RESULT_CONFIG: the user to become is not there, or is root. file: the configuration's name. */
MUST_CHECK enum result config_check_user(const char *file, const char *user, struct failure *why);

/* RESULT_CONFIG: one of the addresses in rows "listen[i]" + suffix is there twice, or is also the admin
 * endpoint's (of size 0: there is none). */
MUST_CHECK enum result config_check_listen(const struct config_scope *scope, const char *suffix,
                                           const struct address *(*at)(const void *object, size_t i),
                                           const void *object, size_t count, const struct address *admin,
                                           struct failure *why);

/* RESULT_CONFIG: this time, given in `path`, is not in whole seconds. */
MUST_CHECK enum result config_check_seconds(const struct config_scope *scope, const char *path, uint64_t time,
                                            struct failure *why);

/*
 * RESULT_CONFIG: with these times more derived ticket keys than an answer of 0x66 has places for would open
 * tickets at once. object: in whose rows "rotate" and "lifetime" are.
 */
MUST_CHECK enum result config_check_ticket_count(const struct config_scope *scope, const char *object,
                                                 uint64_t rotate, uint64_t lifetime, struct failure *why);

#endif
