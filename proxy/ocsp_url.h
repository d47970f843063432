/* Where an OCSP responder is: an http URL. https would need what it is there to establish (RFC 5019). */
#ifndef KEYLESS_PROXY_OCSP_URL_H
#define KEYLESS_PROXY_OCSP_URL_H

#include <stdint.h>

#include "common/result.h"

#define OCSP_HOST_MAX   255
#define OCSP_TARGET_MAX 511

struct ocsp_url {
    char host[OCSP_HOST_MAX + 1]; /* a name or an address, IPv6 without brackets */
    uint16_t port;
    char target[OCSP_TARGET_MAX + 1]; /* path and query; begins with a slash */
};

/* RESULT_CONFIG: what does not parse, another scheme, no host, a name and password, too long. */
MUST_CHECK enum result ocsp_url_parse(const char *text, struct ocsp_url *url, struct failure *why);

#endif
