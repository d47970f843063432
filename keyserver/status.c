#include "keyserver/status.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <event2/buffer.h>

#include "common/process_status.h"
#include "keyserver/key_table.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/status_records.h"

/* Past these, /status and /metrics tell numbers only. */
#define CLIENTS_SHOWN  1000
#define CLIENT_METRICS 100
#define PATTERNS_SHOWN 20
#define EXPIRY         "keyless_keyserver_certificate_not_after_timestamp_seconds"
#define CRL_EXPIRY     "keyless_keyserver_crl_next_update_timestamp_seconds"
#define CLIENT_OPEN    "keyless_keyserver_client_connections"

/* ---- What the children tell. */

/* The signer that is ready. False: there is none. */
static bool find_signer(const struct keyserver_status *status, struct signer_status *signer)
{
    const struct keyserver_plan *plan = status->plan;
    return status_area_read(plan->signer_status, 0, signer) &&
           process_status_is_ready(plan->program.processes, "signer", 0, status->generation, signer->pid);
}

/* What all front ends that are ready serve together, by client entry, and before that of all entries: the
 * caller's to free. NULL: no memory. */
static uint64_t *sum_frontends(const struct keyserver_status *status)
{
    const struct keyserver_plan *plan = status->plan;
    size_t clients = plan->config->client_count;
    uint64_t *sums = calloc(clients + 1, sizeof *sums);
    struct frontend_status *frontend = malloc(frontend_status_size(clients));
    for (unsigned i = 0; i < plan->config->workers && sums != NULL && frontend != NULL; i++) {
        if (!status_area_read(plan->frontend_status, i, frontend) ||
            !process_status_is_ready(plan->program.processes, "frontend", i, status->generation,
                                     frontend->pid))
            continue;
        sums[0] += frontend->connections;
        for (size_t client = 0; client < clients; client++)
            sums[1 + client] += frontend->serving[client];
    }
    free(frontend);
    return sums;
}

/* ---- Whether it is ready. */

bool keyserver_status_ready(const struct keyserver_status *status, struct evbuffer *why_not)
{
    const struct status_area *processes = status->plan->program.processes;
    struct signer_status signer;
    if (!find_signer(status, &signer))
        (void)evbuffer_add_printf(why_not, "no signer is ready");
    else if (signer.keys == 0)
        (void)evbuffer_add_printf(why_not, "no key is loaded");
    else if (process_status_count(processes, "frontend", CHILD_READY, status->generation) == 0)
        (void)evbuffer_add_printf(why_not, "no front end is ready");
    else
        return true;
    return false;
}

/* ---- JSON. */

static void write_client(const struct keyserver_client *client, uint64_t connections, struct json *json)
{
    json_begin_object(json, NULL);
    json_text(json, "match", client->match);
    json_number(json, "line", client->where.line);
    json_begin_array(json, "keys");
    for (size_t i = 0; i < client->key_count && i < PATTERNS_SHOWN; i++)
        json_text(json, NULL, client->keys[i]);
    json_end_array(json);
    json_number(json, "key_pattern_count", (int64_t)client->key_count);
    json_begin_array(json, "allow");
    for (unsigned bit = 1; bit != 0; bit <<= 1)
        if ((client->allow & bit) != 0)
            json_text(json, NULL, keyserver_allow_name(bit));
    json_end_array(json);
    json_number(json, "connections", (int64_t)connections);
    json_number(json, "rate", client->rate);
    json_bool(json, "denied", client->deny);
    json_end_object(json);
}

static void write_clients(const struct keyserver_status *status, struct json *json)
{
    const struct keyserver_config *config = status->plan->config;
    uint64_t *sums = sum_frontends(status);
    json_number(json, "connections", sums != NULL ? (int64_t)sums[0] : 0);
    json_number(json, "client_count", (int64_t)config->client_count);
    json_begin_array(json, "clients");
    for (size_t i = 0; i < config->client_count && i < CLIENTS_SHOWN && sums != NULL; i++)
        write_client(&config->clients[i], sums[1 + i], json);
    json_end_array(json);
    free(sums);
}

static void write_key(const struct key_status *key, struct json *json)
{
    const enum key_type type = key->type <= KEY_TYPE_ED448 ? (enum key_type)key->type : KEY_TYPE_NONE;
    json_begin_object(json, NULL);
    json_bytes(json, "label", bytes_of(key->label, strnlen(key->label, sizeof key->label)));
    json_text(json, "type", key_type_name(type));
    json_hex(json, "ski", bytes_of(key->ski, sizeof key->ski));
    json_end_object(json);
}

static void write_keys(const struct keyserver_status *status, struct json *json)
{
    struct signer_status signer = {0};
    struct key_status key;
    bool there = find_signer(status, &signer);
    json_number(json, "key_count", there ? signer.keys : 0);
    json_begin_array(json, "keys");
    for (size_t i = 0; i < STATUS_KEYS_MAX && i < signer.keys && there; i++)
        if (status_area_read(status->plan->key_status, i, &key) && key.pid == signer.pid)
            write_key(&key, json);
    json_end_array(json);
}

static void write_queues(const struct keyserver_plan *plan, struct json *json)
{
    const struct keyserver_config *config = plan->config;
    const unsigned limits[KEY_CLASSES] = {config->queues.ec, config->queues.rsa, config->queues.rsa_large};
    json_number(json, "requests_pending", metrics_sum(plan->program.metrics, KEYSERVER_PENDING));
    json_begin_array(json, "queues");
    for (size_t class = 0; class < KEY_CLASSES; class ++) {
        json_begin_object(json, NULL);
        json_text(json, "class", key_class_name((enum key_class) class));
        json_number(json, "requests", metrics_sum(plan->program.metrics, KEYSERVER_QUEUED + class));
        json_number(json, "limit", limits[class]);
        json_end_object(json);
    }
    json_end_array(json);
}

static void write_limits(const struct keyserver_config *config, struct json *json)
{
    struct rlimit descriptors;
    json_begin_object(json, "limits");
    json_number(json, "workers", config->workers);
    json_number(json, "connections", config->limits.connections);
    json_number(json, "handshakes_per_address", config->limits.per_address);
    json_number(json, "in_flight_per_connection", config->limits.in_flight);
    json_seconds(json, "handshake_timeout_seconds", config->limits.handshake_timeout);
    json_seconds(json, "idle_timeout_seconds", config->limits.idle_timeout);
    json_seconds(json, "queue_deadline_seconds", config->queues.deadline);
    json_seconds(json, "drain_timeout_seconds", config->drain_timeout);
    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0)
        json_number(json, "descriptors_per_process", (int64_t)descriptors.rlim_cur);
    json_end_object(json);
}

void keyserver_status_write(const struct keyserver_status *status, struct json *json)
{
    const struct keyserver_plan *plan = status->plan;
    write_clients(status, json);
    write_keys(status, json);
    write_queues(plan, json);
    json_begin_object(json, "certificate");
    json_text(json, "file", plan->config->tls.certificate);
    json_time(json, "not_after", certificate_not_after(SSL_CTX_get0_certificate(plan->context)));
    json_end_object(json);
    write_limits(plan->config, json);
}

/* ---- Metrics. */

static void client_metrics(const struct keyserver_status *status, struct evbuffer *to)
{
    const struct keyserver_config *config = status->plan->config;
    uint64_t *sums = config->client_count < CLIENT_METRICS ? sum_frontends(status) : NULL;
    if (sums == NULL)
        return;
    metrics_write_head(to, CLIENT_OPEN, METRIC_GAUGE,
                       "Connections open, by client entry; while there are fewer than 100.");
    for (size_t i = 0; i < config->client_count; i++) {
        const struct metric_label client = {KEYSERVER_CLIENT_LABEL, config->clients[i].match};
        metrics_write_line(to, CLIENT_OPEN, &client, 1, (int64_t)sums[1 + i]);
    }
    free(sums);
}

void keyserver_status_metrics(const struct keyserver_status *status, struct evbuffer *to)
{
    const X509 *certificate = SSL_CTX_get0_certificate(status->plan->context);
    metrics_write_head(to, EXPIRY, METRIC_GAUGE,
                       "When the key server's own certificate will end, in Unix seconds.");
    metrics_write_line(to, EXPIRY, NULL, 0, certificate_not_after(certificate));
    metrics_write_head(
        to, CRL_EXPIRY, METRIC_GAUGE,
        "When the first revocation list is out of date, in Unix seconds; 0: never, or there is none.");
    metrics_write_line(to, CRL_EXPIRY, NULL, 0, status->plan->crl_next_update);
    client_metrics(status, to);
}
