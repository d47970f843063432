#include "proxy/master.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include <openssl/crypto.h>

#include "common/admin_process.h"
#include "common/channel.h"
#include "common/config_rows.h"
#include "common/key_id.h"
#include "proxy/certificate_renewal.h"
#include "proxy/helper.h"
#include "proxy/ocsp_settings.h"
#include "proxy/proxy_metrics.h"
#include "proxy/ticket_file.h"
#include "proxy/worker.h"
#include "proxy/worker_status.h"

#define LISTEN_BACKLOG 4096
/* A worker is ready within 5 s even without a key server; the rest is reading and forking on a busy machine.
 */
#define READY_TIMEOUT UINT64_C(30000000)

/* The master itself. */
struct proxy_master {
    const char *path;
    struct log *log;
    struct program program;
    struct ticket_memory *tickets;
    struct staples *staples;     /* NULL: no configuration has needed it yet */
    struct endpoints *endpoints; /* the same */
    uint64_t ticked;             /* Unix seconds when ticket keys were last looked after */
    bool told_user;
    struct proxy_setup *active; /* of the generation that has the sockets; NULL: there is none */
};

/* ---- Reading. */

static void add_listen(struct proxy_setup *setup, const struct address *address, size_t kind)
{
    setup->listen[setup->listen_count] = *address;
    setup->listen_kind[setup->listen_count++] = kind;
}

/* The clients' first, as in the configuration, so that their numbers are the same. */
static enum result setup_listen(struct proxy_setup *setup, struct failure *why)
{
    const struct proxy_config *config = setup->config;
    setup->listen = calloc(config->listen_count + 1, sizeof *setup->listen);
    setup->listen_kind = calloc(config->listen_count + 1, sizeof *setup->listen_kind);
    if (setup->listen == NULL || setup->listen_kind == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory for %zu addresses", config->listen_count);
    for (size_t i = 0; i < config->listen_count; i++)
        add_listen(setup, &config->listen[i].address, KIND_WORKER);
    if (config->admin_listen.size > 0)
        add_listen(setup, &config->admin_listen, KIND_HELPER);
    return RESULT_OK;
}

static enum result setup_key_channel(struct proxy_setup *setup, struct failure *why)
{
    const struct proxy_config *config = setup->config;
    const struct channel_credentials files = {.certificate = config->key_channel.certificate,
                                              .key = config->key_channel.key,
                                              .ca = config->key_channel.ca};
    const struct config_position where = {.file = config->file};
    struct failure reason;
    if (channel_client_context(&files, &setup->key_channel, &reason) == RESULT_OK)
        return RESULT_OK;
    return config_failure(why, &where, "key_channel", "%s", reason.text);
}

bool proxy_setup_has_channel_key(const struct proxy_setup *setup, const struct certificate *certificate)
{
    return setup->channel_key.type != KEY_TYPE_NONE &&
           key_ski_equal(certificate->key.ski, setup->channel_key.ski);
}

static enum result refuse_channel_key(const struct proxy_setup *setup, const struct certificate *site,
                                      struct failure *why)
{
    const struct config_position where = {.file = setup->config->file};
    if (!proxy_setup_has_channel_key(setup, site))
        return RESULT_OK;
    return config_failure(why, &where, "key_channel.key",
                          "is the private key of %s: a site's keys belong on the key server alone",
                          site->path);
}

/* Named as the channel's own, a site's private key would pass for one that the proxy may have. */
static enum result check_channel_key(struct proxy_setup *setup, struct failure *why)
{
    const struct certificates *certificates = setup->certificates;
    const struct certificate *held;
    enum result result = RESULT_OK;
    if (key_id_of(SSL_CTX_get0_privatekey(setup->key_channel), &setup->channel_key, NULL) != RESULT_OK)
        return RESULT_OK; /* of a kind that no site has */
    for (size_t i = 0; result == RESULT_OK && i < certificates_count(certificates); i++)
        result = refuse_channel_key(setup, certificates_at(certificates, i), why);
    for (size_t i = 0; result == RESULT_OK && (held = certificates_held_back(certificates, i)) != NULL; i++)
        result = refuse_channel_key(setup, held, why);
    return result;
}

static enum result read_ticket_keys(struct proxy_setup *setup, struct failure *why)
{
    if (setup->config->tickets.source != TICKETS_FILE)
        return RESULT_OK;
    setup->ticket_keys = OPENSSL_zalloc(sizeof *setup->ticket_keys);
    if (setup->ticket_keys == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for ticket keys");
    (void)mlock(setup->ticket_keys, sizeof *setup->ticket_keys); /* workers tell if it cannot be done */
    return ticket_file_read(setup->config, setup->ticket_keys, why);
}

static enum result setup_read(struct proxy_setup *setup, const char *path, const struct proxy_setup *active,
                              struct log *log, bool as_configured, struct failure *why)
{
    const struct certificates *before = active != NULL ? active->certificates : NULL;
    enum result result = proxy_config_read(path, &setup->config, why);
    if (result == RESULT_OK && as_configured)
        log_set_settings(log, &setup->config->log);
    if (result == RESULT_OK)
        result = config_check_user(path, setup->config->user, why);
    if (result == RESULT_OK)
        result = setup_listen(setup, why);
    if (result == RESULT_OK)
        result = certificates_read(setup->config, before, log, &setup->certificates, why);
    if (result == RESULT_OK)
        result = client_auths_read(setup->config, log, &setup->client_auths, why);
    if (result == RESULT_OK)
        result = setup_key_channel(setup, why);
    if (result == RESULT_OK)
        result = check_channel_key(setup, why);
    if (result == RESULT_OK)
        result = read_ticket_keys(setup, why);
    if (result == RESULT_OK)
        result = status_area_new(worker_status_size(setup->config->key_server_count), setup->config->workers,
                                 &setup->workers, why);
    return result;
}

enum result proxy_setup_read(const char *path, const struct proxy_setup *active, struct log *log,
                             bool as_configured, struct proxy_setup **setup, struct failure *why)
{
    struct proxy_setup *made = calloc(1, sizeof *made);
    *setup = made;
    if (made == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory for the configuration");
    enum result result = setup_read(made, path, active, log, as_configured, why);
    if (result != RESULT_OK) {
        proxy_setup_free(made);
        *setup = NULL;
    }
    return result;
}

void proxy_setup_free(struct proxy_setup *setup)
{
    if (setup == NULL)
        return;
    SSL_CTX_free(setup->key_channel);
    certificate_renewal_free(setup->renewal);
    certificates_free(setup->certificates);
    client_auths_free(setup->client_auths);
    OPENSSL_clear_free(setup->ticket_keys, sizeof *setup->ticket_keys);
    status_area_free(setup->workers);
    free(setup->listen);
    free(setup->listen_kind);
    proxy_config_free(setup->config);
    free(setup);
}

/* ---- What the processes are. */

static void setup_kinds(struct proxy_setup *setup)
{
    const struct proxy_config *config = setup->config;
    setup->kinds[KIND_WORKER] = (struct process_kind){.name = "worker",
                                                      .count = config->workers,
                                                      .accepts = true,
                                                      .links_to = -1,
                                                      .sandbox = &worker_sandbox,
                                                      .run = worker_run};
    setup->kinds[KIND_HELPER] = (struct process_kind){.name = "helper",
                                                      .count = 1,
                                                      .auxiliary = true,
                                                      .accepts = true,
                                                      .links_to = -1,
                                                      .sandbox = &admin_process_sandbox,
                                                      .run = helper_run};
    const bool fetches = helper_fetches(config);
    if (fetches)
        setup->kinds[KIND_HELPER].sandbox = &helper_fetching_sandbox;
    setup->kind_count = config->admin_listen.size > 0 || fetches ? KIND_COUNT : KIND_HELPER;
}

static void know_servers(const struct proxy_setup *setup)
{
    struct metrics *metrics = setup->program.metrics;
    for (size_t i = 0; i < setup->config->key_server_count; i++)
        metrics_know(metrics, PROXY_SERVER_LABEL, setup->config->key_servers[i].name);
}

static enum result prepare_tickets(struct proxy_master *master, struct proxy_setup *setup,
                                   struct failure *why)
{
    const struct proxy_config *config = setup->config;
    setup->tickets = master->tickets;
    if (config->tickets.source != TICKETS_LOCAL)
        return RESULT_OK;
    const struct ticket_times times = {.rotate = (uint32_t)(config->tickets.rotate / CONFIG_SECOND),
                                       .lifetime = (uint32_t)(config->tickets.lifetime / CONFIG_SECOND)};
    return ticket_memory_prepare(master->tickets, &times, (uint64_t)time(NULL), why);
}

static enum result prepare_staples(struct proxy_master *master, struct proxy_setup *setup,
                                   struct failure *why)
{
    const struct proxy_config *config = setup->config;
    if (!ocsp_settings_use(config, OCSP_FILE) && !ocsp_settings_use(config, OCSP_FETCH))
        return RESULT_OK;
    enum result result = master->staples == NULL ? staples_new(&master->staples, why) : RESULT_OK;
    setup->staples = master->staples;
    return result;
}

static enum result prepare_endpoints(struct proxy_master *master, struct proxy_setup *setup,
                                     struct failure *why)
{
    const struct proxy_config *config = setup->config;
    if (!proxy_config_has_names(config))
        return RESULT_OK;
    enum result result = master->endpoints == NULL ? endpoints_new(&master->endpoints, why) : RESULT_OK;
    setup->endpoints = master->endpoints;
    for (size_t i = 0; result == RESULT_OK && i < config->key_server_count; i++)
        if (proxy_key_server_is_named(&config->key_servers[i]))
            setup->endpoint_places[i] = endpoints_place(master->endpoints, &config->key_servers[i]);
    return result;
}

static enum result prepare_renewal(const struct proxy_master *master, struct proxy_setup *setup,
                                   struct failure *why)
{
    setup->renewal = certificate_renewal_new(setup, master->log);
    if (setup->renewal == NULL)
        return failure_set_errno(why, "certificates");
    certificate_renewal_prepare(setup->renewal);
    return RESULT_OK;
}

/* Children that are forked later get no older keys than they need. */
static void forget_ticket_keys(struct proxy_master *master)
{
    const uint64_t now = (uint64_t)time(NULL);
    if (now == master->ticked)
        return;
    master->ticked = now;
    ticket_memory_forget(master->tickets, now);
}

static void proxy_tick(void *context)
{
    struct proxy_master *master = context;
    forget_ticket_keys(master);
    if (master->active != NULL)
        certificate_renewal_tick(master->active->renewal);
}

static void proxy_activated(void *context, struct master *master, const struct process_plan *plan)
{
    struct proxy_master *self = context;
    if (self->active != NULL)
        certificate_renewal_end(self->active->renewal);
    self->active = plan->config;
    certificate_renewal_begin(self->active->renewal, master);
}

static void proxy_heard(void *context, struct master *master, const void *config,
                        const struct child_message *message)
{
    const struct proxy_setup *setup = config;
    (void)context;
    certificate_renewal_heard(setup->renewal, master, message);
}

static enum result proxy_load(void *context, struct process_plan *plan, struct failure *why)
{
    struct proxy_master *master = context;
    struct proxy_setup *setup;
    enum result result = proxy_setup_read(master->path, master->active, master->log, true, &setup, why);
    if (result != RESULT_OK)
        return result;
    result = prepare_tickets(master, setup, why);
    if (result == RESULT_OK)
        result = prepare_staples(master, setup, why);
    if (result == RESULT_OK)
        result = prepare_endpoints(master, setup, why);
    if (result == RESULT_OK)
        result = prepare_renewal(master, setup, why);
    if (result != RESULT_OK) {
        proxy_setup_free(setup);
        return result;
    }
    process_tell_user(setup->config->user, &master->told_user, master->log);
    setup->program = master->program;
    know_servers(setup);
    setup_kinds(setup);
    *plan = (struct process_plan){.config = setup,
                                  .kinds = setup->kinds,
                                  .kind_count = setup->kind_count,
                                  .listen = setup->listen,
                                  .listen_count = setup->listen_count,
                                  .listen_kind = setup->listen_kind,
                                  .listen_backlog = LISTEN_BACKLOG,
                                  .drain_timeout = setup->config->drain_timeout,
                                  .ready_timeout = READY_TIMEOUT,
                                  .sandbox = setup->config->sandbox,
                                  .log = setup->config->log};
    return RESULT_OK;
}

static void proxy_release(void *context, struct process_plan *plan)
{
    struct proxy_master *master = context;
    if (master->active == plan->config)
        master->active = NULL;
    proxy_setup_free(plan->config);
}

int proxy_master_run(const char *path, struct log *log)
{
    struct proxy_master master = {.path = path, .log = log};
    struct failure why;
    if (ticket_memory_new(&master.tickets, &why) != RESULT_OK ||
        program_init(&master.program, "proxy", proxy_metrics, PROXY_METRIC_COUNT, &why) != RESULT_OK) {
        log_error(log, "start failed", log_reason(why.text));
        ticket_memory_free(master.tickets);
        return 1;
    }
    const struct process_program program = {.name = "proxy",
                                            .load = proxy_load,
                                            .release = proxy_release,
                                            .tick = proxy_tick,
                                            .activated = proxy_activated,
                                            .heard = proxy_heard,
                                            .context = &master,
                                            .metrics = master.program.metrics,
                                            .first_metric = PROXY_PROCESSES,
                                            .processes = master.program.processes};
    int status = master_run(&program, log);
    program_clear(&master.program);
    ticket_memory_free(master.tickets);
    staples_free(master.staples);
    endpoints_free(master.endpoints);
    return status;
}
