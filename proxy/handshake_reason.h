/* Why a handshake failed, in words that a person understands at three in the morning: a table over OpenSSL's
 * reasons, with OpenSSL's own text where the table has none. */
#ifndef KEYLESS_PROXY_HANDSHAKE_REASON_H
#define KEYLESS_PROXY_HANDSHAKE_REASON_H

/* Whose doing it was. */
enum handshake_fault {
    HANDSHAKE_FAULT_NONE,
    HANDSHAKE_FAULT_CLIENT_GONE, /* it closed or broke the connection */
    HANDSHAKE_FAULT_CLIENT,      /* what it sent or cannot do */
    HANDSHAKE_FAULT_KEY,         /* no signature */
    HANDSHAKE_FAULT_ABORTED,     /* ended by ourselves: a deadline, a drain */
    HANDSHAKE_FAULT_INTERNAL,
};

/* What kind of thing went wrong: what failures are counted by. */
enum handshake_class {
    HANDSHAKE_CLASS_NONE,
    HANDSHAKE_CLASS_CLOSED, /* by the client, in whatever way */
    HANDSHAKE_CLASS_RESET,

    HANDSHAKE_CLASS_NOT_TLS,
    HANDSHAKE_CLASS_VERSION,
    HANDSHAKE_CLASS_CIPHER,
    HANDSHAKE_CLASS_GROUP,
    HANDSHAKE_CLASS_SCHEME,
    HANDSHAKE_CLASS_ALPN,
    HANDSHAKE_CLASS_NAME,                  /* no chain is for it */
    HANDSHAKE_CLASS_CERTIFICATE,           /* the client sent an alert: it does not like ours */
    HANDSHAKE_CLASS_NO_CLIENT_CERTIFICATE, /* it must have one */
    HANDSHAKE_CLASS_CLIENT_CERTIFICATE,    /* the client's is none that we take */
    HANDSHAKE_CLASS_ALERT,                 /* the client sent another alert */
    HANDSHAKE_CLASS_MALFORMED,             /* what it sent is not as TLS wants it, in any other way */

    HANDSHAKE_CLASS_KEY_NO_SERVER,
    HANDSHAKE_CLASS_KEY_TIMEOUT,
    HANDSHAKE_CLASS_KEY_ERROR,      /* the key server answered an error */
    HANDSHAKE_CLASS_KEY_INVALID,    /* what the key server answered cannot be a signature */
    HANDSHAKE_CLASS_KEY_WRONG,      /* the key server's signature does not verify */
    HANDSHAKE_CLASS_KEY_REFUSED,    /* it was not even asked */
    HANDSHAKE_CLASS_KEY_TOO_MANY,   /* nor here: limits.handshakes wait already */
    HANDSHAKE_CLASS_KEY_TRANSCRIPT, /* nor here: what was kept of the handshake is not what libssl signs */

    HANDSHAKE_CLASS_TIMEOUT,
    HANDSHAKE_CLASS_DROPPED, /* this process ended */
    HANDSHAKE_CLASS_INTERNAL,
    HANDSHAKE_CLASSES
};

enum handshake_fault handshake_fault_of(enum handshake_class class);

struct handshake_reason {
    enum handshake_class class;
    const char *text; /* never to be freed; NULL with HANDSHAKE_CLASS_NONE */
};

/* From the first and the last error that OpenSSL has queued (ERR_peek_error, ERR_peek_last_error; 0: none):
 * what the libraries below libssl say of a client's key or record comes first, libssl's own judgement last.
 */
struct handshake_reason handshake_reason_of(unsigned long first, unsigned long last);

#endif
