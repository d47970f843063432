#include "keyserver/signer_protocol.h"

#define WRITE_MESSAGE(to, type)                                                                              \
    write_u8((to), (type));                                                                                  \
    WRITE_VECTOR((to), 3)

/* ---- A field of fixed size that may be filled less: size(1), then capacity octets, zeros behind. */

static void write_field(struct writer *to, struct bytes octets, size_t capacity)
{
    write_u8(to, (uint8_t)octets.size);
    write_bytes(to, octets);
    write_fill(to, 0, capacity - octets.size);
}

static bool all_zero(struct bytes octets)
{
    uint8_t all = 0;
    for (size_t i = 0; i < octets.size; i++)
        all |= octets.data[i];
    return all == 0;
}

static bool read_field(struct reader *from, uint8_t *octets, uint8_t *size, size_t capacity)
{
    struct bytes rest;
    return read_u8(from, size) && *size <= capacity && read_copy(from, octets, *size) &&
           read_bytes(from, capacity - *size, &rest) && all_zero(rest);
}

/* ---- What front ends ask. */

static void sni_write(struct writer *to, const struct sign_request *request)
{
    write_vector8(to, bytes_of(request->sni, request->sni_size));
}

static bool claims_read(struct reader *from, struct sign_request *request)
{
    return read_vector8_copy(from, request->client_ip, &request->client_ip_size, SIGN_CLIENT_IP_MAX) &&
           (request->client_ip_size == 0 || request->client_ip_size == 4 || request->client_ip_size == 16) &&
           read_vector8_copy(from, request->name, &request->name_size, sizeof request->name);
}

static bool sni_read(struct reader *from, struct sign_request *request)
{
    return read_vector8_copy(from, request->sni, &request->sni_size, sizeof request->sni);
}

static void tls13_write(struct writer *to, const struct sign_request *request)
{
    sni_write(to, request);
    write_u16(to, request->tls13.scheme);
    write_field(to, bytes_of(request->tls13.hash, request->tls13.hash_size), TLS_TRANSCRIPT_HASH_MAX);
}

static bool tls13_read(struct reader *from, struct sign_request *request)
{
    return sni_read(from, request) && read_u16(from, &request->tls13.scheme) &&
           read_field(from, request->tls13.hash, &request->tls13.hash_size, TLS_TRANSCRIPT_HASH_MAX);
}

static void tls12_write(struct writer *to, const struct sign_request *request)
{
    sni_write(to, request);
    write_u16(to, request->tls12.scheme);
    write_bytes(to, bytes_of(request->tls12.client_random, TLS_RANDOM_SIZE));
    write_bytes(to, bytes_of(request->tls12.server_random, TLS_RANDOM_SIZE));
    write_u16(to, request->tls12.group);
    write_field(to, bytes_of(request->tls12.point, request->tls12.point_size), SIGN_POINT_MAX);
}

static bool tls12_read(struct reader *from, struct sign_request *request)
{
    return sni_read(from, request) && read_u16(from, &request->tls12.scheme) &&
           read_copy(from, request->tls12.client_random, TLS_RANDOM_SIZE) &&
           read_copy(from, request->tls12.server_random, TLS_RANDOM_SIZE) &&
           read_u16(from, &request->tls12.group) &&
           read_field(from, request->tls12.point, &request->tls12.point_size, SIGN_POINT_MAX);
}

static void digest_write(struct writer *to, const struct sign_request *request)
{
    write_field(to, bytes_of(request->digest.octets, request->digest.size), SIGN_DIGEST_MAX);
}

static bool digest_read(struct reader *from, struct sign_request *request)
{
    return read_field(from, request->digest.octets, &request->digest.size, SIGN_DIGEST_MAX);
}

static void message_write(struct writer *to, const struct sign_request *request)
{
    write_bytes(to, request->message);
}

static bool message_read(struct reader *from, struct sign_request *request)
{
    return from->left <= SIGN_MESSAGE_MAX && read_bytes(from, from->left, &request->message);
}

static bool ciphertext_read(struct reader *from, struct sign_request *request)
{
    return from->left <= SIGNER_SIGNATURE_MAX && read_bytes(from, from->left, &request->message);
}

static void nothing_write(struct writer *to, const struct sign_request *request)
{
    (void)to;
    (void)request;
}

static bool nothing_read(struct reader *from, struct sign_request *request)
{
    return reader_empty(from) && all_zero(bytes_of(request->ski, sizeof request->ski));
}

static const struct ask_form {
    uint8_t type;
    void (*write)(struct writer *to, const struct sign_request *request);
    bool (*read)(struct reader *from, struct sign_request *request);
} FORMS[] = {
    [SIGN_TLS13] = {SIGNER_ASK_TLS13, tls13_write, tls13_read},
    [SIGN_TLS12] = {SIGNER_ASK_TLS12, tls12_write, tls12_read},
    [SIGN_DIGEST] = {SIGNER_ASK_DIGEST, digest_write, digest_read},
    [SIGN_MESSAGE] = {SIGNER_ASK_MESSAGE, message_write, message_read},
    [SIGN_CIPHERTEXT] = {SIGNER_ASK_CIPHERTEXT, message_write, ciphertext_read},
    [GIVE_TICKET_KEYS] = {SIGNER_ASK_TICKET_KEYS, nothing_write, nothing_read},
};

void signer_ask_write(struct writer *to, const struct sign_request *request)
{
    WRITE_MESSAGE(to, FORMS[request->kind].type)
    {
        write_u64(to, request->handle);
        write_u16(to, request->entry);
        write_u8(to, request->opcode);
        write_bytes(to, bytes_of(request->ski, KEY_ID_SKI_SIZE));
        write_vector8(to, bytes_of(request->client_ip, request->client_ip_size));
        write_vector8(to, bytes_of(request->name, request->name_size));
        FORMS[request->kind].write(to, request);
    }
}

bool signer_ask_parse(uint8_t type, struct bytes body, struct sign_request *request)
{
    if (type < SIGNER_ASK_TLS13 || type > SIGNER_ASK_TICKET_KEYS)
        return false;
    enum sign_kind kind = (enum sign_kind)(type - SIGNER_ASK_TLS13);
    *request = (struct sign_request){.kind = kind};
    struct reader from = reader_of(body);
    return read_u64(&from, &request->handle) && read_u16(&from, &request->entry) &&
           read_u8(&from, &request->opcode) && read_copy(&from, request->ski, KEY_ID_SKI_SIZE) &&
           claims_read(&from, request) && FORMS[kind].read(&from, request) && reader_empty(&from) &&
           sign_kind_of(request->opcode, &kind) && kind == request->kind;
}

void signer_cancel_write(struct writer *to, uint64_t handle)
{
    WRITE_MESSAGE(to, SIGNER_CANCEL)
    {
        write_u64(to, handle);
    }
}

bool signer_cancel_parse(struct bytes body, uint64_t *handle)
{
    struct reader from = reader_of(body);
    return read_u64(&from, handle) && reader_empty(&from);
}

/* ---- What the signer tells. */

void signer_key_write(struct writer *to, const struct key_info *key)
{
    size_t label = 0;
    while (key->label[label] != '\0' && label < KEY_LABEL_MAX)
        label++;
    WRITE_MESSAGE(to, SIGNER_TELL_KEY)
    {
        write_u8(to, (uint8_t)key->id.type);
        write_u16(to, (uint16_t)key->id.bits);
        write_u16(to, (uint16_t)key->id.signature_size);
        write_bytes(to, bytes_of(key->id.ski, KEY_ID_SKI_SIZE));
        write_bytes(to, bytes_of(key->id.digest, KEY_ID_DIGEST_SIZE));
        write_vector8(to, bytes_of(key->label, label));
    }
}

static bool type_is_known(uint8_t type)
{
    return type > KEY_TYPE_NONE && type <= KEY_TYPE_ED448;
}

bool signer_key_parse(struct bytes body, struct key_id *id, struct bytes *label)
{
    struct reader from = reader_of(body);
    uint8_t type;
    uint16_t bits, signature_size;
    *id = (struct key_id){0};
    if (!read_u8(&from, &type) || !type_is_known(type) || !read_u16(&from, &bits) ||
        !read_u16(&from, &signature_size) || signature_size > SIGNER_SIGNATURE_MAX)
        return false;
    id->type = (enum key_type)type;
    id->bits = bits;
    id->signature_size = signature_size;
    return read_copy(&from, id->ski, KEY_ID_SKI_SIZE) && read_copy(&from, id->digest, KEY_ID_DIGEST_SIZE) &&
           read_vector8(&from, label) && reader_empty(&from);
}

void signer_keys_end_write(struct writer *to, uint32_t count)
{
    WRITE_MESSAGE(to, SIGNER_TELL_KEYS_END)
    {
        write_u32(to, count);
    }
}

bool signer_keys_end_parse(struct bytes body, uint32_t *count)
{
    struct reader from = reader_of(body);
    return read_u32(&from, count) && reader_empty(&from);
}

void signer_reply_write(struct writer *to, const struct signer_reply *reply)
{
    WRITE_MESSAGE(to, SIGNER_TELL_REPLY)
    {
        write_u64(to, reply->handle);
        write_u8(to, reply->error);
        write_u32(to, reply->queue);
        write_u32(to, reply->sign);
        write_bytes(to, reply->answer);
    }
}

bool signer_reply_parse(struct bytes body, struct signer_reply *reply)
{
    struct reader from = reader_of(body);
    if (!read_u64(&from, &reply->handle) || !read_u8(&from, &reply->error) ||
        !read_u32(&from, &reply->queue) || !read_u32(&from, &reply->sign) || from.left > SIGNER_ANSWER_MAX)
        return false;
    /* An answer is there if and only if there is no error. */
    return (from.left > 0) == (reply->error == KSSL_ERROR_NONE) &&
           read_bytes(&from, from.left, &reply->answer);
}
