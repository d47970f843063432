#include "common/admin.h"

#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <event2/listener.h>

#include "common/address.h"
#include "common/clock.h"
#include "common/http_request.h"
#include "common/socket.h"

#define HEAD_MAX         4096
#define VISITS_MAX       128
#define VISIT_SECONDS    10
#define LINE_END         "\r\n"
#define HEAD_END         LINE_END LINE_END
#define TEXT_TYPE        "text/plain; charset=utf-8"
#define METRICS_TYPE     "text/plain; version=0.0.4; charset=utf-8"
#define JSON_TYPE        "application/json"
#define VISIT_SAFE       UINT64_C(250000) /* microseconds: who has sent its request has been answered */
#define ROOM_SOON        UINT64_C(50000)
#define DESCRIPTORS_SOON UINT64_C(1000000)
#define STATUS_OK        200
#define STATUS_NOT_FOUND 404
#define STATUS_METHOD    405
#define STATUS_HEAD_SIZE 431
#define STATUS_NOT_READY 503

/* One connection: a request, its answer, the end. */
struct visit {
    TAILQ_ENTRY(visit) link;
    struct admin *admin;
    struct bufferevent *stream;
    struct event deadline;
    uint64_t began;
    struct address client;
    bool answered; /* what still comes is dropped */
    bool ended;    /* the client has sent its end of file */
};

struct admin_socket {
    TAILQ_ENTRY(admin_socket) link;
    size_t number;
    struct evconnlistener *listener;
};

struct admin {
    struct event_base *base;
    struct event *resume; /* pending: nothing is accepted */
    const struct metrics *metrics;
    struct admin_source *source;
    struct log *log;
    TAILQ_HEAD(, admin_socket) sockets;
    TAILQ_HEAD(visit_list, visit) visits; /* the oldest first */
    size_t visit_count;
};

/* ---- Pages */

/* What is answered; body is the page's to fill. */
struct answer {
    unsigned status;
    const char *type;
    struct evbuffer *body;
};

static void page_text(struct answer *answer, unsigned status, const char *text)
{
    answer->status = status;
    (void)evbuffer_add_printf(answer->body, "%s\n", text);
}

static void page_metrics(struct admin *admin, struct answer *answer)
{
    answer->type = METRICS_TYPE;
    if (admin->metrics != NULL)
        metrics_write(admin->metrics, answer->body);
    if (admin->source->metrics != NULL)
        admin->source->metrics(admin->source, answer->body);
}

static void page_healthz(struct admin *admin, struct answer *answer)
{
    (void)admin;
    page_text(answer, STATUS_OK, "ok");
}

static void page_readyz(struct admin *admin, struct answer *answer)
{
    if (admin->source->ready == NULL || admin->source->ready(admin->source, answer->body)) {
        (void)evbuffer_drain(answer->body, evbuffer_get_length(answer->body));
        page_text(answer, STATUS_OK, "ready");
    } else {
        page_text(answer, STATUS_NOT_READY, evbuffer_get_length(answer->body) > 0 ? "" : "not ready");
    }
}

static void page_status(struct admin *admin, struct answer *answer)
{
    answer->type = JSON_TYPE;
    if (admin->source->status != NULL)
        admin->source->status(admin->source, answer->body);
    else
        (void)evbuffer_add_printf(answer->body, "{}");
    (void)evbuffer_add(answer->body, "\n", 1);
}

static const struct page {
    const char *path;
    void (*write)(struct admin *admin, struct answer *answer);
} PAGES[] = {
    {"/metrics", page_metrics},
    {"/healthz", page_healthz},
    {"/readyz", page_readyz},
    {"/status", page_status},
};

static const struct page *page_at(struct bytes target)
{
    const uint8_t *query = target.size > 0 ? memchr(target.data, '?', target.size) : NULL;
    if (query != NULL)
        target.size = (size_t)(query - target.data);
    for (size_t i = 0; i < sizeof PAGES / sizeof *PAGES; i++)
        if (bytes_equal(target, bytes_of(PAGES[i].path, strlen(PAGES[i].path))))
            return &PAGES[i];
    return NULL;
}

/* ---- Answers */

static const char *status_reason(unsigned status)
{
    static const struct {
        unsigned status;
        const char *reason;
    } REASONS[] = {
        {STATUS_OK, "OK"},
        {400, "Bad Request"},
        {STATUS_NOT_FOUND, "Not Found"},
        {STATUS_METHOD, "Method Not Allowed"},
        {413, "Content Too Large"},
        {STATUS_HEAD_SIZE, "Request Header Fields Too Large"},
        {501, "Not Implemented"},
        {STATUS_NOT_READY, "Service Unavailable"},
        {505, "HTTP Version Not Supported"},
    };
    for (size_t i = 0; i < sizeof REASONS / sizeof *REASONS; i++)
        if (REASONS[i].status == status)
            return REASONS[i].reason;
    return "Error";
}

static void write_answer(struct evbuffer *to, const struct answer *answer, bool head_only)
{
    char date[64] = "";
    struct tm utc;
    time_t now = time(NULL);
    if (gmtime_r(&now, &utc) != NULL)
        (void)strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &utc);
    (void)evbuffer_add_printf(to,
                              "HTTP/1.1 %u %s" LINE_END "Date: %s" LINE_END "Content-Type: %s" LINE_END
                              "Content-Length: %zu" LINE_END "Cache-Control: no-store" LINE_END
                              "X-Content-Type-Options: nosniff" LINE_END "Connection: close" LINE_END,
                              answer->status, status_reason(answer->status), date, answer->type,
                              evbuffer_get_length(answer->body));
    if (answer->status == STATUS_METHOD)
        (void)evbuffer_add_printf(to, "Allow: GET, HEAD" LINE_END);
    (void)evbuffer_add_printf(to, LINE_END);
    if (!head_only)
        (void)evbuffer_add_buffer(to, answer->body);
}

/* Another path is told before another method. */
static void choose_answer(struct admin *admin, const struct http_request *request, struct answer *answer)
{
    const struct page *page = page_at(request->target);
    bool good = request->status == STATUS_OK;
    if (page == NULL && (good || request->status == STATUS_METHOD))
        page_text(answer, STATUS_NOT_FOUND, "not found");
    else if (request->status == STATUS_METHOD)
        page_text(answer, STATUS_METHOD, "method not allowed");
    else if (!good)
        page_text(answer, request->status, status_reason(request->status));
    else
        page->write(admin, answer);
}

static void visit_free(struct visit *visit)
{
    struct admin *admin = visit->admin;
    TAILQ_REMOVE(&admin->visits, visit, link);
    admin->visit_count--;
    (void)event_del(&visit->deadline);
    bufferevent_free(visit->stream);
    free(visit);
}

/* false: the visit has gone. */
static bool visit_answer(struct visit *visit, const struct http_request *request)
{
    struct admin *admin = visit->admin;
    struct answer answer = {.status = STATUS_OK, .type = TEXT_TYPE, .body = evbuffer_new()};
    if (answer.body == NULL) {
        visit_free(visit);
        return false;
    }
    choose_answer(admin, request, &answer);
    log_debug(admin->log, "admin request", log_address("client", &visit->client),
              log_bytes("target", request->target), log_number("status", answer.status));
    write_answer(bufferevent_get_output(visit->stream), &answer, request->head_only);
    evbuffer_free(answer.body);
    visit->answered = true;
    return true;
}

/* ---- Connections */

/* After the answer the sending side is closed, and what still comes is dropped until the client closes too:
 * closing a socket with octets unread would reset it, and take the answer back. */
static void visit_finish(struct visit *visit)
{
    struct evbuffer *input = bufferevent_get_input(visit->stream);
    (void)evbuffer_drain(input, evbuffer_get_length(input));
    if (evbuffer_get_length(bufferevent_get_output(visit->stream)) > 0)
        return;
    if (visit->ended)
        visit_free(visit);
    else
        (void)shutdown(bufferevent_getfd(visit->stream), SHUT_WR);
}

/* True: a request, or what cannot become one, has been answered. */
static bool visit_read(struct visit *visit)
{
    struct evbuffer *input = bufferevent_get_input(visit->stream);
    struct evbuffer_ptr end = evbuffer_search(input, HEAD_END, strlen(HEAD_END), NULL);
    size_t size = end.pos >= 0 ? (size_t)end.pos + strlen(HEAD_END) : evbuffer_get_length(input);
    struct http_request request = {.status = STATUS_HEAD_SIZE};
    if (end.pos < 0 && size <= HEAD_MAX)
        return false;
    if (size <= HEAD_MAX)
        request = http_request_parse(bytes_of(evbuffer_pullup(input, (ev_ssize_t)size), size));
    return visit_answer(visit, &request);
}

static void on_data(struct bufferevent *stream, void *owner)
{
    struct visit *visit = owner;
    (void)stream;
    if (visit->answered || visit_read(visit))
        visit_finish(visit);
}

static void on_event(struct bufferevent *stream, short what, void *owner)
{
    struct visit *visit = owner;
    (void)stream;
    visit->ended = true;
    if ((what & BEV_EVENT_EOF) != 0 && visit->answered)
        visit_finish(visit);
    else
        visit_free(visit);
}

static void on_deadline(evutil_socket_t fd, short events, void *owner)
{
    (void)fd;
    (void)events;
    visit_free(owner);
}

/* Takes the descriptor. */
static void visit_new(struct admin *admin, int fd, const struct sockaddr *client, int size)
{
    struct timeval deadline = {.tv_sec = VISIT_SECONDS};
    struct visit *visit = calloc(1, sizeof *visit);
    struct bufferevent *stream = bufferevent_socket_new(admin->base, fd, BEV_OPT_CLOSE_ON_FREE);
    if (visit == NULL || stream == NULL) {
        if (stream != NULL)
            bufferevent_free(stream);
        else
            (void)close(fd);
        free(visit);
        return;
    }
    visit->admin = admin;
    visit->stream = stream;
    visit->began = clock_now();
    visit->client.size = (socklen_t)size;
    memcpy(&visit->client.storage, client, (size_t)size);
    TAILQ_INSERT_TAIL(&admin->visits, visit, link);
    admin->visit_count++;
    (void)evtimer_assign(&visit->deadline, admin->base, on_deadline, visit);
    (void)event_add(&visit->deadline, &deadline);
    bufferevent_setcb(stream, on_data, on_data, on_event, visit);
    (void)bufferevent_enable(stream, EV_READ | EV_WRITE);
}

/* ---- Accepting */

static void accepting(struct admin *admin, bool on)
{
    struct admin_socket *at;
    TAILQ_FOREACH(at, &admin->sockets, link)
    {
        (void)(on ? evconnlistener_enable(at->listener) : evconnlistener_disable(at->listener));
    }
}

static void pause_accepting(struct admin *admin, uint64_t microseconds)
{
    struct timeval pause = clock_timeval(microseconds);
    accepting(admin, false);
    (void)event_add(admin->resume, &pause);
}

/* The oldest goes, unless it is so young that it may only just be waiting for its turn. */
static bool make_room(struct admin *admin)
{
    struct visit *oldest = TAILQ_FIRST(&admin->visits);
    if (admin->visit_count >= VISITS_MAX && clock_now() - oldest->began >= VISIT_SAFE)
        visit_free(oldest);
    return admin->visit_count < VISITS_MAX;
}

static void on_accept(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *client, int size,
                      void *owner)
{
    struct admin *admin = owner;
    (void)listener;
    visit_new(admin, fd, client, size);
    if (!make_room(admin))
        pause_accepting(admin, ROOM_SOON);
}

/* Without this libevent would try again at once and for ever while descriptors are short. */
static void on_accept_error(struct evconnlistener *listener, void *owner)
{
    (void)listener;
    pause_accepting(owner, DESCRIPTORS_SOON);
}

static void on_resume(evutil_socket_t fd, short events, void *owner)
{
    struct admin *admin = owner;
    (void)fd;
    (void)events;
    if (make_room(admin))
        accepting(admin, true);
    else
        pause_accepting(admin, ROOM_SOON);
}

static struct admin_socket *find_socket(const struct admin *admin, size_t number)
{
    struct admin_socket *at;
    TAILQ_FOREACH(at, &admin->sockets, link)
    {
        if (at->number == number)
            return at;
    }
    return NULL;
}

bool admin_is_listening(const struct admin *admin, size_t number)
{
    return find_socket(admin, number) != NULL;
}

enum result admin_listen(struct admin *admin, size_t number, int listener, struct failure *why)
{
    struct admin_socket *made = calloc(1, sizeof *made);
    if (made != NULL)
        made->listener = evconnlistener_new(admin->base, on_accept, admin,
                                            LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, listener);
    if (made == NULL || made->listener == NULL) {
        free(made);
        (void)close(listener);
        return failure_set(why, RESULT_LIMIT, "no memory for an admin socket");
    }
    made->number = number;
    evconnlistener_set_error_cb(made->listener, on_accept_error);
    TAILQ_INSERT_TAIL(&admin->sockets, made, link);
    if (event_pending(admin->resume, EV_TIMEOUT, NULL))
        (void)evconnlistener_disable(made->listener);
    return RESULT_OK;
}

void admin_unlisten(struct admin *admin, size_t number)
{
    struct admin_socket *found = find_socket(admin, number);
    if (found == NULL)
        return;
    TAILQ_REMOVE(&admin->sockets, found, link);
    evconnlistener_free(found->listener);
    free(found);
}

size_t admin_connections(const struct admin *admin)
{
    return admin->visit_count;
}

/* ---- The endpoint */

enum result admin_new(struct event_base *base, const struct metrics *metrics, struct admin_source *source,
                      struct log *log, struct admin **admin, struct failure *why)
{
    *admin = NULL;
    struct admin *made = calloc(1, sizeof *made);
    if (made == NULL || (made->resume = evtimer_new(base, on_resume, made)) == NULL) {
        free(made);
        return failure_set(why, RESULT_LIMIT, "no memory for the admin endpoint");
    }
    made->base = base;
    made->metrics = metrics;
    made->source = source;
    made->log = log;
    TAILQ_INIT(&made->sockets);
    TAILQ_INIT(&made->visits);
    *admin = made;
    return RESULT_OK;
}

void admin_free(struct admin *admin)
{
    if (admin == NULL)
        return;
    while (!TAILQ_EMPTY(&admin->sockets))
        admin_unlisten(admin, TAILQ_FIRST(&admin->sockets)->number);
    while (!TAILQ_EMPTY(&admin->visits))
        visit_free(TAILQ_FIRST(&admin->visits));
    event_free(admin->resume);
    free(admin);
}
