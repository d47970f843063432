#include "keyserver/connection_state.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/crypto.h>

#include "common/clock.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/operations.h"

static void request_free(struct request *request)
{
    struct connection *connection = request->connection;
    TAILQ_REMOVE(&connection->requests, request, all);
    connection->in_flight--;
    connection->held -= request->octets;
    if (client_load_answer(connection->all->load, connection->client))
        connections_review(connection->all);
    free(request);
}

void connection_expect_requests(struct connection *connection)
{
    TAILQ_INIT(&connection->requests);
    for (size_t class = 0; class < KEY_CLASSES; class ++)
        TAILQ_INIT(&connection->waiting[class]);
}

void connection_forget_requests(struct connection *connection)
{
    struct request *request = TAILQ_FIRST(&connection->requests);
    while (request != NULL) {
        struct request *next = TAILQ_NEXT(request, all);
        signer_client_cancel(connection->all->signer, &request->call);
        request_free(request);
        request = next;
    }
    connection_expect_requests(connection);
    memset(connection->asked, 0, sizeof connection->asked);
}

/* ---- Answers. */

/* What a line about a request tells. */
struct request_line {
    uint8_t opcode;
    struct bytes ski;  /* size 0: it named none */
    struct bytes name; /* the peer's own for it; size 0: none */
    struct bytes sni;  /* as the peer claims; size 0: none, or not kept */
    uint8_t error;
    const char *reason; /* NULL: what the error is called */
    uint32_t queue, sign;
};

static struct log_field if_there(struct log_field field)
{
    return field.bytes.size > 0 ? field : log_text(field.key, NULL);
}

static void tell(struct connection *connection, const struct request_line *line)
{
    struct log *log = connection->all->log;
    const struct address *peer = channel_peer_address(connection->channel);
    struct metrics_row *metrics = connection->all->metrics;
    connection->answered++;
    metric_add_for(metrics, keyserver_metric_of_request(line->opcode, line->error), connection->client_value,
                   1);
    if (line->error == KSSL_ERROR_NONE) {
        log_debug(log, "request answered", log_text("client", connection_client_name(connection)),
                  log_address("peer", peer), log_text("operation", kssl_opcode_name(line->opcode)),
                  if_there(log_hex("key", line->ski)), if_there(log_bytes("request", line->name)),
                  log_number("queue_us", line->queue), log_number("sign_us", line->sign));
        return;
    }
    metric_add(metrics, keyserver_metric_of_refusal(line->error), 1);
    log_warn(log, "request refused", log_text("client", connection_client_name(connection)),
             log_address("peer", peer), log_text("operation", kssl_opcode_name(line->opcode)),
             log_number("opcode", line->opcode), if_there(log_hex("key", line->ski)),
             if_there(log_bytes("sni", line->sni)), if_there(log_bytes("request", line->name)),
             log_number("error", line->error),
             log_reason(line->reason != NULL ? line->reason : kssl_error_name(line->error)));
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
    log_error(connection->all->log, "answer lost", log_text("client", connection_client_name(connection)),
              log_address("peer", channel_peer_address(connection->channel)), log_reason(why.text));
    channel_finish(connection->channel);
}

static struct writer frame_writer(const struct connection *connection)
{
    return writer_of(connection->all->frame, KSSL_FRAME_MAX);
}

/* A peer that speaks Part A alone knows no error for what might be had at another time or place. */
static uint8_t error_for(const struct connection *connection, uint8_t opcode, uint8_t error)
{
    bool part_a = opcode < KSSL_OP_HELLO && !connection->said_hello;
    bool later = error == KSSL_ERROR_OVERLOADED || error == KSSL_ERROR_RATE;
    return later && part_a ? KSSL_ERROR_INTERNAL : error;
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

static void send_reply(struct connection *connection, const struct request *request,
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
    bool written = kssl_success_write(&to, request->id, reply->answer, extra);
    send_frame(connection, &to, written);
    OPENSSL_cleanse(to.data, to.size); /* of a signature it would not matter */
}

/* ---- Requests. */

static void answer(struct request *request, const struct signer_reply *reply)
{
    struct connection *connection = request->connection;
    const struct request_line line = {.opcode = request->opcode,
                                      .ski = bytes_of(request->ski, request->ski_size),
                                      .name = bytes_of(request->name, request->name_size),
                                      .error = reply->error,
                                      .queue = reply->queue,
                                      .sign = reply->sign};
    if (request->key_type != KEY_TYPE_NONE)
        metric_add(connection->all->metrics, keyserver_metric_of_signature(request->key_type, reply->error),
                   1);
    if (reply->error == KSSL_ERROR_NONE) {
        tell(connection, &line);
        send_reply(connection, request, reply);
    } else {
        send_error(connection, request->id, &line);
    }
    request_free(request);
}

/* Asks for those whose turn it is. */
static void take_turns(struct connection *connection, enum key_class class)
{
    struct connections *all = connection->all;
    struct request *request;
    while (connection->asked[class] < pace_limit(&all->pace, class) &&
           (request = TAILQ_FIRST(&connection->waiting[class])) != NULL) {
        TAILQ_REMOVE(&connection->waiting[class], request, turn);
        request->asked = clock_now();
        connection->asked[class]++;
        signer_client_ask(all->signer, &request->call);
    }
}

/* The signer does not answer: those that wait for their turn would find out one after the other. */
static void refuse_waiting(struct connection *connection, enum key_class class)
{
    const struct signer_reply reply = {.error = KSSL_ERROR_INTERNAL};
    struct request *request;
    while ((request = TAILQ_FIRST(&connection->waiting[class])) != NULL) {
        TAILQ_REMOVE(&connection->waiting[class], request, turn);
        signer_client_cancel(connection->all->signer, &request->call);
        answer(request, &reply);
    }
}

static void on_answered(struct signer_call *call, const struct signer_reply *reply)
{
    struct request *request = (struct request *)call;
    struct connection *connection = request->connection;
    enum key_class class = request->class;
    struct signer_reply told = *reply;
    told.queue = clock_passed(request->came, request->asked + reply->queue);
    connection->asked[class]--;
    answer(request, &told);
    if (reply->sign > 0)
        pace_signed(&connection->all->pace, class, reply->sign);
    else if (reply->error == KSSL_ERROR_INTERNAL)
        refuse_waiting(connection, class);
    take_turns(connection, class);
    connection_settle(connection);
}

/* Between peers that have exchanged hello, item 0x15 is the request's name: printable ASCII. Size 0: none. */
static struct bytes name_of(const struct connection *connection, const struct operation *operation)
{
    const struct bytes none = {0};
    struct bytes name = operation->message.trace;
    if (!connection->said_hello || name.size > KSSL_REQUEST_ID_MAX)
        return none;
    for (size_t i = 0; i < name.size; i++)
        if (name.data[i] < 0x21 || name.data[i] > 0x7E)
            return none;
    return name;
}

static size_t answer_size(const struct operation *operation)
{
    const size_t headers = 3 * 3 + 1 + 8; /* items: opcode, payload, timing */
    return kssl_frame_size(
        headers + (operation->key != NULL ? operation->key->id.signature_size : TICKET_KEYS_ANSWER_MAX));
}

/* What keeps no thread busy stands with what keeps one busy for a short time. */
static void note_key(struct request *request, const struct key_info *key)
{
    request->class = KEY_CLASS_EC;
    if (key == NULL)
        return;
    request->key_type = key->id.type;
    request->class = key_class_of(&key->id);
    memcpy(request->ski, key->id.ski, KEY_ID_SKI_SIZE);
    request->ski_size = KEY_ID_SKI_SIZE;
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
    note_key(request, operation->key);
    request->octets = sizeof *request + signer_client_cost(&operation->request) + answer_size(operation);
    struct bytes name = name_of(connection, operation);
    if (name.size > 0)
        memcpy(request->name, name.data, name.size);
    request->name_size = name.size;
    request->came = clock_now();
    TAILQ_INSERT_TAIL(&connection->requests, request, all);
    connection->in_flight++;
    if (client_load_ask(connection->all->load, connection->client))
        connections_review(connection->all);
    connection->held += request->octets;
    return request;
}

static void refuse(struct connection *connection, uint32_t id, const struct operation *operation)
{
    const struct request_line line = {.opcode = operation->message.opcode,
                                      .ski = operation->message.ski,
                                      .name = name_of(connection, operation),
                                      .sni = operation->message.sni,
                                      .error = (uint8_t)operation->error,
                                      .reason = operation->reason};
    send_error(connection, id, &line);
}

static void sign(struct connection *connection, uint32_t id, struct operation *operation)
{
    struct request *request = request_new(connection, id, operation);
    if (request != NULL) {
        memcpy(operation->request.name, request->name, request->name_size);
        operation->request.name_size = (uint8_t)request->name_size;
    }
    if (request != NULL &&
        signer_client_prepare(connection->all->signer, &operation->request, &request->call)) {
        TAILQ_INSERT_TAIL(&connection->waiting[request->class], request, turn);
        take_turns(connection, request->class);
        return;
    }
    if (request != NULL)
        request_free(request);
    operation->error = KSSL_ERROR_INTERNAL;
    refuse(connection, id, operation);
}

static void note_hello(struct connection *connection, struct bytes software)
{
    if (!connection->said_hello)
        log_info(connection->all->log, "client said hello",
                 log_text("client", connection_client_name(connection)),
                 log_address("peer", channel_peer_address(connection->channel)),
                 if_there(log_bytes("software", software)));
    connection->said_hello = true;
}

void connection_handle(struct connection *connection, const struct kssl_header *header, struct bytes body)
{
    struct connections *all = connection->all;
    struct operation operation;
    const struct operation_time now = {.unix_seconds = (uint64_t)time(NULL), .clock = clock_now()};
    operation_decide(all->policy, connection->client, header, body, &now, all->scratch, &operation);
    if (operation.outcome == OPERATION_SIGN) {
        sign(connection, header->id, &operation);
    } else if (operation.outcome == OPERATION_ANSWER) {
        if (operation.message.opcode == KSSL_OP_HELLO)
            note_hello(connection, operation.message.payload);
        send_answer(connection, header->id, &operation);
    } else {
        refuse(connection, header->id, &operation);
    }
}
