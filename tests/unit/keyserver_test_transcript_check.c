/* Transcripts of real handshakes of libssl with itself, as they are and changed in one point: what is said of
 * each. */
#include "keyserver/transcript_check.h"

#include "tests/unit/check.h"

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#define MESSAGES_MAX 65536

struct recording {
    uint8_t octets[MESSAGES_MAX];
    size_t size;
    bool complete;
};

/* PLAIN: the handshake most clients have. RETRY: with a HelloRetryRequest. NAMELESS: no SNI, no ALPN.
 * ASKING: with a CertificateRequest. LONG_HASH: the suite with that hash. */
enum base { PLAIN, RETRY, NAMELESS, ASKING, LONG_HASH, BASES };

struct world {
    EVP_PKEY *key;
    X509 *leaf;
    struct site_certificates *certificates;
    const struct site_leaf *site;
    struct recording recordings[BASES];
    int64_t now;
};

/* ---- Making them. */

static X509 *make_leaf(EVP_PKEY *key, long serial, const char *names)
{
    X509 *leaf = X509_new();
    X509V3_CTX context;
    assert_int_equal(X509_set_version(leaf, X509_VERSION_3), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(leaf), serial), 1);
    assert_non_null(X509_gmtime_adj(X509_getm_notBefore(leaf), -3600));
    assert_non_null(X509_gmtime_adj(X509_getm_notAfter(leaf), 3600));
    assert_int_equal(X509_set_pubkey(leaf, key), 1);
    X509V3_set_ctx(&context, leaf, leaf, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, NID_subject_alt_name, names);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(leaf, extension, -1), 1);
    X509_EXTENSION_free(extension);
    assert_true(X509_sign(leaf, key, EVP_sha256()) > 0);
    return leaf;
}

static void record(int written, int version, int type, const void *octets, size_t size, SSL *ssl, void *owner)
{
    struct recording *recording = owner;
    const uint8_t *message = octets;
    (void)written;
    (void)version;
    (void)ssl;
    if (type != SSL3_RT_HANDSHAKE || recording->complete)
        return;
    assert_true(size <= MESSAGES_MAX - recording->size);
    memcpy(recording->octets + recording->size, message, size);
    recording->size += size;
    recording->complete = message[0] == TLS_CERTIFICATE;
}

static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *size, const unsigned char *in,
                           unsigned in_size, void *owner)
{
    (void)ssl;
    (void)owner;
    assert_true(in_size > 3);
    *out = in + 1;
    *size = in[0];
    return SSL_TLSEXT_ERR_OK;
}

static int accept_name(SSL *ssl, int *alert, void *owner)
{
    (void)ssl;
    (void)alert;
    (void)owner;
    return SSL_TLSEXT_ERR_OK;
}

static SSL *make_server(const struct world *world, enum base base, struct recording *recording)
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());
    assert_int_equal(SSL_CTX_use_certificate(context, world->leaf), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(context, world->key), 1);
    assert_int_equal(SSL_CTX_set1_groups_list(context, base == RETRY ? "P-384" : "X25519:P-256"), 1);
    if (base == LONG_HASH)
        assert_int_equal(SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384"), 1);
    else
        assert_int_equal(SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256"), 1);
    SSL_CTX_set_alpn_select_cb(context, choose_protocol, NULL);
    SSL_CTX_set_tlsext_servername_callback(context, accept_name);
    if (base == ASKING)
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_msg_callback(context, record);
    SSL_CTX_set_msg_callback_arg(context, recording);
    SSL *ssl = SSL_new(context);
    SSL_CTX_free(context);
    SSL_set_accept_state(ssl);
    return ssl;
}

static SSL *make_client(enum base base)
{
    static const unsigned char PROTOCOLS[] = "\x02h2\x08http/1.1";
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION), 1);
    assert_int_equal(SSL_CTX_set1_groups_list(context, "X25519:P-256:P-384"), 1);
    SSL *ssl = SSL_new(context);
    SSL_CTX_free(context);
    if (base != NAMELESS) {
        assert_int_equal(SSL_set_tlsext_host_name(ssl, "www.example.com"), 1);
        assert_int_equal(SSL_set_alpn_protos(ssl, PROTOCOLS, sizeof PROTOCOLS - 1), 0);
    }
    SSL_set_connect_state(ssl);
    return ssl;
}

static void handshake(const struct world *world, enum base base, struct recording *recording)
{
    SSL *server = make_server(world, base, recording), *client = make_client(base);
    BIO *one, *other;
    assert_int_equal(BIO_new_bio_pair(&one, 65536, &other, 65536), 1);
    SSL_set_bio(server, one, one);
    SSL_set_bio(client, other, other);
    for (int i = 0; i < 10; i++) {
        (void)SSL_do_handshake(client);
        (void)SSL_do_handshake(server);
    }
    assert_true(SSL_is_init_finished(client) && SSL_is_init_finished(server));
    assert_true(recording->complete);
    SSL_free(server);
    SSL_free(client);
}

static int world_make(void **state)
{
    struct world *world = calloc(1, sizeof *world);
    world->key = EVP_EC_gen("P-256");
    world->leaf = make_leaf(world->key, 1, "DNS:www.example.com,DNS:*.example.org");
    world->certificates = site_certificates_new();
    world->now = (int64_t)time(NULL);
    assert_int_equal(site_certificates_add(world->certificates, world->leaf, NULL), RESULT_OK);
    struct key_id id;
    size_t count;
    assert_int_equal(key_id_of(world->key, &id, NULL), RESULT_OK);
    world->site = site_certificates_of(world->certificates, id.ski, &count);
    assert_int_equal(count, 1);
    for (enum base base = PLAIN; base < BASES; base++)
        handshake(world, base, &world->recordings[base]);
    *state = world;
    return 0;
}

static int world_free(void **state)
{
    struct world *world = *state;
    EVP_PKEY_free(world->key);
    X509_free(world->leaf);
    site_certificates_free(world->certificates);
    free(world);
    return 0;
}

/* ---- Judging them. */

#define SCHEME 0x0403 /* ecdsa_secp256r1_sha256 */

/* NULL: it may be signed. */
static const char *judge(const struct world *world, struct bytes messages, uint16_t scheme)
{
    const char *reason = NULL;
    struct transcript transcript;
    uint8_t *exact = exact_copy(messages);
    bool good = transcript_parse(bytes_of(exact, messages.size), &transcript, &reason) &&
                transcript_check(&transcript, scheme, world->site, world->now, &reason);
    free(exact);
    assert_true(good == (reason == NULL));
    return reason;
}

static struct bytes recorded(const struct recording *recording)
{
    return bytes_of(recording->octets, recording->size);
}

static void real_handshakes_are_taken(void **state)
{
    const struct world *world = *state;
    static const size_t COUNTS[BASES] = {4, 6, 4, 5, 4};
    for (enum base base = PLAIN; base < BASES; base++) {
        struct transcript transcript;
        const char *reason = "";
        if (!transcript_parse(recorded(&world->recordings[base]), &transcript, &reason) ||
            !transcript_check(&transcript, SCHEME, world->site, world->now, &reason))
            fail_msg("base %d: %s", base, reason);
        assert_int_equal(transcript.count, COUNTS[base]);
        assert_int_equal(transcript.retried, base == RETRY);
        assert_int_equal(transcript.asks_certificate, base == ASKING);
        assert_true(bytes_equal(transcript.sni, base == NAMELESS ? OCTETS("") : OCTETS("www.example.com")));
        assert_true(bytes_equal(transcript.alpn, base == NAMELESS ? OCTETS("") : OCTETS("h2")));
        assert_false(transcript_is_for_acme(&transcript));
    }
}

/* ---- Changing them. */

enum change { SET, ADD, DROP, PATCH, CUT, APPEND, SWAP, SKIP, TYPE };

struct row {
    const char *name;
    enum base base;
    unsigned message; /* which, from 0 */
    enum change change;
    unsigned at; /* SET, ADD, DROP: an extension's type; PATCH: an offset; TYPE: the new type */
    struct bytes octets;
    const char *reason;
};

static struct tls_handshake message_at(const struct recording *recording, unsigned index)
{
    struct reader from = reader_of(recorded(recording));
    struct tls_handshake message = {0};
    for (unsigned i = 0; i <= index; i++)
        assert_true(tls_handshake_read(&from, &message));
    return message;
}

static struct bytes extensions_of(const struct tls_handshake *message)
{
    struct tls_client_hello client;
    struct tls_server_hello server;
    struct tls_certificate_request request;
    struct tls_certificate certificate;
    struct bytes data, extensions;
    if (message->type == TLS_CLIENT_HELLO) {
        assert_true(tls_client_hello_parse(message->body, &client));
        return client.extensions;
    }
    if (message->type == TLS_SERVER_HELLO) {
        assert_true(tls_server_hello_parse(message->body, &server));
        return server.extensions;
    }
    if (message->type == TLS_CERTIFICATE_REQUEST) {
        assert_true(tls_certificate_request_parse(message->body, &request));
        return request.extensions;
    }
    if (message->type == TLS_ENCRYPTED_EXTENSIONS) {
        assert_true(tls_encrypted_extensions_parse(message->body, &extensions));
        return extensions;
    }
    assert_true(tls_certificate_parse(message->body, &certificate));
    struct reader from = reader_of(certificate.entries);
    assert_true(tls_certificate_entry_read(&from, &data, &extensions));
    return extensions;
}

/* The list with the change, in the places of the old ones; what is added stands first. */
static void write_extensions(struct writer *to, struct bytes list, const struct row *row)
{
    struct reader from = reader_of(list);
    struct bytes content;
    uint16_t type;
    bool there = row->change == ADD;
    for (unsigned copies = row->change == ADD ? 1 : 0; copies > 0; copies--) {
        write_u16(to, (uint16_t)row->at);
        WRITE_VECTOR(to, 2)
        {
            write_bytes(to, row->octets);
        }
    }
    while (tls_extension_read(&from, &type, &content)) {
        bool meant = type == row->at && row->change != ADD;
        there = there || meant;
        if (meant && row->change == DROP)
            continue;
        write_u16(to, type);
        WRITE_VECTOR(to, 2)
        {
            write_bytes(to, meant ? row->octets : content);
        }
    }
    CHECK(row->name, there);
}

/* In a Certificate the list of entries has a length too. */
static void write_changed(struct writer *to, const struct tls_handshake *message, const struct row *row)
{
    struct bytes list = extensions_of(message);
    size_t before = (size_t)(list.data - message->body.data) - 2;
    size_t after = before + 2 + list.size;
    bool certificate = message->type == TLS_CERTIFICATE;
    write_u8(to, message->type);
    WRITE_VECTOR(to, 3)
    {
        size_t start = to->size;
        write_bytes(to, bytes_of(message->body.data, before));
        WRITE_VECTOR(to, 2)
        {
            write_extensions(to, list, row);
        }
        write_bytes(to, bytes_of(message->body.data + after, message->body.size - after));
        size_t entries = to->size - start - 4;
        if (certificate && writer_ok(to)) {
            to->data[start + 1] = (uint8_t)(entries >> 16);
            to->data[start + 2] = (uint8_t)(entries >> 8);
            to->data[start + 3] = (uint8_t)entries;
        }
    }
}

static void write_message(struct writer *to, const struct tls_handshake *message, const struct row *row)
{
    size_t start = to->size;
    if (row->change == SKIP)
        return;
    if (row->change == SET || row->change == ADD || row->change == DROP) {
        write_changed(to, message, row);
        return;
    }
    write_bytes(to, message->whole);
    assert_true(writer_ok(to));
    if (row->change == PATCH)
        memcpy(to->data + start + row->at, row->octets.data, row->octets.size);
    else if (row->change == TYPE)
        to->data[start] = (uint8_t)row->at;
    else if (row->change == CUT)
        to->size--;
    else if (row->change == APPEND)
        write_bytes(to, row->octets);
}

static size_t change(const struct recording *recording, const struct row *row, uint8_t *into)
{
    struct writer to = writer_of(into, MESSAGES_MAX);
    struct reader from = reader_of(recorded(recording));
    struct tls_handshake message;
    for (unsigned i = 0; !reader_empty(&from); i++) {
        assert_true(tls_handshake_read(&from, &message));
        if (row->change == SWAP && i == row->message)
            message = message_at(recording, i + 1);
        else if (row->change == SWAP && i == row->message + 1)
            message = message_at(recording, i - 1);
        if (i == row->message && row->change != SWAP)
            write_message(&to, &message, row);
        else
            write_bytes(&to, message.whole);
    }
    assert_true(writer_ok(&to));
    return to.size;
}

/* Messages: PLAIN CH 0, SH 1, EE 2, Certificate 3; RETRY CH 0, HRR 1, CH 2, SH 3, EE 4, Certificate 5. */
/* Offsets: a hello's legacy_version at 4, random at 6, session id (32 octets of libssl's) at 39; a
 * ServerHello's suite at 71, compression at 73. */

static const struct row ROWS[] = {
    /* Version and transport. */
    {"no TLS 1.3 offered", PLAIN, 0, SET, 43, WIRE("\x02\x03\x03"), "the client does not offer TLS 1.3"},
    {"no versions offered", PLAIN, 0, DROP, 43, {0}, "the client does not offer TLS 1.3"},
    {"GREASE among the versions", PLAIN, 0, SET, 43, WIRE("\x04\xaa\xaa\x03\x04"), NULL},
    {"a ServerHello of 1.2", PLAIN, 1, DROP, 43, {0}, "the server does not negotiate TLS 1.3"},
    {"1.2 in the extension", PLAIN, 1, SET, 43, WIRE("\x03\x03"), "the server does not negotiate TLS 1.3"},
    {"DTLS 1.3 in the extension", PLAIN, 1, SET, 43, WIRE("\xfe\xfc"),
     "the server does not negotiate TLS 1.3"},
    {"DTLS in the ClientHello", PLAIN, 0, PATCH, 4, WIRE("\xfe\xfd"),
     "the ClientHello is not one of TLS over TCP"},
    {"1.0 in the ClientHello", PLAIN, 0, PATCH, 4, WIRE("\x03\x01"),
     "the ClientHello is not one of TLS over TCP"},
    {"DTLS in the ServerHello", PLAIN, 1, PATCH, 4, WIRE("\xfe\xfd"),
     "the server does not negotiate TLS 1.3"},
    {"QUIC", PLAIN, 0, ADD, 57, WIRE("\x01\x02\x03"), "the ClientHello is one of QUIC"},
    {"QUIC, empty", PLAIN, 0, ADD, 57, WIRE(""), "the ClientHello is one of QUIC"},
    {"QUIC of the drafts", PLAIN, 0, ADD, 0xffa5, WIRE("\x01"), "the ClientHello is one of QUIC"},
    {"QUIC of the server", PLAIN, 2, ADD, 57, WIRE("\x01"),
     "an extension that EncryptedExtensions must not have"},
    /* What is chosen must have been offered. */
    {"a scheme not offered", PLAIN, 0, SET, 13, WIRE("\0\x02\x08\x04"),
     "the scheme is none that the client offered"},
    {"no schemes", PLAIN, 0, DROP, 13, {0}, "the scheme is none that the client offered"},
    {"half a scheme", PLAIN, 0, SET, 13, WIRE("\0\x03\x04\x03\x08"),
     "the scheme is none that the client offered"},
    {"the scheme alone", PLAIN, 0, SET, 13, WIRE("\0\x02\x04\x03"), NULL},
    {"a suite not offered", PLAIN, 1, PATCH, 71, WIRE("\x13\x05"),
     "the suite is none that the client offered"},
    {"no suite of TLS 1.3", PLAIN, 1, PATCH, 71, WIRE("\xc0\x2b"),
     "the suite is none that the client offered"},
    {"a group not offered", PLAIN, 0, SET, 10, WIRE("\0\x02\0\x17"),
     "the group is none that the client sent a share of"},
    {"a group without a share", PLAIN, 0, SET, 51, WIRE("\0\x05\0\x17\0\x01x"),
     "the group is none that the client sent a share of"},
    {"no share in the ServerHello", PLAIN, 1, DROP, 51, {0}, "the ServerHello has no key share"},
    {"another session id", PLAIN, 1, PATCH, 39, WIRE("0123"), "the server echoes another session id"},
    {"compression", PLAIN, 1, PATCH, 73, WIRE("\x01"), "the server chose compression"},
    {"a protocol not offered", PLAIN, 2, SET, 16, WIRE("\0\x03\x02h3"),
     "the protocol is none that the client offered"},
    {"a protocol, none offered",
     PLAIN,
     0,
     DROP,
     16,
     {0},
     "an extension that EncryptedExtensions must not have"},
    {"two protocols", PLAIN, 2, SET, 16, WIRE("\0\x06\x02h2\x02h2"), "malformed protocol choice"},
    {"the client's other protocol", PLAIN, 2, SET, 16, WIRE("\0\x09\x08http/1.1"), NULL},
    {"no protocol chosen", PLAIN, 2, DROP, 16, {0}, NULL},
    /* Extensions. */
    {"GREASE and unknown ones of the client", PLAIN, 0, ADD, 0x1a1a, WIRE("x"), NULL},
    {"an extension twice, client", PLAIN, 0, ADD, 0, WIRE("x"), "malformed ClientHello"},
    {"an extension twice, ServerHello", PLAIN, 1, ADD, 43, WIRE("\x03\x04"), "malformed ServerHello"},
    {"an extension twice, EncryptedExtensions", PLAIN, 2, ADD, 16, WIRE("\0\x03\x02h2"),
     "malformed EncryptedExtensions"},
    {"pre_shared_key in the ServerHello", PLAIN, 1, ADD, 41, WIRE("\0\0"), "the server resumes a session"},
    {"pre_shared_key in EncryptedExtensions", PLAIN, 2, ADD, 41, WIRE("\0\0"),
     "an extension that EncryptedExtensions must not have"},
    {"early_data in EncryptedExtensions", PLAIN, 2, ADD, 42, WIRE(""), "the server takes early data"},
    {"early_data in the ServerHello", PLAIN, 1, ADD, 42, WIRE(""),
     "an extension that a ServerHello must not have"},
    {"an unknown one of the server", PLAIN, 1, ADD, 0x1a1a, WIRE("x"),
     "an extension that a ServerHello must not have"},
    {"a raw public key", PLAIN, 2, ADD, 20, WIRE("\x02"),
     "an extension that EncryptedExtensions must not have"},
    {"a staple", PLAIN, 3, ADD, 5, WIRE("\x01\0\0\x01x"), NULL},
    {"timestamps", PLAIN, 3, ADD, 18, WIRE("\0\x03\0\x01x"), NULL},
    {"a delegated credential", PLAIN, 3, ADD, 34, WIRE("x"), "an extension that a certificate must not have"},
    {"a cookie, unasked", PLAIN, 0, ADD, 44, WIRE("\0\x01x"), "a cookie without a HelloRetryRequest"},
    /* Names. */
    {"a name that does not parse", PLAIN, 0, SET, 0, WIRE("\0\x03\0\0\x01"), "malformed server_name"},
    {"two names", PLAIN, 0, SET, 0, WIRE("\0\x08\0\0\x01x\0\0\x01y"), "malformed server_name"},
    /* Order and form. */
    {"order", PLAIN, 0, SWAP, 0, {0}, "another message where ClientHello should be"},
    {"order, later", PLAIN, 2, SWAP, 0, {0}, "another message where EncryptedExtensions should be"},
    {"no EncryptedExtensions", PLAIN, 2, SKIP, 0, {0}, "another message where EncryptedExtensions should be"},
    {"no Certificate", PLAIN, 3, SKIP, 0, {0}, "a handshake message is missing or cut short"},
    {"cut short", PLAIN, 3, CUT, 0, {0}, "a handshake message is missing or cut short"},
    {"trailing", PLAIN, 3, APPEND, 0, WIRE("x"), "something behind Certificate"},
    {"a whole message behind", PLAIN, 3, APPEND, 0, WIRE("\x0f\0\0\0"), "something behind Certificate"},
    {"something between", PLAIN, 1, APPEND, 0, WIRE("\x04\0\0\0"),
     "another message where EncryptedExtensions should be"},
    {"a compressed certificate", PLAIN, 3, TYPE, 25, {0}, "a compressed certificate"},
    {"a certificate context", ASKING, 3, PATCH, 4, WIRE("\x01"), "malformed CertificateRequest"},
    {"no schemes asked for", ASKING, 3, DROP, 13, {0}, "the CertificateRequest names no signature schemes"},
    /* HelloRetryRequest. */
    {"a retry left out", RETRY, 1, SKIP, 0, {0}, "another message where ServerHello should be"},
    {"a retry for a group not offered", RETRY, 1, SET, 51, WIRE("\0\x19"),
     "the HelloRetryRequest asks for a group that it had or could not have"},
    {"a retry for a group that was there", RETRY, 1, SET, 51, WIRE("\0\x1d"),
     "the HelloRetryRequest asks for a group that it had or could not have"},
    {"a retry for another group", RETRY, 1, SET, 51, WIRE("\0\x17"),
     "the second ClientHello has not the one share that was asked for"},
    {"a retry for nothing", RETRY, 1, DROP, 51, {0}, "the HelloRetryRequest names no group"},
    {"a retry with more", RETRY, 1, ADD, 16, WIRE("\0\x03\x02h2"),
     "an extension that a HelloRetryRequest must not have"},
    {"a retry with a cookie that does not come back", RETRY, 1, ADD, 44, WIRE("\0\x01x"),
     "the cookie is not that of the HelloRetryRequest"},
    {"a cookie out of nowhere", RETRY, 2, ADD, 44, WIRE("\0\x01x"),
     "the cookie is not that of the HelloRetryRequest"},
    {"another suite after it", RETRY, 1, PATCH, 71, WIRE("\x13\x02"),
     "the ServerHello has another suite than the HelloRetryRequest"},
    {"1.2 in the retry", RETRY, 1, SET, 43, WIRE("\x03\x03"), "the server does not negotiate TLS 1.3"},
    {"another random", RETRY, 2, PATCH, 6, WIRE("0123"), "the second ClientHello is not the first one's"},
    {"other schemes", RETRY, 2, SET, 13, WIRE("\0\x02\x04\x03"),
     "the second ClientHello changed what it must not change"},
    {"other schemes at first", RETRY, 0, SET, 13, WIRE("\0\x02\x04\x03"),
     "the second ClientHello changed what it must not change"},
    {"no name at first", RETRY, 0, DROP, 0, {0}, "the second ClientHello changed what it must not change"},
    {"another name at first", RETRY, 0, SET, 0,
     WIRE("\0\x12\0\0\x0f"
          "ftp.example.com"),
     "the second ClientHello changed what it must not change"},
    {"other protocols", RETRY, 2, SET, 16, WIRE("\0\x03\x02h2"),
     "the second ClientHello changed what it must not change"},
    {"early data in the second", RETRY, 2, ADD, 42, WIRE(""), "early data after a HelloRetryRequest"},
    {"QUIC in the first", RETRY, 0, ADD, 57, WIRE(""), "the ClientHello is one of QUIC"},
    {"padding in the second", RETRY, 2, ADD, 21, WIRE("\0\0\0\0"), NULL},
};

static void changed_ones_are_refused(void **state)
{
    const struct world *world = *state;
    static uint8_t changed[MESSAGES_MAX];
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        size_t size = change(&world->recordings[ROWS[i].base], &ROWS[i], changed);
        const char *reason = judge(world, bytes_of(changed, size), SCHEME);
        if (reason == NULL || ROWS[i].reason == NULL ? reason != ROWS[i].reason
                                                     : strcmp(reason, ROWS[i].reason) != 0)
            fail_msg("%s: \"%s\" instead of \"%s\"", ROWS[i].name, reason, ROWS[i].reason);
    }
}

/* ---- Names. */

static const struct {
    const char *sni;
    const char *reason;
} NAME_ROWS[] = {
    {"www.example.com", NULL},
    {"WWW.Example.COM", NULL},
    {"www.example.com.", NULL},
    {"a.example.org", NULL},
    {"ftp.example.com", "the certificate is not for this SNI"},
    {"example.com", "the certificate is not for this SNI"},
    {"example.org", "the certificate is not for this SNI"},
    {"a.b.example.org", "the certificate is not for this SNI"},
    {"*.example.org", "the certificate is not for this SNI"},
    {".example.org", "the certificate is not for this SNI"},
    {"www.example.com/", "the certificate is not for this SNI"},
    {"", "malformed server_name"},
};

static void names_are_checked(void **state)
{
    const struct world *world = *state;
    static uint8_t changed[MESSAGES_MAX];
    for (size_t i = 0; i < COUNT_OF(NAME_ROWS); i++) {
        uint8_t content[300];
        struct writer to = writer_of(content, sizeof content);
        WRITE_VECTOR(&to, 2)
        {
            write_u8(&to, 0);
            WRITE_VECTOR(&to, 2)
            {
                write_bytes(&to, bytes_of(NAME_ROWS[i].sni, strlen(NAME_ROWS[i].sni)));
            }
        }
        const struct row row = {NAME_ROWS[i].sni, PLAIN, 0, SET, 0, writer_bytes(&to), NULL};
        size_t size = change(&world->recordings[PLAIN], &row, changed);
        const char *reason = judge(world, bytes_of(changed, size), SCHEME);
        CHECK(NAME_ROWS[i].sni, reason == NULL || NAME_ROWS[i].reason == NULL
                                    ? reason == NAME_ROWS[i].reason
                                    : strcmp(reason, NAME_ROWS[i].reason) == 0);
    }
}

static void claimed_names_are_compared(void **state)
{
    const struct world *world = *state;
    struct transcript transcript;
    const char *reason;
    assert_true(transcript_parse(recorded(&world->recordings[PLAIN]), &transcript, &reason));
    assert_true(transcript_is_for(&transcript, OCTETS("www.example.com")));
    assert_true(transcript_is_for(&transcript, OCTETS("WWW.example.com")));
    assert_false(transcript_is_for(&transcript, OCTETS("ftp.example.com")));
    assert_false(transcript_is_for(&transcript, OCTETS("")));
    assert_true(transcript_parse(recorded(&world->recordings[NAMELESS]), &transcript, &reason));
    assert_true(transcript_is_for(&transcript, OCTETS("")));
    assert_false(transcript_is_for(&transcript, OCTETS("www.example.com")));
}

static void acme_is_seen(void **state)
{
    const struct world *world = *state;
    static uint8_t first[MESSAGES_MAX], second[MESSAGES_MAX];
    struct transcript transcript;
    const char *reason;
    const struct row offer = {"offer",
                              PLAIN,
                              0,
                              SET,
                              16,
                              OCTETS("\0\x0b\x0a"
                                     "acme-tls/1"),
                              NULL};
    const struct row choice = {"choice",
                               PLAIN,
                               2,
                               SET,
                               16,
                               OCTETS("\0\x0b\x0a"
                                      "acme-tls/1"),
                               NULL};
    struct recording *offered = calloc(1, sizeof *offered);
    offered->size = change(&world->recordings[PLAIN], &offer, first);
    memcpy(offered->octets, first, offered->size);
    size_t size = change(offered, &choice, second);
    assert_true(transcript_parse(bytes_of(second, size), &transcript, &reason));
    assert_true(transcript_check(&transcript, SCHEME, world->site, world->now, &reason));
    assert_true(transcript_is_for_acme(&transcript));
    free(offered);
}

/* ---- The leaf. */

static void certificates_are_compared(void **state)
{
    const struct world *world = *state;
    struct transcript transcript;
    const char *reason = NULL;
    assert_true(transcript_parse(recorded(&world->recordings[PLAIN]), &transcript, &reason));
    X509 *other = make_leaf(world->key, 2, "DNS:www.example.com");
    struct site_certificates *certificates = site_certificates_new();
    assert_int_equal(site_certificates_add(certificates, other, NULL), RESULT_OK);
    assert_null(site_certificates_find(certificates, world->site->ski, transcript.certificate.leaf));
    size_t count;
    const struct site_leaf *leaf = site_certificates_of(certificates, world->site->ski, &count);
    assert_false(transcript_check(&transcript, SCHEME, leaf, world->now, &reason));
    assert_string_equal(reason, "another certificate");
    /* Old and new are both there in a renewal. */
    assert_int_equal(site_certificates_add(certificates, world->leaf, NULL), RESULT_OK);
    leaf = site_certificates_find(certificates, world->site->ski, transcript.certificate.leaf);
    assert_non_null(leaf);
    assert_non_null(site_certificates_of(certificates, world->site->ski, &count));
    assert_int_equal(count, 2);
    assert_true(transcript_check(&transcript, SCHEME, leaf, world->now, &reason));
    assert_true(transcript_check(&transcript, SCHEME, leaf, leaf->not_after, &reason));
    assert_false(transcript_check(&transcript, SCHEME, leaf, leaf->not_after + 1, &reason));
    assert_string_equal(reason, "the certificate has expired");
    assert_true(transcript_check(&transcript, SCHEME, leaf, leaf->not_before, &reason));
    assert_false(transcript_check(&transcript, SCHEME, leaf, leaf->not_before - 1, &reason));
    assert_string_equal(reason, "the certificate is not valid yet");
    X509_free(other);
    site_certificates_free(certificates);
}

/* ---- Cuts, at every place. */

static void cuts_are_refused(void **state)
{
    const struct world *world = *state;
    for (enum base base = PLAIN; base < BASES; base++)
        for (size_t size = 0; size < world->recordings[base].size; size++)
            assert_non_null(judge(world, bytes_of(world->recordings[base].octets, size), SCHEME));
}

/* ---- The hash. */

static void hashes_are_those_of_the_messages(void **state)
{
    const struct world *world = *state;
    for (enum base base = PLAIN; base < BASES; base++) {
        struct transcript transcript;
        const char *reason;
        uint8_t hash[TLS_TRANSCRIPT_HASH_MAX], expected[EVP_MAX_MD_SIZE], joined[MESSAGES_MAX];
        size_t size;
        unsigned expected_size;
        const EVP_MD *digest = base == LONG_HASH ? EVP_sha384() : EVP_sha256();
        struct bytes messages = recorded(&world->recordings[base]);
        assert_true(transcript_parse(messages, &transcript, &reason));
        assert_true(transcript_hash(&transcript, hash, &size));
        assert_int_equal(size, base == LONG_HASH ? 48 : 32);
        struct writer to = writer_of(joined, sizeof joined);
        size_t skip = base == RETRY ? transcript.messages[0].size : 0;
        if (base == RETRY) {
            write_bytes(&to, OCTETS("\xfe\0\0\x20"));
            assert_int_equal(EVP_Digest(messages.data, skip, expected, &expected_size, digest, NULL), 1);
            write_bytes(&to, bytes_of(expected, expected_size));
        }
        write_bytes(&to, bytes_of(messages.data + skip, messages.size - skip));
        assert_true(writer_ok(&to));
        assert_int_equal(EVP_Digest(joined, to.size, expected, &expected_size, digest, NULL), 1);
        assert_memory_equal(hash, expected, size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(real_handshakes_are_taken),
        cmocka_unit_test(changed_ones_are_refused),
        cmocka_unit_test(names_are_checked),
        cmocka_unit_test(claimed_names_are_compared),
        cmocka_unit_test(acme_is_seen),
        cmocka_unit_test(certificates_are_compared),
        cmocka_unit_test(cuts_are_refused),
        cmocka_unit_test(hashes_are_those_of_the_messages),
    };
    return cmocka_run_group_tests(tests, world_make, world_free);
}
