#include "proxy/certificate_file.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/x509.h>

#include "common/socket.h"

#define FILE_MAX     1048576
#define DER_SEQUENCE 0x30 /* what every key in DER begins with */

/* ---- Private keys in disguise. */

static bool is_pem_key(struct bytes content)
{
    static const char label[] = "PRIVATE KEY-----";
    return memmem(content.data, content.size, label, sizeof label - 1) != NULL;
}

/* PKCS#8, plain: also of algorithms that libcrypto does not know. */
static bool is_pkcs8(struct bytes content)
{
    const unsigned char *at = content.data;
    PKCS8_PRIV_KEY_INFO *info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &at, (long)content.size);
    PKCS8_PRIV_KEY_INFO_free(info);
    return info != NULL;
}

/* PKCS#8, encrypted: an algorithm and an octet string. */
static bool is_encrypted_pkcs8(struct bytes content)
{
    const unsigned char *at = content.data;
    X509_SIG *sealed = d2i_X509_SIG(NULL, &at, (long)content.size);
    X509_SIG_free(sealed);
    return sealed != NULL;
}

static bool is_pkcs12(struct bytes content)
{
    const unsigned char *at = content.data;
    PKCS12 *container = d2i_PKCS12(NULL, &at, (long)content.size);
    PKCS12_free(container);
    return container != NULL;
}

/* PKCS#1 and SEC1. */
static bool is_traditional(struct bytes content)
{
    const unsigned char *at = content.data;
    EVP_PKEY *key = d2i_AutoPrivateKey(NULL, &at, (long)content.size);
    EVP_PKEY_free(key);
    return key != NULL;
}

bool certificate_file_holds_key(struct bytes content)
{
    if (content.data == NULL || content.size == 0 || content.size > FILE_MAX)
        return false;
    if (is_pem_key(content))
        return true;
    if (content.data[0] != DER_SEQUENCE) /* libcrypto takes milliseconds to find out that text is no DER */
        return false;
    (void)ERR_set_mark();
    bool holds =
        is_pkcs8(content) || is_encrypted_pkcs8(content) || is_pkcs12(content) || is_traditional(content);
    (void)ERR_pop_to_mark();
    return holds;
}

/* ---- Reading. */

struct content {
    uint8_t *data;
    size_t size;
};

/* It may turn out to have been a key. */
static void content_clear(struct content *content)
{
    if (content->data != NULL)
        OPENSSL_cleanse(content->data, content->size);
    free(content->data);
    content->data = NULL;
}

static enum result content_fill(const char *path, int fd, struct content *content, struct failure *why)
{
    size_t got = 0;
    while (got < content->size) {
        ssize_t n = read(fd, content->data + got, content->size - got);
        if (n < 0)
            return failure_set_errno(why, "%s", path);
        if (n == 0)
            break;
        got += (size_t)n;
    }
    content->size = got;
    return RESULT_OK;
}

static enum result content_read(const char *path, struct content *content, struct failure *why)
{
    int fd CLEANUP(socket_close) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        return failure_set_errno(why, "%s", path);
    if (!S_ISREG(status.st_mode))
        return failure_set(why, RESULT_CONFIG, "%s: not a regular file", path);
    if (status.st_size == 0 || status.st_size > FILE_MAX)
        return failure_set(why, RESULT_CONFIG, "%s: a chain file has 1 .. %d bytes, not %lld", path, FILE_MAX,
                           (long long)status.st_size);
    content->size = (size_t)status.st_size;
    content->data = malloc(content->size);
    if (content->data == NULL)
        return failure_set_errno(why, "%s", path);
    return content_fill(path, fd, content, why);
}

/* ---- Parsing. */

static bool is_end_of_pem(void)
{
    unsigned long code = ERR_peek_last_error();
    return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

static bool next_pem(BIO *from, struct certificate_chain *chain)
{
    unsigned char *data = NULL;
    long size = 0;
    if (chain->count > CHAIN_CERTIFICATES_MAX ||
        PEM_bytes_read_bio(&data, &size, NULL, PEM_STRING_X509, from, NULL, NULL) != 1)
        return false;
    chain->der[chain->count++] = bytes_of(data, (size_t)size);
    return true;
}

static enum result parse_pem(const char *path, BIO *from, struct certificate_chain *chain,
                             struct failure *why)
{
    ERR_clear_error();
    while (next_pem(from, chain))
        continue;
    if (chain->count <= CHAIN_CERTIFICATES_MAX && !is_end_of_pem())
        return failure_set_openssl(why, "%s: certificate number %zu does not parse", path, chain->count + 1);
    ERR_clear_error();
    return RESULT_OK;
}

static enum result parse_der(const char *path, struct content content, struct certificate_chain *chain,
                             struct failure *why)
{
    const unsigned char *at = content.data;
    X509 *leaf = d2i_X509(NULL, &at, (long)content.size);
    X509_free(leaf);
    ERR_clear_error();
    if (leaf == NULL)
        return failure_set(why, RESULT_CONFIG, "%s: holds no certificate", path);
    if (at != content.data + content.size) /* its key, perhaps */
        return failure_set(why, RESULT_CONFIG, "%s: in DER, a certificate must be alone in its file", path);
    chain->der[0] = bytes_of(OPENSSL_memdup(content.data, content.size), content.size);
    chain->count = 1;
    return chain->der[0].data != NULL ? RESULT_OK : failure_set_errno(why, "%s", path);
}

static enum result parse(const char *path, struct content content, struct certificate_chain *chain,
                         struct failure *why)
{
    BIO *from = BIO_new_mem_buf(content.data, (int)content.size);
    if (from == NULL)
        return failure_set_openssl(why, "%s", path);
    enum result result = parse_pem(path, from, chain, why);
    BIO_free(from);
    if (result == RESULT_OK && chain->count == 0)
        result = parse_der(path, content, chain, why);
    return result == RESULT_OK ? RESULT_OK : RESULT_CONFIG;
}

static enum result refuse_key(const char *path, struct content content, struct failure *why)
{
    if (!certificate_file_holds_key(bytes_of(content.data, content.size)))
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG,
                       "%s: holds a private key: a site's keys belong on the key server and nowhere near the "
                       "proxy; remove it from this machine",
                       path);
}

enum result certificate_file_refuse_key(const char *path, struct failure *why)
{
    struct content content CLEANUP(content_clear) = {0};
    if (content_read(path, &content, NULL) != RESULT_OK)
        return RESULT_OK;
    return refuse_key(path, content, why);
}

enum result certificate_file_read(const char *path, struct certificate_chain *chain, struct failure *why)
{
    *chain = (struct certificate_chain){0};
    struct content content CLEANUP(content_clear) = {0};
    enum result result = content_read(path, &content, why);
    if (result == RESULT_OK)
        result = refuse_key(path, content, why);
    if (result == RESULT_OK)
        result = parse(path, content, chain, why);
    if (result != RESULT_OK)
        certificate_chain_clear(chain);
    return result;
}

void certificate_chain_clear(struct certificate_chain *chain)
{
    for (size_t i = 0; i < chain->count; i++)
        OPENSSL_free((void *)chain->der[i].data);
    *chain = (struct certificate_chain){0};
}
