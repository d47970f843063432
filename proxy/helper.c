#include "proxy/helper.h"

#include <event2/buffer.h>

#include "common/admin.h"
#include "proxy/master.h"
#include "proxy/proxy_metrics.h"

struct helper {
    struct admin_source source; /* first: admin's callbacks get it */
    struct child *child;
    const struct metrics *metrics;
};

/* Full handshakes need a key server. */
static bool helper_ready(struct admin_source *source, struct evbuffer *why_not)
{
    const struct helper *helper = (const struct helper *)source;
    if (metrics_sum(helper->metrics, PROXY_KEY_CHANNELS_UP) > 0)
        return true;
    (void)evbuffer_add_printf(why_not, "no key server");
    return false;
}

static void helper_status(struct admin_source *source, struct evbuffer *to)
{
    const struct helper *helper = (const struct helper *)source;
    (void)evbuffer_add_printf(to,
                              "{\"version\": \"%s\", \"generation\": %u, \"connections\": %lld, "
                              "\"key_channels\": %lld, \"signatures_pending\": %lld}",
                              KEYLESS_VERSION, child_generation(helper->child),
                              (long long)metrics_sum(helper->metrics, PROXY_CONNECTIONS_OPEN),
                              (long long)metrics_sum(helper->metrics, PROXY_KEY_CHANNELS_UP),
                              (long long)metrics_sum(helper->metrics, PROXY_KEY_PENDING));
}

static enum result helper_serve(struct helper *helper, const struct proxy_setup *setup, struct admin **admin,
                                struct failure *why)
{
    enum result result = process_drop_privileges(setup->config->user, why);
    if (result != RESULT_OK)
        return result;
    return admin_new(child_base(helper->child), proxy_setup_take_admin(setup), setup->metrics,
                     &helper->source, child_log(helper->child), admin, why);
}

int helper_run(struct child *child, const void *config)
{
    static const struct child_handler HANDLER = {0};
    const struct proxy_setup *setup = config;
    struct helper helper = {.source = {.ready = helper_ready, .status = helper_status},
                            .child = child,
                            .metrics = setup->metrics};
    struct admin *admin = NULL;
    struct failure why;
    int status = 1;
    if (helper_serve(&helper, setup, &admin, &why) != RESULT_OK) {
        child_failed(child, &why);
    } else {
        child_start(child, &HANDLER, NULL);
        child_ready(child);
        status = child_loop(child);
    }
    admin_free(admin);
    return status;
}
