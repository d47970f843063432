#include "proxy/ticket_source.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include <openssl/crypto.h>

#include "common/clock.h"
#include "proxy/proxy_metrics.h"

/* Microseconds from one question to the next, and to the next after one that was answered with an error. */
#define ASK_EVERY   UINT64_C(60000000)
#define ASK_AGAIN   UINT64_C(5000000)
#define ASK_TIMEOUT UINT64_C(10000000)

/* Alone in its pages. */
struct ticket_source {
    struct ticket_source_settings settings;
    struct ticket_times times;
    uint64_t epoch;            /* local: of the newest key */
    struct ticket_chain chain; /* local */
    uint64_t ask_at;           /* keyserver: clock_now */
    bool told_missing;         /* ... that it does not offer them, since the channel came up */
    struct ticket_keys keys;
    struct ticket_keys told; /* while an answer is looked at */
};

static uint64_t unix_now(void)
{
    return (uint64_t)time(NULL);
}

static void tell_metrics(const struct ticket_source *source)
{
    metric_set(source->settings.metrics, PROXY_TICKET_KEYS, source->keys.count);
}

/* ---- Keys of our own. */

static void derive(struct ticket_source *source, uint64_t now)
{
    const uint64_t epoch = ticket_epoch_of(now, source->times.rotate);
    const uint64_t oldest = ticket_epoch_needed(now, source->times.rotate, source->times.lifetime);
    if (source->keys.count > 0 && source->epoch == epoch)
        return;
    source->epoch = epoch;
    if (oldest > source->chain.epoch && oldest - source->chain.epoch <= TICKET_STEPS_MAX)
        (void)!ticket_chain_advance(&source->chain, oldest); /* what fails here fails below */
    if (!ticket_keys_derive(&source->chain, &source->times, now, &source->keys)) {
        source->keys.count = 0;
        log_error(source->settings.log, "no ticket keys", log_text("source", "local"),
                  log_reason("the clock is far from where it was when they began: a reload begins anew"));
    }
    tell_metrics(source);
}

/* ---- Those of a key server. */

static void refused(struct ticket_source *source, const char *server, const char *reason)
{
    metric_add(source->settings.metrics, PROXY_TICKET_KEYS_FAILED, 1);
    log_warn(source->settings.log, "no new ticket keys", log_text("server", server),
             log_number("kept", source->keys.count), log_reason(reason));
    source->ask_at = clock_now() + ASK_AGAIN;
}

/* Taken from us: a session must not be resumed with them for another minute. */
static void drop(struct ticket_source *source)
{
    OPENSSL_cleanse(&source->keys, sizeof source->keys);
    ticket_memory_clear(source->settings.memory);
    tell_metrics(source);
}

/* Often enough to have the next key before its time has come, however soon that is. */
static uint64_t ask_every(const struct ticket_keys *keys)
{
    const uint64_t rotate = keys->keys[1].not_before - keys->keys[0].not_before;
    return rotate < ASK_EVERY / 500000 ? rotate * 500000 : ASK_EVERY;
}

static void take(struct ticket_source *source, const char *server)
{
    const bool others = source->keys.count == 0 ||
                        memcmp(source->keys.keys[0].name, source->told.keys[0].name, TICKET_NAME_SIZE) != 0;
    source->keys = source->told;
    source->keys.since = unix_now();
    source->ask_at = clock_now() + ask_every(&source->keys);
    ticket_memory_write(source->settings.memory, source->settings.generation, source->settings.index,
                        &source->keys);
    tell_metrics(source);
    if (others)
        log_info(source->settings.log, "ticket keys taken", log_text("server", server),
                 log_number("keys", source->keys.count));
}

static void on_answer(const char *server, const struct kssl_message *message, void *owner)
{
    struct ticket_source *source = owner;
    struct failure why;
    source->ask_at = clock_now() + ASK_EVERY;
    if (message->opcode == KSSL_OP_ERROR) {
        const uint8_t error = message->payload.size == 1 ? message->payload.data[0] : 0;
        if (error == KSSL_ERROR_BAD_OPCODE)
            drop(source);
        refused(source, server, kssl_error_name(error));
    } else if (message->opcode != KSSL_OP_SUCCESS) {
        refused(source, server, "an answer that is none");
    } else if (ticket_keys_parse(message->payload, unix_now(), &source->told, &why) != RESULT_OK) {
        refused(source, server, why.text);
    } else {
        take(source, server);
    }
    OPENSSL_cleanse(&source->told, sizeof source->told);
}

/* The channel is another one: its key server may have another mind, or another clock. */
static void on_up(const char *server, bool offered, void *owner)
{
    struct ticket_source *source = owner;
    source->ask_at = 0;
    source->told_missing = false;
    if (offered)
        return;
    drop(source);
    log_warn(
        source->settings.log, "ticket keys not offered by key server", log_text("server", server),
        log_reason("no session is resumed: on the key server allow: ticket-keys for this client, and set "
                   "ticket_keys; or here tickets: local"));
}

static const struct key_client_ticket_handler KEY_SERVER = {.up = on_up, .answer = on_answer};

static void ask(struct ticket_source *source)
{
    if (clock_now() < source->ask_at || !key_client_ask_ticket_keys(source->settings.client))
        return;
    source->ask_at = clock_now() + ASK_TIMEOUT;
}

/* ---- All of them. */

void ticket_source_tick(struct ticket_source *source)
{
    if (source->settings.config->tickets.source == TICKETS_LOCAL)
        derive(source, unix_now());
    else if (source->settings.config->tickets.source == TICKETS_KEYSERVER)
        ask(source);
}

const struct ticket_keys *ticket_source_keys(const struct ticket_source *source)
{
    return &source->keys;
}

static void start(struct ticket_source *source)
{
    const struct ticket_source_settings *settings = &source->settings;
    switch (settings->config->tickets.source) {
    case TICKETS_LOCAL:
        if (!ticket_memory_take_chain(settings->memory, source->times.rotate, &source->chain))
            source->chain.epoch = UINT64_MAX; /* then there are no keys, which is told */
        derive(source, unix_now());
        break;
    case TICKETS_FILE:
        source->keys = *settings->from_file;
        break;
    case TICKETS_KEYSERVER:
        if (!ticket_memory_read(settings->memory, unix_now(), &source->keys))
            OPENSSL_cleanse(&source->keys, sizeof source->keys);
        key_client_watch_ticket_keys(settings->client, &KEY_SERVER, source);
        break;
    case TICKETS_OFF:
        break;
    }
    tell_metrics(source);
}

enum result ticket_source_new(const struct ticket_source_settings *settings, struct ticket_source **source,
                              struct failure *why)
{
    void *pages = mmap(NULL, sizeof **source, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *source = NULL;
    if (pages == MAP_FAILED)
        return failure_set_errno(why, "cannot map memory for ticket keys");
    struct ticket_source *made = pages;
    made->settings = *settings;
    made->times =
        (struct ticket_times){.rotate = (uint32_t)(settings->config->tickets.rotate / CONFIG_SECOND),
                              .lifetime = (uint32_t)(settings->config->tickets.lifetime / CONFIG_SECOND)};
    if (settings->config->tickets.source != TICKETS_OFF &&
        (mlock(made, sizeof *made) != 0 ||
         !ticket_memory_lock(settings->memory, settings->generation, settings->index)))
        log_warn(settings->log, "ticket keys not locked in memory",
                 log_reason("RLIMIT_MEMLOCK is too low: they could be swapped to disk"));
    start(made);
    *source = made;
    return RESULT_OK;
}

void ticket_source_free(struct ticket_source *source)
{
    if (source == NULL)
        return;
    OPENSSL_cleanse(source, sizeof *source);
    (void)munmap(source, sizeof *source);
}
