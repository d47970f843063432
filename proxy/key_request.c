#include "proxy/key_request.h"

#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

_Static_assert(KEY_REQUEST_TRANSCRIPT_FRAME_MAX <= KSSL_FRAME_MAX, "the largest request is one frame");

#define UNKNOWN_CONTENT "not a content that a TLS server signs"

/* The same payload as 0x61 or 0x62 has, or nothing if the content is neither's. */
static bool parts_write(struct writer *to, uint16_t scheme, struct bytes content, uint8_t *opcode)
{
    struct kssl_sign_tls13 tls13 = {.scheme = scheme};
    struct kssl_sign_tls12 tls12 = {.scheme = scheme};
    if (tls_certificate_verify_parse(content, &tls13.hash)) {
        *opcode = KSSL_OP_SIGN_TLS13;
        kssl_sign_tls13_write(to, &tls13);
    } else if (tls_server_key_exchange_parse(content, &tls12.parts)) {
        *opcode = KSSL_OP_SIGN_TLS12;
        kssl_sign_tls12_write(to, &tls12);
    } else {
        return false;
    }
    return writer_ok(to);
}

static const struct kssl_bare_operation *bare_operation(uint16_t scheme)
{
    static const struct {
        uint16_t scheme;
        uint8_t opcode;
    } operations[] = {
        {0x0403, KSSL_OP_ECDSA_SHA256},    {0x0503, KSSL_OP_ECDSA_SHA384},
        {0x0603, KSSL_OP_ECDSA_SHA512},    {0x0804, KSSL_OP_RSA_PSS_SHA256},
        {0x0805, KSSL_OP_RSA_PSS_SHA384},  {0x0806, KSSL_OP_RSA_PSS_SHA512},
        {0x0401, KSSL_OP_RSA_SIGN_SHA256}, {0x0501, KSSL_OP_RSA_SIGN_SHA384},
        {0x0601, KSSL_OP_RSA_SIGN_SHA512}, {0x0807, KSSL_OP_ED25519},
    };
    for (size_t i = 0; i < sizeof operations / sizeof *operations; i++) {
        if (operations[i].scheme == scheme)
            return kssl_bare_find(operations[i].opcode);
    }
    return NULL;
}

static bool digest_write(struct writer *to, const char *hash, struct bytes content)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    size_t size = 0;
    (void)ERR_set_mark();
    bool made = EVP_Q_digest(NULL, hash, NULL, content.data, content.size, digest, &size) == 1;
    (void)ERR_pop_to_mark();
    write_bytes(to, bytes_of(digest, size));
    return made && writer_ok(to);
}

static bool bare_make(struct key_request *request, struct writer *to, const struct key_operation *operation,
                      const char **reason)
{
    const struct kssl_bare_operation *bare = bare_operation(operation->scheme);
    if (bare == NULL) {
        *reason = "no bare operation has this signature scheme";
        return false;
    }
    request->opcode = bare->opcode;
    *reason = "no digest could be made";
    if (bare->hash != NULL)
        return digest_write(to, bare->hash, operation->content);
    write_bytes(to, operation->content);
    return writer_ok(to);
}

static enum key_outcome payload_make(struct key_request *request, enum proxy_key_mode mode,
                                     const struct key_operation *operation, const char **reason)
{
    struct writer to = writer_of(request->payload, sizeof request->payload);
    *reason = UNKNOWN_CONTENT;
    if (!parts_write(&to, operation->scheme, operation->content, &request->opcode))
        return KEY_OUTCOME_REFUSED;
    request->bare = mode == KEY_MODE_DIGEST;
    if (request->bare) {
        to = writer_of(request->payload, sizeof request->payload);
        if (!bare_make(request, &to, operation, reason))
            return KEY_OUTCOME_REFUSED;
    }
    request->payload_size = (uint16_t)to.size;
    return KEY_OUTCOME_OK;
}

/* The hash that libssl wants signed, and what was kept, must be of the same handshake. */
static enum key_outcome transcript_check(const struct key_operation *operation, struct bytes hash,
                                         const char **reason)
{
    const struct transcript_capture *transcript = operation->transcript;
    *reason = "no whole transcript of the handshake";
    if (transcript != NULL && transcript->failure != NULL)
        *reason = transcript->failure;
    if (transcript == NULL || !transcript->complete)
        return KEY_OUTCOME_REFUSED;
    *reason = "the transcript is not what libssl signs";
    return transcript_capture_matches(transcript, hash) ? KEY_OUTCOME_OK : KEY_OUTCOME_MISMATCH;
}

enum key_outcome key_request_change(struct key_request *request, enum proxy_key_mode mode,
                                    const struct key_operation *operation, const char **reason)
{
    struct bytes hash;
    if (mode != KEY_MODE_TRANSCRIPT || !tls_certificate_verify_parse(operation->content, &hash))
        return payload_make(request, mode, operation, reason);
    request->opcode = KSSL_OP_SIGN_TRANSCRIPT;
    request->bare = false;
    request->payload_size = 0;
    return transcript_check(operation, hash, reason);
}

enum key_outcome key_request_make(struct key_request *request, enum proxy_key_mode mode,
                                  const struct key_operation *operation, const char **reason)
{
    *reason = "SNI is too long";
    if (operation->sni.size > KEY_REQUEST_SNI_MAX)
        return KEY_OUTCOME_REFUSED;
    memcpy(request->ski, operation->key->ski, sizeof request->ski);
    request->has_sni = operation->sni.data != NULL;
    request->sni_size = (uint16_t)operation->sni.size;
    if (request->has_sni && request->sni_size > 0)
        memcpy(request->sni, operation->sni.data, operation->sni.size);
    struct bytes ip;
    address_ip(&operation->client, &ip);
    request->ip_size = (uint16_t)(ip.size <= sizeof request->ip ? ip.size : 0);
    if (ip.data != NULL && request->ip_size > 0)
        memcpy(request->ip, ip.data, request->ip_size);
    return key_request_change(request, mode, operation, reason);
}

static struct bytes payload_of(const struct key_request *request, const struct key_operation *operation)
{
    if (request->opcode == KSSL_OP_SIGN_TRANSCRIPT)
        return transcript_capture_payload(operation->transcript, operation->scheme);
    return bytes_of(request->payload, request->payload_size);
}

bool key_request_write(struct writer *to, uint32_t id, const struct key_request *request,
                       const struct key_operation *operation)
{
    struct kssl_message message = {
        .has_opcode = true,
        .opcode = request->opcode,
        .payload = payload_of(request, operation),
        .ski = bytes_of(request->ski, sizeof request->ski),
    };
    if (!request->bare)
        message.trace = bytes_of(operation->request_id, strlen(operation->request_id));
    if (request->has_sni)
        message.sni = bytes_of(request->sni, request->sni_size);
    if (request->ip_size > 0)
        message.client_ip = bytes_of(request->ip, request->ip_size);
    return kssl_message_write(to, id, &message);
}
