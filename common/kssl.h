/*
 * The wire codec of the key protocol: frames, items, opcodes, errors, and the payloads of our own operations.
 * Pure: bytes in, structs out; slices borrow from the input.
 */
#ifndef KEYLESS_COMMON_KSSL_H
#define KEYLESS_COMMON_KSSL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/result.h"
#include "common/tls_message.h"

enum {
    KSSL_MAJOR = 1,
    KSSL_HEADER_SIZE = 8,
    KSSL_BODY_MAX = 65535,
    KSSL_PAYLOAD_MAX = 65528, /* beside an opcode item */
    KSSL_FRAME_MAX = KSSL_HEADER_SIZE + KSSL_BODY_MAX,
    KSSL_PAD_TO = 1024,
    KSSL_RECORD_MAX = 16384, /* a frame up to this size lies within one TLS record */
    KSSL_REQUEST_ID_MAX = 32,
    KSSL_LIST_MAX = 60000,
    KSSL_TICKET_KEY_SIZE = 16 + 8 + 8 + 32 + 32,
    KSSL_TICKET_KEYS_MAX = 255,
};

enum kssl_tag {
    KSSL_TAG_DIGEST = 0x01,
    KSSL_TAG_SNI = 0x02,
    KSSL_TAG_CLIENT_IP = 0x03,
    KSSL_TAG_SKI = 0x04,
    KSSL_TAG_SERVER_IP = 0x05,
    KSSL_TAG_CERTIFICATE_ID = 0x06,
    KSSL_TAG_OPCODE = 0x11,
    KSSL_TAG_PAYLOAD = 0x12,
    KSSL_TAG_FUNCTION = 0x13,
    KSSL_TAG_EXTRA = 0x14,
    KSSL_TAG_TRACE = 0x15,
    KSSL_TAG_CONTEXT = 0x16,
    KSSL_TAG_REGION = 0x17,
    KSSL_TAG_PADDING = 0x20,
};

enum kssl_opcode {
    KSSL_OP_RSA_DECRYPT = 0x01,
    KSSL_OP_RSA_SIGN_MD5SHA1 = 0x02,
    KSSL_OP_RSA_SIGN_SHA1 = 0x03,
    KSSL_OP_RSA_SIGN_SHA224 = 0x04,
    KSSL_OP_RSA_SIGN_SHA256 = 0x05,
    KSSL_OP_RSA_SIGN_SHA384 = 0x06,
    KSSL_OP_RSA_SIGN_SHA512 = 0x07,
    KSSL_OP_RSA_DECRYPT_RAW = 0x08,
    KSSL_OP_ECDSA_MD5SHA1 = 0x12,
    KSSL_OP_ECDSA_SHA1 = 0x13,
    KSSL_OP_ECDSA_SHA224 = 0x14,
    KSSL_OP_ECDSA_SHA256 = 0x15,
    KSSL_OP_ECDSA_SHA384 = 0x16,
    KSSL_OP_ECDSA_SHA512 = 0x17,
    KSSL_OP_ED25519 = 0x18,
    KSSL_OP_SEAL = 0x21,
    KSSL_OP_UNSEAL = 0x22,
    KSSL_OP_CUSTOM = 0x24,
    KSSL_OP_RSA_PSS_SHA256 = 0x35,
    KSSL_OP_RSA_PSS_SHA384 = 0x36,
    KSSL_OP_RSA_PSS_SHA512 = 0x37,
    KSSL_OP_HELLO = 0x60,
    KSSL_OP_SIGN_TLS13 = 0x61,
    KSSL_OP_SIGN_TLS12 = 0x62,
    KSSL_OP_SIGN_TRANSCRIPT = 0x63,
    KSSL_OP_DELEGATED_CREDENTIAL = 0x65,
    KSSL_OP_TICKET_KEYS = 0x66,
    KSSL_OP_LIST = 0x67,
    KSSL_OP_SUCCESS = 0xF0,
    KSSL_OP_PING = 0xF1,
    KSSL_OP_PONG = 0xF2,
    KSSL_OP_ERROR = 0xFF,
};

enum kssl_error {
    KSSL_ERROR_NONE = 0x00,
    KSSL_ERROR_CRYPTO = 0x01,
    KSSL_ERROR_KEY_NOT_FOUND = 0x02,
    KSSL_ERROR_READ = 0x03,
    KSSL_ERROR_VERSION = 0x04,
    KSSL_ERROR_BAD_OPCODE = 0x05,
    KSSL_ERROR_UNEXPECTED_OPCODE = 0x06,
    KSSL_ERROR_FORMAT = 0x07,
    KSSL_ERROR_INTERNAL = 0x08,
    KSSL_ERROR_EXPIRED = 0x0A,
    KSSL_ERROR_REMOTE_CONFIG = 0x0B,
    KSSL_ERROR_POLICY = 0x40,
    KSSL_ERROR_CONTENT = 0x41,
    KSSL_ERROR_RATE = 0x42,
    KSSL_ERROR_REPLAY = 0x43,
    KSSL_ERROR_OVERLOADED = 0x44,
};

const char *kssl_opcode_name(uint8_t opcode); /* "sign-tls13", "ecdsa-sha256", ..., or "unknown" */
const char *kssl_error_name(uint8_t error);   /* "key not found", ..., or "unknown error" */

/* ---- Frames. */

struct kssl_header {
    uint8_t major;
    uint8_t minor; /* sent as 0, ignored when received */
    uint16_t length;
    uint32_t id;
};

void kssl_header_parse(const uint8_t octets[static KSSL_HEADER_SIZE], struct kssl_header *header);

/* A message's items. A slice whose data is NULL is absent; an item that is present and empty has data and
 * size 0. */
struct kssl_message {
    bool has_opcode;
    uint8_t opcode;
    struct bytes payload;
    struct bytes sni;
    struct bytes client_ip;
    struct bytes server_ip;
    struct bytes ski; /* absent also when it came as all zero */
    struct bytes digest;
    struct bytes certificate_id;
    struct bytes function;
    struct bytes extra; /* 0x14 */
    struct bytes trace; /* 0x15: between our own peers, the request id */
};

/* RESULT_PROTOCOL: items do not parse, a fixed length is wrong, or a known tag stands twice. Unknown tags,
 * 0x16, 0x17 and padding are skipped. A missing opcode is no error here: has_opcode tells. */
MUST_CHECK enum result kssl_body_parse(struct bytes body, struct kssl_message *message, struct failure *why);

/* Appends one whole frame: header, the items that are present, padding by A.4's rule. False: it does not fit
 * 65,535 octets of body or the writer, or an item has not the size its tag demands; nothing was written. */
MUST_CHECK bool kssl_message_write(struct writer *to, uint32_t id, const struct kssl_message *message);
/* A response that succeeded, or the one-octet error. */
MUST_CHECK bool kssl_success_write(struct writer *to, uint32_t id, struct bytes payload, struct bytes extra);
MUST_CHECK bool kssl_error_write(struct writer *to, uint32_t id, uint8_t error);
/* Octets that a frame with these many octets of items takes, padding included. */
size_t kssl_frame_size(size_t items_size);

/* ---- Bare operations of Part A. */

struct kssl_bare_operation {
    uint8_t opcode;
    bool rsa; /* else ECDSA, or Ed25519 */
    enum tls_padding padding;
    const char *hash;  /* OpenSSL's name ("MD5-SHA1" for the 36 octets); NULL: Ed25519, the whole message */
    size_t input_size; /* the digest's octets; 0: any */
};

/* The signing operation with this opcode, or NULL (decryption, seal and everything else). */
const struct kssl_bare_operation *kssl_bare_find(uint8_t opcode);

/* ---- Payloads of Part B. Parsers demand exactly the form, nothing behind it; false is a format error
 * (0x07). */

struct kssl_sign_tls13 {
    uint16_t scheme;
    struct bytes hash; /* 32 or 48 octets */
};
MUST_CHECK bool kssl_sign_tls13_parse(struct bytes payload, struct kssl_sign_tls13 *request);
void kssl_sign_tls13_write(struct writer *to, const struct kssl_sign_tls13 *request);

struct kssl_sign_tls12 {
    uint16_t scheme;
    struct tls_server_key_exchange parts;
};
/* Syntax only: the sizes that params may have. What the params say is content (0x41): parts_valid tells
 * whether tls_ecdh_params_parse took them; where it did not, parts.params is set and parts.point is absent.
 */
MUST_CHECK bool kssl_sign_tls12_parse(struct bytes payload, struct kssl_sign_tls12 *request,
                                      bool *parts_valid);
void kssl_sign_tls12_write(struct writer *to, const struct kssl_sign_tls12 *request);

struct kssl_hello {
    uint8_t version;
    struct bytes opcodes; /* one octet each */
    uint64_t time;        /* Unix seconds */
};
/* Version 1 only. What may follow is ignored. */
MUST_CHECK bool kssl_hello_parse(struct bytes payload, struct kssl_hello *hello);
void kssl_hello_write(struct writer *to, const struct kssl_hello *hello);
bool kssl_hello_offers(const struct kssl_hello *hello, uint8_t opcode);

struct kssl_list_entry {
    const uint8_t *ski; /* KEY_ID_SKI_SIZE octets */
    enum key_type type; /* KEY_TYPE_NONE: one that only a newer peer knows */
    struct bytes name;  /* at most 255 octets */
};
MUST_CHECK bool kssl_list_entry_read(struct reader *from, struct kssl_list_entry *entry);
void kssl_list_entry_write(struct writer *to, const struct kssl_list_entry *entry);

/* One of an answer with ticket keys, behind the octet with their number. */
struct kssl_ticket_key {
    struct bytes name;              /* 16 octets */
    uint64_t not_before;            /* Unix seconds: the first in which it may encrypt */
    uint64_t not_after;             /* the last in which it may decrypt */
    struct bytes aes_key, hmac_key; /* 32 octets each */
};
MUST_CHECK bool kssl_ticket_key_read(struct reader *from, struct kssl_ticket_key *key);
void kssl_ticket_key_write(struct writer *to, const struct kssl_ticket_key *key);

/* The 0x14 item of a response between our own peers. */
struct kssl_timing {
    uint32_t queue; /* microseconds */
    uint32_t sign;
};
MUST_CHECK bool kssl_timing_parse(struct bytes extra, struct kssl_timing *timing);
void kssl_timing_write(struct writer *to, const struct kssl_timing *timing);

#endif
