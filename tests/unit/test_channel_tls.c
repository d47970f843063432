/* Who may be on the other side of a channel, what TLS is spoken, and what is said to who is refused. */
#include "tests/unit/support/test_fixture.h"

#include <stdio.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/pem.h>

#include "tests/unit/check.h"

static void check_text(const char *row, const struct failure *why, enum result kind, const char *text)
{
    if (why->kind != kind || strstr(why->text, text) == NULL)
        fail_msg("%s: expected %s: %s; it was %s: %s", row, result_name(kind), text, result_name(why->kind),
                 why->text);
}

/* ---- Verification, seen from the key server. */

static const struct client_row {
    struct test_subject subject; /* no name: no certificate */
    const char *refused;         /* NULL: accepted */
    int alert;
    bool other_ca;
} CLIENTS[] = {
    {.subject = {.name = "client-auth", .usage = "clientAuth"}},
    {.subject = {.name = "both", .usage = "serverAuth,clientAuth"}},
    {.subject = {.name = "no-usage"}},
    {.subject = {.name = "rsa", .usage = "clientAuth", .key_type = "RSA"}},
    {.subject = {.name = "ed25519", .usage = "clientAuth", .key_type = "ED25519"}},
    {.subject = {.name = "for-ever", .usage = "clientAuth", .not_after = "99991231235959Z"}},
    {.subject = {.name = "server-auth", .usage = "serverAuth"},
     .refused = "(its keyUsage or extendedKeyUsage does not allow this role); subject CN=server-auth",
     .alert = SSL_AD_UNSUPPORTED_CERTIFICATE},
    {.subject = {.name = "any-usage", .usage = "anyExtendedKeyUsage"},
     .refused = "does not allow this role); subject CN=any-usage",
     .alert = SSL_AD_UNSUPPORTED_CERTIFICATE},
    {.subject = {.name = "late", .usage = "clientAuth", .lifetime = -5},
     .refused = "certificate has expired; subject CN=late",
     .alert = SSL_AD_CERTIFICATE_EXPIRED},
    {.subject = {.name = "stranger", .usage = "clientAuth"},
     .other_ca = true,
     .refused = "unable to get local issuer certificate; subject CN=stranger",
     .alert = SSL_AD_UNKNOWN_CA},
    {.subject = {.name = "new\nline\"", .usage = "clientAuth"},
     .other_ca = true,
     .refused = "subject CN=new\\0Aline\\\"",
     .alert = SSL_AD_UNKNOWN_CA},
    {.subject = {.name = NULL},
     .refused = "the peer sent no certificate",
     .alert = SSL_AD_CERTIFICATE_REQUIRED},
};

static void check_client(struct test_fixture *all, const struct client_row *row, int version)
{
    const char *name = row->subject.name != NULL ? row->subject.name : "none";
    struct test_identity identity;
    if (row->subject.name != NULL)
        test_ca_issue(row->other_ca ? &all->other_ca : &all->ca, &row->subject, &identity);
    all->far = (struct test_end){0};
    test_raw_connect(&all->raw, &all->net, &all->ca, row->subject.name != NULL ? &identity : NULL);
    assert_int_equal(SSL_set_max_proto_version(all->raw.ssl, version), 1);
    test_end_accept(&all->far, &all->net, all->server);
    if (row->refused == NULL) {
        RUN_UNTIL(&all->net, test_raw_handshake(&all->raw) && all->far.opened == 1);
        test_end_close(&all->far);
    } else {
        /* In TLS 1.3 the client's handshake succeeds; it learns the rest by reading. */
        RUN_UNTIL(&all->net, (test_raw_handshake(&all->raw), test_raw_ended(&all->raw)));
        CHECK(name, all->raw.alert == row->alert ||
                        (row->subject.name == NULL && all->raw.alert == SSL_AD_HANDSHAKE_FAILURE));
        test_raw_close(&all->raw);
        RUN_UNTIL(&all->net, all->far.closed == 1);
        check_text(name, &all->far.why, RESULT_PEER, row->refused);
        CHECK(name, all->far.cause == (strcmp(row->refused, "the peer sent no certificate") == 0
                                           ? CHANNEL_CAUSE_NO_CERTIFICATE
                                           : CHANNEL_CAUSE_CERTIFICATE));
        CHECK(name, all->far.opened == 0);
    }
    test_raw_close(&all->raw);
}

static void test_clients(void **state)
{
    for (size_t i = 0; i < COUNT_OF(CLIENTS); i++) {
        check_client(*state, &CLIENTS[i], TLS1_3_VERSION);
        check_client(*state, &CLIENTS[i], TLS1_2_VERSION);
    }
}

/* ---- Verification, seen from the proxy. */

static const struct server_row {
    struct test_subject subject;
    const char *expected; /* the name that we look for */
    const char *refused;
    int alert;
    bool other_ca;
} SERVERS[] = {
    {.subject = {.name = "exact", .san = "DNS:keys.example", .usage = "serverAuth"},
     .expected = "keys.example"},
    {.subject = {.name = "case", .san = "DNS:KEYS.example"}, .expected = "keys.EXAMPLE"},
    {.subject = {.name = "wildcard", .san = "DNS:*.keys.example"}, .expected = "a.keys.example"},
    {.subject = {.name = "second", .san = "DNS:a.example,DNS:keys.example"}, .expected = "keys.example"},
    {.subject = {.name = "ip", .san = "IP:192.0.2.7"}, .expected = "192.0.2.7"},
    {.subject = {.name = "ipv6", .san = "IP:2001:db8::7"}, .expected = "2001:db8:0::7"},
    {.subject = {.name = "other-name", .san = "DNS:keys2.example", .usage = "serverAuth"},
     .expected = "keys.example",
     .refused = "hostname mismatch (expected keys.example); subject CN=other-name",
     .alert = SSL_AD_BAD_CERTIFICATE},
    {.subject = {.name = "partial", .san = "DNS:a*.keys.example"},
     .expected = "ab.keys.example",
     .refused = "hostname mismatch",
     .alert = SSL_AD_BAD_CERTIFICATE},
    {.subject = {.name = "deep", .san = "DNS:*.keys.example"},
     .expected = "a.b.keys.example",
     .refused = "hostname mismatch",
     .alert = SSL_AD_BAD_CERTIFICATE},
    {.subject = {.name = "keys.example"}, /* the subject's CN is not looked at */
     .expected = "keys.example",
     .refused = "hostname mismatch",
     .alert = SSL_AD_BAD_CERTIFICATE},
    {.subject = {.name = "other-ip", .san = "IP:192.0.2.8,DNS:192.0.2.7"},
     .expected = "192.0.2.7",
     .refused = "IP address mismatch",
     .alert = SSL_AD_BAD_CERTIFICATE},
    {.subject = {.name = "edge",
                 .san = "DNS:keys.example",
                 .usage = "clientAuth"}, /* a stolen edge is no key server */
     .expected = "keys.example",
     .refused = "does not allow this role); subject CN=edge",
     .alert = SSL_AD_UNSUPPORTED_CERTIFICATE},
    {.subject = {.name = "late", .san = "DNS:keys.example", .lifetime = -5},
     .expected = "keys.example",
     .refused = "certificate has expired; subject CN=late",
     .alert = SSL_AD_CERTIFICATE_EXPIRED},
    {.subject = {.name = "stranger", .san = "DNS:keys.example"},
     .other_ca = true,
     .expected = "keys.example",
     .refused = "unable to get local issuer certificate; subject CN=stranger",
     .alert = SSL_AD_UNKNOWN_CA},
};

static void check_server(struct test_fixture *all, const struct server_row *row, int version)
{
    const char *name = row->subject.name;
    struct test_identity identity;
    test_ca_issue(row->other_ca ? &all->other_ca : &all->ca, &row->subject, &identity);
    all->near = (struct test_end){0};
    test_end_connect(&all->near, &all->net, all->client, row->expected);
    test_raw_accept(&all->raw, &all->net, &all->ca, &identity);
    assert_int_equal(SSL_set_max_proto_version(all->raw.ssl, version), 1);
    if (row->refused == NULL) {
        RUN_UNTIL(&all->net, (test_raw_handshake(&all->raw) && all->near.opened == 1) || all->near.closed);
        if (all->near.closed)
            fail_msg("%s: %s", name, all->near.why.text);
        test_end_close(&all->near);
    } else {
        RUN_UNTIL(&all->net, (test_raw_handshake(&all->raw), all->raw.error == SSL_ERROR_SSL));
        CHECK(name, all->raw.alert == row->alert);
        test_raw_close(&all->raw);
        RUN_UNTIL(&all->net, all->near.closed == 1);
        check_text(name, &all->near.why, RESULT_PEER, row->refused);
        CHECK(name, all->near.cause == CHANNEL_CAUSE_CERTIFICATE);
        CHECK(name, all->near.opened == 0);
    }
    test_raw_close(&all->raw);
}

static void test_servers(void **state)
{
    for (size_t i = 0; i < COUNT_OF(SERVERS); i++) {
        check_server(*state, &SERVERS[i], TLS1_3_VERSION);
        check_server(*state, &SERVERS[i], TLS1_2_VERSION);
    }
}

/* ---- Both ends ours: what a refused client is told, whatever it does meanwhile. */

static void send_at_once(struct test_end *end)
{
    for (uint32_t i = 0; i < 8; i++)
        assert_int_equal(test_end_send(end, i, 30000, 1), RESULT_OK);
}

static void test_refusal_is_the_reason(void **state)
{
    struct test_fixture *all = *state;
    struct test_identity identity;
    test_ca_issue(&all->other_ca, &(struct test_subject){.name = "stranger"}, &identity);
    SSL_CTX *stranger = test_context(false, &identity, &all->ca);
    for (int writes = 0; writes < 2; writes++) {
        all->near = (struct test_end){.on_open = writes ? send_at_once : NULL};
        all->far = (struct test_end){0};
        test_end_connect(&all->near, &all->net, stranger, TEST_SERVER_NAME);
        test_end_accept(&all->far, &all->net, all->server);
        RUN_UNTIL(&all->net, all->near.closed && all->far.closed);
        check_text("client", &all->near.why, RESULT_PEER,
                   "the peer refuses our certificate: it sent the alert \"unknown CA\" (48)");
        check_text("server", &all->far.why, RESULT_PEER,
                   "unable to get local issuer certificate; subject CN=stranger");
        assert_int_equal(all->near.cause, CHANNEL_CAUSE_ALERT);
        assert_int_equal(all->far.cause, CHANNEL_CAUSE_CERTIFICATE);
        assert_int_equal(all->near.opened, 1); /* TLS 1.3: open before it is refused */
        assert_int_equal(all->far.opened + all->far.frames, 0);
    }
    SSL_CTX_free(stranger);
}

/* ---- Expiry of a channel that is open. */

static void test_expires_while_open(void **state)
{
    struct test_fixture *all = *state;
    struct test_identity identity;
    test_ca_issue(&all->ca, &(struct test_subject){.name = "brief", .lifetime = 3}, &identity);
    SSL_CTX *brief = test_context(false, &identity, &all->ca);
    test_end_connect(&all->near, &all->net, brief, TEST_SERVER_NAME);
    test_end_accept(&all->far, &all->net, all->server);
    RUN_UNTIL(&all->net, all->near.opened == 1 && all->far.opened == 1);
    time_t end = 0;
    struct tm parts;
    assert_int_equal(ASN1_TIME_to_tm(X509_get0_notAfter(channel_peer_certificate(all->far.channel)), &parts),
                     1);
    end = timegm(&parts);
    RUN_UNTIL(&all->net, all->far.closed && all->near.closed);
    assert_in_range(time(NULL), end + 1, end + 8);
    check_text("server", &all->far.why, RESULT_PEER,
               "the peer's certificate, or one of its chain, has expired");
    check_text("client", &all->near.why, RESULT_OK, "the peer closed the connection");
    SSL_CTX_free(brief);
}

static void test_far_expiry_does_not_overflow(void **state)
{
    struct test_fixture *all = *state;
    struct test_identity identity;
    test_ca_issue(&all->ca, &(struct test_subject){.name = "for-ever", .not_after = "99991231235959Z"},
                  &identity);
    test_raw_connect(&all->raw, &all->net, &all->ca, &identity);
    test_end_accept(&all->far, &all->net, all->server);
    RUN_UNTIL(&all->net, test_raw_handshake(&all->raw) && all->far.opened == 1);
    uint64_t turns = all->net.turns;
    RUN_UNTIL(&all->net, all->net.turns > turns + 20);
    assert_int_equal(all->far.closed, 0);
}

/* ---- What TLS is spoken. */

static void test_prefers(void **state)
{
    struct test_fixture *all = *state;
    test_raw_connect(&all->raw, &all->net, &all->ca, &all->client_identity);
    assert_int_equal(SSL_set_ciphersuites(all->raw.ssl, "TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256:"
                                                        "TLS_AES_128_GCM_SHA256"),
                     1);
    test_end_accept(&all->far, &all->net, all->server);
    RUN_UNTIL(&all->net, test_raw_handshake(&all->raw) && all->far.opened == 1);
    assert_string_equal(SSL_get_version(all->raw.ssl), "TLSv1.3");
    assert_string_equal(SSL_get_cipher(all->raw.ssl), "TLS_AES_128_GCM_SHA256");
    assert_int_equal(SSL_get_negotiated_group(all->raw.ssl), NID_X25519);
}

static void test_client_offers_the_same(void **state)
{
    struct test_fixture *all = *state;
    test_start_raw_server(all);
    assert_string_equal(SSL_get_cipher(all->raw.ssl), "TLS_AES_128_GCM_SHA256");
    assert_int_equal(SSL_get_negotiated_group(all->raw.ssl), NID_X25519);
    assert_string_equal(SSL_get_servername(all->raw.ssl, TLSEXT_NAMETYPE_host_name), TEST_SERVER_NAME);
}

/* A peer of deployed software, limited to this. */
static const struct protocol_row {
    const char *name;
    int min, max;
    const char *ciphers; /* of TLS 1.2 */
    const char *version; /* negotiated; NULL: refused */
    const char *refused;
} PROTOCOLS[] = {
    {"TLS 1.3", TLS1_3_VERSION, TLS1_3_VERSION, "DEFAULT", "TLSv1.3", NULL},
    {"TLS 1.2", TLS1_2_VERSION, TLS1_2_VERSION, "DEFAULT", "TLSv1.2", NULL},
    {"ChaCha20", TLS1_2_VERSION, TLS1_2_VERSION, "ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2", NULL},
    {"AES-256-GCM", TLS1_2_VERSION, TLS1_2_VERSION, "ECDHE-ECDSA-AES256-GCM-SHA384", "TLSv1.2", NULL},
    {"CBC", TLS1_2_VERSION, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-SHA256", NULL, "no shared cipher"},
    {"CCM", TLS1_2_VERSION, TLS1_2_VERSION, "ECDHE-ECDSA-AES128-CCM", NULL, "no shared cipher"},
    {"DHE", TLS1_2_VERSION, TLS1_2_VERSION, "DHE-RSA-AES128-GCM-SHA256", NULL, "no shared cipher"},
    {"TLS_RSA", TLS1_2_VERSION, TLS1_2_VERSION, "AES128-GCM-SHA256", NULL, "no shared cipher"},
    {"TLS 1.1", TLS1_1_VERSION, TLS1_1_VERSION, "DEFAULT@SECLEVEL=0", NULL, "unsupported protocol"},
};

static void test_protocols(void **state)
{
    struct test_fixture *all = *state;
    for (size_t i = 0; i < COUNT_OF(PROTOCOLS); i++) {
        const struct protocol_row *row = &PROTOCOLS[i];
        all->far = (struct test_end){0};
        test_raw_connect(&all->raw, &all->net, &all->ca, &all->client_identity);
        assert_int_equal(SSL_set_min_proto_version(all->raw.ssl, row->min), 1);
        assert_int_equal(SSL_set_max_proto_version(all->raw.ssl, row->max), 1);
        assert_int_equal(SSL_set_cipher_list(all->raw.ssl, row->ciphers), 1);
        test_end_accept(&all->far, &all->net, all->server);
        if (row->version != NULL) {
            RUN_UNTIL(&all->net, test_raw_handshake(&all->raw) && all->far.opened == 1);
            assert_string_equal(SSL_get_version(all->raw.ssl), row->version);
            test_end_close(&all->far);
        } else {
            RUN_UNTIL(&all->net, !test_raw_handshake(&all->raw) && all->raw.error == SSL_ERROR_SSL);
            test_raw_close(&all->raw);
            RUN_UNTIL(&all->net, all->far.closed == 1);
            check_text(row->name, &all->far.why, RESULT_PROTOCOL, row->refused);
            CHECK(row->name, all->far.cause == CHANNEL_CAUSE_PROTOCOL);
        }
        test_raw_close(&all->raw);
    }
}

/* A peer of TLS 1.2 exchanges frames as well as one of 1.3. */
static void echo(struct test_end *end, const struct kssl_header *header, struct bytes body)
{
    assert_int_equal(test_end_send(end, header->id, body.size, 7), RESULT_OK);
}

static void test_tls12_frames(void **state)
{
    struct test_fixture *all = *state;
    uint8_t frame[KSSL_FRAME_MAX], answer[KSSL_FRAME_MAX];
    size_t size = test_frame(frame, KSSL_MAJOR, 77, 3000, 7);
    size_t got = 0;
    all->far.on_frame = echo;
    test_raw_connect(&all->raw, &all->net, &all->ca, &all->client_identity);
    assert_int_equal(SSL_set_max_proto_version(all->raw.ssl, TLS1_2_VERSION), 1);
    test_end_accept(&all->far, &all->net, all->server);
    RUN_UNTIL(&all->net, test_raw_handshake(&all->raw) && all->far.opened == 1);
    assert_string_equal(channel_tls_version(all->far.channel), "TLSv1.2");
    RUN_UNTIL(&all->net, test_raw_write(&all->raw, frame, size));
    RUN_UNTIL(&all->net, (got = test_raw_read(&all->raw, answer, sizeof answer)) > 0);
    assert_int_equal(got, size);
    assert_memory_equal(frame, answer, size);
}

/* TLS 1.2: the client asks for a new handshake on the open connection, and gets none. */
static void test_no_renegotiation(void **state)
{
    struct test_fixture *all = *state;
    uint8_t dropped[64];
    test_raw_connect(&all->raw, &all->net, &all->ca, &all->client_identity);
    assert_int_equal(SSL_set_max_proto_version(all->raw.ssl, TLS1_2_VERSION), 1);
    test_end_accept(&all->far, &all->net, all->server);
    RUN_UNTIL(&all->net, test_raw_handshake(&all->raw) && all->far.opened == 1);
    assert_int_equal(SSL_renegotiate(all->raw.ssl), 1);
    (void)test_raw_handshake(&all->raw);
    RUN_UNTIL(&all->net,
              test_raw_read(&all->raw, dropped, sizeof dropped) == 0 && all->raw.error == SSL_ERROR_SSL);
    assert_int_equal(ERR_GET_REASON(ERR_peek_last_error()), SSL_R_NO_RENEGOTIATION);
}

/* No ticket comes, and what the client has of a session gets it nothing. */
static void test_no_resumption(void **state)
{
    static const int VERSIONS[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    struct test_fixture *all = *state;
    uint8_t frame[KSSL_FRAME_MAX];
    for (size_t i = 0; i < COUNT_OF(VERSIONS); i++) {
        all->far = (struct test_end){.on_frame = echo};
        test_raw_connect(&all->raw, &all->net, &all->ca, &all->client_identity);
        assert_int_equal(SSL_set_max_proto_version(all->raw.ssl, VERSIONS[i]), 1);
        test_end_accept(&all->far, &all->net, all->server);
        RUN_UNTIL(&all->net, test_raw_handshake(&all->raw) && all->far.opened == 1);
        assert_true(test_raw_write(&all->raw, frame, test_frame(frame, KSSL_MAJOR, 1, 1, 1)));
        RUN_UNTIL(&all->net, test_raw_read(&all->raw, frame, sizeof frame) > 0);
        assert_false(SSL_SESSION_has_ticket(SSL_get0_session(all->raw.ssl)));
        assert_false(SSL_SESSION_is_resumable(SSL_get0_session(all->raw.ssl)));
        test_end_close(&all->far);
        test_raw_close(&all->raw);
    }
}

/* ---- Files. */

/* The identity's files, or in their place what the row names. */
static const struct file_row {
    const char *name;
    struct test_subject subject;
    bool server;
    const char *certificate, *key, *ca; /* file names in the CA's directory */
    const char *text;
} FILES[] = {
    {.name = "fine"},
    {.name = "fine", .server = true, .subject = {.usage = "serverAuth"}},
    {.name = "no certificate file",
     .certificate = "absent.pem",
     .text = "/absent.pem: No such file or directory"},
    {.name = "no key file", .key = "absent.key", .text = "/absent.key: No such file or directory"},
    {.name = "no CA file", .ca = "absent.pem", .text = "channel CA "},
    {.name = "certificate is text",
     .certificate = "text.pem",
     .text = "/text.pem: there is none in this file, or not in PEM form"},
    {.name = "key is text", .key = "text.pem", .text = "/text.pem: there is none in this file, or not in"},
    {.name = "CA is text", .ca = "text.pem", .text = "channel CA "},
    {.name = "certificate is a directory", .certificate = ".", .text = "channel certificate "},
    {.name = "another's key",
     .key = "other.key",
     .text = "/other.key does not belong to channel certificate "},
    {.name = "another's key", .key = "other-ed25519.key", .text = "does not belong to channel certificate "},
    {.name = "an encrypted key",
     .key = "encrypted.key",
     .text = "/encrypted.key is encrypted, which is not supported"},
    {.name = "an expired leaf", .subject = {.lifetime = -5}, .text = ".pem has expired"},
};

static const char *in_directory(const struct test_ca *ca, const char *file, char path[static TEST_PATH_SIZE],
                                const char *otherwise)
{
    if (file == NULL)
        return otherwise;
    (void)snprintf(path, TEST_PATH_SIZE, "%s/%s", ca->directory, file);
    return path;
}

static void write_key(const struct test_ca *ca, const char *name, EVP_PKEY *key, const EVP_CIPHER *cipher)
{
    char path[TEST_PATH_SIZE];
    unsigned char word[] = "word";
    FILE *file = fopen(in_directory(ca, name, path, NULL), "we");
    assert_non_null(file);
    assert_int_equal(PEM_write_PrivateKey(file, key, cipher, word, sizeof word, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
    EVP_PKEY_free(key);
}

static void write_odd_files(struct test_fixture *all)
{
    char path[TEST_PATH_SIZE];
    test_write_file(in_directory(&all->ca, "text.pem", path, NULL), "no PEM\n");
    write_key(&all->ca, "other.key", EVP_EC_gen("P-256"), NULL);
    write_key(&all->ca, "other-ed25519.key", EVP_PKEY_Q_keygen(NULL, NULL, "ED25519"), NULL);
    write_key(&all->ca, "encrypted.key", EVP_EC_gen("P-256"), EVP_aes_128_cbc());
}

static void test_files(void **state)
{
    struct test_fixture *all = *state;
    char certificate[TEST_PATH_SIZE], key[TEST_PATH_SIZE], ca[TEST_PATH_SIZE];
    write_odd_files(all);
    for (size_t i = 0; i < COUNT_OF(FILES); i++) {
        const struct file_row *row = &FILES[i];
        struct test_subject subject = row->subject;
        struct test_identity own;
        struct failure why = {0};
        SSL_CTX *context = NULL;
        subject.name = "files";
        test_ca_issue(&all->ca, &subject, &own);
        const struct channel_credentials files = {
            .certificate = in_directory(&all->ca, row->certificate, certificate, own.certificate),
            .key = in_directory(&all->ca, row->key, key, own.key),
            .ca = in_directory(&all->ca, row->ca, ca, all->ca.path),
        };
        enum result result = row->server ? channel_server_context(&files, &context, &why)
                                         : channel_client_context(&files, &context, &why);
        CHECK(row->name, result == (row->text == NULL ? RESULT_OK : RESULT_CONFIG));
        CHECK(row->name, (context != NULL) == (row->text == NULL));
        if (row->text != NULL)
            check_text(row->name, &why, RESULT_CONFIG, row->text);
        CHECK(row->name, ERR_peek_error() == 0);
        SSL_CTX_free(context);
    }
}

static void test_no_file_configured(void **state)
{
    struct test_fixture *all = *state;
    const struct channel_credentials files = {.certificate = all->client_identity.certificate,
                                              .ca = all->ca.path};
    struct failure why = {0};
    SSL_CTX *context = NULL;
    assert_int_equal(channel_client_context(&files, &context, &why), RESULT_CONFIG);
    assert_string_equal(why.text, "no channel key is configured");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST_WITH_FIXTURE(test_clients),
        TEST_WITH_FIXTURE(test_servers),
        TEST_WITH_FIXTURE(test_refusal_is_the_reason),
        TEST_WITH_FIXTURE(test_expires_while_open),
        TEST_WITH_FIXTURE(test_far_expiry_does_not_overflow),
        TEST_WITH_FIXTURE(test_prefers),
        TEST_WITH_FIXTURE(test_client_offers_the_same),
        TEST_WITH_FIXTURE(test_protocols),
        TEST_WITH_FIXTURE(test_tls12_frames),
        TEST_WITH_FIXTURE(test_no_renegotiation),
        TEST_WITH_FIXTURE(test_no_resumption),
        TEST_WITH_FIXTURE(test_files),
        TEST_WITH_FIXTURE(test_no_file_configured),
    };
    return cmocka_run_group_tests(tests, test_fixture_make, test_fixture_remove);
}
