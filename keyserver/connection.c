#include "keyserver/connection.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/kssl.h"
#include "keyserver/client_match.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/operations.h"

/* Of one connection: octets of requests in flight with room for their answers, and octets of answers that it
 * has not taken. Together they stay below 4 MiB, whatever it asks. */
#define HELD_MAX    (1800u * 1024)
#define OUTPUT_HIGH (1900u * 1024)

#define REVIEW_MICROSECONDS 100000

enum connection_state { CONNECTION_HANDSHAKE, CONNECTION_SERVING, CONNECTION_ENDING };

/* A request that the signer has. */
struct request {
    struct signer_call call; /* first: the one is the other */
    struct connection *connection;
    TAILQ_ENTRY(request) all;
    uint32_t id;
    uint8_t opcode;
    enum key_class class;
    size_t octets;
    uint8_t ski[KEY_ID_SKI_SIZE];
    uint8_t name[KSSL_REQUEST_ID_MAX]; /* what the peer calls it */
    size_t name_size;
};

/* A frame that has to wait. */
struct kept_frame {
    struct kssl_header header;
    enum key_class class; /* for room in which it waits */
    uint8_t *body;        /* NULL: none */
};

struct connection {
    struct connections *all;
    TAILQ_ENTRY(connection) entry;
    struct channel *channel;
    enum connection_state state;
    size_t client; /* its entry in the configuration */
    bool said_hello;
    bool paused;
    TAILQ_HEAD(, request) requests;
    unsigned in_flight;
    size_t class_in_flight[KEY_CLASSES];
    size_t held;    /* octets of requests in flight and their answers' */
    size_t counted; /* octets that are in all->octets for this connection */
    struct kept_frame kept;
    uint64_t answered; /* requests, for the log */
};

static const char *client_name(const struct connection *connection)
{
    return connection->all->config->clients[connection->client].match;
}

/* ---- When to read: everything here follows from state. */

/* One connection alone never finds a queue full: it waits for its own requests instead. */
static bool class_is_full(const struct connection *connection, enum key_class class)
{
    const struct keyserver_config *config = connection->all->config;
    const size_t limits[KEY_CLASSES] = {config->queues.ec, config->queues.rsa, config->queues.rsa_large};
    return connection->class_in_flight[class] >= limits[class];
}

static size_t octets_of(const struct connection *connection)
{
    size_t kept = connection->kept.body != NULL ? connection->kept.header.length : 0;
    return channel_queued(connection->channel) + connection->held + kept;
}

/* Half of what all may hold is for those that hold more than their share of it, and they stop there; so the
 * whole stays bounded, and one that holds little is read from whatever the others do. */
static bool under_pressure(const struct connection *connection)
{
    const struct connections *all = connection->all;
    size_t half = all->octets_max / 2;
    return all->octets >= half && connection->counted >= half / (all->count + 1);
}

static bool must_wait(const struct connection *connection)
{
    return connection->state != CONNECTION_SERVING || connection->kept.body != NULL ||
           connection->in_flight >= connection->all->config->limits.in_flight ||
           connection->held >= HELD_MAX || channel_full(connection->channel) || under_pressure(connection);
}

static void count_octets(struct connection *connection)
{
    struct connections *all = connection->all;
    size_t now = octets_of(connection);
    all->octets = all->octets - connection->counted + now;
    connection->counted = now;
    if (all->octets >= all->octets_max / 2 && !event_pending(all->review, EV_TIMEOUT, NULL)) {
        struct timeval later = clock_timeval(REVIEW_MICROSECONDS);
        (void)event_add(all->review, &later);
    }
}

/* After anything has happened to the connection. */
static void settle(struct connection *connection)
{
    count_octets(connection);
    bool wait = must_wait(connection);
    if (wait != connection->paused) {
        connection->paused = wait;
        if (wait)
            channel_pause(connection->channel);
        else
            channel_resume(connection->channel);
    }
    if (connection->state == CONNECTION_ENDING && connection->in_flight == 0 && connection->kept.body == NULL)
        channel_finish(connection->channel);
}

/* Output is taken by the peer without a word to us: all are counted before any is judged. */
static void on_review(evutil_socket_t fd, short events, void *owner)
{
    (void)fd;
    (void)events;
    struct connections *all = owner;
    struct connection *connection;
    TAILQ_FOREACH(connection, &all->list, entry)
    {
        count_octets(connection);
    }
    TAILQ_FOREACH(connection, &all->list, entry)
    {
        if (connection->state != CONNECTION_HANDSHAKE)
            settle(connection);
    }
}

/* ---- The end. */

static void request_free(struct request *request)
{
    struct connection *connection = request->connection;
    TAILQ_REMOVE(&connection->requests, request, all);
    connection->in_flight--;
    connection->class_in_flight[request->class]--;
    connection->held -= request->octets;
    free(request);
}

static void connection_free(struct connection *connection)
{
    struct connections *all = connection->all;
    struct request *request;
    while ((request = TAILQ_FIRST(&connection->requests)) != NULL) {
        signer_client_cancel(all->signer, &request->call);
        request_free(request);
    }
    TAILQ_REMOVE(&all->list, connection, entry);
    all->count--;
    all->octets -= connection->counted;
    metric_change(all->metrics, KEYSERVER_CONNECTIONS_OPEN, -1);
    free(connection->kept.body);
    free(connection);
}

static void connection_ended(struct connection *connection, const char *reason)
{
    struct connections *all = connection->all;
    const struct address *peer = channel_peer_address(connection->channel);
    if (connection->state == CONNECTION_HANDSHAKE) {
        log_warn(all->log, "handshake failed", log_address("peer", peer), log_reason(reason));
        metric_add(all->metrics, KEYSERVER_CONNECTIONS_FAILED, 1);
    } else {
        log_info(all->log, "connection closed", log_text("client", client_name(connection)),
                 log_address("peer", peer), log_number("requests", (int64_t)connection->answered),
                 log_number("unanswered", connection->in_flight), log_reason(reason));
    }
    connection_free(connection);
    all->ended(all->owner);
}

static void on_closed(struct channel *channel, const struct failure *why, void *owner)
{
    (void)channel;
    connection_ended(owner, why->text);
}

/* ---- Answers. */

/* What a line about a request tells. */
struct request_line {
    uint8_t opcode;
    struct bytes ski;  /* size 0: it named none */
    struct bytes name; /* the peer's own for it; size 0: none */
    uint8_t error;
    uint32_t queue, sign;
};

static struct log_field if_there(struct log_field field)
{
    return field.bytes.size > 0 ? field : log_text(field.key, NULL);
}

static void tell(struct connection *connection, const struct request_line *line)
{
    struct log *log = connection->all->log;
    struct metrics_row *metrics = connection->all->metrics;
    connection->answered++;
    metric_add(metrics, keyserver_metric_of_request(line->opcode, line->error), 1);
    if (line->error == KSSL_ERROR_NONE) {
        log_debug(log, "request answered", log_text("client", client_name(connection)),
                  log_text("operation", kssl_opcode_name(line->opcode)), if_there(log_hex("key", line->ski)),
                  if_there(log_bytes("request", line->name)), log_number("queue_us", line->queue),
                  log_number("sign_us", line->sign));
        return;
    }
    metric_add(metrics, keyserver_metric_of_refusal(line->error), 1);
    log_warn(log, "request refused", log_text("client", client_name(connection)),
             log_text("operation", kssl_opcode_name(line->opcode)), log_number("opcode", line->opcode),
             if_there(log_hex("key", line->ski)), if_there(log_bytes("request", line->name)),
             log_number("error", line->error), log_reason(kssl_error_name(line->error)));
}

static void send_frame(struct connection *connection, const struct writer *frame, bool written)
{
    struct failure why;
    if (!written)
        (void)failure_set(&why, RESULT_LIMIT, "an answer does not fit a frame");
    else if (channel_send(connection->channel, writer_bytes(frame)) != RESULT_LIMIT)
        return; /* RESULT_PEER: it is going, and `closed` follows */
    else
        (void)failure_set(&why, RESULT_LIMIT, "no room to queue an answer");
    log_error(connection->all->log, "answer lost", log_text("client", client_name(connection)),
              log_reason(why.text));
    channel_finish(connection->channel);
}

static struct writer frame_writer(const struct connection *connection)
{
    return writer_of(connection->all->frame, KSSL_FRAME_MAX);
}

/* A peer that speaks Part A alone knows no error above 0x0B. */
static uint8_t error_for(const struct connection *connection, uint8_t opcode, uint8_t error)
{
    bool part_a = opcode < KSSL_OP_HELLO && !connection->said_hello;
    return error == KSSL_ERROR_OVERLOADED && part_a ? KSSL_ERROR_INTERNAL : error;
}

static void send_error(struct connection *connection, uint32_t id, const struct request_line *line)
{
    struct writer to = frame_writer(connection);
    bool written = kssl_error_write(&to, id, error_for(connection, line->opcode, line->error));
    tell(connection, line);
    send_frame(connection, &to, written);
}

static void send_answer(struct connection *connection, uint32_t id, const struct operation *operation)
{
    static const uint8_t NOTHING;
    struct writer to = frame_writer(connection);
    const struct kssl_message message = {.has_opcode = true,
                                         .opcode = operation->answer_opcode,
                                         .payload = operation->answer.data != NULL ? operation->answer
                                                                                   : bytes_of(&NOTHING, 0)};
    bool written = kssl_message_write(&to, id, &message);
    const struct request_line line = {.opcode = operation->message.opcode};
    tell(connection, &line);
    send_frame(connection, &to, written);
}

static void send_signature(struct connection *connection, const struct request *request,
                           const struct signer_reply *reply)
{
    uint8_t timing[8];
    struct writer timing_to = writer_of(timing, sizeof timing);
    struct bytes extra = {0};
    if (connection->said_hello) {
        const struct kssl_timing spent = {.queue = reply->queue, .sign = reply->sign};
        kssl_timing_write(&timing_to, &spent);
        extra = writer_bytes(&timing_to);
    }
    struct writer to = frame_writer(connection);
    bool written = kssl_success_write(&to, request->id, reply->signature, extra);
    send_frame(connection, &to, written);
}

/* ---- Requests. */

static void handle(struct connection *connection, const struct kssl_header *header, struct bytes body);

static void retry_kept(struct connection *connection)
{
    struct kept_frame kept = connection->kept;
    if (kept.body == NULL || class_is_full(connection, kept.class))
        return;
    connection->kept = (struct kept_frame){.body = NULL};
    handle(connection, &kept.header, bytes_of(kept.body, kept.header.length));
    free(kept.body);
}

static void on_answered(struct signer_call *call, const struct signer_reply *reply)
{
    struct request *request = (struct request *)call;
    struct connection *connection = request->connection;
    const struct request_line line = {.opcode = request->opcode,
                                      .ski = bytes_of(request->ski, KEY_ID_SKI_SIZE),
                                      .name = bytes_of(request->name, request->name_size),
                                      .error = reply->error,
                                      .queue = reply->queue,
                                      .sign = reply->sign};
    if (reply->error == KSSL_ERROR_NONE) {
        tell(connection, &line);
        send_signature(connection, request, reply);
    } else {
        send_error(connection, request->id, &line);
    }
    request_free(request);
    retry_kept(connection);
    settle(connection);
}

/* Between peers that have exchanged hello, item 0x15 is the request's name: printable ASCII. */
static void take_name(const struct connection *connection, struct bytes trace, struct request *request)
{
    if (!connection->said_hello || trace.size > KSSL_REQUEST_ID_MAX)
        return;
    for (size_t i = 0; i < trace.size; i++)
        if (trace.data[i] < 0x21 || trace.data[i] > 0x7E)
            return;
    if (trace.size > 0)
        memcpy(request->name, trace.data, trace.size);
    request->name_size = trace.size;
}

static size_t answer_size(const struct key_info *key)
{
    const size_t headers = 3 * 3 + 1 + 8; /* items: opcode, payload, timing */
    return kssl_frame_size(headers + key->id.signature_size);
}

static struct request *request_new(struct connection *connection, uint32_t id,
                                   const struct operation *operation)
{
    struct request *request = calloc(1, sizeof *request);
    if (request == NULL)
        return NULL;
    request->call.answered = on_answered;
    request->connection = connection;
    request->id = id;
    request->opcode = operation->message.opcode;
    request->class = key_class_of(&operation->key->id);
    request->octets = sizeof *request + signer_client_cost(&operation->request) + answer_size(operation->key);
    memcpy(request->ski, operation->key->id.ski, KEY_ID_SKI_SIZE);
    take_name(connection, operation->message.trace, request);
    TAILQ_INSERT_TAIL(&connection->requests, request, all);
    connection->in_flight++;
    connection->class_in_flight[request->class]++;
    connection->held += request->octets;
    return request;
}

static void refuse(struct connection *connection, uint32_t id, const struct operation *operation)
{
    const struct request_line line = {.opcode = operation->message.opcode,
                                      .ski = operation->message.ski,
                                      .error = (uint8_t)operation->error};
    send_error(connection, id, &line);
}

static bool keep(struct connection *connection, const struct kssl_header *header, struct bytes body,
                 enum key_class class)
{
    uint8_t *copy = malloc(body.size + 1);
    if (copy == NULL)
        return false;
    memcpy(copy, body.data, body.size);
    connection->kept = (struct kept_frame){.header = *header, .class = class, .body = copy};
    return true;
}

static void sign(struct connection *connection, const struct kssl_header *header, struct bytes body,
                 struct operation *operation)
{
    if (class_is_full(connection, key_class_of(&operation->key->id)) &&
        keep(connection, header, body, key_class_of(&operation->key->id)))
        return;
    struct request *request = request_new(connection, header->id, operation);
    if (request != NULL && signer_client_ask(connection->all->signer, &operation->request, &request->call))
        return;
    if (request != NULL)
        request_free(request);
    operation->error = KSSL_ERROR_INTERNAL;
    refuse(connection, header->id, operation);
}

static void handle(struct connection *connection, const struct kssl_header *header, struct bytes body)
{
    struct connections *all = connection->all;
    struct operation operation;
    operation_decide(all->policy, connection->client, header, body, (uint64_t)time(NULL), all->scratch,
                     &operation);
    if (operation.outcome == OPERATION_SIGN) {
        sign(connection, header, body, &operation);
    } else if (operation.outcome == OPERATION_ANSWER) {
        connection->said_hello |= operation.message.opcode == KSSL_OP_HELLO;
        send_answer(connection, header->id, &operation);
    } else {
        refuse(connection, header->id, &operation);
    }
}

static void on_frame(struct channel *channel, const struct kssl_header *header, struct bytes body,
                     void *owner)
{
    (void)channel;
    struct connection *connection = owner;
    handle(connection, header, body);
    settle(connection);
}

static void on_drained(struct channel *channel, void *owner)
{
    (void)channel;
    settle(owner);
}

/* ---- The beginning. */

static void on_open(struct channel *channel, void *owner)
{
    struct connection *connection = owner;
    struct connections *all = connection->all;
    const struct address *peer = channel_peer_address(channel);
    if (!policy_match(all->policy, channel_peer_certificate(channel), &connection->client)) {
        char names[CLIENT_DESCRIPTION_SIZE];
        client_describe(channel_peer_certificate(channel), names);
        log_warn(all->log, "client refused", log_address("peer", peer), log_text("certificate", names),
                 log_reason("its certificate matches no client entry"));
        metric_add(all->metrics, KEYSERVER_CONNECTIONS_UNKNOWN, 1);
        connection_free(connection);
        channel_close(channel);
        all->ended(all->owner);
        return;
    }
    connection->state = all->draining ? CONNECTION_ENDING : CONNECTION_SERVING;
    log_info(all->log, "connection opened", log_text("client", client_name(connection)),
             log_address("peer", peer), log_text("tls", channel_tls_version(channel)));
    settle(connection);
}

static const struct channel_handler HANDLER = {
    .open = on_open, .frame = on_frame, .drained = on_drained, .closed = on_closed};

void connections_accept(struct connections *connections, int fd, const struct address *peer)
{
    const struct channel_limits limits = {.handshake_timeout = connections->config->limits.handshake_timeout,
                                          .idle_timeout = connections->config->limits.idle_timeout,
                                          .output_high = OUTPUT_HIGH};
    struct failure why;
    struct connection *connection = calloc(1, sizeof *connection);
    (void)failure_set(&why, RESULT_LIMIT, "no memory for a connection");
    struct channel *channel = channel_accept(connections->base, connections->context, fd, peer, &limits,
                                             &HANDLER, connection, &why);
    if (connection == NULL || channel == NULL) {
        log_error(connections->log, "cannot serve", log_address("peer", peer), log_reason(why.text));
        channel_close(channel);
        free(connection);
        return;
    }
    connection->all = connections;
    connection->channel = channel;
    TAILQ_INIT(&connection->requests);
    TAILQ_INSERT_TAIL(&connections->list, connection, entry);
    connections->count++;
    metric_add(connections->metrics, KEYSERVER_CONNECTIONS_ACCEPTED, 1);
    metric_change(connections->metrics, KEYSERVER_CONNECTIONS_OPEN, 1);
}

/* ---- All of them. */

bool connections_init(struct connections *connections)
{
    TAILQ_INIT(&connections->list);
    connections->frame = malloc(KSSL_FRAME_MAX);
    connections->scratch = malloc(KSSL_PAYLOAD_MAX);
    connections->review = evtimer_new(connections->base, on_review, connections);
    return connections->frame != NULL && connections->scratch != NULL && connections->review != NULL;
}

void connections_clear(struct connections *connections)
{
    struct connection *connection;
    while ((connection = TAILQ_FIRST(&connections->list)) != NULL) {
        channel_close(connection->channel);
        connection_free(connection);
    }
    if (connections->review != NULL)
        event_free(connections->review);
    free(connections->frame);
    free(connections->scratch);
}

void connections_drain(struct connections *connections)
{
    struct connection *connection;
    connections->draining = true;
    TAILQ_FOREACH(connection, &connections->list, entry)
    {
        if (connection->state == CONNECTION_SERVING) {
            connection->state = CONNECTION_ENDING;
            settle(connection);
        }
    }
}
