/* The head of an HTTP/1.1 request (RFC 9112), as far as builtin:hello needs it. Pure: bytes in, a struct out.
 */
#ifndef KEYLESS_PROXY_HELLO_REQUEST_H
#define KEYLESS_PROXY_HELLO_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"

#define HELLO_HEAD_MAX 8192  /* octets, the empty line included; more is answered with 431 */
#define HELLO_BODY_MAX 65536 /* a longer body is answered with 413 */

struct hello_request {
    unsigned status; /* 200, or the error to answer it with */
    bool head_only;  /* HEAD: the answer has no body */
    bool html;       /* text/html is preferred to application/json */
    bool keep_alive; /* false after every error that leaves unclear where the next request starts */
    uint64_t body;   /* octets that follow and are to be dropped */
};

/* head is everything up to and including the empty line. */
struct hello_request hello_request_parse(struct bytes head);

#endif
