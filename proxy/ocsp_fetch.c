#include "proxy/ocsp_fetch.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/http.h>
#include <event2/util.h>
#include <openssl/evp.h>

#include "common/clock.h"
#include "proxy/staples.h"

#define HEADERS_MAX 8192
/* Octets in base64 up to which RFC 5019 section 5 wants GET. */
#define GET_MAX     255
#define REASON_SIZE 160
/* Octets that are there and not parsed yet. */
#define READ_AHEAD_MAX (HEADERS_MAX + 2 * STAPLE_MAX)

struct ocsp_fetch {
    struct ocsp_fetch_settings settings; /* what it borrows is copied below */
    struct ocsp_url url;
    struct ocsp_request request;
    struct resolver_query *query;         /* NULL: the host is found */
    struct evhttp_connection *connection; /* NULL: it is not */
    struct event *timer; /* the deadline; then, at once, the end outside of libevent's own calls */
    bool answered;
    uint8_t *body;
    size_t body_size;
    char reason[REASON_SIZE];
};

static void fetch_free(struct ocsp_fetch *fetch)
{
    resolver_cancel(fetch->query);
    if (fetch->connection != NULL)
        evhttp_connection_free(fetch->connection);
    if (fetch->timer != NULL)
        event_free(fetch->timer);
    free(fetch->body);
    free(fetch);
}

void ocsp_fetch_cancel(struct ocsp_fetch *fetch)
{
    if (fetch != NULL)
        fetch_free(fetch);
}

/* ---- The end. */

static void on_timer(evutil_socket_t fd, short what, void *owner)
{
    struct ocsp_fetch *fetch = owner;
    (void)fd;
    (void)what;
    if (!fetch->answered)
        (void)snprintf(fetch->reason, sizeof fetch->reason, "no answer within ocsp.timeout");
    bool good = fetch->answered && fetch->body != NULL;
    fetch->settings.done(bytes_of(good ? fetch->body : NULL, good ? fetch->body_size : 0), fetch->reason,
                         fetch->settings.owner);
    fetch_free(fetch);
}

static void finish(struct ocsp_fetch *fetch)
{
    const struct timeval now = {0};
    fetch->answered = true;
    (void)event_add(fetch->timer, &now);
}

/* ---- What libevent says. */

static void on_error(enum evhttp_request_error error, void *owner)
{
    static const char *const REASONS[] = {
        [EVREQ_HTTP_TIMEOUT] = "no answer within ocsp.timeout",
        [EVREQ_HTTP_EOF] = "cannot connect, or the connection was closed",
        [EVREQ_HTTP_INVALID_HEADER] = "the answer is no HTTP",
        [EVREQ_HTTP_BUFFER_ERROR] = "the connection was lost",
        [EVREQ_HTTP_DATA_TOO_LONG] = "the answer is too long",
    };
    struct ocsp_fetch *fetch = owner;
    bool known = (size_t)error < sizeof REASONS / sizeof *REASONS && REASONS[error] != NULL;
    if (!fetch->answered)
        (void)snprintf(fetch->reason, sizeof fetch->reason, "%s", known ? REASONS[error] : "it failed");
}

static void take_body(struct ocsp_fetch *fetch, struct evhttp_request *request)
{
    struct evbuffer *buffer = evhttp_request_get_input_buffer(request);
    size_t size = evbuffer_get_length(buffer);
    fetch->body = size > 0 && size <= STAPLE_MAX ? malloc(size) : NULL;
    if (fetch->body == NULL) {
        (void)snprintf(fetch->reason, sizeof fetch->reason, "an answer of %zu octets: expected 1 .. %d", size,
                       STAPLE_MAX);
        return;
    }
    (void)evbuffer_copyout(buffer, fetch->body, size);
    fetch->body_size = size;
}

static void on_answer(struct evhttp_request *request, void *owner)
{
    struct ocsp_fetch *fetch = owner;
    int status = request != NULL ? evhttp_request_get_response_code(request) : 0;
    if (fetch->answered)
        return;
    if (status == HTTP_OK)
        take_body(fetch, request);
    else if (status != 0)
        (void)snprintf(fetch->reason, sizeof fetch->reason, "HTTP status %d", status);
    else if (fetch->reason[0] == '\0')
        (void)snprintf(fetch->reason, sizeof fetch->reason, "cannot connect");
    finish(fetch);
}

/* ---- The question. */

/* Where the request goes by GET; false: it is too long for that. */
static bool target_make(const struct ocsp_fetch *fetch, char *target, size_t size)
{
    unsigned char text[4 * ((OCSP_REQUEST_MAX + 2) / 3) + 1];
    int length = EVP_EncodeBlock(text, fetch->request.der, (int)fetch->request.size);
    const char *path = fetch->url.target;
    if (length >= GET_MAX || strchr(path, '?') != NULL)
        return false;
    char *encoded = evhttp_encode_uri((const char *)text);
    bool ends = path[strlen(path) - 1] == '/';
    int written = encoded != NULL ? snprintf(target, size, "%s%s%s", path, ends ? "" : "/", encoded) : -1;
    free(encoded);
    return written > 0 && (size_t)written < size;
}

static bool add_headers(struct evhttp_request *request, const struct ocsp_url *url, bool post)
{
    char host[OCSP_HOST_MAX + 16];
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    bool is_ip6 = strchr(url->host, ':') != NULL;
    int size = snprintf(host, sizeof host, "%s%s%s", is_ip6 ? "[" : "", url->host, is_ip6 ? "]" : "");
    if (url->port != 80)
        (void)snprintf(host + size, sizeof host - (size_t)size, ":%u", url->port);
    return evhttp_add_header(headers, "Host", host) == 0 &&
           evhttp_add_header(headers, "Accept", "application/ocsp-response") == 0 &&
           evhttp_add_header(headers, "Connection", "close") == 0 &&
           (!post || evhttp_add_header(headers, "Content-Type", "application/ocsp-request") == 0);
}

static bool ask(struct ocsp_fetch *fetch)
{
    char target[OCSP_TARGET_MAX + 3 * GET_MAX + 2];
    bool post = fetch->settings.post || !target_make(fetch, target, sizeof target);
    struct evhttp_request *request = evhttp_request_new(on_answer, fetch);
    if (request == NULL)
        return false;
    evhttp_request_set_error_cb(request, on_error);
    struct evbuffer *body = evhttp_request_get_output_buffer(request);
    if (!add_headers(request, &fetch->url, post) ||
        (post && evbuffer_add(body, fetch->request.der, fetch->request.size) != 0)) {
        evhttp_request_free(request);
        return false;
    }
    return evhttp_make_request(fetch->connection, request, post ? EVHTTP_REQ_POST : EVHTTP_REQ_GET,
                               post ? fetch->url.target : target) == 0;
}

/* libevent's own limits are for a body and for headers, each; what else a responder sends without end
 * (interim responses, the length of a chunk) is bounded by what is read ahead. */
static bool connection_make(struct ocsp_fetch *fetch, const char *ip)
{
    const struct timeval timeout = clock_timeval(fetch->settings.timeout);
    struct bufferevent *socket = bufferevent_socket_new(fetch->settings.base, -1, BEV_OPT_CLOSE_ON_FREE);
    if (socket == NULL)
        return false;
    bufferevent_setwatermark(socket, EV_READ, 0, READ_AHEAD_MAX);
    fetch->connection = evhttp_connection_base_bufferevent_new(fetch->settings.base, fetch->settings.dns,
                                                               socket, ip, fetch->url.port);
    if (fetch->connection == NULL) {
        bufferevent_free(socket);
        return false;
    }
    evhttp_connection_set_max_body_size(fetch->connection, STAPLE_MAX);
    evhttp_connection_set_max_headers_size(fetch->connection, HEADERS_MAX);
    evhttp_connection_set_timeout_tv(fetch->connection, &timeout);
    return true;
}

static bool ip_format(const struct address *address, char text[static INET6_ADDRSTRLEN])
{
    struct bytes ip;
    address_ip(address, &ip);
    return inet_ntop(ip.size == 4 ? AF_INET : AF_INET6, ip.data, text, INET6_ADDRSTRLEN) != NULL;
}

static void on_found(const struct address *addresses, size_t count, uint32_t ttl, const char *reason,
                     void *owner)
{
    (void)ttl;
    struct ocsp_fetch *fetch = owner;
    char ip[INET6_ADDRSTRLEN];
    fetch->query = NULL;
    if (count == 0)
        (void)snprintf(fetch->reason, sizeof fetch->reason, "%s", reason);
    else if (!ip_format(&addresses[fetch->settings.attempt % count], ip) || !connection_make(fetch, ip) ||
             !ask(fetch))
        (void)snprintf(fetch->reason, sizeof fetch->reason, "no memory");
    if (fetch->reason[0] != '\0')
        finish(fetch);
}

static bool fetch_begin(struct ocsp_fetch *fetch)
{
    const struct timeval timeout = clock_timeval(fetch->settings.timeout);
    fetch->timer = evtimer_new(fetch->settings.base, on_timer, fetch);
    fetch->query = resolver_find(fetch->settings.resolver, fetch->url.host, fetch->url.port, on_found, fetch);
    return fetch->timer != NULL && fetch->query != NULL && event_add(fetch->timer, &timeout) == 0;
}

struct ocsp_fetch *ocsp_fetch_start(const struct ocsp_fetch_settings *settings)
{
    struct ocsp_fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL)
        return NULL;
    fetch->settings = *settings;
    fetch->url = *settings->url;
    fetch->request = *settings->request;
    if (fetch_begin(fetch))
        return fetch;
    fetch_free(fetch);
    return NULL;
}

/* ---- Addresses in digits. */

static void on_primed(int error, struct evutil_addrinfo *found, void *owner)
{
    (void)error;
    (void)owner;
    if (found != NULL)
        evutil_freeaddrinfo(found);
}

/* With no name servers and no names. What libevent does once in a process's life, and could not do in a
 * confined one, it does now: it looks which kinds of addresses this machine has. */
struct evdns_base *ocsp_fetch_dns(struct event_base *base)
{
    const struct evutil_addrinfo hints = {.ai_family = PF_UNSPEC,
                                          .ai_socktype = SOCK_STREAM,
                                          .ai_protocol = IPPROTO_TCP,
                                          .ai_flags = EVUTIL_AI_ADDRCONFIG};
    struct evdns_base *dns = evdns_base_new(base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (dns != NULL)
        (void)evdns_getaddrinfo(dns, "127.0.0.1", "80", &hints, on_primed, NULL);
    return dns;
}
