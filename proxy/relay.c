#include "proxy/relay.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <openssl/err.h>

#include "proxy/client_bio.h"
#include "proxy/proxy_metrics.h"

/* ---- Buffers. */

struct relay_buffer {
    struct relay_buffer *next;
    uint8_t data[RELAY_BUFFER_SIZE];
};

struct relay_buffers {
    struct relay_buffer *spare;
    size_t spare_count, keep, in_use;
};

struct relay_buffers *relay_buffers_new(size_t keep)
{
    struct relay_buffers *buffers = calloc(1, sizeof *buffers);
    if (buffers != NULL)
        buffers->keep = keep;
    return buffers;
}

void relay_buffers_free(struct relay_buffers *buffers)
{
    if (buffers == NULL)
        return;
    for (struct relay_buffer *buffer = buffers->spare; buffer != NULL;) {
        struct relay_buffer *next = buffer->next;
        free(buffer);
        buffer = next;
    }
    free(buffers);
}

size_t relay_buffers_in_use(const struct relay_buffers *buffers)
{
    return buffers->in_use;
}

static struct relay_buffer *buffer_take(struct relay_buffers *buffers)
{
    struct relay_buffer *buffer = buffers->spare;
    if (buffer != NULL) {
        buffers->spare = buffer->next;
        buffers->spare_count--;
    } else {
        buffer = malloc(sizeof *buffer);
    }
    if (buffer != NULL)
        buffers->in_use++;
    return buffer;
}

static void buffer_give_back(struct relay_buffers *buffers, struct relay_buffer *buffer)
{
    if (buffer == NULL)
        return;
    buffers->in_use--;
    if (buffers->spare_count >= buffers->keep) {
        free(buffer);
        return;
    }
    buffer->next = buffers->spare;
    buffers->spare = buffer;
    buffers->spare_count++;
}

/* ---- One direction. */

/* Bounded work per event, so that one fast connection does not keep a worker from the others. */
#define READS_PER_TURN 8

enum side { CLIENT, BACKEND, SIDES };

struct direction {
    enum side from, to;
    struct relay_buffer *buffer; /* NULL: nothing is queued */
    size_t start, end;           /* what of it is queued */
    bool ended;                  /* the source has ended */
    bool told;                   /* ... the sink was told */
    bool closed;                 /* ... and that is on its way, with all before it */
    bool deaf;                   /* the sink takes nothing any more: what still comes is dropped */
    bool drained;                /* the last read took all there was: the socket tells when there is more */
    short wants[SIDES];          /* what it waits for, on each socket */
    uint64_t bytes;
};

struct relay {
    struct relay_buffers *buffers;
    SSL *client;
    BIO *client_bio; /* its */
    int backend;
    struct metrics_row *metrics;
    struct direction up, down;
    bool truncated;
    bool backend_reset; /* seen when sending; what had come before is still to be delivered */
};

/* What an attempt to go on came to. */
enum step {
    STEP_ON,
    STEP_WAIT, /* direction.wants says for what */
    STEP_END,  /* of the source */
    STEP_DEAF, /* the sink takes nothing any more */
    STEP_CLIENT_LOST,
    STEP_CLIENT_BROKEN,
    STEP_BACKEND_LOST,
    STEP_NO_MEMORY,
};

static const enum relay_outcome OUTCOMES[] = {
    [STEP_ON] = RELAY_WAITING,
    [STEP_WAIT] = RELAY_WAITING,
    [STEP_END] = RELAY_WAITING,
    [STEP_DEAF] = RELAY_WAITING,
    [STEP_CLIENT_LOST] = RELAY_CLIENT_LOST,
    [STEP_CLIENT_BROKEN] = RELAY_CLIENT_BROKEN,
    [STEP_BACKEND_LOST] = RELAY_BACKEND_LOST,
    [STEP_NO_MEMORY] = RELAY_NO_MEMORY,
};

static enum step step_wait(struct direction *way, enum side side, short event)
{
    way->wants[side] = event;
    return STEP_WAIT;
}

/* ---- The client's side. */

static enum step client_failed(struct relay *relay, struct direction *way, int result)
{
    switch (SSL_get_error(relay->client, result)) {
    case SSL_ERROR_WANT_READ:
        return step_wait(way, CLIENT, EV_READ);
    case SSL_ERROR_WANT_WRITE: /* when reading: the answer to a KeyUpdate (RFC 8446 section 4.6.3) */
        return step_wait(way, CLIENT, EV_WRITE);
    case SSL_ERROR_ZERO_RETURN:
        return STEP_END;
    case SSL_ERROR_SYSCALL:
        return STEP_CLIENT_LOST;
    default:
        return STEP_CLIENT_BROKEN;
    }
}

/* Of what libssl has read already, its socket tells nothing. */
static bool client_pending(const struct relay *relay)
{
    return SSL_has_pending(relay->client);
}

static enum step client_read(struct relay *relay, struct direction *way, void *data, size_t *size)
{
    ERR_clear_error();
    int result = SSL_read_ex(relay->client, data, *size, size);
    if (result == 1)
        return STEP_ON;
    enum step step = client_failed(relay, way, result);
    bool cut_off = step == STEP_END && client_bio_closed(relay->client_bio);
    relay->truncated |= cut_off;
    /* In the midst of a record nobody ends of his own will. */
    return cut_off && client_pending(relay) ? STEP_CLIENT_LOST : step;
}

/* Nothing may be written while something is held. */
static enum step client_flush(struct relay *relay, struct direction *way)
{
    if (!client_bio_flush(relay->client_bio))
        return STEP_CLIENT_LOST;
    return client_bio_holds(relay->client_bio) ? step_wait(way, CLIENT, EV_WRITE) : STEP_ON;
}

static enum step client_write(struct relay *relay, struct direction *way, const void *data, size_t *size)
{
    ERR_clear_error();
    int result = SSL_write_ex(relay->client, data, *size, size);
    if (result == 1)
        return STEP_ON;
    enum step step = client_failed(relay, way, result);
    /* So libssl calls a broken connection once the client has ended its own side. */
    return step == STEP_END ? STEP_CLIENT_LOST : step;
}

/* Sends close_notify. A client that is gone already needs none. */
static enum step client_end(struct relay *relay, struct direction *way)
{
    ERR_clear_error();
    int result = SSL_shutdown(relay->client);
    if (result < 0 && SSL_get_error(relay->client, result) == SSL_ERROR_WANT_WRITE)
        return step_wait(way, CLIENT, EV_WRITE);
    return STEP_ON;
}

/* ---- The backend's side. */

static enum step backend_read(struct relay *relay, struct direction *way, void *data, size_t *size)
{
    ssize_t result;
    do
        result = recv(relay->backend, data, *size, 0);
    while (result < 0 && errno == EINTR);
    if (result > 0) {
        way->drained = (size_t)result < *size;
        *size = (size_t)result;
        return STEP_ON;
    }
    if (result == 0)
        return relay->backend_reset ? STEP_BACKEND_LOST : STEP_END;
    return errno == EAGAIN || errno == EWOULDBLOCK ? step_wait(way, BACKEND, EV_READ) : STEP_BACKEND_LOST;
}

static bool backend_pending(const struct relay *relay)
{
    (void)relay;
    return false;
}

static enum step backend_flush(struct relay *relay, struct direction *way)
{
    (void)relay;
    (void)way;
    return STEP_ON;
}

/* A backend that takes nothing any more may have said its last word before, which the client still gets: how
 * it ended shows when it is read to the end. EPIPE comes after its end of file (and from a local socket that
 * is closed, which then tells the reader how); any other error is a reset, of which the kernel tells once. */
static enum step backend_write(struct relay *relay, struct direction *way, const void *data, size_t *size)
{
    ssize_t result;
    do
        result = send(relay->backend, data, *size, MSG_NOSIGNAL);
    while (result < 0 && errno == EINTR);
    if (result >= 0) {
        *size = (size_t)result;
        return STEP_ON;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        return step_wait(way, BACKEND, EV_WRITE);
    relay->backend_reset |= errno != EPIPE;
    return STEP_DEAF;
}

static enum step backend_end(struct relay *relay, struct direction *way)
{
    (void)way;
    (void)shutdown(relay->backend, SHUT_WR);
    return STEP_ON;
}

static const struct endpoint {
    enum step (*read)(struct relay *relay, struct direction *way, void *data, size_t *size);
    bool (*pending)(const struct relay *relay); /* there is more to read that no event would tell of */
    enum step (*flush)(struct relay *relay, struct direction *way); /* before anything else is written */
    enum step (*write)(struct relay *relay, struct direction *way, const void *data, size_t *size);
    enum step (*end)(struct relay *relay, struct direction *way);
    enum proxy_metric bytes; /* delivered to it */
} ENDPOINTS[SIDES] = {
    [CLIENT] = {client_read, client_pending, client_flush, client_write, client_end, PROXY_BYTES_TO_CLIENTS},
    [BACKEND] = {backend_read, backend_pending, backend_flush, backend_write, backend_end,
                 PROXY_BYTES_FROM_CLIENTS},
};

/* ---- Moving. */

static void direction_drop(struct relay *relay, struct direction *way)
{
    buffer_give_back(relay->buffers, way->buffer);
    way->buffer = NULL;
}

static enum step direction_read(struct relay *relay, struct direction *way)
{
    way->buffer = buffer_take(relay->buffers);
    if (way->buffer == NULL)
        return STEP_NO_MEMORY;
    size_t size = sizeof way->buffer->data;
    enum step step = ENDPOINTS[way->from].read(relay, way, way->buffer->data, &size);
    way->start = 0;
    way->end = size;
    way->ended = step == STEP_END;
    if (step != STEP_ON || way->deaf)
        direction_drop(relay, way);
    return step;
}

static enum step direction_write(struct relay *relay, struct direction *way)
{
    size_t size = way->end - way->start;
    enum step step = ENDPOINTS[way->to].write(relay, way, way->buffer->data + way->start, &size);
    if (step == STEP_ON) {
        way->start += size;
        way->bytes += size;
        metric_add(relay->metrics, ENDPOINTS[way->to].bytes, size);
    }
    way->deaf |= step == STEP_DEAF;
    if (way->start == way->end || way->deaf)
        direction_drop(relay, way);
    return step;
}

static enum step direction_end(struct relay *relay, struct direction *way)
{
    enum step step = ENDPOINTS[way->to].end(relay, way);
    way->told = step == STEP_ON;
    return step;
}

static enum step direction_step(struct relay *relay, struct direction *way, unsigned *reads)
{
    enum step flushed = ENDPOINTS[way->to].flush(relay, way);
    way->closed = way->told && flushed == STEP_ON;
    if (way->closed || flushed != STEP_ON)
        return flushed;
    if (way->buffer != NULL)
        return direction_write(relay, way);
    if (way->ended)
        return direction_end(relay, way);
    if (!way->drained && ((*reads)++ < READS_PER_TURN || ENDPOINTS[way->from].pending(relay)))
        return direction_read(relay, way);
    return step_wait(way, way->from, EV_READ);
}

static enum relay_outcome direction_run(struct relay *relay, struct direction *way, short client,
                                        short backend)
{
    if ((way->wants[CLIENT] & client) == 0 && (way->wants[BACKEND] & backend) == 0)
        return RELAY_WAITING;
    way->wants[CLIENT] = way->wants[BACKEND] = 0;
    way->drained = false;
    unsigned reads = 0;
    enum step step = STEP_ON;
    while (!way->closed && (step == STEP_ON || step == STEP_END || step == STEP_DEAF))
        step = direction_step(relay, way, &reads);
    return OUTCOMES[step];
}

/* ---- Relays. */

_Static_assert(RELAY_BUFFER_SIZE >= SSL3_RT_MAX_PLAIN_LENGTH, "a read takes a whole record");

/* SSL_OP_IGNORE_UNEXPECTED_EOF: without it, the client's end of file without close_notify would keep libssl
 * from writing what the backend still has to say. No read-ahead and no SSL_MODE_AUTO_RETRY: with either, a
 * flood of KeyUpdates would never return from SSL_read. */
static void client_prepare(SSL *client)
{
    SSL_set_options(client, SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_set_read_ahead(client, 0);
    SSL_clear_mode(client, SSL_MODE_AUTO_RETRY);
}

struct relay *relay_new(struct relay_buffers *buffers, SSL *client, int backend, struct metrics_row *metrics)
{
    struct relay *relay = calloc(1, sizeof *relay);
    if (relay == NULL)
        return NULL;
    relay->buffers = buffers;
    relay->client = client;
    relay->client_bio = SSL_get_wbio(client);
    relay->backend = backend;
    relay->metrics = metrics;
    relay->up = (struct direction){.from = CLIENT, .to = BACKEND, .wants[CLIENT] = EV_READ};
    relay->down = (struct direction){.from = BACKEND, .to = CLIENT, .wants[BACKEND] = EV_READ};
    client_prepare(client);
    client_bio_hold(relay->client_bio);
    return relay;
}

void relay_free(struct relay *relay)
{
    if (relay == NULL)
        return;
    direction_drop(relay, &relay->up);
    direction_drop(relay, &relay->down);
    free(relay);
}

enum relay_outcome relay_run(struct relay *relay, short client, short backend)
{
    if (client & EV_WRITE && !client_bio_flush(relay->client_bio))
        return RELAY_CLIENT_LOST;
    enum relay_outcome outcome = direction_run(relay, &relay->down, client, backend);
    if (outcome == RELAY_WAITING)
        outcome = direction_run(relay, &relay->up, client, backend);
    if (outcome == RELAY_WAITING && relay->up.closed && relay->down.closed)
        outcome = RELAY_FINISHED;
    return outcome;
}

/* What libssl says by itself, the answer to a KeyUpdate, is in no direction's wants. */
short relay_client_events(const struct relay *relay)
{
    short held = client_bio_holds(relay->client_bio) ? EV_WRITE : 0;
    return (short)(relay->up.wants[CLIENT] | relay->down.wants[CLIENT] | held);
}

short relay_backend_events(const struct relay *relay)
{
    return (short)(relay->up.wants[BACKEND] | relay->down.wants[BACKEND]);
}

uint64_t relay_bytes_from_client(const struct relay *relay)
{
    return relay->up.bytes;
}

uint64_t relay_bytes_to_client(const struct relay *relay)
{
    return relay->down.bytes;
}

bool relay_lingering(const struct relay *relay)
{
    return relay->down.closed;
}

bool relay_truncated(const struct relay *relay)
{
    return relay->truncated;
}
