#include "proxy/backend.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/proxy_metrics.h"

struct backend {
    struct backends *backends;
    const struct proxy_backend *config;
    size_t next; /* the server that the next client gets first */
};

struct backends {
    struct builtin_hello *hello;
    struct log *log;
    struct metrics_row *metrics;
    size_t count;
    struct backend list[];
};

struct backends *backends_new(const struct proxy_config *config, struct builtin_hello *hello, struct log *log,
                              struct metrics_row *metrics)
{
    struct backends *backends = calloc(1, sizeof *backends + config->backend_count * sizeof(struct backend));
    if (backends == NULL)
        return NULL;
    backends->hello = hello;
    backends->log = log;
    backends->metrics = metrics;
    backends->count = config->backend_count;
    for (size_t i = 0; i < backends->count; i++)
        backends->list[i] = (struct backend){.backends = backends, .config = &config->backends[i]};
    return backends;
}

void backends_free(struct backends *backends)
{
    free(backends);
}

struct backend *backends_find(struct backends *backends, const char *name)
{
    for (size_t i = 0; i < backends->count; i++)
        if (strcmp(backends->list[i].config->name, name) == 0)
            return &backends->list[i];
    return NULL;
}

uint64_t backend_connect_timeout(const struct backend *backend)
{
    return backend->config->connect_timeout;
}

bool backend_only_http11(const struct backend *backend)
{
    return proxy_backend_only_http11(backend->config);
}

/* ---- One client's way through the servers. */

struct backend_attempt backend_attempt_start(struct backend *backend, const struct address *client,
                                             const struct handshake_facts *facts)
{
    size_t first = backend->next;
    backend->next = (first + 1) % backend->config->server_count;
    return (struct backend_attempt){.backend = backend, .client = client, .facts = facts, .first = first};
}

struct log_field backend_name_field(const struct backend_attempt *attempt)
{
    return log_text("backend", attempt->server != NULL ? attempt->backend->config->name : NULL);
}

struct log_field backend_server_field(const struct backend_attempt *attempt)
{
    const struct proxy_backend_server *server = attempt->server;
    if (server != NULL && server->builtin_hello)
        return log_text("server", "builtin:hello");
    return log_address("server", server != NULL ? &server->address : NULL);
}

static void attempt_failed(const struct backend_attempt *attempt, const char *reason)
{
    const struct backends *backends = attempt->backend->backends;
    metric_add(backends->metrics, PROXY_BACKEND_FAILED, 1);
    log_warn(backends->log, "backend connect failed", backend_name_field(attempt),
             backend_server_field(attempt), log_reason(reason));
}

static enum result attempt_connect(const struct backend_attempt *attempt, int *fd, struct failure *why)
{
    if (attempt->server->builtin_hello)
        return builtin_hello_connect(attempt->backend->backends->hello, attempt->facts, attempt->client, fd,
                                     why);
    return socket_connect(&attempt->server->address, fd, why);
}

enum result backend_next(struct backend_attempt *attempt, int *fd)
{
    const struct proxy_backend *config = attempt->backend->config;
    while (attempt->tried < config->server_count) {
        struct failure why;
        attempt->server = &config->servers[(attempt->first + attempt->tried++) % config->server_count];
        attempt->began = clock_now();
        if (attempt_connect(attempt, fd, &why) == RESULT_OK)
            return RESULT_OK;
        attempt_failed(attempt, why.text);
    }
    log_error(attempt->backend->backends->log, "no backend server", log_address("client", attempt->client),
              log_text("backend", config->name), log_number("tried", (int64_t)attempt->tried));
    return RESULT_PEER;
}

bool backend_connected(const struct backend_attempt *attempt, int fd)
{
    int error = socket_error(fd);
    if (error == 0) {
        struct metrics_row *metrics = attempt->backend->backends->metrics;
        metric_add(metrics, PROXY_BACKEND_CONNECTED, 1);
        metric_observe(metrics, PROXY_BACKEND_SECONDS, clock_now() - attempt->began);
        return true;
    }
    attempt_failed(attempt, strerror(error));
    return false;
}

void backend_timed_out(const struct backend_attempt *attempt)
{
    attempt_failed(attempt, "timeout");
}
