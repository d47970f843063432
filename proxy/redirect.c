#include "proxy/redirect.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event_struct.h>

#include "common/clock.h"
#include "common/http_request.h"
#include "proxy/proxy_metrics.h"
#include "proxy/redirect_location.h"

/* How long a client may take to close when it has its answer; what it sends meanwhile is dropped. */
#define CLOSING_TIMEOUT UINT64_C(2000000)

struct redirect {
    LIST_ENTRY(redirect) link;
    struct redirects *all;
    const struct proxy_listen *listen;
    struct address client;
    struct bufferevent *stream;
    struct event timer;
    uint64_t started;
    bool answered;
    bool ended; /* the client has ended its side */
};

struct redirects {
    struct redirects_settings settings;
    LIST_HEAD(, redirect) list;
    unsigned count;
};

/* ---- The end. */

/* When it has its answer, or will have none. status 0: none. */
static void redirect_log(const struct redirect *redirect, unsigned status, const char *location,
                         const char *end)
{
    const struct access_redirect line = {.client = &redirect->client,
                                         .listener = &redirect->listen->address,
                                         .status = status,
                                         .location = location,
                                         .started = redirect->started,
                                         .end = end};
    access_log_redirect(redirect->all->settings.access, &line);
}

static void redirect_free(struct redirect *redirect)
{
    LIST_REMOVE(redirect, link);
    redirect->all->count--;
    (void)event_del(&redirect->timer);
    bufferevent_free(redirect->stream);
    free(redirect);
}

/* metric and end: of one that has no answer. */
static void redirect_end(struct redirect *redirect, enum proxy_metric metric, const char *end)
{
    struct redirects *all = redirect->all;
    if (!redirect->answered) {
        redirect_log(redirect, 0, NULL, end);
        metric_add(all->settings.metrics, metric, 1);
    }
    redirect_free(redirect);
    all->settings.ended(all->settings.owner);
}

/* ---- Answers. */

static void write_head(struct evbuffer *to, unsigned status, const char *phrase)
{
    char date[64] = "";
    time_t now = time(NULL);
    struct tm utc;
    if (gmtime_r(&now, &utc) != NULL)
        (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    evbuffer_add_printf(to, "HTTP/1.1 %u %s\r\nDate: %s\r\nContent-Length: 0\r\nConnection: close\r\n",
                        status, phrase, date);
}

static const char *phrase_of(unsigned status)
{
    switch (status) {
    case 308:
        return "Permanent Redirect";
    case 413:
        return "Content Too Large";
    case 431:
        return "Request Header Fields Too Large";
    case 501:
        return "Not Implemented";
    case 505:
        return "HTTP Version Not Supported";
    default:
        return "Bad Request";
    }
}

/* One answer for a connection. location NULL: status is an error. */
static void redirect_answer(struct redirect *redirect, unsigned status, const char *location)
{
    struct redirects *all = redirect->all;
    struct evbuffer *output = bufferevent_get_output(redirect->stream);
    struct timeval after = clock_timeval(CLOSING_TIMEOUT);
    redirect->answered = true;
    write_head(output, status, phrase_of(status));
    if (location != NULL)
        evbuffer_add_printf(output, "Location: %s\r\n", location);
    evbuffer_add_printf(output, "\r\n");
    redirect_log(redirect, status, location, location != NULL ? "redirected" : "refused");
    metric_add(all->settings.metrics, location != NULL ? PROXY_REDIRECTED : PROXY_REDIRECT_REFUSED, 1);
    (void)event_add(&redirect->timer, &after);
}

/* ---- Requests. */

/* Without waiting for the rest: TLS, SSH, lines that end in a line feed alone. The parser would refuse it. */
static bool is_garbage(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, '\n', size);
    if (data[0] <= ' ' || data[0] >= 0x7f)
        return true;
    return end != NULL && (end[-1] != '\r' || memmem(data, (size_t)(end - data), " HTTP/", 6) == NULL);
}

static void redirect_request(struct redirect *redirect, struct bytes head)
{
    char location[REDIRECT_LOCATION_SIZE];
    struct http_request request = http_request_parse(head);
    /* Its method is nothing to us: 308 lets no client change it. */
    bool understood = request.status == 200 || request.status == 405;
    if (!understood)
        redirect_answer(redirect, request.status, NULL);
    else if (redirect_location(&request, redirect->listen->redirect_port, location))
        redirect_answer(redirect, 308, location);
    else
        redirect_answer(redirect, 400, NULL);
}

static void redirect_read(struct redirect *redirect)
{
    struct evbuffer *input = bufferevent_get_input(redirect->stream);
    const uint8_t *data;
    size_t size;
    for (;;) {
        size = evbuffer_get_length(input);
        size = size < REDIRECT_HEAD_MAX ? size : REDIRECT_HEAD_MAX;
        data = size > 0 ? evbuffer_pullup(input, (ev_ssize_t)size) : NULL;
        if (data == NULL)
            return;
        if (size == 1 && data[0] == '\r')
            return;
        if (size < 2 || memcmp(data, "\r\n", 2) != 0)
            break;
        (void)evbuffer_drain(input, 2); /* RFC 9112 section 2.2: before a request */
    }
    const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (is_garbage(data, size))
        redirect_answer(redirect, 400, NULL);
    else if (end != NULL)
        redirect_request(redirect, bytes_of(data, (size_t)(end - data) + 4));
    else if (size == REDIRECT_HEAD_MAX)
        redirect_answer(redirect, 431, NULL);
}

/* ---- Events. */

static void on_data(struct bufferevent *stream, void *context)
{
    struct redirect *redirect = context;
    struct evbuffer *input = bufferevent_get_input(stream);
    if (!redirect->answered)
        redirect_read(redirect);
    if (redirect->answered)
        (void)evbuffer_drain(input, evbuffer_get_length(input));
}

/* What was to be written is. Closing with bytes unread would make the kernel reset the connection, and take
 * the answer back: the client closes first, or its time ends. */
static void on_written(struct bufferevent *stream, void *context)
{
    struct redirect *redirect = context;
    if (redirect->ended)
        redirect_end(redirect, PROXY_REDIRECT_GONE, "client lost");
    else if (redirect->answered)
        (void)shutdown(bufferevent_getfd(stream), SHUT_WR);
}

static void on_event(struct bufferevent *stream, short what, void *context)
{
    struct redirect *redirect = context;
    bool unwritten = evbuffer_get_length(bufferevent_get_output(stream)) > 0;
    redirect->ended = true;
    if (!(what & BEV_EVENT_EOF) || !unwritten)
        redirect_end(redirect, PROXY_REDIRECT_GONE, "client lost");
}

static void on_timer(evutil_socket_t fd, short what, void *context)
{
    (void)fd;
    (void)what;
    redirect_end(context, PROXY_REDIRECT_TIMEOUT, "timeout");
}

/* ---- The set of all. */

struct redirects *redirects_new(const struct redirects_settings *settings)
{
    struct redirects *redirects = calloc(1, sizeof *redirects);
    if (redirects == NULL)
        return NULL;
    redirects->settings = *settings;
    LIST_INIT(&redirects->list);
    return redirects;
}

void redirects_free(struct redirects *redirects)
{
    if (redirects == NULL)
        return;
    for (struct redirect *redirect = LIST_FIRST(&redirects->list); redirect != NULL;) {
        struct redirect *next = LIST_NEXT(redirect, link);
        if (!redirect->answered)
            redirect_log(redirect, 0, NULL, "dropped");
        redirect_free(redirect);
        redirect = next;
    }
    free(redirects);
}

unsigned redirects_count(const struct redirects *redirects)
{
    return redirects->count;
}

void redirect_accept(struct redirects *redirects, int fd, const struct address *client,
                     const struct proxy_listen *listen)
{
    const struct redirects_settings *settings = &redirects->settings;
    struct redirect *redirect = calloc(1, sizeof *redirect);
    struct bufferevent *stream =
        redirect != NULL ? bufferevent_socket_new(settings->base, fd, BEV_OPT_CLOSE_ON_FREE) : NULL;
    if (stream == NULL) {
        free(redirect);
        (void)close(fd);
        log_error(settings->log, "connection refused", log_address("client", client),
                  log_reason("no memory"));
        return;
    }
    *redirect = (struct redirect){
        .all = redirects, .listen = listen, .client = *client, .stream = stream, .started = clock_now()};
    struct timeval after = clock_timeval(settings->timeout);
    (void)evtimer_assign(&redirect->timer, settings->base, on_timer, redirect);
    (void)event_add(&redirect->timer, &after);
    LIST_INSERT_HEAD(&redirects->list, redirect, link);
    redirects->count++;
    bufferevent_setcb(stream, on_data, on_written, on_event, redirect);
    bufferevent_setwatermark(stream, EV_READ, 0, REDIRECT_HEAD_MAX);
    (void)bufferevent_enable(stream, EV_READ | EV_WRITE);
}
