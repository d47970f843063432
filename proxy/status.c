#include "proxy/status.h"

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <event2/buffer.h>

#include "common/process_status.h"
#include "common/text.h"
#include "proxy/certificate_verdicts.h"
#include "proxy/key_pool.h"
#include "proxy/ocsp_settings.h"
#include "proxy/proxy_metrics.h"
#include "proxy/worker_status.h"

/* Past these, /status and /metrics tell numbers only. */
#define CERTIFICATES_SHOWN  1000
#define CERTIFICATE_METRICS 100
#define NAMES_SHOWN         20
#define EXPIRY              "keyless_certificate_not_after_timestamp_seconds"
#define EARLIEST_EXPIRY     "keyless_certificates_earliest_not_after_timestamp_seconds"
#define CRL_EXPIRY          "keyless_client_crl_next_update_timestamp_seconds"
#define CHANNEL_EXPIRY      "keyless_channel_certificate_not_after_timestamp_seconds"
#define SERVER_CHANNELS_UP  "keyless_key_server_channels_up"
#define STAPLES             "keyless_ocsp_chains"
#define SERVER_TROUBLE      "keyless_key_server_trouble"
#define SERVER_IN_FLIGHT    "keyless_key_server_requests_in_flight"
#define NO_READY_WORKER     "no worker is ready"
#define NO_KEY_SERVER       "no key server is up"

/* ---- What the workers tell. */

/* A key server as all ready workers together see it. */
struct server_sum {
    unsigned channels_up, avoided, half_open, distrusted; /* by so many workers */
    uint64_t in_flight;
    uint64_t latency; /* the sum */
    unsigned latencies;
    int64_t failed; /* the newest */
    char failure[KEY_SERVER_FAILURE_SIZE];
};

struct worker_sum {
    unsigned ready;
    uint64_t connections, pending;
    struct server_sum *servers;
};

static void add_server(struct server_sum *sum, const struct key_server_status *server)
{
    sum->channels_up += server->up != 0;
    sum->avoided += server->breaker == KEY_BREAKER_OPEN;
    sum->half_open += server->breaker == KEY_BREAKER_HALF;
    sum->distrusted += server->lied != 0;
    sum->in_flight += server->in_flight;
    sum->latency += server->latency;
    sum->latencies += server->latency != 0;
    if (server->failed <= sum->failed)
        return;
    sum->failed = server->failed;
    memcpy(sum->failure, server->failure, sizeof sum->failure);
    sum->failure[sizeof sum->failure - 1] = '\0';
}

/* Only what a ready worker says of itself: the record may be of one that has died. */
static void add_worker(const struct proxy_status *status, unsigned index, const struct worker_status *worker,
                       struct worker_sum *sum)
{
    const struct proxy_setup *setup = status->setup;
    if (!process_status_is_ready(setup->program.processes, "worker", index, status->generation, worker->pid))
        return;
    sum->ready++;
    sum->connections += worker->connections;
    sum->pending += worker->pending;
    for (size_t i = 0; i < setup->config->key_server_count; i++)
        add_server(&sum->servers[i], &worker->servers[i]);
}

static void sum_free(struct worker_sum *sum)
{
    free(sum->servers);
}

/* Without memory it is as if no worker were there. */
static struct worker_sum sum_workers(const struct proxy_status *status)
{
    const struct proxy_setup *setup = status->setup;
    size_t servers = setup->config->key_server_count;
    struct worker_sum sum = {.servers = calloc(servers + 1, sizeof(struct server_sum))};
    struct worker_status *worker = malloc(worker_status_size(servers));
    for (unsigned i = 0; i < setup->config->workers && sum.servers != NULL && worker != NULL; i++)
        if (status_area_read(setup->workers, i, worker))
            add_worker(status, i, worker, &sum);
    free(worker);
    return sum;
}

static unsigned channels_up(const struct proxy_status *status, const struct worker_sum *sum)
{
    unsigned up = 0;
    for (size_t i = 0; i < status->setup->config->key_server_count && sum->servers != NULL; i++)
        up += sum->servers[i].channels_up;
    return up;
}

/* ---- Whether it is ready. */

static void write_failures(const struct proxy_status *status, const struct worker_sum *sum,
                           struct evbuffer *to)
{
    const struct proxy_config *config = status->setup->config;
    (void)evbuffer_add_printf(to, NO_KEY_SERVER);
    for (size_t i = 0; sum->servers != NULL && i < config->key_server_count; i++) {
        const char *name = config->key_servers[i].name, *failure = sum->servers[i].failure;
        (void)evbuffer_add_printf(to, "; ");
        text_write_plain(to, bytes_of(name, strlen(name)));
        (void)evbuffer_add_printf(to, ": ");
        if (failure[0] == '\0')
            failure = "not reached yet";
        text_write_plain(to, bytes_of(failure, strlen(failure)));
    }
}

bool proxy_status_ready(const struct proxy_status *status, struct evbuffer *why_not)
{
    struct worker_sum sum CLEANUP(sum_free) = sum_workers(status);
    if (sum.ready == 0) {
        (void)evbuffer_add_printf(why_not, NO_READY_WORKER);
        return false;
    }
    if (channels_up(status, &sum) > 0)
        return true;
    write_failures(status, &sum, why_not);
    return false;
}

/* ---- JSON. */

/* What its name was last found to be. */
static void write_endpoints(const struct proxy_setup *setup, size_t index, struct json *json)
{
    const struct proxy_key_server *server = &setup->config->key_servers[index];
    struct endpoint_list list = {.count = 0};
    struct address address;
    json_text(json, "host", server->at.host);
    json_text(json, "srv", server->srv);
    json_begin_array(json, "addresses");
    if (endpoints_read(setup->endpoints, setup->endpoint_places[index], server, &list))
        for (size_t i = 0; i < list.count; i++)
            if (endpoint_address(&list.list[i], &address))
                json_address(json, NULL, &address);
    json_end_array(json);
}

static void write_server(const struct proxy_setup *setup, size_t index, const struct server_sum *sum,
                         unsigned workers, struct json *json)
{
    const struct proxy_key_server *server = &setup->config->key_servers[index];
    json_begin_object(json, NULL);
    json_text(json, "name", server->name);
    if (proxy_key_server_is_named(server))
        write_endpoints(setup, index, json);
    else
        json_address(json, "address", &server->at.address);
    json_text(json, "server_name", server->server_name);
    json_bool(json, "up", sum->channels_up > 0);
    json_number(json, "channels_up", sum->channels_up);
    json_number(json, "channels", workers);
    json_number(json, "priority", server->priority);
    json_number(json, "weight", server->weight);
    json_number(json, "avoided", sum->avoided);
    json_number(json, "half_open", sum->half_open);
    json_number(json, "distrusted", sum->distrusted);
    json_number(json, "in_flight", (int64_t)sum->in_flight);
    if (sum->latencies > 0)
        json_seconds(json, "latency_seconds", sum->latency / sum->latencies);
    else
        json_text(json, "latency_seconds", NULL);
    json_text(json, "last_error", sum->failed != 0 ? sum->failure : NULL);
    if (sum->failed != 0)
        json_time(json, "last_error_time", (time_t)sum->failed);
    json_end_object(json);
}

static void write_workers(const struct proxy_status *status, struct json *json)
{
    struct worker_sum sum CLEANUP(sum_free) = sum_workers(status);
    const struct proxy_config *config = status->setup->config;
    json_number(json, "workers_ready", sum.ready);
    json_number(json, "connections", (int64_t)sum.connections);
    json_number(json, "signatures_pending", (int64_t)sum.pending);
    json_begin_array(json, "key_servers");
    for (size_t i = 0; i < config->key_server_count && sum.servers != NULL; i++)
        write_server(status->setup, i, &sum.servers[i], sum.ready, json);
    json_end_array(json);
}

static void write_names(const struct certificate *certificate, struct json *json)
{
    const char *name = certificate->names;
    json_begin_array(json, "names");
    for (size_t i = 0; i < certificate->name_count && i < NAMES_SHOWN; i++, name += strlen(name) + 1)
        json_text(json, NULL, name);
    json_end_array(json);
    json_number(json, "name_count", (int64_t)certificate->name_count);
}

static const char *const STAPLE_STATE_NAMES[] = {[STAPLE_MISSING] = "missing",
                                                 [STAPLE_GOOD] = "good",
                                                 [STAPLE_REVOKED] = "revoked",
                                                 [STAPLE_UNNAMED] = "none"};

/* Null where nothing is stapled. */
static void write_staple(const struct proxy_setup *setup, const struct certificate *certificate,
                         struct json *json)
{
    time_t until = 0;
    bool off = ocsp_settings_of(setup->config, certificate)->source == OCSP_OFF;
    enum staple_state state = staples_state(setup->staples, certificate, time(NULL), &until);
    json_text(json, "ocsp", off ? NULL : STAPLE_STATE_NAMES[state]);
    if (!off && (state == STAPLE_GOOD || state == STAPLE_REVOKED))
        json_time(json, "ocsp_next_update", until);
}

static void write_certificate(const struct proxy_setup *setup, const struct certificate *certificate,
                              struct json *json)
{
    json_begin_object(json, NULL);
    json_text(json, "file", certificate->path);
    json_text(json, "key_type", key_type_name(certificate->key.type));
    json_hex(json, "ski", bytes_of(certificate->key.ski, sizeof certificate->key.ski));
    json_time(json, "not_after", certificate->not_after);
    write_staple(setup, certificate, json);
    json_bool(json, "waiting",
              certificates_verdict(setup->certificates, certificate) == CERTIFICATE_KEPT_OUT);
    write_names(certificate, json);
    json_end_object(json);
}

static void write_certificates(const struct proxy_setup *setup, struct json *json)
{
    const struct certificates *certificates = setup->certificates;
    size_t count = certificates_count(certificates);
    json_number(json, "certificate_count", (int64_t)count);
    json_number(json, "certificates_waiting",
                metrics_sum(setup->program.metrics, PROXY_CERTIFICATES_WAITING));
    json_begin_array(json, "certificates");
    for (size_t i = 0; i < count && i < CERTIFICATES_SHOWN; i++)
        write_certificate(setup, certificates_at(setup->certificates, i), json);
    json_end_array(json);
    json_begin_object(json, "channel_certificate");
    json_text(json, "file", setup->config->key_channel.certificate);
    json_time(json, "not_after", certificate_not_after(SSL_CTX_get0_certificate(setup->key_channel)));
    json_end_object(json);
}

static void write_limits(const struct proxy_config *config, struct json *json)
{
    struct rlimit descriptors;
    json_begin_object(json, "limits");
    json_number(json, "workers", config->workers);
    json_number(json, "connections", config->limits.connections);
    json_number(json, "handshakes_per_worker", config->limits.handshakes);
    json_seconds(json, "handshake_timeout_seconds", config->limits.handshake_timeout);
    json_seconds(json, "idle_timeout_seconds", config->limits.idle_timeout);
    json_seconds(json, "drain_timeout_seconds", config->drain_timeout);
    json_number(json, "key_requests_in_flight_per_worker", config->key_channel.in_flight);
    json_seconds(json, "key_timeout_seconds", config->key_channel.timeout);
    if (getrlimit(RLIMIT_NOFILE, &descriptors) == 0)
        json_number(json, "descriptors_per_process", (int64_t)descriptors.rlim_cur);
    json_end_object(json);
}

void proxy_status_write(const struct proxy_status *status, struct json *json)
{
    write_workers(status, json);
    write_certificates(status->setup, json);
    write_limits(status->setup->config, json);
}

/* ---- Metrics. */

static time_t earliest_not_after(const struct certificates *certificates)
{
    time_t earliest = certificates_at(certificates, 0)->not_after;
    for (size_t i = 1; i < certificates_count(certificates); i++) {
        time_t end = certificates_at(certificates, i)->not_after;
        earliest = end < earliest ? end : earliest;
    }
    return earliest;
}

static void certificate_metrics(const struct proxy_setup *setup, struct evbuffer *to)
{
    const struct certificates *certificates = setup->certificates;
    size_t count = certificates_count(certificates);
    metrics_write_head(to, "keyless_certificates", METRIC_GAUGE, "Chains that are served.");
    metrics_write_line(to, "keyless_certificates", NULL, 0, (int64_t)count);
    metrics_write_head(to, EARLIEST_EXPIRY, METRIC_GAUGE,
                       "When the first of the certificates served will end, in Unix seconds.");
    metrics_write_line(to, EARLIEST_EXPIRY, NULL, 0, earliest_not_after(certificates));
    metrics_write_head(to, CHANNEL_EXPIRY, METRIC_GAUGE,
                       "When the certificate towards key servers will end, in Unix seconds.");
    metrics_write_line(to, CHANNEL_EXPIRY, NULL, 0,
                       certificate_not_after(SSL_CTX_get0_certificate(setup->key_channel)));
    if (count >= CERTIFICATE_METRICS)
        return;
    metrics_write_head(to, EXPIRY, METRIC_GAUGE,
                       "When a certificate served will end, in Unix seconds, by file; while there are fewer "
                       "than 100.");
    for (size_t i = 0; i < count; i++) {
        const struct certificate *certificate = certificates_at(certificates, i);
        const struct metric_label file = {"file", certificate->path};
        metrics_write_line(to, EXPIRY, &file, 1, certificate->not_after);
    }
}

static void staple_metrics(const struct proxy_setup *setup, struct evbuffer *to)
{
    int64_t counts[STAPLE_STATE_COUNT] = {0};
    const time_t now = time(NULL);
    time_t until;
    for (size_t i = 0; setup->staples != NULL && i < certificates_count(setup->certificates); i++) {
        const struct certificate *certificate = certificates_at(setup->certificates, i);
        if (ocsp_settings_of(setup->config, certificate)->source != OCSP_OFF)
            counts[staples_state(setup->staples, certificate, now, &until)]++;
    }
    metrics_write_head(to, STAPLES, METRIC_GAUGE,
                       "Chains to which an OCSP response is to be stapled, by what there is.");
    for (size_t i = 0; i < STAPLE_STATE_COUNT; i++) {
        const struct metric_label state = {"state", STAPLE_STATE_NAMES[i]};
        metrics_write_line(to, STAPLES, &state, 1, counts[i]);
    }
}

static void client_metrics(const struct proxy_setup *setup, struct evbuffer *to)
{
    metrics_write_head(
        to, CRL_EXPIRY, METRIC_GAUGE,
        "When the first revocation list of clients is out of date, in Unix seconds; 0: never, or "
        "there is none.");
    metrics_write_line(to, CRL_EXPIRY, NULL, 0, client_auths_next_update(setup->client_auths));
}

static void write_trouble(const struct proxy_key_server *server, const struct server_sum *sum,
                          struct evbuffer *to)
{
    const struct {
        const char *kind;
        unsigned count;
    } kinds[] = {{"avoided", sum->avoided}, {"half_open", sum->half_open}, {"distrusted", sum->distrusted}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        const struct metric_label labels[] = {{PROXY_SERVER_LABEL, server->name}, {"kind", kinds[i].kind}};
        metrics_write_line(to, SERVER_TROUBLE, labels, 2, kinds[i].count);
    }
}

static void server_metrics(const struct proxy_status *status, struct evbuffer *to)
{
    struct worker_sum sum CLEANUP(sum_free) = sum_workers(status);
    const struct proxy_config *config = status->setup->config;
    if (sum.servers == NULL)
        return;
    metrics_write_head(to, SERVER_CHANNELS_UP, METRIC_GAUGE,
                       "Channels of the workers that are ready for use, by key server.");
    for (size_t i = 0; i < config->key_server_count; i++) {
        const struct metric_label server = {PROXY_SERVER_LABEL, config->key_servers[i].name};
        metrics_write_line(to, SERVER_CHANNELS_UP, &server, 1, sum.servers[i].channels_up);
    }
    metrics_write_head(to, SERVER_TROUBLE, METRIC_GAUGE,
                       "Workers that avoid a key server as it fails, let one request try it again (half "
                       "open), or distrust it "
                       "as its signature was wrong.");
    for (size_t i = 0; i < config->key_server_count; i++)
        write_trouble(&config->key_servers[i], &sum.servers[i], to);
    metrics_write_head(to, SERVER_IN_FLIGHT, METRIC_GAUGE,
                       "Requests sent and not yet answered, by key server.");
    for (size_t i = 0; i < config->key_server_count; i++) {
        const struct metric_label server = {PROXY_SERVER_LABEL, config->key_servers[i].name};
        metrics_write_line(to, SERVER_IN_FLIGHT, &server, 1, (int64_t)sum.servers[i].in_flight);
    }
}

void proxy_status_metrics(const struct proxy_status *status, struct evbuffer *to)
{
    certificate_metrics(status->setup, to);
    staple_metrics(status->setup, to);
    client_metrics(status->setup, to);
    server_metrics(status, to);
}
