#include "proxy/ocsp_fetch.h"

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

struct ocsp_fetch {
    void (*done)(struct bytes body, const char *reason, void *owner);
    void *owner;
    struct evhttp_connection *connection;
    struct event *timer; /* the deadline; then, at once, the end outside of libevent's own calls */
    bool answered;
    uint8_t *body;
    size_t body_size;
    char reason[REASON_SIZE];
};

static void fetch_free(struct ocsp_fetch *fetch)
{
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
    fetch->done(bytes_of(good ? fetch->body : NULL, good ? fetch->body_size : 0), fetch->reason,
                fetch->owner);
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
    if (bufferevent_socket_get_dns_error(evhttp_connection_get_bufferevent(fetch->connection)) != 0)
        (void)snprintf(fetch->reason, sizeof fetch->reason, "its host's name is not found");
    else if (!fetch->answered)
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
static bool target_make(const struct ocsp_fetch_settings *settings, char *target, size_t size)
{
    unsigned char text[4 * ((OCSP_REQUEST_MAX + 2) / 3) + 1];
    int length = EVP_EncodeBlock(text, settings->request->der, (int)settings->request->size);
    const char *path = settings->url->target;
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

static bool ask(struct ocsp_fetch *fetch, const struct ocsp_fetch_settings *settings)
{
    char target[OCSP_TARGET_MAX + 3 * GET_MAX + 2];
    bool post = settings->post || !target_make(settings, target, sizeof target);
    struct evhttp_request *request = evhttp_request_new(on_answer, fetch);
    if (request == NULL)
        return false;
    evhttp_request_set_error_cb(request, on_error);
    struct evbuffer *body = evhttp_request_get_output_buffer(request);
    if (!add_headers(request, settings->url, post) ||
        (post && evbuffer_add(body, settings->request->der, settings->request->size) != 0)) {
        evhttp_request_free(request);
        return false;
    }
    return evhttp_make_request(fetch->connection, request, post ? EVHTTP_REQ_POST : EVHTTP_REQ_GET,
                               post ? settings->url->target : target) == 0;
}

static bool fetch_fill(struct ocsp_fetch *fetch, const struct ocsp_fetch_settings *settings)
{
    const struct timeval timeout = clock_timeval(settings->timeout);
    fetch->timer = evtimer_new(settings->base, on_timer, fetch);
    fetch->connection =
        evhttp_connection_base_new(settings->base, settings->dns, settings->url->host, settings->url->port);
    if (fetch->timer == NULL || fetch->connection == NULL || event_add(fetch->timer, &timeout) != 0)
        return false;
    evhttp_connection_set_max_body_size(fetch->connection, STAPLE_MAX);
    evhttp_connection_set_max_headers_size(fetch->connection, HEADERS_MAX);
    evhttp_connection_set_timeout_tv(fetch->connection, &timeout);
    if (settings->only_ipv4)
        evhttp_connection_set_family(fetch->connection, AF_INET);
    return ask(fetch, settings);
}

struct ocsp_fetch *ocsp_fetch_start(const struct ocsp_fetch_settings *settings)
{
    struct ocsp_fetch *fetch = calloc(1, sizeof *fetch);
    if (fetch == NULL)
        return NULL;
    fetch->done = settings->done;
    fetch->owner = settings->owner;
    if (fetch_fill(fetch, settings))
        return fetch;
    fetch_free(fetch);
    return NULL;
}

/* ---- Names. */

static void on_primed(int error, struct evutil_addrinfo *found, void *owner)
{
    (void)error;
    (void)owner;
    if (found != NULL)
        evutil_freeaddrinfo(found);
}

/* What libevent does once in a process's life, and could not do in a confined one: it looks which kinds of
 * addresses this machine has, and for random octets. */
static void prime(struct evdns_base *dns)
{
    const struct evutil_addrinfo hints = {.ai_family = PF_UNSPEC,
                                          .ai_socktype = SOCK_STREAM,
                                          .ai_protocol = IPPROTO_TCP,
                                          .ai_flags = EVUTIL_AI_ADDRCONFIG};
    (void)evdns_getaddrinfo(dns, "127.0.0.1", "80", &hints, on_primed, NULL);
    (void)evutil_secure_rng_init();
}

/* Without a name server there are the names in /etc/hosts, and addresses. */
struct evdns_base *ocsp_fetch_dns(struct event_base *base)
{
    const int flags = EVDNS_BASE_DISABLE_WHEN_INACTIVE;
    struct evdns_base *dns = evdns_base_new(base, flags | EVDNS_BASE_INITIALIZE_NAMESERVERS);
    if (dns == NULL && (dns = evdns_base_new(base, flags)) != NULL)
        (void)evdns_base_load_hosts(dns, "/etc/hosts");
    if (dns != NULL) {
        (void)evdns_base_set_option(dns, "randomize-case:", "0");
        prime(dns);
    }
    return dns;
}
