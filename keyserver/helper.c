#include "keyserver/helper.h"

#include <fcntl.h>
#include <stdlib.h>

#include <event2/buffer.h>

#include "common/admin.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/plan.h"

struct helper {
    struct admin_source source; /* first: the one is the other */
    struct child *child;
    const struct keyserver_plan *plan;
    struct admin **admins; /* one for each listening socket that is ours to serve */
    size_t count;
};

/* The signer clears the gauge of its keys when it goes. */
static bool is_ready(struct admin_source *source, struct evbuffer *why_not)
{
    const struct helper *helper = (const struct helper *)source;
    if (metrics_sum(helper->plan->metrics, KEYSERVER_KEYS) > 0)
        return true;
    (void)evbuffer_add_printf(why_not, "no signer");
    return false;
}

static void write_status(struct admin_source *source, struct evbuffer *to)
{
    static const struct status_row {
        const char *name;
        size_t metric;
    } ROWS[] = {
        {"keys", KEYSERVER_KEYS},
        {"connections", KEYSERVER_CONNECTIONS_OPEN},
        {"requests_pending", KEYSERVER_PENDING},
    };
    const struct helper *helper = (const struct helper *)source;
    (void)evbuffer_add_printf(
        to, "{\"program\":\"keyserver\",\"version\":\"%s\",\"generation\":%u,\"workers\":%u", KEYLESS_VERSION,
        child_generation(helper->child), helper->plan->config->workers);
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++)
        (void)evbuffer_add_printf(to, ",\"%s\":%lld", ROWS[i].name,
                                  (long long)metrics_sum(helper->plan->metrics, ROWS[i].metric));
    (void)evbuffer_add_printf(to, "}");
}

/* ---- What the master says. */

static void serve(struct helper *helper, size_t socket)
{
    struct failure why;
    int listener = fcntl(child_listener_fd(helper->child, socket), F_DUPFD_CLOEXEC, 0);
    enum result result =
        listener < 0 ? failure_set_errno(&why, "cannot duplicate the admin socket")
                     : admin_new(child_base(helper->child), listener, helper->plan->metrics, &helper->source,
                                 child_log(helper->child), &helper->admins[socket], &why);
    if (result != RESULT_OK)
        log_error(child_log(helper->child), "cannot serve the admin endpoint", log_reason(why.text));
}

static void on_retire(size_t socket, void *owner)
{
    struct helper *helper = owner;
    admin_free(helper->admins[socket]);
    helper->admins[socket] = NULL;
}

static bool listed(size_t socket, const size_t *sockets, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (sockets[i] == socket)
            return true;
    return false;
}

static void on_listen(const size_t *sockets, size_t count, void *owner)
{
    struct helper *helper = owner;
    for (size_t i = 0; i < helper->count; i++) {
        bool ours = listed(i, sockets, count);
        if (!ours)
            on_retire(i, helper);
        else if (helper->admins[i] == NULL)
            serve(helper, i);
    }
}

static const struct child_handler HANDLER = {.listen = on_listen, .retire = on_retire};

/* ---- The process. */

static enum result start(struct helper *helper, struct failure *why)
{
    enum result result = process_drop_privileges(helper->plan->config->user, why);
    if (result != RESULT_OK)
        return result;
    helper->count = child_listener_count(helper->child);
    helper->admins = calloc(helper->count + 1, sizeof(struct admin *));
    return helper->admins != NULL ? RESULT_OK : failure_set(why, RESULT_LIMIT, "no memory for the helper");
}

int helper_run(struct child *child, const void *config)
{
    struct helper helper = {
        .source = {.ready = is_ready, .status = write_status}, .child = child, .plan = config};
    struct failure why;
    int status = 1;
    if (start(&helper, &why) == RESULT_OK) {
        child_start(child, &HANDLER, &helper);
        child_ready(child);
        status = child_loop(child);
    } else {
        child_failed(child, &why);
    }
    for (size_t i = 0; i < helper.count && helper.admins != NULL; i++)
        admin_free(helper.admins[i]);
    free(helper.admins);
    return status;
}
