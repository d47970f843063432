/* The head of an HTTP/1.1 request (RFC 9112), as far as the admin endpoint and builtin:hello need it: for
 * those who answer GET and HEAD and take nothing in. Pure: bytes in, a struct out. */
#ifndef KEYLESS_COMMON_HTTP_REQUEST_H
#define KEYLESS_COMMON_HTTP_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"

#define HTTP_BODY_MAX 65536 /* octets; a longer body is answered with 413 */

struct http_request {
    unsigned status;     /* 200, or the error to answer it with */
    struct bytes target; /* as it was sent; borrowed from the head; size 0: there is none to be relied on */
    struct bytes host;   /* the Host field's value, unchecked; borrowed; size 0: none */
    bool head_only;      /* HEAD: the answer has no body */
    bool html;           /* text/html is preferred to application/json */
    bool keep_alive;     /* false after every error that leaves unclear where the next request starts */
    uint64_t body;       /* octets that follow and are to be dropped */
};

/* head is everything up to and including the empty line. */
struct http_request http_request_parse(struct bytes head);

#endif
