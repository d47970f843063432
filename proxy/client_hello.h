/*
 * What a ClientHello says that the proxy goes by (SNI, ALPN, what the client can verify), and the choices
 * made from it: application protocol and chain. The parsers are pure; libssl checks the same extensions
 * again, strictly, and sends the alerts.
 */
#ifndef KEYLESS_PROXY_CLIENT_HELLO_H
#define KEYLESS_PROXY_CLIENT_HELLO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "proxy/certificates.h"

#define CLIENT_HELLO_NAME_MAX 255

struct client_hello {
    size_t sni_size; /* 0: none, or one that is none */
    uint8_t sni[CLIENT_HELLO_NAME_MAX];
    uint32_t schemes; /* signature schemes offered that we know: one bit each, client_hello.c's table */
    bool rsa,
        ecdsa; /* suites of TLS 1.2 that are authenticated so (the latter also by EdDSA), of those we have */
    uint32_t curves; /* NIST curves in supported_groups: bits by enum key_type */
    bool has_groups;
};

/* Contents of the extensions; one that does not parse leaves what was there before. */
void client_hello_read_sni(struct client_hello *hello, struct bytes extension);     /* RFC 6066 section 3 */
void client_hello_read_schemes(struct client_hello *hello, struct bytes extension); /* signature_algorithms */
/* The suites, two octets each, as they stand in the hello. */
void client_hello_read_suites(struct client_hello *hello, struct bytes suites);
void client_hello_read_groups(struct client_hello *hello, struct bytes extension); /* supported_groups */

/* The bits of `schemes` for a list of their names between colons. */
uint32_t client_hello_schemes_named(const char *list);

/* Whether this client can check a signature of a key of this type, in TLS 1.3 or in TLS 1.2. */
bool client_hello_verifies(const struct client_hello *hello, enum key_type type, bool tls13);

/*
 * Of the chains for a name those that the client can verify, at most one with an EC key, since libssl has one
 * place for it; P-256 before P-384 before P-521. If it can verify none, the first: libssl then fails with the
 * right alert. Returns how many, at least one.
 */
size_t client_hello_choose(const struct client_hello *hello, bool tls13,
                           const struct certificate *const *found, size_t count,
                           const struct certificate *chosen[static CERTIFICATES_PER_NAME]);

/* Application protocols, `offered` as in the extension's list (RFC 7301): ours in the order of preference,
 * the first that was offered too. without: one that must not be chosen, or NULL. NULL: none in common. */
const char *client_hello_protocol(struct bytes offered, char *const *ours, size_t count, const char *without);

#endif
