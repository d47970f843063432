#include "keyserver/signer_sign.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "keyserver/rsa_block.h"
#include "keyserver/rsa_public.h"

/* The hashes that anything is signed with, by OpenSSL's names. */
static const char *const HASHES[] = {"SHA256", "SHA384", "SHA512", "SHA1", "SHA224", "MD5-SHA1"};

#define HASH_COUNT (sizeof HASHES / sizeof *HASHES)

/* What a thread keeps of a key that it has used. Keys whose numbers are equal modulo KEPT_KEYS replace each
 * other. */
#define KEPT_KEYS 1024

struct kept_key {
    size_t key; /* index + 1; 0: free */
    EVP_PKEY *private;
    EVP_PKEY_CTX *sign; /* ECDSA's of a digest, RSA's of a block; EdDSA has none */
    struct rsa_public *public;
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
    EVP_PKEY_CTX_free(kept->sign);
    rsa_public_free(kept->public);
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

/* ---- Digests. */

static EVP_PKEY_CTX *context_new(EVP_PKEY *key, int (*init)(EVP_PKEY_CTX *), bool raw_rsa)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
    if (context != NULL && init(context) == 1 &&
        (!raw_rsa || EVP_PKEY_CTX_set_rsa_padding(context, RSA_NO_PADDING) == 1))
        return context;
    EVP_PKEY_CTX_free(context);
    return NULL;
}

static bool block_of(const struct signer_sign *sign, const struct kept_key *kept, const struct way *way,
                     struct bytes digest, uint8_t *block, size_t size)
{
    const EVP_MD *hash = sign->hashes[way->hash];
    if (way->padding == TLS_PADDING_PKCS1)
        return rsa_block_pkcs1(HASHES[way->hash], digest, block, size);
    return hash != NULL &&
           rsa_block_pss(sign->digest, hash, digest, (unsigned)EVP_PKEY_get_bits(kept->private), block);
}

/* A fault while an RSA signature is computed can give the private key away (Boneh, DeMillo, Lipton 1997).
 * libcrypto checks what the remainder theorem gave it, but not what it computes where that was wrong, and not
 * with another modulus than the one it has computed with. So each signature must open to the block that it
 * was made of; since the block is ours, that is a fiftieth of signing, and to compare octets. An ECDSA
 * verification would cost thrice the signature. */
static enum kssl_error sign_rsa(const struct signer_sign *sign, struct kept_key *kept, const struct way *way,
                                struct bytes digest, uint8_t *signature, size_t *size)
{
    uint8_t block[KEY_RSA_MAX_BITS / 8];
    const size_t block_size = (size_t)EVP_PKEY_get_size(kept->private), room = *size;
    if (kept->sign == NULL)
        kept->sign = context_new(kept->private, EVP_PKEY_sign_init, true);
    if (kept->public == NULL)
        kept->public = rsa_public_new(kept->private);
    if (kept->sign == NULL || kept->public == NULL || block_size > sizeof block || block_size > room ||
        !block_of(sign, kept, way, digest, block, block_size) ||
        EVP_PKEY_sign(kept->sign, signature, size, block, block_size) != 1)
        return KSSL_ERROR_CRYPTO;
    if (rsa_public_opens(kept->public, bytes_of(signature, *size), bytes_of(block, block_size)))
        return KSSL_ERROR_NONE;
    OPENSSL_cleanse(signature, room);
    return KSSL_ERROR_INTERNAL;
}

static enum kssl_error sign_ecdsa(struct kept_key *kept, struct bytes digest, uint8_t *signature,
                                  size_t *size)
{
    if (kept->sign == NULL)
        kept->sign = context_new(kept->private, EVP_PKEY_sign_init, false);
    return kept->sign != NULL && EVP_PKEY_sign(kept->sign, signature, size, digest.data, digest.size) == 1
               ? KSSL_ERROR_NONE
               : KSSL_ERROR_CRYPTO;
}

static enum kssl_error sign_digest(const struct signer_sign *sign, struct kept_key *kept,
                                   const struct way *way, struct bytes digest, uint8_t *signature,
                                   size_t *size)
{
    if (way->padding == TLS_PADDING_NONE)
        return sign_ecdsa(kept, digest, signature, size);
    return sign_rsa(sign, kept, way, digest, signature, size);
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
    if (kept->decrypt == NULL)
        kept->decrypt = context_new(kept->private, EVP_PKEY_decrypt_init, true);
    const size_t room = *size;
    return kept->decrypt != NULL &&
                   EVP_PKEY_decrypt(kept->decrypt, block, size, ciphertext.data, ciphertext.size) == 1 &&
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
