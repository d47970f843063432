/*
 * Signatures from a key server: one channel of this worker's own, requests pipelined and matched by handle,
 * deadlines, reconnects with jittered backoff. Requests lost with a channel are sent again on the next one
 * while they have time left (signing twice is harmless).
 *
 * A request's id on the wire is a slot and its generation; an answer to a generation that has gone, or that
 * never was, is counted and dropped, so no pointer crosses the wire or outlives its connection.
 */
#ifndef KEYLESS_PROXY_KEY_CLIENT_H
#define KEYLESS_PROXY_KEY_CLIENT_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "common/address.h"
#include "common/bytes.h"
#include "common/key_id.h"
#include "common/kssl.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"
#include "proxy/config.h"
#include "proxy/signature_check.h"
#include "proxy/transcript_capture.h"
#include "proxy/worker_status.h"

#define KEY_SIGNATURE_MAX 2048 /* RSA-16384 */

struct key_client;

/* How an operation ended: what operations are counted by (proxy_metrics.h, in the same order). */
enum key_outcome {
    KEY_OUTCOME_OK,
    KEY_OUTCOME_ERROR,     /* the key server answered an error */
    KEY_OUTCOME_TIMEOUT,   /* sent, not answered in time */
    KEY_OUTCOME_NO_SERVER, /* never sent: no key server within the time */
    KEY_OUTCOME_INVALID,   /* an answer that cannot be a signature */
    KEY_OUTCOME_WRONG,     /* a signature, but not of this content with this key */
    KEY_OUTCOME_CANCELLED, /* by its owner */
    KEY_OUTCOME_REFUSED,   /* not tried: not offered, or nothing a TLS server signs */
    KEY_OUTCOME_TOO_MANY,  /* not tried: limits.handshakes are pending */
    KEY_OUTCOME_MISMATCH,  /* not tried: the transcript is not what is to be signed */
    KEY_OUTCOMES
};

/* One signature, embedded in the handshake that wants it. The caller fills the first part before
 * key_client_sign; the client fills the second before it calls done. */
struct key_operation {
    /* request */
    const struct key_id *key;
    struct signature_check *check; /* of signatures with the key; NULL: they are taken as they come */
    struct bytes content;          /* to be signed; borrowed until done is called, or key_client_cancel */
    struct bytes sni;              /* borrowed until key_client_sign returns; absent: no SNI */
    const struct transcript_capture *transcript; /* the handshake that content is of; borrowed as content is.
                                                    NULL: none was kept, which only KEY_MODE_TRANSCRIPT minds
                                                  */
    struct address client;                       /* for the key server's policy and audit */
    void (*done)(
        struct key_operation *operation); /* never called from within key_client_sign or key_client_cancel */
    void *owner;
    uint16_t scheme; /* TLS SignatureScheme */
    bool is_test; /* no handshake waits for it: it takes no place from one, and is not counted as theirs. One
                     at a time */

    /* outcome */
    uint8_t error;      /* kssl error, when the key server answered one; else 0 */
    enum result result; /* RESULT_OK: signature is set */
    enum key_outcome outcome;
    const char *reason; /* a fixed string: "key not found", "key server timeout", "no key server", ... */
    const char *server; /* which key server answered; borrowed from the configuration */
    uint8_t opcode;     /* what it was asked */
    uint64_t duration;  /* microseconds from key_client_sign to done */
    size_t signature_size;
    uint8_t signature[KEY_SIGNATURE_MAX];
    char request_id[KSSL_REQUEST_ID_MAX + 1]; /* as both sides log it */

    /* the client's own */
    bool pending;
    uint16_t slot;
};

MUST_CHECK enum result key_client_new(struct event_base *base, const struct proxy_config *config,
                                      SSL_CTX *channel_context, struct log *log, struct metrics_row *metrics,
                                      struct key_client **client, struct failure *why);
/* Pending operations are dropped without a call to done. */
void key_client_free(struct key_client *client);

/* Sends operation, or keeps it until the channel is up. Not RESULT_OK: it cannot be tried at all
 * (RESULT_LIMIT: too many wait; RESULT_PROTOCOL: content is nothing a TLS server signs, or not the
 * transcript's; RESULT_CONFIG: the key server does not offer it), done will not be called. */
MUST_CHECK enum result key_client_sign(struct key_client *client, struct key_operation *operation);
/* The operation's owner goes away: done will not be called, a late answer is dropped. Legal when not pending.
 */
void key_client_cancel(struct key_client *client, struct key_operation *operation);

/* Ticket keys (operation 0x66), which are asked for over the same channel. */
struct key_client_ticket_handler {
    /* A channel has come up; offered: its key server has them for us. */
    void (*up)(const char *server, bool offered, void *owner);
    /* What was asked for, or an error. */
    void (*answer)(const char *server, const struct kssl_message *message, void *owner);
};
/* Handler and owner are borrowed; owner must outlive the client, or the last event. */
void key_client_watch_ticket_keys(struct key_client *client, const struct key_client_ticket_handler *handler,
                                  void *owner);
/* False: there is no channel now, or its key server does not offer them. */
bool key_client_ask_ticket_keys(struct key_client *client);

/* Called once when a channel is up and the other key servers were tried, too, or half a second has passed;
 * perhaps at once. For readiness. */
void key_client_when_ready(struct key_client *client, void (*ready)(void *owner), void *owner);
/* Whether a channel is up. */
bool key_client_ready(const struct key_client *client);
/* What a signature asked for now may take, in microseconds: what the last ones took; UINT64_MAX while there
 * is no channel to a key server. */
uint64_t key_client_latency(const struct key_client *client);
/* Those that handshakes wait for. */
unsigned key_client_pending(const struct key_client *client);
/* Whether they are as many as may be: the next one would be refused (RESULT_LIMIT). */
bool key_client_full(const struct key_client *client);
/* What the log and clients' handshakes tell of one that was refused for that. */
extern const char key_client_full_reason[];
/* One for each key server, in the configuration's order. */
void key_client_status(const struct key_client *client, struct key_server_status *servers);

#endif
