#include "keyserver/master.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <openssl/evp.h>

#include "common/admin_process.h"
#include "common/channel.h"
#include "common/channel_crl.h"
#include "common/config_rows.h"
#include "common/log.h"
#include "common/process.h"
#include "keyserver/auditor.h"
#include "keyserver/config.h"
#include "keyserver/frontend.h"
#include "keyserver/helper.h"
#include "keyserver/key_store.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/plan.h"
#include "keyserver/policy.h"
#include "keyserver/signer.h"
#include "keyserver/status_records.h"
#include "keyserver/ticket_keys.h"

#define BACKLOG 1024
/* Loading keys takes a millisecond or so each. */
#define READY_TIMEOUT 120000000

/* What outlives a reading of the configuration. */
struct keyserver_master {
    const char *config_path;
    struct log *log;
    struct program program;
    struct client_rates *rates;
    bool told_user;
};

/* ---- Reading. */

static enum result read_context(struct keyserver_plan *plan, struct failure *why)
{
    const struct keyserver_config *config = plan->config;
    const struct channel_credentials files = {
        .certificate = config->tls.certificate, .key = config->tls.key, .ca = config->tls.client_ca};
    enum result result = channel_server_context(&files, &plan->context, why);
    if (result != RESULT_OK || config->tls.crl == NULL)
        return result;
    return channel_crl_load(plan->context, config->tls.crl, config->tls.client_ca, &plan->crl_next_update,
                            why);
}

static void tell_crl(const struct keyserver_plan *plan, struct log *log)
{
    if (plan->crl_next_update != 0 && plan->crl_next_update <= time(NULL))
        log_warn(log, "CRL out of date", log_text("file", plan->config->tls.crl),
                 log_reason("every client is refused until there is a new one, and a reload"));
}

static bool add_file(EVP_MD_CTX *digest, const char *path)
{
    uint8_t octets[4096];
    FILE *file = fopen(path, "re");
    size_t got = 0;
    bool added = file != NULL;
    while (added && (got = fread(octets, 1, sizeof octets, file)) > 0)
        added = EVP_DigestUpdate(digest, octets, got) == 1;
    added = added && ferror(file) == 0;
    if (file != NULL)
        (void)fclose(file);
    return added;
}

/* The whole configuration, since an entry's place counts too, the CA and its revocations. Keys and
 * certificates may be renewed without anybody losing a right that he has. */
static enum result note_access(struct keyserver_plan *plan, struct failure *why)
{
    struct evbuffer *text = evbuffer_new();
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool noted = text != NULL && digest != NULL && EVP_DigestInit_ex2(digest, EVP_sha256(), NULL) == 1;
    if (noted) {
        keyserver_config_print(plan->config, text);
        noted = EVP_DigestUpdate(digest, evbuffer_pullup(text, -1), evbuffer_get_length(text)) == 1 &&
                add_file(digest, plan->config->tls.client_ca) &&
                (plan->config->tls.crl == NULL || add_file(digest, plan->config->tls.crl)) &&
                EVP_DigestFinal_ex(digest, plan->access, NULL) == 1;
    }
    EVP_MD_CTX_free(digest);
    if (text != NULL)
        evbuffer_free(text);
    return noted ? RESULT_OK
                 : failure_set(why, RESULT_SYSTEM, "tls.client_ca or tls.crl cannot be read again");
}

/* Whoever may do less than before may do so from now on, not only with his next connection. */
static bool supersedes(const void *old_config, const void *new_config)
{
    const struct keyserver_plan *old = old_config, *new = new_config;
    return memcmp(old->access, new->access, sizeof old->access) != 0;
}

static void free_plan(struct keyserver_plan *plan)
{
    if (plan == NULL)
        return;
    keyserver_config_free(plan->config);
    SSL_CTX_free(plan->context);
    status_area_free(plan->frontend_status);
    status_area_free(plan->signer_status);
    status_area_free(plan->key_status);
    site_certificates_free(plan->certificates);
    free(plan->rate_numbers);
    client_load_area_free(plan->load);
    free(plan->listen);
    free(plan->listen_kind);
    free(plan);
}

static enum result choose_listeners(struct keyserver_plan *plan, struct failure *why)
{
    const struct keyserver_config *config = plan->config;
    plan->listen = calloc(config->listen_count + 1, sizeof *plan->listen);
    plan->listen_kind = calloc(config->listen_count + 1, sizeof *plan->listen_kind);
    if (plan->listen == NULL || plan->listen_kind == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the addresses to listen on");
    for (plan->listen_count = 0; plan->listen_count < config->listen_count; plan->listen_count++) {
        plan->listen[plan->listen_count] = config->listen[plan->listen_count];
        plan->listen_kind[plan->listen_count] = KIND_FRONTEND;
    }
    if (config->admin_listen.size > 0) {
        plan->listen[plan->listen_count] = config->admin_listen;
        plan->listen_kind[plan->listen_count++] = KIND_HELPER;
    }
    return RESULT_OK;
}

static enum result make_status(struct keyserver_plan *plan, struct failure *why)
{
    const struct keyserver_config *config = plan->config;
    enum result result = status_area_new(frontend_status_size(config->client_count), config->workers,
                                         &plan->frontend_status, why);
    if (result == RESULT_OK)
        result = status_area_new(sizeof(struct signer_status), 1, &plan->signer_status, why);
    if (result == RESULT_OK)
        result = status_area_new(sizeof(struct key_status), STATUS_KEYS_MAX, &plan->key_status, why);
    return result;
}

static enum result read_plan(struct keyserver_master *master, struct keyserver_plan *plan,
                             struct failure *why)
{
    enum result result = keyserver_config_read(master->config_path, &plan->config, why);
    if (result == RESULT_OK)
        result = config_check_user(master->config_path, plan->config->user, why);
    if (result == RESULT_OK)
        result = read_context(plan, why);
    if (result == RESULT_OK)
        result = site_certificates_load(plan->config, &plan->certificates, why);
    if (result == RESULT_OK)
        result = choose_listeners(plan, why);
    if (result == RESULT_OK)
        result = make_status(plan, why);
    if (result == RESULT_OK)
        result = client_rates_assign(plan->rates, plan->config, &plan->rate_numbers, why);
    if (result == RESULT_OK)
        result = client_load_area_new(plan->config, &plan->load, why);
    if (result == RESULT_OK)
        result = note_access(plan, why);
    return result;
}

static void know_clients(const struct keyserver_plan *plan)
{
    for (size_t i = 0; i < plan->config->client_count; i++)
        metrics_know(plan->program.metrics, KEYSERVER_CLIENT_LABEL, plan->config->clients[i].match);
}

static void choose_kinds(struct keyserver_plan *plan)
{
    plan->kinds[KIND_AUDITOR] =
        (struct process_kind){.name = "auditor",
                              .count = plan->config->audit.file != NULL ? 1 : 0,
                              .auxiliary = plan->config->audit.on_error == AUDIT_ERROR_CONTINUE,
                              .links_to = -1,
                              .sandbox = &auditor_sandbox,
                              .run = auditor_run};
    plan->kinds[KIND_SIGNER] = (struct process_kind){.name = "signer",
                                                     .count = 1,
                                                     .links_to = KIND_AUDITOR,
                                                     .sandbox = &signer_sandbox,
                                                     .run = signer_run};
    plan->kinds[KIND_FRONTEND] = (struct process_kind){.name = "frontend",
                                                       .count = plan->config->workers,
                                                       .accepts = true,
                                                       .links_to = KIND_SIGNER,
                                                       .sandbox = &frontend_sandbox,
                                                       .run = frontend_run};
    plan->kinds[KIND_HELPER] = (struct process_kind){.name = "helper",
                                                     .count = 1,
                                                     .auxiliary = true,
                                                     .accepts = true,
                                                     .links_to = -1,
                                                     .sandbox = &admin_process_sandbox,
                                                     .run = helper_run};
    plan->kind_count = plan->config->admin_listen.size > 0 ? KIND_COUNT : KIND_HELPER;
}

static enum result load(void *context, struct process_plan *process_plan, struct failure *why)
{
    struct keyserver_master *master = context;
    struct keyserver_plan *plan = calloc(1, sizeof *plan);
    if (plan == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the configuration");
    plan->program = master->program;
    plan->rates = master->rates;
    enum result result = read_plan(master, plan, why);
    if (result != RESULT_OK) {
        free_plan(plan);
        return result;
    }
    choose_kinds(plan);
    know_clients(plan);
    tell_crl(plan, master->log);
    log_set_settings(master->log, &plan->config->log);
    process_tell_user(plan->config->user, &master->told_user, master->log);
    *process_plan = (struct process_plan){.config = plan,
                                          .kinds = plan->kinds,
                                          .kind_count = plan->kind_count,
                                          .listen = plan->listen,
                                          .listen_count = plan->listen_count,
                                          .listen_kind = plan->listen_kind,
                                          .listen_backlog = BACKLOG,
                                          .drain_timeout = plan->config->drain_timeout,
                                          .ready_timeout = READY_TIMEOUT,
                                          .sandbox = plan->config->sandbox,
                                          .log = plan->config->log};
    return RESULT_OK;
}

static void release(void *context, struct process_plan *process_plan)
{
    (void)context;
    free_plan(process_plan->config);
}

/* ---- Running. */

static struct log *start_log(void)
{
    static const struct log_settings UNTIL_CONFIGURED = {.level = LOG_LEVEL_INFO, .rate = 100};
    struct log *log = log_new("keyserver", STDERR_FILENO, &UNTIL_CONFIGURED);
    if (log == NULL)
        (void)fprintf(stderr, "keyless-keyserver: no memory for the log\n");
    return log;
}

int keyserver_master(const char *config_path)
{
    struct keyserver_master master = {.config_path = config_path, .log = start_log()};
    struct failure why;
    if (master.log == NULL)
        return 1;
    int status = 1;
    enum result result = client_rates_new(&master.rates, &why);
    if (result == RESULT_OK)
        result = program_init(&master.program, "keyserver", keyserver_metrics, KEYSERVER_METRIC_COUNT, &why);
    if (result == RESULT_OK) {
        const struct process_program description = {.name = "keyserver",
                                                    .load = load,
                                                    .release = release,
                                                    .supersedes = supersedes,
                                                    .context = &master,
                                                    .metrics = master.program.metrics,
                                                    .first_metric = KEYSERVER_PROCESSES,
                                                    .processes = master.program.processes};
        status = master_run(&description, master.log);
        program_clear(&master.program);
    } else {
        log_error(master.log, "start failed", log_reason(why.text));
    }
    client_rates_free(master.rates);
    log_free(master.log);
    return status;
}

/* ---- Checking. */

static void print_keys(const struct key_table *keys)
{
    printf("\n# %zu key%s, by SKI\n", keys->count, keys->count == 1 ? "" : "s");
    for (size_t i = 0; i < keys->count; i++) {
        char ski[KEY_SKI_TEXT_SIZE];
        const struct key_id *id = &keys->keys[i].id;
        printf("# %s %-7s %s\n", key_ski_format(id->ski, ski), key_type_name(id->type), keys->keys[i].label);
    }
}

static void print_unused(const struct keyserver_client *client, const char *pattern, void *owner)
{
    (void)owner;
    (void)fprintf(stderr, "%s:%u:%u: clients.keys: warning: \"%s\" of %s matches no key\n",
                  client->where.file, client->where.line, client->where.column, pattern, client->match);
}

static void print_uncovered(const struct keyserver_client *client, const struct key_info *key, void *owner)
{
    (void)owner;
    (void)fprintf(stderr,
                  "%s:%u:%u: clients.names: warning: %s may use the key %s only with whole transcripts: its "
                  "certificates have other names\n",
                  client->where.file, client->where.line, client->where.column, client->match, key->label);
}

static void print_mixed(const struct keyserver_client *client, const struct keyserver_client *other,
                        void *owner)
{
    (void)owner;
    (void)fprintf(
        stderr,
        "%s:%u:%u: clients.ticket_group: warning: %s and %s of %s have other names: each can pass for "
        "the other to clients that resume\n",
        client->where.file, client->where.line, client->where.column, client->match, other->match,
        client->ticket_group);
}

static enum result check_keys(const struct keyserver_config *config,
                              const struct site_certificates *certificates, struct failure *why)
{
    struct key_store *store = NULL;
    struct policy *policy = NULL;
    enum result result = process_forbid_dumps(why);
    if (result == RESULT_OK)
        result = key_store_load(config, &store, why);
    if (result == RESULT_OK)
        result = auditor_check(config, why);
    if (result == RESULT_OK)
        result = ticket_keys_check(config, (uint64_t)time(NULL), why);
    if (result == RESULT_OK)
        result = policy_new(config, key_store_table(store), &policy, why);
    if (result == RESULT_OK) {
        print_keys(key_store_table(store));
        policy_each_unused(policy, print_unused, NULL);
        policy_use_certificates(policy, certificates);
        policy_each_uncovered(policy, print_uncovered, NULL);
        ticket_keys_each_mixed(config, print_mixed, NULL);
    }
    policy_free(policy);
    key_store_free(store);
    return result;
}

static void print_settings(const struct keyserver_config *config)
{
    struct evbuffer *text = evbuffer_new();
    if (text == NULL)
        return;
    keyserver_config_print(config, text);
    (void)fwrite(evbuffer_pullup(text, -1), 1, evbuffer_get_length(text), stdout);
    evbuffer_free(text);
}

static enum result check(const char *config_path, struct keyserver_plan *plan, struct failure *why)
{
    enum result result = keyserver_config_read(config_path, &plan->config, why);
    if (result != RESULT_OK)
        return result;
    print_settings(plan->config);
    result = config_check_user(config_path, plan->config->user, why);
    if (result == RESULT_OK)
        result = read_context(plan, why);
    if (result == RESULT_OK)
        result = site_certificates_load(plan->config, &plan->certificates, why);
    return result == RESULT_OK ? check_keys(plan->config, plan->certificates, why) : result;
}

int keyserver_check(const char *config_path)
{
    struct keyserver_plan *plan = calloc(1, sizeof *plan);
    struct failure why;
    if (plan == NULL)
        return 1;
    enum result result = check(config_path, plan, &why);
    free_plan(plan);
    if (fflush(stdout) != 0 && result == RESULT_OK)
        result = failure_set_errno(&why, "cannot write to standard output");
    if (result == RESULT_OK)
        return 0;
    (void)fprintf(stderr, "keyless-keyserver: %s\n", why.text);
    return result == RESULT_CONFIG ? 2 : 1;
}
