#include "keyserver/frontend.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keyserver/acceptor.h"
#include "keyserver/connection.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/plan.h"
#include "keyserver/policy.h"
#include "keyserver/signer_client.h"
#include "keyserver/status_records.h"

/* What all front ends' connections may hold together. */
#define OCTETS_MAX ((size_t)256 * 1024 * 1024)

/* What the signer refuses as too late it says so itself; this is for one that is being replaced, or hangs. */
#define GIVE_UP_AFTER_DEADLINE 2000000
#define SIGNER_LOST            60000000

/* Seconds' worth of a client's `rate` at once: the configuration's "twice". */
#define RATE_BURST 2

struct frontend {
    struct child *child;
    const struct keyserver_plan *plan;
    struct signer_client *signer;
    struct client_load *load;
    struct address_load *handshakes;
    struct acceptor *acceptor;
    struct connections connections;
    size_t connections_max;
    struct frontend_status *status; /* as last told */
    struct key_table keys;
    struct policy *policy; /* over keys */
    bool draining;
};

/* ---- The signer. */

static void replace_keys(struct frontend *frontend, const struct key_table *keys)
{
    policy_free(frontend->policy);
    key_table_clear(&frontend->keys);
    frontend->policy = NULL;
    frontend->keys = *keys;
}

static void use_plan(struct policy *policy, const struct keyserver_plan *plan)
{
    const struct policy_rates rates = {.buckets = client_rates_buckets(plan->rates, RATES_OF_FRONTENDS),
                                       .numbers = plan->rate_numbers,
                                       .burst = RATE_BURST};
    policy_use_certificates(policy, plan->certificates);
    policy_use_rates(policy, &rates);
}

/* The keys that there are, at first and whenever the signer was replaced. */
static bool on_keys(struct key_table *keys, void *owner)
{
    struct frontend *frontend = owner;
    struct failure why;
    struct policy *policy;
    bool first = frontend->policy == NULL;
    if (!key_table_is_sorted(keys)) {
        key_table_clear(keys);
        return false;
    }
    replace_keys(frontend, keys);
    if (policy_new(frontend->plan->config, &frontend->keys, &policy, &why) != RESULT_OK) {
        /* Without a policy nothing can be served; the master starts another. */
        child_failed(frontend->child, &why);
        child_end(frontend->child, 1);
        return false;
    }
    use_plan(policy, frontend->plan);
    frontend->policy = policy;
    frontend->connections.policy = policy;
    if (first)
        child_ready(frontend->child);
    return true;
}

static void on_lost(void *owner)
{
    struct frontend *frontend = owner;
    struct failure why;
    (void)failure_set(&why, RESULT_PEER, "no signer for %d s", SIGNER_LOST / 1000000);
    child_failed(frontend->child, &why);
    child_end(frontend->child, 1);
}

static const struct signer_client_handler SIGNER_HANDLER = {.keys = on_keys, .lost = on_lost};

/* ---- Connections. */

static bool on_room(void *owner)
{
    const struct frontend *frontend = owner;
    return frontend->connections.count < frontend->connections_max;
}

static void on_accepted(int fd, const struct address *peer, void *owner)
{
    struct frontend *frontend = owner;
    connections_accept(&frontend->connections, fd, peer);
}

static const struct acceptor_handler ACCEPTOR_HANDLER = {.room = on_room, .accepted = on_accepted};

static void end_if_drained(struct frontend *frontend)
{
    if (frontend->draining && frontend->connections.count == 0)
        child_end(frontend->child, 0);
}

static void on_ended(void *owner)
{
    struct frontend *frontend = owner;
    acceptor_resume(frontend->acceptor);
    end_if_drained(frontend);
}

/* ---- Telling. */

/* One that drains has a successor, which tells in the same place. */
static void tell_status(void *owner)
{
    struct frontend *frontend = owner;
    struct frontend_status *status = frontend->status;
    const struct connections *connections = &frontend->connections;
    if (frontend->draining)
        return;
    status->pid = getpid();
    status->connections = (uint32_t)connections->count;
    for (size_t i = 0; i < connections->config->client_count; i++)
        status->serving[i] = client_load_connections(connections->load, i);
    status_area_write(frontend->plan->frontend_status, child_index(frontend->child), status);
}

/* ---- What the master says. */

static void on_listen(const size_t *sockets, size_t count, void *owner)
{
    struct frontend *frontend = owner;
    acceptor_listen(frontend->acceptor, sockets, count);
}

static void on_retire(size_t socket, void *owner)
{
    struct frontend *frontend = owner;
    acceptor_retire(frontend->acceptor, socket);
}

static void on_link(size_t kind, unsigned index, int fd, void *owner)
{
    (void)kind;
    (void)index;
    struct frontend *frontend = owner;
    signer_client_link(frontend->signer, fd);
}

static void on_drain(enum child_drain why, void *owner)
{
    struct frontend *frontend = owner;
    frontend->draining = true;
    client_load_leave_area(frontend->load);
    if (why == DRAIN_SUPERSEDED)
        connections_cut(&frontend->connections);
    else
        connections_drain(&frontend->connections);
    end_if_drained(frontend);
}

static const struct child_handler CHILD_HANDLER = {
    .listen = on_listen, .retire = on_retire, .link = on_link, .drain = on_drain, .tick = tell_status};

/* ---- The process. */

static const struct sandbox_rule SANDBOX_RULES[] = {
    SANDBOX_ALLOW("accept4"),
    SANDBOX_ALLOW("getsockname"),
    SANDBOX_ALLOW("getpeername"),
};

const struct sandbox_profile frontend_sandbox = {.rules = SANDBOX_RULES,
                                                 .rule_count = sizeof SANDBOX_RULES / sizeof *SANDBOX_RULES};

static size_t per_address(const struct keyserver_config *config, unsigned index)
{
    return config->limits.per_address > 0
               ? client_load_share(config->limits.per_address, index, config->workers)
               : 0;
}

static enum result start(struct frontend *frontend, struct failure *why)
{
    static const struct acceptor_metrics ACCEPTOR_METRICS = {KEYSERVER_PAUSES_CONNECTIONS,
                                                             KEYSERVER_PAUSES_DESCRIPTORS};
    const struct keyserver_config *config = frontend->plan->config;
    struct child *child = frontend->child;
    const struct signer_client_settings settings = {
        .give_up = config->queues.deadline + GIVE_UP_AFTER_DEADLINE, .lost = SIGNER_LOST};
    client_rates_leave(frontend->plan->rates, RATES_OF_SIGNER);
    enum result result = process_drop_privileges(config->user, why);
    if (result != RESULT_OK)
        return result;
    frontend->connections_max =
        client_load_share(config->limits.connections, child_index(child), config->workers);
    frontend->signer = signer_client_new(child_base(child), &settings, child_log(child), child_metrics(child),
                                         &SIGNER_HANDLER, frontend);
    frontend->load = client_load_new(config, frontend->plan->load, child_index(child));
    frontend->handshakes =
        address_load_new(per_address(config, child_index(child)), frontend->connections_max);
    frontend->acceptor = acceptor_new(child, &ACCEPTOR_METRICS, &ACCEPTOR_HANDLER, frontend);
    frontend->connections = (struct connections){.base = child_base(child),
                                                 .context = frontend->plan->context,
                                                 .config = config,
                                                 .log = child_log(child),
                                                 .metrics = child_metrics(child),
                                                 .signer = frontend->signer,
                                                 .load = frontend->load,
                                                 .handshakes = frontend->handshakes,
                                                 .octets_max = OCTETS_MAX / config->workers,
                                                 .ended = on_ended,
                                                 .owner = frontend};
    frontend->status = calloc(1, frontend_status_size(config->client_count));
    if (!connections_init(&frontend->connections) || frontend->signer == NULL || frontend->acceptor == NULL ||
        frontend->status == NULL || frontend->load == NULL || frontend->handshakes == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for a front end");
    return RESULT_OK;
}

static void stop(struct frontend *frontend)
{
    connections_clear(&frontend->connections);
    acceptor_free(frontend->acceptor);
    signer_client_free(frontend->signer);
    replace_keys(frontend, &(const struct key_table){0});
    client_load_free(frontend->load);
    address_load_free(frontend->handshakes);
    free(frontend->status);
}

int frontend_run(struct child *child, const void *config)
{
    struct frontend frontend = {.child = child, .plan = config};
    struct failure why;
    TAILQ_INIT(&frontend.connections.list);
    int status = 1;
    if (start(&frontend, &why) == RESULT_OK) {
        child_start(child, &CHILD_HANDLER, &frontend);
        status = child_loop(child);
    } else {
        child_failed(child, &why);
    }
    stop(&frontend);
    return status;
}
