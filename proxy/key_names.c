#include "proxy/key_names.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "common/clock.h"
#include "proxy/proxy_metrics.h"

#define TTL_LEAST    5u /* seconds */
#define TTL_MOST     3600u
#define AFTER_FAILED 10u
#define NO_MEMORY    "no memory"
#define NOT_OFFERED  "its SRV records name no host"
#define LIST_TEXT    512

_Static_assert(RESOLVER_ADDRESSES_MAX <= ENDPOINTS_MAX, "room for what is found of a host");

struct key_name;

/* One host of a key server: the one in its address, or one that SRV records name. */
struct named_host {
    struct key_name *owner;
    struct resolver_query *query;
    struct endpoint_host host;
};

struct key_name {
    struct key_names *names;
    const struct proxy_key_server *server;
    size_t place, metric_value;
    struct event *timer;
    struct resolver_query *srv;
    struct named_host hosts[SRV_TARGETS_MAX];
    size_t host_count;
    struct endpoint_host before[SRV_TARGETS_MAX]; /* of the look-up before this one */
    size_t before_count;
    unsigned pending;
    uint32_t ttl;
    const char *failed; /* a fixed string: why something was not found this time; NULL: all was */
    const char *told;   /* what the log was told; NULL: all is well */
};

struct key_names {
    struct key_names_settings settings;
    struct key_name list[PROXY_KEY_SERVERS_MAX];
    size_t count;
};

/* ---- What was found. */

static void list_format(const struct endpoint_list *list, char text[static LIST_TEXT])
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < list->count && used < LIST_TEXT; i++) {
        struct address address;
        char one[ADDRESS_TEXT_SIZE];
        if (endpoint_address(&list->list[i], &address))
            used += (size_t)snprintf(text + used, LIST_TEXT - used, "%s%s", used > 0 ? " " : "",
                                     address_format(&address, one));
    }
}

/* Written only when it is something new: each version makes all workers look. */
static void publish(const struct key_name *name, const struct endpoint_list *list)
{
    const struct key_names_settings *settings = &name->names->settings;
    struct endpoint_list before;
    char text[LIST_TEXT];
    if (endpoints_read(settings->endpoints, name->place, name->server, &before) &&
        memcmp(&before, list, sizeof before) == 0)
        return;
    endpoints_write(settings->endpoints, name->place, name->server, list);
    list_format(list, text);
    log_info(settings->log, "key server addresses", log_text("server", name->server->name),
             log_number("count", list->count), log_text("addresses", text));
}

static void tell(struct key_name *name)
{
    const struct key_names_settings *settings = &name->names->settings;
    if (name->failed != NULL)
        metric_add_for(settings->metrics, PROXY_KEY_LOOKUPS_FAILED, name->metric_value, 1);
    if (name->failed == NULL && name->told != NULL)
        log_info(settings->log, "key server's name found again", log_text("server", name->server->name));
    else if (name->failed != NULL && (name->told == NULL || strcmp(name->told, name->failed) != 0))
        log_warn(settings->log, "key server's name not found", log_text("server", name->server->name),
                 log_reason(name->failed));
    name->told = name->failed;
}

static uint32_t pause_of(const struct key_name *name)
{
    if (name->failed != NULL)
        return AFTER_FAILED;
    if (name->ttl < TTL_LEAST)
        return TTL_LEAST;
    return name->ttl < TTL_MOST ? name->ttl : TTL_MOST;
}

static void round_end(struct key_name *name)
{
    struct endpoint_host hosts[SRV_TARGETS_MAX];
    struct endpoint_list list;
    for (size_t i = 0; i < name->host_count; i++)
        hosts[i] = name->hosts[i].host;
    endpoint_list_make(hosts, name->host_count, &list);
    if (list.count > 0)
        publish(name, &list);
    tell(name);
    const struct timeval pause = {.tv_sec = pause_of(name)};
    (void)event_add(name->timer, &pause);
}

/* ---- Looking up. */

/* A host that is not found now is where it was. */
static void find_before(const struct key_name *name, struct endpoint_host *host)
{
    for (size_t i = 0; i < name->before_count; i++) {
        const struct endpoint_host *before = &name->before[i];
        if (strcasecmp(before->target.host, host->target.host) != 0 ||
            before->target.port != host->target.port)
            continue;
        memcpy(host->found, before->found, sizeof host->found);
        host->count = before->count;
    }
}

static void host_failed(struct named_host *named, const char *reason)
{
    named->owner->failed = reason;
    find_before(named->owner, &named->host);
}

static void host_ended(struct key_name *name)
{
    if (--name->pending == 0)
        round_end(name);
}

static void on_host(const struct address *addresses, size_t count, uint32_t ttl, const char *reason,
                    void *owner)
{
    struct named_host *named = owner;
    struct key_name *name = named->owner;
    named->query = NULL;
    if (count > 0) {
        memcpy(named->host.found, addresses, count * sizeof *addresses);
        named->host.count = count;
        name->ttl = ttl < name->ttl ? ttl : name->ttl;
    } else {
        host_failed(named, reason);
    }
    host_ended(name);
}

/* pending counts this function, too, so that the round does not end within it. */
static void hosts_look_up(struct key_name *name, const struct srv_target *targets, size_t count)
{
    struct resolver *resolver = name->names->settings.resolver;
    for (size_t i = 0; i < name->host_count; i++)
        name->before[i] = name->hosts[i].host;
    name->before_count = name->host_count;
    name->host_count = count;
    name->pending = 1;
    for (size_t i = 0; i < count; i++) {
        struct named_host *named = &name->hosts[i];
        *named = (struct named_host){.owner = name, .host = {.target = targets[i]}};
        named->query = resolver_find(resolver, targets[i].host, targets[i].port, on_host, named);
        if (named->query == NULL)
            host_failed(named, NO_MEMORY);
        name->pending += named->query != NULL;
    }
    host_ended(name);
}

/* Without an answer all is as it was. */
static void on_srv(const struct srv_answer *answer, const char *reason, void *owner)
{
    struct key_name *name = owner;
    name->srv = NULL;
    if (answer == NULL || answer->count == 0) {
        name->failed = answer == NULL ? reason : NOT_OFFERED;
        round_end(name);
        return;
    }
    name->ttl = answer->ttl;
    hosts_look_up(name, answer->targets, answer->count);
}

static void look_up_host(struct key_name *name)
{
    struct srv_target target = {.port = name->server->at.port, .weight = 1};
    (void)snprintf(target.host, sizeof target.host, "%s", name->server->at.host);
    hosts_look_up(name, &target, 1);
}

static void on_timer(evutil_socket_t fd, short what, void *owner)
{
    struct key_name *name = owner;
    (void)fd;
    (void)what;
    name->ttl = UINT32_MAX;
    name->failed = NULL;
    if (name->server->srv == NULL) {
        look_up_host(name);
        return;
    }
    name->srv = resolver_find_srv(name->names->settings.resolver, name->server->srv, on_srv, name);
    if (name->srv == NULL)
        on_srv(NULL, NO_MEMORY, name);
}

/* ---- Life. */

static enum result name_begin(struct key_names *names, size_t index, struct failure *why)
{
    static const struct timeval NOW = {0};
    struct key_name *name = &names->list[names->count];
    *name = (struct key_name){.names = names,
                              .server = &names->settings.config->key_servers[index],
                              .place = names->settings.places[index]};
    name->metric_value = metric_value(names->settings.metrics, PROXY_SERVER_LABEL, name->server->name);
    name->timer = evtimer_new(names->settings.base, on_timer, name);
    if (name->timer == NULL || event_add(name->timer, &NOW) != 0)
        return failure_set(why, RESULT_SYSTEM, "no memory for names of key servers");
    names->count++;
    return RESULT_OK;
}

enum result key_names_new(const struct key_names_settings *settings, struct key_names **names,
                          struct failure *why)
{
    struct key_names *made = calloc(1, sizeof *made);
    *names = made;
    if (made == NULL)
        return failure_set_errno(why, "names of key servers");
    made->settings = *settings;
    enum result result = RESULT_OK;
    for (size_t i = 0; result == RESULT_OK && i < settings->config->key_server_count; i++)
        if (proxy_key_server_is_named(&settings->config->key_servers[i]))
            result = name_begin(made, i, why);
    if (result == RESULT_OK)
        return RESULT_OK;
    key_names_free(made);
    *names = NULL;
    return result;
}

static void name_end(struct key_name *name)
{
    resolver_cancel(name->srv);
    for (size_t i = 0; i < name->host_count; i++)
        resolver_cancel(name->hosts[i].query);
    if (name->timer != NULL)
        event_free(name->timer);
}

void key_names_free(struct key_names *names)
{
    if (names == NULL)
        return;
    for (size_t i = 0; i < PROXY_KEY_SERVERS_MAX; i++)
        name_end(&names->list[i]);
    free(names);
}
