#include "proxy/remote_key_private.h"

#include <string.h>
#include <strings.h>

#include <openssl/async.h>
#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/rsa.h>

#include "common/tls_message.h"

struct signing {
    struct remote_key *key;
    size_t hash_size; /* 0: EdDSA */
    enum tls_padding padding;
};

static void *signing_new(void *provider, const char *properties)
{
    (void)provider;
    (void)properties;
    return OPENSSL_zalloc(sizeof(struct signing));
}

static void signing_free(void *context)
{
    OPENSSL_free(context);
}

static void *signing_dup(void *context)
{
    return OPENSSL_memdup(context, sizeof(struct signing));
}

static bool key_is_eddsa(const struct remote_key *key)
{
    return key->id.type == KEY_TYPE_ED25519 || key->id.type == KEY_TYPE_ED448;
}

static size_t hash_size_of(const char *name)
{
    static const struct {
        const char *name;
        size_t size;
    } hashes[] = {
        {"SHA2-256", 32}, {"SHA256", 32}, {"SHA2-384", 48}, {"SHA384", 48}, {"SHA2-512", 64}, {"SHA512", 64},
    };
    for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++) {
        if (strcasecmp(name, hashes[i].name) == 0)
            return hashes[i].size;
    }
    return 0;
}

/* Called two or three times in a handshake, because libssl probes what a key can do: no request goes out
 * here. An EdDSA key must refuse a digest, and the others need one that a scheme of ours has. */
static int signing_init(void *context, const char *hash, void *keydata, const OSSL_PARAM params[])
{
    (void)params;
    struct signing *signing = context;
    if (keydata != NULL)
        signing->key = keydata;
    if (signing->key == NULL || signing->key->signer == NULL)
        return 0;
    bool has_hash = hash != NULL && *hash != '\0';
    signing->hash_size = has_hash ? hash_size_of(hash) : 0;
    signing->padding = signing->key->id.type == KEY_TYPE_RSA ? TLS_PADDING_PKCS1 : TLS_PADDING_NONE;
    return key_is_eddsa(signing->key) ? !has_hash : signing->hash_size != 0;
}

static bool padding_set(struct signing *signing, const OSSL_PARAM *param)
{
    int mode = 0;
    if (!OSSL_PARAM_get_int(param, &mode))
        return false;
    if (mode != RSA_PKCS1_PSS_PADDING && mode != RSA_PKCS1_PADDING)
        return false;
    signing->padding = mode == RSA_PKCS1_PSS_PADDING ? TLS_PADDING_PSS : TLS_PADDING_PKCS1;
    return signing->key != NULL && signing->key->id.type == KEY_TYPE_RSA;
}

/* TLS knows one salt length, that of the digest (RFC 8446 section 4.2.3). */
static bool salt_length_ok(const OSSL_PARAM *param)
{
    const char *text = NULL;
    int number = 0;
    if (param->data_type == OSSL_PARAM_UTF8_STRING)
        return OSSL_PARAM_get_utf8_string_ptr(param, &text) &&
               strcmp(text, OSSL_PKEY_RSA_PSS_SALT_LEN_DIGEST) == 0;
    return OSSL_PARAM_get_int(param, &number) && number == RSA_PSS_SALTLEN_DIGEST;
}

static int signing_set_params(void *context, const OSSL_PARAM params[])
{
    if (params == NULL)
        return 1;
    const OSSL_PARAM *padding = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PAD_MODE);
    const OSSL_PARAM *salt = OSSL_PARAM_locate_const(params, OSSL_SIGNATURE_PARAM_PSS_SALTLEN);
    if (padding != NULL && !padding_set(context, padding))
        return 0;
    return salt == NULL || salt_length_ok(salt);
}

static const OSSL_PARAM *signing_settable_params(void *context, void *provider)
{
    (void)context;
    (void)provider;
    static const OSSL_PARAM settable[] = {
        OSSL_PARAM_int(OSSL_SIGNATURE_PARAM_PAD_MODE, NULL),
        OSSL_PARAM_utf8_string(OSSL_SIGNATURE_PARAM_PSS_SALTLEN, NULL, 0),
        OSSL_PARAM_END,
    };
    return settable;
}

/* The scheme that libssl chose, which it tells only by digest and padding. In TLS 1.2 an ECDSA scheme says
 * nothing about the curve. */
static uint16_t scheme_of(const struct signing *signing)
{
    static const struct {
        size_t hash_size;
        enum tls_padding padding;
        uint16_t scheme;
    } schemes[] = {
        {32, TLS_PADDING_NONE, 0x0403},  {48, TLS_PADDING_NONE, 0x0503},  {64, TLS_PADDING_NONE, 0x0603},
        {32, TLS_PADDING_PSS, 0x0804},   {48, TLS_PADDING_PSS, 0x0805},   {64, TLS_PADDING_PSS, 0x0806},
        {32, TLS_PADDING_PKCS1, 0x0401}, {48, TLS_PADDING_PKCS1, 0x0501}, {64, TLS_PADDING_PKCS1, 0x0601},
    };
    if (key_is_eddsa(signing->key))
        return signing->key->id.type == KEY_TYPE_ED25519 ? 0x0807 : 0x0808;
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        if (schemes[i].padding == signing->padding && schemes[i].hash_size == signing->hash_size)
            return schemes[i].scheme;
    }
    return 0;
}

/* Starts the operation and parks the fibre until it has ended. Runs on the fibre's 32 kB stack. */
static bool operation_run(struct key_client *client, struct remote_signature *signature)
{
    struct key_operation *operation = &signature->operation;
    signature->finished = false;
    if (key_client_sign(client, operation) != RESULT_OK)
        return false;
    signature->waiting = true;
    while (!signature->finished && !signature->cancelled)
        (void)ASYNC_pause_job();
    signature->waiting = false;
    return signature->finished && !signature->cancelled && operation->result == RESULT_OK;
}

static bool sign_remotely(const struct signing *signing, struct bytes content, unsigned char *into,
                          size_t *size, size_t capacity)
{
    struct remote_key *key = signing->key;
    struct remote_signature *signature = key->signer->current;
    if (signature == NULL || signature->cancelled || ASYNC_get_current_job() == NULL)
        return false;
    struct key_operation *operation = &signature->operation;
    operation->key = &key->id;
    operation->check = key->check;
    operation->scheme = scheme_of(signing);
    operation->content = content;
    if (!operation_run(key->signer->client, signature) || operation->signature_size > capacity)
        return false;
    memcpy(into, operation->signature, operation->signature_size);
    *size = operation->signature_size;
    signature->count++;
    return true;
}

static int signing_digest_sign(void *context, unsigned char *signature, size_t *size, size_t capacity,
                               const unsigned char *content, size_t content_size)
{
    const struct signing *signing = context;
    if (signing->key == NULL || signing->key->signer == NULL)
        return 0;
    if (signature == NULL) { /* only the size: answered here, not by the key server */
        *size = signing->key->id.signature_size;
        return 1;
    }
    if (sign_remotely(signing, bytes_of(content, content_size), signature, size, capacity))
        return 1;
    ERR_raise_data(ERR_LIB_PROV, ERR_R_OPERATION_FAIL, "no signature from the key server");
    return 0;
}

const OSSL_DISPATCH remote_signing[] = {
    DISPATCH(OSSL_FUNC_SIGNATURE_NEWCTX, signing_new),
    DISPATCH(OSSL_FUNC_SIGNATURE_FREECTX, signing_free),
    DISPATCH(OSSL_FUNC_SIGNATURE_DUPCTX, signing_dup),
    DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN_INIT, signing_init),
    DISPATCH(OSSL_FUNC_SIGNATURE_DIGEST_SIGN, signing_digest_sign),
    DISPATCH(OSSL_FUNC_SIGNATURE_SET_CTX_PARAMS, signing_set_params),
    DISPATCH(OSSL_FUNC_SIGNATURE_SETTABLE_CTX_PARAMS, signing_settable_params),
    {0, NULL},
};
