/*
 * A TLS 1.3 handshake that never was, up to its Certificate: what a key server is asked to sign for to find
 * out whether it would, for a chain that no client is shown yet. It is well formed, fresh each time, and of
 * no client's.
 */
#ifndef KEYLESS_PROXY_MADE_UP_HANDSHAKE_H
#define KEYLESS_PROXY_MADE_UP_HANDSHAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/tls_message.h"
#include "proxy/certificates.h"
#include "proxy/transcript_capture.h"

struct made_up_handshake {
    struct transcript_capture transcript;
    uint16_t scheme; /* one that fits the key */
    uint8_t content[TLS_CERTIFICATE_VERIFY_MAX];
    size_t content_size; /* what is to be signed */
    char name[256];      /* the SNI: one of the certificate's */
};

/* alpn: the protocol that is agreed on; NULL: none. False: no memory. */
MUST_CHECK bool made_up_handshake_make(struct made_up_handshake *made, const struct certificate *certificate,
                                       const char *alpn);
void made_up_handshake_clear(struct made_up_handshake *made);

#endif
