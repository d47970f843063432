#include "tests/bench/sample.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include "common/kssl.h"
#include "common/tls_handshake.h"

enum { TLS_1_2 = 0x0303, TLS_1_3 = 0x0304, AES_128_GCM_SHA256 = 0x1301, X25519 = 0x001D, X25519_SIZE = 32 };

#define NAME_MAX_SIZE 253

static const char PROTOCOL[] = "h2";

/* ---- The chain. */

static bool write_certificate(struct writer *to, X509 *certificate)
{
    uint8_t *der = NULL;
    int size = i2d_X509(certificate, &der);
    if (size <= 0)
        return false;
    WRITE_VECTOR(to, 3)
    {
        write_bytes(to, bytes_of(der, (size_t)size));
    }
    write_u16(to, 0); /* no extensions */
    OPENSSL_free(der);
    return true;
}

/* A wildcard stands for one of the names that it covers. */
static bool take_name(X509 *leaf, char name[static NAME_MAX_SIZE + 1])
{
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    bool found = false;
    for (int i = 0; i < sk_GENERAL_NAME_num(names) && !found; i++) {
        const GENERAL_NAME *entry = sk_GENERAL_NAME_value(names, i);
        if (entry->type != GEN_DNS)
            continue;
        const char *text = (const char *)ASN1_STRING_get0_data(entry->d.dNSName);
        int size = ASN1_STRING_length(entry->d.dNSName);
        bool wildcard = size > 0 && text[0] == '*';
        found = size > 0 && size < NAME_MAX_SIZE;
        if (found)
            (void)snprintf(name, NAME_MAX_SIZE + 1, "%s%.*s", wildcard ? "w" : "", wildcard ? size - 1 : size,
                           wildcard ? text + 1 : text);
    }
    GENERAL_NAMES_free(names);
    return found;
}

/* All certificates of the file as the entries of a Certificate message, and the leaf's name. */
static enum result write_chain(struct writer *to, const char *path, char name[static NAME_MAX_SIZE + 1],
                               struct failure *why)
{
    BIO *file = BIO_new_file(path, "r");
    if (file == NULL)
        return failure_set_openssl(why, "%s", path);
    unsigned count = 0;
    bool good = true;
    for (X509 *certificate; good && (certificate = PEM_read_bio_X509(file, NULL, NULL, NULL)) != NULL;
         count++) {
        good = write_certificate(to, certificate) && (count > 0 || take_name(certificate, name));
        X509_free(certificate);
    }
    BIO_free(file);
    ERR_clear_error();
    if (count == 0)
        return failure_set(why, RESULT_CONFIG, "%s: no certificate, which transcripts need", path);
    return good ? RESULT_OK : failure_set(why, RESULT_CONFIG, "%s: the certificate names no host", path);
}

/* ---- The messages. */

#define WRITE_MESSAGE(to, type)                                                                              \
    write_u8((to), (type));                                                                                  \
    WRITE_VECTOR((to), 3)

#define WRITE_EXTENSION(to, type)                                                                            \
    write_u16((to), (type));                                                                                 \
    WRITE_VECTOR((to), 2)

static void write_name(struct writer *to, const char *name)
{
    const uint8_t host_name = 0;
    WRITE_EXTENSION(to, TLS_EXTENSION_SERVER_NAME)
    {
        WRITE_VECTOR(to, 2)
        {
            write_u8(to, host_name);
            WRITE_VECTOR(to, 2)
            {
                write_bytes(to, bytes_of(name, strlen(name)));
            }
        }
    }
}

static void write_numbers(struct writer *to, uint16_t extension, const uint16_t *numbers, size_t count)
{
    WRITE_EXTENSION(to, extension)
    {
        WRITE_VECTOR(to, 2)
        {
            for (size_t i = 0; i < count; i++)
                write_u16(to, numbers[i]);
        }
    }
}

static void write_protocol(struct writer *to)
{
    WRITE_EXTENSION(to, TLS_EXTENSION_ALPN)
    {
        WRITE_VECTOR(to, 2)
        {
            WRITE_VECTOR(to, 1)
            {
                write_bytes(to, bytes_of(PROTOCOL, sizeof PROTOCOL - 1));
            }
        }
    }
}

static void write_share(struct writer *to)
{
    write_u16(to, X25519);
    WRITE_VECTOR(to, 2)
    {
        write_fill(to, 9, X25519_SIZE);
    }
}

static void write_client_extensions(struct writer *to, const char *name)
{
    static const uint16_t GROUPS[] = {X25519, 0x0017, 0x0018};
    static const uint16_t SCHEMES[] = {0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0804, 0x0805, 0x0806};
    write_name(to, name);
    write_protocol(to);
    write_numbers(to, TLS_EXTENSION_SUPPORTED_GROUPS, GROUPS, sizeof GROUPS / sizeof *GROUPS);
    write_numbers(to, TLS_EXTENSION_SIGNATURE_ALGORITHMS, SCHEMES, sizeof SCHEMES / sizeof *SCHEMES);
    WRITE_EXTENSION(to, TLS_EXTENSION_SUPPORTED_VERSIONS)
    {
        WRITE_VECTOR(to, 1)
        {
            write_u16(to, TLS_1_3);
            write_u16(to, TLS_1_2);
        }
    }
    WRITE_EXTENSION(to, TLS_EXTENSION_KEY_SHARE)
    {
        WRITE_VECTOR(to, 2)
        {
            write_share(to);
        }
    }
}

/* Version, random and session id of either hello. */
static void write_hello(struct writer *to, size_t *random)
{
    write_u16(to, TLS_1_2);
    *random = to->size;
    write_fill(to, 0, TLS_RANDOM_SIZE);
    WRITE_VECTOR(to, 1)
    {
        write_fill(to, 's', 32);
    }
}

static void write_client_hello(struct sample *sample, struct writer *to, const char *name)
{
    static const uint16_t SUITES[] = {AES_128_GCM_SHA256, 0x1302, 0x1303, 0xC02B, 0xC02F, 0xC02C, 0xC030};
    WRITE_MESSAGE(to, TLS_CLIENT_HELLO)
    {
        write_hello(to, &sample->client_random);
        WRITE_VECTOR(to, 2)
        {
            for (size_t i = 0; i < sizeof SUITES / sizeof *SUITES; i++)
                write_u16(to, SUITES[i]);
        }
        write_u16(to, 0x0100); /* one method of compression: none */
        WRITE_VECTOR(to, 2)
        {
            write_client_extensions(to, name);
        }
    }
}

static void write_server_hello(struct sample *sample, struct writer *to)
{
    WRITE_MESSAGE(to, TLS_SERVER_HELLO)
    {
        write_hello(to, &sample->server_random);
        write_u16(to, AES_128_GCM_SHA256);
        write_u8(to, 0); /* no compression */
        WRITE_VECTOR(to, 2)
        {
            WRITE_EXTENSION(to, TLS_EXTENSION_SUPPORTED_VERSIONS)
            {
                write_u16(to, TLS_1_3);
            }
            WRITE_EXTENSION(to, TLS_EXTENSION_KEY_SHARE)
            {
                write_share(to);
            }
        }
    }
}

static void write_messages(struct sample *sample, struct writer *to, const char *name, struct bytes entries)
{
    write_client_hello(sample, to, name);
    write_server_hello(sample, to);
    WRITE_MESSAGE(to, TLS_ENCRYPTED_EXTENSIONS)
    {
        WRITE_VECTOR(to, 2)
        {
            write_protocol(to);
        }
    }
    WRITE_MESSAGE(to, TLS_CERTIFICATE)
    {
        write_u8(to, 0); /* no context */
        WRITE_VECTOR(to, 3)
        {
            write_bytes(to, entries);
        }
    }
}

static enum result fill(struct sample *sample, uint8_t *entries, const char *chain, const char *sni,
                        struct failure *why)
{
    char name[NAME_MAX_SIZE + 1];
    struct writer entries_to = writer_of(entries, KSSL_PAYLOAD_MAX);
    struct writer to = writer_of(sample->messages, KSSL_PAYLOAD_MAX);
    enum result result = write_chain(&entries_to, chain, name, why);
    if (result != RESULT_OK)
        return result;
    write_messages(sample, &to, sni != NULL ? sni : name, writer_bytes(&entries_to));
    sample->size = to.size;
    return writer_ok(&entries_to) && writer_ok(&to)
               ? RESULT_OK
               : failure_set(why, RESULT_CONFIG, "%s: the chain is too long for a request", chain);
}

enum result sample_open(struct sample *sample, const char *chain, const char *sni, struct failure *why)
{
    uint8_t *entries = malloc(KSSL_PAYLOAD_MAX);
    sample->messages = malloc(KSSL_PAYLOAD_MAX);
    enum result result = entries != NULL && sample->messages != NULL
                             ? fill(sample, entries, chain, sni, why)
                             : failure_set(why, RESULT_SYSTEM, "no memory");
    free(entries);
    return result;
}

void sample_close(struct sample *sample)
{
    free(sample->messages);
}

/* ---- One handshake. */

/* The pieces between and after the randoms. */
static void pieces_of(const struct sample *sample, const uint8_t *seed, struct bytes pieces[static 5])
{
    const uint8_t *messages = sample->messages;
    size_t behind_client = sample->client_random + TLS_RANDOM_SIZE;
    size_t behind_server = sample->server_random + TLS_RANDOM_SIZE;
    pieces[0] = bytes_of(messages, sample->client_random);
    pieces[1] = bytes_of(seed, TLS_RANDOM_SIZE);
    pieces[2] = bytes_of(messages + behind_client, sample->server_random - behind_client);
    pieces[3] = bytes_of(seed + TLS_RANDOM_SIZE, TLS_RANDOM_SIZE);
    pieces[4] = bytes_of(messages + behind_server, sample->size - behind_server);
}

void sample_write(const struct sample *sample, const uint8_t seed[static SAMPLE_SEED_SIZE], struct writer *to)
{
    struct bytes pieces[5];
    pieces_of(sample, seed, pieces);
    for (size_t i = 0; i < 5; i++)
        write_bytes(to, pieces[i]);
}

bool sample_hash(const struct sample *sample, const uint8_t seed[static SAMPLE_SEED_SIZE],
                 uint8_t hash[static SAMPLE_HASH_SIZE])
{
    struct bytes pieces[5];
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool good = context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1;
    pieces_of(sample, seed, pieces);
    for (size_t i = 0; i < 5 && good; i++)
        good = EVP_DigestUpdate(context, pieces[i].data, pieces[i].size) == 1;
    good = good && EVP_DigestFinal_ex(context, hash, NULL) == 1;
    EVP_MD_CTX_free(context);
    return good;
}
