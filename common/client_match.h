/* Which certificates of clients a line of a configuration means. */
#ifndef KEYLESS_COMMON_CLIENT_MATCH_H
#define KEYLESS_COMMON_CLIENT_MATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/x509.h>

#include "common/bytes.h"
#include "common/result.h"

struct match_form;

struct client_match {
    const struct match_form *form;
    struct bytes text;  /* a name; borrowed from what was parsed */
    uint8_t octets[32]; /* an IP address or a fingerprint */
    size_t octet_count;
    bool wildcard; /* text is what stands behind the first label */
};

#define CLIENT_MATCH_FORMS "DNS:name, IP:address, URI:uri, CN:name or sha256:fingerprint"

/*
 * "DNS:edge1.example", "IP:192.0.2.1" and "URI:spiffe://example/edge" want a subjectAltName that is exactly
 * that (DNS whatever its case); "CN:name" a common name of the subject; "sha256:" and 64 hex digits, colons
 * allowed between octets, the certificate itself. text is brought into lower case and loses its colons where
 * they do not matter. RESULT_CONFIG says what was expected; text is then worthless.
 */
MUST_CHECK enum result client_match_parse(char *text, struct client_match *match, struct failure *why);

/* The same, with "DNS:*.clients.example" besides: a dNSName with exactly one label before that, and no * in
 * it. */
MUST_CHECK enum result client_match_parse_pattern(char *text, struct client_match *match,
                                                  struct failure *why);

bool client_match_fits(const struct client_match *match, X509 *certificate);

#define CLIENT_DESCRIPTION_SIZE 512

/* What could be written into the configuration to mean this certificate: "sha256:..., DNS:edge1.example,
 * ..."; cut when it does not fit. Not escaped. */
void client_describe(X509 *certificate, char text[static CLIENT_DESCRIPTION_SIZE]);

#endif
