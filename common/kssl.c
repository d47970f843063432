#include "common/kssl.h"

#include <stddef.h>
#include <string.h>

/* ---- Names. */

static const char *const OPCODE_NAMES[256] = {
    [KSSL_OP_RSA_DECRYPT] = "rsa-decrypt",
    [KSSL_OP_RSA_SIGN_MD5SHA1] = "rsa-md5sha1",
    [KSSL_OP_RSA_SIGN_SHA1] = "rsa-sha1",
    [KSSL_OP_RSA_SIGN_SHA224] = "rsa-sha224",
    [KSSL_OP_RSA_SIGN_SHA256] = "rsa-sha256",
    [KSSL_OP_RSA_SIGN_SHA384] = "rsa-sha384",
    [KSSL_OP_RSA_SIGN_SHA512] = "rsa-sha512",
    [KSSL_OP_RSA_DECRYPT_RAW] = "rsa-decrypt-raw",
    [KSSL_OP_ECDSA_MD5SHA1] = "ecdsa-md5sha1",
    [KSSL_OP_ECDSA_SHA1] = "ecdsa-sha1",
    [KSSL_OP_ECDSA_SHA224] = "ecdsa-sha224",
    [KSSL_OP_ECDSA_SHA256] = "ecdsa-sha256",
    [KSSL_OP_ECDSA_SHA384] = "ecdsa-sha384",
    [KSSL_OP_ECDSA_SHA512] = "ecdsa-sha512",
    [KSSL_OP_ED25519] = "ed25519",
    [KSSL_OP_SEAL] = "seal",
    [KSSL_OP_UNSEAL] = "unseal",
    [KSSL_OP_CUSTOM] = "custom",
    [KSSL_OP_RSA_PSS_SHA256] = "rsa-pss-sha256",
    [KSSL_OP_RSA_PSS_SHA384] = "rsa-pss-sha384",
    [KSSL_OP_RSA_PSS_SHA512] = "rsa-pss-sha512",
    [KSSL_OP_HELLO] = "hello",
    [KSSL_OP_SIGN_TLS13] = "sign-tls13",
    [KSSL_OP_SIGN_TLS12] = "sign-tls12",
    [KSSL_OP_SIGN_TRANSCRIPT] = "sign-transcript",
    [KSSL_OP_DELEGATED_CREDENTIAL] = "delegated-credential",
    [KSSL_OP_TICKET_KEYS] = "ticket-keys",
    [KSSL_OP_LIST] = "list",
    [KSSL_OP_SUCCESS] = "success",
    [KSSL_OP_PING] = "ping",
    [KSSL_OP_PONG] = "pong",
    [KSSL_OP_ERROR] = "error",
};

const char *kssl_opcode_name(uint8_t opcode)
{
    return OPCODE_NAMES[opcode] != NULL ? OPCODE_NAMES[opcode] : "unknown";
}

static const char *const ERROR_NAMES[256] = {
    [KSSL_ERROR_NONE] = "no error",
    [KSSL_ERROR_CRYPTO] = "cryptography failed",
    [KSSL_ERROR_KEY_NOT_FOUND] = "key not found",
    [KSSL_ERROR_READ] = "read failed",
    [KSSL_ERROR_VERSION] = "version mismatch",
    [KSSL_ERROR_BAD_OPCODE] = "bad opcode",
    [KSSL_ERROR_UNEXPECTED_OPCODE] = "unexpected opcode",
    [KSSL_ERROR_FORMAT] = "format error",
    [KSSL_ERROR_INTERNAL] = "internal error",
    [KSSL_ERROR_EXPIRED] = "sealing key expired",
    [KSSL_ERROR_REMOTE_CONFIG] = "remote configuration error",
    [KSSL_ERROR_POLICY] = "refused by policy",
    [KSSL_ERROR_CONTENT] = "content not acceptable",
    [KSSL_ERROR_RATE] = "over its rate",
    [KSSL_ERROR_REPLAY] = "replay",
    [KSSL_ERROR_OVERLOADED] = "overloaded",
};

const char *kssl_error_name(uint8_t error)
{
    return ERROR_NAMES[error] != NULL ? ERROR_NAMES[error] : "unknown error";
}

/* ---- Frames. */

void kssl_header_parse(const uint8_t octets[static KSSL_HEADER_SIZE], struct kssl_header *header)
{
    header->major = octets[0];
    header->minor = octets[1];
    header->length = (uint16_t)(octets[2] << 8 | octets[3]);
    header->id = (uint32_t)octets[4] << 24 | (uint32_t)octets[5] << 16 | (uint32_t)octets[6] << 8 | octets[7];
}

#define ITEM_HEADER_SIZE 3

/* The tags that fill a slice of struct kssl_message, and the sizes that each may have. */
struct item_rule {
    size_t slice;     /* where in the struct; 0: no such tag (has_opcode stands there) */
    uint8_t sizes[2]; /* one or the other; 0: any */
};

#define ITEM_SLICE(field) offsetof(struct kssl_message, field)
#define ITEM_TAGS         (KSSL_TAG_TRACE + 1)

static const struct item_rule ITEM_RULES[ITEM_TAGS] = {
    [KSSL_TAG_DIGEST] = {ITEM_SLICE(digest), {KEY_ID_DIGEST_SIZE, KEY_ID_DIGEST_SIZE}},
    [KSSL_TAG_SNI] = {ITEM_SLICE(sni), {0}},
    [KSSL_TAG_CLIENT_IP] = {ITEM_SLICE(client_ip), {4, 16}},
    [KSSL_TAG_SKI] = {ITEM_SLICE(ski), {KEY_ID_SKI_SIZE, KEY_ID_SKI_SIZE}},
    [KSSL_TAG_SERVER_IP] = {ITEM_SLICE(server_ip), {4, 16}},
    [KSSL_TAG_CERTIFICATE_ID] = {ITEM_SLICE(certificate_id), {0}},
    [KSSL_TAG_PAYLOAD] = {ITEM_SLICE(payload), {0}},
    [KSSL_TAG_FUNCTION] = {ITEM_SLICE(function), {0}},
    [KSSL_TAG_EXTRA] = {ITEM_SLICE(extra), {0}},
    [KSSL_TAG_TRACE] = {ITEM_SLICE(trace), {0}},
};

static bool item_size_fits(const struct item_rule *rule, size_t size)
{
    return rule->sizes[0] == 0 || size == rule->sizes[0] || size == rule->sizes[1];
}

/* The slice's octets; the opcode's single one goes another way, since it is kept by value. */
static bool item_keep(struct kssl_message *message, uint8_t tag, struct bytes data)
{
    if (tag == KSSL_TAG_OPCODE) {
        if (data.size != 1)
            return false;
        message->has_opcode = true;
        message->opcode = data.data[0];
        return true;
    }
    const struct item_rule *rule = &ITEM_RULES[tag];
    if (!item_size_fits(rule, data.size))
        return false;
    *(struct bytes *)((char *)message + rule->slice) = data;
    return true;
}

static bool tag_is_known(uint8_t tag)
{
    return tag == KSSL_TAG_OPCODE || (tag < ITEM_TAGS && ITEM_RULES[tag].slice != 0);
}

static enum result items_parse(struct reader from, struct kssl_message *message, struct failure *why)
{
    uint32_t seen = 0; /* one bit a tag: every known one is below 32 */
    while (!reader_empty(&from)) {
        uint8_t tag;
        struct bytes data;
        if (!read_u8(&from, &tag) || !read_vector16(&from, &data))
            return failure_set(why, RESULT_PROTOCOL, "an item is cut short by the end of the frame");
        if (!tag_is_known(tag))
            continue;
        if ((seen >> tag & 1) != 0)
            return failure_set(why, RESULT_PROTOCOL, "item 0x%02x is given twice", tag);
        seen |= UINT32_C(1) << tag;
        if (!item_keep(message, tag, data))
            return failure_set(why, RESULT_PROTOCOL, "item 0x%02x cannot have %zu octets", tag, data.size);
    }
    return RESULT_OK;
}

static bool octets_are_zero(struct bytes slice)
{
    uint8_t all = 0;
    for (size_t i = 0; i < slice.size; i++)
        all |= slice.data[i];
    return all == 0;
}

enum result kssl_body_parse(struct bytes body, struct kssl_message *message, struct failure *why)
{
    *message = (struct kssl_message){0};
    enum result result = items_parse(reader_of(body), message, why);
    if (result == RESULT_OK && octets_are_zero(message->ski))
        message->ski = bytes_of(NULL, 0);
    return result;
}

static const struct bytes *item_slice(const struct kssl_message *message, size_t tag)
{
    static const struct bytes ABSENT;
    size_t slice = ITEM_RULES[tag].slice;
    return slice != 0 ? (const struct bytes *)((const char *)message + slice) : &ABSENT;
}

/* The octets of all items, or more than KSSL_BODY_MAX if one of them could not be sent. */
static size_t items_size(const struct kssl_message *message)
{
    size_t total = message->has_opcode ? ITEM_HEADER_SIZE + 1 : 0;
    for (size_t tag = 0; tag < ITEM_TAGS; tag++) {
        const struct bytes *slice = item_slice(message, tag);
        if (slice->data == NULL)
            continue;
        if (slice->size > KSSL_BODY_MAX || !item_size_fits(&ITEM_RULES[tag], slice->size))
            return SIZE_MAX;
        total += ITEM_HEADER_SIZE + slice->size;
    }
    return total;
}

/* What the padding item takes, its header included. */
static size_t padding_size(size_t items)
{
    size_t frame = KSSL_HEADER_SIZE + items;
    if (frame >= KSSL_PAD_TO)
        return 0;
    return frame + ITEM_HEADER_SIZE < KSSL_PAD_TO ? KSSL_PAD_TO - frame : ITEM_HEADER_SIZE;
}

size_t kssl_frame_size(size_t items)
{
    return KSSL_HEADER_SIZE + items + padding_size(items);
}

static void item_write(struct writer *to, uint8_t tag, struct bytes data)
{
    write_u8(to, tag);
    write_u16(to, (uint16_t)data.size);
    write_bytes(to, data);
}

static void items_write(struct writer *to, const struct kssl_message *message)
{
    if (message->has_opcode)
        item_write(to, KSSL_TAG_OPCODE, bytes_of(&message->opcode, 1));
    for (size_t tag = 0; tag < ITEM_TAGS; tag++) {
        const struct bytes *slice = item_slice(message, tag);
        if (slice->data != NULL)
            item_write(to, (uint8_t)tag, *slice);
    }
}

static void padding_write(struct writer *to, size_t size)
{
    if (size == 0)
        return;
    write_u8(to, KSSL_TAG_PADDING);
    write_u16(to, (uint16_t)(size - ITEM_HEADER_SIZE));
    write_fill(to, 0, size - ITEM_HEADER_SIZE);
}

bool kssl_message_write(struct writer *to, uint32_t id, const struct kssl_message *message)
{
    size_t items = items_size(message);
    if (items > KSSL_BODY_MAX || kssl_frame_size(items) > to->capacity - to->size)
        return false;
    write_u8(to, KSSL_MAJOR);
    write_u8(to, 0);
    write_u16(to, (uint16_t)(items + padding_size(items)));
    write_u32(to, id);
    items_write(to, message);
    padding_write(to, padding_size(items));
    return writer_ok(to);
}

/* Every answer has a payload item, even an empty one: some clients take its absence for an error. */
static struct bytes present(struct bytes payload)
{
    return payload.data != NULL ? payload : bytes_of("", 0);
}

bool kssl_success_write(struct writer *to, uint32_t id, struct bytes payload, struct bytes extra)
{
    const struct kssl_message message = {
        .has_opcode = true, .opcode = KSSL_OP_SUCCESS, .payload = present(payload), .extra = extra};
    return kssl_message_write(to, id, &message);
}

bool kssl_error_write(struct writer *to, uint32_t id, uint8_t error)
{
    const struct kssl_message message = {
        .has_opcode = true, .opcode = KSSL_OP_ERROR, .payload = bytes_of(&error, 1)};
    return kssl_message_write(to, id, &message);
}

/* ---- Bare operations of Part A. */

#define BARE(code, is_rsa, pad, name, size)                                                                  \
    [code] = {.opcode = (code), .rsa = (is_rsa), .padding = (pad), .hash = (name), .input_size = (size)}

static const struct kssl_bare_operation BARE_OPERATIONS[] = {
    BARE(KSSL_OP_RSA_SIGN_MD5SHA1, true, TLS_PADDING_PKCS1, "MD5-SHA1", 36),
    BARE(KSSL_OP_RSA_SIGN_SHA1, true, TLS_PADDING_PKCS1, "SHA1", 20),
    BARE(KSSL_OP_RSA_SIGN_SHA224, true, TLS_PADDING_PKCS1, "SHA224", 28),
    BARE(KSSL_OP_RSA_SIGN_SHA256, true, TLS_PADDING_PKCS1, "SHA256", 32),
    BARE(KSSL_OP_RSA_SIGN_SHA384, true, TLS_PADDING_PKCS1, "SHA384", 48),
    BARE(KSSL_OP_RSA_SIGN_SHA512, true, TLS_PADDING_PKCS1, "SHA512", 64),
    BARE(KSSL_OP_ECDSA_MD5SHA1, false, TLS_PADDING_NONE, "MD5-SHA1", 36),
    BARE(KSSL_OP_ECDSA_SHA1, false, TLS_PADDING_NONE, "SHA1", 20),
    BARE(KSSL_OP_ECDSA_SHA224, false, TLS_PADDING_NONE, "SHA224", 28),
    BARE(KSSL_OP_ECDSA_SHA256, false, TLS_PADDING_NONE, "SHA256", 32),
    BARE(KSSL_OP_ECDSA_SHA384, false, TLS_PADDING_NONE, "SHA384", 48),
    BARE(KSSL_OP_ECDSA_SHA512, false, TLS_PADDING_NONE, "SHA512", 64),
    BARE(KSSL_OP_ED25519, false, TLS_PADDING_NONE, NULL, 0),
    BARE(KSSL_OP_RSA_PSS_SHA256, true, TLS_PADDING_PSS, "SHA256", 32),
    BARE(KSSL_OP_RSA_PSS_SHA384, true, TLS_PADDING_PSS, "SHA384", 48),
    BARE(KSSL_OP_RSA_PSS_SHA512, true, TLS_PADDING_PSS, "SHA512", 64),
};

const struct kssl_bare_operation *kssl_bare_find(uint8_t opcode)
{
    if (opcode >= sizeof BARE_OPERATIONS / sizeof *BARE_OPERATIONS)
        return NULL;
    return BARE_OPERATIONS[opcode].opcode != 0 ? &BARE_OPERATIONS[opcode] : NULL;
}

/* ---- Payloads of Part B. */

bool kssl_sign_tls13_parse(struct bytes payload, struct kssl_sign_tls13 *request)
{
    struct reader from = reader_of(payload);
    if (!read_u16(&from, &request->scheme) || (from.left != 32 && from.left != 48))
        return false;
    return read_bytes(&from, from.left, &request->hash);
}

void kssl_sign_tls13_write(struct writer *to, const struct kssl_sign_tls13 *request)
{
    write_u16(to, request->scheme);
    write_bytes(to, request->hash);
}

/* The sizes of ECDH parameters for X25519, X448, P-256, P-384 and P-521. */
static bool params_size_fits(size_t size)
{
    static const size_t SIZES[] = {36, 60, 69, 101, TLS_ECDH_PARAMS_MAX};
    for (size_t i = 0; i < sizeof SIZES / sizeof *SIZES; i++)
        if (SIZES[i] == size)
            return true;
    return false;
}

bool kssl_sign_tls12_parse(struct bytes payload, struct kssl_sign_tls12 *request, bool *parts_valid)
{
    struct reader from = reader_of(payload);
    struct tls_server_key_exchange *parts = &request->parts;
    if (!read_u16(&from, &request->scheme) || !read_copy(&from, parts->client_random, TLS_RANDOM_SIZE) ||
        !read_copy(&from, parts->server_random, TLS_RANDOM_SIZE))
        return false;
    if (!params_size_fits(from.left) || !read_bytes(&from, from.left, &parts->params))
        return false;
    parts->group = 0;
    parts->point = bytes_of(NULL, 0);
    *parts_valid = tls_ecdh_params_parse(parts->params, &parts->group, &parts->point);
    return true;
}

void kssl_sign_tls12_write(struct writer *to, const struct kssl_sign_tls12 *request)
{
    write_u16(to, request->scheme);
    write_bytes(to, bytes_of(request->parts.client_random, TLS_RANDOM_SIZE));
    write_bytes(to, bytes_of(request->parts.server_random, TLS_RANDOM_SIZE));
    write_bytes(to, request->parts.params);
}

#define HELLO_VERSION 1

bool kssl_hello_parse(struct bytes payload, struct kssl_hello *hello)
{
    struct reader from = reader_of(payload);
    return read_u8(&from, &hello->version) && hello->version == HELLO_VERSION &&
           read_vector8(&from, &hello->opcodes) && read_u64(&from, &hello->time);
}

void kssl_hello_write(struct writer *to, const struct kssl_hello *hello)
{
    write_u8(to, hello->version);
    write_vector8(to, hello->opcodes);
    write_u64(to, hello->time);
}

bool kssl_hello_offers(const struct kssl_hello *hello, uint8_t opcode)
{
    return hello->opcodes.size > 0 && memchr(hello->opcodes.data, opcode, hello->opcodes.size) != NULL;
}

/* A newer key server may know more types than we do; one such key must not make its whole list unreadable. */
static enum key_type list_type(uint8_t octet)
{
    return octet <= KEY_TYPE_ED448 ? (enum key_type)octet : KEY_TYPE_NONE;
}

bool kssl_list_entry_read(struct reader *from, struct kssl_list_entry *entry)
{
    struct reader ahead = *from;
    struct bytes ski;
    uint8_t type;
    if (!read_bytes(&ahead, KEY_ID_SKI_SIZE, &ski) || !read_u8(&ahead, &type) ||
        !read_vector8(&ahead, &entry->name))
        return false;
    entry->ski = ski.data;
    entry->type = list_type(type);
    *from = ahead;
    return true;
}

void kssl_list_entry_write(struct writer *to, const struct kssl_list_entry *entry)
{
    write_bytes(to, bytes_of(entry->ski, KEY_ID_SKI_SIZE));
    write_u8(to, (uint8_t)entry->type);
    write_vector8(to, entry->name);
}

bool kssl_ticket_key_read(struct reader *from, struct kssl_ticket_key *key)
{
    return read_bytes(from, 16, &key->name) && read_u64(from, &key->not_before) &&
           read_u64(from, &key->not_after) && read_bytes(from, 32, &key->aes_key) &&
           read_bytes(from, 32, &key->hmac_key);
}

void kssl_ticket_key_write(struct writer *to, const struct kssl_ticket_key *key)
{
    write_bytes(to, key->name);
    write_u64(to, key->not_before);
    write_u64(to, key->not_after);
    write_bytes(to, key->aes_key);
    write_bytes(to, key->hmac_key);
}

bool kssl_timing_parse(struct bytes extra, struct kssl_timing *timing)
{
    struct reader from = reader_of(extra);
    return read_u32(&from, &timing->queue) && read_u32(&from, &timing->sign) && reader_empty(&from);
}

void kssl_timing_write(struct writer *to, const struct kssl_timing *timing)
{
    write_u32(to, timing->queue);
    write_u32(to, timing->sign);
}
