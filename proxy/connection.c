#include "proxy/connection.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/connection_state.h"
#include "proxy/proxy_metrics.h"

/* How long a client may take to close after it was told that the connection is over. */
#define LINGER          UINT64_C(5000000)
#define CLOSING_TIMEOUT UINT64_C(2000000)
#define SPARE_BUFFERS   64

/* ---- What it waits for, and until when. */

static const short HANDSHAKE_EVENTS[] = {
    [HANDSHAKE_WANT_READ] = EV_READ,
    [HANDSHAKE_WANT_WRITE] = EV_WRITE,
    [HANDSHAKE_WANT_KEY] = EV_CLOSED,
};

static void connection_watch(struct connection *connection)
{
    short client = 0, backend = 0;
    switch (connection->state) {
    case HANDSHAKE:
        client = HANDSHAKE_EVENTS[connection->handshaking];
        break;
    case CONNECTING:
        client = EV_CLOSED;
        backend = EV_WRITE;
        break;
    case RELAY:
        client = relay_client_events(connection->relay);
        backend = relay_backend_events(connection->relay);
        break;
    case CLOSING:
        client = EV_READ;
        break;
    }
    watch_set(&connection->client, client);
    watch_set(&connection->backend, backend);
}

static uint64_t connection_deadline(const struct connection *connection)
{
    const struct proxy_config *config = connection->all->settings.config;
    uint64_t idle = config->limits.idle_timeout;
    switch (connection->state) {
    case HANDSHAKE:
        return connection->since + config->limits.handshake_timeout;
    case CONNECTING:
        return connection->since + backend_connect_timeout(connection->attempt.backend);
    case RELAY:
        return connection->active + (relay_lingering(connection->relay) && idle > LINGER ? LINGER : idle);
    case CLOSING:
        break;
    }
    return connection->since + CLOSING_TIMEOUT;
}

/* A timer that comes too early is set again when it fires: that is cheaper than moving it with every byte. */
void connection_wait(struct connection *connection)
{
    connection_watch(connection);
    uint64_t deadline = connection_deadline(connection);
    if (connection->timer_at != 0 && connection->timer_at <= deadline)
        return;
    uint64_t now = clock_now();
    struct timeval left = clock_timeval(deadline > now ? deadline - now : 0);
    connection->timer_at = deadline;
    (void)event_add(&connection->timer, &left);
}

/* ---- RELAY. */

static const enum reason RELAY_REASONS[] = {
    [RELAY_FINISHED] = REASON_FINISHED,           [RELAY_CLIENT_LOST] = REASON_CLIENT_LOST,
    [RELAY_CLIENT_BROKEN] = REASON_CLIENT_BROKEN, [RELAY_BACKEND_LOST] = REASON_BACKEND_LOST,
    [RELAY_NO_MEMORY] = REASON_INTERNAL,
};

static void relay_go_on(struct connection *connection, short client, short backend)
{
    struct relay *relay = connection->relay;
    uint64_t before = relay_bytes_from_client(relay) + relay_bytes_to_client(relay);
    bool was_lingering = relay_lingering(relay);
    enum relay_outcome outcome = relay_run(relay, client, backend);
    if (outcome != RELAY_WAITING) {
        connection_end(connection, RELAY_REASONS[outcome]);
        return;
    }
    if (relay_bytes_from_client(relay) + relay_bytes_to_client(relay) != before ||
        relay_lingering(relay) != was_lingering)
        connection->active = clock_now();
    connection_wait(connection);
}

static void relay_begin(struct connection *connection)
{
    struct connections *all = connection->all;
    connection_release_handshake(connection);
    connection->state = RELAY;
    connection->since = connection->active = clock_now();
    connection->relay =
        relay_new(all->buffers, connection->ssl, connection->backend_fd, all->settings.metrics);
    if (connection->relay == NULL)
        connection_end(connection, REASON_INTERNAL);
    else
        relay_go_on(connection, EV_READ, EV_READ);
}

/* ---- CONNECTING. */

static void on_backend(short events, void *owner);

static void connect_next(struct connection *connection)
{
    connection_close_backend(connection, false);
    connection->since = clock_now();
    if (backend_next(&connection->attempt, &connection->backend_fd) != RESULT_OK) {
        connection_end(connection, REASON_NO_BACKEND);
        return;
    }
    watch_init(&connection->backend, connection->all->settings.base, connection->backend_fd, on_backend,
               connection);
    connection_wait(connection);
}

/* In TLS 1.3 nothing of ours need follow the client's Finished, and a client that has not switched Nagle's
 * algorithm off keeps its first request back until the Finished is acknowledged: 40 ms, were the
 * acknowledgement delayed. */
static void acknowledge_finished(const struct connection *connection)
{
    int on = 1;
    (void)setsockopt(connection->fd, IPPROTO_TCP, TCP_QUICKACK, &on, sizeof on);
}

static void connect_begin(struct connection *connection)
{
    const struct handshake_facts *facts = handshake_facts(connection->handshake);
    acknowledge_finished(connection);
    connection->ssl = handshake_take_ssl(connection->handshake);
    connection->state = CONNECTING;
    connection_keep_handshake(connection);
    struct backend *backend = facts->backend != NULL
                                  ? backends_find(connection->all->settings.backends, facts->backend)
                                  : connection->attempt.backend;
    connection->attempt = backend_attempt_start(backend, &connection->address, facts);
    connect_next(connection);
}

static void connect_go_on(struct connection *connection)
{
    if (backend_connected(&connection->attempt, connection->backend_fd))
        relay_begin(connection);
    else
        connect_next(connection);
}

/* ---- HANDSHAKE. */

static void handshake_end_failed(struct connection *connection)
{
    connection_log_handshake(connection);
    connection_end(connection, REASON_HANDSHAKE_FAILED);
}

static void handshake_end_aborted(struct connection *connection, enum handshake_abort why)
{
    handshake_abort(connection->handshake, why);
    handshake_end_failed(connection);
}

static void handshake_go_on(struct connection *connection)
{
    enum handshake_state state = connection->handshaking = handshake_run(connection->handshake);
    if (state == HANDSHAKE_DONE)
        connect_begin(connection);
    else if (state == HANDSHAKE_FAILED)
        handshake_end_failed(connection);
    else
        connection_wait(connection);
}

static void on_key(void *owner)
{
    handshake_go_on(owner);
}

/* ---- CLOSING. */

static void closing_go_on(struct connection *connection)
{
    char dropped[4096];
    ssize_t size = 1;
    for (unsigned i = 0; i < 16 && size > 0; i++)
        size = recv(connection->fd, dropped, sizeof dropped, MSG_DONTWAIT);
    if (size > 0 || (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)))
        return;
    connection_end_closing(connection);
}

/* ---- Events. */

/* Of one that is not being read from: the client has ended its side, or reset the connection. */
static bool client_left(const struct connection *connection, short events)
{
    return (events & EV_CLOSED) != 0 || socket_error(connection->fd) != 0;
}

static void handshake_client(struct connection *connection, short events)
{
    bool parked = HANDSHAKE_EVENTS[connection->handshaking] == EV_CLOSED;
    if (!parked)
        handshake_go_on(connection);
    else if (client_left(connection, events))
        handshake_end_aborted(connection, HANDSHAKE_ABORT_CLOSED);
}

/* A client may have ended its side already and still want the answer; only a reset is the end of it. */
static void connecting_client(struct connection *connection, short events)
{
    if (!(events & EV_CLOSED) && socket_error(connection->fd) != 0)
        connection_end(connection, REASON_CLIENT_LOST);
}

static void relay_client(struct connection *connection, short events)
{
    relay_go_on(connection, events, 0);
}

static void closing_client(struct connection *connection, short events)
{
    (void)events;
    closing_go_on(connection);
}

static void on_client(short events, void *owner)
{
    static void (*const GO_ON[])(struct connection * connection, short events) = {
        [HANDSHAKE] = handshake_client,
        [CONNECTING] = connecting_client,
        [RELAY] = relay_client,
        [CLOSING] = closing_client,
    };
    struct connection *connection = owner;
    GO_ON[connection->state](connection, events);
}

static void on_backend(short events, void *owner)
{
    struct connection *connection = owner;
    if (connection->state == RELAY)
        relay_go_on(connection, 0, events);
    else
        connect_go_on(connection);
}

static void handshake_late(struct connection *connection)
{
    handshake_end_aborted(connection, HANDSHAKE_ABORT_TIMEOUT);
}

static void connecting_late(struct connection *connection)
{
    backend_timed_out(&connection->attempt);
    connect_next(connection);
}

/* A client that was told of the backend's end and does not close is no failure. */
static void relay_late(struct connection *connection)
{
    connection_end(connection, relay_lingering(connection->relay) ? REASON_LINGERED : REASON_IDLE);
}

static void on_timer(evutil_socket_t fd, short what, void *owner)
{
    static void (*const LATE[])(struct connection * connection) = {
        [HANDSHAKE] = handshake_late,
        [CONNECTING] = connecting_late,
        [RELAY] = relay_late,
        [CLOSING] = connection_end_closing,
    };
    (void)fd;
    (void)what;
    struct connection *connection = owner;
    connection->timer_at = 0;
    if (clock_now() < connection_deadline(connection))
        connection_wait(connection);
    else
        LATE[connection->state](connection);
}

/* ---- The set of all. */

struct connections *connections_new(const struct connections_settings *settings)
{
    struct connections *all = calloc(1, sizeof *all);
    if (all == NULL || (all->buffers = relay_buffers_new(SPARE_BUFFERS)) == NULL) {
        free(all);
        return NULL;
    }
    all->settings = *settings;
    LIST_INIT(&all->list);
    return all;
}

void connections_free(struct connections *connections)
{
    if (connections == NULL)
        return;
    while (!LIST_EMPTY(&connections->list))
        connection_drop(LIST_FIRST(&connections->list));
    relay_buffers_free(connections->buffers);
    free(connections);
}

unsigned connections_count(const struct connections *connections)
{
    return connections->count;
}

void connection_accept(struct connections *connections, int fd, const struct address *client,
                       const struct proxy_listen *listen)
{
    struct backend *backend = backends_find(connections->settings.backends, listen->backend);
    const uint64_t now = clock_now(); /* before the handshake's own clock is started */
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection != NULL)
        connection->handshake = handshake_new(connections->settings.handshakes, fd, client,
                                              backend_only_http11(backend), on_key, connection);
    if (connection == NULL || connection->handshake == NULL) {
        free(connection);
        (void)close(fd);
        metric_add(connections->settings.metrics, PROXY_CONNECTIONS_REFUSED, 1);
        log_error(connections->settings.log, "connection refused", log_address("client", client),
                  log_reason("no memory"));
        return;
    }
    connection->all = connections;
    connection->started = connection->since = now;
    connection->address = *client;
    connection->listen = listen;
    connection->fd = fd;
    connection->backend_fd = -1;
    connection->attempt.backend = backend;
    watch_init(&connection->client, connections->settings.base, fd, on_client, connection);
    watch_init(&connection->backend, connections->settings.base, -1, on_backend, connection);
    (void)evtimer_assign(&connection->timer, connections->settings.base, on_timer, connection);
    LIST_INSERT_HEAD(&connections->list, connection, link);
    connections->count++;
    metric_add(connections->settings.metrics, PROXY_CONNECTIONS_ACCEPTED, 1);
    metric_change(connections->settings.metrics, PROXY_CONNECTIONS_OPEN, 1);
    connection_wait(connection);
}
