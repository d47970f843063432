#include "proxy/key_link.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <event2/util.h>

#include "common/channel.h"
#include "common/clock.h"
#include "proxy/proxy_metrics.h"

#define BACKOFF_AT_ONCE 20000u /* microseconds */
#define BACKOFF_FIRST   50000u
#define BACKOFF_MAX     800000u
#define UP_FOR_GOOD     1000000u /* up at least this long: the next attempt is not a retry */
#define REPEAT_LOG      60000000u
#define CLOCK_SKEW_MAX  60 /* seconds */
#define OUTPUT_HIGH     524288
#define MEASURED_FOR    1000000u
#define CLIENT_SOFTWARE "keyless-proxy/" KEYLESS_VERSION

enum state { STATE_DOWN, STATE_CONNECTING, STATE_HELLO, STATE_UP };

struct key_link {
    struct key_link_settings settings;
    size_t metric_value;
    const struct key_link_handler *handler;
    void *owner;

    enum state state;
    struct channel *channel;
    struct event *timer; /* DOWN: the backoff; HELLO: its deadline; UP: silence */
    uint64_t timer_due;
    uint32_t hello_id, last_id; /* of the link's own requests: the channel's first, and the newest */
    uint32_t alive_id;          /* of the last hello or ping */
    bool own_pending;           /* that is not answered yet */
    uint32_t tickets_id;        /* of the last question for ticket keys */
    bool tickets_pending;
    uint32_t keys_id; /* of the last question for a page of keys */
    bool keys_pending;
    uint64_t keys_at; /* when the list is asked for again; 0: never */
    uint8_t keys_after[KEY_ID_SKI_SIZE];
    bool keys_first;

    uint64_t latency, measured_at;
    char failure[KEY_SERVER_FAILURE_SIZE]; /* why it was last down */
    time_t failed;                         /* when; 0: never */

    unsigned attempts; /* that failed since the link was last up for good */
    char last_reason[FAILURE_TEXT_SIZE];
    uint64_t last_reason_at;

    uint8_t opcodes[256 / 8]; /* what hello listed */
    bool clock_skewed;
    uint64_t hello_at, up_since, received_at;
    unsigned asked;
    uint64_t asked_since; /* when asked became more than none */
    bool has_failed;      /* to connect, once */
    bool pinged, probe;   /* a ping is out; one is to be sent at the next turn */
    uint64_t pinged_at;
};

static void timer_set(struct key_link *link, uint64_t due)
{
    uint64_t now = clock_now();
    struct timeval delay = clock_timeval(due > now ? due - now : 0);
    link->timer_due = due;
    (void)evtimer_add(link->timer, &delay);
}

/* When something has to be done although nothing was received. With requests out, half the time that they
 * have is long enough to wonder; a ping then tells a slow signature from a dead server. */
static uint64_t silence_due(const struct key_link *link)
{
    if (link->pinged)
        return link->pinged_at + link->settings.timeout;
    if (link->probe)
        return 0;
    if (link->asked == 0)
        return link->received_at + link->settings.idle;
    uint64_t since = link->asked_since > link->received_at ? link->asked_since : link->received_at;
    return since + link->settings.timeout / 2;
}

/* ---- Down, and up again. */

uint64_t key_link_backoff(unsigned attempts, uint32_t chance)
{
    if (attempts < 2)
        return chance % BACKOFF_AT_ONCE;
    uint64_t delay = BACKOFF_FIRST;
    for (unsigned i = 2; i < attempts && delay < BACKOFF_MAX; i++)
        delay *= 2;
    if (delay > BACKOFF_MAX)
        delay = BACKOFF_MAX;
    return delay / 4 + chance % (3 * delay / 4 + 1);
}

static uint64_t backoff(unsigned attempts)
{
    uint32_t chance;
    evutil_secure_rng_get_bytes(&chance, sizeof chance);
    return key_link_backoff(attempts, chance);
}

/* An outage may last for hours: the same reason is told once a minute. */
static void log_unreachable(struct key_link *link, const char *reason)
{
    uint64_t now = clock_now();
    bool same = strcmp(reason, link->last_reason) == 0;
    if (same && now - link->last_reason_at < REPEAT_LOG)
        return;
    (void)strncpy(link->last_reason, reason, sizeof link->last_reason - 1);
    link->last_reason_at = now;
    log_warn(link->settings.log, "key server not reached", log_text("server", link->settings.server->name),
             log_address("address", &link->settings.server->at.address), log_reason(reason));
}

static void leave_up(struct key_link *link, const char *reason)
{
    if (clock_now() - link->up_since >= UP_FOR_GOOD)
        link->attempts = 0;
    metric_change(link->settings.metrics, PROXY_KEY_CHANNELS_UP, -1);
    metric_change(link->settings.metrics, PROXY_KEY_CLOCK_SKEWED, link->clock_skewed ? -1 : 0);
    metric_add_for(link->settings.metrics, PROXY_KEY_CHANNELS_LOST, link->metric_value, 1);
    log_warn(link->settings.log, "key server lost", log_text("server", link->settings.server->name),
             log_number("unanswered", link->asked), log_reason(reason));
}

/* The one way down, from any state. */
static void link_down(struct key_link *link, const char *reason)
{
    enum state before = link->state;
    (void)snprintf(link->failure, sizeof link->failure, "%s", reason);
    link->failed = time(NULL);
    channel_close(link->channel);
    link->channel = NULL;
    link->state = STATE_DOWN;
    if (before == STATE_UP) {
        leave_up(link, reason);
    } else {
        metric_add_for(link->settings.metrics, PROXY_KEY_CONNECT_FAILED, link->metric_value, 1);
        log_unreachable(link, reason);
    }
    const bool first_failure = before != STATE_UP && !link->has_failed;
    link->has_failed = link->has_failed || first_failure;
    link->asked = 0;
    link->attempts++;
    timer_set(link, clock_now() + backoff(link->attempts));
    if (before == STATE_UP)
        link->handler->down(link, link->owner);
    else if (first_failure && link->handler->failed != NULL)
        link->handler->failed(link, link->owner);
}

/* Each mode stands or falls with one operation; that of TLS 1.2 may be missing on purpose. */
static const struct {
    enum proxy_key_mode mode;
    uint8_t opcode;
    const char *advice;
} NEEDED[] = {
    {KEY_MODE_TRANSCRIPT, KSSL_OP_SIGN_TRANSCRIPT,
     "no TLS 1.3 handshake will be signed: on the key server set certificates, and allow: transcript for "
     "this client; or here mode: tbs"},
    {KEY_MODE_TBS, KSSL_OP_SIGN_TLS13,
     "no TLS 1.3 handshake will be signed: on the key server allow: tls13 for this client, without require: "
     "transcript; or here mode: transcript"},
};

static void warn_of_missing(const struct key_link *link)
{
    for (size_t i = 0; i < sizeof NEEDED / sizeof *NEEDED; i++) {
        if (NEEDED[i].mode == link->settings.server->mode && !key_link_offers(link, NEEDED[i].opcode))
            log_warn(link->settings.log, "operation not offered by key server",
                     log_text("server", link->settings.server->name),
                     log_text("operation", kssl_opcode_name(NEEDED[i].opcode)), log_reason(NEEDED[i].advice));
    }
}

static void list_begin(struct key_link *link);

static void link_go_up(struct key_link *link)
{
    link->state = STATE_UP;
    link->up_since = link->received_at = clock_now();
    link->pinged = link->probe = false;
    link->asked = 0;
    link->last_reason[0] = '\0';
    metric_change(link->settings.metrics, PROXY_KEY_CHANNELS_UP, 1);
    log_info(link->settings.log, "key server connected", log_text("server", link->settings.server->name),
             log_address("address", channel_peer_address(link->channel)),
             log_text("tls", channel_tls_version(link->channel)));
    warn_of_missing(link);
    timer_set(link, link->received_at + link->settings.idle);
    link->keys_pending = false;
    link->handler->up(link, link->owner);
    if (link->state == STATE_UP)
        list_begin(link);
}

/* ---- The list of keys. */

static enum result send_own(struct key_link *link, uint8_t opcode, struct bytes payload, uint32_t *id);

static void list_ask(struct key_link *link)
{
    struct bytes after = bytes_of(link->keys_after, link->keys_first ? 0 : sizeof link->keys_after);
    link->keys_pending = send_own(link, KSSL_OP_LIST, after, &link->keys_id) == RESULT_OK;
}

/* Those that do not tell are asked all the same: it is only a hint. */
static void list_begin(struct key_link *link)
{
    link->keys_at = 0;
    if (link->handler->keys == NULL || !key_link_offers(link, KSSL_OP_LIST))
        return;
    link->keys_at = clock_now() + link->settings.list_every;
    link->keys_first = true;
    list_ask(link);
}

static void on_list(struct key_link *link, const struct kssl_message *message)
{
    bool more = false, first = link->keys_first;
    link->keys_pending = false;
    link->keys_first = false;
    if (message->opcode != KSSL_OP_SUCCESS)
        return;
    if (!link->handler->keys(link, message->payload, first, link->keys_after, &more, link->owner))
        log_warn(link->settings.log, "list of keys does not parse",
                 log_text("server", link->settings.server->name));
    else if (more)
        list_ask(link);
}

static bool is_measured(const struct key_link *link)
{
    return clock_now() - link->measured_at < MEASURED_FOR;
}

/* The newest is an eighth of it, as TCP does it (RFC 6298 section 2), or three quarters where all are old. */
static void note_latency(struct key_link *link, uint64_t took)
{
    const uint64_t newest = is_measured(link) ? 1 : 6;
    took = took > 0 ? took : 1;
    link->latency = link->latency == 0 ? took : ((8 - newest) * link->latency + newest * took + 7) / 8;
    link->measured_at = clock_now();
}

/* ---- The link's own requests. */

static enum result send_own(struct key_link *link, uint8_t opcode, struct bytes payload, uint32_t *id)
{
    uint8_t frame[KSSL_PAD_TO];
    struct writer to = writer_of(frame, sizeof frame);
    struct kssl_message message = {.has_opcode = true, .opcode = opcode, .payload = payload};
    link->last_id = KEY_LINK_OWN_IDS | ((link->last_id + 1) & ~KEY_LINK_OWN_IDS);
    *id = link->last_id;
    if (!kssl_message_write(&to, link->last_id, &message))
        return RESULT_LIMIT;
    return channel_send(link->channel, writer_bytes(&to));
}

static void note_clock(struct key_link *link, uint64_t theirs)
{
    int64_t ahead = (int64_t)(theirs - (uint64_t)time(NULL));
    link->clock_skewed = ahead > CLOCK_SKEW_MAX || ahead < -CLOCK_SKEW_MAX;
    if (!link->clock_skewed)
        return;
    metric_change(link->settings.metrics, PROXY_KEY_CLOCK_SKEWED, 1);
    log_warn(link->settings.log, "key server's clock differs",
             log_text("server", link->settings.server->name), log_number("ahead_seconds", ahead));
}

static void offer(struct key_link *link, uint8_t opcode)
{
    link->opcodes[opcode / 8] |= (uint8_t)(1u << opcode % 8);
}

/* A key server that does not know hello knows nothing that is ours, but may have every bare operation. */
static void on_hello_error(struct key_link *link)
{
    if (link->settings.server->mode != KEY_MODE_DIGEST) {
        link_down(link, "the key server does not know our operations (hello answered with an error)");
        return;
    }
    for (unsigned opcode = 0; opcode <= UINT8_MAX; opcode++) {
        if (kssl_bare_find((uint8_t)opcode) != NULL)
            offer(link, (uint8_t)opcode);
    }
    link->clock_skewed = false;
    link_go_up(link);
}

static void on_hello(struct key_link *link, const struct kssl_message *message)
{
    struct kssl_hello hello;
    memset(link->opcodes, 0, sizeof link->opcodes);
    if (message->opcode == KSSL_OP_ERROR) {
        on_hello_error(link);
        return;
    }
    if (message->opcode != KSSL_OP_SUCCESS || !kssl_hello_parse(message->payload, &hello)) {
        link_down(link, "the key server's hello does not parse");
        return;
    }
    for (size_t i = 0; i < hello.opcodes.size; i++)
        offer(link, hello.opcodes.data[i]);
    note_clock(link, hello.time);
    link_go_up(link);
}

/* A ping is given up when anything else shows that the key server lives; its own answer may come after that.
 */
static enum key_stray own_stray(const struct key_link *link, uint32_t id)
{
    uint32_t asked = (link->last_id - link->hello_id) & ~KEY_LINK_OWN_IDS;
    uint32_t place = (id - link->hello_id) & ~KEY_LINK_OWN_IDS;
    if (place > asked)
        return KEY_STRAY_NOT_ASKED;
    return place == asked || place == 0 ? KEY_STRAY_SECOND : KEY_STRAY_LATE;
}

static void on_own_answer(struct key_link *link, uint32_t id, const struct kssl_message *message)
{
    if (id == link->tickets_id && link->tickets_pending) {
        link->tickets_pending = false;
        link->handler->ticket_keys(link, message, link->owner);
        return;
    }
    if (id == link->keys_id && link->keys_pending) {
        on_list(link, message);
        return;
    }
    if (id != link->alive_id || !link->own_pending) {
        key_link_stray(link, id, own_stray(link, id));
        return;
    }
    link->own_pending = false;
    if (link->state == STATE_HELLO) {
        note_latency(link, clock_now() - link->hello_at);
        on_hello(link, message);
    } else {
        if (link->pinged)
            note_latency(link, clock_now() - link->pinged_at);
        link->pinged = false; /* any answer shows that it lives */
        timer_set(link, silence_due(link));
        if (link->handler->alive != NULL)
            link->handler->alive(link, link->owner);
    }
}

/* ---- The channel's callbacks. */

static void on_open(struct channel *channel, void *owner)
{
    struct key_link *link = owner;
    (void)channel;
    link->state = STATE_HELLO;
    link->hello_at = clock_now();
    timer_set(link, link->hello_at + link->settings.timeout);
    link->own_pending = true;
    link->tickets_pending = false;
    if (send_own(link, KSSL_OP_HELLO, bytes_of(CLIENT_SOFTWARE, sizeof CLIENT_SOFTWARE - 1),
                 &link->alive_id) != RESULT_OK)
        link_down(link, "hello could not be sent");
    link->hello_id = link->last_id;
}

static void on_frame(struct channel *channel, const struct kssl_header *header, struct bytes body,
                     void *owner)
{
    struct key_link *link = owner;
    (void)channel;
    struct kssl_message message;
    struct failure why;
    if (header->major != KSSL_MAJOR) {
        link_down(link, "the key server speaks another version of the protocol");
        return;
    }
    if (kssl_body_parse(body, &message, &why) != RESULT_OK || !message.has_opcode) {
        link_down(link, "the key server sent a frame that does not parse");
        return;
    }
    link->received_at = clock_now();
    if ((header->id & KEY_LINK_OWN_IDS) == KEY_LINK_OWN_IDS)
        on_own_answer(link, header->id, &message);
    else if (link->state == STATE_UP)
        link->handler->answer(link, header->id, &message, link->owner);
    else
        key_link_stray(link, header->id, KEY_STRAY_NOT_ASKED);
}

static void on_drained(struct channel *channel, void *owner)
{
    struct key_link *link = owner;
    (void)channel;
    if (link->state == STATE_UP)
        link->handler->writable(link, link->owner);
}

static void on_closed(struct channel *channel, const struct failure *why, void *owner)
{
    struct key_link *link = owner;
    (void)channel;
    link->channel = NULL; /* it frees itself */
    link_down(link, why->kind == RESULT_OK ? "closed by the key server" : why->text);
}

static const struct channel_handler CHANNEL_HANDLER = {
    .open = on_open,
    .frame = on_frame,
    .drained = on_drained,
    .closed = on_closed,
};

static void link_connect(struct key_link *link)
{
    const struct proxy_key_server *server = link->settings.server;
    const struct channel_limits limits = {
        .handshake_timeout = link->settings.timeout,
        .output_high = OUTPUT_HIGH,
    };
    struct failure why;
    link->state = STATE_CONNECTING;
    link->channel = channel_connect(link->settings.base, link->settings.context, &server->at.address,
                                    server->server_name, &limits, &CHANNEL_HANDLER, link, &why);
    if (link->channel == NULL)
        link_down(link, why.text);
}

/* ---- Silence. */

/* False: nothing can be sent. */
static bool ping_send(struct key_link *link)
{
    link->own_pending = send_own(link, KSSL_OP_PING, bytes_of("", 0), &link->alive_id) == RESULT_OK;
    if (!link->own_pending)
        return false;
    link->pinged = true;
    link->pinged_at = clock_now();
    timer_set(link, silence_due(link));
    return true;
}

static void link_ping(struct key_link *link)
{
    link->probe = false;
    if (!ping_send(link))
        link_down(link, "nothing can be sent to the key server");
}

static void check_silence(struct key_link *link)
{
    if (link->keys_at != 0 && clock_now() >= link->keys_at)
        list_begin(link);
    if (link->pinged && link->received_at > link->pinged_at)
        link->pinged = false;
    uint64_t due = silence_due(link);
    if (due > clock_now())
        timer_set(link, due);
    else if (link->pinged)
        link_down(link, "silent: a ping was not answered in time");
    else
        link_ping(link);
}

static void on_timer(evutil_socket_t fd, short events, void *owner)
{
    struct key_link *link = owner;
    (void)fd;
    (void)events;
    if (link->state == STATE_DOWN)
        link_connect(link);
    else if (link->state == STATE_HELLO)
        link_down(link, "hello was not answered in time");
    else if (link->state == STATE_UP)
        check_silence(link);
}

/* ---- The owner's side. */

bool key_link_ask_ticket_keys(struct key_link *link)
{
    if (link->state != STATE_UP)
        return false;
    link->tickets_pending =
        send_own(link, KSSL_OP_TICKET_KEYS, bytes_of("", 0), &link->tickets_id) == RESULT_OK;
    return link->tickets_pending;
}

enum result key_link_new(const struct key_link_settings *settings, const struct key_link_handler *handler,
                         void *owner, struct key_link **link, struct failure *why)
{
    struct key_link *made = calloc(1, sizeof *made);
    *link = NULL;
    if (made == NULL)
        return failure_set_errno(why, "key server %s", settings->server->name);
    made->settings = *settings;
    made->metric_value = metric_value(settings->metrics, PROXY_SERVER_LABEL, settings->server->name);
    made->handler = handler;
    made->owner = owner;
    made->timer = evtimer_new(settings->base, on_timer, made);
    if (made->timer == NULL) {
        free(made);
        return failure_set(why, RESULT_SYSTEM, "key server %s: no timer", settings->server->name);
    }
    timer_set(made, clock_now());
    *link = made;
    return RESULT_OK;
}

void key_link_free(struct key_link *link)
{
    if (link == NULL)
        return;
    channel_close(link->channel);
    event_free(link->timer);
    if (link->state == STATE_UP) {
        metric_change(link->settings.metrics, PROXY_KEY_CHANNELS_UP, -1);
        metric_change(link->settings.metrics, PROXY_KEY_CLOCK_SKEWED, link->clock_skewed ? -1 : 0);
    }
    free(link);
}

bool key_link_up(const struct key_link *link)
{
    return link != NULL && link->state == STATE_UP;
}

bool key_link_tried(const struct key_link *link)
{
    return link == NULL || link->state == STATE_UP || link->has_failed;
}

bool key_link_offers(const struct key_link *link, uint8_t opcode)
{
    return key_link_up(link) && (link->opcodes[opcode / 8] & 1u << opcode % 8) != 0;
}

bool key_link_full(const struct key_link *link)
{
    return link->channel != NULL && channel_full(link->channel);
}

const char *key_link_name(const struct key_link *link)
{
    return link->settings.server->name;
}

size_t key_link_metric_value(const struct key_link *link)
{
    return link->metric_value;
}

enum result key_link_send(struct key_link *link, struct bytes frame)
{
    if (link->state != STATE_UP)
        return RESULT_PEER;
    enum result result = channel_send(link->channel, frame);
    if (result != RESULT_OK)
        return result;
    if (link->asked++ == 0) {
        link->asked_since = clock_now();
        uint64_t due = silence_due(link);
        if (due < link->timer_due)
            timer_set(link, due);
    }
    return RESULT_OK;
}

void key_link_probe(struct key_link *link)
{
    if (link->state != STATE_UP || link->pinged || link->probe)
        return;
    link->probe = true;
    timer_set(link, silence_due(link));
}

void key_link_measure(struct key_link *link)
{
    if (link->state == STATE_UP && link->asked == 0 && !link->pinged && !is_measured(link))
        (void)ping_send(link);
}

void key_link_settle(struct key_link *link)
{
    if (link->asked > 0)
        link->asked--;
}

void key_link_answered(struct key_link *link, uint64_t took)
{
    key_link_settle(link);
    link->attempts = 0;
    note_latency(link, took);
}

uint64_t key_link_latency(const struct key_link *link)
{
    return link->latency;
}

void key_link_status(const struct key_link *link, struct key_server_status *status)
{
    *status = (struct key_server_status){.up = link->state == STATE_UP,
                                         .in_flight = link->asked,
                                         .latency = link->latency,
                                         .failed = link->failed};
    (void)snprintf(status->failure, sizeof status->failure, "%s", link->failure);
}

unsigned key_link_asked(const struct key_link *link)
{
    return link->asked;
}

void key_link_stray(struct key_link *link, uint32_t id, enum key_stray what)
{
    size_t metric = what == KEY_STRAY_LATE ? PROXY_KEY_LATE : PROXY_KEY_UNKNOWN;
    metric_add_for(link->settings.metrics, metric, link->metric_value, 1);
    if (what == KEY_STRAY_LATE)
        return;
    log_warn(link->settings.log, "stray answer", log_text("server", link->settings.server->name),
             log_number("id", id),
             log_reason(what == KEY_STRAY_SECOND ? "the key server has answered this request before"
                                                 : "the key server answers a request that nobody made"));
}
