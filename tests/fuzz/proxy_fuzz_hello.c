/* builtin:hello: the request's head, and the answer to it with the request's own bytes as the client's name.
 */
#include <assert.h>
#include <ctype.h>
#include <string.h>

#include <event2/buffer.h>

#include "common/http_request.h"
#include "proxy/hello_answer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The answer is printable ASCII whatever the name was, and as long as it says. */
static void check_answer(const struct http_request *request, const uint8_t *name, size_t size)
{
    struct hello_facts facts = {.handshake = {.version = "TLSv1.3"}};
    facts.handshake.sni_size = size < HANDSHAKE_NAME_MAX ? size : HANDSHAKE_NAME_MAX;
    memcpy(facts.handshake.sni, name, facts.handshake.sni_size);
    struct evbuffer *answer = evbuffer_new();
    assert(answer != NULL && hello_answer_write(answer, request, &facts, !request->keep_alive));
    size_t length = evbuffer_get_length(answer);
    const uint8_t *text = evbuffer_pullup(answer, -1);
    for (size_t i = 0; i < length; i++)
        assert(isprint(text[i]) || text[i] == '\r' || text[i] == '\n');
    const uint8_t *body = memmem(text, length, "\r\n\r\n", 4);
    assert(body != NULL);
    assert(!request->head_only || body + 4 == text + length);
    evbuffer_free(answer);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct http_request request = http_request_parse(bytes_of(data, size));
    assert(request.status == 200 || request.status >= 400);
    assert(request.body <= HTTP_BODY_MAX);
    assert(request.target.size == 0 ||
           (request.target.data >= data && request.target.data + request.target.size <= data + size));
    assert(request.status == 200 || request.status == 405 || (!request.keep_alive && request.body == 0));
    if (size > 0)
        check_answer(&request, data, size);
    return 0;
}
