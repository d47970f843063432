#include "keyserver/config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <event2/buffer.h>

#include "common/process.h"
#include "tests/unit/support/example.h"

/* ---- Helpers. */

static enum result parse(const char *text, struct keyserver_config **config, struct failure *why)
{
    const struct config_source source = {
        .file = "keyserver.yaml",
        .directory = "/etc/keyless",
        .text = bytes_of(text, strlen(text)),
    };
    return keyserver_config_parse(&source, config, why);
}

/* A whole configuration in mappings of one line each; a test replaces or adds lines. */
#define LISTEN  "listen: \"127.0.0.1:2407\"\n"
#define TLS     "tls: {certificate: keyserver.pem, key: keyserver-key.pem, client_ca: ca.pem}\n"
#define KEYS    "keys: [{dir: keys}]\n"
#define CLIENTS "clients: [{match: \"DNS:edge1.example\", keys: \"*\"}]\n"
#define ALL     LISTEN TLS KEYS CLIENTS

static struct keyserver_config *must_parse(const char *text)
{
    struct failure why = {0};
    struct keyserver_config *config = NULL;
    if (parse(text, &config, &why) != RESULT_OK)
        fail_msg("%s\nin:\n%s", why.text, text);
    return config;
}

static char *print(const struct keyserver_config *config)
{
    struct evbuffer *buffer = evbuffer_new();
    keyserver_config_print(config, buffer);
    size_t size = evbuffer_get_length(buffer);
    char *text = calloc(1, size + 1);
    assert_non_null(text);
    (void)evbuffer_remove(buffer, text, size);
    evbuffer_free(buffer);
    return text;
}

/* ---- Defaults: the contract of the documentation. */

static void defaults_are_the_documented_ones(void **state)
{
    (void)state;
    struct keyserver_config *config = must_parse(ALL);
    assert_int_equal(config->workers, process_cores());
    assert_null(config->user);
    assert_int_equal(config->listen_count, 1);
    assert_string_equal(config->tls.certificate, "/etc/keyless/keyserver.pem");
    assert_string_equal(config->tls.key, "/etc/keyless/keyserver-key.pem");
    assert_string_equal(config->tls.client_ca, "/etc/keyless/ca.pem");
    assert_string_equal(config->keys[0].dir, "/etc/keyless/keys");
    assert_int_equal(config->keys[0].where.line, 3);
    assert_string_equal(config->clients[0].match, "DNS:edge1.example");
    assert_int_equal(config->clients[0].key_count, 1);
    assert_string_equal(config->clients[0].keys[0], "*");
    assert_int_equal(config->clients[0].allow, ALLOW_TLS13 | ALLOW_TLS12);
    assert_int_equal(config->clients[0].scheme_count, 0);
    assert_int_equal(config->clients[0].alpn_count, 0);
    assert_int_equal(config->clients[0].rate, 0);
    assert_int_equal(config->clients[0].connections, 0);
    assert_int_equal(config->clients[0].in_flight, 0);
    assert_false(config->clients[0].deny);
    assert_int_equal(config->limits.connections, 1024);
    assert_int_equal(config->limits.per_address, 128);
    assert_int_equal(config->limits.in_flight, 1024);
    assert_int_equal(config->limits.handshake_timeout, 5000000);
    assert_int_equal(config->limits.idle_timeout, 60000000);
    assert_int_equal(config->queues.ec, 8192);
    assert_int_equal(config->queues.rsa, 2048);
    assert_int_equal(config->queues.rsa_large, 256);
    assert_int_equal(config->queues.deadline, 1000000);
    assert_int_equal(config->drain_timeout, 30000000);
    assert_int_equal(config->log.level, LOG_LEVEL_INFO);
    assert_int_equal(config->log.format, LOG_FORMAT_LOGFMT);
    assert_int_equal(config->log.rate, 100);
    assert_int_equal(config->admin_listen.size, 0);
    keyserver_config_free(config);
}

/* ---- Clients. */

#define FINGERPRINT       "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define FINGERPRINT_UPPER "0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF"
#define FINGERPRINT_COLONS                                                                                   \
    "01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF"

static const struct {
    const char *given, *kept;
} MATCHES[] = {
    {"DNS:edge1.example", "DNS:edge1.example"},
    {"DNS:Edge1.EXAMPLE", "DNS:edge1.example"},
    {"IP:192.0.2.1", "IP:192.0.2.1"},
    {"IP:2001:db8::1", "IP:2001:db8::1"},
    {"URI:spiffe://example/edge", "URI:spiffe://example/edge"},
    {"CN:Edge One", "CN:Edge One"},
    {"sha256:" FINGERPRINT, "sha256:" FINGERPRINT},
    {"sha256:" FINGERPRINT_UPPER, "sha256:" FINGERPRINT},
    {"sha256:" FINGERPRINT_COLONS, "sha256:" FINGERPRINT},
};

static void matches_are_kept_in_one_form(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof MATCHES / sizeof *MATCHES; i++) {
        char text[1024];
        (void)snprintf(text, sizeof text,
                       LISTEN TLS KEYS "clients: [{match: \"%s\", keys: [a, \"b*\"], allow: list}]\n",
                       MATCHES[i].given);
        struct keyserver_config *config = must_parse(text);
        assert_string_equal(config->clients[0].match, MATCHES[i].kept);
        assert_int_equal(config->clients[0].key_count, 2);
        assert_string_equal(config->clients[0].keys[1], "b*");
        assert_int_equal(config->clients[0].allow, ALLOW_LIST);
        keyserver_config_free(config);
    }
}

/* ---- Errors. */

#define ADDRESS_EXPECTED  "expected an address such as 192.0.2.1:443, [2001:db8::1]:443 or unix:/run/app.sock"
#define MATCH_EXPECTED    "expected DNS:name, IP:address, URI:uri, CN:name or sha256:fingerprint"
#define ONE_CLIENT(entry) LISTEN TLS KEYS "clients: [" entry "]\n"

static const struct {
    const char *given;
    const char *error; /* its beginning */
} ERRORS[] = {
    /* What must be there. */
    {TLS KEYS CLIENTS, "1:1: listen: missing, " ADDRESS_EXPECTED},
    {LISTEN KEYS CLIENTS, "1:1: tls.certificate: missing, expected a path"},
    {LISTEN TLS CLIENTS, "1:1: keys: missing, expected a list such as [{dir: keys}]"},
    {LISTEN TLS KEYS,
     "1:1: clients: missing, expected a list such as [{match: \"DNS:edge1.example\", keys: [\"*\"]}]"},
    {LISTEN "tls: {certificate: a, key: b}\n" KEYS CLIENTS, "2:6: tls.client_ca: missing, expected a path"},
    {"listen: []\n" TLS KEYS CLIENTS, "1:9: listen: got nothing in it, expected at least one"},
    {LISTEN TLS "keys: []\n" CLIENTS, "3:7: keys: got nothing in it, expected at least one"},
    {LISTEN TLS KEYS "clients: []\n", "4:10: clients: got nothing in it, expected at least one"},
    {LISTEN TLS "keys: [{}]\n" CLIENTS, "3:8: keys[0].dir: missing, expected a path"},
    {ONE_CLIENT("{keys: a}"), "4:11: clients[0].match: missing, " MATCH_EXPECTED},
    {ONE_CLIENT("{match: \"CN:a\"}"),
     "4:11: clients[0].keys: missing, expected labels, globs or SKIs of keys"},
    {ONE_CLIENT("{match: \"CN:a\", deny: off}"),
     "4:11: clients[0].keys: missing, expected labels, globs or SKIs of keys"},
    {ONE_CLIENT("{match: \"CN:a\", keys: [a, \"\"]}"),
     "4:37: clients[0].keys[1]: got \"\", expected labels, globs or SKIs of keys"},
    {ONE_CLIENT("{match: \"CN:a\", keys: []}"),
     "4:33: clients[0].keys: got a list, expected labels, globs or SKIs of keys, at least one"},
    /* Listeners. */
    {"listen: [\"127.0.0.1:1\", \"unix:/a\", \"127.0.0.1:1\"]\n" TLS KEYS CLIENTS,
     "1:36: listen[2]: got \"127.0.0.1:1\", expected each address once; it is also listen[0]"},
    {"listen: [\"unix:/a\", \"127.0.0.1:1\"]\n" TLS KEYS CLIENTS "admin: {listen: \"127.0.0.1:1\"}\n",
     "5:17: admin.listen: got \"127.0.0.1:1\", expected an address of its own; it is also listen[1]"},
    {"listen: [\"127.0.0.1:1\", \"keys.example:2407\"]\n" TLS KEYS CLIENTS,
     "1:25: listen[1]: got \"keys.example:2407\", " ADDRESS_EXPECTED},
    /* Clients. */
    {ONE_CLIENT("{match: edge1.example, keys: a}"),
     "4:19: clients[0].match: got \"edge1.example\", " MATCH_EXPECTED},
    {ONE_CLIENT("{match: \"dns:edge1.example\", keys: a}"),
     "4:19: clients[0].match: got \"dns:edge1.example\", " MATCH_EXPECTED},
    {ONE_CLIENT("{match: \"DNS:\", keys: a}"),
     "4:19: clients[0].match: got \"DNS:\", expected a host name behind DNS:"},
    {ONE_CLIENT("{match: \"DNS:*.example\", keys: a}"),
     "4:19: clients[0].match: got \"DNS:*.example\", expected a host name behind DNS:"},
    {ONE_CLIENT("{match: \"IP:192.0.2\", keys: a}"),
     "4:19: clients[0].match: got \"IP:192.0.2\", expected an IP address behind IP:"},
    {ONE_CLIENT("{match: \"sha256:0123\", keys: a}"),
     "4:19: clients[0].match: got \"sha256:0123\", expected 64 hexadecimal digits behind sha256:"},
    {ONE_CLIENT("{match: \"sha256:" FINGERPRINT "0\", keys: a}"),
     "4:19: clients[0].match: got \"sha256:0123"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, allow: [tls13, tls]}"),
     "4:51: clients[0].allow[1]: got \"tls\", expected tls13, tls12, transcript, list, digest, decrypt or "
     "ticket-keys"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a},\n  {match: \"CN:b\", keys: a}, {match: \"CN:a\", keys: b}"),
     "5:37: clients[2].match: got \"CN:a\", expected one entry for it: the one in line 4 comes first, this "
     "is "
     "never used"},
    /* Limits and queues. */
    {ALL "workers: 4\nlimits: {connections: 3}\n",
     "6:23: limits.connections: got \"3\", expected at least one for each of 4 workers"},
    {ALL "queues: {ec: 0}\n", "5:14: queues.ec: got \"0\", expected a whole number from 1 to 1000000"},
    {ALL "limits: {per_address: 1000001}\n",
     "5:23: limits.per_address: got \"1000001\", expected a whole number from 0 to 1000000"},
    {ALL "limits: {in_flight: 65537}\n",
     "5:21: limits.in_flight: got \"65537\", expected a whole number from 1 to 65536"},
    /* What is for later versions. */
    {ALL "audit: {file: a, checkpoint: 1m}\n", "5:18: audit: unknown setting \"checkpoint\""},
    {ALL "delegated_credentials: {valid_for: 1h}\n",
     "5:1: unknown setting \"delegated_credentials\", expected one of"},
    {LISTEN "tls: {certificate: a, key: b, client_ca: c, ocsp: d}\n" KEYS CLIENTS,
     "2:45: tls: unknown setting \"ocsp\", expected one of certificate, key, client_ca, crl"},
    {LISTEN TLS "keys: [{uri: \"pkcs11:a\"}]\n" CLIENTS, "3:9: keys[0]: unknown setting \"uri\""},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, audit: off}"),
     "4:36: clients[0]: unknown setting \"audit\", expected one of match, keys, allow, names, require"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, schemes: [ed25519, ecdsa_p256]}"),
     "4:55: clients[0].schemes[1]: got \"ecdsa_p256\", expected ecdsa_secp256r1_sha256, "},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, alpn: [h2, acme-tls/1]}"),
     "4:47: clients[0].alpn[1]: got \"acme-tls/1\", expected an ALPN protocol such as h2"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, rate: 1000001}"),
     "4:42: clients[0].rate: got \"1000001\", expected a whole number from 0 to 1000000"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, connections: -1}"),
     "4:49: clients[0].connections: got \"-1\", expected a whole number from 0 to 1000000"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, in_flight: 1000001}"),
     "4:47: clients[0].in_flight: got \"1000001\", expected a whole number from 0 to 1000000"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, deny: maybe}"),
     "4:42: clients[0].deny: got \"maybe\", expected on or off"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, names: [a.example, B.example]}"),
     "4:55: clients[0].names[1]: got \"B.example\", expected a host name in lower case"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, names: [\"a.*.example\"]}"),
     "4:44: clients[0].names[0]: got \"a.*.example\", expected a host name in lower case"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, require: digest}"),
     "4:45: clients[0].require: got \"digest\", expected tbs or transcript"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, require: transcript}"),
     "4:45: clients[0].require: got \"transcript\", expected certificates, such as [{dir: sites}], to check "
     "transcripts against"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a}, {match: \"CN:b\", keys: a, allow: [tls12, transcript]}"),
     "4:69: clients[1].allow: got a list, expected certificates, such as [{dir: sites}], to check "
     "transcripts "
     "against"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, allow: [credential]}"),
     "4:44: clients[0].allow[0]: got \"credential\", expected tls13, tls12, transcript, list, digest, "
     "decrypt or ticket-keys"},
    /* Ticket keys. */
    {ONE_CLIENT("{match: \"CN:a\", keys: a, replay: allow}"),
     "4:44: clients[0].replay: got \"allow\", expected count or refuse"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, allow: ticket-keys}"),
     "4:43: clients[0].allow: got \"ticket-keys\", expected ticket_keys.secret to make ticket keys from"},
    {ONE_CLIENT("{match: \"CN:a\", keys: a, ticket_group: g}") "ticket_keys: {secret: s}\n",
     "4:50: clients[0].ticket_group: got \"g\", expected ticket-keys in allow for it"},
    {ALL "ticket_keys: {secret: s, rotate: 1500ms}\n",
     "5:34: ticket_keys.rotate: got \"1500ms\", expected whole seconds"},
    {ALL "ticket_keys: {secret: s, rotate: 1s, lifetime: 251s}\n",
     "5:48: ticket_keys.lifetime: got \"251s\", expected at most 250 times ticket_keys.rotate"},
};

static void errors_say_what_and_where(void **state)
{
    (void)state;
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++) {
        struct failure why = {0};
        struct keyserver_config *config = NULL;
        char error[512];
        (void)snprintf(error, sizeof error, "keyserver.yaml:%s", ERRORS[i].error);
        enum result result = parse(ERRORS[i].given, &config, &why);
        if (result == RESULT_CONFIG && strncmp(why.text, error, strlen(error)) == 0)
            continue;
        print_error("given:\n%s\nexpected: %s\ngot:      %s\n", ERRORS[i].given, error, why.text);
        keyserver_config_free(config);
        wrong++;
    }
    assert_int_equal(wrong, 0);
}

/* ---- -t, the example and the table. */

static void print_reads_back(void **state)
{
    (void)state;
    struct keyserver_config *first = must_parse(
        "listen: [\"127.0.0.1:2407\", \"unix:keys.sock\"]\n" TLS KEYS "clients:\n"
        "  - {match: \"CN:Edge \\\"One\\\"\", keys: [a, \"b*\"], allow: [list, digest]}\n"
        "  - {match: \"DNS:edge2.example\", keys: \"*\", allow: [], schemes: [ed25519, rsa_pkcs1_sha512],\n"
        "     alpn: [h2, \"\"], names: [\"\", a.example]}\n"
        "  - {match: \"DNS:edge3.example\", deny: true}\n"
        "  - {match: \"DNS:edge4.example\", keys: a, rate: 2000, connections: 64, in_flight: 4096}\n"
        "user: keyless\nworkers: 3\nadmin: {listen: \"127.0.0.1:2406\"}\nqueues: {deadline: 250ms}\n");
    char *once = print(first);
    struct keyserver_config *second = must_parse(once);
    char *twice = print(second);
    assert_string_equal(once, twice);
    assert_non_null(strstr(once, "workers: 3\nuser: \"keyless\"\n"));
    assert_non_null(strstr(
        once, "  - match: \"CN:Edge \\\"One\\\"\"\n    keys: [\"a\", \"b*\"]\n    allow: [list, digest]\n"));
    assert_non_null(strstr(once, "    allow: []\n"));
    assert_non_null(strstr(once, "    schemes: [ed25519, rsa_pkcs1_sha512]\n    alpn: [\"h2\", \"\"]\n"));
    assert_non_null(strstr(once, "  - match: \"DNS:edge3.example\"\n    keys: []\n"));
    assert_non_null(strstr(once, "    deny: on\n"));
    assert_non_null(strstr(once, "    rate: 2000\n    connections: 64\n    in_flight: 4096\n"));
    assert_non_null(strstr(once, "  deadline: 250ms\n"));
    free(once);
    free(twice);
    keyserver_config_free(first);
    keyserver_config_free(second);
}

static void example_is_accepted(void **state)
{
    (void)state;
    struct failure why = {0};
    struct keyserver_config *config = NULL;
    if (keyserver_config_read(EXAMPLES "/keyserver.yaml", &config, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    assert_string_equal(config->keys[0].dir, EXAMPLES "/../certs/out/sites/keys");
    assert_string_equal(config->clients[0].match, "DNS:edge1.example");
    assert_int_equal(config->clients[0].allow,
                     ALLOW_TLS13 | ALLOW_TLS12 | ALLOW_TRANSCRIPT | ALLOW_LIST | ALLOW_TICKET_KEYS);
    keyserver_config_free(config);
}

/* What the example shows as defaults are the defaults, and it shows every setting. */
static void example_shows_the_defaults(void **state)
{
    (void)state;
    char *text = example_read(EXAMPLES "/keyserver.yaml");
    struct keyserver_config *as_it_is = must_parse(text);
    assert_in_range(example_uncomment(text), 10, 60);
    struct keyserver_config *uncommented = must_parse(text);
    char *before = print(as_it_is);
    char *after = print(uncommented);
    char *missing = example_missing_line(before, after);
    if (missing != NULL)
        fail_msg("the example shows another default than: %s", missing);
    assert_null(strstr(after, "not set"));
    free(before);
    free(after);
    free(text);
    keyserver_config_free(as_it_is);
    keyserver_config_free(uncommented);
}

static void table_is_sound(void **state)
{
    (void)state;
    struct failure why = {0};
    if (config_table_check(keyserver_config_table(), &why) != RESULT_OK)
        fail_msg("%s", why.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_the_documented_ones),
        cmocka_unit_test(matches_are_kept_in_one_form),
        cmocka_unit_test(errors_say_what_and_where),
        cmocka_unit_test(print_reads_back),
        cmocka_unit_test(example_is_accepted),
        cmocka_unit_test(example_shows_the_defaults),
        cmocka_unit_test(table_is_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
