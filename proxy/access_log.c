#include "proxy/access_log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/key_id.h"
#include "proxy/proxy_metrics.h"

struct access_log {
    struct log *log; /* of its own: no level and no rate hold its lines back */
    struct metrics_row *metrics;
};

struct access_log *access_log_new(int fd, enum log_format format, struct log *log,
                                  struct metrics_row *metrics)
{
    const struct log_settings settings = {.level = LOG_LEVEL_INFO, .format = format};
    struct access_log *access = calloc(1, sizeof *access);
    if (access == NULL)
        return NULL;
    access->metrics = metrics;
    access->log = log_new_beside(log, fd, &settings);
    if (access->log != NULL)
        return access;
    free(access);
    return NULL;
}

enum result access_log_open(const struct proxy_config *config, struct log *log, struct metrics_row *metrics,
                            struct access_log **access, struct failure *why)
{
    static const int DESCRIPTORS[] = {[ACCESS_STDOUT] = STDOUT_FILENO, [ACCESS_STDERR] = STDERR_FILENO};
    *access = NULL;
    if (config->access.to == ACCESS_OFF)
        return RESULT_OK;
    *access = access_log_new(DESCRIPTORS[config->access.to], config->access.format, log, metrics);
    return *access != NULL ? RESULT_OK : failure_set(why, RESULT_SYSTEM, "no memory for the access log");
}

void access_log_free(struct access_log *access)
{
    if (access != NULL)
        log_free(access->log);
    free(access);
}

static void write_line(struct access_log *access, const struct log_field *fields)
{
    if (!log_write(access->log, LOG_LEVEL_INFO, "access", fields))
        metric_add(access->metrics, PROXY_ACCESS_LINES_LOST, 1);
}

/* ---- What is kept of a handshake. */

struct access_handshake {
    const char *version, *suite, *group, *scheme, *key_server;
    struct client_identity *client; /* NULL: it has shown no certificate */
    uint64_t duration, key_duration;
    enum key_type key_type;
    bool resumed;
    char request[KSSL_REQUEST_ID_MAX + 1];
    uint8_t sni_size, alpn_size;
    uint8_t names[]; /* the SNI, then the application protocol */
};

_Static_assert(HANDSHAKE_NAME_MAX <= UINT8_MAX, "sizes of names fit");

static void keep_names(struct access_handshake *kept, const struct handshake_facts *facts)
{
    kept->sni_size = (uint8_t)facts->sni_size;
    kept->alpn_size = (uint8_t)facts->alpn_size;
    memcpy(kept->names, facts->sni, facts->sni_size);
    memcpy(kept->names + facts->sni_size, facts->alpn, facts->alpn_size);
}

struct access_handshake *access_handshake_new(const struct handshake_facts *facts, const char *request)
{
    struct access_handshake *kept = malloc(sizeof *kept + facts->sni_size + facts->alpn_size);
    if (kept == NULL)
        return NULL;
    *kept = (struct access_handshake){.version = facts->version,
                                      .suite = facts->suite,
                                      .group = facts->group,
                                      .scheme = facts->scheme,
                                      .key_server = facts->key_server,
                                      .client = client_identity_copy(facts->client),
                                      .duration = facts->duration,
                                      .key_duration = facts->key_duration,
                                      .key_type = facts->key_type,
                                      .resumed = facts->resumed};
    (void)snprintf(kept->request, sizeof kept->request, "%s", request != NULL ? request : "");
    keep_names(kept, facts);
    return kept;
}

void access_handshake_free(struct access_handshake *handshake)
{
    if (handshake != NULL)
        free(handshake->client);
    free(handshake);
}

/* ---- Lines. */

/* A field that is left out where it makes no sense. */
static struct log_field number_if(bool there, const char *key, uint64_t number)
{
    return there ? log_number(key, (int64_t)number) : log_text(key, NULL);
}

static struct log_field text_if(bool there, const char *key, const char *text)
{
    return log_text(key, there ? text : NULL);
}

static struct log_field alpn_of(const struct access_handshake *handshake)
{
    if (handshake->alpn_size == 0)
        return log_text("alpn", NULL);
    return log_bytes("alpn", bytes_of(handshake->names + handshake->sni_size, handshake->alpn_size));
}

void access_log_connection(struct access_log *access, const struct access_connection *connection)
{
    static const struct access_handshake NOTHING = {0};
    const struct access_handshake *handshake =
        connection->handshake != NULL ? connection->handshake : &NOTHING;
    const bool asked = handshake->scheme != NULL; /* a key server, for a signature */
    if (access == NULL)
        return;
    write_line(
        access,
        LOG_FIELDS(log_address("client", connection->client), log_address("listener", connection->listener),
                   log_bytes("sni", bytes_of(handshake->names, handshake->sni_size)), alpn_of(handshake),
                   log_text("version", handshake->version), log_text("suite", handshake->suite),
                   log_text("group", handshake->group), log_text("scheme", handshake->scheme),
                   text_if(asked, "key_type", key_type_name(handshake->key_type)),
                   log_bool("resumed", handshake->resumed), CLIENT_IDENTITY_FIELDS(handshake->client),
                   backend_name_field(connection->attempt), backend_server_field(connection->attempt),
                   log_number("from_client", (int64_t)connection->from_client),
                   log_number("to_client", (int64_t)connection->to_client),
                   log_bool("truncated", connection->truncated),
                   log_number("handshake_us", (int64_t)handshake->duration),
                   log_text("key_server", handshake->key_server),
                   number_if(handshake->key_duration > 0, "key_us", handshake->key_duration),
                   text_if(handshake->request[0] != '\0', "request", handshake->request),
                   log_number("us", (int64_t)(clock_now() - connection->started)),
                   log_text("end", connection->end), log_text("stage", connection->stage),
                   log_text("reason", connection->reason)));
}

void access_log_redirect(struct access_log *access, const struct access_redirect *redirect)
{
    if (access == NULL)
        return;
    write_line(access, LOG_FIELDS(log_address("client", redirect->client),
                                  log_address("listener", redirect->listener),
                                  number_if(redirect->status != 0, "status", redirect->status),
                                  log_text("location", redirect->location),
                                  log_number("us", (int64_t)(clock_now() - redirect->started)),
                                  log_text("end", redirect->end)));
}
