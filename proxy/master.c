#include "proxy/master.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "common/channel.h"
#include "common/socket.h"
#include "proxy/helper.h"
#include "proxy/proxy_metrics.h"
#include "proxy/worker.h"

#define LISTEN_BACKLOG 4096
#define ADMIN_BACKLOG  64
/* A worker is ready within 5 s even without a key server; the rest is reading and forking on a busy machine.
 */
#define READY_TIMEOUT UINT64_C(30000000)

/* The master itself. */
struct proxy_master {
    const char *path;
    struct log *log;
    struct metrics *metrics;
    LIST_HEAD(, proxy_setup) setups; /* of all generations that there are */
};

/* ---- Reading. */

static enum result setup_listen(struct proxy_setup *setup, struct failure *why)
{
    const struct proxy_config *config = setup->config;
    setup->listen = calloc(config->listen_count, sizeof *setup->listen);
    if (setup->listen == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory for %zu addresses", config->listen_count);
    for (size_t i = 0; i < config->listen_count; i++)
        setup->listen[i] = config->listen[i].address;
    return RESULT_OK;
}

static enum result setup_key_channel(struct proxy_setup *setup, struct failure *why)
{
    const struct channel_credentials files = {.certificate = setup->config->key_channel.certificate,
                                              .key = setup->config->key_channel.key,
                                              .ca = setup->config->key_channel.ca};
    return channel_client_context(&files, &setup->key_channel, why);
}

static enum result setup_read(struct proxy_setup *setup, const char *path, struct log *log,
                              struct failure *why)
{
    enum result result = proxy_config_read(path, &setup->config, why);
    if (result == RESULT_OK)
        result = setup_listen(setup, why);
    if (result == RESULT_OK)
        result = certificates_read(setup->config, log, &setup->certificates, why);
    if (result == RESULT_OK)
        result = setup_key_channel(setup, why);
    return result;
}

enum result proxy_setup_read(const char *path, struct log *log, struct proxy_setup **setup,
                             struct failure *why)
{
    struct proxy_setup *made = calloc(1, sizeof *made);
    *setup = made;
    if (made == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory for the configuration");
    made->admin_listener = -1;
    enum result result = setup_read(made, path, log, why);
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
    socket_close(&setup->admin_listener);
    SSL_CTX_free(setup->key_channel);
    certificates_free(setup->certificates);
    free(setup->listen);
    proxy_config_free(setup->config);
    free(setup);
}

/* ---- The admin address: bound by the master, served by the helper. */

/* An address that stays over a reload is not bound again: the generation that goes on using it has it. */
static int admin_find(const struct proxy_master *master, const struct address *address)
{
    const struct proxy_setup *setup;
    for (setup = LIST_FIRST(&master->setups); setup != NULL; setup = LIST_NEXT(setup, link))
        if (setup->admin_listener >= 0 && address_equal(&setup->config->admin_listen, address))
            return setup->admin_listener;
    return -1;
}

static enum result admin_open(const struct proxy_master *master, struct proxy_setup *setup,
                              struct failure *why)
{
    const struct socket_listen_options options = {.backlog = ADMIN_BACKLOG};
    const struct address *address = &setup->config->admin_listen;
    if (address->size == 0)
        return RESULT_OK;
    int found = admin_find(master, address);
    if (found < 0)
        return socket_listen(address, &options, &setup->admin_listener, why);
    setup->admin_listener = fcntl(found, F_DUPFD_CLOEXEC, 0);
    return setup->admin_listener >= 0 ? RESULT_OK : failure_set_errno(why, "cannot keep the admin socket");
}

int proxy_setup_take_admin(const struct proxy_setup *setup)
{
    struct proxy_setup *own = (struct proxy_setup *)setup;
    int listener = own->admin_listener;
    own->admin_listener = -1;
    return listener;
}

/* ---- What the processes are. */

static size_t setup_kinds(struct proxy_setup *setup)
{
    size_t count = 0;
    setup->kinds[count++] = (struct process_kind){.name = "worker",
                                                  .count = setup->config->workers,
                                                  .accepts = true,
                                                  .links_to = -1,
                                                  .run = worker_run};
    if (setup->admin_listener >= 0)
        setup->kinds[count++] =
            (struct process_kind){.name = "helper", .count = 1, .links_to = -1, .run = helper_run};
    return count;
}

static enum result proxy_load(void *context, struct process_plan *plan, struct failure *why)
{
    struct proxy_master *master = context;
    struct proxy_setup *setup;
    enum result result = proxy_setup_read(master->path, master->log, &setup, why);
    if (result != RESULT_OK)
        return result;
    result = admin_open(master, setup, why);
    if (result != RESULT_OK) {
        proxy_setup_free(setup);
        return result;
    }
    setup->metrics = master->metrics;
    LIST_INSERT_HEAD(&master->setups, setup, link);
    *plan = (struct process_plan){.config = setup,
                                  .kinds = setup->kinds,
                                  .kind_count = setup_kinds(setup),
                                  .listen = setup->listen,
                                  .listen_count = setup->config->listen_count,
                                  .listen_backlog = LISTEN_BACKLOG,
                                  .drain_timeout = setup->config->drain_timeout,
                                  .ready_timeout = READY_TIMEOUT,
                                  .log = setup->config->log};
    return RESULT_OK;
}

static void proxy_release(void *context, struct process_plan *plan)
{
    (void)context;
    struct proxy_setup *setup = plan->config;
    LIST_REMOVE(setup, link);
    proxy_setup_free(setup);
}

int proxy_master_run(const char *path, struct log *log)
{
    struct proxy_master master = {.path = path, .log = log};
    LIST_INIT(&master.setups);
    struct failure why;
    if (metrics_new(proxy_metrics, PROXY_METRIC_COUNT, &master.metrics, &why) != RESULT_OK) {
        log_error(log, "start failed", log_reason(why.text));
        return 1;
    }
    const struct process_program program = {.name = "proxy",
                                            .load = proxy_load,
                                            .release = proxy_release,
                                            .context = &master,
                                            .metrics = master.metrics,
                                            .first_metric = PROXY_PROCESSES};
    int status = master_run(&program, log);
    metrics_free(master.metrics);
    return status;
}
