#include "proxy/worker.h"

#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/event_struct.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/access_log.h"
#include "proxy/backend.h"
#include "proxy/builtin_hello.h"
#include "proxy/certificate_feed.h"
#include "proxy/certificate_renewal.h"
#include "proxy/certificate_trial.h"
#include "proxy/certificate_verdicts.h"
#include "proxy/connection.h"
#include "proxy/handshake.h"
#include "proxy/key_client.h"
#include "proxy/key_members.h"
#include "proxy/listener.h"
#include "proxy/master.h"
#include "proxy/ocsp_settings.h"
#include "proxy/worker_status.h"

/* A start or a reload is never refused because a key server is away. */
#define READY_WITHOUT_KEYS UINT64_C(5000000)

struct worker {
    struct child *child;
    const struct proxy_setup *setup;
    struct key_client *keys;
    struct ticket_source *tickets;
    struct handshake_context *handshakes;
    struct certificate_feed *feed;
    struct certificate_trials *trials; /* the first worker's; NULL: another tries */
    struct builtin_hello *hello;
    struct backends *backends;
    struct access_log *access; /* NULL: off */
    struct connections *connections;
    struct redirects *redirects;
    struct listener_set *listeners;
    struct event ready_timer;
    struct worker_status *status; /* as last told */
    bool ready, draining;
    bool tried, has_keys, stapled; /* what it waits for to be ready */
};

/* ---- Setting up, and taking down in the opposite order. */

static enum result worker_set_up(struct worker *worker, struct failure *why)
{
    struct child *child = worker->child;
    const struct proxy_setup *setup = worker->setup;
    enum result result = key_client_new(child_base(child), setup->config, setup->key_channel,
                                        child_log(child), child_metrics(child), &worker->keys, why);
    const struct ticket_source_settings tickets = {.config = setup->config,
                                                   .from_file = setup->ticket_keys,
                                                   .memory = setup->tickets,
                                                   .generation = child_generation(child),
                                                   .index = child_index(child),
                                                   .client = worker->keys,
                                                   .log = child_log(child),
                                                   .metrics = child_metrics(child)};
    if (result == RESULT_OK && setup->endpoints != NULL)
        key_client_follow(worker->keys, setup->endpoints, setup->endpoint_places);
    if (result == RESULT_OK)
        result = ticket_source_new(&tickets, &worker->tickets, why);
    if (result != RESULT_OK)
        return result;
    const struct handshake_settings handshakes = {.config = setup->config,
                                                  .certificates = setup->certificates,
                                                  .client_auths = setup->client_auths,
                                                  .staples = setup->staples,
                                                  .client = worker->keys,
                                                  .tickets = worker->tickets,
                                                  .log = child_log(child),
                                                  .metrics = child_metrics(child)};
    return handshake_context_new(&handshakes, &worker->handshakes, why);
}

static void on_connection_ended(void *owner);
static void on_trial_passed(uint32_t number, void *owner);
static void on_trials_settled(void *owner);
static void on_trial_found(uint64_t place, bool good, void *owner);

static bool worker_set_up_trials(struct worker *worker)
{
    struct child *child = worker->child;
    const struct certificate_trials_settings settings = {.base = child_base(child),
                                                         .config = worker->setup->config,
                                                         .certificates = worker->setup->certificates,
                                                         .client = worker->keys,
                                                         .log = child_log(child),
                                                         .metrics = child_metrics(child),
                                                         .passed = on_trial_passed,
                                                         .settled = on_trials_settled,
                                                         .found = on_trial_found,
                                                         .owner = worker};
    if (child_index(child) != PROXY_TRIES)
        return true;
    worker->trials = certificate_trials_new(&settings);
    return worker->trials != NULL;
}

static enum result worker_set_up_connections(struct worker *worker, struct failure *why)
{
    struct child *child = worker->child;
    const struct proxy_config *config = worker->setup->config;
    worker->hello = builtin_hello_new(child_base(child), child_index(child));
    worker->backends = backends_new(config, worker->hello, child_log(child), child_metrics(child));
    enum result result =
        access_log_open(config, child_log(child), child_metrics(child), &worker->access, why);
    if (result != RESULT_OK)
        return result;
    const struct connections_settings settings = {.base = child_base(child),
                                                  .config = config,
                                                  .handshakes = worker->handshakes,
                                                  .backends = worker->backends,
                                                  .log = child_log(child),
                                                  .access = worker->access,
                                                  .metrics = child_metrics(child),
                                                  .ended = on_connection_ended,
                                                  .owner = worker};
    const struct redirects_settings redirects = {.base = child_base(child),
                                                 .timeout = config->limits.handshake_timeout,
                                                 .log = child_log(child),
                                                 .access = worker->access,
                                                 .metrics = child_metrics(child),
                                                 .ended = on_connection_ended,
                                                 .owner = worker};
    worker->connections = connections_new(&settings);
    worker->feed =
        certificate_feed_new(child_base(child), config, worker->setup->certificates, child_log(child));
    worker->redirects = redirects_new(&redirects);
    if (worker->connections != NULL && worker->redirects != NULL)
        worker->listeners = listener_set_new(child, config, worker->connections, worker->redirects);
    worker->status = calloc(1, worker_status_size(config->key_server_count));
    if (!worker_set_up_trials(worker) || worker->feed == NULL || worker->hello == NULL ||
        worker->backends == NULL || worker->listeners == NULL || worker->status == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory for a worker");
    return RESULT_OK;
}

static void worker_take_down(struct worker *worker)
{
    listener_set_free(worker->listeners);
    connections_free(worker->connections);
    redirects_free(worker->redirects);
    access_log_free(worker->access);
    certificate_feed_free(worker->feed);
    certificate_trials_free(worker->trials);
    backends_free(worker->backends);
    builtin_hello_free(worker->hello);
    handshake_context_free(worker->handshakes);
    key_client_free(worker->keys);
    ticket_source_free(worker->tickets);
    ticket_memory_free(worker->setup->tickets);
    free(worker->status);
}

/* ---- Telling. */

/* One that drains has a successor, which tells in the same place. */
static void worker_tell(struct worker *worker)
{
    struct worker_status *status = worker->status;
    if (worker->draining)
        return;
    if (worker->trials != NULL)
        certificate_trials_tick(worker->trials);
    status->pid = getpid();
    status->connections = connections_count(worker->connections);
    status->pending = key_client_pending(worker->keys);
    key_client_status(worker->keys, status->servers);
    status_area_write(worker->setup->workers, child_index(worker->child), status);
}

/* ---- Readiness. */

static void worker_say_ready(struct worker *worker)
{
    if (worker->ready)
        return;
    worker->ready = true;
    (void)event_del(&worker->ready_timer);
    worker_tell(worker);
    child_ready(worker->child);
    if (worker->trials != NULL)
        certificate_trials_begin(worker->trials);
}

static void worker_check_ready(struct worker *worker)
{
    if (worker->has_keys && worker->tried && worker->stapled)
        worker_say_ready(worker);
}

/* The first client is shown a response already. */
static void worker_check_staples(struct worker *worker)
{
    if (worker->stapled || worker->ready ||
        !staples_settled(worker->setup->staples, child_generation(worker->child)))
        return;
    worker->stapled = true;
    worker_check_ready(worker);
}

static void on_keys_ready(void *owner)
{
    struct worker *worker = owner;
    worker->has_keys = true;
    worker_check_ready(worker);
}

/* Who waits for a reload meets the new chains. */
static void on_trials_settled(void *owner)
{
    struct worker *worker = owner;
    worker->tried = true;
    worker_check_ready(worker);
}

static void on_trial_passed(uint32_t number, void *owner)
{
    const struct worker *worker = owner;
    child_tell(worker->child, PROXY_SAID_GOOD, number);
}

static void on_trial_found(uint64_t place, bool good, void *owner)
{
    const struct worker *worker = owner;
    child_tell(worker->child, good ? PROXY_SAID_SIGNED : PROXY_SAID_NOT_SIGNED, place);
}

static void on_ready_timer(evutil_socket_t fd, short what, void *owner)
{
    (void)fd;
    (void)what;
    struct worker *worker = owner;
    if (!worker->has_keys)
        log_warn(child_log(worker->child), "no key server yet",
                 log_reason("clients are accepted all the same"));
    worker_say_ready(worker);
}

static void worker_wait_ready(struct worker *worker)
{
    struct timeval after = clock_timeval(READY_WITHOUT_KEYS);
    (void)evtimer_assign(&worker->ready_timer, child_base(worker->child), on_ready_timer, worker);
    (void)event_add(&worker->ready_timer, &after);
    worker->tried = worker->trials == NULL;
    worker->stapled = !ocsp_settings_use(worker->setup->config, OCSP_FETCH);
    if (worker->trials != NULL)
        child_tell(worker->child, PROXY_SAID_WHICH, 0);
    key_client_when_ready(worker->keys, on_keys_ready, worker);
}

/* ---- What the master says. */

static void on_listen(const size_t *sockets, size_t count, void *owner)
{
    struct worker *worker = owner;
    listener_set_listen(worker->listeners, sockets, count);
}

static void on_retire(size_t socket, void *owner)
{
    struct worker *worker = owner;
    listener_set_retire(worker->listeners, socket);
}

static void worker_end_if_done(struct worker *worker)
{
    if (worker->draining && connections_count(worker->connections) + redirects_count(worker->redirects) == 0)
        child_end(worker->child, 0);
}

/* The connections that there are go on to their own end, or to the master's drain_timeout. */
static void on_drain(enum child_drain why, void *owner)
{
    (void)why;
    struct worker *worker = owner;
    worker->draining = true;
    certificate_trials_free(worker->trials); /* its successor tries */
    worker->trials = NULL;
    builtin_hello_drain(worker->hello);
    worker_end_if_done(worker);
}

static void on_connection_ended(void *owner)
{
    struct worker *worker = owner;
    listener_set_room(worker->listeners);
    worker_end_if_done(worker);
}

static void on_judged(const struct worker *worker, const struct child_message *message)
{
    (void)certificates_judge(worker->setup->certificates, message->number,
                             message->what == PROXY_TOLD_SIGNED);
    if (worker->trials != NULL)
        certificate_trials_heard(worker->trials);
}

static void on_message(const struct child_message *message, void *owner)
{
    const struct worker *worker = owner;
    int fd = message->descriptor;
    if (message->what == PROXY_TOLD_CERTIFICATES)
        certificate_feed_take(worker->feed, fd);
    else if (message->what == PROXY_TOLD_SIGNED || message->what == PROXY_TOLD_NOT_SIGNED)
        on_judged(worker, message);
    else if (message->what == PROXY_TOLD_TRIALS && worker->trials != NULL)
        certificate_trials_take(worker->trials, fd);
    else
        socket_close(&fd);
}

static void on_tick(void *owner)
{
    struct worker *worker = owner;
    key_client_tick(worker->keys);
    ticket_source_tick(worker->tickets);
    worker_check_staples(worker);
    worker_tell(worker);
}

static const struct child_handler HANDLER = {
    .listen = on_listen, .retire = on_retire, .drain = on_drain, .message = on_message, .tick = on_tick};

/* Of its family the usual protocol: not SCTP or MPTCP, which are much code and pass Landlock by. */
#define STREAM SANDBOX_BITS(1, 0xf, SOCK_STREAM), SANDBOX_ARGUMENT(2, 0)

static const struct sandbox_rule SANDBOX_RULES[] = {
    SANDBOX_ALLOW("accept4"),
    SANDBOX_ALLOW("getsockname"),
    SANDBOX_ALLOW("getpeername"),
    /* Backends and key servers. */
    {"socket", 0, {SANDBOX_ARGUMENT(0, AF_INET), STREAM}, false},
    {"socket", 0, {SANDBOX_ARGUMENT(0, AF_INET6), STREAM}, false},
    {"socket", 0, {SANDBOX_ARGUMENT(0, AF_UNIX), STREAM}, false},
    SANDBOX_ALLOW("connect"),
    {"socketpair", 0, {SANDBOX_ARGUMENT(0, AF_UNIX), STREAM}, false}, /* to builtin:hello */
};

const struct sandbox_profile worker_sandbox = {
    .rules = SANDBOX_RULES, .rule_count = sizeof SANDBOX_RULES / sizeof *SANDBOX_RULES, .connects = true};

int worker_run(struct child *child, const void *config)
{
    struct worker worker = {.child = child, .setup = config};
    struct failure why;
    int status = 1;
    certificate_renewal_forget(worker.setup->renewal);
    if (worker_set_up(&worker, &why) != RESULT_OK || worker_set_up_connections(&worker, &why) != RESULT_OK ||
        process_drop_privileges(worker.setup->config->user, &why) != RESULT_OK) {
        child_failed(child, &why);
    } else {
        child_start(child, &HANDLER, &worker);
        worker_wait_ready(&worker);
        status = child_loop(child);
        (void)event_del(&worker.ready_timer);
    }
    worker_take_down(&worker);
    return status;
}
