#include "proxy/certificate_renewal.h"

#include <stdlib.h>

#include "common/socket.h"
#include "proxy/certificate_handover.h"
#include "proxy/certificate_watch.h"
#include "proxy/proxy_metrics.h"

struct certificate_renewal {
    struct master *master;
    struct proxy_setup *setup;
    struct log *log;
    struct certificate_watch *watch;
    const struct certificate **changed; /* since the last tick, to be handed over; held */
    size_t count, capacity;
};

/* ---- Telling the children. */

static void tell(const struct certificate_renewal *renewal, size_t kind, int fd)
{
    const struct child_message message = {
        .kind = kind, .index = MASTER_TELL_ALL, .what = PROXY_TOLD_CERTIFICATES, .descriptor = fd};
    if (kind < renewal->setup->kind_count)
        master_tell(renewal->master, renewal->setup, &message);
}

static void changed_clear(struct certificate_renewal *renewal)
{
    for (size_t i = 0; i < renewal->count; i++)
        certificate_drop(renewal->changed[i]);
    renewal->count = 0;
}

static void hand_over(struct certificate_renewal *renewal)
{
    struct failure why;
    int fd;
    if (renewal->count == 0)
        return;
    if (certificate_handover_make(renewal->setup->config, renewal->changed, renewal->count, &fd, &why) ==
        RESULT_OK) {
        tell(renewal, KIND_WORKER, fd);
        tell(renewal, KIND_HELPER, fd);
        socket_close(&fd);
    } else {
        log_error(renewal->log, "renewed certificates not handed over", log_reason(why.text));
    }
    changed_clear(renewal);
}

static bool changed_add(struct certificate_renewal *renewal, const struct certificate *certificate)
{
    if (renewal->count == renewal->capacity) {
        size_t capacity = renewal->capacity == 0 ? 16 : 2 * renewal->capacity;
        const struct certificate **list = realloc(renewal->changed, capacity * sizeof *list);
        if (list == NULL)
            return false;
        renewal->changed = list;
        renewal->capacity = capacity;
    }
    renewal->changed[renewal->count++] = certificate_hold(certificate);
    return true;
}

/* ---- What the watch finds. */

static void on_failed(const char *path, const struct failure *why, void *owner)
{
    const struct certificate_renewal *renewal = owner;
    metric_add(master_metrics(renewal->master), PROXY_RENEWALS_FAILED, 1);
    log_error(renewal->log, "certificate not renewed", log_text("file", path), log_reason(why->text));
}

static bool refuse(struct certificate_renewal *renewal, struct certificate *certificate, const char *reason)
{
    struct failure why;
    (void)failure_set(&why, RESULT_CONFIG, "%s: %s", certificate->path, reason);
    on_failed(certificate->path, &why, renewal);
    certificate_drop(certificate);
    return false;
}

static bool on_changed(struct certificate *certificate, size_t *index, void *owner)
{
    struct certificate_renewal *renewal = owner;
    struct certificates *certificates = renewal->setup->certificates;
    bool renewed = *index != SIZE_MAX;
    if (proxy_setup_has_channel_key(renewal->setup, certificate))
        return refuse(renewal, certificate, "its private key is the one of key_channel");
    *index = renewed ? *index : certificates_count(certificates);
    if (!certificates_put(certificates, *index, certificate) || !changed_add(renewal, certificate)) {
        log_error(renewal->log, "certificate not renewed", log_reason("no memory"));
        return true;
    }
    metric_add(master_metrics(renewal->master), PROXY_RENEWALS_OK, 1);
    log_info(renewal->log, renewed ? "certificate renewed" : "certificate added",
             log_text("file", certificate->path), log_text("type", key_type_name(certificate->key.type)));
    return true;
}

/* ---- Life. */

struct certificate_renewal *certificate_renewal_new(struct master *master, struct proxy_setup *setup,
                                                    struct log *log)
{
    struct certificate_renewal *renewal = calloc(1, sizeof *renewal);
    if (renewal == NULL)
        return NULL;
    *renewal = (struct certificate_renewal){.master = master, .setup = setup, .log = log};
    const struct certificate_watch_handler handler = {on_changed, on_failed, renewal};
    renewal->watch = certificate_watch_new(setup->config, setup->certificates, &handler, log);
    if (renewal->watch != NULL)
        return renewal;
    free(renewal);
    return NULL;
}

void certificate_renewal_free(struct certificate_renewal *renewal)
{
    if (renewal == NULL)
        return;
    certificate_watch_free(renewal->watch);
    changed_clear(renewal);
    free(renewal->changed);
    free(renewal);
}

void certificate_renewal_forget(struct certificate_renewal *renewal)
{
    if (renewal != NULL)
        certificate_watch_forget(renewal->watch);
}

void certificate_renewal_tick(struct certificate_renewal *renewal)
{
    certificate_watch_tick(renewal->watch);
    hand_over(renewal);
}
