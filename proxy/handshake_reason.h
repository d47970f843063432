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

struct handshake_reason {
    enum handshake_fault fault;
    const char *text; /* never to be freed; NULL with HANDSHAKE_FAULT_NONE */
};

/* From the first and the last error that OpenSSL has queued (ERR_peek_error, ERR_peek_last_error; 0: none):
 * what the libraries below libssl say of a client's key or record comes first, libssl's own judgement last.
 */
struct handshake_reason handshake_reason_of(unsigned long first, unsigned long last);

#endif
