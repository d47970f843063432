#include "proxy/certificate_renewal.h"

#include <stdlib.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/certificate_expiry.h"
#include "proxy/certificate_handover.h"
#include "proxy/certificate_verdicts.h"
#include "proxy/certificate_watch.h"
#include "proxy/certificates_private.h"
#include "proxy/ocsp_files.h"
#include "proxy/ocsp_settings.h"
#include "proxy/proxy_metrics.h"

struct certificate_renewal {
    struct master *master; /* NULL: it has not begun */
    struct proxy_setup *setup;
    struct log *log;
    struct certificate_watch *watch;
    struct ocsp_files *ocsp;         /* NULL: nothing is stapled */
    const struct certificate **good; /* to be served, and not handed over yet; held */
    size_t good_count, good_capacity;
    bool trials_changed;
    uint64_t warned; /* when the log was last told what expires soon */
};

/* ---- Telling the children. */

static void tell(const struct certificate_renewal *renewal, const struct child_message *message)
{
    if (message->kind < renewal->setup->kind_count)
        master_tell(renewal->master, renewal->setup, message);
}

static void tell_all(const struct certificate_renewal *renewal, struct child_message message)
{
    message.index = MASTER_TELL_ALL;
    for (message.kind = 0; message.kind < KIND_COUNT; message.kind++)
        tell(renewal, &message);
}

static void good_clear(struct certificate_renewal *renewal)
{
    for (size_t i = 0; i < renewal->good_count; i++)
        certificate_drop(renewal->good[i]);
    renewal->good_count = 0;
}

static void hand_over(struct certificate_renewal *renewal)
{
    struct failure why;
    int fd;
    if (renewal->good_count == 0)
        return;
    if (certificate_handover_make(renewal->setup->config, renewal->good, renewal->good_count, &fd, &why) ==
        RESULT_OK) {
        tell_all(renewal, (struct child_message){.what = PROXY_TOLD_CERTIFICATES, .descriptor = fd});
        socket_close(&fd);
    } else {
        log_error(renewal->log, "renewed certificates not handed over", log_reason(why.text));
    }
    good_clear(renewal);
}

static bool good_add(struct certificate_renewal *renewal, const struct certificate *certificate)
{
    if (renewal->good_count == renewal->good_capacity) {
        size_t capacity = renewal->good_capacity == 0 ? 16 : 2 * renewal->good_capacity;
        const struct certificate **list = realloc(renewal->good, capacity * sizeof(struct certificate *));
        if (list == NULL)
            return false;
        renewal->good = list;
        renewal->good_capacity = capacity;
    }
    renewal->good[renewal->good_count++] = certificate_hold(certificate);
    return true;
}

static enum result make_trials(const struct certificates *certificates, const struct proxy_config *config,
                               int *fd, struct failure *why)
{
    const size_t count = certificates->pending_count;
    const struct certificate **list = calloc(count + 1, sizeof(struct certificate *));
    if (list == NULL)
        return failure_set_errno(why, "certificates to be tried");
    for (size_t i = 0; i < count; i++)
        list[i] = certificates->pending[i].certificate;
    enum result result = count > 0 ? certificate_handover_make(config, list, count, fd, why) : RESULT_OK;
    free(list);
    return result;
}

/* Always all of them: who takes a dead worker's place needs no more. */
static void tell_trials(struct certificate_renewal *renewal)
{
    struct failure why;
    int fd CLEANUP(socket_close) = -1;
    renewal->trials_changed = false;
    if (make_trials(renewal->setup->certificates, renewal->setup->config, &fd, &why) != RESULT_OK)
        log_error(renewal->log, "renewed certificates not handed over", log_reason(why.text));
    struct child_message message = {.index = PROXY_TRIES, .what = PROXY_TOLD_TRIALS, .descriptor = fd};
    for (message.kind = 0; message.kind < KIND_COUNT; message.kind++) /* there is one helper, the first */
        tell(renewal, &message);
}

/* ---- What is served from now on. */

static void serve(struct certificate_renewal *renewal, uint32_t number, enum certificate_verdict verdict)
{
    const struct certificate *certificate =
        certificates_promote(renewal->setup->certificates, number, verdict);
    if (certificate == NULL)
        return;
    if (!good_add(renewal, certificate))
        log_error(renewal->log, "renewed certificates not handed over", log_reason("no memory"));
    metric_add(master_metrics(renewal->master), PROXY_RENEWALS_OK, 1);
    log_info(renewal->log, "certificate renewed", log_text("file", certificate->path),
             log_text("type", key_type_name(certificate->key.type)));
}

static bool has_old(const struct certificate_renewal *renewal, const struct file_state *file)
{
    const struct certificates *certificates = renewal->setup->certificates;
    return file->chain == SIZE_MAX ||
           certificate_is_valid(certificates_at(certificates, file->chain), time(NULL));
}

/* One that must be shown with a response does not take the place of a good one without. */
static bool lacks_staple(const struct certificate_renewal *renewal, const struct pending_chain *pending)
{
    const struct certificate *certificate = pending->certificate;
    if (pending->file->chain == SIZE_MAX)
        return false;
    bool wants = certificate->must_staple && renewal->setup->staples != NULL &&
                 ocsp_settings_of(renewal->setup->config, certificate)->source != OCSP_OFF;
    return wants && has_old(renewal, pending->file) &&
           !staples_have(renewal->setup->staples, certificate, time(NULL));
}

static void tell_lack(const struct certificate_renewal *renewal, struct pending_chain *pending)
{
    if (!pending->told)
        log_warn(renewal->log, "certificate waits for its OCSP response",
                 log_text("file", pending->certificate->path), log_reason("it must be stapled"));
    pending->told = true;
}

/* Those for which the key server signs, as soon as nothing else is missing. */
static void serve_passed(struct certificate_renewal *renewal)
{
    const struct certificates *certificates = renewal->setup->certificates;
    for (size_t i = certificates->pending_count; i-- > 0;) {
        struct pending_chain *pending = &certificates->pending[i];
        if (!pending->passed)
            continue;
        if (lacks_staple(renewal, pending))
            tell_lack(renewal, pending);
        else
            serve(renewal, pending->number, CERTIFICATE_GOOD);
    }
}

/* ---- What the worker finds. */

static void pass(struct certificate_renewal *renewal, uint32_t number)
{
    struct pending_chain *pending = certificates_pending(renewal->setup->certificates, number);
    if (pending == NULL)
        return; /* its file has changed again meanwhile */
    pending->passed = true;
    serve_passed(renewal);
}

/* Every time, of one that is kept out: a process may not have had the chain when it was told before. */
static void judge(const struct certificate_renewal *renewal, uint64_t place, bool is_signed)
{
    const struct child_message message = {.kind = KIND_WORKER,
                                          .index = PROXY_TRIES,
                                          .what = is_signed ? PROXY_TOLD_SIGNED : PROXY_TOLD_NOT_SIGNED,
                                          .number = place,
                                          .descriptor = -1};
    bool changed = certificates_judge(renewal->setup->certificates, place, is_signed);
    if (changed || !is_signed)
        tell_all(renewal, message);
    else
        tell(renewal, &message);
}

void certificate_renewal_heard(struct certificate_renewal *renewal, struct master *master,
                               const struct child_message *message)
{
    bool helper = message->kind == KIND_HELPER && message->what == PROXY_SAID_WHICH;
    if (!helper && (message->kind != KIND_WORKER || message->index != PROXY_TRIES))
        return;
    renewal->master = master;
    if (message->what == PROXY_SAID_WHICH)
        tell_trials(renewal);
    else if (message->what == PROXY_SAID_GOOD)
        pass(renewal, (uint32_t)message->number);
    else if (message->what == PROXY_SAID_SIGNED || message->what == PROXY_SAID_NOT_SIGNED)
        judge(renewal, message->number, message->what == PROXY_SAID_SIGNED);
}

/* ---- What the watch finds. */

static void on_failed(const char *path, const struct failure *why, void *owner)
{
    const struct certificate_renewal *renewal = owner;
    metric_add(master_metrics(renewal->master), PROXY_RENEWALS_FAILED, 1);
    log_error(renewal->log, "certificate not renewed", log_text("file", path), log_reason(why->text));
}

static void on_unchanged(const struct file_state *file, void *owner)
{
    struct certificate_renewal *renewal = owner;
    if (certificates_forget_held(renewal->setup->certificates, file))
        renewal->trials_changed = true;
}

static bool on_looked(void *owner)
{
    const struct certificate_renewal *renewal = owner;
    return renewal->ocsp != NULL && ocsp_files_look(renewal->ocsp, master_metrics(renewal->master));
}

/* In place of one that has expired it is served whatever the key server says. */
static void on_changed(struct certificate *certificate, struct file_state *file, void *owner)
{
    struct certificate_renewal *renewal = owner;
    struct certificates *certificates = renewal->setup->certificates;
    struct failure why;
    if (proxy_setup_has_channel_key(renewal->setup, certificate)) {
        (void)failure_set(&why, RESULT_CONFIG, "its private key is the one of key_channel");
        on_failed(certificate->path, &why, renewal);
        certificate_drop(certificate);
        return;
    }
    if (!certificates_hold_back(certificates, certificate, file))
        log_error(renewal->log, "certificate not renewed", log_reason("no memory"));
    else if (has_old(renewal, file))
        renewal->trials_changed = true;
    else
        serve(renewal, certificates->last_number, CERTIFICATE_UNTRIED);
}

/* ---- What ends soon. */

#define DAY UINT64_C(86400000000)

static void warn(struct certificate_renewal *renewal)
{
    renewal->warned = clock_now();
    certificate_expiry_warn(renewal->setup->certificates, renewal->setup->config->tls.expiry_warning,
                            time(NULL), renewal->log);
}

/* ---- Life. */

struct certificate_renewal *certificate_renewal_new(struct proxy_setup *setup, struct log *log)
{
    struct certificate_renewal *renewal = calloc(1, sizeof *renewal);
    if (renewal == NULL)
        return NULL;
    *renewal = (struct certificate_renewal){.setup = setup, .log = log};
    if (setup->staples == NULL)
        return renewal;
    renewal->ocsp = ocsp_files_new(setup->config, setup->certificates, setup->staples, log);
    if (renewal->ocsp != NULL)
        return renewal;
    free(renewal);
    return NULL;
}

void certificate_renewal_prepare(struct certificate_renewal *renewal)
{
    if (renewal->ocsp != NULL)
        ocsp_files_begin(renewal->ocsp);
}

void certificate_renewal_free(struct certificate_renewal *renewal)
{
    if (renewal == NULL)
        return;
    certificate_watch_free(renewal->watch);
    ocsp_files_free(renewal->ocsp);
    good_clear(renewal);
    free(renewal->good);
    free(renewal);
}

/* What was found good before is handed over before the first client comes. */
void certificate_renewal_begin(struct certificate_renewal *renewal, struct master *master)
{
    const struct certificate_watch_handler handler = {on_changed, on_unchanged, on_failed, on_looked,
                                                      renewal};
    renewal->master = master;
    hand_over(renewal);
    warn(renewal);
    renewal->watch =
        certificate_watch_new(renewal->setup->config, renewal->setup->certificates, &handler, renewal->log);
    if (renewal->watch == NULL)
        log_error(renewal->log, "certificates are not watched", log_reason("no memory"));
}

void certificate_renewal_end(struct certificate_renewal *renewal)
{
    certificate_watch_free(renewal->watch);
    renewal->watch = NULL;
}

void certificate_renewal_forget(struct certificate_renewal *renewal)
{
    if (renewal != NULL && renewal->watch != NULL)
        certificate_watch_forget(renewal->watch);
}

void certificate_renewal_tick(struct certificate_renewal *renewal)
{
    if (renewal->watch != NULL)
        certificate_watch_tick(renewal->watch);
    if (renewal->trials_changed)
        tell_trials(renewal);
    if (renewal->ocsp != NULL)
        ocsp_files_tick(renewal->ocsp);
    serve_passed(renewal);
    hand_over(renewal);
    if (clock_now() - renewal->warned >= DAY)
        warn(renewal);
}
