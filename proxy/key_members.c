#include "proxy/key_members.h"

#include <string.h>

#include "common/clock.h"
#include "proxy/key_client_private.h"

/* Many key servers close what is idle for 30 s. */
#define IDLE_PING  15000000u
#define LIST_EVERY 60000000u

static size_t count_named(const struct proxy_config *config)
{
    size_t count = 0;
    for (size_t i = 0; i < config->key_server_count; i++)
        count += proxy_key_server_is_named(&config->key_servers[i]);
    return count;
}

size_t key_members_most(const struct proxy_config *config)
{
    const size_t named = count_named(config);
    const size_t room = PROXY_KEY_SERVERS_MAX - (config->key_server_count - named);
    const size_t most = named > 0 ? room / named : 0;
    return most < KEY_MEMBERS_MOST ? most : KEY_MEMBERS_MOST;
}

enum result key_member_connect(struct key_client *client, struct key_server *server, struct failure *why)
{
    const struct key_link_settings settings = {
        .base = client->base,
        .context = client->channel_context,
        .server = server->config,
        .timeout = client->timeout,
        .idle = IDLE_PING,
        .list_every = LIST_EVERY,
        .log = client->log,
        .metrics = client->metrics,
    };
    return key_link_new(&settings, &key_attempts_handler, client, &server->link, why);
}

/* ---- Who is there. */

static bool is_of(const struct key_server *server, size_t entry)
{
    return server->config != NULL && server->entry == entry;
}

static struct key_server *find(struct key_pool *pool, size_t entry, const struct address *address)
{
    for (size_t i = 0; i < pool->count; i++)
        if (is_of(&pool->servers[i], entry) && address_equal(&pool->servers[i].own.at.address, address))
            return &pool->servers[i];
    return NULL;
}

static size_t count_of(const struct key_pool *pool, size_t entry)
{
    size_t count = 0;
    for (size_t i = 0; i < pool->count; i++)
        count += is_of(&pool->servers[i], entry);
    return count;
}

static bool is_reached_elsewhere(const struct key_pool *pool, const struct key_server *gone)
{
    for (size_t i = 0; i < pool->count; i++)
        if (is_of(&pool->servers[i], gone->entry) && !pool->servers[i].gone &&
            key_link_up(pool->servers[i].link))
            return true;
    return false;
}

/* ---- Coming and going. */

static void leave(struct key_client *client, struct key_server *server)
{
    log_info(client->log, "key server address gone", log_text("server", server->config->name),
             log_address("address", &server->own.at.address));
    key_attempts_leave(client, server);
}

/* Of its name's share: one that is gone gives up its place, best one that is not even reached. */
static void make_room(struct key_client *client, size_t entry)
{
    struct key_server *gone = NULL;
    if (count_of(&client->pool, entry) < client->members_most)
        return;
    for (size_t i = 0; i < client->pool.count; i++) {
        struct key_server *server = &client->pool.servers[i];
        if (is_of(server, entry) && server->gone && (gone == NULL || !key_link_up(server->link)))
            gone = server;
    }
    if (gone != NULL)
        leave(client, gone);
}

/* What others before it in its place have refused is not refused by it. */
static void forget_refusals(struct key_client *client, const struct key_server *server)
{
    struct key_slot *slot;
    TAILQ_FOREACH(slot, &client->by_age, by_age)
    slot->refused &= ~(UINT32_C(1) << server->number);
}

static struct key_server *come(struct key_client *client, size_t entry, const struct address *address)
{
    struct failure why;
    make_room(client, entry);
    struct key_server *server = key_pool_take(&client->pool, &client->entries[entry], entry, address);
    if (server == NULL)
        return NULL;
    forget_refusals(client, server);
    if (key_member_connect(client, server, &why) == RESULT_OK)
        return server;
    log_error(client->log, "key server address not used", log_text("server", server->config->name),
              log_address("address", address), log_reason(why.text));
    key_pool_return(server);
    return NULL;
}

/* ---- Following. */

static size_t shorten(struct key_client *client, size_t entry, const struct endpoint_list *list)
{
    if (list->count <= client->members_most)
        return list->count;
    log_warn(client->log, "key server addresses left out", log_text("server", client->entries[entry].name),
             log_number("used", (int64_t)client->members_most),
             log_number("left_out", (int64_t)(list->count - client->members_most)),
             log_reason("there are more than a worker has channels for"));
    return client->members_most;
}

static void mark_gone(struct key_client *client, size_t entry, const struct endpoint_list *list, size_t count)
{
    for (size_t i = 0; i < client->pool.count; i++)
        if (is_of(&client->pool.servers[i], entry))
            client->pool.servers[i].gone = true;
    for (size_t i = 0; i < count; i++) {
        struct address address;
        struct key_server *server =
            endpoint_address(&list->list[i], &address) ? find(&client->pool, entry, &address) : NULL;
        if (server != NULL)
            server->gone = server->leaving = false;
    }
}

static void follow(struct key_client *client, size_t entry, const struct endpoint_list *list)
{
    const size_t count = shorten(client, entry, list);
    mark_gone(client, entry, list, count);
    for (size_t i = 0; i < count; i++) {
        struct address address;
        if (!endpoint_address(&list->list[i], &address))
            continue;
        struct key_server *server = find(&client->pool, entry, &address);
        if (server == NULL)
            server = come(client, entry, &address);
        if (server == NULL)
            continue;
        server->rank = endpoint_rank(list, count, i);
        server->weight = endpoint_share(list, count, i, client->entries[entry].weight * KEY_POOL_WEIGHT_UNIT);
    }
}

/* What is found no more, or not whole, changes nothing. */
static void look(struct key_client *client, size_t entry)
{
    struct endpoint_list list;
    const uint64_t version = endpoints_version(client->endpoints, client->places[entry]);
    if (version == client->versions[entry])
        return;
    client->versions[entry] = version;
    if (endpoints_read(client->endpoints, client->places[entry], &client->entries[entry], &list) &&
        list.count > 0)
        follow(client, entry, &list);
}

/* Requests end within key_channel.timeout, one way or another. */
static void let_go(struct key_client *client, struct key_server *server)
{
    if (is_reached_elsewhere(&client->pool, server))
        server->leaving = true;
    if (!key_link_up(server->link) || (server->leaving && TAILQ_EMPTY(&server->sent)))
        leave(client, server);
}

void key_client_follow(struct key_client *client, const struct endpoints *endpoints, const size_t *places)
{
    client->endpoints = endpoints;
    client->places = places;
    key_client_tick(client);
}

void key_client_tick(struct key_client *client)
{
    for (size_t i = 0; i < client->entry_count && client->endpoints != NULL; i++)
        if (proxy_key_server_is_named(&client->entries[i]))
            look(client, i);
    for (size_t i = 0; i < client->pool.count; i++)
        if (client->pool.servers[i].config != NULL && client->pool.servers[i].gone)
            let_go(client, &client->pool.servers[i]);
}
