#include <stdlib.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "common/socket.h"
#include "proxy/connection_state.h"
#include "proxy/proxy_metrics.h"

static const struct {
    const char *name;
    enum proxy_metric metric;
    bool linger;        /* the client has yet to read what was sent last */
    bool reset_backend; /* it must not take what it got for the whole */
} REASONS[] = {
    [REASON_FINISHED] = {"finished", PROXY_CONNECTIONS_FINISHED, false, false},
    [REASON_LINGERED] = {"finished", PROXY_CONNECTIONS_FINISHED, false, true},
    [REASON_HANDSHAKE_FAILED] = {"handshake failed", PROXY_CONNECTIONS_HANDSHAKE_FAILED, true, false},
    [REASON_NO_BACKEND] = {"no backend", PROXY_CONNECTIONS_NO_BACKEND, true, false},
    [REASON_CLIENT_LOST] = {"client lost", PROXY_CONNECTIONS_CLIENT_LOST, false, true},
    [REASON_CLIENT_BROKEN] = {"client broke TLS", PROXY_CONNECTIONS_CLIENT_BROKEN, true, true},
    [REASON_BACKEND_LOST] = {"backend lost", PROXY_CONNECTIONS_BACKEND_LOST, true, false},
    [REASON_IDLE] = {"idle", PROXY_CONNECTIONS_IDLE, false, true},
    [REASON_INTERNAL] = {"internal", PROXY_CONNECTIONS_INTERNAL, false, true},
    [REASON_DROPPED] = {"dropped", PROXY_CONNECTIONS_DROPPED, false, true},
};

/* What befalls all clients is told once a second: that no key server can be reached, or that too many wait.
 */
static bool is_told_elsewhere(enum handshake_class class)
{
    return class == HANDSHAKE_CLASS_KEY_NO_SERVER || class == HANDSHAKE_CLASS_KEY_TOO_MANY;
}

void connection_log_handshake(const struct connection *connection)
{
    const struct handshake *handshake = connection->handshake;
    const struct handshake_facts *facts = handshake_facts(handshake);
    bool told = is_told_elsewhere(handshake_failure_class(handshake));
    const char *stage, *reason;
    handshake_failure(handshake, &stage, &reason);
    (void)log_write(
        connection->all->settings.log, told ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO, "handshake failed",
        LOG_FIELDS(log_address("client", &connection->address),
                   log_bytes("sni", bytes_of(facts->sni, facts->sni_size)), log_text("stage", stage),
                   log_reason(reason), log_text("request", handshake_request(handshake)),
                   CLIENT_IDENTITY_FIELDS(facts->client)));
}

void connection_keep_handshake(struct connection *connection)
{
    const struct handshake *handshake = connection->handshake;
    if (connection->all->settings.access != NULL)
        connection->kept = access_handshake_new(handshake_facts(handshake), handshake_request(handshake));
}

static void connection_log_end(struct connection *connection, enum reason reason)
{
    const struct relay *relay = connection->relay;
    struct access_connection line = {
        .client = &connection->address,
        .listener = &connection->listen->address,
        .attempt = &connection->attempt,
        .from_client = relay != NULL ? relay_bytes_from_client(relay) : 0,
        .to_client = relay != NULL ? relay_bytes_to_client(relay) : 0,
        .truncated = relay != NULL && relay_truncated(relay),
        .started = connection->started,
        .end = REASONS[reason].name,
    };
    if (connection->state == HANDSHAKE) {
        connection_keep_handshake(connection);
        handshake_failure(connection->handshake, &line.stage, &line.reason);
    }
    line.handshake = connection->kept;
    access_log_connection(connection->all->settings.access, &line);
}

static void connection_count_end(const struct connection *connection, enum reason reason)
{
    struct metrics_row *metrics = connection->all->settings.metrics;
    metric_add(metrics, REASONS[reason].metric, 1);
    if (connection->relay != NULL && relay_truncated(connection->relay))
        metric_add(metrics, PROXY_CONNECTIONS_TRUNCATED, 1);
}

void connection_release_handshake(struct connection *connection)
{
    handshake_free(connection->handshake);
    connection->handshake = NULL;
}

void connection_close_backend(struct connection *connection, bool reset)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    watch_set(&connection->backend, 0);
    if (reset && connection->backend_fd >= 0)
        (void)setsockopt(connection->backend_fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    socket_close(&connection->backend_fd);
}

/* Everything but the client's socket. */
static void connection_release(struct connection *connection, bool reset_backend)
{
    connection_release_handshake(connection);
    relay_free(connection->relay);
    connection->relay = NULL;
    SSL_free(connection->ssl);
    connection->ssl = NULL;
    connection_close_backend(connection, reset_backend);
}

static void connection_free(struct connection *connection)
{
    struct connections *all = connection->all;
    watch_set(&connection->client, 0);
    (void)event_del(&connection->timer);
    socket_close(&connection->fd);
    access_handshake_free(connection->kept);
    LIST_REMOVE(connection, link);
    free(connection);
    all->count--;
    metric_change(all->settings.metrics, PROXY_CONNECTIONS_OPEN, -1);
}

void connection_end(struct connection *connection, enum reason reason)
{
    struct connections *all = connection->all;
    connection_log_end(connection, reason);
    connection_count_end(connection, reason);
    connection_release(connection, REASONS[reason].reset_backend);
    if (REASONS[reason].linger) {
        connection->state = CLOSING;
        connection->since = clock_now();
        (void)shutdown(connection->fd, SHUT_WR);
        connection_wait(connection);
        return;
    }
    connection_free(connection);
    all->settings.ended(all->settings.owner);
}

void connection_end_closing(struct connection *connection)
{
    struct connections *all = connection->all;
    connection_free(connection);
    all->settings.ended(all->settings.owner);
}

void connection_drop(struct connection *connection)
{
    if (connection->state == HANDSHAKE) {
        handshake_abort(connection->handshake, HANDSHAKE_ABORT_DROPPED);
        connection_log_handshake(connection);
    }
    if (connection->state != CLOSING) {
        connection_log_end(connection, REASON_DROPPED);
        connection_count_end(connection, REASON_DROPPED);
    }
    connection_release(connection, REASONS[REASON_DROPPED].reset_backend);
    connection_free(connection);
}
