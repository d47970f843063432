/* The names that a leaf certificate is for: its dNSNames, and nothing else (RFC 9525: no CN). */
#ifndef KEYLESS_COMMON_CERTIFICATE_NAMES_H
#define KEYLESS_COMMON_CERTIFICATE_NAMES_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/x509.h>

#include "common/bytes.h"

#define DNS_NAME_MAX 253

/* Writes a DNS name in lower case, without a dot behind it, into `into` (DNS_NAME_MAX + 1 octets). False: it
 * is none (RFC 1123 letters, digits, hyphens, underscores in labels of 1 .. 63). wildcard: "*." may stand
 * before at least two labels. */
bool dns_name_normalise(struct bytes name, bool wildcard, char *into);

/* Calls found for each name, normalised, a wildcard as "*.example.com"; and ignored for each that is not used
 * (IP addresses, wildcards elsewhere than as the whole left-most label). found returns false to stop, which
 * is then the result. */
struct certificate_names_handler {
    bool (*found)(const char *name, void *owner);
    void (*ignored)(const char *what, struct bytes value, void *owner);
};
bool certificate_names(X509 *leaf, const struct certificate_names_handler *handler, void *owner);

#endif
