/* The HTTP/1.1 request that a client of keyless-bench sends after its handshake, and its answer, read to the
 * end: a client that left at the first octet would race with the rest of it, and both proxies and backends do
 * something else then. */
#ifndef KEYLESS_BENCH_REQUEST_H
#define KEYLESS_BENCH_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include <openssl/ssl.h>

/* One connection's; zeroed for the next. */
struct request {
    bool sent;
    uint64_t answered; /* clock_now at the first octet of the answer; 0: none has come */
};

enum request_state {
    REQUEST_READS,
    REQUEST_WRITES,
    REQUEST_ANSWERED,   /* the answer is whole: the server has closed */
    REQUEST_UNANSWERED, /* it has closed, or something broke, before an octet of an answer */
};

/* "GET path ..." in a text of its own; NULL: no memory. Host is what the server is called. */
char *request_text(const char *path, const char *host);
/* Whether this can stand in a request: begins with a slash, and no space or control character in it. */
bool request_path_valid(const char *path);
/* Goes on as far as it can without waiting. */
enum request_state request_step(struct request *request, const char *text, SSL *ssl);

#endif
