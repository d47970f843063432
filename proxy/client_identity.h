/* Who a client is, by its certificate: for the log, and for builtin:hello. Text from outside, not escaped. */
#ifndef KEYLESS_PROXY_CLIENT_IDENTITY_H
#define KEYLESS_PROXY_CLIENT_IDENTITY_H

#include <openssl/x509.h>

struct client_identity {
    char subject[256];    /* RFC 2253: "CN=app,O=example"; cut where it does not fit */
    char san[256];        /* the first that is a name: "DNS:app.clients.example"; "": none */
    char fingerprint[65]; /* SHA-256 of the certificate, in hexadecimal digits */
    char serial[65];      /* the same of the serial number; cut */
};

/* NULL: no memory. Free with free. */
struct client_identity *client_identity_of(X509 *certificate);
/* NULL of NULL, or for want of memory. */
struct client_identity *client_identity_copy(const struct client_identity *identity);

/* The fields of a log line; of NULL they are left out. */
#define CLIENT_IDENTITY_FIELDS(identity)                                                                     \
    log_text("client_subject", (identity) != NULL ? (identity)->subject : NULL),                             \
        log_text("client_san", (identity) != NULL && (identity)->san[0] != '\0' ? (identity)->san : NULL),   \
        log_text("client_sha256", (identity) != NULL ? (identity)->fingerprint : NULL),                      \
        log_text("client_serial", (identity) != NULL ? (identity)->serial : NULL)

#endif
