/* Where a request over plain HTTP is sent: to the same over HTTPS. Pure: a request in, a URL out. */
#ifndef KEYLESS_PROXY_REDIRECT_LOCATION_H
#define KEYLESS_PROXY_REDIRECT_LOCATION_H

#include <stdbool.h>

#include "common/http_request.h"

#define REDIRECT_HEAD_MAX      8192 /* octets of a request's head */
#define REDIRECT_LOCATION_SIZE (REDIRECT_HEAD_MAX + 64)

/*
 * "https://www.example.com/path?query", with ":port" unless that is 443. The host is the target's (absolute
 * form) or the Host field's, without its port: a DNS name, in lower case, or an address. false: there is
 * none, or one that is no host; or the target is none that a URL can be made of.
 */
MUST_CHECK bool redirect_location(const struct http_request *request, unsigned port,
                                  char location[static REDIRECT_LOCATION_SIZE]);

#endif
