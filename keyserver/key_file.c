#include "keyserver/key_file.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/core_dispatch.h>
#include <openssl/decoder.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>

#include "common/bytes.h"
#include "common/secret_file.h"

static void key_free(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

/* ---- DER. */

struct key_decoder {
    OSSL_DECODER_CTX *context;
    EVP_PKEY *key; /* where the context puts what it has decoded */
};

struct key_decoder *key_decoder_new(void)
{
    struct key_decoder *decoder = calloc(1, sizeof *decoder);
    if (decoder == NULL)
        return NULL;
    decoder->context = OSSL_DECODER_CTX_new_for_pkey(&decoder->key, "DER", NULL, NULL,
                                                     OSSL_KEYMGMT_SELECT_KEYPAIR, NULL, NULL);
    if (decoder->context != NULL)
        return decoder;
    key_decoder_free(decoder);
    return NULL;
}

void key_decoder_free(struct key_decoder *decoder)
{
    if (decoder == NULL)
        return;
    OSSL_DECODER_CTX_free(decoder->context);
    EVP_PKEY_free(decoder->key);
    free(decoder);
}

/* PKCS#8, PKCS#1 or SEC1, and nothing behind it. */
static EVP_PKEY *decode(struct key_decoder *decoder, struct bytes der)
{
    const unsigned char *at = der.data;
    size_t left = der.size;
    decoder->key = NULL;
    bool decoded = OSSL_DECODER_from_data(decoder->context, &at, &left) == 1;
    EVP_PKEY *key = decoder->key;
    decoder->key = NULL;
    if (decoded && left == 0)
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

static bool der_is_encrypted(struct bytes der)
{
    const unsigned char *at = der.data;
    X509_SIG *envelope = d2i_X509_SIG(NULL, &at, (long)der.size);
    X509_SIG_free(envelope);
    return envelope != NULL && at == der.data + der.size;
}

static enum result encrypted(const char *path, struct failure *why)
{
    return failure_set(
        why, RESULT_CONFIG,
        "%s: the private key is encrypted; expected one that is not (openssl pkey -in ... -out ...)", path);
}

static enum result read_der(const char *path, struct key_decoder *decoder, struct bytes der, EVP_PKEY **key,
                            struct failure *why)
{
    /* Asked first, so that nobody is ever asked for a pass phrase. */
    bool is_encrypted = der_is_encrypted(der);
    if (!is_encrypted)
        *key = decode(decoder, der);
    ERR_clear_error();
    if (is_encrypted)
        return encrypted(path, why);
    if (*key != NULL)
        return RESULT_OK;
    return failure_set(
        why, RESULT_CONFIG,
        "%s: no private key can be read from it; expected PEM or DER of PKCS#8, PKCS#1 or SEC1", path);
}

/* ---- PEM. */

struct pem_block {
    char *name, *header;
    unsigned char *data;
    long size;
};

static void pem_block_free(struct pem_block *block)
{
    OPENSSL_free(block->name);
    OPENSSL_free(block->header);
    OPENSSL_clear_free(block->data, block->size > 0 ? (size_t)block->size : 0);
}

static bool name_is_known(const char *name)
{
    static const char *const NAMES[] = {"PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY"};
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(NAMES[i], name) == 0)
            return true;
    return false;
}

static bool name_is_private_key(const char *name)
{
    const char *ending = strstr(name, "PRIVATE KEY");
    return ending != NULL && strcmp(ending, "PRIVATE KEY") == 0;
}

static enum result pem_block_key(const char *path, struct key_decoder *decoder, const struct pem_block *block,
                                 EVP_PKEY **key, struct failure *why)
{
    if (!name_is_private_key(block->name))
        return RESULT_OK;
    if (strcmp(block->name, "ENCRYPTED PRIVATE KEY") == 0 || strstr(block->header, "ENCRYPTED") != NULL)
        return encrypted(path, why);
    if (*key != NULL)
        return failure_set(why, RESULT_CONFIG, "%s: more than one private key; expected one a file", path);
    if (!name_is_known(block->name))
        return failure_set(why, RESULT_CONFIG, "%s: a private key of a kind that TLS servers do not use",
                           path);
    *key = decode(decoder, bytes_of(block->data, (size_t)block->size));
    if (*key != NULL)
        return RESULT_OK;
    return failure_set_openssl(why, "%s: the private key cannot be read", path);
}

/* Each block in turn; *blocks counts them. */
static enum result pem_blocks(const char *path, struct key_decoder *decoder, BIO *from, EVP_PKEY **key,
                              unsigned *blocks, struct failure *why)
{
    for (;;) {
        struct pem_block block CLEANUP(pem_block_free) = {0};
        if (PEM_read_bio(from, &block.name, &block.header, &block.data, &block.size) != 1)
            break;
        ++*blocks;
        enum result result = pem_block_key(path, decoder, &block, key, why);
        if (result != RESULT_OK)
            return result;
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        return failure_set_openssl(why, "%s: damaged PEM", path);
    ERR_clear_error();
    return RESULT_OK;
}

static enum result read_pem(const char *path, struct key_decoder *decoder, struct bytes text, EVP_PKEY **key,
                            struct failure *why)
{
    BIO *from = BIO_new_mem_buf(text.data, (int)text.size);
    if (from == NULL)
        return failure_set_openssl(why, "%s", path);
    unsigned blocks = 0;
    enum result result = pem_blocks(path, decoder, from, key, &blocks, why);
    BIO_free(from);
    if (result == RESULT_OK && *key == NULL)
        return failure_set(why, RESULT_CONFIG, "%s: no private key among its %u PEM blocks", path, blocks);
    return result;
}

static bool is_pem(struct bytes content)
{
    static const char BEGIN[] = "-----BEGIN ";
    return content.size > 0 && memmem(content.data, content.size, BEGIN, sizeof BEGIN - 1) != NULL;
}

enum result key_file_read(struct key_decoder *decoder, const char *path, EVP_PKEY **key, struct failure *why)
{
    static const struct secret_file_kind KIND = {"a private key", KEY_FILE_MAX};
    struct secret_file file CLEANUP(secret_file_wipe) = {0};
    EVP_PKEY *read CLEANUP(key_free) = NULL;
    *key = NULL;
    enum result result = secret_file_read(path, &KIND, &file, why);
    if (result != RESULT_OK)
        return result;
    struct bytes octets = secret_file_bytes(&file);
    result = is_pem(octets) ? read_pem(path, decoder, octets, &read, why)
                            : read_der(path, decoder, octets, &read, why);
    if (result != RESULT_OK) {
        if (why != NULL)
            why->kind = RESULT_CONFIG;
        return RESULT_CONFIG;
    }
    *key = read;
    read = NULL;
    return RESULT_OK;
}
