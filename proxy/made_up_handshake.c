#include "proxy/made_up_handshake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include "common/tls_handshake.h"

enum { TLS_1_2 = 0x0303, TLS_1_3 = 0x0304, AES_128_GCM_SHA256 = 0x1301, X25519 = 0x001D, X25519_SIZE = 32 };

#define HASH_SIZE 32 /* the suite's */
/* Of messages other than Certificate. */
#define SMALL_MESSAGE_MAX 2048

#define WRITE_MESSAGE(to, type)                                                                              \
    write_u8((to), (type));                                                                                  \
    WRITE_VECTOR((to), 3)

#define WRITE_EXTENSION(to, type)                                                                            \
    write_u16((to), (type));                                                                                 \
    WRITE_VECTOR((to), 2)

static struct bytes text_bytes(const char *text)
{
    return bytes_of(text, strlen(text));
}

static void write_random(struct writer *to, size_t size)
{
    uint8_t random[TLS_RANDOM_SIZE] = {0};
    (void)RAND_bytes(random, (int)size);
    write_bytes(to, bytes_of(random, size));
}

/* ---- Extensions. */

static void write_name(struct writer *to, const char *name)
{
    WRITE_EXTENSION(to, TLS_EXTENSION_SERVER_NAME)
    {
        WRITE_VECTOR(to, 2)
        {
            write_u8(to, 0); /* host_name */
            WRITE_VECTOR(to, 2)
            {
                write_bytes(to, text_bytes(name));
            }
        }
    }
}

static void write_protocol(struct writer *to, const char *alpn)
{
    if (alpn == NULL)
        return;
    WRITE_EXTENSION(to, TLS_EXTENSION_ALPN)
    {
        WRITE_VECTOR(to, 2)
        {
            write_vector8(to, text_bytes(alpn));
        }
    }
}

static void write_number_list(struct writer *to, uint16_t extension, uint16_t number)
{
    WRITE_EXTENSION(to, extension)
    {
        WRITE_VECTOR(to, 2)
        {
            write_u16(to, number);
        }
    }
}

static void write_share(struct writer *to)
{
    write_u16(to, X25519);
    WRITE_VECTOR(to, 2)
    {
        write_random(to, X25519_SIZE);
    }
}

/* ---- Messages. */

static void write_hello(struct writer *to)
{
    write_u16(to, TLS_1_2);
    write_random(to, TLS_RANDOM_SIZE);
    write_u8(to, 0); /* no session id */
}

static void write_client_hello(struct writer *to, const struct made_up_handshake *made, const char *alpn)
{
    WRITE_MESSAGE(to, TLS_CLIENT_HELLO)
    {
        write_hello(to);
        WRITE_VECTOR(to, 2)
        {
            write_u16(to, AES_128_GCM_SHA256);
        }
        write_u16(to, 0x0100); /* one method of compression: none */
        WRITE_VECTOR(to, 2)
        {
            write_name(to, made->name);
            write_protocol(to, alpn);
            write_number_list(to, TLS_EXTENSION_SUPPORTED_GROUPS, X25519);
            write_number_list(to, TLS_EXTENSION_SIGNATURE_ALGORITHMS, made->scheme);
            WRITE_EXTENSION(to, TLS_EXTENSION_SUPPORTED_VERSIONS)
            {
                WRITE_VECTOR(to, 1)
                {
                    write_u16(to, TLS_1_3);
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
    }
}

static void write_server_hello(struct writer *to)
{
    WRITE_MESSAGE(to, TLS_SERVER_HELLO)
    {
        write_hello(to);
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

static void write_encrypted_extensions(struct writer *to, const char *alpn)
{
    WRITE_MESSAGE(to, TLS_ENCRYPTED_EXTENSIONS)
    {
        WRITE_VECTOR(to, 2)
        {
            write_protocol(to, alpn);
        }
    }
}

static void write_entry(struct writer *to, struct bytes der)
{
    WRITE_VECTOR(to, 3)
    {
        write_bytes(to, der);
    }
    write_u16(to, 0); /* no extensions */
}

static void write_issuer(struct writer *to, X509 *issuer)
{
    unsigned char *der = NULL;
    int size = i2d_X509(issuer, &der);
    write_entry(to, bytes_of(der, size > 0 ? (size_t)size : 0));
    OPENSSL_free(der);
}

static void write_certificate(struct writer *to, const struct certificate *certificate)
{
    WRITE_MESSAGE(to, TLS_CERTIFICATE)
    {
        write_u8(to, 0); /* no context */
        WRITE_VECTOR(to, 3)
        {
            write_entry(to, certificate->leaf);
            for (size_t i = 0; i < certificate->issuer_count; i++)
                write_issuer(to, certificate->issuers[i]);
        }
    }
}

/* ---- The handshake. */

static bool add(struct made_up_handshake *made, struct writer *message)
{
    if (!writer_ok(message))
        return false;
    transcript_capture_add(&made->transcript, writer_bytes(message));
    message->size = 0;
    return true;
}

static bool add_messages(struct made_up_handshake *made, const struct certificate *certificate,
                         const char *alpn)
{
    uint8_t small[SMALL_MESSAGE_MAX];
    struct writer to = writer_of(small, sizeof small);
    write_client_hello(&to, made, alpn);
    if (!add(made, &to))
        return false;
    write_server_hello(&to);
    if (!add(made, &to))
        return false;
    write_encrypted_extensions(&to, alpn);
    if (!add(made, &to))
        return false;
    uint8_t *large = malloc(CERTIFICATE_MESSAGE_MAX);
    if (large == NULL)
        return false;
    to = writer_of(large, CERTIFICATE_MESSAGE_MAX);
    write_certificate(&to, certificate);
    bool added = add(made, &to);
    free(large);
    return added && made->transcript.complete;
}

static bool make_content(struct made_up_handshake *made)
{
    uint8_t hash[HASH_SIZE];
    struct bytes messages = transcript_capture_payload(&made->transcript, made->scheme);
    struct writer to = writer_of(made->content, sizeof made->content);
    bool hashed = EVP_Digest(messages.data + 2, messages.size - 2, hash, NULL, EVP_sha256(), NULL) == 1;
    bool written = hashed && tls_certificate_verify_write(&to, bytes_of(hash, sizeof hash));
    made->content_size = to.size;
    ERR_clear_error();
    return written;
}

/* One that is no wildcard, if there is one; for a wildcard, one of those that it stands for. */
static void choose_name(struct made_up_handshake *made, const struct certificate *certificate)
{
    const char *name = certificate->names;
    for (size_t i = 1; i < certificate->name_count && name[0] == '*'; i++)
        name += strlen(name) + 1;
    bool wildcard = name[0] == '*';
    (void)snprintf(made->name, sizeof made->name, "%s%s", wildcard ? "www" : "", wildcard ? name + 1 : name);
}

static uint16_t scheme_of(enum key_type type)
{
    static const uint16_t SCHEMES[] = {
        [KEY_TYPE_RSA] = 0x0804,  [KEY_TYPE_P256] = 0x0403,    [KEY_TYPE_P384] = 0x0503,
        [KEY_TYPE_P521] = 0x0603, [KEY_TYPE_ED25519] = 0x0807, [KEY_TYPE_ED448] = 0x0808,
    };
    return SCHEMES[type];
}

bool made_up_handshake_make(struct made_up_handshake *made, const struct certificate *certificate,
                            const char *alpn)
{
    *made = (struct made_up_handshake){.scheme = scheme_of(certificate->key.type)};
    choose_name(made, certificate);
    if (add_messages(made, certificate, alpn) && make_content(made))
        return true;
    made_up_handshake_clear(made);
    return false;
}

void made_up_handshake_clear(struct made_up_handshake *made)
{
    transcript_capture_release(&made->transcript);
}
