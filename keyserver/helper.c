#include "keyserver/helper.h"

#include <event2/buffer.h>

#include "common/admin_process.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/plan.h"

struct helper {
    struct admin_source source; /* first: the one is the other */
    struct child *child;
    const struct keyserver_plan *plan;
};

/* The signer clears the gauge of its keys when it goes. */
static bool is_ready(struct admin_source *source, struct evbuffer *why_not)
{
    const struct helper *helper = (const struct helper *)source;
    if (metrics_sum(helper->plan->program.metrics, KEYSERVER_KEYS) > 0)
        return true;
    (void)evbuffer_add_printf(why_not, "no signer");
    return false;
}

static void write_status(struct admin_source *source, struct evbuffer *to)
{
    const struct helper *helper = (const struct helper *)source;
    struct json json = json_to(to);
    json_begin_object(&json, NULL);
    program_status_write(&helper->plan->program, child_generation(helper->child), &json);
    json_end_object(&json);
}

static void write_metrics(struct admin_source *source, struct evbuffer *to)
{
    static const char *const KINDS[] = {"signer", "frontend", "helper"};
    const struct helper *helper = (const struct helper *)source;
    program_metrics_write(&helper->plan->program, KINDS, sizeof KINDS / sizeof *KINDS, to);
}

int helper_run(struct child *child, const void *config)
{
    const struct keyserver_plan *plan = config;
    struct helper helper = {.source = {.ready = is_ready, .status = write_status, .metrics = write_metrics},
                            .child = child,
                            .plan = plan};
    return admin_process_run(child, plan->config->user, plan->program.metrics, &helper.source);
}
