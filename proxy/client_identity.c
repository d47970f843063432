#include "proxy/client_identity.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/x509v3.h>

#include "common/bytes.h"

/* What is not printable in a name becomes a ?, so that a zero in it cuts nothing. */
static void append(char *text, size_t size, const char *prefix, struct bytes value)
{
    size_t used = (size_t)snprintf(text, size, "%s", prefix);
    for (size_t i = 0; i < value.size && used + 1 < size; i++)
        text[used++] = (char)(value.data[i] > ' ' && value.data[i] < 0x7f ? value.data[i] : '?');
    text[used] = '\0';
}

static void hex(char *text, size_t size, struct bytes value)
{
    text[0] = '\0';
    for (size_t i = 0; i < value.size && 2 * i + 2 < size; i++)
        (void)snprintf(text + 2 * i, 3, "%02x", value.data[i]);
}

static void note_subject(struct client_identity *identity, X509 *certificate)
{
    BIO *memory = BIO_new(BIO_s_mem());
    char *text = NULL;
    if (memory == NULL)
        return;
    (void)X509_NAME_print_ex(memory, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
    long size = BIO_get_mem_data(memory, &text);
    if (size > 0)
        (void)snprintf(identity->subject, sizeof identity->subject, "%.*s", (int)size, text);
    BIO_free(memory);
}

static void note_san(struct client_identity *identity, X509 *certificate)
{
    static const char *const PREFIXES[] = {[GEN_EMAIL] = "email:", [GEN_DNS] = "DNS:", [GEN_URI] = "URI:"};
    GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && identity->san[0] == '\0'; i++) {
        int type;
        const ASN1_STRING *value = GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, i), &type);
        if (type == GEN_DNS || type == GEN_URI || type == GEN_EMAIL)
            append(identity->san, sizeof identity->san, PREFIXES[type],
                   bytes_of(ASN1_STRING_get0_data(value), (size_t)ASN1_STRING_length(value)));
    }
    GENERAL_NAMES_free(names);
}

struct client_identity *client_identity_of(X509 *certificate)
{
    struct client_identity *identity = calloc(1, sizeof *identity);
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned size = 0;
    if (identity == NULL)
        return NULL;
    const ASN1_INTEGER *serial = X509_get0_serialNumber(certificate);
    note_subject(identity, certificate);
    note_san(identity, certificate);
    if (X509_digest(certificate, EVP_sha256(), digest, &size) == 1)
        hex(identity->fingerprint, sizeof identity->fingerprint, bytes_of(digest, size));
    hex(identity->serial, sizeof identity->serial,
        bytes_of(ASN1_STRING_get0_data(serial), (size_t)ASN1_STRING_length(serial)));
    return identity;
}

struct client_identity *client_identity_copy(const struct client_identity *identity)
{
    struct client_identity *copy = identity != NULL ? malloc(sizeof *copy) : NULL;
    if (copy != NULL)
        *copy = *identity;
    return copy;
}
