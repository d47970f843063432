#include "proxy/certificate_trial.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/kssl.h"
#include "common/socket.h"
#include "proxy/certificate_handover.h"
#include "proxy/made_up_handshake.h"
#include "proxy/proxy_metrics.h"

/* Between two trials of one chain, in microseconds. */
#define PAUSE_MIN UINT64_C(500000)
#define PAUSE_MAX UINT64_C(30000000)

struct trial {
    struct trial *next;
    struct certificate *certificate;
    uint32_t number;
    uint64_t due, pause;
    const char *reason; /* why it has to wait, as last told; NULL: it was not tried yet */
    bool is_wanted;     /* in the list that is being taken */
};

struct certificate_trials {
    struct certificate_trials_settings settings;
    struct event *timer;
    struct trial *list;
    bool taken, settled; /* a first list; and all of it was tried */

    struct trial *running; /* NULL: none */
    struct made_up_handshake handshake;
    struct signature_check *check;
    struct key_operation operation;
};

static void go_on(struct certificate_trials *trials);

static void on_timer(evutil_socket_t fd, short what, void *owner)
{
    (void)fd;
    (void)what;
    go_on(owner);
}

/* ---- The list. */

static void count(const struct certificate_trials *trials)
{
    int64_t waiting = 0;
    for (const struct trial *at = trials->list; at != NULL; at = at->next)
        waiting += at->reason != NULL;
    metric_set(trials->settings.metrics, PROXY_CERTIFICATES_WAITING, waiting);
}

static void release_operation(struct certificate_trials *trials)
{
    made_up_handshake_clear(&trials->handshake);
    signature_check_free(trials->check);
    trials->check = NULL;
    trials->running = NULL;
}

static void trial_remove(struct certificate_trials *trials, struct trial *trial)
{
    struct trial **at = &trials->list;
    while (*at != trial)
        at = &(*at)->next;
    *at = trial->next;
    if (trials->running == trial) {
        key_client_cancel(trials->settings.client, &trials->operation);
        release_operation(trials);
    }
    certificate_drop(trial->certificate);
    free(trial);
}

static void settle(struct certificate_trials *trials)
{
    for (const struct trial *at = trials->list; at != NULL; at = at->next)
        if (at->reason == NULL)
            return;
    if (trials->settled || !trials->taken)
        return;
    trials->settled = true;
    trials->settings.settled(trials->settings.owner);
}

/* ---- One trial. */

static void wait_longer(struct certificate_trials *trials, struct trial *trial, const char *reason)
{
    if (trial->reason == NULL || strcmp(trial->reason, reason) != 0)
        log_warn(trials->settings.log, "certificate waits for its key server",
                 log_text("file", trial->certificate->path), log_reason(reason));
    trial->reason = reason;
    trial->due = clock_now() + trial->pause;
    trial->pause = 2 * trial->pause < PAUSE_MAX ? 2 * trial->pause : PAUSE_MAX;
}

/* What cannot be asked at all, and what the key server has against the request, says nothing of the key, and
 * would keep a good chain out for ever. */
static bool is_about_key(const struct key_operation *operation)
{
    static const uint8_t OTHERS[] = {KSSL_ERROR_POLICY, KSSL_ERROR_CONTENT, KSSL_ERROR_FORMAT,
                                     KSSL_ERROR_BAD_OPCODE};
    if (operation->outcome == KEY_OUTCOME_ERROR)
        return memchr(OTHERS, operation->error, sizeof OTHERS) == NULL;
    return operation->result != RESULT_PROTOCOL || operation->outcome == KEY_OUTCOME_INVALID ||
           operation->outcome == KEY_OUTCOME_WRONG;
}

static void finish(struct certificate_trials *trials)
{
    const struct key_operation *operation = &trials->operation;
    struct trial *trial = trials->running;
    release_operation(trials);
    bool passed = operation->result == RESULT_OK;
    if (!passed && is_about_key(operation)) {
        wait_longer(trials, trial, operation->reason);
        return;
    }
    if (!passed)
        log_warn(trials->settings.log, "certificate not tried", log_text("file", trial->certificate->path),
                 log_reason(operation->reason));
    uint32_t number = trial->number;
    trial_remove(trials, trial);
    trials->settings.passed(number, trials->settings.owner);
}

static void on_done(struct key_operation *operation)
{
    struct certificate_trials *trials = operation->owner;
    finish(trials);
    go_on(trials);
}

static const char *protocol_of(const struct certificate_trials *trials, const struct certificate *certificate)
{
    const struct proxy_site *site = certificate->site;
    if (site != NULL)
        return site->alpn_count > 0 ? site->alpn[0] : NULL;
    return trials->settings.config->tls.alpn_count > 0 ? trials->settings.config->tls.alpn[0] : NULL;
}

static struct signature_check *check_of(const struct certificate *certificate)
{
    const unsigned char *at = certificate->leaf.data;
    X509 *leaf = d2i_X509(NULL, &at, (long)certificate->leaf.size);
    EVP_PKEY *key = leaf != NULL ? X509_get0_pubkey(leaf) : NULL;
    struct signature_check *check =
        key != NULL ? signature_check_new(NULL, key, certificate->key.type) : NULL;
    X509_free(leaf);
    return check;
}

static void start(struct certificate_trials *trials, struct trial *trial)
{
    const struct certificate *certificate = trial->certificate;
    struct made_up_handshake *handshake = &trials->handshake;
    trials->check = check_of(certificate);
    if (trials->check == NULL ||
        !made_up_handshake_make(handshake, certificate, protocol_of(trials, certificate))) {
        signature_check_free(trials->check);
        trials->check = NULL;
        wait_longer(trials, trial, "no memory");
        return;
    }
    trials->running = trial;
    trials->operation =
        (struct key_operation){.key = &certificate->key,
                               .check = trials->check,
                               .content = bytes_of(handshake->content, handshake->content_size),
                               .sni = bytes_of(handshake->name, strlen(handshake->name)),
                               .transcript = &handshake->transcript,
                               .done = on_done,
                               .owner = trials,
                               .scheme = handshake->scheme};
    if (key_client_sign(trials->settings.client, &trials->operation) != RESULT_OK)
        finish(trials);
}

/* ---- Whose turn it is. */

static struct trial *next_of(const struct certificate_trials *trials)
{
    struct trial *next = trials->list;
    for (struct trial *at = trials->list; at != NULL; at = at->next)
        if (at->due < next->due)
            next = at;
    return next;
}

static void go_on(struct certificate_trials *trials)
{
    uint64_t now = clock_now();
    struct trial *next = next_of(trials);
    if (next != NULL && trials->running == NULL && next->due <= now)
        start(trials, next);
    count(trials);
    settle(trials);
    next = next_of(trials);
    if (next == NULL || trials->running != NULL)
        return;
    struct timeval pause = clock_timeval(next->due > now ? next->due - now : 0);
    (void)event_add(trials->timer, &pause);
}

/* ---- What the master says. */

static struct trial *trial_of(const struct certificate_trials *trials, uint32_t number)
{
    struct trial *at = trials->list;
    while (at != NULL && at->number != number)
        at = at->next;
    return at;
}

static void trial_add(struct certificate_trials *trials, struct certificate *certificate)
{
    struct trial *trial = calloc(1, sizeof *trial);
    if (trial == NULL) {
        certificate_drop(certificate);
        return;
    }
    *trial = (struct trial){.next = trials->list,
                            .certificate = certificate,
                            .number = (uint32_t)certificate->index,
                            .pause = PAUSE_MIN,
                            .is_wanted = true};
    trials->list = trial;
}

static enum result take_one(struct certificate_trials *trials, struct certificate_handover *handover,
                            struct failure *why)
{
    struct certificate *certificate;
    uint32_t number;
    struct trial *known = NULL;
    if (certificate_handover_peek(handover, &number))
        known = trial_of(trials, number);
    if (known != NULL) {
        known->is_wanted = true;
        return certificate_handover_skip(handover, trials->settings.config, why);
    }
    enum result result =
        certificate_handover_next(handover, trials->settings.config,
                                  certificates_parser(trials->settings.certificates), &certificate, why);
    if (result == RESULT_OK)
        trial_add(trials, certificate);
    return result;
}

static void take_all(struct certificate_trials *trials, int fd)
{
    struct certificate_handover handover;
    struct failure why;
    enum result result = certificate_handover_open(fd, &handover, &why);
    while (result == RESULT_OK)
        result = take_one(trials, &handover, &why);
    if (result != RESULT_AGAIN)
        log_error(trials->settings.log, "renewed certificate not taken", log_reason(why.text));
    certificate_handover_close(&handover);
}

static void remove_unwanted(struct certificate_trials *trials)
{
    for (struct trial *next, *at = trials->list; at != NULL; at = next) {
        next = at->next;
        if (!at->is_wanted)
            trial_remove(trials, at);
    }
}

void certificate_trials_take(struct certificate_trials *trials, int fd)
{
    for (struct trial *at = trials->list; at != NULL; at = at->next)
        at->is_wanted = false;
    if (fd >= 0)
        take_all(trials, fd);
    socket_close(&fd);
    remove_unwanted(trials);
    trials->taken = true;
    go_on(trials);
}

/* ---- Life. */

struct certificate_trials *certificate_trials_new(const struct certificate_trials_settings *settings)
{
    struct certificate_trials *trials = calloc(1, sizeof *trials);
    if (trials == NULL)
        return NULL;
    trials->settings = *settings;
    trials->timer = evtimer_new(settings->base, on_timer, trials);
    if (trials->timer != NULL)
        return trials;
    free(trials);
    return NULL;
}

void certificate_trials_free(struct certificate_trials *trials)
{
    if (trials == NULL)
        return;
    while (trials->list != NULL)
        trial_remove(trials, trials->list);
    event_free(trials->timer);
    free(trials);
}
