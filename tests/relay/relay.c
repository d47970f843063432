/*
 * keyless-relay: a TCP relay that misbehaves as told, between a proxy and its key server or a client and its
 * proxy.
 *
 *   keyless-relay LISTEN TARGET
 *
 * with addresses like "127.0.0.1:4000" prints "ready", then reads commands, one a line, and answers each with
 * one line:
 *
 *   - delay MICROSECONDS: hold what arrives back for so long, each way; "stats" tells what it really was
 *   - stall: pass nothing on
 *   - resume: go on
 *   - corrupt N: flip one bit in every Nth octet that goes to the target or back; 0: none
 *   - reorder N: exchange every Nth piece that arrives with the one behind it; 0: none. A piece is a frame or
 *     a TLS record, when they come one by one
 *   - rate N: pass at most N octets a second on, each way; 0: as fast as can be
 *   - drop: close new connections at once
 *   - accept: take them again
 *   - cut: reset all connections
 *   - stats: print connections, octets and the mean and the longest delay so far
 *
 * End of input ends the relay.
 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <unistd.h>

#include <event2/event.h>

#include "common/address.h"
#include "common/clock.h"
#include "common/socket.h"

#define CHUNK_MAX    16384
#define QUEUED_MAX   (1u << 20) /* octets held back for one direction; then it is not read */
#define COMMAND_MAX  128
#define RATE_QUANTUM 10000 /* microseconds */

/* What was read at one time, and when it may go on. */
struct chunk {
    STAILQ_ENTRY(chunk) next;
    uint64_t arrived;
    uint64_t due;
    size_t size;
    size_t sent;
    uint8_t data[CHUNK_MAX];
};

struct flow; /* one direction of a connection */

struct faults {
    uint64_t delay;
    uint64_t corrupt;
    uint64_t reorder;
    uint64_t rate;
    bool stalled;
    bool dropping;
};

struct relay {
    struct event_base *base;
    struct address target;
    int listener;
    struct event *accept_event;
    struct event *command_event;
    struct faults faults;
    TAILQ_HEAD(, connection) connections;
    char command[COMMAND_MAX];
    size_t command_size;
    uint64_t accepted, octets, delayed, delay_sum, delay_most;
};

struct flow {
    struct connection *connection;
    int from, to;
    struct event *readable, *writable, *timer;
    STAILQ_HEAD(, chunk) chunks;
    size_t queued;
    uint64_t allowance, allowance_at; /* octets that the rate leaves until then */
    uint64_t counted;                 /* octets seen, for corruption */
    uint64_t pieces;                  /* chunks seen, for reordering */
    struct chunk *held;               /* goes behind the next one */
    bool ended;                       /* from has sent its last */
    bool shut;                        /* and to has been told */
};

struct connection {
    TAILQ_ENTRY(connection) next;
    struct relay *relay;
    int client, target;
    struct flow up, down;
};

static void flow_pump(struct flow *flow);

static void flow_queue(struct flow *flow, struct chunk *chunk)
{
    STAILQ_INSERT_TAIL(&flow->chunks, chunk, next);
    flow->queued += chunk->size;
}

/* Puts the chunk that was held back, if there is one, behind all others. */
static void flow_release(struct flow *flow)
{
    if (flow->held != NULL)
        flow_queue(flow, flow->held);
    flow->held = NULL;
}

static void flow_free(struct flow *flow)
{
    flow_release(flow);
    struct event *events[] = {flow->readable, flow->writable, flow->timer};
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (events[i] != NULL)
            event_free(events[i]);
    for (struct chunk *chunk; (chunk = STAILQ_FIRST(&flow->chunks)) != NULL;) {
        STAILQ_REMOVE_HEAD(&flow->chunks, next);
        free(chunk);
    }
}

static void connection_free(struct connection *connection)
{
    TAILQ_REMOVE(&connection->relay->connections, connection, next);
    flow_free(&connection->up);
    flow_free(&connection->down);
    socket_close(&connection->client);
    socket_close(&connection->target);
    free(connection);
}

static void connection_reset(struct connection *connection)
{
    struct linger reset = {.l_onoff = 1};
    (void)setsockopt(connection->client, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    (void)setsockopt(connection->target, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    connection_free(connection);
}

/* ---- One direction. */

static void corrupt(struct flow *flow, struct chunk *chunk)
{
    uint64_t every = flow->connection->relay->faults.corrupt;
    for (size_t i = 0; i < chunk->size; i++)
        if (++flow->counted >= every && every != 0) {
            chunk->data[i] ^= 1;
            flow->counted = 0;
        }
}

/* False: nothing more for now, or the connection is gone. */
static bool flow_read(struct flow *flow)
{
    struct chunk *chunk = malloc(sizeof *chunk);
    if (chunk == NULL)
        abort();
    ssize_t size = read(flow->from, chunk->data, sizeof chunk->data);
    if (size <= 0) {
        free(chunk);
        if (size < 0 && errno != EAGAIN) {
            connection_reset(flow->connection);
            return false;
        }
        flow->ended = size == 0;
        flow_release(flow);
        flow_pump(flow);
        return false;
    }
    chunk->arrived = clock_now();
    chunk->due = chunk->arrived + flow->connection->relay->faults.delay;
    chunk->size = (size_t)size;
    chunk->sent = 0;
    corrupt(flow, chunk);
    uint64_t every = flow->connection->relay->faults.reorder;
    if (every != 0 && flow->held == NULL && ++flow->pieces % every == 0) {
        flow->held = chunk;
        return true;
    }
    flow_queue(flow, chunk);
    flow_release(flow);
    return true;
}

/* How many octets may go on now, by the rate. */
static size_t flow_allowance(struct flow *flow, size_t wanted)
{
    uint64_t rate = flow->connection->relay->faults.rate;
    if (rate == 0)
        return wanted;
    uint64_t now = clock_now();
    if (now >= flow->allowance_at) {
        flow->allowance = rate * RATE_QUANTUM / 1000000u + 1;
        flow->allowance_at = now + RATE_QUANTUM;
    }
    return wanted < flow->allowance ? wanted : (size_t)flow->allowance;
}

static void note_delay(struct relay *relay, const struct chunk *chunk)
{
    uint64_t took = clock_now() - chunk->arrived;
    relay->delayed++;
    relay->delay_sum += took;
    relay->delay_most = took > relay->delay_most ? took : relay->delay_most;
}

enum progress { PROGRESS_SENT, PROGRESS_BLOCKED, PROGRESS_LATER, PROGRESS_GONE };

static enum progress flow_send(struct flow *flow, struct chunk *chunk, uint64_t *later)
{
    struct relay *relay = flow->connection->relay;
    size_t allowed = flow_allowance(flow, chunk->size - chunk->sent);
    if (allowed == 0) {
        *later = flow->allowance_at;
        return PROGRESS_LATER;
    }
    ssize_t sent = send(flow->to, chunk->data + chunk->sent, allowed, MSG_NOSIGNAL);
    if (sent < 0)
        return errno == EAGAIN ? PROGRESS_BLOCKED : PROGRESS_GONE;
    chunk->sent += (size_t)sent;
    relay->octets += (uint64_t)sent;
    flow->allowance -= relay->faults.rate != 0 ? (uint64_t)sent : 0;
    if (chunk->sent == chunk->size) {
        note_delay(relay, chunk);
        flow->queued -= chunk->size;
        STAILQ_REMOVE_HEAD(&flow->chunks, next);
        free(chunk);
    }
    return PROGRESS_SENT;
}

static void flow_wait(struct flow *flow, uint64_t until)
{
    uint64_t now = clock_now();
    struct timeval wait = clock_timeval(until > now ? until - now : 0);
    (void)event_add(flow->timer, &wait);
}

/* Both directions have ended: so does the connection. True: it is gone. */
static bool flow_shut(struct flow *flow)
{
    struct connection *connection = flow->connection;
    if (!flow->ended || flow->shut || !STAILQ_EMPTY(&flow->chunks))
        return false;
    flow->shut = true;
    (void)shutdown(flow->to, SHUT_WR);
    if (!connection->up.shut || !connection->down.shut)
        return false;
    connection_free(connection);
    return true;
}

/* Passes on what is due, then says what to wait for. */
static void flow_pump(struct flow *flow)
{
    struct relay *relay = flow->connection->relay;
    if (relay->faults.stalled)
        return;
    for (struct chunk *chunk; (chunk = STAILQ_FIRST(&flow->chunks)) != NULL;) {
        uint64_t later = chunk->due;
        enum progress progress = chunk->due > clock_now() ? PROGRESS_LATER : flow_send(flow, chunk, &later);
        if (progress == PROGRESS_GONE) {
            connection_reset(flow->connection);
            return;
        }
        if (progress == PROGRESS_LATER)
            flow_wait(flow, later);
        if (progress == PROGRESS_BLOCKED)
            (void)event_add(flow->writable, NULL);
        if (progress != PROGRESS_SENT)
            break;
    }
    if (!flow_shut(flow) && !flow->ended && flow->queued < QUEUED_MAX)
        (void)event_add(flow->readable, NULL);
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    struct flow *flow = argument;
    (void)fd;
    (void)what;
    if (flow_read(flow))
        flow_pump(flow);
}

static void on_writable_or_due(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    flow_pump(argument);
}

static bool flow_start(struct flow *flow, struct connection *connection, int from, int to)
{
    struct event_base *base = connection->relay->base;
    flow->connection = connection;
    flow->from = from;
    flow->to = to;
    flow->readable = event_new(base, from, EV_READ, on_readable, flow);
    flow->writable = event_new(base, to, EV_WRITE, on_writable_or_due, flow);
    flow->timer = evtimer_new(base, on_writable_or_due, flow);
    return flow->readable != NULL && flow->writable != NULL && flow->timer != NULL &&
           event_add(flow->readable, NULL) == 0;
}

/* ---- New connections. */

static void relay_connect(struct relay *relay, int client)
{
    struct failure why;
    struct connection *connection = calloc(1, sizeof *connection);
    if (connection == NULL)
        abort();
    *connection = (struct connection){.relay = relay, .client = client, .target = -1};
    STAILQ_INIT(&connection->up.chunks);
    STAILQ_INIT(&connection->down.chunks);
    TAILQ_INSERT_TAIL(&relay->connections, connection, next);
    if (socket_connect(&relay->target, &connection->target, &why) != RESULT_OK ||
        !flow_start(&connection->up, connection, client, connection->target) ||
        !flow_start(&connection->down, connection, connection->target, client))
        connection_reset(connection);
}

static void on_acceptable(evutil_socket_t fd, short what, void *argument)
{
    struct relay *relay = argument;
    struct address peer;
    int client;
    (void)what;
    while (socket_accept(fd, &client, &peer, NULL) == RESULT_OK) {
        if (relay->faults.dropping) {
            socket_close(&client);
            continue;
        }
        relay->accepted++;
        relay_connect(relay, client);
    }
}

/* ---- Commands. */

static void command_delay(struct relay *relay, uint64_t number)
{
    relay->faults.delay = number;
}

static void command_corrupt(struct relay *relay, uint64_t number)
{
    relay->faults.corrupt = number;
}

static void command_reorder(struct relay *relay, uint64_t number)
{
    relay->faults.reorder = number;
}

static void command_rate(struct relay *relay, uint64_t number)
{
    relay->faults.rate = number;
}

static void command_stall(struct relay *relay, uint64_t number)
{
    (void)number;
    relay->faults.stalled = true;
}

static void command_resume(struct relay *relay, uint64_t number)
{
    (void)number;
    relay->faults.stalled = false;
    /* A pump may free its connection: both timers fire from the loop instead. */
    for (struct connection *connection = TAILQ_FIRST(&relay->connections); connection != NULL;
         connection = TAILQ_NEXT(connection, next)) {
        flow_wait(&connection->up, 0);
        flow_wait(&connection->down, 0);
    }
}

static void command_drop(struct relay *relay, uint64_t number)
{
    (void)number;
    relay->faults.dropping = true;
}

static void command_accept(struct relay *relay, uint64_t number)
{
    (void)number;
    relay->faults.dropping = false;
}

static void command_cut(struct relay *relay, uint64_t number)
{
    (void)number;
    while (!TAILQ_EMPTY(&relay->connections))
        connection_reset(TAILQ_FIRST(&relay->connections));
}

static void command_stats(struct relay *relay, uint64_t number)
{
    unsigned open = 0;
    struct connection *connection;
    (void)number;
    TAILQ_FOREACH(connection, &relay->connections, next) open++;
    (void)printf("accepted=%" PRIu64 " open=%u octets=%" PRIu64 " delay_mean_us=%" PRIu64
                 " delay_max_us=%" PRIu64 " ",
                 relay->accepted, open, relay->octets,
                 relay->delayed != 0 ? relay->delay_sum / relay->delayed : 0, relay->delay_most);
    relay->delayed = relay->delay_sum = relay->delay_most = 0;
}

static const struct command {
    const char *name;
    bool takes_number;
    void (*run)(struct relay *relay, uint64_t number);
} COMMANDS[] = {
    {"delay", true, command_delay},     {"corrupt", true, command_corrupt}, {"rate", true, command_rate},
    {"reorder", true, command_reorder}, {"stall", false, command_stall},    {"resume", false, command_resume},
    {"drop", false, command_drop},      {"accept", false, command_accept},  {"cut", false, command_cut},
    {"stats", false, command_stats},
};

static void run_command(struct relay *relay, char *line)
{
    char *number = strchr(line, ' ');
    if (number != NULL)
        *number++ = '\0';
    for (size_t i = 0; i < sizeof COMMANDS / sizeof *COMMANDS; i++) {
        const struct command *command = &COMMANDS[i];
        if (strcmp(line, command->name) != 0 || command->takes_number != (number != NULL))
            continue;
        command->run(relay, number != NULL ? strtoull(number, NULL, 10) : 0);
        (void)printf("ok %s\n", line);
        return;
    }
    (void)printf("error: unknown command \"%s\"\n", line);
}

static void on_command(evutil_socket_t fd, short what, void *argument)
{
    struct relay *relay = argument;
    (void)what;
    ssize_t size =
        read(fd, relay->command + relay->command_size, sizeof relay->command - relay->command_size - 1);
    if (size <= 0) {
        (void)event_base_loopbreak(relay->base);
        return;
    }
    relay->command_size += (size_t)size;
    relay->command[relay->command_size] = '\0';
    char *line = relay->command;
    for (char *end; (end = strchr(line, '\n')) != NULL; line = end + 1) {
        *end = '\0';
        run_command(relay, line);
    }
    relay->command_size = strlen(line);
    memmove(relay->command, line, relay->command_size + 1);
    (void)fflush(stdout);
}

static struct event_base *new_base(void)
{
    struct event_config *config = event_config_new();
    if (config == NULL)
        return NULL;
    (void)event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    return base;
}

static enum result relay_start(struct relay *relay, const char *listen, const char *target,
                               struct failure *why)
{
    struct address address;
    struct socket_listen_options options = {.backlog = 1024};
    if (address_parse(listen, &address, why) != RESULT_OK ||
        address_parse(target, &relay->target, why) != RESULT_OK ||
        socket_listen(&address, &options, &relay->listener, why) != RESULT_OK)
        return why->kind;
    relay->base = new_base();
    if (relay->base == NULL)
        return failure_set(why, RESULT_SYSTEM, "no event base");
    relay->accept_event = event_new(relay->base, relay->listener, EV_READ | EV_PERSIST, on_acceptable, relay);
    relay->command_event = event_new(relay->base, STDIN_FILENO, EV_READ | EV_PERSIST, on_command, relay);
    if (relay->accept_event == NULL || relay->command_event == NULL ||
        event_add(relay->accept_event, NULL) != 0 || event_add(relay->command_event, NULL) != 0)
        return failure_set(why, RESULT_SYSTEM, "standard input must be a pipe or a terminal");
    return RESULT_OK;
}

static void relay_end(struct relay *relay)
{
    command_cut(relay, 0);
    if (relay->accept_event != NULL)
        event_free(relay->accept_event);
    if (relay->command_event != NULL)
        event_free(relay->command_event);
    socket_close(&relay->listener);
    if (relay->base != NULL)
        event_base_free(relay->base);
}

int main(int argc, char **argv)
{
    struct relay relay = {.listener = -1};
    struct failure why;
    TAILQ_INIT(&relay.connections);
    if (argc != 3) {
        (void)fprintf(stderr, "usage: keyless-relay LISTEN TARGET\n");
        return 2;
    }
    int status = 0;
    if (relay_start(&relay, argv[1], argv[2], &why) == RESULT_OK) {
        (void)puts("ready");
        (void)fflush(stdout);
        (void)event_base_dispatch(relay.base);
    } else {
        (void)fprintf(stderr, "keyless-relay: %s\n", why.text);
        status = 1;
    }
    relay_end(&relay);
    return status;
}
