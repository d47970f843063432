#include "proxy/certificate_trial.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/certificate_handover.h"
#include "proxy/certificate_verdicts.h"
#include "proxy/proxy_metrics.h"
#include "proxy/test_request.h"

/* Between two trials of one chain, in microseconds; and of any chains of the table, when the key server is
 * away. */
#define PAUSE_MIN UINT64_C(500000)
#define PAUSE_MAX UINT64_C(30000000)
/* Between two trials of the table: ten thousand chains are to cost the key server little while it serves. */
#define PACE UINT64_C(10000)
/* ... once it has said that it is asked too much: what it gives us is for clients. */
#define PACE_BUSY UINT64_C(200000)
/* ... of which all processes are told: one that stands still for seconds must not have too many to read. */
#define PACE_TOLD UINT64_C(50000)

struct trial {
    struct trial *next;
    const struct certificate *certificate;
    uint32_t number; /* of a new one */
    bool in_table;
    uint64_t due, pause;
    const char *reason; /* why it has to wait, as last told; NULL: it was not tried yet, or not here */
    bool is_wanted;     /* in the list that is being taken */
};

struct certificate_trials {
    struct certificate_trials_settings settings;
    struct event *timer;
    struct trial *list;  /* new ones; of the table those that are kept out, and the one that is being tried */
    bool taken, settled; /* a first list; and all of it was tried */

    bool begun, unheard;             /* the table's */
    uint64_t table_due, table_pause; /* when the next of it may be tried */
    uint64_t pace;

    struct trial *running; /* NULL: none */
    struct test_request request;
};

static void go_on(struct certificate_trials *trials);

static void on_timer(evutil_socket_t fd, short what, void *owner)
{
    (void)fd;
    (void)what;
    go_on(owner);
}

/* ---- The list. */

static bool is_kept_out(const struct certificate_trials *trials, const struct trial *trial)
{
    return trial->in_table &&
           certificates_verdict(trials->settings.certificates, trial->certificate) == CERTIFICATE_KEPT_OUT;
}

static void count(const struct certificate_trials *trials)
{
    int64_t waiting = 0;
    for (const struct trial *at = trials->list; at != NULL; at = at->next)
        waiting += at->in_table ? is_kept_out(trials, at) : at->reason != NULL;
    metric_set(trials->settings.metrics, PROXY_CERTIFICATES_WAITING, waiting);
    metric_set(trials->settings.metrics, PROXY_CERTIFICATES_UNTRIED,
               (int64_t)certificates_untried_count(trials->settings.certificates));
}

static void trial_remove(struct certificate_trials *trials, struct trial *trial)
{
    struct trial **at = &trials->list;
    while (*at != trial)
        at = &(*at)->next;
    *at = trial->next;
    if (trials->running == trial) {
        test_request_cancel(&trials->request, trials->settings.client);
        trials->running = NULL;
    }
    certificate_drop(trial->certificate);
    free(trial);
}

static void settle(struct certificate_trials *trials)
{
    for (const struct trial *at = trials->list; at != NULL; at = at->next)
        if (!at->in_table && at->reason == NULL)
            return;
    if (trials->settled || !trials->taken)
        return;
    trials->settled = true;
    trials->settings.settled(trials->settings.owner);
}

/* Takes a user of the certificate over. NULL: no memory. */
static struct trial *trial_add(struct certificate_trials *trials, const struct certificate *certificate)
{
    struct trial *trial = calloc(1, sizeof *trial);
    if (trial == NULL) {
        certificate_drop(certificate);
        return NULL;
    }
    *trial = (struct trial){.next = trials->list, .certificate = certificate, .pause = PAUSE_MIN};
    trials->list = trial;
    return trial;
}

static struct trial *trial_add_in_table(struct certificate_trials *trials,
                                        const struct certificate *certificate)
{
    struct trial *trial = trial_add(trials, certificate_hold(certificate));
    if (trial != NULL)
        trial->in_table = true;
    return trial;
}

/* ---- What was found. */

static void pause_double(uint64_t *pause)
{
    *pause = 2 * *pause < PAUSE_MAX ? 2 * *pause : PAUSE_MAX;
}

static void wait_longer(struct certificate_trials *trials, struct trial *trial, const char *reason)
{
    if (trial->reason == NULL || strcmp(trial->reason, reason) != 0)
        log_warn(trials->settings.log, "certificate waits for its key server",
                 log_text("file", trial->certificate->path), log_reason(reason));
    trial->reason = reason;
    trial->due = clock_now() + trial->pause;
    pause_double(&trial->pause);
}

static void tell_not_tried(const struct certificate_trials *trials, const struct trial *trial,
                           const char *reason)
{
    log_warn(trials->settings.log, "certificate not tried", log_text("file", trial->certificate->path),
             log_reason(reason));
}

static void found_new(struct certificate_trials *trials, struct trial *trial, enum test_finding finding,
                      const char *reason)
{
    if (finding == TEST_BAD || finding == TEST_UNANSWERED) {
        wait_longer(trials, trial, reason);
        return;
    }
    if (finding == TEST_IRRELEVANT)
        tell_not_tried(trials, trial, reason);
    uint32_t number = trial->number;
    trial_remove(trials, trial);
    trials->settings.passed(number, trials->settings.owner);
}

/* What is not answered is asked again, when the key server has had time to come back. */
static void found_nothing(struct certificate_trials *trials, struct trial *trial)
{
    if (trials->request.operation.outcome == KEY_OUTCOME_ERROR)
        trials->pace = PACE_BUSY;
    trials->table_due = clock_now() + trials->table_pause;
    pause_double(&trials->table_pause);
    if (is_kept_out(trials, trial))
        trial->due = trials->table_due;
    else
        trial_remove(trials, trial);
}

static void found_good(struct certificate_trials *trials, struct trial *trial, enum test_finding finding,
                       const char *reason)
{
    if (finding == TEST_IRRELEVANT)
        tell_not_tried(trials, trial, reason);
    else if (is_kept_out(trials, trial))
        log_info(trials->settings.log, "certificate has its key server",
                 log_text("file", trial->certificate->path));
    trial_remove(trials, trial);
}

static void found_in_table(struct certificate_trials *trials, struct trial *trial, enum test_finding finding,
                           const char *reason)
{
    const uint64_t place = certificate_place(trial->certificate);
    const bool good = finding != TEST_BAD, is_told = !good || is_kept_out(trials, trial);
    if (good)
        found_good(trials, trial, finding, reason);
    else
        wait_longer(trials, trial, reason);
    trials->table_due = clock_now() + (is_told && trials->pace < PACE_TOLD ? PACE_TOLD : trials->pace);
    trials->table_pause = PAUSE_MIN;
    trials->unheard = true;
    trials->settings.found(place, good, trials->settings.owner);
}

static void on_found(struct certificate_trials *trials, enum test_finding finding, const char *reason)
{
    struct trial *trial = trials->running;
    trials->running = NULL;
    if (!trial->in_table)
        found_new(trials, trial, finding, reason);
    else if (finding == TEST_UNANSWERED)
        found_nothing(trials, trial);
    else
        found_in_table(trials, trial, finding, reason);
}

static void on_done(struct test_request *request)
{
    struct certificate_trials *trials = request->owner;
    on_found(trials, test_request_finding(request), request->operation.reason);
    go_on(trials);
}

/* ---- One trial. */

static const char *protocol_of(const struct certificate_trials *trials, const struct certificate *certificate)
{
    const struct proxy_site *site = certificate->site;
    if (site != NULL)
        return site->alpn_count > 0 ? site->alpn[0] : NULL;
    return trials->settings.config->tls.alpn_count > 0 ? trials->settings.config->tls.alpn[0] : NULL;
}

static void start(struct certificate_trials *trials, struct trial *trial)
{
    struct test_request *request = &trials->request;
    const char *alpn = protocol_of(trials, trial->certificate);
    trials->running = trial;
    if (!test_request_send(request, trials->settings.client, trial->certificate, alpn))
        on_found(trials, test_request_finding(request), request->operation.reason);
}

/* ---- Whose turn it is. */

static struct trial *next_of(const struct certificate_trials *trials, bool in_table)
{
    struct trial *next = NULL;
    for (struct trial *at = trials->list; at != NULL; at = at->next)
        if (at->in_table == in_table && (next == NULL || at->due < next->due))
            next = at;
    return next;
}

/* When it is the table's turn; UINT64_MAX: not before something happens. All of it is tried before any of it
 * again. */
static uint64_t table_turn(struct certificate_trials *trials, uint64_t now)
{
    const struct trial *again = next_of(trials, true);
    uint64_t due = again != NULL ? again->due : UINT64_MAX;
    if (!trials->begun || trials->unheard)
        return UINT64_MAX;
    if (certificates_untried(trials->settings.certificates) != NULL)
        due = 0;
    if (due < trials->table_due)
        due = trials->table_due;
    if (due <= now && !key_client_ready(trials->settings.client))
        trials->table_due = due = now + PAUSE_MIN;
    return due;
}

static struct trial *next_in_table(struct certificate_trials *trials)
{
    const struct certificate *untried = certificates_untried(trials->settings.certificates);
    return untried != NULL ? trial_add_in_table(trials, untried) : next_of(trials, true);
}

/* NULL: nobody's before *due. */
static struct trial *next_turn(struct certificate_trials *trials, uint64_t now, uint64_t *due)
{
    struct trial *next = next_of(trials, false);
    uint64_t table = table_turn(trials, now);
    if (next != NULL && next->due <= now)
        return next;
    *due = next != NULL && next->due < table ? next->due : table;
    if (table > now)
        return NULL;
    trials->table_due = now + PAUSE_MIN; /* if there is no memory */
    return next_in_table(trials);
}

static void go_on(struct certificate_trials *trials)
{
    uint64_t now = clock_now(), due = now;
    if (trials->running == NULL) {
        struct trial *next = next_turn(trials, now, &due);
        if (next != NULL)
            start(trials, next);
    }
    count(trials);
    settle(trials);
    if (trials->running != NULL || due == UINT64_MAX)
        return;
    struct timeval pause = clock_timeval(due > now ? due - now : 0);
    (void)event_add(trials->timer, &pause);
}

/* ---- What the master says. */

static struct trial *trial_of(const struct certificate_trials *trials, uint32_t number)
{
    struct trial *at = trials->list;
    while (at != NULL && (at->in_table || at->number != number))
        at = at->next;
    return at;
}

static void trial_add_new(struct certificate_trials *trials, const struct certificate *certificate)
{
    struct trial *trial = trial_add(trials, certificate);
    if (trial == NULL)
        return;
    trial->number = (uint32_t)certificate->index;
    trial->is_wanted = true;
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
        trial_add_new(trials, certificate);
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
        if (!at->in_table && !at->is_wanted)
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

/* ---- The table. */

/* Another chain is in its place. */
static bool is_replaced(const struct certificate_trials *trials, const struct trial *trial)
{
    return trial->in_table &&
           certificates_at(trials->settings.certificates, trial->certificate->index) != trial->certificate;
}

static void remove_replaced(struct certificate_trials *trials)
{
    for (struct trial *next, *at = trials->list; at != NULL; at = next) {
        next = at->next;
        if (is_replaced(trials, at))
            trial_remove(trials, at);
    }
}

/* What an earlier worker has found to be kept out is tried again. */
void certificate_trials_begin(struct certificate_trials *trials)
{
    const struct certificates *certificates = trials->settings.certificates;
    trials->begun = true;
    for (size_t i = 0; i < certificates_count(certificates); i++) {
        const struct certificate *certificate = certificates_at(certificates, i);
        if (certificates_verdict(certificates, certificate) == CERTIFICATE_KEPT_OUT)
            (void)trial_add_in_table(trials, certificate);
    }
    go_on(trials);
}

void certificate_trials_tick(struct certificate_trials *trials)
{
    remove_replaced(trials);
    go_on(trials);
}

void certificate_trials_heard(struct certificate_trials *trials)
{
    trials->unheard = false;
    go_on(trials);
}

/* ---- Life. */

struct certificate_trials *certificate_trials_new(const struct certificate_trials_settings *settings)
{
    struct certificate_trials *trials = calloc(1, sizeof *trials);
    if (trials == NULL)
        return NULL;
    trials->settings = *settings;
    trials->table_pause = PAUSE_MIN;
    trials->pace = PACE;
    trials->request.done = on_done;
    trials->request.owner = trials;
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
    metric_set(trials->settings.metrics, PROXY_CERTIFICATES_WAITING, 0);
    metric_set(trials->settings.metrics, PROXY_CERTIFICATES_UNTRIED, 0);
    event_free(trials->timer);
    free(trials);
}
