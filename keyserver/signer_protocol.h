/*
 * What front ends and the signer say to each other over a link: a codec, pure. A message is
 *     type(1) length(3) body
 * and each type has its one form; the parsers demand exactly that, nothing behind it, and unused octets of
 * fixed-size fields zero.
 */
#ifndef KEYLESS_KEYSERVER_SIGNER_PROTOCOL_H
#define KEYLESS_KEYSERVER_SIGNER_PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "keyserver/key_table.h"
#include "keyserver/sign_request.h"
#include "keyserver/ticket_keys.h"

enum signer_message_type {
    /* A front end asks. Fixed size, but for what is claimed for the audit, the SNI of the first two, and what
     * MESSAGE and CIPHERTEXT borrow.
     */
    SIGNER_ASK_TLS13 = 0x01,
    SIGNER_ASK_TLS12 = 0x02,
    SIGNER_ASK_DIGEST = 0x03,
    SIGNER_ASK_MESSAGE = 0x04,
    SIGNER_ASK_CIPHERTEXT = 0x05,
    SIGNER_ASK_TICKET_KEYS = 0x06,
    /* Nobody waits for the answer any more: what is not signed yet need not be. No answer, nor must there be
       one. */
    SIGNER_CANCEL = 0x0F,
    /* The signer tells: first all keys, by ascending SKI, then their number; afterwards replies. */
    SIGNER_TELL_KEY = 0x11,
    SIGNER_TELL_KEYS_END = 0x12,
    SIGNER_TELL_REPLY = 0x13,
};

enum {
    SIGNER_HEADER_SIZE = 4,
    SIGNER_BODY_MAX = 128 + SIGN_MESSAGE_MAX,
    SIGNER_SIGNATURE_MAX = KEY_RSA_MAX_BITS / 8,
    SIGNER_ANSWER_MAX = TICKET_KEYS_ANSWER_MAX, /* of any kind */
};

struct signer_reply {
    uint64_t handle;
    uint8_t error;        /* enum kssl_error; KSSL_ERROR_NONE: here it is */
    uint32_t queue, sign; /* microseconds waited and worked */
    struct bytes answer;  /* borrowed: a signature, what was decrypted, or ticket keys */
};

/* Each appends one whole message; running out of room is the writer's to tell. */
void signer_ask_write(struct writer *to, const struct sign_request *request);
void signer_cancel_write(struct writer *to, uint64_t handle);
void signer_key_write(struct writer *to, const struct key_info *key);
void signer_keys_end_write(struct writer *to, uint32_t count);
void signer_reply_write(struct writer *to, const struct signer_reply *reply);

/* Of one message's body. request->message borrows from it. False: malformed, or a type that is not asked. */
MUST_CHECK bool signer_ask_parse(uint8_t type, struct bytes body, struct sign_request *request);
MUST_CHECK bool signer_cancel_parse(struct bytes body, uint64_t *handle);
MUST_CHECK bool signer_key_parse(struct bytes body, struct key_id *id, struct bytes *label);
MUST_CHECK bool signer_keys_end_parse(struct bytes body, uint32_t *count);
MUST_CHECK bool signer_reply_parse(struct bytes body, struct signer_reply *reply);

#endif
