#include "keyserver/signer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "keyserver/keyserver_metrics.h"
#include "keyserver/plan.h"
#include "keyserver/signer_protocol.h"
#include "keyserver/signer_state.h"
#include "keyserver/status_records.h"

/* Replies that a front end does not take; then it is not listened to. */
#define LINK_OUTPUT_HIGH ((size_t)1024 * 1024)

/* Seconds' worth of a client's `rate` at once. Twice what front ends let through: what they did over some
 * time may come together, from a signer that was replaced. */
#define RATE_BURST 4

/* ---- The end. */

static bool has_links(const struct signer *signer)
{
    const struct asker *asker;
    TAILQ_FOREACH(asker, &signer->askers, entry)
    {
        if (asker->link != NULL)
            return true;
    }
    return false;
}

static bool has_unsent(const struct signer *signer)
{
    const struct asker *asker;
    TAILQ_FOREACH(asker, &signer->askers, entry)
    {
        if (asker->link != NULL && signer_link_queued(asker->link) > 0)
            return true;
    }
    return false;
}

/* Without a master nobody sees to it that front ends end first: then the links tell. What they ask of a
 * signer that ends all the same, they ask again of the next one. */
static void end_if_drained(struct signer *signer)
{
    if (!signer->draining || signer->jobs > 0 || has_unsent(signer))
        return;
    if (signer->audit != NULL && !audit_feed_is_empty(signer->audit))
        return;
    if (!signer->orphaned || !has_links(signer))
        child_end(signer->child, 0);
}

void asker_free_if_gone(struct asker *asker)
{
    if (asker->link != NULL || !TAILQ_EMPTY(&asker->jobs))
        return;
    TAILQ_REMOVE(&asker->signer->askers, asker, entry);
    free(asker);
}

static void on_audit_emptied(void *owner)
{
    end_if_drained(owner);
}

static const struct audit_feed_handler AUDIT_HANDLER = {.emptied = on_audit_emptied};

static void on_done(evutil_socket_t fd, short events, void *owner)
{
    (void)fd;
    (void)events;
    struct signer *signer = owner;
    signer_answer_done(signer);
    end_if_drained(signer);
}

/* ---- Links. */

static void on_closed(const struct failure *why, void *owner)
{
    struct asker *asker = owner;
    struct signer *signer = asker->signer;
    if (why->kind != RESULT_OK) {
        log_error(signer->log, "front end cut off", log_number("frontend", asker->index),
                  log_reason(why->text));
        metric_add(signer->metrics, KEYSERVER_LINKS_BROKEN, 1);
    }
    asker->link = NULL;
    struct signer_job *job;
    TAILQ_FOREACH(job, &asker->jobs, of_asker)
    {
        signer_cancel_job(job);
    }
    asker_free_if_gone(asker);
    end_if_drained(signer);
}

static const struct signer_link_handler LINK_HANDLER = {.message = asker_message, .closed = on_closed};

static bool tell_keys(const struct signer *signer, struct signer_link *link)
{
    const struct key_table *keys = key_store_table(signer->store);
    uint8_t octets[SIGNER_HEADER_SIZE + 128 + KEY_LABEL_MAX];
    for (size_t i = 0; i <= keys->count; i++) {
        struct writer to = writer_of(octets, sizeof octets);
        if (i < keys->count)
            signer_key_write(&to, &keys->keys[i]);
        else
            signer_keys_end_write(&to, (uint32_t)keys->count);
        if (!writer_ok(&to) || !signer_link_send(link, writer_bytes(&to)))
            return false;
    }
    return true;
}

static void link_front_end(struct signer *signer, unsigned index, int fd)
{
    struct asker *asker = calloc(1, sizeof *asker);
    struct signer_link *link =
        signer_link_new(child_base(signer->child), fd, LINK_OUTPUT_HIGH, &LINK_HANDLER, asker);
    if (asker == NULL || link == NULL || !tell_keys(signer, link)) {
        log_error(signer->log, "front end cut off", log_number("frontend", index), log_reason("no memory"));
        signer_link_close(link);
        free(asker);
        return;
    }
    *asker = (struct asker){.signer = signer, .link = link, .index = index};
    TAILQ_INIT(&asker->jobs);
    TAILQ_INSERT_TAIL(&signer->askers, asker, entry);
}

static void on_link(size_t kind, unsigned index, int fd, void *owner)
{
    struct signer *signer = owner;
    if (kind == KIND_AUDITOR)
        audit_feed_link(signer->audit, fd);
    else
        link_front_end(signer, index, fd);
}

static void on_drain(enum child_drain why, void *owner)
{
    struct signer *signer = owner;
    signer->draining = true;
    signer->orphaned = why == DRAIN_ORPHANED;
    end_if_drained(signer);
}

/* What opens no ticket any more must not be there any more. */
static void on_tick(void *owner)
{
    struct signer *signer = owner;
    const uint64_t now = (uint64_t)time(NULL);
    struct failure why;
    if (signer->ticket_keys == NULL || now == signer->ticket_keys_seen)
        return;
    signer->ticket_keys_seen = now;
    if (ticket_keys_forget(signer->ticket_keys, now, &why) != RESULT_OK)
        log_error(signer->log, "ticket keys kept too long", log_reason(why.text));
}

static const struct child_handler CHILD_HANDLER = {.link = on_link, .drain = on_drain, .tick = on_tick};

/* ---- The process. */

/* Little but what every process has: no socket is made, accepted on or connected, and its threads are there.
 */
static const struct sandbox_rule SANDBOX_RULES[] = {
    SANDBOX_ALLOW("pwrite64"), /* the secret of ticket keys, which is open */
};

const struct sandbox_profile signer_sandbox = {.rules = SANDBOX_RULES,
                                               .rule_count = sizeof SANDBOX_RULES / sizeof *SANDBOX_RULES};

/* Keys must not get to a disk by way of swap. With a finite limit, growing past it would fail in the middle
 * of work, so it is all or nothing. */
static void lock_memory(struct log *log)
{
    const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
    struct rlimit limit = {0, 0};
    (void)setrlimit(RLIMIT_MEMLOCK, &unlimited);
    (void)getrlimit(RLIMIT_MEMLOCK, &limit);
    if (limit.rlim_cur != RLIM_INFINITY)
        log_warn(log, "memory not locked", log_number("memlock", (int64_t)limit.rlim_cur),
                 log_reason("RLIMIT_MEMLOCK is not unlimited; keys could be swapped to disk"));
    else if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
        log_warn(log, "memory not locked", log_reason(strerror(errno)));
}

static void tell_unused(const struct keyserver_client *client, const char *pattern, void *owner)
{
    log_warn(owner, "client entry without key", log_text("client", client->match), log_text("keys", pattern),
             log_number("line", client->where.line), log_reason("no key matches"));
}

static void tell_uncovered(const struct keyserver_client *client, const struct key_info *key, void *owner)
{
    log_warn(owner, "key with whole transcripts only", log_text("client", client->match),
             log_text("key", key->label), log_number("line", client->where.line),
             log_reason("its certificates have names that the client has not"));
}

static void tell_mixed(const struct keyserver_client *client, const struct keyserver_client *other,
                       void *owner)
{
    log_warn(owner, "ticket group with different names", log_text("group", client->ticket_group),
             log_text("client", client->match), log_text("other", other->match),
             log_number("line", client->where.line),
             log_reason("each can pass for the other to clients that resume"));
}

static enum result start_queue(struct signer *signer, struct failure *why)
{
    const struct keyserver_config *config = signer->config;
    const struct signer_queue_settings settings = {
        .lengths = {[KEY_CLASS_EC] = config->queues.ec,
                    [KEY_CLASS_RSA] = config->queues.rsa,
                    [KEY_CLASS_RSA_LARGE] = config->queues.rsa_large},
        .threads = process_cores(),
        .digests = signer->audit != NULL,
        .deadline = config->queues.deadline};
    enum result result = signer_queue_new(signer->store, &settings, &signer->queue, why);
    if (result != RESULT_OK)
        return result;
    signer->done = event_new(child_base(signer->child), signer_queue_descriptor(signer->queue),
                             EV_READ | EV_PERSIST, on_done, signer);
    if (signer->done == NULL || event_add(signer->done, NULL) != 0)
        return failure_set(why, RESULT_LIMIT, "no memory for the signer's events");
    return RESULT_OK;
}

static enum result start_audit(struct signer *signer, struct failure *why)
{
    if (signer->config->audit.file == NULL)
        return RESULT_OK;
    signer->audit =
        audit_feed_new(child_base(signer->child), signer->log, signer->metrics, &AUDIT_HANDLER, signer);
    return signer->audit != NULL ? RESULT_OK
                                 : failure_set(why, RESULT_LIMIT, "no memory for the records of the audit");
}

/* With privileges: the keys. Without: everything else. */
static enum result start(struct signer *signer, struct failure *why)
{
    lock_memory(signer->log);
    signer->replays = replay_table_new(REPLAY_ENTRIES);
    if (signer->replays == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the requests of the last minutes");
    enum result result = process_forbid_dumps(why);
    if (result == RESULT_OK)
        result = key_store_load(signer->config, &signer->store, why);
    if (result == RESULT_OK) /* last: it changes a file */
        result = ticket_keys_open(signer->config, (uint64_t)time(NULL), &signer->ticket_keys, why);
    if (result == RESULT_OK)
        result = process_drop_privileges(signer->config->user, why);
    if (result == RESULT_OK)
        result = policy_new(signer->config, key_store_table(signer->store), &signer->policy, why);
    if (result == RESULT_OK)
        result = start_audit(signer, why);
    if (result == RESULT_OK)
        result = child_restrict_files(signer->child, why); /* for the queue's threads too */
    if (result == RESULT_OK)
        result = start_queue(signer, why);
    return result;
}

static void stop(struct signer *signer)
{
    struct asker *asker;
    if (signer->done != NULL)
        event_free(signer->done);
    signer_queue_free(signer->queue);
    while ((asker = TAILQ_FIRST(&signer->askers)) != NULL) {
        TAILQ_REMOVE(&signer->askers, asker, entry);
        signer_link_close(asker->link);
        free(asker);
    }
    audit_feed_free(signer->audit);
    policy_free(signer->policy);
    ticket_keys_free(signer->ticket_keys);
    replay_table_free(signer->replays);
    key_store_free(signer->store);
}

static void use_plan(const struct signer *signer, const struct keyserver_plan *plan)
{
    const struct policy_rates rates = {.buckets = client_rates_buckets(plan->rates, RATES_OF_SIGNER),
                                       .numbers = plan->rate_numbers,
                                       .burst = RATE_BURST};
    policy_use_certificates(signer->policy, plan->certificates);
    policy_use_rates(signer->policy, &rates);
}

/* Once: nothing of it changes. */
static void tell_status(const struct signer *signer, const struct keyserver_plan *plan)
{
    const struct key_table *keys = key_store_table(signer->store);
    const struct signer_status status = {.pid = getpid(), .keys = (uint32_t)keys->count};
    for (size_t i = 0; i < keys->count && i < STATUS_KEYS_MAX; i++) {
        const struct key_info *key = &keys->keys[i];
        struct key_status record = {.pid = status.pid, .type = (uint32_t)key->id.type};
        memcpy(record.ski, key->id.ski, sizeof record.ski);
        (void)snprintf(record.label, sizeof record.label, "%s", key->label);
        status_area_write(plan->key_status, i, &record);
    }
    status_area_write(plan->signer_status, 0, &status);
}

int signer_run(struct child *child, const void *config)
{
    const struct keyserver_plan *plan = config;
    struct signer signer = {
        .child = child, .log = child_log(child), .metrics = child_metrics(child), .config = plan->config};
    struct failure why;
    TAILQ_INIT(&signer.askers);
    int status = 1;
    if (start(&signer, &why) == RESULT_OK) {
        const size_t keys = key_store_table(signer.store)->count;
        metric_set(signer.metrics, KEYSERVER_KEYS, (int64_t)keys);
        log_info(signer.log, "keys loaded", log_number("keys", (int64_t)keys));
        use_plan(&signer, plan);
        policy_each_unused(signer.policy, tell_unused, signer.log);
        policy_each_uncovered(signer.policy, tell_uncovered, signer.log);
        ticket_keys_each_mixed(signer.config, tell_mixed, signer.log);
        tell_status(&signer, plan);
        child_start(child, &CHILD_HANDLER, &signer);
        child_ready(child);
        status = child_loop(child);
    } else {
        child_failed(child, &why);
    }
    stop(&signer);
    return status;
}
