#include "proxy/handshake_state.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>

#include "common/clock.h"
#include "common/tls_message.h"
#include "proxy/client_bio.h"
#include "proxy/proxy_metrics.h"

/* Octets of a ClientHello with its records' headers. libssl would take 128 kB from anybody. */
#define HELLO_MAX 16640

/* ---- The beginning. */

/* The answer of a key server, from the event loop. */
static void on_signature(struct key_operation *operation)
{
    struct handshake *handshake = operation->owner;
    handshake->signature.finished = true;
    transcript_capture_release(&handshake->transcript);
    handshake->wake(handshake->owner);
}

static bool start_tls(struct handshake *handshake, int fd)
{
    struct handshake_context *context = handshake->context;
    handshake->ssl = SSL_new(context->policies[0].ssl_context);
    handshake->bio = client_bio_new(context->bio_method, fd);
    if (handshake->ssl == NULL || handshake->bio == NULL ||
        SSL_set_app_data(handshake->ssl, handshake) != 1) {
        SSL_free(handshake->ssl);
        BIO_free(handshake->bio);
        return false;
    }
    client_bio_allow(handshake->bio, HELLO_MAX);
    SSL_set_bio(handshake->ssl, handshake->bio, handshake->bio);
    SSL_set_accept_state(handshake->ssl);
    (void)SSL_set_mode(handshake->ssl, SSL_MODE_ASYNC);
    handshake_messages_watch(handshake);
    return true;
}

struct handshake *handshake_new(struct handshake_context *context, int fd, const struct address *client,
                                bool only_http11, void (*wake)(void *owner), void *owner)
{
    struct handshake *handshake = calloc(1, sizeof *handshake);
    if (handshake == NULL)
        return NULL;
    handshake->context = context;
    handshake->wake = wake;
    handshake->owner = owner;
    handshake->only_http11 = only_http11;
    handshake->started = clock_now();
    handshake->state = HANDSHAKE_WANT_READ;
    handshake->stage = "client hello";
    handshake->signature.operation.client = *client;
    handshake->signature.operation.done = on_signature;
    handshake->signature.operation.owner = handshake;
    if (!start_tls(handshake, fd)) {
        ERR_clear_error();
        free(handshake);
        return NULL;
    }
    return handshake;
}

/* ---- What became of it. */

static const char *group_name(SSL *ssl)
{
    static const struct {
        int nid;
        const char *name;
    } names[] = {
        {NID_X25519, "X25519"},   {NID_X9_62_prime256v1, "P-256"},
        {NID_secp384r1, "P-384"}, {NID_secp521r1, "P-521"},
        {NID_X448, "X448"},
    };
    int group = (int)SSL_get_negotiated_group(ssl);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (names[i].nid == group)
            return names[i].name;
    }
    return group == NID_undef ? NULL : SSL_group_to_name(ssl, group);
}

static void note_signature(struct handshake *handshake)
{
    const struct key_operation *operation = &handshake->signature.operation;
    if (handshake_request(handshake) == NULL)
        return;
    const struct tls_scheme *scheme = tls_scheme_find(operation->scheme);
    handshake->facts.scheme = scheme != NULL ? scheme->name : NULL;
    handshake->facts.operation = kssl_opcode_name(operation->opcode);
    handshake->facts.key_type = operation->key->type;
    handshake->facts.key_server = operation->server;
    handshake->facts.key_duration = operation->duration;
}

static void note_facts(struct handshake *handshake)
{
    struct handshake_facts *facts = &handshake->facts;
    const unsigned char *alpn;
    unsigned alpn_size;
    const SSL_CIPHER *cipher = SSL_get_current_cipher(handshake->ssl);
    facts->duration = clock_now() - handshake->started;
    facts->retries = handshake->hellos > 1 ? handshake->hellos - 1 : 0;
    if (handshake->hellos > 0)
        facts->version = SSL_get_version(handshake->ssl);
    if (cipher != NULL) {
        facts->suite = SSL_CIPHER_standard_name(cipher);
        facts->group = group_name(handshake->ssl);
    }
    SSL_get0_alpn_selected(handshake->ssl, &alpn, &alpn_size);
    facts->alpn_size = alpn_size <= sizeof facts->alpn ? alpn_size : 0;
    if (facts->alpn_size > 0)
        memcpy(facts->alpn, alpn, facts->alpn_size);
    facts->resumed = SSL_session_reused(handshake->ssl) == 1;
    note_signature(handshake);
}

/* Once a second, not once a client. */
static void tell_too_many(struct handshake_context *context)
{
    const uint64_t count = log_tally_add(&context->too_many, clock_now());
    if (count > 0)
        log_warn(context->log, "handshakes refused", log_number("refused", (int64_t)count),
                 log_number("limit", (int64_t)context->config->limits.handshakes),
                 log_reason(key_client_full_reason));
}

static void count_failure(struct handshake *handshake)
{
    static const enum proxy_metric OUTCOMES[] = {
        [HANDSHAKE_FAULT_NONE] = PROXY_HANDSHAKES_INTERNAL,
        [HANDSHAKE_FAULT_CLIENT_GONE] = PROXY_HANDSHAKES_CLIENT_GONE,
        [HANDSHAKE_FAULT_CLIENT] = PROXY_HANDSHAKES_CLIENT,
        [HANDSHAKE_FAULT_KEY] = PROXY_HANDSHAKES_KEY,
        [HANDSHAKE_FAULT_ABORTED] = PROXY_HANDSHAKES_ABORTED,
        [HANDSHAKE_FAULT_INTERNAL] = PROXY_HANDSHAKES_INTERNAL,
    };
    struct metrics_row *metrics = handshake->context->metrics;
    enum handshake_class class = handshake->reason.class;
    metric_add(metrics, OUTCOMES[handshake_fault_of(class)], 1);
    metric_add(metrics, PROXY_FAILURES + (size_t) class - 1, 1);
    if (class == HANDSHAKE_CLASS_KEY_TOO_MANY)
        tell_too_many(handshake->context);
}

static enum handshake_state fail(struct handshake *handshake, enum handshake_class class, const char *text)
{
    if (handshake->reason.class == HANDSHAKE_CLASS_NONE)
        handshake->reason = (struct handshake_reason){class, text};
    if (handshake->reason.class == HANDSHAKE_CLASS_NO_CLIENT_CERTIFICATE ||
        handshake->reason.class == HANDSHAKE_CLASS_CLIENT_CERTIFICATE)
        handshake->stage = "client certificate";
    handshake->state = HANDSHAKE_FAILED;
    handshake_messages_leave(handshake);
    note_facts(handshake);
    count_failure(handshake);
    ERR_clear_error();
    return handshake->state;
}

static void count_success(const struct handshake *handshake)
{
    const struct handshake_facts *facts = &handshake->facts;
    struct metrics_row *metrics = handshake->context->metrics;
    bool tls13 = SSL_version(handshake->ssl) == TLS1_3_VERSION;
    metric_add(metrics, PROXY_HANDSHAKES_OK, 1);
    metric_add(metrics, PROXY_STAPLED, handshake->stapled);
    metric_add(metrics, proxy_metric_of_success(tls13, facts->key_type), 1);
    metric_observe(metrics, PROXY_HANDSHAKE_SECONDS, facts->duration);
    metric_observe(metrics, PROXY_HANDSHAKE_CLIENT_SECONDS, facts->duration - facts->key_duration);
}

static enum handshake_state succeed(struct handshake *handshake)
{
    if (!handshake_clients_check(handshake))
        return fail(handshake, HANDSHAKE_CLASS_CLIENT_CERTIFICATE, "client certificate not verified");
    handshake->state = HANDSHAKE_DONE;
    handshake_messages_leave(handshake);
    note_facts(handshake);
    (void)SSL_clear_mode(handshake->ssl, SSL_MODE_ASYNC);
    client_bio_allow(handshake->bio, SIZE_MAX);
    client_bio_pause(handshake->bio, false);
    count_success(handshake);
    return handshake->state;
}

static enum handshake_class key_class(enum key_outcome outcome)
{
    static const enum handshake_class CLASSES[KEY_OUTCOMES] = {
        [KEY_OUTCOME_OK] = HANDSHAKE_CLASS_INTERNAL,
        [KEY_OUTCOME_ERROR] = HANDSHAKE_CLASS_KEY_ERROR,
        [KEY_OUTCOME_TIMEOUT] = HANDSHAKE_CLASS_KEY_TIMEOUT,
        [KEY_OUTCOME_NO_SERVER] = HANDSHAKE_CLASS_KEY_NO_SERVER,
        [KEY_OUTCOME_INVALID] = HANDSHAKE_CLASS_KEY_INVALID,
        [KEY_OUTCOME_WRONG] = HANDSHAKE_CLASS_KEY_WRONG,
        [KEY_OUTCOME_CANCELLED] = HANDSHAKE_CLASS_INTERNAL,
        [KEY_OUTCOME_REFUSED] = HANDSHAKE_CLASS_KEY_REFUSED,
        [KEY_OUTCOME_TOO_MANY] = HANDSHAKE_CLASS_KEY_TOO_MANY,
        [KEY_OUTCOME_MISMATCH] = HANDSHAKE_CLASS_KEY_TRANSCRIPT,
    };
    return CLASSES[outcome];
}

/* libssl has given up: the key, the connection and OpenSSL's queue are asked for the reason, in that order.
 */
static enum handshake_state fail_from_libssl(struct handshake *handshake)
{
    const struct key_operation *operation = &handshake->signature.operation;
    struct handshake_reason reason = handshake_reason_of(ERR_peek_error(), ERR_peek_last_error());
    if (operation->result != RESULT_OK) {
        handshake->stage = "key";
        return fail(handshake, key_class(operation->outcome), operation->reason);
    }
    if (client_bio_exceeded(handshake->bio))
        return fail(handshake, HANDSHAKE_CLASS_MALFORMED, "handshake messages too long");
    /* By the end of its stream, or by an alert. */
    bool closed =
        client_bio_closed(handshake->bio) || (SSL_get_shutdown(handshake->ssl) & SSL_RECEIVED_SHUTDOWN) != 0;
    bool blames_client = handshake_fault_of(reason.class) == HANDSHAKE_FAULT_CLIENT;
    if (!blames_client && closed)
        return fail(handshake, HANDSHAKE_CLASS_CLOSED, "client closed");
    if (!blames_client && client_bio_broken(handshake->bio))
        return fail(handshake, HANDSHAKE_CLASS_RESET, "connection reset by client");
    return fail(handshake, reason.class, reason.text);
}

/* ---- Running. */

/* Runs libssl on a fibre until it is done or has to wait; SSL_get_error's answer. */
static int run_libssl(struct handshake *handshake)
{
    struct remote_signer *signer = &handshake->context->signer;
    struct key_operation *operation = &handshake->signature.operation;
    operation->sni =
        bytes_of(handshake->hello.sni_size > 0 ? handshake->hello.sni : NULL, handshake->hello.sni_size);
    ERR_clear_error();
    client_bio_pause(handshake->bio, handshake->state == HANDSHAKE_WANT_KEY);
    signer->current = &handshake->signature;
    int result = SSL_do_handshake(handshake->ssl);
    signer->current = NULL;
    return SSL_get_error(handshake->ssl, result);
}

/* A handshake signs once, and pauses for nothing else. What is left of it, the client's certificate and
 * Finished, has the whole stack. */
static void leave_fibres(struct handshake *handshake)
{
    handshake->stage = "finished";
    (void)SSL_clear_mode(handshake->ssl, SSL_MODE_ASYNC);
}

/*
 * What libssl has said before the signature, ServerHello to Certificate, goes out while the signature is
 * made: the client checks the chain meanwhile, and a chain that fills more than a congestion window has its
 * second round trip then. It costs a system call and a packet, so it is done only where the wait is worth it.
 * What the socket does not take now, libssl sends with the rest.
 */
static enum handshake_state wait_for_key(struct handshake *handshake)
{
    const struct handshake_context *context = handshake->context;
    uint64_t from = context->config->tls.early_flush;
    if (from != UINT64_MAX && key_client_latency(context->signer.client) >= from &&
        client_bio_flush_flight(handshake->bio))
        metric_add(context->metrics, PROXY_FLUSHED_EARLY, 1);
    return handshake->state = HANDSHAKE_WANT_KEY;
}

enum handshake_state handshake_run(struct handshake *handshake)
{
    if (handshake->state == HANDSHAKE_DONE || handshake->state == HANDSHAKE_FAILED)
        return handshake->state;
    int error = run_libssl(handshake);
    if (handshake->signature.waiting)
        handshake->stage = "key";
    else if (handshake->signature.count > 0)
        leave_fibres(handshake);
    switch (error) {
    case SSL_ERROR_NONE:
        return succeed(handshake);
    case SSL_ERROR_WANT_READ:
        return handshake->state = HANDSHAKE_WANT_READ;
    case SSL_ERROR_WANT_WRITE:
        return handshake->state = HANDSHAKE_WANT_WRITE;
    case SSL_ERROR_WANT_ASYNC:
        return wait_for_key(handshake);
    case SSL_ERROR_WANT_ASYNC_JOB:
        return fail(handshake, HANDSHAKE_CLASS_INTERNAL, "no memory for a fibre");
    default:
        return fail_from_libssl(handshake);
    }
}

/* ---- The end. */

/* A paused fibre must end before its SSL is freed, or it is lost for good: it is resumed once, and the
 * provider then gives up. libssl sends its alert on the way. */
static void end_fibre(struct handshake *handshake)
{
    if (!handshake->signature.waiting)
        return;
    key_client_cancel(handshake->context->signer.client, &handshake->signature.operation);
    handshake->signature.cancelled = true;
    (void)run_libssl(handshake);
}

static const struct handshake_reason ABORTED[] = {
    [HANDSHAKE_ABORT_CLOSED] = {HANDSHAKE_CLASS_CLOSED, "client closed"},
    [HANDSHAKE_ABORT_TIMEOUT] = {HANDSHAKE_CLASS_TIMEOUT, "timeout"},
    [HANDSHAKE_ABORT_DROPPED] = {HANDSHAKE_CLASS_DROPPED, "the worker ends"},
};

void handshake_abort(struct handshake *handshake, enum handshake_abort why)
{
    if (handshake->state == HANDSHAKE_DONE || handshake->state == HANDSHAKE_FAILED)
        return;
    end_fibre(handshake);
    handshake->reason = ABORTED[why];
    (void)fail(handshake, ABORTED[why].class, ABORTED[why].text);
}

void handshake_free(struct handshake *handshake)
{
    if (handshake == NULL)
        return;
    handshake_abort(handshake, HANDSHAKE_ABORT_DROPPED);
    SSL_free(handshake->ssl);
    free(handshake->client);
    handshake_chains_drop(handshake);
    free(handshake);
}

const struct handshake_facts *handshake_facts(const struct handshake *handshake)
{
    return &handshake->facts;
}

void handshake_failure(const struct handshake *handshake, const char **stage, const char **reason)
{
    *stage = handshake->stage;
    *reason = handshake->reason.text;
}

enum handshake_class handshake_failure_class(const struct handshake *handshake)
{
    return handshake->reason.class;
}

const char *handshake_request(const struct handshake *handshake)
{
    const struct key_operation *operation = &handshake->signature.operation;
    return operation->request_id[0] != '\0' ? operation->request_id : NULL;
}

SSL *handshake_take_ssl(struct handshake *handshake)
{
    SSL *ssl = handshake->ssl;
    if (ssl != NULL)
        (void)SSL_set_app_data(ssl, NULL);
    handshake->ssl = NULL;
    return ssl;
}
