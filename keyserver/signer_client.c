#include "keyserver/signer_client.h"

#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/kssl.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/signer_link.h"

#define TICK_MICROSECONDS 100000

/* The signer as reached over one link. There is more than one only while one is being replaced. */
struct signer_connection {
    struct signer_client *client;
    struct signer_link *link;
    TAILQ_ENTRY(signer_connection) all;
    struct key_table keys; /* while they arrive */
};

struct slot {
    uint32_t generation;
    uint32_t next_free;
    struct signer_call *call; /* NULL: free */
};

TAILQ_HEAD(call_list, signer_call);
TAILQ_HEAD(connection_list, signer_connection);

struct signer_client {
    struct event_base *base;
    struct signer_client_settings settings;
    struct log *log;
    struct metrics_row *metrics;
    const struct signer_client_handler *handler;
    void *owner;
    struct event *tick;
    struct connection_list connections; /* newest last */
    struct signer_connection *current;  /* asked from now on; NULL: none has told its keys */
    uint64_t without_since;             /* when current became NULL; 0: there never was one */
    struct call_list calls;             /* oldest first */
    struct slot *slots;
    uint32_t slot_count, slot_capacity;
    uint32_t free_slot; /* NO_SLOT: none */
};

#define NO_SLOT UINT32_MAX

/* ---- Slots. */

static uint64_t handle_of(const struct signer_client *client, uint32_t slot)
{
    return (uint64_t)client->slots[slot].generation << 32 | slot;
}

static struct signer_call *find_call(const struct signer_client *client, uint64_t handle)
{
    uint32_t slot = (uint32_t)handle;
    return slot < client->slot_count && handle == handle_of(client, slot) ? client->slots[slot].call : NULL;
}

static bool slots_grow(struct signer_client *client)
{
    if (client->slot_count < client->slot_capacity)
        return true;
    uint32_t capacity = client->slot_capacity == 0 ? 256 : 2 * client->slot_capacity;
    struct slot *slots = realloc(client->slots, capacity * sizeof *slots);
    if (slots == NULL)
        return false;
    client->slots = slots;
    client->slot_capacity = capacity;
    return true;
}

static bool slot_take(struct signer_client *client, uint32_t *slot)
{
    if (client->free_slot != NO_SLOT) {
        *slot = client->free_slot;
        client->free_slot = client->slots[*slot].next_free;
        return true;
    }
    if (!slots_grow(client))
        return false;
    *slot = client->slot_count++;
    client->slots[*slot] = (struct slot){.generation = 0};
    return true;
}

static void slot_return(struct signer_client *client, uint32_t number)
{
    struct slot *slot = &client->slots[number];
    slot->generation++;
    slot->call = NULL;
    slot->next_free = client->free_slot;
    client->free_slot = number;
}

/* ---- Calls. */

static void call_end(struct signer_client *client, struct signer_call *call)
{
    slot_return(client, call->slot);
    if (call->asked)
        TAILQ_REMOVE(&client->calls, call, by_age);
    free(call->message);
    call->message = NULL;
    metric_change(client->metrics, KEYSERVER_PENDING, -1);
}

static void call_send(struct signer_client *client, struct signer_call *call)
{
    call->asked_on = client->current;
    /* A link that takes no more is about to be told of as closed: then the call is sent again. */
    if (call->asked_on != NULL &&
        !signer_link_send(call->asked_on->link, bytes_of(call->message, call->message_size)))
        call->asked_on = NULL;
}

/* What waits for a signer, oldest first. */
static void calls_resend(struct signer_client *client)
{
    struct signer_call *call;
    if (client->current == NULL)
        return;
    TAILQ_FOREACH(call, &client->calls, by_age)
    {
        if (call->asked_on == NULL)
            call_send(client, call);
    }
}

static void calls_recall(struct signer_client *client, const struct signer_connection *from)
{
    struct signer_call *call;
    uint64_t count = 0;
    TAILQ_FOREACH(call, &client->calls, by_age)
    {
        if (call->asked_on == from) {
            call->asked_on = NULL;
            count++;
        }
    }
    metric_add(client->metrics, KEYSERVER_RESENT, count);
}

static void tell_cancelled(const struct signer_client *client, const struct signer_call *call)
{
    uint8_t octets[SIGNER_HEADER_SIZE + sizeof(uint64_t)];
    struct writer to = writer_of(octets, sizeof octets);
    signer_cancel_write(&to, handle_of(client, call->slot));
    if (!writer_ok(&to) || !signer_link_send(call->asked_on->link, writer_bytes(&to)))
        return; /* it is about to be closed, and what was asked on it is given up with it */
}

void signer_client_cancel(struct signer_client *client, struct signer_call *call)
{
    if (call->asked && call->asked_on != NULL)
        tell_cancelled(client, call);
    call_end(client, call);
}

static void calls_give_up(struct signer_client *client, uint64_t now)
{
    struct signer_call *call;
    while ((call = TAILQ_FIRST(&client->calls)) != NULL && call->give_up <= now) {
        const struct signer_reply reply = {.error = KSSL_ERROR_INTERNAL};
        signer_client_cancel(client, call);
        metric_add(client->metrics, KEYSERVER_EXPIRED, 1);
        call->answered(call, &reply);
    }
}

size_t signer_client_cost(const struct sign_request *request)
{
    size_t fixed = SIGNER_HEADER_SIZE + 128 + sizeof request->tls12 + sizeof(struct signer_call);
    return fixed + request->sni_size + sign_request_borrowed(request).size;
}

static bool call_encode(struct signer_call *call, const struct sign_request *request)
{
    size_t room = signer_client_cost(request);
    call->message = malloc(room);
    if (call->message == NULL)
        return false;
    struct writer to = writer_of(call->message, room);
    signer_ask_write(&to, request);
    call->message_size = to.size;
    return writer_ok(&to);
}

bool signer_client_prepare(struct signer_client *client, struct sign_request *request,
                           struct signer_call *call)
{
    if (!slot_take(client, &call->slot))
        return false;
    request->handle = handle_of(client, call->slot);
    if (!call_encode(call, request)) {
        free(call->message);
        slot_return(client, call->slot);
        return false;
    }
    client->slots[call->slot].call = call;
    call->asked = false;
    call->asked_on = NULL;
    metric_change(client->metrics, KEYSERVER_PENDING, 1);
    return true;
}

void signer_client_ask(struct signer_client *client, struct signer_call *call)
{
    call->asked = true;
    call->give_up = clock_now() + client->settings.give_up;
    TAILQ_INSERT_TAIL(&client->calls, call, by_age);
    call_send(client, call);
}

/* ---- What the signer tells. */

static bool on_key(struct signer_connection *connection, struct bytes body)
{
    struct key_id id;
    struct bytes label;
    return connection->client->current != connection && signer_key_parse(body, &id, &label) &&
           key_table_add(&connection->keys, &id, label, NULL) == RESULT_OK;
}

/* The signer is ready: everything that waits goes to it. */
static bool on_keys_end(struct signer_connection *connection, struct bytes body)
{
    struct signer_client *client = connection->client;
    uint32_t count;
    if (client->current == connection || !signer_keys_end_parse(body, &count) ||
        count != connection->keys.count)
        return false;
    struct key_table keys = connection->keys;
    connection->keys = (struct key_table){0};
    if (TAILQ_LAST(&client->connections, connection_list) != connection) {
        key_table_clear(&keys); /* already replaced */
        return true;
    }
    if (!client->handler->keys(&keys, client->owner))
        return false;
    client->current = connection;
    client->without_since = clock_now();
    calls_resend(client);
    return true;
}

static bool on_reply(struct signer_connection *connection, struct bytes body)
{
    struct signer_client *client = connection->client;
    struct signer_reply reply;
    if (!signer_reply_parse(body, &reply))
        return false;
    struct signer_call *call = find_call(client, reply.handle);
    if (call == NULL || call->asked_on != connection) {
        metric_add(client->metrics, KEYSERVER_STALE, 1);
        return true;
    }
    call_end(client, call);
    call->answered(call, &reply);
    return true;
}

static bool on_message(uint8_t type, struct bytes body, void *owner)
{
    if (type == SIGNER_TELL_REPLY)
        return on_reply(owner, body);
    if (type == SIGNER_TELL_KEY)
        return on_key(owner, body);
    return type == SIGNER_TELL_KEYS_END && on_keys_end(owner, body);
}

/* ---- Links. */

static void no_longer_current(struct signer_client *client)
{
    if (client->current != NULL)
        client->without_since = clock_now();
    client->current = NULL;
}

static void connection_free(struct signer_connection *connection)
{
    TAILQ_REMOVE(&connection->client->connections, connection, all);
    signer_link_close(connection->link);
    key_table_clear(&connection->keys);
    free(connection);
}

static void on_closed(const struct failure *why, void *owner)
{
    struct signer_connection *connection = owner;
    struct signer_client *client = connection->client;
    if (why->kind != RESULT_OK) {
        log_error(client->log, "signer link broken", log_reason(why->text));
        metric_add(client->metrics, KEYSERVER_LINKS_BROKEN, 1);
    }
    if (client->current == connection)
        no_longer_current(client);
    calls_recall(client, connection);
    connection_free(connection);
    calls_resend(client);
}

static const struct signer_link_handler LINK_HANDLER = {.message = on_message, .closed = on_closed};

void signer_client_link(struct signer_client *client, int fd)
{
    no_longer_current(client);
    struct signer_connection *connection = calloc(1, sizeof *connection);
    struct signer_link *link = signer_link_new(client->base, fd, 0, &LINK_HANDLER, connection);
    if (connection == NULL || link == NULL) {
        signer_link_close(link);
        free(connection);
        log_error(client->log, "signer link broken", log_reason("no memory"));
        return;
    }
    connection->client = client;
    connection->link = link;
    TAILQ_INSERT_TAIL(&client->connections, connection, all);
}

static void on_tick(evutil_socket_t fd, short events, void *owner)
{
    (void)fd;
    (void)events;
    struct signer_client *client = owner;
    uint64_t now = clock_now();
    calls_give_up(client, now);
    if (client->current == NULL && client->without_since != 0 &&
        now - client->without_since > client->settings.lost) {
        client->without_since = now;
        client->handler->lost(client->owner);
    }
}

struct signer_client *signer_client_new(struct event_base *base,
                                        const struct signer_client_settings *settings, struct log *log,
                                        struct metrics_row *metrics,
                                        const struct signer_client_handler *handler, void *owner)
{
    static const struct timeval TICK = {.tv_usec = TICK_MICROSECONDS};
    struct signer_client *client = calloc(1, sizeof *client);
    if (client == NULL)
        return NULL;
    *client = (struct signer_client){.base = base,
                                     .settings = *settings,
                                     .log = log,
                                     .metrics = metrics,
                                     .handler = handler,
                                     .owner = owner,
                                     .free_slot = NO_SLOT};
    TAILQ_INIT(&client->connections);
    TAILQ_INIT(&client->calls);
    client->tick = event_new(base, -1, EV_PERSIST, on_tick, client);
    if (client->tick == NULL || event_add(client->tick, &TICK) != 0) {
        signer_client_free(client);
        return NULL;
    }
    return client;
}

void signer_client_free(struct signer_client *client)
{
    if (client == NULL)
        return;
    struct signer_connection *connection = TAILQ_FIRST(&client->connections);
    while (connection != NULL) {
        struct signer_connection *next = TAILQ_NEXT(connection, all);
        connection_free(connection);
        connection = next;
    }
    if (client->tick != NULL)
        event_free(client->tick);
    free(client->slots);
    free(client);
}
