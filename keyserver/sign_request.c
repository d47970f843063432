#include "keyserver/sign_request.h"

#include <string.h>

#include <openssl/evp.h>

_Static_assert(SIGN_CONTENT_MAX >= TLS_CERTIFICATE_VERIFY_MAX, "either content fits");

/* ---- Does it fit the key? (0x01) */

static bool tls13_fits(const struct sign_request *request, const struct key_id *key)
{
    return tls_scheme_fits_tls13(tls_scheme_find(request->tls13.scheme), key->type);
}

static bool tls12_fits(const struct sign_request *request, const struct key_id *key)
{
    return tls_scheme_fits_tls12(tls_scheme_find(request->tls12.scheme), key->type);
}

static bool type_is_ecdsa(enum key_type type)
{
    return type == KEY_TYPE_P256 || type == KEY_TYPE_P384 || type == KEY_TYPE_P521;
}

static bool digest_fits(const struct sign_request *request, const struct key_id *key)
{
    const struct kssl_bare_operation *operation = kssl_bare_find(request->opcode);
    return operation != NULL && request->digest.size == operation->input_size &&
           (operation->rsa ? key->type == KEY_TYPE_RSA : type_is_ecdsa(key->type));
}

static bool message_fits(const struct sign_request *request, const struct key_id *key)
{
    return request->message.size <= SIGN_MESSAGE_MAX && key->type == KEY_TYPE_ED25519;
}

/* Exactly as long as the modulus; whether it is less than it is libcrypto's to say. */
static bool ciphertext_fits(const struct sign_request *request, const struct key_id *key)
{
    return key->type == KEY_TYPE_RSA && request->message.size == key->signature_size;
}

/* ---- Is it something that may be signed? (0x41) */

static bool tls13_acceptable(const struct sign_request *request, unsigned allow)
{
    (void)allow;
    return request->tls13.hash_size == 32 || request->tls13.hash_size == 48;
}

/* The parameters as they stand in the message; false: not of a form that tls_ecdh_params_parse takes. */
static bool params_write(const struct sign_request *request, struct writer *to)
{
    const uint8_t named_curve = 3; /* RFC 8422 section 5.4 */
    write_u8(to, named_curve);
    write_u16(to, request->tls12.group);
    write_vector8(to, bytes_of(request->tls12.point, request->tls12.point_size));
    uint16_t group;
    struct bytes point;
    return writer_ok(to) && tls_ecdh_params_parse(writer_bytes(to), &group, &point);
}

/* Without the mark, a signature over these parts would let whoever holds it take a TLS 1.3 client down to 1.2
 * (RFC 8446 section 4.1.3): only an entry that never speaks TLS 1.3 may leave it out. */
static bool server_random_acceptable(const uint8_t *random, unsigned allow)
{
    if (tls_random_has_downgrade_11(random))
        return false;
    return (allow & (ALLOW_TLS13 | ALLOW_TRANSCRIPT)) == 0 || tls_random_has_downgrade_12(random);
}

static bool tls12_acceptable(const struct sign_request *request, unsigned allow)
{
    uint8_t params[TLS_ECDH_PARAMS_MAX];
    struct writer to = writer_of(params, sizeof params);
    return request->tls12.point_size <= SIGN_POINT_MAX && params_write(request, &to) &&
           server_random_acceptable(request->tls12.server_random, allow);
}

/* No key is named, so there is none that it would have to fit. */
static bool nothing_fits(const struct sign_request *request, const struct key_id *key)
{
    (void)request;
    (void)key;
    return false;
}

static uint16_t no_scheme(const struct sign_request *request)
{
    (void)request;
    return 0;
}

/* Here it shows what is signed, and so a client's CertificateVerify and a delegated credential can be told
 * from what a server signs. In TLS 1.2 nothing begins like those: a server's random ends in a mark. */
static bool message_acceptable(const struct sign_request *request, unsigned allow)
{
    (void)allow;
    struct bytes hash;
    return !tls_content_is_tls13(request->message) || tls_certificate_verify_parse(request->message, &hash);
}

static bool anything_acceptable(const struct sign_request *request, unsigned allow)
{
    (void)request;
    (void)allow;
    return true;
}

/* ---- May this client have it? (0x40) */

static uint16_t tls13_scheme(const struct sign_request *request)
{
    return request->tls13.scheme;
}

static uint16_t tls12_scheme(const struct sign_request *request)
{
    return request->tls12.scheme;
}

/* What a bare operation amounts to in TLS. Those with hashes that TLS 1.2 has left behind are 0: no list of
 * schemes has them. */
static uint16_t bare_scheme(const struct sign_request *request)
{
    static const uint16_t SCHEMES[256] = {
        [KSSL_OP_RSA_SIGN_SHA256] = 0x0401, [KSSL_OP_RSA_SIGN_SHA384] = 0x0501,
        [KSSL_OP_RSA_SIGN_SHA512] = 0x0601, [KSSL_OP_ECDSA_SHA256] = 0x0403,
        [KSSL_OP_ECDSA_SHA384] = 0x0503,    [KSSL_OP_ECDSA_SHA512] = 0x0603,
        [KSSL_OP_ED25519] = 0x0807,         [KSSL_OP_RSA_PSS_SHA256] = 0x0804,
        [KSSL_OP_RSA_PSS_SHA384] = 0x0805,  [KSSL_OP_RSA_PSS_SHA512] = 0x0806,
    };
    return SCHEMES[request->opcode];
}

/* ---- Kinds of requests. */

struct kind_rule {
    unsigned allow;
    bool (*fits)(const struct sign_request *request, const struct key_id *key);
    bool (*acceptable)(const struct sign_request *request, unsigned allow);
    uint16_t (*scheme)(const struct sign_request *request); /* 0: of none */
    bool named;                                             /* it has an SNI */
};

static const struct kind_rule RULES[] = {
    [SIGN_TLS13] = {ALLOW_TLS13, tls13_fits, tls13_acceptable, tls13_scheme, true},
    [SIGN_TLS12] = {ALLOW_TLS12, tls12_fits, tls12_acceptable, tls12_scheme, true},
    [SIGN_DIGEST] = {ALLOW_DIGEST, digest_fits, anything_acceptable, bare_scheme, false},
    [SIGN_MESSAGE] = {ALLOW_DIGEST, message_fits, message_acceptable, bare_scheme, false},
    [SIGN_CIPHERTEXT] = {ALLOW_DECRYPT, ciphertext_fits, anything_acceptable, bare_scheme, false},
    [GIVE_TICKET_KEYS] = {ALLOW_TICKET_KEYS, nothing_fits, anything_acceptable, no_scheme, false},
};

bool sign_kind_of(uint8_t opcode, enum sign_kind *kind)
{
    if (opcode == KSSL_OP_SIGN_TLS13 || opcode == KSSL_OP_SIGN_TRANSCRIPT)
        *kind = SIGN_TLS13;
    else if (opcode == KSSL_OP_SIGN_TLS12)
        *kind = SIGN_TLS12;
    else if (kssl_bare_find(opcode) != NULL)
        *kind = opcode == KSSL_OP_ED25519 ? SIGN_MESSAGE : SIGN_DIGEST;
    else if (opcode == KSSL_OP_RSA_DECRYPT || opcode == KSSL_OP_RSA_DECRYPT_RAW)
        *kind = SIGN_CIPHERTEXT;
    else if (opcode == KSSL_OP_TICKET_KEYS)
        *kind = GIVE_TICKET_KEYS;
    else
        return false;
    return true;
}

struct bytes sign_request_borrowed(const struct sign_request *request)
{
    bool borrows = request->kind == SIGN_MESSAGE || request->kind == SIGN_CIPHERTEXT;
    return borrows ? request->message : bytes_of(NULL, 0);
}

static enum kssl_error refuse(const char **reason, const char *text)
{
    *reason = text;
    return KSSL_ERROR_POLICY;
}

/* Where an SNI is only claimed, a signature serves for all names of the key's certificates. Where a
 * transcript has shown it, that was to the front end alone: so there must at least be a certificate for it;
 * and that there was none is a claim like any other. */
static enum kssl_error check_name(const struct policy *policy, const struct sign_request *request,
                                  const char **reason)
{
    struct bytes sni = bytes_of(request->sni, request->sni_size);
    if (!policy_allows_name(policy, request->entry, sni))
        return refuse(reason, "the SNI is none of the client's names");
    bool shown = request->opcode == KSSL_OP_SIGN_TRANSCRIPT;
    if (shown && !policy_has_leaf_for(policy, request->ski, sni))
        return refuse(reason, "the key has no certificate for the SNI");
    if ((!shown || sni.size == 0) && !policy_names_cover(policy, request->entry, request->ski))
        return refuse(reason, "the key's certificates have names that the client has not");
    return KSSL_ERROR_NONE;
}

static enum kssl_error check_policy(const struct policy *policy, const struct sign_request *request,
                                    const char **reason)
{
    if (!policy_allows_scheme(policy, request->entry, RULES[request->kind].scheme(request)))
        return refuse(reason, "the scheme is none of the client's");
    return RULES[request->kind].named ? check_name(policy, request, reason) : KSSL_ERROR_NONE;
}

enum kssl_error sign_request_check(const struct policy *policy, const struct sign_request *request,
                                   size_t *key, const char **reason)
{
    enum sign_kind kind;
    *reason = NULL;
    if (request->entry >= policy_entries(policy) || !sign_kind_of(request->opcode, &kind) ||
        kind != request->kind)
        return KSSL_ERROR_INTERNAL;
    const struct kind_rule *rule = &RULES[kind];
    unsigned allow = policy_allow(policy, request->entry);
    unsigned needed = request->opcode == KSSL_OP_SIGN_TRANSCRIPT ? ALLOW_TRANSCRIPT : rule->allow;
    if ((allow & needed) == 0)
        return KSSL_ERROR_BAD_OPCODE;
    if (kind == GIVE_TICKET_KEYS)
        return KSSL_ERROR_NONE;
    if (!policy_find(policy, request->entry, request->ski, key))
        return KSSL_ERROR_KEY_NOT_FOUND;
    if (!rule->fits(request, &policy_key(policy, *key)->id))
        return KSSL_ERROR_CRYPTO;
    return rule->acceptable(request, allow) ? check_policy(policy, request, reason) : KSSL_ERROR_CONTENT;
}

bool sign_request_point_valid(const struct sign_request *request)
{
    return request->kind != SIGN_TLS12 ||
           tls_ecdh_point_valid(request->tls12.group,
                                bytes_of(request->tls12.point, request->tls12.point_size));
}

static bool tls12_content(const struct sign_request *request, struct writer *to)
{
    uint8_t params[TLS_ECDH_PARAMS_MAX];
    struct writer params_to = writer_of(params, sizeof params);
    struct tls_server_key_exchange parts = {.group = request->tls12.group};
    if (!params_write(request, &params_to))
        return false;
    parts.params = writer_bytes(&params_to);
    memcpy(parts.client_random, request->tls12.client_random, TLS_RANDOM_SIZE);
    memcpy(parts.server_random, request->tls12.server_random, TLS_RANDOM_SIZE);
    return tls_server_key_exchange_write(to, &parts);
}

bool sign_request_content(const struct sign_request *request, struct writer *to)
{
    if (request->kind == SIGN_TLS13)
        return tls_certificate_verify_write(to, bytes_of(request->tls13.hash, request->tls13.hash_size));
    return request->kind == SIGN_TLS12 && tls12_content(request, to);
}

size_t sign_request_digest(const struct sign_request *request, uint8_t to[static SIGN_DIGEST_OF_MAX])
{
    uint8_t content[SIGN_CONTENT_MAX];
    struct writer content_to = writer_of(content, sizeof content);
    struct bytes all = sign_request_borrowed(request);
    unsigned size = 0;
    if (request->kind == SIGN_DIGEST) {
        memcpy(to, request->digest.octets, request->digest.size);
        return request->digest.size;
    }
    if (request->kind == SIGN_TLS13 || request->kind == SIGN_TLS12)
        all = sign_request_content(request, &content_to) ? writer_bytes(&content_to) : all;
    if (request->kind == GIVE_TICKET_KEYS ||
        EVP_Digest(all.data, all.size, to, &size, EVP_sha256(), NULL) != 1)
        return 0;
    return size;
}
