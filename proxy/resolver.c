#include "proxy/resolver.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <ares.h>

#include "common/clock.h"

#define SOCKETS_MAX     32 /* to name servers, at a time */
#define HOSTS_MAX       4096
#define SERVER_TIMEOUT  2000 /* milliseconds for each try */
#define TRIES           3
#define HOSTS_TTL       60 /* seconds */
#define CLASS_IN        1
#define TYPE_SRV        33
#define NO_SUCH_NAME    "no such host"
#define WITHOUT_ADDRESS "the host has no address"
#define NO_NAME_SERVER  "no name server answers"
#define LOOKUP_FAILED   "the host's name cannot be looked up"
#define BAD_ANSWER      "the name server's answer does not parse"

/* A line of /etc/hosts, for each of its names. */
struct host {
    char *name;
    struct address address; /* without a port */
};

struct watched {
    ares_socket_t socket;
    struct event *event; /* NULL: free */
    struct resolver *resolver;
};

struct resolver {
    struct event_base *base;
    ares_channel channel;
    bool has_channel;
    struct event *timer;
    struct watched watched[SOCKETS_MAX];
    struct host *hosts;
    size_t host_count;
    LIST_HEAD(, resolver_query) queries;
};

struct resolver_query {
    LIST_ENTRY(resolver_query) link;
    struct resolver *resolver;
    resolver_done *done;         /* for a host; or */
    resolver_srv_done *srv_done; /* for SRV records */
    void *owner;
    uint16_t port;
    bool cancelled;
    bool asked;          /* c-ares has it, and will call back */
    struct event *later; /* what is known at once */
    struct address found[RESOLVER_ADDRESSES_MAX];
    size_t count;
    uint32_t ttl;
    struct srv_answer srv;
};

/* ---- c-ares on our event loop. */

static void timer_set(struct resolver *resolver)
{
    struct timeval pause;
    if (ares_timeout(resolver->channel, NULL, &pause) != NULL)
        (void)event_add(resolver->timer, &pause);
    else
        (void)event_del(resolver->timer);
}

static void process(struct resolver *resolver, ares_socket_t readable, ares_socket_t writable)
{
    ares_process_fd(resolver->channel, readable, writable);
    timer_set(resolver);
}

static void on_timer(evutil_socket_t fd, short what, void *owner)
{
    (void)fd;
    (void)what;
    process(owner, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void on_socket(evutil_socket_t fd, short what, void *owner)
{
    const struct watched *watched = owner;
    process(watched->resolver, (what & EV_READ) != 0 ? fd : ARES_SOCKET_BAD,
            (what & EV_WRITE) != 0 ? fd : ARES_SOCKET_BAD);
}

/* Of this socket, or a free one. */
static struct watched *watched_find(struct resolver *resolver, ares_socket_t socket)
{
    struct watched *unused = NULL;
    for (size_t i = 0; i < SOCKETS_MAX; i++) {
        struct watched *watched = &resolver->watched[i];
        if (watched->event != NULL && watched->socket == socket)
            return watched;
        if (watched->event == NULL)
            unused = watched;
    }
    return unused;
}

/* Without a place for it an answer is found when the query is tried again. */
static void on_socket_state(void *owner, ares_socket_t socket, int readable, int writable)
{
    struct resolver *resolver = owner;
    struct watched *watched = watched_find(resolver, socket);
    short events = (short)((readable != 0 ? EV_READ : 0) | (writable != 0 ? EV_WRITE : 0));
    if (watched == NULL)
        return;
    if (watched->event != NULL)
        event_free(watched->event);
    *watched = (struct watched){.socket = socket, .resolver = resolver};
    if (events == 0)
        return;
    watched->event = event_new(resolver->base, socket, (short)(events | EV_PERSIST), on_socket, watched);
    if (watched->event != NULL)
        (void)event_add(watched->event, NULL);
}

/* ---- /etc/hosts: an address, and the names that are for it. The C library would tell of IPv4 alone. */

static bool ip_parse(const char *text, struct address *address)
{
    uint8_t octets[16];
    if (inet_pton(AF_INET, text, octets) == 1)
        return address_from_ip(address, bytes_of(octets, 4), 0);
    return inet_pton(AF_INET6, text, octets) == 1 && address_from_ip(address, bytes_of(octets, 16), 0);
}

static bool host_add(struct resolver *resolver, const char *name, const struct address *address)
{
    struct host *hosts = realloc(resolver->hosts, (resolver->host_count + 1) * sizeof *hosts);
    if (hosts == NULL)
        return false;
    resolver->hosts = hosts;
    hosts[resolver->host_count] = (struct host){strdup(name), *address};
    return hosts[resolver->host_count].name != NULL && ++resolver->host_count < HOSTS_MAX;
}

/* False: there is no room for more. */
static bool hosts_read_line(struct resolver *resolver, char *line)
{
    static const char BLANK[] = " \t\r\n";
    struct address address;
    char *rest;
    line[strcspn(line, "#")] = '\0';
    const char *word = strtok_r(line, BLANK, &rest);
    if (word == NULL || !ip_parse(word, &address))
        return true;
    while ((word = strtok_r(NULL, BLANK, &rest)) != NULL)
        if (!host_add(resolver, word, &address))
            return false;
    return true;
}

static void hosts_read(struct resolver *resolver)
{
    FILE *file = fopen("/etc/hosts", "re");
    char *line = NULL;
    size_t size = 0;
    while (file != NULL && getline(&line, &size, file) > 0 && hosts_read_line(resolver, line))
        continue;
    free(line);
    if (file != NULL)
        (void)fclose(file);
}

/* ---- A query. */

static void query_free(struct resolver_query *query)
{
    LIST_REMOVE(query, link);
    if (query->later != NULL)
        event_free(query->later);
    free(query);
}

static void query_end(struct resolver_query *query, const char *reason)
{
    if (!query->cancelled && query->srv_done != NULL)
        query->srv_done(reason == NULL ? &query->srv : NULL, reason, query->owner);
    else if (!query->cancelled)
        query->done(query->found, query->count, query->ttl, query->count > 0 ? NULL : reason, query->owner);
    query_free(query);
}

static void query_add(struct resolver_query *query, const struct ares_addrinfo_node *node)
{
    const struct sockaddr *found = node->ai_addr;
    const uint32_t ttl = node->ai_ttl > 0 ? (uint32_t)node->ai_ttl : 0;
    struct address *address = &query->found[query->count];
    query->ttl = query->count == 0 || ttl < query->ttl ? ttl : query->ttl;
    const void *octets = found->sa_family == AF_INET
                             ? (const void *)&((const struct sockaddr_in *)found)->sin_addr
                             : (const void *)&((const struct sockaddr_in6 *)found)->sin6_addr;
    if (query->count < RESOLVER_ADDRESSES_MAX &&
        address_from_ip(address, bytes_of(octets, found->sa_family == AF_INET ? 4 : 16), query->port))
        query->count++;
}

static const char *reason_of(int status)
{
    switch (status) {
    case ARES_SUCCESS:
    case ARES_ENODATA:
        return WITHOUT_ADDRESS;
    case ARES_ENOTFOUND:
        return NO_SUCH_NAME;
    case ARES_ETIMEOUT:
    case ARES_ECONNREFUSED:
    case ARES_EREFUSED:
    case ARES_ESERVFAIL:
        return NO_NAME_SERVER;
    default:
        return LOOKUP_FAILED;
    }
}

static void on_answer(void *owner, int status, int timeouts, struct ares_addrinfo *result)
{
    struct resolver_query *query = owner;
    (void)timeouts;
    for (const struct ares_addrinfo_node *node = result != NULL ? result->nodes : NULL; node != NULL;
         node = node->ai_next)
        if (node->ai_family == AF_INET || node->ai_family == AF_INET6)
            query_add(query, node);
    if (result != NULL)
        ares_freeaddrinfo(result);
    query_end(query, reason_of(status));
}

static void on_srv_answer(void *owner, int status, int timeouts, unsigned char *answer, int size)
{
    struct resolver_query *query = owner;
    (void)timeouts;
    if (status != ARES_SUCCESS)
        query_end(query, reason_of(status));
    else if (!srv_answer_read(bytes_of(answer, (size_t)size), &query->srv))
        query_end(query, BAD_ANSWER);
    else
        query_end(query, NULL);
}

static void on_later(evutil_socket_t fd, short what, void *owner)
{
    (void)fd;
    (void)what;
    query_end(owner, WITHOUT_ADDRESS);
}

/* What needs no name server. */
static bool find_here(struct resolver_query *query, const char *host)
{
    const struct resolver *resolver = query->resolver;
    query->count = ip_parse(host, &query->found[0]);
    query->ttl = HOSTS_TTL;
    address_set_port(&query->found[0], query->port);
    for (size_t i = 0; i < resolver->host_count && query->count < RESOLVER_ADDRESSES_MAX; i++) {
        if (strcasecmp(resolver->hosts[i].name, host) != 0)
            continue;
        query->found[query->count] = resolver->hosts[i].address;
        address_set_port(&query->found[query->count++], query->port);
    }
    return query->count > 0;
}

/* Newer c-ares would rather have it asked otherwise, which older c-ares does not know. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

static void ask_srv(struct resolver_query *query, const char *name)
{
    struct resolver *resolver = query->resolver;
    ares_query(resolver->channel, name, CLASS_IN, TYPE_SRV, on_srv_answer, query);
    timer_set(resolver);
}

#pragma GCC diagnostic pop

static void ask(struct resolver_query *query, const char *host)
{
    const struct ares_addrinfo_hints hints = {
        .ai_flags = ARES_AI_NOSORT, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct resolver *resolver = query->resolver;
    ares_getaddrinfo(resolver->channel, host, NULL, &hints, on_answer, query);
    timer_set(resolver);
}

struct named_query {
    struct resolver_query query;
    char host[256];
};

/* c-ares may call back at once, within the call: so it is called from the loop. */
static void on_ask(evutil_socket_t fd, short what, void *owner)
{
    struct named_query *named = owner;
    (void)fd;
    (void)what;
    named->query.asked = true;
    if (named->query.srv_done != NULL)
        ask_srv(&named->query, named->host);
    else
        ask(&named->query, named->host);
}

static struct named_query *query_new(struct resolver *resolver, const char *host, void *owner)
{
    struct named_query *named = calloc(1, sizeof *named);
    if (named == NULL || strlen(host) >= sizeof named->host) {
        free(named);
        return NULL;
    }
    memcpy(named->host, host, strlen(host) + 1);
    named->query.resolver = resolver;
    named->query.owner = owner;
    return named;
}

static struct resolver_query *query_start(struct named_query *named, event_callback_fn first)
{
    static const struct timeval NOW = {0};
    struct resolver_query *query = &named->query;
    query->later = evtimer_new(query->resolver->base, first, named);
    if (query->later == NULL || event_add(query->later, &NOW) != 0) {
        if (query->later != NULL)
            event_free(query->later);
        free(named);
        return NULL;
    }
    LIST_INSERT_HEAD(&query->resolver->queries, query, link);
    return query;
}

struct resolver_query *resolver_find(struct resolver *resolver, const char *host, uint16_t port,
                                     resolver_done *done, void *owner)
{
    struct named_query *named = query_new(resolver, host, owner);
    if (named == NULL)
        return NULL;
    named->query.done = done;
    named->query.port = port;
    return query_start(named, find_here(&named->query, host) ? on_later : on_ask);
}

struct resolver_query *resolver_find_srv(struct resolver *resolver, const char *name, resolver_srv_done *done,
                                         void *owner)
{
    struct named_query *named = query_new(resolver, name, owner);
    if (named == NULL)
        return NULL;
    named->query.srv_done = done;
    return query_start(named, on_ask);
}

void resolver_cancel(struct resolver_query *query)
{
    if (query == NULL)
        return;
    query->cancelled = true;
    if (!query->asked)
        query_free(query);
}

/* ---- Life. */

static enum result channel_open(struct resolver *resolver, struct failure *why)
{
    /* Not what it would do with /etc/hosts: open it at every query. */
    struct ares_options options = {.timeout = SERVER_TIMEOUT,
                                   .tries = TRIES,
                                   .lookups = (char[]){"b"},
                                   .sock_state_cb = on_socket_state,
                                   .sock_state_cb_data = resolver};
    int mask = ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS | ARES_OPT_SOCK_STATE_CB;
#ifdef ARES_OPT_QUERY_CACHE
    mask |= ARES_OPT_QUERY_CACHE; /* none: when to ask again is ours to say, by the TTL or sooner */
#endif
    int status = ares_init_options(&resolver->channel, &options, mask);
    if (status != ARES_SUCCESS)
        return failure_set(why, RESULT_SYSTEM, "names cannot be looked up: %s", ares_strerror(status));
    resolver->has_channel = true;
    return RESULT_OK;
}

enum result resolver_new(struct event_base *base, struct resolver **resolver, struct failure *why)
{
    struct resolver *made = calloc(1, sizeof *made);
    *resolver = NULL;
    if (made == NULL)
        return failure_set_errno(why, "names");
    made->base = base;
    LIST_INIT(&made->queries);
    made->timer = evtimer_new(base, on_timer, made);
    enum result result = made->timer != NULL ? channel_open(made, why)
                                             : failure_set(why, RESULT_SYSTEM, "no memory for names");
    if (result != RESULT_OK) {
        resolver_free(made);
        return result;
    }
    hosts_read(made);
    *resolver = made;
    return RESULT_OK;
}

void resolver_free(struct resolver *resolver)
{
    struct resolver_query *query, *next;
    if (resolver == NULL)
        return;
    LIST_FOREACH(query, &resolver->queries, link)
    query->cancelled = true;
    if (resolver->has_channel)
        ares_destroy(resolver->channel); /* ends what it was asked */
    for (query = LIST_FIRST(&resolver->queries); query != NULL; query = next) {
        next = LIST_NEXT(query, link);
        query_free(query);
    }
    if (resolver->timer != NULL)
        event_free(resolver->timer);
    for (size_t i = 0; i < SOCKETS_MAX; i++)
        if (resolver->watched[i].event != NULL)
            event_free(resolver->watched[i].event);
    for (size_t i = 0; i < resolver->host_count; i++)
        free(resolver->hosts[i].name);
    free(resolver->hosts);
    free(resolver);
}
