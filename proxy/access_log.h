/*
 * The access log: one line for each client, written when it has gone, whatever log.level and log.rate say. It
 * has an event of its own, so that it can be told from other lines that go to the same place:
 *
 *     time=... level=info program=proxy process=worker/3 generation=2 event=access client=192.0.2.1:51234
 *     listener=0.0.0.0:443 sni=www.example.com alpn=h2 version=TLSv1.3 ... us=20312 end=finished
 *
 * What is always there: client, listener, us and end; of a TLS client also sni (empty: it asked for none),
 * resumed, from_client, to_client, truncated and handshake_us. Writing never waits: lines that the reader
 * does not take are lost, and counted (proxy_metrics.h).
 */
#ifndef KEYLESS_PROXY_ACCESS_LOG_H
#define KEYLESS_PROXY_ACCESS_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"
#include "proxy/backend.h"
#include "proxy/config.h"
#include "proxy/handshake.h"

/* A worker's. NULL where it is off: then nothing needs to be kept for it. */
struct access_log;

/* Where the configuration says; off: *access is NULL. log is the worker's own; metrics are borrowed.
 * RESULT_SYSTEM: no memory. */
MUST_CHECK enum result access_log_open(const struct proxy_config *config, struct log *log,
                                       struct metrics_row *metrics, struct access_log **access,
                                       struct failure *why);
/* Writes to fd (not owned). NULL: no memory. */
struct access_log *access_log_new(int fd, enum log_format format, struct log *log,
                                  struct metrics_row *metrics);
void access_log_free(struct access_log *access); /* NULL is allowed */

/* What a line tells of a handshake, in little memory: it lasts as long as the connection. */
struct access_handshake;

/* Borrows what facts name of the configuration and of OpenSSL. request may be NULL. NULL: no memory. */
struct access_handshake *access_handshake_new(const struct handshake_facts *facts, const char *request);
void access_handshake_free(struct access_handshake *handshake); /* NULL is allowed */

/* A TLS client that has gone. All of it borrowed. */
struct access_connection {
    const struct address *client, *listener;
    const struct access_handshake *handshake; /* NULL: there was no memory for it */
    const char *stage, *reason;               /* of a handshake that has failed; NULL */
    const struct backend_attempt *attempt;
    uint64_t from_client, to_client; /* octets of plaintext */
    bool truncated;
    uint64_t started; /* by clock_now */
    const char *end;
};

/* Of plain HTTP: it had an answer, or has gone without one. */
struct access_redirect {
    const struct address *client, *listener;
    unsigned status;      /* of the answer; 0: none */
    const char *location; /* that it was sent to; NULL: none */
    uint64_t started;     /* by clock_now */
    const char *end;
};

/* access NULL: nothing happens. */
void access_log_connection(struct access_log *access, const struct access_connection *connection);
void access_log_redirect(struct access_log *access, const struct access_redirect *redirect);

#endif
