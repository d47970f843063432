#include "proxy/helper.h"

#include <event2/buffer.h>

#include "common/admin_process.h"
#include "proxy/master.h"
#include "proxy/proxy_metrics.h"

struct helper {
    struct admin_source source; /* first: admin's callbacks get it */
    struct child *child;
    const struct proxy_setup *setup;
};

/* Full handshakes need a key server. */
static bool helper_ready(struct admin_source *source, struct evbuffer *why_not)
{
    const struct helper *helper = (const struct helper *)source;
    if (metrics_sum(helper->setup->program.metrics, PROXY_KEY_CHANNELS_UP) > 0)
        return true;
    (void)evbuffer_add_printf(why_not, "no key server");
    return false;
}

static void helper_status(struct admin_source *source, struct evbuffer *to)
{
    const struct helper *helper = (const struct helper *)source;
    struct json json = json_to(to);
    json_begin_object(&json, NULL);
    program_status_write(&helper->setup->program, child_generation(helper->child), &json);
    json_end_object(&json);
}

static void helper_metrics(struct admin_source *source, struct evbuffer *to)
{
    static const char *const KINDS[] = {"worker", "helper"};
    const struct helper *helper = (const struct helper *)source;
    program_metrics_write(&helper->setup->program, KINDS, sizeof KINDS / sizeof *KINDS, to);
}

int helper_run(struct child *child, const void *config)
{
    const struct proxy_setup *setup = config;
    struct helper helper = {
        .source = {.ready = helper_ready, .status = helper_status, .metrics = helper_metrics},
        .child = child,
        .setup = setup};
    return admin_process_run(child, setup->config->user, setup->program.metrics, &helper.source);
}
