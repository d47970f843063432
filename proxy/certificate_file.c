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
#include <openssl/x509v3.h>

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

static X509 *next_pem(BIO *from)
{
    return PEM_read_bio_X509(from, NULL, NULL, NULL);
}

static bool is_end_of_pem(void)
{
    unsigned long code = ERR_peek_last_error();
    return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

static enum result parse_pem(const char *path, BIO *from, struct certificate *certificate,
                             struct failure *why)
{
    ERR_clear_error();
    X509 *next;
    certificate->leaf = next_pem(from);
    while (certificate->leaf != NULL && (next = next_pem(from)) != NULL) {
        if (sk_X509_push(certificate->chain, next) == 0) {
            X509_free(next);
            return failure_set_openssl(why, "%s", path);
        }
    }
    if (!is_end_of_pem())
        return failure_set_openssl(why, "%s: certificate number %d does not parse", path,
                                   certificate->leaf == NULL ? 1 : sk_X509_num(certificate->chain) + 2);
    ERR_clear_error();
    return RESULT_OK;
}

static enum result parse_der(const char *path, struct content content, struct certificate *certificate,
                             struct failure *why)
{
    const unsigned char *at = content.data;
    certificate->leaf = d2i_X509(NULL, &at, (long)content.size);
    ERR_clear_error();
    if (certificate->leaf == NULL)
        return failure_set(why, RESULT_CONFIG, "%s: holds no certificate", path);
    if (at != content.data + content.size) /* its key, perhaps */
        return failure_set(why, RESULT_CONFIG, "%s: in DER, a certificate must be alone in its file", path);
    return RESULT_OK;
}

static enum result parse(const char *path, struct content content, struct certificate *certificate,
                         struct failure *why)
{
    BIO *from = BIO_new_mem_buf(content.data, (int)content.size);
    certificate->chain = sk_X509_new_null();
    if (from == NULL || certificate->chain == NULL) {
        BIO_free(from);
        return failure_set_openssl(why, "%s", path);
    }
    enum result result = parse_pem(path, from, certificate, why);
    BIO_free(from);
    if (result == RESULT_OK && certificate->leaf == NULL)
        result = parse_der(path, content, certificate, why);
    return result == RESULT_OK ? RESULT_OK : RESULT_CONFIG;
}

/* ---- Checks. */

static enum result check_order(const char *path, const struct certificate *certificate, struct failure *why)
{
    X509 *below = certificate->leaf;
    for (int i = 0; i < sk_X509_num(certificate->chain); i++) {
        X509 *above = sk_X509_value(certificate->chain, i);
        int problem = X509_check_issued(above, below);
        if (problem != X509_V_OK)
            return failure_set(why, RESULT_CONFIG,
                               "%s: certificate %d is not the issuer of the one before it (%s): expected the "
                               "site's own certificate, then its issuer, and so on",
                               path, i + 2, X509_verify_cert_error_string(problem));
        below = above;
    }
    return RESULT_OK;
}

/* Each CertificateEntry has a length of 3 octets and one of 2 for its extensions (RFC 8446 section 4.4.2). */
static enum result check_size(const char *path, const struct certificate *certificate, struct failure *why)
{
    size_t total = 4 + 1 + 3 + (size_t)i2d_X509(certificate->leaf, NULL) + 5;
    for (int i = 0; i < sk_X509_num(certificate->chain); i++)
        total += (size_t)i2d_X509(sk_X509_value(certificate->chain, i), NULL) + 5;
    if (total > CERTIFICATE_MESSAGE_MAX)
        return failure_set(why, RESULT_CONFIG,
                           "%s: its Certificate message would have %zu bytes, the most allowed is %d", path,
                           total, CERTIFICATE_MESSAGE_MAX);
    return RESULT_OK;
}

static enum result check_key(const char *path, struct certificate *certificate, struct failure *why)
{
    struct failure reason;
    EVP_PKEY *key = X509_get0_pubkey(certificate->leaf);
    if (key == NULL)
        return failure_set_openssl(why, "%s: its public key does not parse", path);
    if (key_id_of(key, &certificate->key, &reason) != RESULT_OK)
        return failure_set(why, RESULT_CONFIG, "%s: %s", path, reason.text);
    return RESULT_OK;
}

static enum result take_mark(const char *path, struct certificate *certificate, struct failure *why)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (X509_digest(certificate->leaf, EVP_sha256(), digest, NULL) != 1)
        return failure_set_openssl(why, "%s", path);
    memcpy(certificate->mark, digest, sizeof certificate->mark);
    return RESULT_OK;
}

static enum result certificate_check(const char *path, struct certificate *certificate, struct failure *why)
{
    enum result result = check_order(path, certificate, why);
    if (result == RESULT_OK)
        result = check_size(path, certificate, why);
    if (result == RESULT_OK)
        result = check_key(path, certificate, why);
    if (result == RESULT_OK)
        result = take_mark(path, certificate, why);
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

enum result certificate_file_read(const char *path, struct certificate *certificate, struct failure *why)
{
    *certificate = (struct certificate){0};
    struct content content CLEANUP(content_clear) = {0};
    enum result result = content_read(path, &content, why);
    if (result != RESULT_OK)
        return result;
    result = refuse_key(path, content, why);
    if (result != RESULT_OK)
        return result;
    certificate->path = strdup(path);
    if (certificate->path == NULL)
        return failure_set_errno(why, "%s", path);
    result = parse(path, content, certificate, why);
    if (result == RESULT_OK)
        result = certificate_check(path, certificate, why);
    if (result != RESULT_OK)
        certificate_clear(certificate);
    return result;
}

void certificate_clear(struct certificate *certificate)
{
    free(certificate->path);
    X509_free(certificate->leaf);
    sk_X509_pop_free(certificate->chain, X509_free);
    *certificate = (struct certificate){0};
}
