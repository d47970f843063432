/*
 * The TLS of a channel apart from its event loop: what the contexts allow (channel.h declares how they are
 * made), one connection's SSL, and why a TLS call failed in words for the operator. Only channel.c includes
 * this.
 */
#ifndef KEYLESS_COMMON_CHANNEL_TLS_H
#define KEYLESS_COMMON_CHANNEL_TLS_H

#include <stdbool.h>
#include <time.h>

#include <openssl/ssl.h>

#include "common/channel.h"
#include "common/result.h"

/*
 * A connection on fd (not owned). server_name, a DNS name or an IP address, is what the peer must prove;
 * NULL: we are the server. When the peer's certificate is refused, verification gets the reason; it must live
 * as long as the SSL.
 */
MUST_CHECK enum result channel_tls_new(SSL_CTX *context, int fd, const char *server_name,
                                       struct failure *verification, SSL **ssl, struct failure *why);

/* After the handshake: the peer's certificate (owned by the
 * caller) and the last second at which its whole chain is valid. */
MUST_CHECK enum result channel_tls_peer(SSL *ssl, X509 **certificate, time_t *valid_until,
                                        struct failure *why);

/* More handshake messages than this after the handshake, with no data between them, and the peer only means
 * to keep us busy: a server's tickets are two or so, and a KeyUpdate is due once in 2^24 records. */
#define CHANNEL_TLS_CHATTER_MAX 8

/*
 * Counts in *chatter what the peer sends of them from now on; the owner sets it to 0 when data come. Past the
 * bound the SSL reads as if the peer had closed: without that, SSL_read would go on for as long as they come.
 */
void channel_tls_watch_chatter(SSL *ssl, unsigned *chatter);

/* The kind of a failure that SSL_get_error explains as `error`, by OpenSSL's error queue. */
enum channel_cause channel_tls_cause(int error);

/*
 * Why a call failed that SSL_get_error explains as `error`, with that errno; doing says in what ("the TLS
 * handshake"). Clears OpenSSL's error queue. RESULT_PEER: refused, an alert, cut off. RESULT_PROTOCOL: what
 * came is not TLS as it must be. RESULT_OK: close_notify.
 */
enum result channel_tls_failure(int error, int system_error, const char *doing, struct failure *why);

#endif
