#include "proxy/transcript_capture.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

#include "common/tls_handshake.h"

#define SCHEME_SIZE 2

static void give_up(struct transcript_capture *capture, const char *failure)
{
    transcript_capture_release(capture);
    capture->failure = failure;
}

static bool append(struct transcript_capture *capture, struct bytes message)
{
    size_t before = capture->size > 0 ? capture->size : SCHEME_SIZE;
    uint8_t *payload = realloc(capture->payload, before + message.size);
    if (payload == NULL)
        return false;
    memcpy(payload + before, message.data, message.size);
    capture->payload = payload;
    capture->size = before + message.size;
    return true;
}

static void note(struct transcript_capture *capture, struct bytes message)
{
    uint8_t type = message.data[0];
    if (type == TLS_CLIENT_HELLO && capture->first_hello != 0)
        capture->retried = true;
    if (type == TLS_CLIENT_HELLO && capture->first_hello == 0)
        capture->first_hello = message.size;
    capture->complete = type == TLS_CERTIFICATE;
    capture->closed = capture->complete;
}

void transcript_capture_add(struct transcript_capture *capture, struct bytes message)
{
    if (capture->closed || message.size == 0)
        return;
    if (message.data[0] == TLS_CLIENT_HELLO && message.size > TRANSCRIPT_HELLO_MAX) {
        give_up(capture, "ClientHello too long");
        capture->hello_too_long = true;
    } else if (message.size > SCHEME_SIZE + TRANSCRIPT_MAX - capture->size) {
        give_up(capture, "handshake messages too long for the key server");
    } else if (!append(capture, message)) {
        give_up(capture, "no memory for the handshake's messages");
    } else {
        note(capture, message);
    }
}

struct bytes transcript_capture_payload(const struct transcript_capture *capture, uint16_t scheme)
{
    struct writer to = writer_of(capture->payload, SCHEME_SIZE);
    write_u16(&to, scheme);
    return bytes_of(capture->payload, capture->size);
}

/* ---- The hash. */

static void context_free(EVP_MD_CTX **context)
{
    EVP_MD_CTX_free(*context);
}

/* The message that stands for the first ClientHello. */
static bool hash_of_hello(EVP_MD_CTX *context, const EVP_MD *digest, struct bytes hello)
{
    uint8_t message[4 + EVP_MAX_MD_SIZE] = {TLS_MESSAGE_HASH, 0, 0, 0};
    unsigned size = 0;
    if (EVP_Digest(hello.data, hello.size, message + 4, &size, digest, NULL) != 1)
        return false;
    message[3] = (uint8_t)size;
    return EVP_DigestUpdate(context, message, 4 + (size_t)size) == 1;
}

static bool hash_make(const struct transcript_capture *capture, const EVP_MD *digest,
                      uint8_t hash[static EVP_MAX_MD_SIZE])
{
    EVP_MD_CTX *context CLEANUP(context_free) = EVP_MD_CTX_new();
    struct bytes rest = bytes_of(capture->payload + SCHEME_SIZE, capture->size - SCHEME_SIZE);
    struct bytes first = bytes_of(rest.data, capture->retried ? capture->first_hello : 0);
    if (context == NULL || EVP_DigestInit_ex2(context, digest, NULL) != 1)
        return false;
    if (capture->retried && !hash_of_hello(context, digest, first))
        return false;
    return EVP_DigestUpdate(context, rest.data + first.size, rest.size - first.size) == 1 &&
           EVP_DigestFinal_ex(context, hash, NULL) == 1;
}

bool transcript_capture_matches(const struct transcript_capture *capture, struct bytes hash)
{
    uint8_t own[EVP_MAX_MD_SIZE];
    if (!capture->complete || (hash.size != 32 && hash.size != 48))
        return false;
    (void)ERR_set_mark();
    bool made = hash_make(capture, hash.size == 48 ? EVP_sha384() : EVP_sha256(), own);
    (void)ERR_pop_to_mark();
    return made && memcmp(own, hash.data, hash.size) == 0;
}

void transcript_capture_release(struct transcript_capture *capture)
{
    free(capture->payload);
    *capture = (struct transcript_capture){.closed = true, .failure = capture->failure};
}
