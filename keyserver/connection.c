#include "keyserver/connection_state.h"

#include <stdlib.h>

#include "common/client_match.h"
#include "common/clock.h"
#include "common/process.h"
#include "common/socket.h"
#include "keyserver/keyserver_metrics.h"

/* Of one connection: octets of requests in flight with room for their answers, and octets of answers that it
 * has not taken. Together they stay below 4 MiB, whatever it asks. */
#define HELD_MAX    ((size_t)1800 * 1024)
#define OUTPUT_HIGH ((size_t)1900 * 1024)

#define REVIEW_MICROSECONDS 100000

/* ---- When to read: everything here follows from state. */

static size_t octets_of(const struct connection *connection)
{
    return channel_queued(connection->channel) + connection->held;
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
    return connection->state != CONNECTION_SERVING ||
           connection->in_flight >= connection->all->config->limits.in_flight ||
           client_load_full(connection->all->load, connection->client) || connection->held >= HELD_MAX ||
           channel_full(connection->channel) || under_pressure(connection);
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
void connection_settle(struct connection *connection)
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
    if (connection->state == CONNECTION_ENDING && connection->in_flight == 0)
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
            connection_settle(connection);
    }
}

/* Soon, and once for all that happens until then: other connections are left alone in the middle of what is
 * done with this one. Until then each of them may take one request more. */
void connections_review(struct connections *connections)
{
    event_active(connections->review, EV_TIMEOUT, 0);
}

/* ---- The end. */

static void connection_free(struct connection *connection)
{
    struct connections *all = connection->all;
    connection_forget_requests(connection);
    TAILQ_REMOVE(&all->list, connection, entry);
    all->count--;
    all->octets -= connection->counted;
    if (connection->state == CONNECTION_HANDSHAKE)
        address_load_leave(all->handshakes, channel_peer_address(connection->channel));
    else
        client_load_leave(all->load, connection->client);
    metric_change(all->metrics, KEYSERVER_CONNECTIONS_OPEN, -1);
    free(connection);
}

/* Within `closed`, of a connection that was served. */
static enum connection_end end_of(const struct connection *connection, const struct failure *why)
{
    static const enum connection_end ENDS[CHANNEL_CAUSES] = {
        [CHANNEL_CAUSE_OTHER] = CONNECTION_END_OTHER,
        [CHANNEL_CAUSE_CLOSED] = CONNECTION_END_LOST,
        [CHANNEL_CAUSE_TIMEOUT] = CONNECTION_END_IDLE,
        [CHANNEL_CAUSE_CERTIFICATE] = CONNECTION_END_CERTIFICATE,
        [CHANNEL_CAUSE_NO_CERTIFICATE] = CONNECTION_END_PROTOCOL,
        [CHANNEL_CAUSE_ALERT] = CONNECTION_END_PROTOCOL,
        [CHANNEL_CAUSE_PROTOCOL] = CONNECTION_END_PROTOCOL,
    };
    bool in_order = why->kind == RESULT_OK;
    bool timeout = !in_order && channel_cause(connection->channel) == CHANNEL_CAUSE_TIMEOUT;
    if (timeout && channel_queued(connection->channel) > 0)
        return CONNECTION_END_UNREAD;
    if (connection->cut)
        return CONNECTION_END_DROPPED;
    if (connection->state == CONNECTION_ENDING && (in_order || timeout))
        return CONNECTION_END_DRAINED; /* whether or not the client closed its side in time */
    return in_order ? CONNECTION_END_CLOSED : ENDS[channel_cause(connection->channel)];
}

static void tell_end(const struct connection *connection, enum channel_cause cause, enum connection_end end,
                     const char *reason)
{
    const struct connections *all = connection->all;
    const struct address *peer = channel_peer_address(connection->channel);
    if (connection->state == CONNECTION_HANDSHAKE) {
        metric_add(all->metrics, KEYSERVER_HANDSHAKE_FAILURES + (size_t)cause, 1);
        log_warn(all->log, "handshake failed", log_address("peer", peer), log_reason(reason));
    } else {
        metric_add(all->metrics, KEYSERVER_CLOSED + (size_t)end, 1);
        log_info(all->log, "connection closed", log_text("client", connection_client_name(connection)),
                 log_address("peer", peer), log_number("requests", (int64_t)connection->answered),
                 log_number("unanswered", connection->in_flight), log_reason(reason));
    }
}

static void on_closed(struct channel *channel, const struct failure *why, void *owner)
{
    struct connection *connection = owner;
    struct connections *all = connection->all;
    tell_end(connection, channel_cause(channel), end_of(connection, why), why->text);
    connection_free(connection);
    all->ended(all->owner);
}

static void on_frame(struct channel *channel, const struct kssl_header *header, struct bytes body,
                     void *owner)
{
    (void)channel;
    struct connection *connection = owner;
    connection_handle(connection, header, body);
    connection_settle(connection);
}

static void on_drained(struct channel *channel, void *owner)
{
    (void)channel;
    connection_settle(owner);
}

/* ---- The beginning. */

/* Why a client is turned away. */
struct refusal {
    size_t metric;
    const char *reason;
};

/* NULL: it is served, and counted as its entry's. Finds its entry. */
static const struct refusal *find_refusal(struct connection *connection)
{
    static const struct refusal NO_ENTRY = {KEYSERVER_CONNECTIONS_NO_ENTRY,
                                            "its certificate matches no client entry"};
    static const struct refusal DENIED = {KEYSERVER_CONNECTIONS_DENIED, "its client entry denies it"};
    static const struct refusal TOO_MANY = {KEYSERVER_CONNECTIONS_TOO_MANY,
                                            "its client entry has as many connections as it may"};
    const struct policy *policy = connection->all->policy;
    if (!policy_match(policy, channel_peer_certificate(connection->channel), &connection->client))
        return &NO_ENTRY;
    if (policy_denies(policy, connection->client))
        return &DENIED;
    return client_load_enter(connection->all->load, connection->client) ? NULL : &TOO_MANY;
}

static void turn_away(struct connection *connection, const struct refusal *refusal)
{
    struct connections *all = connection->all;
    struct channel *channel = connection->channel;
    const char *client =
        refusal->metric != KEYSERVER_CONNECTIONS_NO_ENTRY ? connection_client_name(connection) : NULL;
    char names[CLIENT_DESCRIPTION_SIZE];
    client_describe(channel_peer_certificate(channel), names);
    metric_add(all->metrics, refusal->metric, 1);
    log_warn(all->log, "client refused", log_text("client", client),
             log_address("peer", channel_peer_address(channel)), log_text("certificate", names),
             log_reason(refusal->reason));
    connection_free(connection);
    channel_close(channel);
    all->ended(all->owner);
}

static void on_open(struct channel *channel, void *owner)
{
    struct connection *connection = owner;
    struct connections *all = connection->all;
    const struct address *peer = channel_peer_address(channel);
    const struct refusal *refusal = find_refusal(connection);
    if (refusal != NULL) {
        turn_away(connection, refusal);
        return;
    }
    address_load_leave(all->handshakes, peer);
    connection->state = all->draining ? CONNECTION_ENDING : CONNECTION_SERVING;
    connection->client_value =
        metric_value(all->metrics, KEYSERVER_CLIENT_LABEL, connection_client_name(connection));
    log_info(all->log, "connection opened", log_text("client", connection_client_name(connection)),
             log_address("peer", peer), log_text("tls", channel_tls_version(channel)));
    connection_settle(connection);
}

static const struct channel_handler HANDLER = {
    .open = on_open, .frame = on_frame, .drained = on_drained, .closed = on_closed};

/* At once, and with as little work as there can be. */
static void refuse_address(struct connections *connections, int fd, const struct address *peer)
{
    socket_close(&fd);
    metric_add(connections->metrics, KEYSERVER_CONNECTIONS_PER_ADDRESS, 1);
    log_warn(connections->log, "connection refused", log_address("peer", peer),
             log_reason("limits.per_address: so many of its address are in their handshake"));
}

void connections_accept(struct connections *connections, int fd, const struct address *peer)
{
    if (!address_load_enter(connections->handshakes, peer)) {
        refuse_address(connections, fd, peer);
        return;
    }
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
        address_load_leave(connections->handshakes, peer);
        return;
    }
    connection->all = connections;
    connection->channel = channel;
    connection_expect_requests(connection);
    TAILQ_INSERT_TAIL(&connections->list, connection, entry);
    connections->count++;
    metric_add(connections->metrics, KEYSERVER_CONNECTIONS_ACCEPTED, 1);
    metric_change(connections->metrics, KEYSERVER_CONNECTIONS_OPEN, 1);
}

/* ---- All of them. */

bool connections_init(struct connections *connections)
{
    TAILQ_INIT(&connections->list);
    pace_init(&connections->pace, connections->config, process_cores());
    connections->frame = malloc(KSSL_FRAME_MAX);
    connections->scratch = malloc(KSSL_PAYLOAD_MAX);
    connections->review = evtimer_new(connections->base, on_review, connections);
    return connections->frame != NULL && connections->scratch != NULL && connections->review != NULL;
}

void connections_clear(struct connections *connections)
{
    struct connection *connection = TAILQ_FIRST(&connections->list);
    while (connection != NULL) {
        struct connection *next = TAILQ_NEXT(connection, entry);
        struct channel *channel = connection->channel;
        tell_end(connection, CHANNEL_CAUSE_OTHER, CONNECTION_END_DROPPED, "this process ends");
        connection_free(connection);
        channel_close(channel);
        connection = next;
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
            connection_settle(connection);
        }
    }
}

void connections_cut(struct connections *connections)
{
    struct connection *connection;
    TAILQ_FOREACH(connection, &connections->list, entry)
    {
        connection->cut = connection->in_flight > 0;
        if (connection->cut)
            log_info(
                connections->log, "requests dropped", log_text("client", connection_client_name(connection)),
                log_address("peer", channel_peer_address(connection->channel)),
                log_number("requests", connection->in_flight), log_reason("who may do what has changed"));
        connection_forget_requests(connection);
    }
    connections_drain(connections);
}
