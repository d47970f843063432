#include "common/config_rows.h"

#include <stdio.h>

#include "common/process.h"

const struct config_word CONFIG_WORKERS_WORDS[] = {{"auto", 0}, {NULL, 0}};

const struct config_word CONFIG_LOG_LEVEL_WORDS[] = {
    {"error", LOG_LEVEL_ERROR},
    {"warn", LOG_LEVEL_WARN},
    {"info", LOG_LEVEL_INFO},
    {"debug", LOG_LEVEL_DEBUG},
    {NULL, 0},
};

const struct config_word CONFIG_LOG_FORMAT_WORDS[] = {
    {"logfmt", LOG_FORMAT_LOGFMT},
    {"json", LOG_FORMAT_JSON},
    {NULL, 0},
};

enum result config_settle_workers(const struct config_scope *scope, unsigned *workers, unsigned connections,
                                  struct failure *why)
{
    if (*workers == 0) {
        unsigned cores = process_cores();
        *workers = cores < connections ? cores : connections;
    }
    if (*workers <= connections)
        return RESULT_OK;
    return config_refuse(scope, why, "limits.connections", "expected at least one for each of %u workers",
                         *workers);
}

bool config_settle_most(const struct config_scope *scope, const char *path, uint64_t *value, uint64_t most)
{
    if (*value <= most)
        return true;
    *value = most;
    return !config_given(scope, path);
}

enum result config_check_user(const char *file, const char *user, struct failure *why)
{
    const struct config_position where = {.file = file};
    struct failure reason;
    if (process_check_user(user, &reason) == RESULT_OK)
        return RESULT_OK;
    return config_failure(why, &where, "user", "%s", reason.text);
}

enum result config_check_listen(const struct config_scope *scope, const char *suffix,
                                const struct address *(*at)(const void *object, size_t i), const void *object,
                                size_t count, const struct address *admin, struct failure *why)
{
    for (size_t i = 0; i < count; i++)
        if (admin->size > 0 && address_equal(at(object, i), admin))
            return config_refuse(scope, why, "admin.listen",
                                 "expected an address of its own; it is also listen[%zu]", i);
    for (size_t i = 1; i < count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (!address_equal(at(object, i), at(object, j)))
                continue;
            char path[64];
            (void)snprintf(path, sizeof path, "listen[%zu]%s", i, suffix);
            return config_refuse(scope, why, path, "expected each address once; it is also listen[%zu]", j);
        }
    }
    return RESULT_OK;
}

enum result config_check_seconds(const struct config_scope *scope, const char *path, uint64_t time,
                                 struct failure *why)
{
    return time % CONFIG_SECOND == 0 ? RESULT_OK : config_refuse(scope, why, path, "expected whole seconds");
}

/* At most 255 keys fit an answer: the present one, the next one, those that still open tickets. */
#define TICKET_KEYS_MOST 250

enum result config_check_ticket_count(const struct config_scope *scope, const char *object, uint64_t rotate,
                                      uint64_t lifetime, struct failure *why)
{
    char path[64];
    if (lifetime / rotate <= TICKET_KEYS_MOST)
        return RESULT_OK;
    (void)snprintf(path, sizeof path, "%s.lifetime", object);
    return config_refuse(scope, why, path, "expected at most %d times %s.rotate", TICKET_KEYS_MOST, object);
}
