#include "keyserver/signer_state.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>

#include "common/clock.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/signer_protocol.h"

/* Messages of requests in all queues: what front ends may have in flight together. */
#define MESSAGES_MAX ((size_t)256 * 1024 * 1024)

/* ---- The audit. */

static bool stops(const struct signer *signer)
{
    return signer->audit != NULL && signer->config->audit.on_error == AUDIT_ERROR_STOP;
}

static void tell_stopped(const struct signer *signer)
{
    metric_add(signer->metrics, KEYSERVER_AUDIT_STOPPED, 1);
    log_error(signer->log, "operations stopped",
              log_reason("they could not be recorded: the audit log is not written"));
}

/* What cannot be recorded is not done, unless the operator wants it so. */
static bool can_be_recorded(const struct signer *signer)
{
    if (!stops(signer) || audit_feed_has_room(signer->audit, signer->jobs))
        return true;
    tell_stopped(signer);
    return false;
}

/* Nor does it leave. */
static bool may_leave(const struct signer *signer, bool recorded)
{
    if (recorded || !stops(signer))
        return true;
    tell_stopped(signer);
    return false;
}

static struct audit_record record_of(const struct sign_request *request, enum audit_outcome outcome,
                                     enum kssl_error error)
{
    struct audit_record record = {.entry = request->entry,
                                  .opcode = request->opcode,
                                  .outcome = (uint8_t)outcome,
                                  .error = (uint8_t)error,
                                  .sni_size = request->sni_size,
                                  .client_ip_size = request->client_ip_size,
                                  .name_size = request->name_size};
    memcpy(record.ski, request->ski, sizeof record.ski);
    memcpy(record.sni, request->sni, request->sni_size);
    memcpy(record.client_ip, request->client_ip, request->client_ip_size);
    memcpy(record.name, request->name, request->name_size);
    return record;
}

/* Of what was decided without a job. */
static bool audit_request(const struct signer *signer, const struct sign_request *request,
                          enum audit_outcome outcome, enum kssl_error error)
{
    if (signer->audit == NULL)
        return true;
    struct audit_record record = record_of(request, outcome, error);
    record.replay = outcome == AUDIT_REPLAYED;
    record.signed_size = (uint8_t)sign_request_digest(request, record.signed_octets);
    return audit_feed_add(signer->audit, &record);
}

/* A record of what is refused has no claim to the room of those that are under way: whoever asks for what is
 * forbidden could take it from them. */
static void audit_refusal(const struct signer *signer, const struct sign_request *request,
                          enum audit_outcome outcome, enum kssl_error error)
{
    if (signer->audit == NULL)
        return;
    if (audit_feed_has_room(signer->audit, signer->jobs))
        (void)!audit_request(signer, request, outcome, error); /* which tells and counts what is lost */
    else
        metric_add(signer->metrics, KEYSERVER_AUDIT_LOST, 1);
}

/* Before its answer: that leaves when the record has been handed on. False: it could not be. */
static bool audit_job(const struct signer *signer, const struct signer_job *job)
{
    if (signer->audit == NULL || job->error == KSSL_ERROR_OVERLOADED)
        return true;
    struct audit_record record =
        record_of(&job->request, job->error == KSSL_ERROR_NONE ? AUDIT_DONE : AUDIT_FAILED, job->error);
    record.replay = job->replay;
    record.signed_size = (uint8_t)job->signed_size;
    memcpy(record.signed_octets, job->signed_octets, job->signed_size);
    return audit_feed_add(signer->audit, &record);
}

/* ---- Replies. */

static void reply_to(struct asker *asker, const struct signer_reply *reply)
{
    uint8_t octets[SIGNER_HEADER_SIZE + 64 + SIGNER_ANSWER_MAX];
    struct writer to = writer_of(octets, sizeof octets);
    signer_reply_write(&to, reply);
    bool sent = asker->link == NULL || (writer_ok(&to) && signer_link_send(asker->link, writer_bytes(&to)));
    OPENSSL_cleanse(octets, to.size); /* it may be what was decrypted, or ticket keys */
    if (sent)
        return;
    log_error(asker->signer->log, "reply lost", log_number("frontend", asker->index));
}

static void count_job(const struct signer *signer, const struct signer_job *job)
{
    metric_observe(signer->metrics, KEYSERVER_QUEUE_SECONDS + (size_t)job->class, job->queue);
    if (job->error == KSSL_ERROR_OVERLOADED)
        metric_add(signer->metrics, KEYSERVER_QUEUE_LATE + (size_t)job->class, 1);
    else
        metric_observe(signer->metrics, KEYSERVER_SIGN_SECONDS + (size_t)job->class, job->sign);
    if (job->error == KSSL_ERROR_INTERNAL) {
        metric_add(signer->metrics, KEYSERVER_FAULTS, 1);
        log_error(signer->log, "faulty signature",
                  log_text("key", policy_key(signer->policy, job->key)->label),
                  log_reason("it did not verify and was destroyed: check this machine's hardware"));
    }
}

static size_t message_octets(const struct sign_request *request)
{
    return sign_request_borrowed(request).size;
}

static struct log_field sni_of(const struct sign_request *request)
{
    struct bytes sni = bytes_of(request->sni, request->sni_size);
    return sni.size > 0 ? log_bytes("sni", sni) : log_text("sni", NULL);
}

/* It has made the same checks: somebody has taken it over, or it asks us what it had asked of a signer with
 * other keys, before us. */
static void tell_forbidden(const struct asker *asker, const struct sign_request *request,
                           enum kssl_error error, const char *reason)
{
    const struct signer *signer = asker->signer;
    const char *client =
        request->entry < signer->config->client_count ? signer->config->clients[request->entry].match : NULL;
    metric_add(signer->metrics, KEYSERVER_FORBIDDEN, 1);
    audit_refusal(signer, request, AUDIT_FORBIDDEN, error);
    log_warn(signer->log, "front end asks for what is forbidden", log_number("frontend", asker->index),
             log_text("client", client), log_text("operation", kssl_opcode_name(request->opcode)),
             log_hex("key", bytes_of(request->ski, KEY_ID_SKI_SIZE)), sni_of(request),
             log_number("error", error),
             log_reason(reason != NULL ? reason : kssl_error_name((uint8_t)error)));
}

/* What a thread alone looks at here is whether a point is on its curve. */
static bool record_job(struct asker *asker, const struct signer_job *job)
{
    if (job->error != KSSL_ERROR_CONTENT)
        return audit_job(asker->signer, job);
    tell_forbidden(asker, &job->request, job->error, NULL);
    return true;
}

static void answer_job(struct asker *asker, const struct signer_job *job)
{
    struct signer_reply reply = {
        .handle = job->request.handle,
        .error = (uint8_t)job->error,
        .queue = job->queue,
        .sign = job->sign,
        .answer = bytes_of(job->signature, job->error == KSSL_ERROR_NONE ? job->signature_size : 0)};
    count_job(asker->signer, job);
    if (!may_leave(asker->signer, record_job(asker, job)))
        reply = (struct signer_reply){.handle = reply.handle, .error = KSSL_ERROR_OVERLOADED};
    reply_to(asker, &reply);
}

/* What was not tried may be asked for again. */
static void forget_request(const struct signer *signer, const struct sign_request *request, bool replay)
{
    if (!replay)
        replay_table_forget(signer->replays, request);
}

static void finish_job(struct signer *signer, struct signer_job *job)
{
    struct asker *asker = job->asker;
    if (job->dropped || job->error == KSSL_ERROR_OVERLOADED)
        forget_request(signer, &job->request, job->replay);
    if (job->dropped)
        metric_add(signer->metrics, KEYSERVER_DROPPED, 1);
    else
        answer_job(asker, job);
    metric_change(signer->metrics, KEYSERVER_QUEUED + (size_t)job->class, -1);
    TAILQ_REMOVE(&asker->jobs, job, of_asker);
    signer->jobs--;
    signer->message_octets -= message_octets(&job->request);
    signer_job_free(job);
    asker_free_if_gone(asker);
}

void signer_answer_done(struct signer *signer)
{
    struct signer_job *job = signer_queue_take(signer->queue);
    while (job != NULL) {
        struct signer_job *next = job->next;
        finish_job(signer, job);
        job = next;
    }
}

/* ---- Requests. */

static enum kssl_error enqueue(struct asker *asker, const struct sign_request *request, size_t key,
                               bool replay)
{
    struct signer *signer = asker->signer;
    const struct key_id *id = &policy_key(signer->policy, key)->id;
    if (message_octets(request) > MESSAGES_MAX - signer->message_octets)
        return KSSL_ERROR_OVERLOADED;
    struct signer_job *job = signer_job_new(request, key, id);
    if (job == NULL)
        return KSSL_ERROR_INTERNAL;
    job->asker = asker;
    job->replay = replay;
    if (!signer_queue_add(signer->queue, job)) {
        metric_add(signer->metrics, KEYSERVER_QUEUE_FULL + (size_t)job->class, 1);
        signer_job_free(job);
        return KSSL_ERROR_OVERLOADED;
    }
    TAILQ_INSERT_TAIL(&asker->jobs, job, of_asker);
    signer->jobs++;
    metric_change(signer->metrics, KEYSERVER_QUEUED + (size_t)job->class, 1);
    signer->message_octets += message_octets(request);
    return KSSL_ERROR_NONE;
}

void signer_cancel_job(struct signer_job *job)
{
    atomic_store_explicit(&job->cancelled, true, memory_order_relaxed);
}

/* One that is not there has been answered meanwhile. */
static bool on_cancel(struct asker *asker, struct bytes body)
{
    uint64_t handle;
    struct signer_job *job;
    if (!signer_cancel_parse(body, &handle))
        return false;
    TAILQ_FOREACH(job, &asker->jobs, of_asker)
    {
        if (job->request.handle == handle) {
            signer_cancel_job(job);
            break;
        }
    }
    return true;
}

/* Made at once: it takes no private key, and little time. */
static enum kssl_error give_ticket_keys(struct asker *asker, const struct sign_request *request)
{
    const struct signer *signer = asker->signer;
    uint8_t octets[TICKET_KEYS_ANSWER_MAX];
    struct writer to = writer_of(octets, sizeof octets);
    if (signer->ticket_keys == NULL ||
        !ticket_keys_write(signer->ticket_keys, request->entry, (uint64_t)time(NULL), &to)) {
        log_error(signer->log, "no ticket keys",
                  log_text("client", signer->config->clients[request->entry].match),
                  log_reason("for the present time there are none, or no memory to make them"));
        return KSSL_ERROR_INTERNAL;
    }
    const struct signer_reply reply = {.handle = request->handle, .answer = writer_bytes(&to)};
    bool leaves = may_leave(signer, audit_request(signer, request, AUDIT_DONE, KSSL_ERROR_NONE));
    if (leaves)
        reply_to(asker, &reply);
    OPENSSL_cleanse(octets, sizeof octets);
    return leaves ? KSSL_ERROR_NONE : KSSL_ERROR_OVERLOADED;
}

/* What a client says again, as it may where an answer was lost, is not told; what it or another says later
 * is: most likely somebody plays back what he has recorded of an edge that he has taken over. */
static enum kssl_error check_replay(const struct asker *asker, const struct sign_request *request,
                                    bool *replay)
{
    const struct signer *signer = asker->signer;
    const struct keyserver_client *client = &signer->config->clients[request->entry];
    *replay = replay_table_note(signer->replays, request, (uint32_t)(clock_now() / 1000000));
    if (!*replay)
        return KSSL_ERROR_NONE;
    const bool refused = client->replay == REPLAYS_REFUSED;
    metric_add(signer->metrics, refused ? KEYSERVER_REPLAYS_REFUSED : KEYSERVER_REPLAYS_SIGNED, 1);
    log_warn(signer->log, "request replayed", log_number("frontend", asker->index),
             log_text("client", client->match), log_text("operation", kssl_opcode_name(request->opcode)),
             log_hex("key", bytes_of(request->ski, KEY_ID_SKI_SIZE)), sni_of(request),
             log_text("outcome", refused ? "refused" : "signed"));
    if (refused)
        audit_refusal(signer, request, AUDIT_REPLAYED, KSSL_ERROR_REPLAY);
    return refused ? KSSL_ERROR_REPLAY : KSSL_ERROR_NONE;
}

static enum kssl_error do_what_is_asked(struct asker *asker, const struct sign_request *request, size_t key)
{
    bool replay;
    if (!can_be_recorded(asker->signer))
        return KSSL_ERROR_OVERLOADED;
    if (request->kind == GIVE_TICKET_KEYS)
        return give_ticket_keys(asker, request);
    enum kssl_error error = check_replay(asker, request, &replay);
    if (error != KSSL_ERROR_NONE)
        return error;
    error = enqueue(asker, request, key, replay);
    if (error != KSSL_ERROR_NONE)
        forget_request(asker->signer, request, replay);
    return error;
}

/* Whatever the front end has checked is checked again. */
static bool on_ask(struct asker *asker, uint8_t type, struct bytes body)
{
    struct sign_request request;
    const char *reason;
    size_t key = 0;
    if (!signer_ask_parse(type, body, &request))
        return false;
    enum kssl_error error = sign_request_check(asker->signer->policy, &request, &key, &reason);
    if (error == KSSL_ERROR_NONE && !policy_admits(asker->signer->policy, request.entry, clock_now()))
        error = KSSL_ERROR_RATE;
    if (error == KSSL_ERROR_NONE)
        error = do_what_is_asked(asker, &request, key);
    else
        tell_forbidden(asker, &request, error, reason);
    if (error != KSSL_ERROR_NONE) {
        const struct signer_reply reply = {.handle = request.handle, .error = (uint8_t)error};
        reply_to(asker, &reply);
    }
    return true;
}

bool asker_message(uint8_t type, struct bytes body, void *owner)
{
    struct asker *asker = owner;
    return type == SIGNER_CANCEL ? on_cancel(asker, body) : on_ask(asker, type, body);
}
