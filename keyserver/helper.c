#include "keyserver/helper.h"

#include "common/admin_process.h"
#include "keyserver/plan.h"
#include "keyserver/status.h"

struct helper {
    struct admin_source source; /* first: the one is the other */
    struct keyserver_status status;
};

static bool is_ready(struct admin_source *source, struct evbuffer *why_not)
{
    const struct helper *helper = (const struct helper *)source;
    return keyserver_status_ready(&helper->status, why_not);
}

static void write_status(struct admin_source *source, struct evbuffer *to)
{
    const struct helper *helper = (const struct helper *)source;
    struct json json = json_to(to);
    json_begin_object(&json, NULL);
    program_status_write(&helper->status.plan->program, helper->status.generation, &json);
    keyserver_status_write(&helper->status, &json);
    json_end_object(&json);
}

static void write_metrics(struct admin_source *source, struct evbuffer *to)
{
    static const char *const KINDS[] = {"auditor", "signer", "frontend", "helper"};
    const struct helper *helper = (const struct helper *)source;
    program_metrics_write(&helper->status.plan->program, KINDS, sizeof KINDS / sizeof *KINDS, to);
    keyserver_status_metrics(&helper->status, to);
}

int helper_run(struct child *child, const void *config)
{
    const struct keyserver_plan *plan = config;
    struct helper helper = {.source = {.ready = is_ready, .status = write_status, .metrics = write_metrics},
                            .status = {.plan = plan, .generation = child_generation(child)}};
    client_rates_leave(plan->rates, RATES_OF_FRONTENDS);
    client_rates_leave(plan->rates, RATES_OF_SIGNER);
    return admin_process_run(child, plan->config->user, plan->program.metrics, &helper.source, NULL);
}
