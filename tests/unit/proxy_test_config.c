#include "proxy/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/buffer.h>
#include <openssl/ssl.h>

#include "common/process.h"
#include "tests/unit/support/example.h"

/* ---- Helpers. */

static enum result parse(const char *text, struct proxy_config **config, struct failure *why)
{
    const struct config_source source = {
        .file = "proxy.yaml",
        .directory = "/etc/keyless",
        .text = bytes_of(text, strlen(text)),
    };
    return proxy_config_parse(&source, config, why);
}

/* A whole configuration in mappings of one line each; a test replaces or adds lines. */
#define LISTEN       "listen: [{address: \"127.0.0.1:8443\"}]\n"
#define CERTIFICATES "certificates: [{dir: sites}]\n"
#define KEY_SERVERS  "key_servers: [{address: \"keys.example:2407\"}]\n"
#define KEY_CHANNEL  "key_channel: {certificate: edge1.pem, key: edge1-key.pem, ca: ca.pem}\n"
#define BACKENDS     "backends: {web: {servers: [\"127.0.0.1:8080\"]}}\n"
#define ALL          LISTEN CERTIFICATES KEY_SERVERS KEY_CHANNEL BACKENDS

static struct proxy_config *must_parse(const char *text)
{
    struct failure why = {0};
    struct proxy_config *config = NULL;
    if (parse(text, &config, &why) != RESULT_OK)
        fail_msg("%s\nin:\n%s", why.text, text);
    return config;
}

static char *print(const struct proxy_config *config)
{
    struct evbuffer *buffer = evbuffer_new();
    proxy_config_print(config, buffer);
    size_t size = evbuffer_get_length(buffer);
    char *text = calloc(1, size + 1);
    assert_non_null(text);
    (void)evbuffer_remove(buffer, text, size);
    evbuffer_free(buffer);
    return text;
}

#define SCHEMES_TLS13                                                                                        \
    "ecdsa_secp256r1_sha256:ed25519:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512:ed448:"                    \
    "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512"
#define ALL_SCHEMES SCHEMES_TLS13 ":rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512"

/* A policy's groups as they are with OpenSSL before 3.5: the hybrid one must stand first, or nowhere. */
static const char *without_hybrid(const char *groups)
{
    static const char HYBRID[] = "X25519MLKEM768:";
    SSL_CTX *probe = SSL_CTX_new(TLS_server_method());
    bool known = SSL_CTX_set1_groups_list(probe, "X25519MLKEM768") == 1;
    SSL_CTX_free(probe);
    assert_int_equal(strncmp(groups, HYBRID, strlen(HYBRID)) == 0, known);
    return groups + (known ? strlen(HYBRID) : 0);
}

/* ---- Defaults: the contract of the documentation. */

static void defaults_are_the_documented_ones(void **state)
{
    (void)state;
    struct proxy_config *config = must_parse(ALL);
    assert_int_equal(config->workers, process_cores());
    assert_null(config->user);
    assert_int_equal(config->listen_count, 1);
    assert_string_equal(config->listen[0].backend, "web");
    assert_int_equal(config->tls.min_version, TLS1_2_VERSION);
    assert_int_equal(config->tls.policy, POLICY_INTERMEDIATE);
    assert_string_equal(without_hybrid(config->tls.groups), "X25519:P-256");
    assert_string_equal(config->tls.schemes, ALL_SCHEMES);
    assert_string_equal(config->tls.ciphersuites,
                        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
    assert_int_equal(config->tls.alpn_count, 0);
    assert_null(config->tls.default_name);
    assert_string_equal(config->certificates[0].dir, "/etc/keyless/sites");
    assert_null(config->certificates[0].file);
    assert_int_equal(config->key_server_count, 1);
    assert_string_equal(config->key_servers[0].name, "keys.example:2407");
    assert_string_equal(config->key_servers[0].server_name, "keys.example");
    assert_string_equal(config->key_servers[0].at.host, "keys.example");
    assert_int_equal(config->key_servers[0].at.port, 2407);
    assert_true(proxy_config_has_names(config));
    assert_int_equal(config->key_servers[0].mode, KEY_MODE_TRANSCRIPT);
    assert_string_equal(config->key_channel.key, "/etc/keyless/edge1-key.pem");
    assert_int_equal(config->key_channel.timeout, 2000000);
    assert_int_equal(config->key_channel.in_flight, 512);
    assert_int_equal(config->key_channel.verify, KEY_VERIFY_AUTO);
    assert_int_equal(config->backends[0].connect_timeout, 5000000);
    assert_false(config->backends[0].servers[0].builtin_hello);
    assert_int_equal(config->limits.connections, 100000);
    assert_int_equal(config->limits.handshakes, 2000);
    assert_int_equal(config->limits.handshake_timeout, 10000000);
    assert_int_equal(config->limits.idle_timeout, 60000000);
    assert_int_equal(config->drain_timeout, 60000000);
    assert_int_equal(config->log.level, LOG_LEVEL_INFO);
    assert_int_equal(config->log.format, LOG_FORMAT_LOGFMT);
    assert_int_equal(config->log.rate, 100);
    assert_int_equal(config->access.to, ACCESS_OFF);
    assert_int_equal(config->access.format, LOG_FORMAT_LOGFMT);
    assert_int_equal(config->admin_listen.size, 0);
    proxy_config_free(config);
}

static void plain_http_is_sent_to_https(void **state)
{
    (void)state;
    struct proxy_config *config = must_parse(
        "listen: [{address: \"127.0.0.1:443\", backend: b}, {address: \"127.0.0.1:80\", "
        "redirect_to_https: on},\n  {address: \"127.0.0.1:81\", redirect_to_https: 8443}]\n"
        "backends: {a: {servers: \"127.0.0.1:1\"}, b: {servers: \"127.0.0.1:2\"}}\n" CERTIFICATES KEY_SERVERS
            KEY_CHANNEL);
    assert_int_equal(config->listen[0].redirect_port, 0);
    assert_int_equal(config->listen[1].redirect_port, 443);
    assert_null(config->listen[1].backend);
    assert_int_equal(config->listen[2].redirect_port, 8443);
    proxy_config_free(config);
}

static const struct {
    const char *given;
    enum proxy_access_to to;
    enum log_format format;
    const char *printed;
} ACCESS[] = {
    {"log: {access: stdout}\n", ACCESS_STDOUT, LOG_FORMAT_LOGFMT, "to: stdout\n    format: logfmt\n"},
    {"log: {access: stderr, format: json}\n", ACCESS_STDERR, LOG_FORMAT_JSON,
     "to: stderr\n    format: json\n"},
    {"log: {access: {to: stdout, format: json}}\n", ACCESS_STDOUT, LOG_FORMAT_JSON,
     "to: stdout\n    format: json\n"},
    {"log: {format: json, access: {to: stdout, format: logfmt}}\n", ACCESS_STDOUT, LOG_FORMAT_LOGFMT,
     "to: stdout\n    format: logfmt\n"},
    {"log: {access: off}\n", ACCESS_OFF, LOG_FORMAT_LOGFMT, "to: off\n    format: logfmt\n"},
};

static void access_log(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ACCESS / sizeof *ACCESS; i++) {
        char text[2048];
        (void)snprintf(text, sizeof text, "%s%s", ALL, ACCESS[i].given);
        struct proxy_config *config = must_parse(text);
        assert_int_equal(config->access.to, ACCESS[i].to);
        assert_int_equal(config->access.format, ACCESS[i].format);
        char *printed = print(config);
        assert_non_null(strstr(printed, ACCESS[i].printed));
        free(printed);
        proxy_config_free(config);
    }
}

static void settings_that_follow_from_others(void **state)
{
    (void)state;
    /* A default yields to what was set. */
    struct proxy_config *config = must_parse(ALL "limits: {connections: 1, handshake_timeout: 1s}\n");
    assert_int_equal(config->workers, 1);
    assert_int_equal(config->limits.handshakes, 1);
    assert_int_equal(config->key_channel.timeout, 1000000);
    proxy_config_free(config);

    config = must_parse(LISTEN CERTIFICATES KEY_CHANNEL
                        "key_servers: {address: \"unix:keys.sock\", server_name: keys.example}\n"
                        "backends: {web: {servers: \"builtin:hello\"}}\n");
    assert_string_equal(config->key_servers[0].name, "unix:keys.sock");
    assert_true(address_is_unix(&config->key_servers[0].at.address));
    assert_true(config->backends[0].servers[0].builtin_hello);
    assert_int_equal(config->backends[0].servers[0].address.size, 0);
    assert_ptr_equal(proxy_config_backend(config, "web"), &config->backends[0]);
    assert_null(proxy_config_backend(config, "we"));
    proxy_config_free(config);
}

/* ---- Policies by name. */

static void modern_policy(void **state)
{
    (void)state;
    struct proxy_config *config = must_parse(ALL "tls: {policy: modern}\n");
    assert_int_equal(config->tls.min_version, TLS1_3_VERSION);
    assert_string_equal(without_hybrid(config->tls.groups), "X25519:P-256:P-384");
    assert_string_equal(config->tls.schemes, SCHEMES_TLS13);
    assert_string_equal(config->tls.ciphersuites,
                        "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256");
    proxy_config_free(config);
}

/* Each setting alone; the others stay the policy's. */
static void settings_override_the_policy(void **state)
{
    (void)state;
    struct proxy_config *config = must_parse(ALL "tls: {policy: modern, min_version: \"1.2\"}\n");
    assert_int_equal(config->tls.min_version, TLS1_2_VERSION);
    assert_string_equal(config->tls.schemes, SCHEMES_TLS13);
    proxy_config_free(config);
    config = must_parse(ALL "tls: {policy: modern, groups: X448, ciphersuites: TLS_AES_256_GCM_SHA384,\n"
                            "  ciphers: ECDHE-ECDSA-AES128-GCM-SHA256, schemes: \"ed25519:ed448\"}\n");
    assert_int_equal(config->tls.min_version, TLS1_3_VERSION);
    assert_string_equal(config->tls.groups, "X448");
    assert_string_equal(config->tls.ciphersuites, "TLS_AES_256_GCM_SHA384");
    assert_string_equal(config->tls.ciphers, "ECDHE-ECDSA-AES128-GCM-SHA256");
    assert_string_equal(config->tls.schemes, "ed25519:ed448");
    proxy_config_free(config);
}

/* ---- Sites. */

#define SITES                                                                                                \
    "tls: {alpn: [h2, http/1.1]}\n"                                                                          \
    "sites:\n"                                                                                               \
    "  - {names: [WWW.Example.com., \"*.example.com\"], policy: modern, backend: web}\n"                     \
    "  - {names: shop.example.com, alpn: [], certificates: {file: shop.pem}}\n"

static const struct {
    const char *sni;
    int site; /* -1: none */
} SITE_OF[] = {{"www.example.com", 0},    {"WWW.EXAMPLE.COM.", 0},
               {"a.example.com", 0},      {"shop.example.com", 1},
               {"Shop.Example.Com", 1},   {"example.com", -1},
               {"a.b.example.com", -1},   {"*.example.com", -1},
               {"a.example.com.br", -1},  {"com", -1},
               {"x.shop.example.com", -1}};

static void sites_are_found_by_name(void **state)
{
    (void)state;
    struct proxy_config *config = must_parse(ALL SITES);
    assert_int_equal(config->site_count, 2);
    for (size_t i = 0; i < sizeof SITE_OF / sizeof *SITE_OF; i++) {
        struct bytes sni = bytes_of(SITE_OF[i].sni, strlen(SITE_OF[i].sni));
        const struct proxy_site *expected = SITE_OF[i].site < 0 ? NULL : &config->sites[SITE_OF[i].site];
        if (proxy_config_site(config, sni) != expected)
            fail_msg("%s is of another site", SITE_OF[i].sni);
    }
    assert_null(proxy_config_site(config, (struct bytes){0}));
    proxy_config_free(config);
}

/* What a site does not say is as in the rest of the file, and -t shows it. */
static void sites_take_from_the_rest(void **state)
{
    (void)state;
    struct proxy_config *config = must_parse(ALL SITES);
    assert_int_equal(config->sites[0].alpn_count, 2);
    assert_string_equal(config->sites[0].alpn[0], "h2");
    assert_int_equal(config->sites[0].policy, POLICY_MODERN);
    assert_string_equal(config->sites[0].backend, "web");
    assert_int_equal(config->sites[1].alpn_count, 0);
    assert_int_equal(config->sites[1].policy, POLICY_CONFIGURED);
    assert_null(config->sites[1].backend);
    assert_string_equal(config->sites[1].certificates[0].file, "/etc/keyless/shop.pem");
    proxy_config_free(config);
    /* With chains of their own no others are needed. */
    config = must_parse(LISTEN KEY_SERVERS KEY_CHANNEL BACKENDS SITES);
    assert_int_equal(config->certificate_count, 0);
    proxy_config_free(config);
}

static void sites_ask_for_certificates_of_their_own(void **state)
{
    (void)state;
    struct proxy_config *config = must_parse(
        ALL "tls: {client_auth: {mode: require, ca: ca.pem, crl: a.crl, names: [\"DNS:A.example\"]}}\n"
            "sites: [{names: a.example}, {names: b.example, client_auth: off},\n"
            "  {names: c.example, client_auth: {mode: request, ca: b.pem, depth: 0}}]\n");
    const struct proxy_client_auth *site = &config->sites[0].client_auth;
    assert_int_equal(site->mode, CLIENT_AUTH_REQUIRE);
    assert_string_equal(site->ca, "/etc/keyless/ca.pem");
    assert_string_equal(site->crl, "/etc/keyless/a.crl");
    assert_int_equal(site->depth, 4);
    assert_int_equal(site->name_count, 1);
    assert_string_equal(site->names[0], "DNS:a.example");
    assert_int_equal(config->sites[1].client_auth.mode, CLIENT_AUTH_OFF);
    site = &config->sites[2].client_auth;
    assert_int_equal(site->mode, CLIENT_AUTH_REQUEST);
    assert_string_equal(site->ca, "/etc/keyless/b.pem");
    assert_null(site->crl);
    assert_int_equal(site->depth, 0);
    assert_int_equal(site->name_count, 0);
    proxy_config_free(config);
}

/* ---- What OpenSSL takes. */

static const char *const ACCEPTED[] = {
    "tls: {groups: \"X25519:P-256\"}",
    "tls: {groups: \"x25519:secp384r1:P-521:X448\"}",
    "tls: {groups: prime256v1}",
    "tls: {ciphersuites: TLS_CHACHA20_POLY1305_SHA256}",
    "tls: {ciphers: ECDHE-RSA-AES128-GCM-SHA256}",
    "tls: {ciphers: \"ECDHE+AESGCM:ECDHE+CHACHA20\"}",
    "tls: {ciphers: \"ECDHE+AESGCM:!aNULL:-AES256\"}",
    "tls: {min_version: \"1.3\"}",
    "tls: {min_version: 1.3}",
    "tls: {policy: intermediate}",
    "tls: {schemes: rsa_pss_rsae_sha256}",
    "tls: {alpn: [h2, http/1.1]}",
    "tls: {default: www.example.com}",
};

static void tls_settings_are_accepted(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof ACCEPTED / sizeof *ACCEPTED; i++) {
        char text[2048];
        (void)snprintf(text, sizeof text, ALL "%s\n", ACCEPTED[i]);
        proxy_config_free(must_parse(text));
    }
}

/* ---- Errors. */

#define LONG_ALPN                                                                                            \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"   \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"   \
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ADDRESS_EXPECTED "expected an address such as 192.0.2.1:443, [2001:db8::1]:443 or unix:/run/app.sock"
#define ONLY_ECDHE       "expected only ECDHE with AES-GCM or ChaCha20-Poly1305"

static const struct {
    const char *given;
    const char *error; /* its beginning */
} ERRORS[] = {
    /* What must be there. */
    {CERTIFICATES KEY_SERVERS KEY_CHANNEL BACKENDS,
     "1:1: listen: missing, expected a list such as [{address: \"0.0.0.0:443\"}]"},
    {LISTEN KEY_SERVERS KEY_CHANNEL BACKENDS,
     "1:1: certificates: missing, expected a list such as [{dir: sites}]"},
    {LISTEN CERTIFICATES KEY_CHANNEL BACKENDS,
     "1:1: key_servers: missing, expected a list such as [{address: \"keys.example:2407\"}]"},
    {LISTEN CERTIFICATES KEY_SERVERS BACKENDS, "1:1: key_channel.certificate: missing, expected a path"},
    {LISTEN CERTIFICATES KEY_SERVERS KEY_CHANNEL,
     "1:1: backends: missing, expected a mapping such as {web: {servers: \"127.0.0.1:8080\"}}"},
    {"listen: []\n" CERTIFICATES KEY_SERVERS KEY_CHANNEL BACKENDS,
     "1:9: listen: got nothing in it, expected at least one"},
    {LISTEN "certificates: []\n" KEY_SERVERS KEY_CHANNEL BACKENDS,
     "2:15: certificates: got a list, expected a list such as [{dir: sites}]"},
    {LISTEN CERTIFICATES "key_servers: []\n" KEY_CHANNEL BACKENDS,
     "3:14: key_servers: got nothing in it, expected at least one"},
    {LISTEN CERTIFICATES KEY_SERVERS KEY_CHANNEL "backends: {}\n",
     "5:11: backends: got nothing in it, expected at least one"},
    {LISTEN CERTIFICATES KEY_SERVERS "key_channel: {certificate: a, key: b}\n" BACKENDS,
     "4:14: key_channel.ca: missing, expected a path"},
    {"listen: [{backend: web}]\n" CERTIFICATES KEY_SERVERS KEY_CHANNEL BACKENDS,
     "1:10: listen[0].address: missing, " ADDRESS_EXPECTED},
    /* Listeners. */
    {"listen:\n  - address: 127.0.0.1:1\n    backend: wbe\n" CERTIFICATES KEY_SERVERS KEY_CHANNEL BACKENDS,
     "3:14: listen[0].backend: got \"wbe\", expected one of the backends: web"},
    {LISTEN CERTIFICATES KEY_SERVERS KEY_CHANNEL
     "backends: {web: {servers: \"127.0.0.1:1\"}, api: {servers: \"127.0.0.1:2\"}}\n",
     "1:10: listen[0].backend: missing, expected one of the backends: web, api"},
    {"listen: [{address: \"127.0.0.1:1\"}, {address: \"[::1]:1\"},\n  {address: "
     "\"127.0.0.1:1\"}]\n" CERTIFICATES KEY_SERVERS KEY_CHANNEL BACKENDS,
     "2:13: listen[2].address: got \"127.0.0.1:1\", expected each address once; it is also listen[0]"},
    {LISTEN CERTIFICATES KEY_SERVERS KEY_CHANNEL BACKENDS "admin: {listen: \"127.0.0.1:8443\"}\n",
     "6:17: admin.listen: got \"127.0.0.1:8443\", expected an address of its own; it is also listen[0]"},
    {"listen: [{address: \"web.example:1\"}]\n" CERTIFICATES KEY_SERVERS KEY_CHANNEL BACKENDS,
     "1:20: listen[0].address: got \"web.example:1\", " ADDRESS_EXPECTED},
    {"listen: [{address: \"127.0.0.1:1\", redirect_to_https: 0}]\n" CERTIFICATES KEY_SERVERS KEY_CHANNEL
         BACKENDS,
     "1:54: listen[0].redirect_to_https: got \"0\", expected on, off or a port from 1 to 65535"},
    {"listen: [{address: \"127.0.0.1:1\", redirect_to_https: on, backend: web}]\n" CERTIFICATES KEY_SERVERS
         KEY_CHANNEL BACKENDS,
     "1:67: listen[0].backend: got \"web\", expected none beside redirect_to_https"},
    /* Certificates. */
    {LISTEN "certificates: [{}]\n" KEY_SERVERS KEY_CHANNEL BACKENDS,
     "2:16: certificates[0].dir: missing, expected either dir or file"},
    {LISTEN "certificates: [{dir: a, file: b}]\n" KEY_SERVERS KEY_CHANNEL BACKENDS,
     "2:31: certificates[0].file: got \"b\", expected either dir or file, not both"},
    /* Key servers. */
    {LISTEN CERTIFICATES
     "key_servers: [{address: \"keys.example:2407\"}, {address: \"keys.example:2407\"}]\n" KEY_CHANNEL
         BACKENDS,
     "3:47: key_servers[1].name: missing, expected a name of its own: key_servers[0] has it, too"},
    {LISTEN CERTIFICATES "key_servers: [{address: \"192.0.2.1:2407\"}]\n" KEY_CHANNEL BACKENDS,
     "3:15: key_servers[0].server_name: missing, expected the name in the key server's certificate, as its "
     "address is no host name"},
    {LISTEN CERTIFICATES "key_servers: [{address: \"unix:/a.b:1\"}]\n" KEY_CHANNEL BACKENDS,
     "3:15: key_servers[0].server_name: missing, expected the name in the key server's certificate"},
    {LISTEN CERTIFICATES
     "key_servers: [{address: \"keys.example:2407\", server_name: \"a/b\"}]\n" KEY_CHANNEL BACKENDS,
     "3:59: key_servers[0].server_name: got \"a/b\", expected a host name"},
    {LISTEN CERTIFICATES "key_servers: [{address: \"keys.example:2407\", mode: hash}]\n" KEY_CHANNEL BACKENDS,
     "3:52: key_servers[0].mode: got \"hash\", expected transcript, tbs or digest"},
    {LISTEN CERTIFICATES "key_servers: [{address: \"keys.example:2407\", mode: digest}]\n"
                         "key_channel: {certificate: a, key: b, ca: c, in_flight: 1001}\n" BACKENDS,
     "4:57: key_channel.in_flight: got \"1001\", expected at most 1000 with a key server of mode digest"},
    {LISTEN CERTIFICATES KEY_SERVERS
     "key_channel: {certificate: a, key: b, ca: c, timeout: 1s, attempt_timeout: 2s}\n" BACKENDS,
     "4:76: key_channel.attempt_timeout: got \"2s\", expected at most key_channel.timeout"},
    {LISTEN CERTIFICATES KEY_SERVERS
     "key_channel: {certificate: a, key: b, ca: c, timeout: 1s, fail_fast: 2s}\n" BACKENDS,
     "4:70: key_channel.fail_fast: got \"2s\", expected at most key_channel.timeout"},
    {LISTEN CERTIFICATES "key_servers: [{address: \"keys.example\"}]\n" KEY_CHANNEL BACKENDS,
     "3:25: key_servers[0].address: got \"keys.example\", expected an address such as 192.0.2.1:443, "
     "[2001:db8::1]:443, name.example:443 or unix:/run/app.sock"},
    {LISTEN CERTIFICATES "key_servers: [{server_name: keys.example}]\n" KEY_CHANNEL BACKENDS,
     "3:15: key_servers[0].address: missing, expected either address or srv"},
    {LISTEN CERTIFICATES "key_servers: [{address: \"keys.example:2407\", srv: _keyless._tcp.example, "
                         "server_name: a}]\n" KEY_CHANNEL BACKENDS,
     "3:51: key_servers[0].srv: got \"_keyless._tcp.example\", expected either address or srv, not both"},
    {LISTEN CERTIFICATES "key_servers: [{srv: _keyless._tcp.example}]\n" KEY_CHANNEL BACKENDS,
     "3:15: key_servers[0].server_name: missing, expected the name in the key server's certificate, for "
     "which "
     "no SRV record's word is taken"},
    {LISTEN CERTIFICATES "key_servers: [{srv: keys.example, server_name: a}]\n" KEY_CHANNEL BACKENDS,
     "3:21: key_servers[0].srv: got \"keys.example\", expected a name such as _keyless._tcp.example"},
    {LISTEN CERTIFICATES "key_servers: [{srv: _keyless._tcp, server_name: a}]\n" KEY_CHANNEL BACKENDS,
     "3:21: key_servers[0].srv: got \"_keyless._tcp\", expected a name such as _keyless._tcp.example"},
    {LISTEN CERTIFICATES "key_servers: [{srv: _a._tcp..example, server_name: a}]\n" KEY_CHANNEL BACKENDS,
     "3:21: key_servers[0].srv: got \"_a._tcp..example\", expected a name such as _keyless._tcp.example"},
    {LISTEN CERTIFICATES "key_servers: [{srv: _._tcp.example, server_name: a}]\n" KEY_CHANNEL BACKENDS,
     "3:21: key_servers[0].srv: got \"_._tcp.example\", expected a name such as _keyless._tcp.example"},
    /* Backends. */
    {LISTEN CERTIFICATES KEY_SERVERS KEY_CHANNEL "backends: {web: {servers: [\"builtin:hallo\"]}}\n",
     "5:28: backends.web.servers[0]: got \"builtin:hallo\", " ADDRESS_EXPECTED ", or builtin:hello"},
    {LISTEN CERTIFICATES KEY_SERVERS KEY_CHANNEL "backends: {web: {}}\n",
     "5:17: backends.web.servers: missing, " ADDRESS_EXPECTED ", or builtin:hello"},
    /* TLS. */
    {ALL "tls: {min_version: \"1.1\"}\n", "6:20: tls.min_version: got \"1.1\", expected 1.2 or 1.3"},
    {ALL "tls: {groups: \"X25519:P-999\"}\n",
     "6:15: tls.groups: got the unknown group \"P-999\", expected some of X25519, X448, P-256, P-384, P-521"},
    {ALL "tls: {groups: \"X25519:ffdhe2048\"}\n",
     "6:15: tls.groups: got the unknown group \"ffdhe2048\", expected"},
    {ALL "tls: {groups: \"brainpoolP256r1\"}\n",
     "6:15: tls.groups: got the unknown group \"brainpoolP256r1\", expected"},
    {ALL "tls: {groups: \"X25519::P-256\"}\n", "6:15: tls.groups: got the unknown group \"\", expected"},
    {ALL "tls: {ciphersuites: \"TLS_AES_128_GCM_SHA256:TLS_AES_128\"}\n",
     "6:21: tls.ciphersuites: got the unknown cipher suite \"TLS_AES_128\", expected some of "
     "TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256"},
    {ALL "tls: {ciphersuites: \"ECDHE-RSA-AES128-GCM-SHA256\"}\n",
     "6:21: tls.ciphersuites: got the unknown cipher suite \"ECDHE-RSA-AES128-GCM-SHA256\", expected"},
    {ALL "tls: {ciphers: \"ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM\"}\n",
     "6:16: tls.ciphers: got the unknown cipher \"ECDHE-RSA-AES128-GCM\", expected ECDHE ciphers"},
    {ALL "tls: {ciphers: \"AES128-GCM-SHA256\"}\n",
     "6:16: tls.ciphers: got \"AES128-GCM-SHA256\" with AES128-GCM-SHA256 in it, " ONLY_ECDHE},
    {ALL "tls: {ciphers: \"ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256\"}\n",
     "6:16: tls.ciphers: got \"ECDHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES128-GCM-SHA256\" with "
     "DHE-RSA-AES128-GCM-SHA256 in it, " ONLY_ECDHE},
    {ALL "tls: {ciphers: \"ECDHE-RSA-AES128-SHA256\"}\n",
     "6:16: tls.ciphers: got \"ECDHE-RSA-AES128-SHA256\" with ECDHE-RSA-AES128-SHA256 in it, " ONLY_ECDHE},
    {ALL "tls: {ciphers: \"ECDHE+AESGCM:@SECLEVEL=0\"}\n",
     "6:16: tls.ciphers: got \"@SECLEVEL=0\", expected ciphers: commands are not allowed"},
    {ALL "tls: {ciphers: \"!ALL\"}\n", "6:16: tls.ciphers: got \"!ALL\", expected at least one cipher"},
    {ALL "tls: {policy: old}\n", "6:15: tls.policy: got \"old\", expected intermediate or modern"},
    {ALL "tls: {schemes: \"ed25519:rsa_pkcs1_sha1\"}\n",
     "6:16: tls.schemes: got the unknown signature scheme \"rsa_pkcs1_sha1\", expected some of "
     "ecdsa_secp256r1_sha256, rsa_pss_rsae_sha256, ecdsa_secp384r1_sha384, ecdsa_secp521r1_sha512, "
     "rsa_pss_rsae_sha384, rsa_pss_rsae_sha512, ed25519, ed448, rsa_pkcs1_sha256, rsa_pkcs1_sha384, "
     "rsa_pkcs1_sha512"},
    {ALL "tls: {schemes: \"ed25519:\"}\n",
     "6:16: tls.schemes: got the unknown signature scheme \"\", expected some of"},
    {ALL "tls: {alpn: [h2, \"\"]}\n",
     "6:18: tls.alpn[1]: got \"\", expected a protocol's name of 1 to 255 octets"},
    {ALL "tls: {alpn: " LONG_ALPN "}\n", "6:13: tls.alpn: got \"aaaa"},
    {ALL "tls: {default: \"*\"}\n", "6:16: tls.default: got \"*\", expected a host name"},
    {ALL "tls: {strict_sni: maybe}\n", "6:19: tls.strict_sni: got \"maybe\", expected on or off"},
    {ALL "tls: {client_auth: on}\n",
     "6:20: tls.client_auth.mode: got \"on\", expected off, request or require"},
    {ALL "tls: {client_auth: require}\n",
     "6:20: tls.client_auth.ca: missing, expected the file of the CA that clients' certificates come from"},
    {ALL "tls: {client_auth: {ca: ca.pem}}\n",
     "6:20: tls.client_auth.mode: missing, expected request or require (or off) beside the other settings"},
    {ALL "tls: {client_auth: {mode: request, ca: ca.pem, depth: 17}}\n",
     "6:55: tls.client_auth.depth: got \"17\", expected a whole number from 0 to 16"},
    {ALL "tls: {client_auth: {mode: request, ca: ca.pem, names: [\"DNS:*.example\"]}}\n",
     "6:56: tls.client_auth.names[0]: got \"DNS:*.example\", expected a host name behind DNS:"},
    /* Sites. */
    {ALL "sites: [{names: a.example, client_auth: {names: [\"CN:a\"]}}]\n",
     "6:41: sites[0].client_auth.mode: missing, expected request or require"},
    {ALL "sites: [{backend: web}]\n",
     "6:9: sites[0].names: missing, expected host names such as [www.example.com, \"*.example.com\"]"},
    {ALL "sites: [{names: []}]\n", "6:17: sites[0].names: got nothing in it, expected at least one"},
    {ALL "sites: [{names: [a.example, \"*.*.example\"]}]\n",
     "6:29: sites[0].names[1]: got \"*.*.example\", expected a host name, or one whose first label is a * "
     "alone"},
    {ALL "sites: [{names: \"*\"}]\n", "6:17: sites[0].names: got \"*\", expected a host name"},
    {ALL "sites: [{names: \"a..example\"}]\n",
     "6:17: sites[0].names: got \"a..example\", expected a host name"},
    {ALL "sites:\n  - {names: [a.example, b.example]}\n  - {names: [c.example, B.Example.]}\n",
     "8:25: sites[1].names[1]: got \"B.Example.\", expected each name once; it is also in sites[0]"},
    {ALL "sites:\n  - {names: [a.example, b.example]}\n  - {names: a.example}\n",
     "8:13: sites[1].names[0]: got \"a.example\", expected each name once; it is also in sites[0]"},
    {ALL "sites: [{names: [a.example, a.example]}]\n",
     "6:29: sites[0].names[1]: got \"a.example\", expected each name once; it is also in sites[0]"},
    {ALL "sites: [{names: a.example, backend: api}]\n",
     "6:37: sites[0].backend: got \"api\", expected one of the backends: web"},
    {ALL "sites: [{names: a.example, policy: old}]\n",
     "6:36: sites[0].policy: got \"old\", expected intermediate or modern"},
    {ALL "sites: [{names: a.example, certificates: [{}]}]\n",
     "6:43: sites[0].certificates[0].dir: missing, expected either dir or file"},
    {ALL "sites: [{name: a.example}]\n", "6:10: sites[0]: unknown setting \"name\"; did you mean \"names\"?"},
    /* Limits. */
    {ALL "limits: {connections: 10, handshakes: 11}\n",
     "6:39: limits.handshakes: got \"11\", expected at most limits.connections, which is 10"},
    {ALL "limits: {handshakes: 32769}\n",
     "6:22: limits.handshakes: got \"32769\", expected a whole number from 1 to 32768"},
    {ALL "limits: {handshake_timeout: 1s}\nkey_channel: {}\n",
     "7:1: key_channel: got \"key_channel\" a second time, the first is in line 4"},
    {LISTEN CERTIFICATES KEY_SERVERS "key_channel: {certificate: a, key: b, ca: c, timeout: 11s}\n" BACKENDS,
     "4:55: key_channel.timeout: got \"11s\", expected at most limits.handshake_timeout, which is 10000ms"},
    {ALL "workers: 4\nlimits: {connections: 3}\n",
     "7:23: limits.connections: got \"3\", expected at least one for each of 4 workers"},
    /* What is for later versions. */
    {ALL "routes: []\n", "6:1: unknown setting \"routes\"; did you mean \"sites\"?"},
    {ALL "delegated_credentials: off\n",
     "6:1: unknown setting \"delegated_credentials\", expected one of workers, user, listen, tls,"},
    {"listen: [{address: \"127.0.0.1:1\", proxy_protocol: off}]\n" CERTIFICATES KEY_SERVERS KEY_CHANNEL
         BACKENDS,
     "1:35: listen[0]: unknown setting \"proxy_protocol\", expected one of address, backend, "
     "redirect_to_https"},
    {ALL "log: {debug: {sni: a.example}}\n",
     "6:7: log: unknown setting \"debug\", expected one of level, format, rate, access"},
    /* The access log. */
    {ALL "log: {access: on}\n", "6:15: log.access.to: got \"on\", expected off, stdout or stderr"},
    {ALL "log: {access: /var/log/access.log}\n",
     "6:15: log.access.to: got \"/var/log/access.log\", expected off, stdout or stderr"},
    {ALL "log: {access: {to: stdout, format: clf}}\n",
     "6:36: log.access.format: got \"clf\", expected logfmt or json"},
    {ALL "log: {access: {file: a}}\n",
     "6:16: log.access: unknown setting \"file\", expected one of to, format"},
};

static void errors_say_what_and_where(void **state)
{
    (void)state;
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++) {
        struct failure why = {0};
        struct proxy_config *config = NULL;
        char error[512];
        (void)snprintf(error, sizeof error, "proxy.yaml:%s", ERRORS[i].error);
        enum result result = parse(ERRORS[i].given, &config, &why);
        if (result == RESULT_CONFIG && strncmp(why.text, error, strlen(error)) == 0)
            continue;
        print_error("given:\n%s\nexpected: %s\ngot:      %s\n", ERRORS[i].given, error, why.text);
        proxy_config_free(config);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* ---- -t, the example and the table. */

static void print_reads_back(void **state)
{
    (void)state;
    struct proxy_config *first = must_parse(
        ALL "user: keyless\n"
            "tls: {alpn: [h2, \"a\\\"b\"], default: a.example, min_version: 1.3}\n"
            "admin: {listen: \"unix:admin.sock\"}\n"
            "log: {format: json, rate: 0, access: {to: stderr, format: logfmt}}\n"
            "sites: [{names: [b.example, \"*.c.example\"], certificates: {dir: b}, alpn: [],\n"
            "   client_auth: {mode: require, ca: c.pem, names: [\"URI:a\", \"DNS:*.d.example\"]}},\n"
            "  {names: D.example, policy: intermediate, backend: web}]\n");
    char *once = print(first);
    struct proxy_config *second = must_parse(once);
    char *twice = print(second);
    assert_string_equal(once, twice);
    assert_non_null(strstr(once, "user: \"keyless\"\n"));
    assert_non_null(strstr(once, "  server_name: \"keys.example\"\n"));
    assert_non_null(strstr(once, "admin:\n  listen: \"unix:/etc/keyless/admin.sock\"\n"));
    free(once);
    free(twice);
    proxy_config_free(first);
    proxy_config_free(second);
}

static void srv_reads_back(void **state)
{
    (void)state;
    struct proxy_config *config = must_parse(
        LISTEN CERTIFICATES
        "key_servers: [{srv: _keyless._tcp.example, server_name: keys.example}]\n" KEY_CHANNEL BACKENDS);
    assert_string_equal(config->key_servers[0].name, "_keyless._tcp.example");
    assert_true(proxy_key_server_is_named(&config->key_servers[0]));
    char *once = print(config);
    struct proxy_config *again = must_parse(once);
    assert_string_equal(again->key_servers[0].srv, "_keyless._tcp.example");
    free(once);
    proxy_config_free(config);
    proxy_config_free(again);
}

static void example_is_accepted(void **state)
{
    (void)state;
    struct failure why = {0};
    struct proxy_config *config = NULL;
    if (proxy_config_read(EXAMPLES "/proxy.yaml", &config, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    assert_int_equal(config->listen_count, 2);
    assert_true(config->backends[0].servers[0].builtin_hello);
    assert_string_equal(config->key_servers[0].server_name, "keys.example");
    proxy_config_free(config);
}

/* What the example shows as defaults are the defaults, and it shows every setting. */
static void example_shows_the_defaults(void **state)
{
    (void)state;
    char *text = example_read(EXAMPLES "/proxy.yaml");
    struct proxy_config *as_it_is = must_parse(text);
    assert_in_range(example_uncomment(text), 10, 100);
    struct proxy_config *uncommented = must_parse(text);
    /* The example cannot tell which OpenSSL it is read with. */
    char *groups = strdup(without_hybrid(as_it_is->tls.groups));
    free(as_it_is->tls.groups);
    as_it_is->tls.groups = groups;
    char *before = print(as_it_is);
    char *after = print(uncommented);
    char *missing = example_missing_line(before, after);
    if (missing != NULL)
        fail_msg("the example shows another default than: %s", missing);
    /* Of certificates a dir or a file is not set; and who is sent elsewhere has no backend. */
    static const char *const UNSET[] = {"# file: not set", "# dir: not set", "# backend: not set",
                                        "# srv: not set"};
    for (const char *unset = after; (unset = strstr(unset, "# ")) != NULL; unset++) {
        bool expected = false;
        for (size_t i = 0; i < sizeof UNSET / sizeof *UNSET; i++)
            expected = expected || strncmp(unset, UNSET[i], strlen(UNSET[i])) == 0;
        assert_true(expected);
    }
    free(before);
    free(after);
    free(text);
    proxy_config_free(as_it_is);
    proxy_config_free(uncommented);
}

static void table_is_sound(void **state)
{
    (void)state;
    struct failure why = {0};
    if (config_table_check(proxy_config_table(), &why) != RESULT_OK)
        fail_msg("%s", why.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_the_documented_ones),
        cmocka_unit_test(access_log),
        cmocka_unit_test(settings_that_follow_from_others),
        cmocka_unit_test(plain_http_is_sent_to_https),
        cmocka_unit_test(modern_policy),
        cmocka_unit_test(sites_are_found_by_name),
        cmocka_unit_test(sites_take_from_the_rest),
        cmocka_unit_test(sites_ask_for_certificates_of_their_own),
        cmocka_unit_test(settings_override_the_policy),
        cmocka_unit_test(tls_settings_are_accepted),
        cmocka_unit_test(errors_say_what_and_where),
        cmocka_unit_test(print_reads_back),
        cmocka_unit_test(srv_reads_back),
        cmocka_unit_test(example_is_accepted),
        cmocka_unit_test(example_shows_the_defaults),
        cmocka_unit_test(table_is_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
