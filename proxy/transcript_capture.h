/*
 * The messages ClientHello .. Certificate of one TLS 1.3 handshake, kept as the payload of operation 0x63
 * from the ClientHello until the signature is there, and their hash, which must be the one that libssl signs.
 *
 * It takes memory for what it holds and no more: a handshake that waits for its key costs what its messages
 * are long.
 */
#ifndef KEYLESS_PROXY_TRANSCRIPT_CAPTURE_H
#define KEYLESS_PROXY_TRANSCRIPT_CAPTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/result.h"
#include "proxy/certificate_file.h"

/* Octets of a ClientHello with its header. */
#define TRANSCRIPT_HELLO_MAX 16384
/* ... of all: two ClientHellos, the Certificate, and what is small between them. */
#define TRANSCRIPT_MAX (2 * TRANSCRIPT_HELLO_MAX + CERTIFICATE_MESSAGE_MAX + 4096)

/* All zero: nothing was kept yet. */
struct transcript_capture {
    uint8_t *payload;    /* 2 octets for the scheme, then the messages */
    size_t size;         /* of both */
    size_t first_hello;  /* octets of the first ClientHello */
    bool retried;        /* a second ClientHello came: between them is a HelloRetryRequest */
    bool complete;       /* up to Certificate */
    bool closed;         /* takes no more */
    bool hello_too_long; /* this is why */
    const char *failure; /* why nothing is kept, a fixed text; or NULL */
};

/* Takes the next handshake message, whole, with its header. What comes behind Certificate is passed over. */
void transcript_capture_add(struct transcript_capture *capture, struct bytes message);

/* The payload, borrowed until the capture is released. It must be complete. */
struct bytes transcript_capture_payload(const struct transcript_capture *capture, uint16_t scheme);

/* Whether the messages have this hash, of 32 or 48 octets: with the first ClientHello replaced by its own
 * after a HelloRetryRequest (RFC 8446 section 4.4.1). Leaves OpenSSL's error queue as it was. */
MUST_CHECK bool transcript_capture_matches(const struct transcript_capture *capture, struct bytes hash);

/* Gives the memory back, and takes no more messages. */
void transcript_capture_release(struct transcript_capture *capture);

#endif
