/* Who may use which key: patterns, certificates, and that an entry's table has nothing but its own keys. */
#include "tests/unit/keyserver_fixture.h"

#include <openssl/pem.h>

#include "common/client_match.h"
#include "tests/unit/support/test_certificates.h"

static const struct fixture_key KEYS[] = {
    {0x11, KEY_TYPE_P256, 0, "www.example"},       {0x22, KEY_TYPE_RSA, 2048, "www.example"},
    {0x33, KEY_TYPE_ED25519, 0, "api.example"},    {0x44, KEY_TYPE_P384, 0, "api.other"},
    {0x55, KEY_TYPE_RSA, 4096, "[odd] na*me.pem"},
};

#define SKI_33 "3333333333333333333333333333333333333333"
#define SKI_AB "abababababababababababababababababababab"

/* ---- Patterns. */

static const struct {
    const char *name;
    const char *keys;
    const char *found; /* the octets of the SKIs that the entry may use */
} PATTERN_ROWS[] = {
    {"everything", "[\"*\"]", "\x11\x22\x33\x44\x55"},
    {"a label", "[api.other]", "\x44"},
    {"a label of two keys", "[www.example]", "\x11\x22"},
    {"labels are case-sensitive", "[WWW.example]", ""},
    {"no part of a label", "[www]", ""},
    {"a glob", "[\"api.*\"]", "\x33\x44"},
    {"a question mark", "[\"???.example\"]", "\x11\x22\x33"},
    {"a set", "[\"[aw]*.example\"]", "\x11\x22\x33"},
    {"two patterns", "[api.other, \"www.*\"]", "\x11\x22\x44"},
    {"two patterns for one key", "[\"*other\", api.other]", "\x44"},
    {"an SKI", "[\"" SKI_33 "\"]", "\x33"},
    {"an SKI that no key has", "[\"" SKI_AB "\"]", ""},
    {"half an SKI", "[\"33333333333333333333\"]", ""},
    {"a backslash is itself", "[\"\\\\*\"]", ""},
    {"a scalar", "www.example", "\x11\x22"},
};

static void check_list(const char *row, const struct policy *policy, const char *expected)
{
    size_t at = policy_list_start(policy, 0, NULL);
    const struct key_info *key;
    size_t count = 0;
    while ((key = policy_list_next(policy, 0, &at)) != NULL) {
        CHECK(row, count < strlen(expected));
        CHECK(row, key->id.ski[0] == (uint8_t)expected[count]);
        count++;
    }
    CHECK(row, count == strlen(expected));
}

static void check_find(const char *row, const struct policy *policy, const char *expected)
{
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        uint8_t name[KEY_ID_DIGEST_SIZE];
        memset(name, KEYS[i].octet, sizeof name);
        bool allowed = strchr(expected, KEYS[i].octet) != NULL;
        size_t key = SIZE_MAX;
        CHECK(row, policy_find(policy, 0, name, &key) == allowed);
        CHECK(row, !allowed || key == i);
        key = SIZE_MAX;
        bool has_digest = KEYS[i].type != KEY_TYPE_ED25519;
        CHECK(row, policy_find_digest(policy, 0, name, &key) == (allowed && has_digest));
        CHECK(row, !(allowed && has_digest) || key == i);
    }
}

static void patterns_choose_keys(void **state)
{
    (void)state;
    struct key_table table;
    fixture_keys(KEYS, COUNT_OF(KEYS), &table);
    for (size_t i = 0; i < COUNT_OF(PATTERN_ROWS); i++) {
        char text[512];
        (void)snprintf(text, sizeof text, FIXTURE_CONFIG_HEAD "clients: [{match: \"CN:x\", keys: %s}]\n",
                       PATTERN_ROWS[i].keys);
        struct keyserver_config *config = fixture_config(text);
        struct policy *policy = fixture_policy(config, &table);
        check_list(PATTERN_ROWS[i].name, policy, PATTERN_ROWS[i].found);
        check_find(PATTERN_ROWS[i].name, policy, PATTERN_ROWS[i].found);
        policy_free(policy);
        keyserver_config_free(config);
    }
    key_table_clear(&table);
}

static void nothing_has_the_absent_name(void **state)
{
    (void)state;
    static const uint8_t ZEROS[KEY_ID_DIGEST_SIZE];
    struct key_table table;
    fixture_keys(KEYS, COUNT_OF(KEYS), &table);
    struct keyserver_config *config =
        fixture_config(FIXTURE_CONFIG_HEAD "clients: [{match: \"CN:x\", keys: \"*\"}]\n");
    struct policy *policy = fixture_policy(config, &table);
    size_t key;
    assert_false(policy_find(policy, 0, ZEROS, &key));
    assert_false(policy_find_digest(policy, 0, ZEROS, &key)); /* an Ed25519 key's digest field is zero */
    policy_free(policy);
    keyserver_config_free(config);
    key_table_clear(&table);
}

static void entries_have_tables_of_their_own(void **state)
{
    (void)state;
    struct key_table table;
    fixture_keys(KEYS, COUNT_OF(KEYS), &table);
    struct keyserver_config *config = fixture_config(
        FIXTURE_CONFIG_HEAD "clients:\n"
                            "  - {match: \"CN:a\", keys: api.other}\n"
                            "  - {match: \"CN:b\", keys: www.example, allow: [tls13, digest]}\n"
                            "  - {match: \"CN:c\", keys: api.other, allow: list}\n"
                            "  - {match: \"CN:d\", keys: api.other, require: transcript,\n"
                            "     allow: [tls13, tls12, digest, decrypt, list]}\n");
    struct policy *policy = fixture_policy(config, &table);
    static const uint8_t OTHER[KEY_ID_SKI_SIZE] = {0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44,
                                                   0x44, 0x44, 0x44, 0x44, 0x44, 0x44, 0x44,
                                                   0x44, 0x44, 0x44, 0x44, 0x44, 0x44};
    size_t key;
    assert_int_equal(policy_entries(policy), 4);
    assert_true(policy_find(policy, 0, OTHER, &key));
    assert_false(policy_find(policy, 1, OTHER, &key));
    assert_true(policy_find(policy, 2, OTHER, &key));
    assert_int_equal(policy_allow(policy, 0), ALLOW_TLS13 | ALLOW_TLS12 | ALLOW_TRANSCRIPT);
    assert_int_equal(policy_allow(policy, 1), ALLOW_TLS13 | ALLOW_DIGEST | ALLOW_TRANSCRIPT);
    assert_int_equal(policy_allow(policy, 2), ALLOW_LIST);
    assert_int_equal(policy_allow(policy, 3), ALLOW_TLS12 | ALLOW_TRANSCRIPT | ALLOW_LIST);
    policy_free(policy);
    keyserver_config_free(config);
    key_table_clear(&table);
}

/* Where nothing is there to check one against, none is offered; and tls13 stays what it is. */
static void transcripts_need_certificates(void **state)
{
    (void)state;
    struct key_table table;
    fixture_keys(KEYS, COUNT_OF(KEYS), &table);
    struct keyserver_config *config =
        fixture_config("listen: \"127.0.0.1:2407\"\ntls: {certificate: c, key: k, client_ca: a}\n"
                       "keys: [{dir: keys}]\nclients: [{match: \"CN:a\", keys: \"*\"}]\n");
    struct policy *policy = fixture_policy(config, &table);
    assert_int_equal(policy_allow(policy, 0), ALLOW_TLS13 | ALLOW_TLS12);
    policy_free(policy);
    keyserver_config_free(config);
    key_table_clear(&table);
}

static void lists_go_on_behind_an_ski(void **state)
{
    (void)state;
    static const struct {
        uint8_t after;
        size_t start;
    } ROWS[] = {{0x00, 0}, {0x10, 0}, {0x11, 1}, {0x12, 1}, {0x44, 4}, {0x54, 4}, {0x55, 5}, {0xFF, 5}};
    struct key_table table;
    fixture_keys(KEYS, COUNT_OF(KEYS), &table);
    struct keyserver_config *config =
        fixture_config(FIXTURE_CONFIG_HEAD "clients: [{match: \"CN:x\", keys: \"*\"}]\n");
    struct policy *policy = fixture_policy(config, &table);
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        uint8_t after[KEY_ID_SKI_SIZE];
        memset(after, ROWS[i].after, sizeof after);
        assert_int_equal(policy_list_start(policy, 0, after), ROWS[i].start);
    }
    policy_free(policy);
    keyserver_config_free(config);
    key_table_clear(&table);
}

static void keys_out_of_order_are_refused(void **state)
{
    (void)state;
    static const struct fixture_key SWAPPED[] = {{0x22, KEY_TYPE_P256, 0, "b"},
                                                 {0x11, KEY_TYPE_P256, 0, "a"}};
    static const struct fixture_key TWICE[] = {{0x22, KEY_TYPE_P256, 0, "b"}, {0x22, KEY_TYPE_P256, 0, "a"}};
    const struct fixture_key *const rows[] = {SWAPPED, TWICE};
    struct keyserver_config *config =
        fixture_config(FIXTURE_CONFIG_HEAD "clients: [{match: \"CN:x\", keys: \"*\"}]\n");
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct key_table table;
        struct policy *policy;
        struct failure why;
        fixture_keys(rows[i], 2, &table);
        assert_int_equal(policy_new(config, &table, &policy, &why), RESULT_PROTOCOL);
        assert_null(policy);
        key_table_clear(&table);
    }
    keyserver_config_free(config);
}

static void note_unused(const struct keyserver_client *client, const char *pattern, void *owner)
{
    struct writer *told = owner;
    (void)client;
    write_bytes(told, bytes_of(pattern, strlen(pattern)));
    write_u8(told, ';');
}

static void unused_patterns_are_told(void **state)
{
    (void)state;
    uint8_t octets[256];
    struct writer told = writer_of(octets, sizeof octets);
    struct key_table table;
    fixture_keys(KEYS, COUNT_OF(KEYS), &table);
    struct keyserver_config *config = fixture_config(
        FIXTURE_CONFIG_HEAD "clients: [{match: \"CN:x\", keys: [\"api.*\", typo, \"" SKI_AB "\"]}]\n");
    struct policy *policy = fixture_policy(config, &table);
    policy_each_unused(policy, note_unused, &told);
    assert_true(bytes_equal(writer_bytes(&told), OCTETS("typo;" SKI_AB ";")));
    policy_free(policy);
    keyserver_config_free(config);
    key_table_clear(&table);
}

/* ---- What an entry may have. */

static X509 *load_certificate(const char *path)
{
    FILE *file = fopen(path, "re");
    assert_non_null(file);
    X509 *certificate = PEM_read_X509(file, NULL, NULL, NULL);
    assert_non_null(certificate);
    assert_int_equal(fclose(file), 0);
    return certificate;
}

static void lists_that_are_empty_allow_all(void **state)
{
    (void)state;
    struct key_table table = {0};
    struct keyserver_config *config =
        fixture_config(FIXTURE_CONFIG_HEAD "clients:\n"
                                           "  - {match: \"CN:a\", keys: \"*\"}\n"
                                           "  - {match: \"CN:b\", keys: \"*\", schemes: ed25519, alpn: h2}\n"
                                           "  - {match: \"CN:c\", keys: \"*\", alpn: [h2, \"\"]}\n"
                                           "  - {match: \"CN:d\", deny: true}\n");
    struct policy *policy = fixture_policy(config, &table);
    static const struct {
        const char *protocol;
        bool allowed[3];
    } ROWS[] = {{"h2", {true, true, true}},
                {"", {true, false, true}},
                {"h", {true, false, false}},
                {"h22", {true, false, false}},
                {"http/1.1", {true, false, false}}};
    for (size_t i = 0; i < COUNT_OF(ROWS); i++)
        for (size_t entry = 0; entry < 3; entry++)
            CHECK(
                ROWS[i].protocol,
                policy_allows_protocol(policy, entry, bytes_of(ROWS[i].protocol, strlen(ROWS[i].protocol))) ==
                    ROWS[i].allowed[entry]);
    assert_true(policy_allows_protocol(policy, 2, bytes_of(NULL, 0)));
    assert_false(policy_allows_protocol(policy, 1, bytes_of(NULL, 0)));
    assert_true(policy_allows_scheme(policy, 0, 0) && policy_allows_scheme(policy, 0, 0x0403));
    assert_true(policy_allows_scheme(policy, 1, 0x0807));
    assert_false(policy_allows_scheme(policy, 1, 0) || policy_allows_scheme(policy, 1, 0x0808));
    assert_true(policy_denies(policy, 3) && !policy_denies(policy, 0));
    assert_int_equal(policy_allow(policy, 3), 0);
    policy_free(policy);
    keyserver_config_free(config);
}

static struct site_certificates *certificates_of(struct test_ca *ca, const char *san,
                                                 uint8_t ski[static KEY_ID_SKI_SIZE])
{
    struct site_certificates *certificates = site_certificates_new();
    struct test_identity identity;
    struct key_id id;
    test_ca_issue(ca, &(const struct test_subject){.name = "site", .san = san}, &identity);
    X509 *leaf = load_certificate(identity.certificate);
    assert_int_equal(site_certificates_add(certificates, leaf, NULL), RESULT_OK);
    assert_int_equal(key_id_of(X509_get0_pubkey(leaf), &id, NULL), RESULT_OK);
    memcpy(ski, id.ski, sizeof id.ski);
    X509_free(leaf);
    return certificates;
}

static const struct {
    const char *names;
    bool cover; /* all of www.example.com, *.example.org and localhost */
} COVER_ROWS[] = {
    {"[\"*\"]", true},
    {"[localhost, www.example.com, \"*.example.org\"]", true},
    {"[\"*.example.org\", localhost, \"*.example.com\"]", true},
    {"[\"*.example.org\", \"*.example.com\"]", false},
    {"[localhost, www.example.com, a.example.org]", false},
    {"[localhost, www.example.com, example.org]", false},
    {"[localhost, \"*.www.example.com\", \"*.example.org\"]", false},
    {"[localhost, www.example.comm, \"*.example.org\"]", false},
    {"[\"\"]", false},
    {"[]", false},
};

/* What a signature would serve for where nobody sees the SNI. */
static void names_cover_all_or_nothing(void **state)
{
    (void)state;
    static const uint8_t OTHER[KEY_ID_SKI_SIZE] = {1};
    uint8_t ski[KEY_ID_SKI_SIZE];
    struct key_table table = {0};
    struct test_ca ca;
    test_ca_make(&ca, "test CA");
    struct site_certificates *certificates =
        certificates_of(&ca, "DNS:www.example.com,DNS:*.example.org,DNS:localhost", ski);
    for (size_t i = 0; i < COUNT_OF(COVER_ROWS); i++) {
        char text[512];
        (void)snprintf(text, sizeof text,
                       FIXTURE_CONFIG_HEAD "clients: [{match: \"CN:x\", keys: \"*\", names: %s}]\n",
                       COVER_ROWS[i].names);
        struct keyserver_config *config = fixture_config(text);
        struct policy *policy = fixture_policy(config, &table);
        /* Of a key without certificates nobody knows what it serves for. */
        bool any = strstr(COVER_ROWS[i].names, "\"*\"") != NULL;
        CHECK(COVER_ROWS[i].names, policy_names_cover(policy, 0, ski) == any);
        policy_use_certificates(policy, certificates);
        CHECK(COVER_ROWS[i].names, policy_names_cover(policy, 0, ski) == COVER_ROWS[i].cover);
        CHECK(COVER_ROWS[i].names, policy_names_cover(policy, 0, OTHER) == any);
        policy_free(policy);
        keyserver_config_free(config);
    }
    site_certificates_free(certificates);
    test_ca_remove(&ca);
}

static void leaves_are_for_names(void **state)
{
    (void)state;
    static const struct {
        const char *sni;
        bool has;
    } ROWS[] = {{"www.example.com", true},
                {"WWW.Example.com", true},
                {"a.example.org", true},
                {"a.b.example.org", false},
                {"example.org", false},
                {"other.example", false},
                {"", true},
                {"no name", false}};
    static const uint8_t OTHER[KEY_ID_SKI_SIZE] = {1};
    uint8_t ski[KEY_ID_SKI_SIZE];
    struct key_table table = {0};
    struct test_ca ca;
    test_ca_make(&ca, "test CA");
    struct site_certificates *certificates =
        certificates_of(&ca, "DNS:www.example.com,DNS:*.example.org", ski);
    struct keyserver_config *config =
        fixture_config(FIXTURE_CONFIG_HEAD "clients: [{match: \"CN:x\", keys: \"*\"}]\n");
    struct policy *policy = fixture_policy(config, &table);
    assert_false(policy_has_leaf_for(policy, ski, bytes_of(NULL, 0)));
    policy_use_certificates(policy, certificates);
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct bytes sni = bytes_of(ROWS[i].sni, strlen(ROWS[i].sni));
        CHECK(ROWS[i].sni, policy_has_leaf_for(policy, ski, sni) == ROWS[i].has);
        CHECK(ROWS[i].sni, !policy_has_leaf_for(policy, OTHER, sni));
    }
    policy_free(policy);
    keyserver_config_free(config);
    site_certificates_free(certificates);
    test_ca_remove(&ca);
}

/* ---- Certificates. */

static const struct {
    const char *match;
    bool fits;
} MATCH_ROWS[] = {
    {"DNS:edge1.example", true},
    {"DNS:EDGE1.Example", true},
    {"DNS:edge1.example.org", false},
    {"DNS:edge1.exampl", false},
    {"DNS:a.wild.example", false}, /* the text of the SAN, not what it might cover */
    {"DNS:common", false},         /* a CN is no SAN */
    {"IP:192.0.2.7", true},
    {"IP:192.0.2.8", false},
    {"IP:2001:db8::7", true},
    {"IP:2001:db8:0:0:0:0:0:7", true},
    {"IP:2001:db8::8", false},
    {"URI:spiffe://example/edge", true},
    {"URI:spiffe://example/Edge", false},
    {"URI:spiffe://example/edge/1", false},
    {"CN:common", true},
    {"CN:Common", false},
    {"CN:edge1.example", false}, /* a SAN is no CN */
    {"sha256:0000000000000000000000000000000000000000000000000000000000000000", false},
};

static void certificates_match_entries(void **state)
{
    (void)state;
    struct test_ca ca;
    struct test_identity identity;
    test_ca_make(&ca, "test CA");
    test_ca_issue(&ca,
                  &(const struct test_subject){.name = "common",
                                               .san = "DNS:edge1.example,DNS:*.wild.example,IP:192.0.2.7,"
                                                      "IP:2001:db8::7,URI:spiffe://example/edge"},
                  &identity);
    X509 *certificate = load_certificate(identity.certificate);
    for (size_t i = 0; i < COUNT_OF(MATCH_ROWS); i++) {
        char text[100];
        (void)snprintf(text, sizeof text, "%s", MATCH_ROWS[i].match);
        struct client_match match;
        assert_int_equal(client_match_parse(text, &match, NULL), RESULT_OK);
        CHECK(MATCH_ROWS[i].match, client_match_fits(&match, certificate) == MATCH_ROWS[i].fits);
    }
    X509_free(certificate);
    test_ca_remove(&ca);
}

/* What the log says of a stranger can be put into the configuration as it stands. */
static void descriptions_match(void **state)
{
    (void)state;
    struct test_ca ca;
    struct test_identity identity;
    test_ca_make(&ca, "test CA");
    test_ca_issue(&ca, &(const struct test_subject){.name = "stranger", .san = "DNS:s.example"}, &identity);
    X509 *certificate = load_certificate(identity.certificate);
    char text[CLIENT_DESCRIPTION_SIZE];
    client_describe(certificate, text);
    assert_memory_equal(text, "sha256:", 7);
    assert_non_null(strstr(text, ", DNS:s.example, CN:stranger"));
    text[7 + 64] = '\0';
    struct client_match match;
    assert_int_equal(client_match_parse(text, &match, NULL), RESULT_OK);
    assert_true(client_match_fits(&match, certificate));
    X509_free(certificate);
    test_ca_remove(&ca);
}

static void long_descriptions_are_cut(void **state)
{
    (void)state;
    struct test_ca ca;
    struct test_identity identity;
    char san[1200] = "DNS:first.example";
    for (int i = 0; i < 30; i++)
        (void)strcat(san, ",DNS:a-long-name-to-fill.example");
    test_ca_make(&ca, "test CA");
    test_ca_issue(&ca, &(const struct test_subject){.name = "long", .san = san}, &identity);
    X509 *certificate = load_certificate(identity.certificate);
    char text[CLIENT_DESCRIPTION_SIZE];
    client_describe(certificate, text);
    assert_int_equal(strlen(text), sizeof text - 1);
    X509_free(certificate);
    test_ca_remove(&ca);
}

static void first_match_wins(void **state)
{
    (void)state;
    struct test_ca ca;
    struct test_identity identity, stranger;
    struct key_table table;
    size_t entry = SIZE_MAX;
    test_ca_make(&ca, "test CA");
    test_ca_issue(&ca, &(const struct test_subject){.name = "n", .san = "DNS:b.example,DNS:a.example"},
                  &identity);
    test_ca_issue(&ca, &(const struct test_subject){.name = "s"}, &stranger);
    fixture_keys(KEYS, COUNT_OF(KEYS), &table);
    struct keyserver_config *config =
        fixture_config(FIXTURE_CONFIG_HEAD "clients:\n  - {match: \"DNS:c.example\", keys: \"*\"}\n"
                                           "  - {match: \"DNS:a.example\", keys: \"*\"}\n"
                                           "  - {match: \"DNS:b.example\", keys: \"*\"}\n");
    struct policy *policy = fixture_policy(config, &table);
    X509 *certificate = load_certificate(identity.certificate);
    assert_true(policy_match(policy, certificate, &entry));
    assert_int_equal(entry, 1);
    X509_free(certificate);
    certificate = load_certificate(stranger.certificate);
    assert_false(policy_match(policy, certificate, &entry));
    X509_free(certificate);
    policy_free(policy);
    keyserver_config_free(config);
    key_table_clear(&table);
    test_ca_remove(&ca);
}

static void matches_that_mean_nothing_are_refused(void **state)
{
    (void)state;
    static const char *const ROWS[] = {
        "",
        "edge1.example",
        "DNS:",
        "IP:",
        "IP:192.0.2",
        "dns:a.b",
        "sha256:",
        "sha256:00",
        "email:a@b.c",
        "IP:192.0.2.1/24",
        "CN:",
        "DNS:*.wild.example",
        "DNS:.example",
        "sha256:00:00000000000000000000000000000000000000000000000000000000000000",
        "sha256:zz00000000000000000000000000000000000000000000000000000000000000",
        "sha256:000000000000000000000000000000000000000000000000000000000000000000",
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char text[100];
        (void)snprintf(text, sizeof text, "%s", ROWS[i]);
        struct client_match match;
        struct failure why = {RESULT_OK, ""};
        char words[120];
        (void)snprintf(words, sizeof words, "got \"%s\", expected ", ROWS[i]);
        CHECK(ROWS[i], client_match_parse(text, &match, &why) == RESULT_CONFIG);
        CHECK(ROWS[i], strncmp(why.text, words, strlen(words)) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_choose_keys),
        cmocka_unit_test(nothing_has_the_absent_name),
        cmocka_unit_test(entries_have_tables_of_their_own),
        cmocka_unit_test(transcripts_need_certificates),
        cmocka_unit_test(lists_go_on_behind_an_ski),
        cmocka_unit_test(keys_out_of_order_are_refused),
        cmocka_unit_test(unused_patterns_are_told),
        cmocka_unit_test(lists_that_are_empty_allow_all),
        cmocka_unit_test(names_cover_all_or_nothing),
        cmocka_unit_test(leaves_are_for_names),
        cmocka_unit_test(certificates_match_entries),
        cmocka_unit_test(descriptions_match),
        cmocka_unit_test(long_descriptions_are_cut),
        cmocka_unit_test(first_match_wins),
        cmocka_unit_test(matches_that_mean_nothing_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
