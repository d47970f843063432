#include "proxy/builtin_hello.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>

#include "common/http_request.h"
#include "common/socket.h"
#include "proxy/hello_answer.h"

/* Octets of a request's head, the empty line included; more is answered with 431. */
#define HEAD_MAX 8192
/* Answers queued for a client that does not read them: no more of its requests are looked at. */
#define OUTPUT_HIGH 16384

/* One connection. It needs no deadlines: the relay at the other end has them, and closes. */
struct hello_client {
    LIST_ENTRY(hello_client) link;
    struct builtin_hello *hello;
    struct bufferevent *stream;
    struct hello_facts facts;
    struct client_identity *identity; /* that the facts point to */
    uint64_t body;                    /* of the last request, still to be dropped */
    bool answered;                    /* at least once */
    bool last;                        /* the last answer is queued: what still comes is dropped */
    bool ended;                       /* the client has sent its end of file */
};

struct builtin_hello {
    struct event_base *base;
    unsigned worker;
    bool draining;
    LIST_HEAD(, hello_client) clients;
};

static void client_free(struct hello_client *client)
{
    LIST_REMOVE(client, link);
    if (client->stream != NULL)
        bufferevent_free(client->stream);
    free(client->identity);
    free(client);
}

/* ---- Requests. */

static void client_answer(struct hello_client *client, const struct http_request *request)
{
    client->answered = true;
    client->last = !request->keep_alive || client->hello->draining;
    client->body = request->body;
    if (!hello_answer_write(bufferevent_get_output(client->stream), request, &client->facts, client->last))
        client->last = true;
}

/* Takes one request from the input; false: there is no whole one yet. */
static bool client_next(struct hello_client *client)
{
    struct evbuffer *input = bufferevent_get_input(client->stream);
    size_t size = evbuffer_get_length(input);
    size = size < HEAD_MAX ? size : HEAD_MAX;
    const uint8_t *data = size > 0 ? evbuffer_pullup(input, (ev_ssize_t)size) : NULL;
    if (data == NULL)
        return false;
    if (size >= 2 && memcmp(data, "\r\n", 2) == 0) /* RFC 9112 section 2.2: before a request */
        return evbuffer_drain(input, 2) == 0;
    const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (end == NULL && size < HEAD_MAX)
        return false;
    struct http_request request = {.status = 431};
    size_t taken = end != NULL ? (size_t)(end - data) + 4 : size;
    if (end != NULL)
        request = http_request_parse(bytes_of(data, taken));
    (void)evbuffer_drain(input, taken);
    client_answer(client, &request);
    return true;
}

static bool client_drop_body(struct hello_client *client)
{
    struct evbuffer *input = bufferevent_get_input(client->stream);
    size_t size = evbuffer_get_length(input);
    size = size < client->body ? size : (size_t)client->body;
    (void)evbuffer_drain(input, size);
    client->body -= size;
    return client->body == 0;
}

/* After the last answer the socket's sending side is closed, and what still comes is read until the relay
 * closes: closing with bytes unread would look to the relay like a reset. Frees the client when it is over.
 */
static void client_finish(struct hello_client *client)
{
    struct evbuffer *input = bufferevent_get_input(client->stream);
    (void)evbuffer_drain(input, evbuffer_get_length(input));
    if (evbuffer_get_length(bufferevent_get_output(client->stream)) > 0)
        return;
    if (client->ended)
        client_free(client);
    else
        (void)shutdown(bufferevent_getfd(client->stream), SHUT_WR);
}

/* libevent calls back again and again for input at its high watermark, unless reading is off. */
static void client_pause(struct hello_client *client, bool pause)
{
    if (pause)
        (void)bufferevent_disable(client->stream, EV_READ);
    else if (!client->ended)
        (void)bufferevent_enable(client->stream, EV_READ);
}

static void client_serve(struct hello_client *client)
{
    struct evbuffer *output = bufferevent_get_output(client->stream);
    while (!client->last && evbuffer_get_length(output) < OUTPUT_HIGH && client_drop_body(client) &&
           client_next(client))
        ;
    client_pause(client, evbuffer_get_length(output) >= OUTPUT_HIGH);
    if (client->ended && evbuffer_get_length(output) < OUTPUT_HIGH)
        client->last = true; /* what is left is not a whole request */
    if (client->last)
        client_finish(client);
}

static void on_data(struct bufferevent *stream, void *context)
{
    (void)stream;
    client_serve(context);
}

static void on_event(struct bufferevent *stream, short what, void *context)
{
    (void)stream;
    struct hello_client *client = context;
    if (!(what & BEV_EVENT_EOF)) {
        client_free(client);
        return;
    }
    client->ended = true;
    client_serve(client);
}

/* ---- Connections. */

struct builtin_hello *builtin_hello_new(struct event_base *base, unsigned worker)
{
    struct builtin_hello *hello = calloc(1, sizeof *hello);
    if (hello == NULL)
        return NULL;
    hello->base = base;
    hello->worker = worker;
    LIST_INIT(&hello->clients);
    return hello;
}

void builtin_hello_free(struct builtin_hello *hello)
{
    if (hello == NULL)
        return;
    for (struct hello_client *client = LIST_FIRST(&hello->clients); client != NULL;) {
        struct hello_client *next = LIST_NEXT(client, link);
        client_free(client);
        client = next;
    }
    free(hello);
}

/* Takes the descriptor, also when it fails. */
static struct hello_client *client_new(struct builtin_hello *hello, int fd)
{
    struct hello_client *client = calloc(1, sizeof *client);
    struct bufferevent *stream = bufferevent_socket_new(hello->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (client == NULL || stream == NULL) {
        if (stream != NULL)
            bufferevent_free(stream);
        else
            (void)close(fd);
        free(client);
        return NULL;
    }
    client->hello = hello;
    client->stream = stream;
    LIST_INSERT_HEAD(&hello->clients, client, link);
    bufferevent_setcb(stream, on_data, on_data, on_event, client);
    bufferevent_setwatermark(stream, EV_READ, 0, HEAD_MAX);
    (void)bufferevent_enable(stream, EV_READ | EV_WRITE);
    return client;
}

enum result builtin_hello_connect(struct builtin_hello *hello, const struct handshake_facts *facts,
                                  const struct address *client, int *fd, struct failure *why)
{
    int ends[2];
    enum result result = socket_pair(SOCK_STREAM, ends, why);
    if (result != RESULT_OK)
        return result;
    struct hello_client *connection = client_new(hello, ends[1]);
    if (connection == NULL) {
        (void)close(ends[0]);
        return failure_set(why, RESULT_SYSTEM, "builtin:hello: no memory");
    }
    connection->facts = (struct hello_facts){.handshake = *facts, .client = *client, .worker = hello->worker};
    connection->identity = client_identity_copy(facts->client);
    connection->facts.handshake.client = connection->identity;
    *fd = ends[0];
    return RESULT_OK;
}

/* One that has not asked yet has only just connected, and its request is on the way. */
static bool client_is_idle(const struct hello_client *client)
{
    return client->answered && client->body == 0 &&
           evbuffer_get_length(bufferevent_get_input(client->stream)) == 0;
}

void builtin_hello_drain(struct builtin_hello *hello)
{
    hello->draining = true;
    struct hello_client *client = LIST_FIRST(&hello->clients);
    while (client != NULL) {
        struct hello_client *next = LIST_NEXT(client, link);
        if (client_is_idle(client)) {
            client->last = true;
            client_finish(client);
        }
        client = next;
    }
}
