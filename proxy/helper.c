#include "proxy/helper.h"

#include <openssl/crypto.h>

#include "common/admin_process.h"
#include "common/socket.h"
#include "proxy/certificate_feed.h"
#include "proxy/certificate_renewal.h"
#include "proxy/certificate_verdicts.h"
#include "proxy/master.h"
#include "proxy/status.h"

struct helper {
    struct admin_source source; /* first: admin's callbacks get it */
    struct proxy_status status;
    struct certificate_feed *feed;
};

static bool helper_ready(struct admin_source *source, struct evbuffer *why_not)
{
    const struct helper *helper = (const struct helper *)source;
    return proxy_status_ready(&helper->status, why_not);
}

static void helper_status(struct admin_source *source, struct evbuffer *to)
{
    const struct helper *helper = (const struct helper *)source;
    struct json json = json_to(to);
    json_begin_object(&json, NULL);
    program_status_write(&helper->status.setup->program, helper->status.generation, &json);
    proxy_status_write(&helper->status, &json);
    json_end_object(&json);
}

static void helper_metrics(struct admin_source *source, struct evbuffer *to)
{
    static const char *const KINDS[] = {"worker", "helper"};
    const struct helper *helper = (const struct helper *)source;
    program_metrics_write(&helper->status.setup->program, KINDS, sizeof KINDS / sizeof *KINDS, to);
    proxy_status_metrics(&helper->status, to);
}

static void helper_message(const struct child_message *message, void *source)
{
    const struct helper *helper = source;
    int fd = message->descriptor;
    if (message->what == PROXY_TOLD_CERTIFICATES)
        certificate_feed_take(helper->feed, fd);
    else if (message->what == PROXY_TOLD_SIGNED || message->what == PROXY_TOLD_NOT_SIGNED)
        (void)certificates_judge(helper->status.setup->certificates, message->number,
                                 message->what == PROXY_TOLD_SIGNED);
    else
        socket_close(&fd);
}

int helper_run(struct child *child, const void *config)
{
    const struct proxy_setup *setup = config;
    /* It has no use for keys. */
    ticket_memory_free(setup->tickets);
    if (setup->ticket_keys != NULL)
        OPENSSL_cleanse(setup->ticket_keys, sizeof *setup->ticket_keys);
    certificate_renewal_forget(setup->renewal);
    struct helper helper = {
        .source = {.ready = helper_ready, .status = helper_status, .metrics = helper_metrics},
        .status = {.setup = setup, .generation = child_generation(child)},
        .feed =
            certificate_feed_new(child_base(child), setup->config, setup->certificates, child_log(child))};
    struct failure why;
    if (helper.feed == NULL) {
        (void)failure_set_errno(&why, "the admin process");
        child_failed(child, &why);
        return 1;
    }
    int status =
        admin_process_run(child, setup->config->user, setup->program.metrics, &helper.source, helper_message);
    certificate_feed_free(helper.feed);
    return status;
}
