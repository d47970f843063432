/*
 * One non-blocking mutual-TLS connection that carries kssl frames, on an event loop, over TCP or a Unix
 * socket; the proxy's end and the key server's. Nobody else sees WANT_READ, a partial frame or a TLS record.
 *
 *   CONNECTING ──▶ HANDSHAKE ──▶ OPEN ──▶ FLUSHING ──▶ DRAINING ──▶ CLOSED (freed)
 *        │             │           └── failure, channel_close ──────────▲
 *        └─────────────┴── failure ──▶ (DRAINING, so that our alert arrives) ──┘
 *
 * FLUSHING sends what is queued and then close_notify; DRAINING has closed its own direction and waits for
 * the peer to close; in both, what still arrives is dropped. OPEN ends with a reason of its own when the
 * peer's certificate, or another of its chain, expires.
 *
 * Sending: frames queued in one turn of the loop are sent together, in writes of at most 16,384 octets cut at
 * frame boundaries, so that a frame of up to 16,384 octets lies within one TLS record; a longer one starts
 * its own. Receiving: each call of `frame` is one whole frame; its bytes are valid during the call.
 *
 * Every call of this header is legal inside every callback; channel_close there frees when the callback has
 * returned. Callbacks come from the event loop only, never from inside a call. SIGPIPE must be ignored by the
 * program.
 *
 * TLS 1.3: a client's handshake is complete before the server has looked at its certificate. A refusal
 * therefore comes after `open`, as `closed` with the server's alert as the reason.
 */
#ifndef KEYLESS_COMMON_CHANNEL_H
#define KEYLESS_COMMON_CHANNEL_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "common/address.h"
#include "common/bytes.h"
#include "common/kssl.h"
#include "common/result.h"

/* ---- The TLS contexts: both sides verified against a private CA, never the system's store; no tickets, no
 * resumption, no renegotiation; TLS 1.3, and 1.2 with ECDHE and AES-GCM or ChaCha20. Files are read here,
 * once. */

struct channel_credentials {
    const char *certificate; /* PEM, leaf first; paths */
    const char *key;
    const char *ca;
};

/* RESULT_CONFIG names the file; also when key and certificate
 * do not belong together, or the leaf has expired. */
MUST_CHECK enum result channel_client_context(const struct channel_credentials *files, SSL_CTX **context,
                                              struct failure *why);
MUST_CHECK enum result channel_server_context(const struct channel_credentials *files, SSL_CTX **context,
                                              struct failure *why);

/* ---- Channels. */

struct channel;

struct channel_limits {
    uint64_t handshake_timeout; /* microseconds from the start, connecting included; again for channel_finish;
                                   0: none */
    uint64_t idle_timeout; /* no frame received, and no octet taken by the peer; 0: none. Does not run while
                              the channel is paused and has nothing to send: then the wait is our own. */
    size_t output_high;    /* octets queued for sending above which channel_full is true */
};

/* The owner's callbacks. Any may be NULL but closed. */
struct channel_handler {
    /* The handshake is done and the peer is verified. */
    void (*open)(struct channel *channel, void *owner);
    /* A frame. header->major may be other than 1: its body was skipped and is empty, the owner answers. */
    void (*frame)(struct channel *channel, const struct kssl_header *header, struct bytes body, void *owner);
    /* The output queue has fallen below half of output_high after channel_full was true. */
    void (*drained)(struct channel *channel, void *owner);
    /* It is over, for the reason in why (RESULT_OK: the peer closed in good order).
     * Called once, unless channel_close was called; afterwards the channel frees itself. */
    void (*closed)(struct channel *channel, const struct failure *why, void *owner);
};

/* Starts to connect. server_name is verified against the certificate's SANs.
 * context is borrowed and must outlive the channel; handler too. NULL: why says. */
struct channel *channel_connect(struct event_base *base, SSL_CTX *context, const struct address *to,
                                const char *server_name, const struct channel_limits *limits,
                                const struct channel_handler *handler, void *owner, struct failure *why);

/* Takes an accepted socket, owned from now on even when NULL is returned. */
struct channel *channel_accept(struct event_base *base, SSL_CTX *context, int fd, const struct address *peer,
                               const struct channel_limits *limits, const struct channel_handler *handler,
                               void *owner, struct failure *why);

/* Queues one whole frame (copied). RESULT_LIMIT: it would take the queue past twice output_high, or there is
 * no memory; RESULT_PEER: not open, or closing; RESULT_PROTOCOL: these octets are not one frame. */
MUST_CHECK enum result channel_send(struct channel *channel, struct bytes frame);
/* Above output_high: stop producing until `drained`. */
bool channel_full(const struct channel *channel);
size_t channel_queued(const struct channel *channel);

/* Back pressure towards the peer: no more frames are read, or
 * delivered from what is already read, until resumed. */
void channel_pause(struct channel *channel);
void channel_resume(struct channel *channel);

/* Sends what is queued, then close_notify, then waits for the
 * peer to close; `closed` follows, and no frame. */
void channel_finish(struct channel *channel);
/* At once, what is queued is lost; no callback follows. NULL is allowed. */
void channel_close(struct channel *channel);

/* What kind of thing ended it: what ends are counted by. Within `closed`. */
enum channel_cause {
    CHANNEL_CAUSE_OTHER,          /* a limit of ours, or the kernel's */
    CHANNEL_CAUSE_CLOSED,         /* by the peer, or the connection broke */
    CHANNEL_CAUSE_TIMEOUT,        /* it was too slow, or silent */
    CHANNEL_CAUSE_CERTIFICATE,    /* we refuse the peer's, or it has expired */
    CHANNEL_CAUSE_NO_CERTIFICATE, /* the peer has none */
    CHANNEL_CAUSE_ALERT,          /* the peer sent one: it does not like what it got */
    CHANNEL_CAUSE_PROTOCOL,       /* what it sent is not TLS as it must be */
    CHANNEL_CAUSES
};

enum channel_cause channel_cause(const struct channel *channel);

const struct address *channel_peer_address(const struct channel *channel);
/* The verified certificate, borrowed; NULL before `open`. */
X509 *channel_peer_certificate(const struct channel *channel);
const char *channel_tls_version(const struct channel *channel); /* "TLSv1.3" */

#endif
