#include "tests/unit/support/test_world.h"

#include <unistd.h>

#include "proxy/handshake_state.h"
#include "tests/unit/check.h"

static int set_up(void **state)
{
    test_world_configure(*state);
    test_world_open(*state);
    return 0;
}

static int tear_down(void **state)
{
    test_world_close(*state);
    return 0;
}

/* ---- What comes out of a handshake that succeeds. */

static const struct {
    const char *name;
    struct test_offer offer;
    const char *version, *group, *scheme;
    enum key_type key_type;
} SUCCESSES[] = {
    {"TLS 1.3, RSA",
     {.sni = "rsa.example", .version = TLS1_3_VERSION, .groups = "X25519"},
     "TLSv1.3",
     "X25519",
     "rsa_pss_rsae_sha256",
     KEY_TYPE_RSA},
    {"TLS 1.3, RSA, SHA-512",
     {.sni = "rsa.example", .version = TLS1_3_VERSION, .schemes = "rsa_pss_rsae_sha512"},
     "TLSv1.3",
     "X25519",
     "rsa_pss_rsae_sha512",
     KEY_TYPE_RSA},
    {"TLS 1.3, P-256",
     {.sni = "p256.example", .version = TLS1_3_VERSION, .groups = "P-256"},
     "TLSv1.3",
     "P-256",
     "ecdsa_secp256r1_sha256",
     KEY_TYPE_P256},
    {"TLS 1.3, P-384",
     {.sni = "p384.example", .version = TLS1_3_VERSION, .groups = "P-384"},
     "TLSv1.3",
     "P-384",
     "ecdsa_secp384r1_sha384",
     KEY_TYPE_P384},
    {"TLS 1.3, P-521",
     {.sni = "p521.example", .version = TLS1_3_VERSION},
     "TLSv1.3",
     "X25519",
     "ecdsa_secp521r1_sha512",
     KEY_TYPE_P521},
    {"TLS 1.3, Ed25519",
     {.sni = "ed25519.example", .version = TLS1_3_VERSION},
     "TLSv1.3",
     "X25519",
     "ed25519",
     KEY_TYPE_ED25519},
    {"TLS 1.3, Ed448",
     {.sni = "ed448.example", .version = TLS1_3_VERSION},
     "TLSv1.3",
     "X25519",
     "ed448",
     KEY_TYPE_ED448},
    {"TLS 1.2, RSA",
     {.sni = "rsa.example", .version = TLS1_2_VERSION, .groups = "X25519"},
     "TLSv1.2",
     "X25519",
     "rsa_pss_rsae_sha256",
     KEY_TYPE_RSA},
    {"TLS 1.2, RSA, PKCS#1",
     {.sni = "rsa.example", .version = TLS1_2_VERSION, .schemes = "rsa_pkcs1_sha384"},
     "TLSv1.2",
     "X25519",
     "rsa_pkcs1_sha384",
     KEY_TYPE_RSA},
    {"TLS 1.2, P-256",
     {.sni = "p256.example", .version = TLS1_2_VERSION, .groups = "P-256"},
     "TLSv1.2",
     "P-256",
     "ecdsa_secp256r1_sha256",
     KEY_TYPE_P256},
    {"TLS 1.2, P-384 with SHA-256, which TLS 1.2 allows",
     {.sni = "p384.example",
      .version = TLS1_2_VERSION,
      .groups = "P-384",
      .schemes = "ecdsa_secp256r1_sha256"},
     "TLSv1.2",
     "P-384",
     "ecdsa_secp256r1_sha256",
     KEY_TYPE_P384},
    {"TLS 1.2, Ed25519",
     {.sni = "ed25519.example", .version = TLS1_2_VERSION},
     "TLSv1.2",
     "X25519",
     "ed25519",
     KEY_TYPE_ED25519},
    {"both chains: ECDSA first",
     {.sni = "both.example"},
     "TLSv1.3",
     "X25519",
     "ecdsa_secp256r1_sha256",
     KEY_TYPE_P256},
    {"both chains, a client that knows RSA alone",
     {.sni = "both.example", .schemes = "rsa_pss_rsae_sha256"},
     "TLSv1.3",
     "X25519",
     "rsa_pss_rsae_sha256",
     KEY_TYPE_RSA},
    {"both chains, TLS 1.2, RSA suites alone",
     {.sni = "both.example", .version = TLS1_2_VERSION, .suites12 = "ECDHE-RSA-AES128-GCM-SHA256"},
     "TLSv1.2",
     "X25519",
     "rsa_pss_rsae_sha256",
     KEY_TYPE_RSA},
    {"both chains, TLS 1.2, a client without P-256",
     {.sni = "both.example", .version = TLS1_2_VERSION, .groups = "X25519"},
     "TLSv1.2",
     "X25519",
     "rsa_pss_rsae_sha256",
     KEY_TYPE_RSA},
    {"both chains by wildcard",
     {.sni = "a.WILD.example"},
     "TLSv1.3",
     "X25519",
     "ecdsa_secp256r1_sha256",
     KEY_TYPE_P256},
    {"two curves: the small one",
     {.sni = "curves.example"},
     "TLSv1.3",
     "X25519",
     "ecdsa_secp256r1_sha256",
     KEY_TYPE_P256},
    {"two curves, a client that verifies P-384 alone",
     {.sni = "curves.example", .schemes = "ecdsa_secp384r1_sha384"},
     "TLSv1.3",
     "X25519",
     "ecdsa_secp384r1_sha384",
     KEY_TYPE_P384},
    {"no SNI: the default", {.sni = NULL}, "TLSv1.3", "X25519", "rsa_pss_rsae_sha256", KEY_TYPE_RSA},
    {"unknown SNI, TLS 1.2: the default",
     {.sni = "unknown.example", .version = TLS1_2_VERSION},
     "TLSv1.2",
     "X25519",
     "rsa_pss_rsae_sha256",
     KEY_TYPE_RSA},
};

static void test_successes(void **state)
{
    for (size_t i = 0; i < COUNT_OF(SUCCESSES); i++) {
        const char *row = SUCCESSES[i].name, *sni = SUCCESSES[i].offer.sni;
        struct test_client client;
        test_client_start(&client, *state, &SUCCESSES[i].offer);
        test_client_run(&client);
        const struct handshake_facts *facts = handshake_facts(client.handshake);
        CHECK(row, client.state == HANDSHAKE_DONE && client.connected);
        CHECK(row, SSL_get_verify_result(client.ssl) == X509_V_OK);
        CHECK(row, strcmp(facts->version, SUCCESSES[i].version) == 0);
        CHECK(row, strcmp(facts->group, SUCCESSES[i].group) == 0);
        CHECK(row, strcmp(facts->scheme, SUCCESSES[i].scheme) == 0);
        CHECK(row, facts->key_type == SUCCESSES[i].key_type);
        CHECK(row, strcmp(facts->operation,
                          strcmp(facts->version, "TLSv1.3") == 0 ? "sign-transcript" : "sign-tls12") == 0);
        CHECK(row, strcmp(facts->key_server, "keys") == 0);
        CHECK(row, facts->sni_size == (sni != NULL ? strlen(sni) : 0));
        CHECK(row, facts->retries == 0 && !facts->resumed && facts->alpn_size == 0);
        CHECK(row, facts->key_duration > 0 && facts->key_duration <= facts->duration);
        test_client_end(&client);
    }
    assert_int_equal(test_world_metric(*state, PROXY_HANDSHAKES_OK), COUNT_OF(SUCCESSES));
    assert_int_equal(test_world_metric(*state, PROXY_KEY_REQUESTS_OK), COUNT_OF(SUCCESSES));
}

/* What the key server gets to see beside what it signs. */
static void test_request_context(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    test_client_start(&client, world, &(struct test_offer){.sni = "p256.example"});
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    assert_int_equal(world->server.requests, 1);
    assert_string_equal(world->server.last.sni, "p256.example");
    assert_int_equal(world->server.last.client_ip_size, 4);
    assert_memory_equal(world->server.last.client_ip, "\xC0\x00\x02\x07", 4);
    assert_int_equal(strlen(world->server.last.request_id), 17);
    test_client_end(&client);
}

/* Data both ways on the connection handed over; async mode is off, or libssl would make a fibre for each
 * read. */
static void test_connection_is_usable(void **state)
{
    struct test_client client;
    char data[16] = {0};
    test_client_start(&client, *state, &(struct test_offer){.sni = "p256.example"});
    test_client_run(&client);
    SSL *ssl = handshake_take_ssl(client.handshake);
    assert_non_null(ssl);
    assert_null(handshake_take_ssl(client.handshake));
    assert_int_equal(SSL_get_mode(ssl) & SSL_MODE_ASYNC, 0);
    assert_int_equal(SSL_write(client.ssl, "ping", 4), 4);
    assert_int_equal(SSL_read(ssl, data, sizeof data), 4);
    assert_memory_equal(data, "ping", 4);
    assert_int_equal(SSL_write(ssl, "pong!", 5), 5);
    assert_int_equal(SSL_read(client.ssl, data, sizeof data), 5);
    assert_int_equal(SSL_session_reused(ssl), 0);
    assert_int_equal(SSL_SESSION_has_ticket(SSL_get0_session(client.ssl)), 0);
    SSL_free(ssl);
    test_client_end(&client);
}

/* The certificate callbacks must not run again on a connection that was handed over. */
static void test_no_renegotiation(void **state)
{
    struct test_client client;
    char data[16];
    const struct test_offer offer = {.sni = "p256.example", .version = TLS1_2_VERSION};
    test_client_start(&client, *state, &offer);
    test_client_run(&client);
    SSL *ssl = handshake_take_ssl(client.handshake);
    assert_int_equal(SSL_renegotiate(client.ssl), 1);
    assert_int_not_equal(SSL_do_handshake(client.ssl), 1);
    assert_int_equal(SSL_read(ssl, data, sizeof data), -1);
    assert_int_equal(SSL_get_error(ssl, -1), SSL_ERROR_WANT_READ);
    assert_int_not_equal(SSL_do_handshake(client.ssl), 1);
    assert_int_equal(client.alert, SSL_AD_NO_RENEGOTIATION);
    SSL_free(ssl);
    test_client_end(&client);
}

/* What browsers offer first. */
static void test_hybrid_group(void **state)
{
    static const char HYBRID[] = "X25519MLKEM768";
    struct test_world *world = *state;
    struct test_client client;
    SSL_CTX *probe = SSL_CTX_new(TLS_server_method());
    bool known = SSL_CTX_set1_groups_list(probe, HYBRID) == 1;
    SSL_CTX_free(probe);
    if (!known)
        skip(); /* OpenSSL before 3.5 */
    test_world_close(world);
    test_world_configure(world);
    world->config.tls.groups = (char[]){"X25519MLKEM768:X25519"};
    test_world_open(world);
    test_client_start(&client, world, &(struct test_offer){.sni = "p256.example", .groups = HYBRID});
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    assert_string_equal(handshake_facts(client.handshake)->group, HYBRID);
    test_client_end(&client);
}

static void open_with_retries(struct test_world *world)
{
    test_world_close(world);
    test_world_configure(world);
    world->config.tls.groups = "P-384";
    test_world_open(world);
}

static const struct test_offer RETRIED = {.sni = "both.example", .groups = "X25519:P-384"};

static void test_hello_retry(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    open_with_retries(world);
    test_client_start(&client, world, &RETRIED);
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    assert_int_equal(handshake_facts(client.handshake)->retries, 1);
    assert_string_equal(handshake_facts(client.handshake)->group, "P-384");
    assert_int_equal(world->server.last.opcode, KSSL_OP_SIGN_TRANSCRIPT);
    test_client_end(&client);
}

/* ---- The transcript. */

/* The mode is what the configuration says; and only TLS 1.3 has a transcript to sign. */
static void test_operation_by_mode(void **state)
{
    static const struct {
        enum proxy_key_mode mode;
        int version;
        uint8_t opcode;
    } rows[] = {
        {KEY_MODE_TRANSCRIPT, TLS1_3_VERSION, 0x63},
        {KEY_MODE_TRANSCRIPT, TLS1_2_VERSION, 0x62},
        {KEY_MODE_TBS, TLS1_3_VERSION, 0x61},
        {KEY_MODE_TBS, TLS1_2_VERSION, 0x62},
    };
    struct test_world *world = *state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct test_client client;
        test_world_close(world);
        world->key_server_configs[0].mode = rows[i].mode;
        test_world_open(world);
        test_client_start(&client, world,
                          &(struct test_offer){.sni = "p256.example", .version = rows[i].version});
        test_client_run(&client);
        assert_int_equal(client.state, HANDSHAKE_DONE);
        assert_int_equal(world->server.last.opcode, rows[i].opcode);
        test_client_end(&client);
    }
}

/* ... for a name that no chain is for: the default chain, unless the key server sees the name. */
static void test_unknown_name_by_hash(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    test_world_close(world);
    world->key_server_configs[0].mode = KEY_MODE_TBS;
    test_world_open(world);
    test_client_start(&client, world, &(struct test_offer){.sni = "unknown.example"});
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_DONE);
    assert_string_equal(handshake_facts(client.handshake)->version, "TLSv1.3");
    assert_int_equal(handshake_facts(client.handshake)->key_type, KEY_TYPE_RSA);
    test_client_end(&client);
}

/* It is there while the signature is pending, in TLS 1.3 alone, and gone as soon as the signature is there.
 */
static void test_transcript_is_kept_while_needed(void **state)
{
    static const int versions[] = {TLS1_3_VERSION, TLS1_2_VERSION};
    struct test_world *world = *state;
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        bool tls13 = versions[i] == TLS1_3_VERSION;
        struct test_client client;
        world->server.hold = true;
        test_client_start(&client, world, &(struct test_offer){.sni = "rsa.example", .version = versions[i]});
        assert_null(client.handshake->transcript.payload);
        test_client_park(&client);
        WORLD_UNTIL(world, world->server.held_count == 1);
        assert_int_equal(client.handshake->transcript.payload != NULL, tls13);
        if (tls13)
            assert_int_equal(client.handshake->transcript.size, world->server.last.payload_size);
        test_key_server_release(&world->server);
        WORLD_UNTIL(world, client.woken > 0);
        assert_null(client.handshake->transcript.payload);
        test_client_run(&client);
        assert_int_equal(client.state, HANDSHAKE_DONE);
        assert_null(client.handshake->transcript.payload);
        test_client_end(&client);
    }
}

/* A hello of about so many octets, of which most are protocols that nobody speaks. */
static void start_with_long_hello(struct test_client *client, struct test_world *world, size_t size,
                                  const char *groups)
{
    static uint8_t protocols[17000];
    size_t used = sizeof "\x08http/1.1" - 1;
    memcpy(protocols, "\x08http/1.1", used);
    for (; used < size; used += 100) {
        memset(protocols + used, 'x', 100);
        protocols[used] = 99;
    }
    const struct test_offer offer = {
        .sni = "p256.example", .groups = groups, .alpn = bytes_of(protocols, used)};
    test_client_start(client, world, &offer);
}

/* Whole messages are kept, in however many records they come; also twice 15 kB. */
static void test_long_hello_in_pieces(void **state)
{
    struct test_world *world = *state;
    open_with_retries(world);
    for (unsigned retries = 0; retries <= 1; retries++) {
        struct test_client client;
        start_with_long_hello(&client, world, 15000, retries == 1 ? "X25519:P-384" : "P-384");
        assert_int_equal(SSL_set_max_send_fragment(client.ssl, 512), 1);
        test_client_run(&client);
        assert_int_equal(client.state, HANDSHAKE_DONE);
        assert_true(client.connected);
        assert_int_equal(handshake_facts(client.handshake)->retries, retries);
        assert_true(world->server.last.payload_size > 15000 * (1 + retries));
        assert_int_equal(world->server.last.opcode, KSSL_OP_SIGN_TRANSCRIPT);
        test_client_end(&client);
    }
}

static void test_hello_too_long(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    const char *stage, *reason;
    start_with_long_hello(&client, world, 16200, "X25519");
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_FAILED);
    handshake_failure(client.handshake, &stage, &reason);
    assert_string_equal(reason, "ClientHello too long");
    assert_int_equal(client.alert, SSL_AD_ILLEGAL_PARAMETER);
    assert_int_equal(test_world_metric(world, PROXY_HANDSHAKES_CLIENT), 1);
    test_client_end(&client);
}

/* What was kept must be what libssl signs. Nothing but a fault of ours can make it differ. */
static void test_transcript_mismatch(void **state)
{
    struct test_world *world = *state;
    struct test_client client;
    const char *stage, *reason;
    open_with_retries(world);
    test_client_start(&client, world, &RETRIED);
    test_client_step(&client); /* HelloRetryRequest is out */
    assert_int_equal(client.state, HANDSHAKE_WANT_READ);
    client.handshake->transcript.payload[40] ^= 1;
    test_client_run(&client);
    assert_int_equal(client.state, HANDSHAKE_FAILED);
    handshake_failure(client.handshake, &stage, &reason);
    assert_string_equal(stage, "key");
    assert_string_equal(reason, "the transcript is not what libssl signs");
    assert_int_equal(client.alert, SSL_AD_INTERNAL_ERROR);
    assert_int_equal(world->server.requests, 0);
    assert_int_equal(test_world_metric(world, PROXY_KEY_REQUESTS_MISMATCH), 1);
    assert_int_equal(test_world_metric(world, PROXY_FAILURES + HANDSHAKE_CLASS_KEY_TRANSCRIPT - 1), 1);
    test_client_end(&client);
}

/* ---- ALPN. */

static const struct {
    const char *name;
    struct bytes offered;
    const char *chosen; /* NULL: none */
    bool only_http11, fails;
} PROTOCOLS[] = {
    {"both: the server's order", WIRE("\x08http/1.1\x02h2"), "h2", false, false},
    {"http/1.1 alone", WIRE("\x08http/1.1"), "http/1.1", false, false},
    {"not offered", WIRE(""), NULL, false, false},
    {"none in common",
     WIRE("\x03"
          "foo"),
     NULL, false, true},
    {"a backend without h2", WIRE("\x02h2\x08http/1.1"), "http/1.1", true, false},
    {"a backend without h2, a client with nothing else", WIRE("\x02h2"), NULL, true, true},
};

static void test_protocols(void **state)
{
    for (size_t i = 0; i < COUNT_OF(PROTOCOLS); i++) {
        const char *row = PROTOCOLS[i].name, *chosen = PROTOCOLS[i].chosen;
        const struct test_offer offer = {
            .sni = "p256.example", .alpn = PROTOCOLS[i].offered, .only_http11 = PROTOCOLS[i].only_http11};
        struct test_client client;
        test_client_start(&client, *state, &offer);
        test_client_run(&client);
        const struct handshake_facts *facts = handshake_facts(client.handshake);
        CHECK(row, client.state == (PROTOCOLS[i].fails ? HANDSHAKE_FAILED : HANDSHAKE_DONE));
        CHECK(row, client.alert == (PROTOCOLS[i].fails ? SSL_AD_NO_APPLICATION_PROTOCOL : -1));
        CHECK(row, facts->alpn_size == (chosen != NULL ? strlen(chosen) : 0));
        CHECK(row, chosen == NULL || memcmp(facts->alpn, chosen, facts->alpn_size) == 0);
        test_client_end(&client);
    }
}

/* ---- Failures, and the words for them. */

static void check_failure(const char *row, const struct test_client *client, const char *stage,
                          const char *reason)
{
    const char *seen_stage, *seen_reason;
    CHECK(row, client->state == HANDSHAKE_FAILED);
    handshake_failure(client->handshake, &seen_stage, &seen_reason);
    if (strcmp(seen_stage, stage) != 0 || strcmp(seen_reason, reason) != 0)
        fail_msg("%s: %s: %s, expected %s: %s", row, seen_stage, seen_reason, stage, reason);
}

static const struct {
    const char *name;
    struct test_offer offer;
    int alert; /* that the client gets; -1: none */
    const char *stage, *reason;
} FAILURES[] = {
    {"TLS 1.1",
     {.sni = "rsa.example", .version = TLS1_1_VERSION, .suites12 = "ALL:@SECLEVEL=0"},
     SSL_AD_PROTOCOL_VERSION,
     "client hello",
     "unsupported protocol version"},
    {"TLS_RSA",
     {.sni = "rsa.example", .version = TLS1_2_VERSION, .suites12 = "AES128-GCM-SHA256"},
     SSL_AD_HANDSHAKE_FAILURE,
     "certificate",
     "no shared cipher"},
    {"a group we do not have",
     {.sni = "p256.example", .version = TLS1_3_VERSION, .groups = "X448"},
     SSL_AD_HANDSHAKE_FAILURE,
     "client hello",
     "no shared group"},
    {"unknown SNI, TLS 1.3, by transcript",
     {.sni = "unknown.example", .version = TLS1_3_VERSION},
     SSL_AD_UNRECOGNIZED_NAME,
     "client hello",
     "no certificate for this name"},
    {"ECDSA key, RSA client, TLS 1.3",
     {.sni = "p256.example", .version = TLS1_3_VERSION, .schemes = "rsa_pss_rsae_sha256"},
     SSL_AD_HANDSHAKE_FAILURE,
     "certificate",
     "no shared signature algorithm"},
    {"P-384 key, a client that knows SHA-256 alone, TLS 1.3",
     {.sni = "p384.example", .version = TLS1_3_VERSION, .schemes = "ecdsa_secp256r1_sha256"},
     SSL_AD_HANDSHAKE_FAILURE,
     "certificate",
     "no shared signature algorithm"},
    {"a client that does not trust the CA",
     {.sni = "p256.example", .distrust = true},
     -1,
     "finished",
     "client sent alert: unknown CA"},
};

static void test_failures(void **state)
{
    for (size_t i = 0; i < COUNT_OF(FAILURES); i++) {
        struct test_client client;
        test_client_start(&client, *state, &FAILURES[i].offer);
        test_client_run(&client);
        check_failure(FAILURES[i].name, &client, FAILURES[i].stage, FAILURES[i].reason);
        CHECK(FAILURES[i].name, client.alert == FAILURES[i].alert);
        CHECK(FAILURES[i].name, handshake_facts(client.handshake)->sni_size > 0);
        test_client_end(&client);
    }
    assert_int_equal(test_world_metric(*state, PROXY_HANDSHAKES_CLIENT), COUNT_OF(FAILURES));
    assert_int_equal(test_world_metric(*state, PROXY_HANDSHAKES_OK), 0);
}

/* ---- What is no TLS at all. */

static const struct {
    const char *name;
    struct bytes octets;
    enum proxy_metric metric;
    const char *reason;
} STRANGERS[] = {
    {"HTTP", WIRE("GET / HTTP/1.1\r\n\r\n"), PROXY_HANDSHAKES_CLIENT, "not TLS: HTTP request"},
    {"HTTP proxy", WIRE("CONNECT a:443 HTTP/1.1\r\n\r\n"), PROXY_HANDSHAKES_CLIENT,
     "not TLS: HTTP proxy request"},
    {"SSH", WIRE("SSH-2.0-OpenSSH_9.2\r\n"), PROXY_HANDSHAKES_CLIENT, "not TLS, or a bad record version"},
    {"SSLv2 hello",
     WIRE("\x80\x1c\x01\x03\x03\x00\x03\x00\x00\x00\x10\x00\x00\x2f"
          "0123456789abcdef"),
     PROXY_HANDSHAKES_CLIENT, "hello in SSLv2 format"},
    {"nothing", WIRE(""), PROXY_HANDSHAKES_CLIENT_GONE, "client closed"},
    {"half a hello", WIRE("\x16\x03\x01\x01\x00\x01\x00"), PROXY_HANDSHAKES_CLIENT_GONE, "client closed"},
};

static void test_strangers(void **state)
{
    for (size_t i = 0; i < COUNT_OF(STRANGERS); i++) {
        struct test_client client;
        int64_t before = test_world_metric(*state, STRANGERS[i].metric);
        test_client_start(&client, *state, &(struct test_offer){.sni = NULL});
        ssize_t sent = write(client.fd, STRANGERS[i].octets.data, STRANGERS[i].octets.size);
        CHECK(STRANGERS[i].name, sent == (ssize_t)STRANGERS[i].octets.size);
        test_client_leave(&client);
        test_client_run(&client);
        check_failure(STRANGERS[i].name, &client, "client hello", STRANGERS[i].reason);
        CHECK(STRANGERS[i].name, test_world_metric(*state, STRANGERS[i].metric) == before + 1);
        test_client_end(&client);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_successes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_request_context, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_connection_is_usable, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_renegotiation, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hybrid_group, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hello_retry, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_operation_by_mode, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_unknown_name_by_hash, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_transcript_is_kept_while_needed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_hello_in_pieces, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_hello_too_long, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_transcript_mismatch, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_protocols, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_failures, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_strangers, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, test_world_make, test_world_remove);
}
