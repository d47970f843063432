#include "keyserver/signer_sign.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

/* The hashes that anything is signed with, by OpenSSL's names. */
static const char *const HASHES[] = {"SHA256", "SHA384", "SHA512", "SHA1", "SHA224", "MD5-SHA1"};

#define HASH_COUNT (sizeof HASHES / sizeof *HASHES)

/* Ways of signing with one key: RSA with either padding and each hash; ECDSA, which takes any digest, has the
 * first alone; EdDSA has none of them. */
#define WAY_COUNT (2 * HASH_COUNT)

/* What a thread keeps of a key that it has used. Keys whose numbers are equal modulo KEPT_KEYS replace each
 * other. */
#define KEPT_KEYS 1024

struct kept_key {
    size_t key; /* index + 1; 0: free */
    EVP_PKEY *private;
    EVP_PKEY_CTX *sign[WAY_COUNT];
    EVP_PKEY_CTX *verify[WAY_COUNT];
    EVP_PKEY_CTX *decrypt;
};

struct signer_sign {
    struct key_store *store;
    EVP_MD *hashes[HASH_COUNT];
    EVP_MD_CTX *digest;  /* for hashing */
    EVP_MD_CTX *edwards; /* for EdDSA, which does its own hashing */
    struct kept_key kept[KEPT_KEYS];
};

/* What is signed, and how. */
struct way {
    enum tls_padding padding;
    size_t hash; /* index in HASHES */
};

static void kept_forget(struct kept_key *kept)
{
    for (size_t i = 0; i < WAY_COUNT; i++) {
        EVP_PKEY_CTX_free(kept->sign[i]);
        EVP_PKEY_CTX_free(kept->verify[i]);
    }
    EVP_PKEY_CTX_free(kept->decrypt);
    EVP_PKEY_free(kept->private);
    *kept = (struct kept_key){0};
}

struct signer_sign *signer_sign_new(struct key_store *store)
{
    struct signer_sign *sign = calloc(1, sizeof *sign);
    if (sign == NULL)
        return NULL;
    sign->store = store;
    sign->digest = EVP_MD_CTX_new();
    sign->edwards = EVP_MD_CTX_new();
    for (size_t i = 0; i < HASH_COUNT; i++)
        sign->hashes[i] =
            EVP_MD_fetch(NULL, HASHES[i], NULL); /* NULL: a library without it (FIPS has no MD5) */
    ERR_clear_error();
    if (sign->digest == NULL || sign->edwards == NULL) {
        signer_sign_free(sign);
        return NULL;
    }
    return sign;
}

void signer_sign_free(struct signer_sign *sign)
{
    if (sign == NULL)
        return;
    for (size_t i = 0; i < KEPT_KEYS; i++)
        kept_forget(&sign->kept[i]);
    for (size_t i = 0; i < HASH_COUNT; i++)
        EVP_MD_free(sign->hashes[i]);
    EVP_MD_CTX_free(sign->digest);
    EVP_MD_CTX_free(sign->edwards);
    free(sign);
}

static struct kept_key *kept_of(struct signer_sign *sign, size_t key)
{
    struct kept_key *kept = &sign->kept[key % KEPT_KEYS];
    if (kept->key == key + 1)
        return kept;
    kept_forget(kept);
    kept->private = key_store_duplicate(sign->store, key);
    if (kept->private == NULL)
        return NULL;
    kept->key = key + 1;
    return kept;
}

/* ---- Contexts for signing and verifying digests. */

static bool context_configure(EVP_PKEY_CTX *context, const struct way *way, const EVP_MD *hash)
{
    if (way->padding == TLS_PADDING_NONE)
        return true;
    bool pss = way->padding == TLS_PADDING_PSS;
    return EVP_PKEY_CTX_set_rsa_padding(context, pss ? RSA_PKCS1_PSS_PADDING : RSA_PKCS1_PADDING) == 1 &&
           EVP_PKEY_CTX_set_signature_md(context, hash) == 1 &&
           (!pss || EVP_PKEY_CTX_set_rsa_pss_saltlen(context, RSA_PSS_SALTLEN_DIGEST) == 1);
}

static EVP_PKEY_CTX *context_new(EVP_PKEY *key, int (*init)(EVP_PKEY_CTX *), const struct way *way,
                                 const EVP_MD *hash)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    if (context != NULL && init(context) == 1 && context_configure(context, way, hash))
        return context;
    EVP_PKEY_CTX_free(context);
    return NULL;
}

static size_t way_number(const struct way *way)
{
    if (way->padding == TLS_PADDING_NONE)
        return 0;
    return way->hash + (way->padding == TLS_PADDING_PSS ? HASH_COUNT : 0);
}

/* A fault while an RSA signature is computed can give the private key away (Boneh, DeMillo, Lipton 1997):
 * verifying costs a twentieth of signing. An ECDSA verification would cost thrice the signature. */
static bool rsa_verifies(struct kept_key *kept, const struct way *way, const EVP_MD *hash,
                         struct bytes digest, struct bytes signature)
{
    EVP_PKEY_CTX **context = &kept->verify[way_number(way)];
    if (*context == NULL)
        *context = context_new(kept->private, EVP_PKEY_verify_init, way, hash);
    return *context != NULL &&
           EVP_PKEY_verify(*context, signature.data, signature.size, digest.data, digest.size) == 1;
}

static enum kssl_error sign_digest(struct signer_sign *sign, struct kept_key *kept, const struct way *way,
                                   struct bytes digest, uint8_t *signature, size_t *size)
{
    const EVP_MD *hash = sign->hashes[way->hash];
    EVP_PKEY_CTX **context = &kept->sign[way_number(way)];
    if (*context == NULL && hash != NULL)
        *context = context_new(kept->private, EVP_PKEY_sign_init, way, hash);
    size_t room = *size;
    if (*context == NULL || EVP_PKEY_sign(*context, signature, size, digest.data, digest.size) != 1)
        return KSSL_ERROR_CRYPTO;
    if (way->padding == TLS_PADDING_NONE || rsa_verifies(kept, way, hash, digest, bytes_of(signature, *size)))
        return KSSL_ERROR_NONE;
    OPENSSL_cleanse(signature, room);
    return KSSL_ERROR_INTERNAL;
}

static enum kssl_error sign_message(struct signer_sign *sign, struct kept_key *kept, struct bytes message,
                                    uint8_t *signature, size_t *size)
{
    static const uint8_t NOTHING;
    if (EVP_MD_CTX_reset(sign->edwards) == 1 &&
        EVP_DigestSignInit_ex(sign->edwards, NULL, NULL, NULL, NULL, kept->private, NULL) == 1 &&
        EVP_DigestSign(sign->edwards, signature, size, message.size > 0 ? message.data : &NOTHING,
                       message.size) == 1)
        return KSSL_ERROR_NONE;
    return KSSL_ERROR_CRYPTO;
}

/* The whole block, padding included: whether the padding is right must show neither in an answer nor in its
 * time (Bleichenbacher 1998). libcrypto blinds, and checks what the remainder theorem gave it. */
static enum kssl_error decrypt_raw(struct kept_key *kept, struct bytes ciphertext, uint8_t *block,
                                   size_t *size)
{
    if (kept->decrypt == NULL) {
        kept->decrypt = EVP_PKEY_CTX_new_from_pkey(NULL, kept->private, NULL);
        if (kept->decrypt == NULL || EVP_PKEY_decrypt_init(kept->decrypt) != 1 ||
            EVP_PKEY_CTX_set_rsa_padding(kept->decrypt, RSA_NO_PADDING) != 1) {
            EVP_PKEY_CTX_free(kept->decrypt);
            kept->decrypt = NULL;
            return KSSL_ERROR_CRYPTO;
        }
    }
    const size_t room = *size;
    return EVP_PKEY_decrypt(kept->decrypt, block, size, ciphertext.data, ciphertext.size) == 1 &&
                   *size == room
               ? KSSL_ERROR_NONE
               : KSSL_ERROR_CRYPTO;
}

/* ---- The kinds of requests. */

static bool hash_number(const char *name, size_t *number)
{
    for (*number = 0; *number < HASH_COUNT; ++*number)
        if (strcmp(HASHES[*number], name) == 0)
            return true;
    return false;
}

static enum kssl_error sign_bare_digest(struct signer_sign *sign, struct kept_key *kept,
                                        const struct sign_request *request, uint8_t *signature, size_t *size)
{
    const struct kssl_bare_operation *operation = kssl_bare_find(request->opcode);
    struct way way = {.padding = TLS_PADDING_NONE};
    if (operation == NULL || operation->hash == NULL || !hash_number(operation->hash, &way.hash))
        return KSSL_ERROR_CRYPTO;
    way.padding = operation->padding;
    return sign_digest(sign, kept, &way, bytes_of(request->digest.octets, request->digest.size), signature,
                       size);
}

static bool hash_content(struct signer_sign *sign, const struct way *way, struct bytes content,
                         uint8_t digest[static EVP_MAX_MD_SIZE], unsigned *size)
{
    const EVP_MD *hash = sign->hashes[way->hash];
    return hash != NULL && EVP_DigestInit_ex2(sign->digest, hash, NULL) == 1 &&
           EVP_DigestUpdate(sign->digest, content.data, content.size) == 1 &&
           EVP_DigestFinal_ex(sign->digest, digest, size) == 1;
}

static enum kssl_error sign_content(struct signer_sign *sign, struct kept_key *kept,
                                    const struct tls_scheme *scheme, struct bytes content, uint8_t *signature,
                                    size_t *size)
{
    if (scheme->hash == NULL)
        return sign_message(sign, kept, content, signature, size);
    struct way way = {.padding = scheme->padding};
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned digest_size = 0;
    if (!hash_number(scheme->hash, &way.hash) || !hash_content(sign, &way, content, digest, &digest_size))
        return KSSL_ERROR_CRYPTO;
    return sign_digest(sign, kept, &way, bytes_of(digest, digest_size), signature, size);
}

static enum kssl_error sign_tls(struct signer_sign *sign, struct kept_key *kept,
                                const struct sign_request *request, uint8_t *signature, size_t *size)
{
    const struct tls_scheme *scheme =
        tls_scheme_find(request->kind == SIGN_TLS13 ? request->tls13.scheme : request->tls12.scheme);
    uint8_t content[SIGN_CONTENT_MAX];
    struct writer to = writer_of(content, sizeof content);
    if (scheme == NULL)
        return KSSL_ERROR_CRYPTO;
    if (!sign_request_point_valid(request) || !sign_request_content(request, &to))
        return KSSL_ERROR_CONTENT;
    return sign_content(sign, kept, scheme, writer_bytes(&to), signature, size);
}

enum kssl_error signer_sign(struct signer_sign *sign, const struct sign_request *request, size_t key,
                            uint8_t *signature, size_t *size)
{
    struct kept_key *kept = kept_of(sign, key);
    enum kssl_error error = KSSL_ERROR_CRYPTO;
    if (kept != NULL && request->kind == SIGN_MESSAGE)
        error = sign_message(sign, kept, request->message, signature, size);
    else if (kept != NULL && request->kind == SIGN_CIPHERTEXT)
        error = decrypt_raw(kept, request->message, signature, size);
    else if (kept != NULL && request->kind == SIGN_DIGEST)
        error = sign_bare_digest(sign, kept, request, signature, size);
    else if (kept != NULL)
        error = sign_tls(sign, kept, request, signature, size);
    ERR_clear_error();
    return error;
}
