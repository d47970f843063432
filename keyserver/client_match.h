/* A client entry's `match`: which certificates it means. */
#ifndef KEYLESS_KEYSERVER_CLIENT_MATCH_H
#define KEYLESS_KEYSERVER_CLIENT_MATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/x509.h>

#include "common/bytes.h"
#include "common/result.h"
#include "keyserver/config.h"

struct match_form;

struct client_match {
    const struct match_form *form;
    struct bytes text;  /* a name; borrowed from the configuration */
    uint8_t octets[32]; /* an IP address or a fingerprint */
    size_t octet_count;
};

/*
 * "DNS:edge1.example", "IP:192.0.2.1" and "URI:spiffe://example/edge" want a subjectAltName that is exactly
 * that (DNS whatever its case; a wildcard is no more than its text); "CN:name" a common name of the subject;
 * "sha256:" and 64 hex digits, colons allowed between octets, the certificate itself. RESULT_CONFIG names the
 * line and what was expected.
 */
MUST_CHECK enum result client_match_parse(const struct keyserver_client *client, struct client_match *match,
                                          struct failure *why);

bool client_match_fits(const struct client_match *match, X509 *certificate);

#define CLIENT_DESCRIPTION_SIZE 512

/* What could be written into the configuration to mean this certificate: "sha256:..., DNS:edge1.example,
 * ..."; cut when it does not fit. Not escaped. */
void client_describe(X509 *certificate, char text[static CLIENT_DESCRIPTION_SIZE]);

#endif
