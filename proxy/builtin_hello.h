/*
 * builtin:hello, the demonstration's backend: a small HTTP/1.1 server inside the worker that tells each
 * client what its own handshake did, as JSON, or as HTML to those who ask for text/html. The relay reaches it
 * through a connected socket, as it would any backend.
 */
#ifndef KEYLESS_PROXY_BUILTIN_HELLO_H
#define KEYLESS_PROXY_BUILTIN_HELLO_H

#include <event2/event.h>

#include "common/address.h"
#include "common/result.h"
#include "proxy/handshake.h"

struct builtin_hello;

/* worker is told to clients. NULL: no memory. */
struct builtin_hello *builtin_hello_new(struct event_base *base, unsigned worker);
void builtin_hello_free(struct builtin_hello *hello);

/* A new connection to it: *fd is connected, non-blocking and the caller's. facts are copied. */
MUST_CHECK enum result builtin_hello_connect(struct builtin_hello *hello, const struct handshake_facts *facts,
                                             const struct address *client, int *fd, struct failure *why);

/* Ends the connections that wait for another request, and from now on each after its answer. */
void builtin_hello_drain(struct builtin_hello *hello);

#endif
