/* What builtin:hello answers: what the client's handshake did, as JSON or HTML, under an HTTP/1.1 head. */
#ifndef KEYLESS_PROXY_HELLO_ANSWER_H
#define KEYLESS_PROXY_HELLO_ANSWER_H

#include <stdbool.h>

#include <event2/buffer.h>

#include "common/address.h"
#include "common/http_request.h"
#include "proxy/handshake.h"

struct hello_facts {
    struct handshake_facts handshake; /* a copy, of what it points to too: the handshake is gone by now */
    struct address client;
    unsigned worker;
};

/* Appends the whole answer. close: it is the last one of its connection. false: no memory. */
bool hello_answer_write(struct evbuffer *to, const struct http_request *request,
                        const struct hello_facts *facts, bool close);

#endif
