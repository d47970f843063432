#include "proxy/helper.h"

#include <sys/socket.h>

#include <openssl/crypto.h>

#include "common/admin_process.h"
#include "common/socket.h"
#include "proxy/certificate_feed.h"
#include "proxy/certificate_renewal.h"
#include "proxy/certificate_verdicts.h"
#include "proxy/key_names.h"
#include "proxy/master.h"
#include "proxy/ocsp_refresh.h"
#include "proxy/ocsp_settings.h"
#include "proxy/resolver.h"
#include "proxy/status.h"

struct helper {
    struct admin_source source; /* first: admin's callbacks get it */
    struct proxy_status status;
    struct certificate_feed *feed;
    struct resolver *resolver; /* NULL: nobody needs it */
    struct ocsp_refresh *ocsp; /* NULL: nothing is fetched */
    struct key_names *names;   /* NULL: no key server has a name */
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
    else if (message->what == PROXY_TOLD_TRIALS && helper->ocsp != NULL)
        ocsp_refresh_take(helper->ocsp, fd);
    else if (message->what == PROXY_TOLD_SIGNED || message->what == PROXY_TOLD_NOT_SIGNED)
        (void)certificates_judge(helper->status.setup->certificates, message->number,
                                 message->what == PROXY_TOLD_SIGNED);
    else
        socket_close(&fd);
}

bool helper_fetches(const struct proxy_config *config)
{
    return proxy_config_has_names(config) || ocsp_settings_use(config, OCSP_FETCH);
}

static enum result helper_set_up_names(struct helper *helper, struct child *child, struct failure *why)
{
    const struct proxy_setup *setup = helper->status.setup;
    const struct key_names_settings names = {.base = child_base(child),
                                             .resolver = helper->resolver,
                                             .config = setup->config,
                                             .endpoints = setup->endpoints,
                                             .places = setup->endpoint_places,
                                             .log = child_log(child),
                                             .metrics = child_metrics(child)};
    return proxy_config_has_names(setup->config) ? key_names_new(&names, &helper->names, why) : RESULT_OK;
}

static enum result helper_set_up_ocsp(struct helper *helper, struct child *child, struct failure *why)
{
    const struct proxy_setup *setup = helper->status.setup;
    const struct ocsp_refresh_settings ocsp = {.base = child_base(child),
                                               .resolver = helper->resolver,
                                               .config = setup->config,
                                               .certificates = setup->certificates,
                                               .staples = setup->staples,
                                               .generation = child_generation(child),
                                               .log = child_log(child),
                                               .metrics = child_metrics(child)};
    if (!ocsp_settings_use(setup->config, OCSP_FETCH))
        return RESULT_OK;
    enum result result = ocsp_refresh_new(&ocsp, &helper->ocsp, why);
    if (result == RESULT_OK)
        child_tell(child, PROXY_SAID_WHICH, 0);
    return result;
}

static enum result helper_set_up(struct helper *helper, struct child *child, struct failure *why)
{
    const struct proxy_setup *setup = helper->status.setup;
    enum result result = RESULT_OK;
    helper->feed =
        certificate_feed_new(child_base(child), setup->config, setup->certificates, child_log(child));
    if (helper->feed == NULL)
        return failure_set_errno(why, "the helper");
    if (helper_fetches(setup->config))
        result = resolver_new(child_base(child), &helper->resolver, why);
    if (result == RESULT_OK)
        result = helper_set_up_names(helper, child, why);
    return result == RESULT_OK ? helper_set_up_ocsp(helper, child, why) : result;
}

/* To name servers, and to responders over TCP; a protocol of its own only where libevent names it. */
#define TYPE(type) SANDBOX_BITS(1, 0xf, type)

static const struct sandbox_rule FETCHING_RULES[] = {
    ADMIN_PROCESS_RULES,
    {"socket", 0, {SANDBOX_ARGUMENT(0, AF_INET), TYPE(SOCK_STREAM), SANDBOX_ARGUMENT(2, 0)}, false},
    {"socket", 0, {SANDBOX_ARGUMENT(0, AF_INET6), TYPE(SOCK_STREAM), SANDBOX_ARGUMENT(2, 0)}, false},
    {"socket", 0, {SANDBOX_ARGUMENT(0, AF_INET), TYPE(SOCK_DGRAM), SANDBOX_ARGUMENT(2, 0)}, false},
    {"socket", 0, {SANDBOX_ARGUMENT(0, AF_INET6), TYPE(SOCK_DGRAM), SANDBOX_ARGUMENT(2, 0)}, false},
    SANDBOX_ALLOW("connect"),
};

const struct sandbox_profile helper_fetching_sandbox = {
    .rules = FETCHING_RULES, .rule_count = sizeof FETCHING_RULES / sizeof *FETCHING_RULES, .connects = true};

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
        .status = {.setup = setup, .generation = child_generation(child)}};
    struct failure why;
    int status = 1;
    if (helper_set_up(&helper, child, &why) == RESULT_OK)
        status = admin_process_run(child, setup->config->user, setup->program.metrics, &helper.source,
                                   helper_message);
    else
        child_failed(child, &why);
    ocsp_refresh_free(helper.ocsp);
    key_names_free(helper.names);
    resolver_free(helper.resolver);
    certificate_feed_free(helper.feed);
    return status;
}
