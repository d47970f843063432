#include "proxy/config_settle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/config_rows.h"
#include "proxy/config.h"
#include "proxy/config_client_auth.h"
#include "proxy/config_ocsp.h"
#include "proxy/config_sites.h"
#include "proxy/config_tls.h"
#include "proxy/tls_policy.h"

/* ---- key_servers */

static bool is_service_label(const char *label)
{
    return label[0] == '_' && strcspn(label, ".") > 1;
}

/* "_service._protocol.name" (RFC 2782). */
enum result proxy_config_check_srv(const struct config_row *row, const void *value, struct failure *why)
{
    char *name = *(char *const *)value;
    const char *second = strchr(name, '.'), *third = second != NULL ? strchr(second + 1, '.') : NULL;
    struct failure ignored;
    (void)row;
    if (third != NULL && third[1] != '\0' && is_service_label(name) && is_service_label(second + 1) &&
        strstr(name, "..") == NULL && proxy_config_check_name(NULL, &name, &ignored) == RESULT_OK)
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG, "got \"%.253s\", expected a name such as _keyless._tcp.example",
                       name);
}

static enum result settle_server_name(const struct config_scope *scope, struct proxy_key_server *server,
                                      struct failure *why)
{
    if (server->server_name == NULL && server->srv != NULL)
        return config_refuse(scope, why, "server_name",
                             "expected the name in the key server's certificate, for which no SRV record's "
                             "word is taken");
    if (server->server_name == NULL && server->at.host == NULL)
        return config_refuse(
            scope, why, "server_name",
            "expected the name in the key server's certificate, as its address is no host name");
    if (server->server_name == NULL)
        server->server_name = strdup(server->at.host);
    return server->server_name != NULL ? RESULT_OK : failure_set(why, RESULT_SYSTEM, "out of memory");
}

enum result proxy_config_settle_key_server(const struct config_scope *scope, void *object,
                                           struct failure *why)
{
    struct proxy_key_server *server = object;
    const char *address = config_given_text(scope, "address");
    if (address == NULL && server->srv == NULL)
        return config_refuse(scope, why, "address", "expected either address or srv");
    if (address != NULL && server->srv != NULL)
        return config_refuse(scope, why, "srv", "expected either address or srv, not both");
    if (server->name == NULL)
        server->name = strdup(address != NULL ? address : server->srv);
    if (server->name == NULL)
        return failure_set(why, RESULT_SYSTEM, "out of memory");
    return settle_server_name(scope, server, why);
}

/* ---- The whole file. */

static const struct address *listen_address(const void *object, size_t i)
{
    return &((const struct proxy_config *)object)->listen[i].address;
}

/* "web, api": the backends that there are. */
static void backend_names(const struct proxy_config *config, char *names, size_t size)
{
    size_t used = 0;
    names[0] = '\0';
    for (size_t i = 0; i < config->backend_count && used < size; i++)
        used +=
            (size_t)snprintf(names + used, size - used, "%s%s", i > 0 ? ", " : "", config->backends[i].name);
}

enum result proxy_config_check_backend(const struct config_scope *scope, const struct proxy_config *config,
                                       const char *path, const char *name, struct failure *why)
{
    char names[256];
    if (name != NULL && proxy_config_backend(config, name) != NULL)
        return RESULT_OK;
    backend_names(config, names, sizeof names);
    return config_refuse(scope, why, path, "expected one of the backends: %s", names);
}

static enum result settle_backend(const struct config_scope *scope, struct proxy_config *config, size_t i,
                                  struct failure *why)
{
    struct proxy_listen *listen = &config->listen[i];
    char path[64];
    (void)snprintf(path, sizeof path, "listen[%zu].backend", i);
    if (listen->redirect_port != 0)
        return listen->backend == NULL
                   ? RESULT_OK
                   : config_refuse(scope, why, path, "expected none beside redirect_to_https");
    if (listen->backend == NULL && config->backend_count == 1) {
        listen->backend = strdup(config->backends[0].name);
        return listen->backend != NULL ? RESULT_OK : failure_set(why, RESULT_SYSTEM, "out of memory");
    }
    return proxy_config_check_backend(scope, config, path, listen->backend, why);
}

static bool settle_text(char **text, const char *fallback)
{
    if (*text == NULL)
        *text = strdup(fallback);
    return *text != NULL;
}

static enum result settle_policy(struct proxy_config *config, struct failure *why)
{
    struct tls_policy policy = tls_policy_named(config->tls.policy);
    if (config->tls.min_version == 0)
        config->tls.min_version = policy.min_version;
    if (settle_text(&config->tls.groups, policy.groups) &&
        settle_text(&config->tls.ciphersuites, policy.ciphersuites) &&
        settle_text(&config->tls.ciphers, policy.ciphers) &&
        settle_text(&config->tls.schemes, policy.schemes))
        return RESULT_OK;
    return failure_set(why, RESULT_SYSTEM, "out of memory");
}

/* Key servers that sign digests take 1,024 requests of a connection, ours and the pings among them. */
#define IN_FLIGHT_BARE_MAX 1000

static enum result check_key_server(const struct config_scope *scope, const struct proxy_config *config,
                                    size_t i, struct failure *why)
{
    const struct proxy_key_server *server = &config->key_servers[i];
    char path[64];
    (void)snprintf(path, sizeof path, "key_servers[%zu].name", i);
    for (size_t k = 0; k < i; k++)
        if (strcmp(config->key_servers[k].name, server->name) == 0)
            return config_refuse(scope, why, path, "expected a name of its own: key_servers[%zu] has it, too",
                                 k);
    if (server->mode == KEY_MODE_DIGEST && config->key_channel.in_flight > IN_FLIGHT_BARE_MAX)
        return config_refuse(scope, why, "key_channel.in_flight",
                             "expected at most %d with a key server of mode digest", IN_FLIGHT_BARE_MAX);
    return RESULT_OK;
}

static enum result check_key_servers(const struct config_scope *scope, const struct proxy_config *config,
                                     struct failure *why)
{
    enum result result = RESULT_OK;
    for (size_t i = 0; result == RESULT_OK && i < config->key_server_count; i++)
        result = check_key_server(scope, config, i, why);
    return result;
}

static bool all_bare(const struct proxy_config *config)
{
    for (size_t i = 0; i < config->key_server_count; i++)
        if (config->key_servers[i].mode != KEY_MODE_DIGEST)
            return false;
    return true;
}

static enum result check_ticket_times(const struct config_scope *scope, const struct proxy_config *config,
                                      struct failure *why)
{
    const uint64_t rotate = config->tickets.rotate, lifetime = config->tickets.lifetime;
    enum result result = config_check_seconds(scope, "tickets.rotate", rotate, why);
    if (result == RESULT_OK)
        result = config_check_seconds(scope, "tickets.lifetime", lifetime, why);
    if (result == RESULT_OK)
        result = config_check_seconds(scope, "tickets.max_age", config->tickets.max_age, why);
    if (result != RESULT_OK || config->tickets.source != TICKETS_LOCAL)
        return result;
    return config_check_ticket_count(scope, "tickets", rotate, lifetime, why);
}

static enum result check_tickets(const struct config_scope *scope, const struct proxy_config *config,
                                 struct failure *why)
{
    const bool from_files = config->tickets.source == TICKETS_FILE;
    if (from_files && config->tickets.file_count == 0)
        return config_refuse(scope, why, "tickets.files", "expected at least one for source: file");
    if (!from_files && config->tickets.file_count > 0)
        return config_refuse(scope, why, "tickets.files", "expected source: file for them");
    if (config->tickets.source == TICKETS_KEYSERVER && all_bare(config))
        return config_refuse(scope, why, "tickets.source",
                             "expected another source: a key server of mode digest has no ticket keys");
    return check_ticket_times(scope, config, why);
}

/* Defaults yield to a shorter timeout. */
static enum result settle_key_times(const struct config_scope *scope, struct proxy_config *config,
                                    struct failure *why)
{
    const uint64_t most = config->key_channel.timeout;
    if (!config_settle_most(scope, "key_channel.attempt_timeout", &config->key_channel.attempt_timeout, most))
        return config_refuse(scope, why, "key_channel.attempt_timeout",
                             "expected at most key_channel.timeout");
    if (!config_settle_most(scope, "key_channel.fail_fast", &config->key_channel.fail_fast, most))
        return config_refuse(scope, why, "key_channel.fail_fast", "expected at most key_channel.timeout");
    return RESULT_OK;
}

static enum result settle_limits(const struct config_scope *scope, struct proxy_config *config,
                                 struct failure *why)
{
    uint64_t handshakes = config->limits.handshakes;
    if (!config_settle_most(scope, "limits.handshakes", &handshakes, config->limits.connections))
        return config_refuse(scope, why, "limits.handshakes",
                             "expected at most limits.connections, which is %u", config->limits.connections);
    config->limits.handshakes = (unsigned)handshakes;
    if (!config_settle_most(scope, "key_channel.timeout", &config->key_channel.timeout,
                            config->limits.handshake_timeout))
        return config_refuse(scope, why, "key_channel.timeout",
                             "expected at most limits.handshake_timeout, which is %llums",
                             (unsigned long long)(config->limits.handshake_timeout / CONFIG_MILLISECOND));
    return settle_key_times(scope, config, why);
}

enum result proxy_config_settle(const struct config_scope *scope, void *object, struct failure *why)
{
    struct proxy_config *config = object;
    enum result result = config_settle_workers(scope, &config->workers, config->limits.connections, why);
    if (result == RESULT_OK)
        result = settle_policy(config, why);
    if (result == RESULT_OK)
        result = config_check_listen(scope, ".address", listen_address, config, config->listen_count,
                                     &config->admin_listen, why);
    for (size_t i = 0; result == RESULT_OK && i < config->listen_count; i++)
        result = settle_backend(scope, config, i, why);
    if (!config_given(scope, "log.access.format"))
        config->access.format = config->log.format;
    if (result == RESULT_OK)
        result = check_key_servers(scope, config, why);
    if (result == RESULT_OK)
        result = check_tickets(scope, config, why);
    if (result == RESULT_OK)
        result = proxy_config_check_client_auth(scope, "tls.", &config->tls.client_auth, why);
    if (result == RESULT_OK)
        result = proxy_config_check_ocsp(scope, "tls.", &config->tls.ocsp, why);
    if (result == RESULT_OK)
        result = settle_limits(scope, config, why);
    return result == RESULT_OK ? proxy_config_settle_sites(scope, config, why) : result;
}
