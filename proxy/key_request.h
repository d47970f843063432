/* What a key server is asked: a request made of the content that libssl wants signed, kept until it is
 * answered so that it can be sent again on another channel. A transcript, up to 60 kB, is not copied: it
 * stays its operation's, and is put into the frame when that is written. */
#ifndef KEYLESS_PROXY_KEY_REQUEST_H
#define KEYLESS_PROXY_KEY_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/kssl.h"
#include "common/tls_message.h"
#include "proxy/key_client.h"

#define KEY_REQUEST_SNI_MAX     255
#define KEY_REQUEST_PAYLOAD_MAX (2 + TLS_SERVER_KEY_EXCHANGE_MAX)
/* Everything above together is less than what a frame is padded to. */
#define KEY_REQUEST_FRAME_MAX KSSL_PAD_TO
/* ... and a transcript as well. */
#define KEY_REQUEST_TRANSCRIPT_FRAME_MAX (KEY_REQUEST_FRAME_MAX + TRANSCRIPT_MAX)

struct key_request {
    uint8_t opcode; /* with KSSL_OP_SIGN_TRANSCRIPT there is no payload here */
    bool bare;      /* for a peer that may know no more than Part A: none of our own tags */
    uint8_t ski[KEY_ID_SKI_SIZE];
    uint16_t payload_size, sni_size, ip_size;
    bool has_sni;
    uint8_t payload[KEY_REQUEST_PAYLOAD_MAX];
    uint8_t sni[KEY_REQUEST_SNI_MAX];
    uint8_t ip[16];
};

/* Recognises the content: a TLS 1.3 CertificateVerify or a TLS 1.2 ServerKeyExchange. KEY_MODE_TBS takes it
 * apart, for operation 0x61 or 0x62; KEY_MODE_TRANSCRIPT asks for the first by 0x63, if the operation's
 * transcript has the hash in it; KEY_MODE_DIGEST hashes it (Ed25519: takes it whole) for the bare operation
 * of its scheme. Not KEY_OUTCOME_OK but REFUSED or MISMATCH: it cannot be asked for, and *reason is a fixed
 * string that says why. Nothing is borrowed from operation. */
MUST_CHECK enum key_outcome key_request_make(struct key_request *request, enum proxy_key_mode mode,
                                             const struct key_operation *operation, const char **reason);

/* The same request for another mode; only operation's SNI need not be there any more. Not KEY_OUTCOME_OK: the
 * request is none until it is made for a mode that can have it. */
MUST_CHECK enum key_outcome key_request_change(struct key_request *request, enum proxy_key_mode mode,
                                               const struct key_operation *operation, const char **reason);

/* Appends its frame; operation is the one that it was made for, whose request id goes into tag 0x15 unless
 * the request is a bare one. */
MUST_CHECK bool key_request_write(struct writer *to, uint32_t id, const struct key_request *request,
                                  const struct key_operation *operation);

#endif
