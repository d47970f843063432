#include "common/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <event2/http.h>
#include <event2/keyvalq_struct.h>
#include <event2/listener.h>

#include "common/socket.h"

#define HEAD_MAX     4096
#define BODY_MAX     1024
#define IDLE_SECONDS 5

#define TEXT_TYPE    "text/plain; charset=utf-8"
#define METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
#define JSON_TYPE    "application/json"

struct admin {
    struct evhttp *http;
    struct evconnlistener *listener; /* belongs to http */
    struct event *resume;            /* once a second: goes on accepting if descriptors had run out */
    const struct metrics *metrics;
    struct admin_source *source;
    struct log *log;
};

/* ---- Answers */

/* libevent would send a HEAD request the body too. */
static void keep_length_only(struct evhttp_request *request)
{
    struct evbuffer *body = evhttp_request_get_output_buffer(request);
    char length[24];
    (void)snprintf(length, sizeof length, "%zu", evbuffer_get_length(body));
    (void)evhttp_add_header(evhttp_request_get_output_headers(request), "Content-Length", length);
    (void)evbuffer_drain(body, evbuffer_get_length(body));
}

/* Whatever the output buffer holds becomes the body. */
static void answer(struct evhttp_request *request, int code, const char *reason, const char *type)
{
    struct evkeyvalq *headers = evhttp_request_get_output_headers(request);
    (void)evhttp_add_header(headers, "Content-Type", type);
    (void)evhttp_add_header(headers, "Cache-Control", "no-store");
    (void)evhttp_add_header(headers, "X-Content-Type-Options", "nosniff");
    if (evhttp_request_get_command(request) == EVHTTP_REQ_HEAD)
        keep_length_only(request);
    evhttp_send_reply(request, code, reason, NULL);
}

static void answer_text(struct evhttp_request *request, int code, const char *reason, const char *text)
{
    struct evbuffer *body = evhttp_request_get_output_buffer(request);
    (void)evbuffer_add_printf(body, "%s\n", text);
    answer(request, code, reason, TEXT_TYPE);
}

static void answer_metrics(struct admin *admin, struct evhttp_request *request)
{
    if (admin->metrics != NULL)
        metrics_write(admin->metrics, evhttp_request_get_output_buffer(request));
    answer(request, HTTP_OK, "OK", METRICS_TYPE);
}

static void answer_healthz(struct admin *admin, struct evhttp_request *request)
{
    (void)admin;
    answer_text(request, HTTP_OK, "OK", "ok");
}

static void answer_readyz(struct admin *admin, struct evhttp_request *request)
{
    struct evbuffer *body = evhttp_request_get_output_buffer(request);
    if (admin->source->ready == NULL || admin->source->ready(admin->source, body)) {
        (void)evbuffer_drain(body, evbuffer_get_length(body));
        answer_text(request, HTTP_OK, "OK", "ready");
    } else {
        answer_text(request, HTTP_SERVUNAVAIL, "Service Unavailable",
                    evbuffer_get_length(body) > 0 ? "" : "not ready");
    }
}

static void answer_status(struct admin *admin, struct evhttp_request *request)
{
    struct evbuffer *body = evhttp_request_get_output_buffer(request);
    if (admin->source->status != NULL)
        admin->source->status(admin->source, body);
    else
        (void)evbuffer_add_printf(body, "{}");
    (void)evbuffer_add(body, "\n", 1);
    answer(request, HTTP_OK, "OK", JSON_TYPE);
}

static const struct page {
    const char *path;
    void (*answer)(struct admin *admin, struct evhttp_request *request);
} PAGES[] = {
    {"/metrics", answer_metrics},
    {"/healthz", answer_healthz},
    {"/readyz", answer_readyz},
    {"/status", answer_status},
};

static const struct page *page_at(const char *path)
{
    for (size_t i = 0; path != NULL && i < sizeof PAGES / sizeof *PAGES; i++)
        if (strcmp(PAGES[i].path, path) == 0)
            return &PAGES[i];
    return NULL;
}

static void log_request(struct admin *admin, struct evhttp_request *request)
{
    char *client = NULL;
    uint16_t port = 0;
    evhttp_connection_get_peer(evhttp_request_get_connection(request), &client, &port);
    log_debug(admin->log, "admin request", log_text("client", client), log_number("port", port),
              log_text("uri", evhttp_request_get_uri(request)));
}

static void on_request(struct evhttp_request *request, void *owner)
{
    struct admin *admin = owner;
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(request);
    const struct page *page = page_at(uri != NULL ? evhttp_uri_get_path(uri) : NULL);
    enum evhttp_cmd_type method = evhttp_request_get_command(request);
    log_request(admin, request);
    if (page == NULL) {
        answer_text(request, HTTP_NOTFOUND, "Not Found", "not found");
    } else if (method != EVHTTP_REQ_GET && method != EVHTTP_REQ_HEAD) {
        (void)evhttp_add_header(evhttp_request_get_output_headers(request), "Allow", "GET, HEAD");
        answer_text(request, HTTP_BADMETHOD, "Method Not Allowed", "method not allowed");
    } else {
        page->answer(admin, request);
    }
}

/* ---- Accepting */

/* Without this libevent would try again at once and for ever while descriptors are short. Its argument is
 * libevent's, which is why a timer of ours goes on, and not one started here. */
static void on_accept_error(struct evconnlistener *listener, void *http)
{
    (void)http;
    (void)evconnlistener_disable(listener);
}

static void on_resume(evutil_socket_t fd, short events, void *owner)
{
    struct admin *admin = owner;
    (void)fd;
    (void)events;
    (void)evconnlistener_enable(admin->listener);
}

static enum result serve(struct admin *admin, struct event_base *base, int *listener, struct failure *why)
{
    admin->http = evhttp_new(base);
    admin->resume = event_new(base, -1, EV_PERSIST, on_resume, admin);
    if (admin->http == NULL || admin->resume == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the admin endpoint");
    evhttp_set_max_headers_size(admin->http, HEAD_MAX);
    evhttp_set_max_body_size(admin->http, BODY_MAX);
    evhttp_set_timeout(admin->http, IDLE_SECONDS);
    /* All that libevent knows, so that the answer to them is ours. */
    evhttp_set_allowed_methods(admin->http, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                                EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE | EVHTTP_REQ_OPTIONS |
                                                EVHTTP_REQ_TRACE | EVHTTP_REQ_CONNECT | EVHTTP_REQ_PATCH);
    evhttp_set_gencb(admin->http, on_request, admin);

    struct evhttp_bound_socket *bound = evhttp_accept_socket_with_handle(admin->http, *listener);
    if (bound == NULL)
        return failure_set(why, RESULT_SYSTEM, "the admin endpoint cannot listen on descriptor %d",
                           *listener);
    *listener = -1;
    admin->listener = evhttp_bound_socket_get_listener(bound);
    evconnlistener_set_error_cb(admin->listener, on_accept_error);
    struct timeval pause = {.tv_sec = 1};
    return event_add(admin->resume, &pause) == 0
               ? RESULT_OK
               : failure_set(why, RESULT_LIMIT, "no memory for the admin endpoint");
}

enum result admin_new(struct event_base *base, int listener, const struct metrics *metrics,
                      struct admin_source *source, struct log *log, struct admin **admin, struct failure *why)
{
    int owned CLEANUP(socket_close) = listener;
    *admin = NULL;
    struct admin *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for the admin endpoint");
    made->metrics = metrics;
    made->source = source;
    made->log = log;
    enum result result = serve(made, base, &owned, why);
    if (result != RESULT_OK) {
        admin_free(made);
        return result;
    }
    *admin = made;
    return RESULT_OK;
}

void admin_free(struct admin *admin)
{
    if (admin == NULL)
        return;
    if (admin->http != NULL)
        evhttp_free(admin->http);
    if (admin->resume != NULL)
        event_free(admin->resume);
    free(admin);
}
