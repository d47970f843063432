#include "keyserver/transcript_check.h"

#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>

enum { TLS_1_2 = 0x0303, TLS_1_3 = 0x0304 };

/* Every check is `if (!holds) return fail(reason, text)`. */
static bool fail(const char **reason, const char *text)
{
    *reason = text;
    return false;
}

/* ---- Order and form. */

static bool take(struct transcript *transcript, struct reader *from, struct tls_handshake *message,
                 const char **reason)
{
    if (!tls_handshake_read(from, message))
        return fail(reason, "a handshake message is missing or cut short");
    if (message->type == TLS_COMPRESSED_CERTIFICATE)
        return fail(reason, "a compressed certificate");
    if (transcript->count == TRANSCRIPT_MESSAGES_MAX)
        return fail(reason, "too many handshake messages");
    transcript->messages[transcript->count++] = message->whole;
    return true;
}

static bool take_client_hello(struct transcript *transcript, struct reader *from,
                              struct tls_client_hello *hello, const char **reason)
{
    struct tls_handshake message;
    if (!take(transcript, from, &message, reason))
        return false;
    if (message.type != TLS_CLIENT_HELLO)
        return fail(reason, "another message where ClientHello should be");
    return tls_client_hello_parse(message.body, hello) || fail(reason, "malformed ClientHello");
}

static bool take_server_hello(struct transcript *transcript, struct reader *from,
                              struct tls_server_hello *hello, const char **reason)
{
    struct tls_handshake message;
    if (!take(transcript, from, &message, reason))
        return false;
    if (message.type != TLS_SERVER_HELLO)
        return fail(reason, "another message where ServerHello should be");
    return tls_server_hello_parse(message.body, hello) || fail(reason, "malformed ServerHello");
}

static bool take_hellos(struct transcript *transcript, struct reader *from, const char **reason)
{
    if (!take_client_hello(transcript, from, &transcript->first, reason) ||
        !take_server_hello(transcript, from, &transcript->server, reason))
        return false;
    transcript->hello = transcript->first;
    transcript->retried = transcript->server.retry;
    if (!transcript->retried)
        return true;
    transcript->retry = transcript->server;
    return take_client_hello(transcript, from, &transcript->hello, reason) &&
           take_server_hello(transcript, from, &transcript->server, reason) &&
           (!transcript->server.retry || fail(reason, "a second HelloRetryRequest"));
}

static bool take_certificate(struct transcript *transcript, struct reader *from, const char **reason)
{
    struct tls_handshake message;
    if (!take(transcript, from, &message, reason))
        return false;
    transcript->asks_certificate = message.type == TLS_CERTIFICATE_REQUEST;
    if (transcript->asks_certificate) {
        if (!tls_certificate_request_parse(message.body, &transcript->request))
            return fail(reason, "malformed CertificateRequest");
        if (!take(transcript, from, &message, reason))
            return false;
    }
    if (message.type != TLS_CERTIFICATE)
        return fail(reason, "another message where Certificate should be");
    return tls_certificate_parse(message.body, &transcript->certificate) ||
           fail(reason, "malformed Certificate");
}

static bool take_names(struct transcript *transcript, const char **reason)
{
    struct bytes content;
    if (tls_extension_find(transcript->hello.extensions, TLS_EXTENSION_SERVER_NAME, &content) &&
        !tls_server_name_parse(content, &transcript->sni))
        return fail(reason, "malformed server_name");
    if (tls_extension_find(transcript->encrypted_extensions, TLS_EXTENSION_ALPN, &content) &&
        !tls_protocol_chosen(content, &transcript->alpn))
        return fail(reason, "malformed protocol choice");
    return true;
}

bool transcript_parse(struct bytes messages, struct transcript *transcript, const char **reason)
{
    struct reader from = reader_of(messages);
    struct tls_handshake message;
    *transcript = (struct transcript){0};
    if (!take_hellos(transcript, &from, reason) || !take(transcript, &from, &message, reason))
        return false;
    if (message.type != TLS_ENCRYPTED_EXTENSIONS)
        return fail(reason, "another message where EncryptedExtensions should be");
    if (!tls_encrypted_extensions_parse(message.body, &transcript->encrypted_extensions))
        return fail(reason, "malformed EncryptedExtensions");
    if (!take_certificate(transcript, &from, reason))
        return false;
    if (!reader_empty(&from))
        return fail(reason, "something behind Certificate");
    return take_names(transcript, reason);
}

static bool normalised_equal(struct bytes a, struct bytes b)
{
    char name_a[DNS_NAME_MAX + 1], name_b[DNS_NAME_MAX + 1];
    return dns_name_normalise(a, false, name_a) && dns_name_normalise(b, false, name_b) &&
           strcmp(name_a, name_b) == 0;
}

bool transcript_is_for(const struct transcript *transcript, struct bytes sni)
{
    return bytes_equal(transcript->sni, sni) || normalised_equal(transcript->sni, sni);
}

/* ---- Extensions that a message may have. */

static bool is_one_of(uint16_t type, const uint16_t *types, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (types[i] == type)
            return true;
    return false;
}

/* Each extension of a server's message must be one of `types`, and an answer to one of the client's unless
 * client is NULL (RFC 8446 section 4.2). */
static bool only(struct bytes list, const uint16_t *types, size_t count,
                 const struct tls_client_hello *client)
{
    struct reader from = reader_of(list);
    struct bytes content;
    uint16_t type;
    while (tls_extension_read(&from, &type, &content)) {
        if (!is_one_of(type, types, count))
            return false;
        if (client != NULL && !tls_extension_find(client->extensions, type, &content))
            return false;
    }
    return true;
}

static bool has(struct bytes list, uint16_t type)
{
    struct bytes content;
    return tls_extension_find(list, type, &content);
}

/* A list of 16-bit numbers in an extension of the client's. */
static bool offers(const struct tls_client_hello *hello, uint16_t extension, uint16_t wanted)
{
    struct bytes content, numbers;
    return tls_extension_find(hello->extensions, extension, &content) &&
           tls_numbers16_parse(content, &numbers) && tls_numbers_hold(numbers, wanted);
}

static bool offers_version(const struct tls_client_hello *hello, uint16_t wanted)
{
    struct bytes content, numbers;
    return tls_extension_find(hello->extensions, TLS_EXTENSION_SUPPORTED_VERSIONS, &content) &&
           tls_numbers8_parse(content, &numbers) && tls_numbers_hold(numbers, wanted);
}

/* How many shares a client sends, and how many of them of this group; false: it has no list of them. */
static bool shares(const struct tls_client_hello *hello, uint16_t group, size_t *count, size_t *found)
{
    struct bytes content, list;
    if (!tls_extension_find(hello->extensions, TLS_EXTENSION_KEY_SHARE, &content) ||
        !tls_key_shares_parse(content, &list))
        return false;
    *count = tls_key_shares_count(list, group, found);
    return true;
}

/* ---- What a ClientHello says. */

static bool client_check(const struct tls_client_hello *hello, const char **reason)
{
    static const uint8_t NO_COMPRESSION = 0;
    if (hello->legacy_version != TLS_1_2)
        return fail(reason, "the ClientHello is not one of TLS over TCP");
    if (!bytes_equal(hello->compression, bytes_of(&NO_COMPRESSION, 1)))
        return fail(reason, "the client offers compression");
    if (has(hello->extensions, TLS_EXTENSION_QUIC_PARAMETERS) ||
        has(hello->extensions, TLS_EXTENSION_QUIC_PARAMETERS_DRAFT))
        return fail(reason, "the ClientHello is one of QUIC");
    return offers_version(hello, TLS_1_3) || fail(reason, "the client does not offer TLS 1.3");
}

/* ---- What a ServerHello or HelloRetryRequest says. */

static const struct suite {
    uint16_t code;
    const char *hash;
} SUITES[] = {
    {0x1301, "SHA256"}, {0x1302, "SHA384"}, {0x1303, "SHA256"}, {0x1304, "SHA256"}, {0x1305, "SHA256"},
};

static const char *suite_hash(uint16_t code)
{
    for (size_t i = 0; i < sizeof SUITES / sizeof *SUITES; i++)
        if (SUITES[i].code == code)
            return SUITES[i].hash;
    return NULL;
}

static bool negotiates_tls13(const struct tls_server_hello *server)
{
    struct bytes content;
    uint16_t version;
    return tls_extension_find(server->extensions, TLS_EXTENSION_SUPPORTED_VERSIONS, &content) &&
           tls_number_parse(content, &version) && version == TLS_1_3 && server->legacy_version == TLS_1_2;
}

/* What both have in common. */
static bool server_check(const struct tls_server_hello *server, const struct tls_client_hello *client,
                         const char **reason)
{
    if (!negotiates_tls13(server))
        return fail(reason, "the server does not negotiate TLS 1.3");
    if (server->compression != 0)
        return fail(reason, "the server chose compression");
    if (!bytes_equal(server->session_id, client->session_id))
        return fail(reason, "the server echoes another session id");
    if (suite_hash(server->suite) == NULL || !tls_numbers_hold(client->suites, server->suite))
        return fail(reason, "the suite is none that the client offered");
    return true;
}

static bool server_hello_check(const struct transcript *transcript, const char **reason)
{
    static const uint16_t ALLOWED[] = {TLS_EXTENSION_SUPPORTED_VERSIONS, TLS_EXTENSION_KEY_SHARE};
    const struct tls_server_hello *server = &transcript->server;
    const struct tls_client_hello *client = &transcript->hello;
    struct bytes content;
    uint16_t group;
    size_t count, found;
    if (!server_check(server, client, reason))
        return false;
    if (has(server->extensions, TLS_EXTENSION_PRE_SHARED_KEY))
        return fail(reason, "the server resumes a session");
    if (!only(server->extensions, ALLOWED, 2, client))
        return fail(reason, "an extension that a ServerHello must not have");
    if (!tls_extension_find(server->extensions, TLS_EXTENSION_KEY_SHARE, &content) ||
        !tls_key_share_chosen(content, &group))
        return fail(reason, "the ServerHello has no key share");
    if (!offers(client, TLS_EXTENSION_SUPPORTED_GROUPS, group) || !shares(client, group, &count, &found) ||
        found != 1)
        return fail(reason, "the group is none that the client sent a share of");
    return true;
}

/* ---- HelloRetryRequest (RFC 8446 sections 4.1.2 and 4.1.4). */

/* Whether an extension is the same, or missing, in both hellos. */
static bool unchanged(const struct transcript *transcript, uint16_t type)
{
    struct bytes before, after;
    bool had = tls_extension_find(transcript->first.extensions, type, &before);
    bool has_now = tls_extension_find(transcript->hello.extensions, type, &after);
    return had == has_now && bytes_equal(before, after);
}

static bool second_hello_check(const struct transcript *transcript, const char **reason)
{
    static const uint16_t UNCHANGED[] = {TLS_EXTENSION_SERVER_NAME, TLS_EXTENSION_ALPN,
                                         TLS_EXTENSION_SIGNATURE_ALGORITHMS, TLS_EXTENSION_SUPPORTED_GROUPS,
                                         TLS_EXTENSION_SUPPORTED_VERSIONS};
    const struct tls_client_hello *first = &transcript->first, *second = &transcript->hello;
    if (!bytes_equal(first->random, second->random) || !bytes_equal(first->session_id, second->session_id) ||
        !bytes_equal(first->suites, second->suites))
        return fail(reason, "the second ClientHello is not the first one's");
    for (size_t i = 0; i < sizeof UNCHANGED / sizeof *UNCHANGED; i++)
        if (!unchanged(transcript, UNCHANGED[i]))
            return fail(reason, "the second ClientHello changed what it must not change");
    if (has(second->extensions, TLS_EXTENSION_EARLY_DATA))
        return fail(reason, "early data after a HelloRetryRequest");
    return true;
}

/* The cookie comes back, and none that was not given. */
static bool cookie_check(const struct transcript *transcript, const char **reason)
{
    struct bytes given, returned;
    bool gave = tls_extension_find(transcript->retry.extensions, TLS_EXTENSION_COOKIE, &given);
    bool came = tls_extension_find(transcript->hello.extensions, TLS_EXTENSION_COOKIE, &returned);
    return (gave == came && bytes_equal(given, returned)) ||
           fail(reason, "the cookie is not that of the HelloRetryRequest");
}

static bool retry_check(const struct transcript *transcript, const char **reason)
{
    static const uint16_t ALLOWED[] = {TLS_EXTENSION_SUPPORTED_VERSIONS, TLS_EXTENSION_KEY_SHARE,
                                       TLS_EXTENSION_COOKIE};
    const struct tls_server_hello *retry = &transcript->retry;
    struct bytes content;
    uint16_t group, chosen;
    size_t count, found;
    if (!client_check(&transcript->first, reason) || !server_check(retry, &transcript->first, reason))
        return false;
    if (!only(retry->extensions, ALLOWED, 3, NULL))
        return fail(reason, "an extension that a HelloRetryRequest must not have");
    if (!tls_extension_find(retry->extensions, TLS_EXTENSION_KEY_SHARE, &content) ||
        !tls_number_parse(content, &group))
        return fail(reason, "the HelloRetryRequest names no group");
    if (!offers(&transcript->first, TLS_EXTENSION_SUPPORTED_GROUPS, group) ||
        !shares(&transcript->first, group, &count, &found) || found != 0)
        return fail(reason, "the HelloRetryRequest asks for a group that it had or could not have");
    if (!shares(&transcript->hello, group, &count, &found) || count != 1 || found != 1)
        return fail(reason, "the second ClientHello has not the one share that was asked for");
    if (!tls_extension_find(transcript->server.extensions, TLS_EXTENSION_KEY_SHARE, &content) ||
        !tls_key_share_chosen(content, &chosen) || chosen != group)
        return fail(reason, "the ServerHello has another group than the HelloRetryRequest");
    if (transcript->server.suite != retry->suite)
        return fail(reason, "the ServerHello has another suite than the HelloRetryRequest");
    return cookie_check(transcript, reason) && second_hello_check(transcript, reason);
}

/* ---- The encrypted messages. */

static bool alpn_offered(const struct transcript *transcript)
{
    struct bytes content, names;
    if (transcript->alpn.data == NULL)
        return true;
    return tls_extension_find(transcript->hello.extensions, TLS_EXTENSION_ALPN, &content) &&
           tls_protocols_parse(content, &names) && tls_protocols_hold(names, transcript->alpn);
}

static bool encrypted_check(const struct transcript *transcript, const char **reason)
{
    static const uint16_t ALLOWED[] = {TLS_EXTENSION_SERVER_NAME, TLS_EXTENSION_MAX_FRAGMENT_LENGTH,
                                       TLS_EXTENSION_SUPPORTED_GROUPS, TLS_EXTENSION_ALPN,
                                       TLS_EXTENSION_RECORD_SIZE_LIMIT};
    struct bytes list = transcript->encrypted_extensions;
    if (has(list, TLS_EXTENSION_EARLY_DATA))
        return fail(reason, "the server takes early data");
    if (!only(list, ALLOWED, sizeof ALLOWED / sizeof *ALLOWED, &transcript->hello))
        return fail(reason, "an extension that EncryptedExtensions must not have");
    if (!alpn_offered(transcript))
        return fail(reason, "the protocol is none that the client offered");
    return true;
}

static bool certificate_check(const struct transcript *transcript, const char **reason)
{
    static const uint16_t ALLOWED[] = {TLS_EXTENSION_STATUS_REQUEST, TLS_EXTENSION_SCT};
    struct reader from = reader_of(transcript->certificate.entries);
    struct bytes data, extensions;
    if (transcript->asks_certificate && transcript->request.context.size != 0)
        return fail(reason, "the CertificateRequest has a context");
    if (transcript->asks_certificate &&
        !has(transcript->request.extensions, TLS_EXTENSION_SIGNATURE_ALGORITHMS))
        return fail(reason, "the CertificateRequest names no signature schemes");
    if (transcript->certificate.context.size != 0)
        return fail(reason, "the Certificate has a context");
    while (tls_certificate_entry_read(&from, &data, &extensions))
        if (!only(extensions, ALLOWED, 2, NULL))
            return fail(reason, "an extension that a certificate must not have");
    return true;
}

static bool leaf_check(const struct transcript *transcript, const struct site_leaf *leaf, int64_t now,
                       const char **reason)
{
    char name[DNS_NAME_MAX + 1];
    if (!bytes_equal(transcript->certificate.leaf, leaf->der))
        return fail(reason, "another certificate");
    if (now < leaf->not_before)
        return fail(reason, "the certificate is not valid yet");
    if (now > leaf->not_after)
        return fail(reason, "the certificate has expired");
    if (transcript->sni.data == NULL)
        return true;
    if (!dns_name_normalise(transcript->sni, false, name) || !site_leaf_covers(leaf, name))
        return fail(reason, "the certificate is not for this SNI");
    return true;
}

bool transcript_check(const struct transcript *transcript, uint16_t scheme, const struct site_leaf *leaf,
                      int64_t now, const char **reason)
{
    if (transcript->retried && !retry_check(transcript, reason))
        return false;
    if (!client_check(&transcript->hello, reason) || !server_hello_check(transcript, reason) ||
        !encrypted_check(transcript, reason) || !certificate_check(transcript, reason))
        return false;
    if (!transcript->retried && has(transcript->hello.extensions, TLS_EXTENSION_COOKIE))
        return fail(reason, "a cookie without a HelloRetryRequest");
    if (!offers(&transcript->hello, TLS_EXTENSION_SIGNATURE_ALGORITHMS, scheme))
        return fail(reason, "the scheme is none that the client offered");
    return leaf_check(transcript, leaf, now, reason);
}

bool transcript_is_for_acme(const struct transcript *transcript)
{
    static const char ACME[] = "acme-tls/1";
    return bytes_equal(transcript->alpn, bytes_of(ACME, sizeof ACME - 1));
}

/* ---- The hash. */

static void context_free(EVP_MD_CTX **context)
{
    EVP_MD_CTX_free(*context);
}

static bool hash_first_hello(EVP_MD_CTX *context, const EVP_MD *digest, struct bytes hello)
{
    uint8_t hash[4 + TLS_TRANSCRIPT_HASH_MAX] = {TLS_MESSAGE_HASH, 0, 0, 0};
    unsigned size = 0;
    if (EVP_MD_get_size(digest) > TLS_TRANSCRIPT_HASH_MAX ||
        EVP_Digest(hello.data, hello.size, hash + 4, &size, digest, NULL) != 1)
        return false;
    hash[3] = (uint8_t)size;
    return EVP_DigestUpdate(context, hash, 4 + (size_t)size) == 1;
}

static bool hash_messages(const struct transcript *transcript, const EVP_MD *digest,
                          uint8_t hash[static TLS_TRANSCRIPT_HASH_MAX], size_t *size)
{
    EVP_MD_CTX *context CLEANUP(context_free) = EVP_MD_CTX_new();
    size_t next = 0;
    unsigned made = 0;
    if (context == NULL || EVP_DigestInit_ex2(context, digest, NULL) != 1)
        return false;
    if (transcript->retried && !hash_first_hello(context, digest, transcript->messages[next++]))
        return false;
    for (; next < transcript->count; next++)
        if (EVP_DigestUpdate(context, transcript->messages[next].data, transcript->messages[next].size) != 1)
            return false;
    if (EVP_DigestFinal_ex(context, hash, &made) != 1)
        return false;
    *size = made;
    return true;
}

bool transcript_hash(const struct transcript *transcript, uint8_t hash[static TLS_TRANSCRIPT_HASH_MAX],
                     size_t *size)
{
    const char *name = suite_hash(transcript->server.suite);
    if (name == NULL)
        return false;
    const EVP_MD *digest = strcmp(name, "SHA384") == 0 ? EVP_sha384() : EVP_sha256();
    bool made = hash_messages(transcript, digest, hash, size);
    ERR_clear_error();
    return made;
}
