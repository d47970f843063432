#include "proxy/client_hello.h"

#include "tests/unit/check.h"

/* ---- server_name. */

static const struct {
    const char *name;
    struct bytes extension;
    const char *sni; /* NULL: none is taken */
} NAMES[] = {
    {"one name",
     WIRE("\x00\x0c\x00\x00\x09"
          "a.example"),
     "a.example"},
    {"as it came, in any case",
     WIRE("\x00\x0c\x00\x00\x09"
          "A.Example"),
     "A.Example"},
    {"empty extension", WIRE(""), NULL},
    {"empty list", WIRE("\x00\x00"), NULL},
    {"empty name", WIRE("\x00\x03\x00\x00\x00"), NULL},
    {"another type",
     WIRE("\x00\x0c\x01\x00\x09"
          "a.example"),
     NULL},
    {"two names",
     WIRE("\x00\x08\x00\x00\x01"
          "a"
          "\x00\x00\x01"
          "b"),
     NULL},
    {"octets behind the list",
     WIRE("\x00\x04\x00\x00\x01"
          "a"
          "b"),
     NULL},
    {"list too short",
     WIRE("\x00\x0d\x00\x00\x09"
          "a.example"),
     NULL},
    {"name longer than the list",
     WIRE("\x00\x0c\x00\x00\x0a"
          "a.example"),
     NULL},
    {"zero in the name",
     WIRE("\x00\x06\x00\x00\x03"
          "a\0b"),
     NULL},
};

static void test_names(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
        struct client_hello hello = {0};
        uint8_t *copy = exact_copy(NAMES[i].extension);
        client_hello_read_sni(&hello, bytes_of(copy, NAMES[i].extension.size));
        free(copy);
        size_t size = NAMES[i].sni != NULL ? strlen(NAMES[i].sni) : 0;
        CHECK(NAMES[i].name, hello.sni_size == size);
        CHECK(NAMES[i].name, size == 0 || memcmp(hello.sni, NAMES[i].sni, size) == 0);
    }
}

static void test_named_schemes(void **state)
{
    static const uint8_t EXTENSION[] = {0x00, 0x04, 0x08, 0x07, 0x04, 0x01}; /* ed25519, rsa_pkcs1_sha256 */
    struct client_hello hello = {0};
    (void)state;
    client_hello_read_schemes(&hello, bytes_of(EXTENSION, sizeof EXTENSION));
    assert_int_equal(client_hello_schemes_named("rsa_pkcs1_sha256:ed25519"), hello.schemes);
    assert_int_equal(client_hello_schemes_named("ed25519:ed25519:rsa_pkcs1_sha256"), hello.schemes);
    assert_int_equal(client_hello_schemes_named("rsa_pkcs1_sha256:ed448") & hello.schemes,
                     client_hello_schemes_named("rsa_pkcs1_sha256"));
    assert_int_equal(client_hello_schemes_named("ed2551:ed255190:rsa"), 0);
}

static void test_longest_name(void **state)
{
    uint8_t extension[5 + 256] = {0x01, 0x02, 0x00, 0x00, 0xff};
    struct client_hello hello = {0};
    (void)state;
    memset(extension + 5, 'a', 256);
    client_hello_read_sni(&hello, bytes_of(extension, 5 + 255));
    assert_int_equal(hello.sni_size, 255);
    hello.sni_size = 0;
    extension[1] = 0x03; /* 256 octets */
    extension[3] = 0x01;
    extension[4] = 0x00;
    client_hello_read_sni(&hello, bytes_of(extension, 5 + 256));
    assert_int_equal(hello.sni_size, 0);
}

/* ---- Which chain. */

#define ALL_SCHEMES                                                                                          \
    WIRE("\x00\x16\x04\x03\x05\x03\x06\x03\x08\x04\x08\x05\x08\x06\x08\x07\x08\x08\x04\x01\x05\x01\x06\x01")
#define ALL_GROUPS WIRE("\x00\x0a\x00\x1d\x00\x17\x00\x18\x00\x19\x0a\x0a")
#define X25519     WIRE("\x00\x02\x00\x1d")
#define NONE       WIRE("")

#define TYPE(type) (1u << KEY_TYPE_##type)
#define EVERY      (TYPE(RSA) | TYPE(P256) | TYPE(P384) | TYPE(P521) | TYPE(ED25519) | TYPE(ED448))

static const struct {
    const char *name;
    struct bytes schemes, groups;
    unsigned tls13, tls12; /* key types that the client verifies */
} VERIFIES[] = {
    {"everything", ALL_SCHEMES, ALL_GROUPS, EVERY, EVERY},
    {"no signature_algorithms", NONE, ALL_GROUPS, 0, 0},
    {"signature_algorithms cut off", WIRE("\x00\x04\x04\x03"), ALL_GROUPS, 0, 0},
    {"ecdsa with SHA-256 alone", WIRE("\x00\x02\x04\x03"), ALL_GROUPS, TYPE(P256),
     TYPE(P256) | TYPE(P384) | TYPE(P521)},
    {"ecdsa with SHA-384 alone", WIRE("\x00\x02\x05\x03"), ALL_GROUPS, TYPE(P384),
     TYPE(P256) | TYPE(P384) | TYPE(P521)},
    {"RSA-PSS alone", WIRE("\x00\x02\x08\x05"), ALL_GROUPS, TYPE(RSA), TYPE(RSA)},
    {"PKCS#1 alone", WIRE("\x00\x02\x05\x01"), ALL_GROUPS, 0, TYPE(RSA)},
    {"SHA-1 alone", WIRE("\x00\x04\x02\x01\x02\x03"), ALL_GROUPS, 0, 0},
    {"Ed25519 alone", WIRE("\x00\x02\x08\x07"), ALL_GROUPS, TYPE(ED25519), TYPE(ED25519)},
    {"rsa_pss_pss is none of ours", WIRE("\x00\x02\x08\x09"), ALL_GROUPS, 0, 0},
    {"no NIST group", ALL_SCHEMES, X25519, EVERY, TYPE(RSA) | TYPE(ED25519) | TYPE(ED448)},
    {"no supported_groups", ALL_SCHEMES, NONE, EVERY, EVERY},
};

static struct client_hello hello_of(struct bytes schemes, struct bytes groups)
{
    struct client_hello hello = {.rsa = true, .ecdsa = true};
    client_hello_read_schemes(&hello, schemes);
    client_hello_read_groups(&hello, groups);
    return hello;
}

static void test_verifies(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(VERIFIES); i++) {
        struct client_hello hello = hello_of(VERIFIES[i].schemes, VERIFIES[i].groups);
        for (enum key_type type = KEY_TYPE_RSA; type <= KEY_TYPE_ED448; type++) {
            bool tls13 = (VERIFIES[i].tls13 & 1u << type) != 0, tls12 = (VERIFIES[i].tls12 & 1u << type) != 0;
            CHECK(VERIFIES[i].name, client_hello_verifies(&hello, type, true) == tls13);
            CHECK(VERIFIES[i].name, client_hello_verifies(&hello, type, false) == tls12);
        }
    }
}

static const struct {
    const char *name;
    struct bytes schemes, groups;
    bool tls13;
    unsigned found, chosen; /* key types */
} CHOICES[] = {
    {"one chain", ALL_SCHEMES, ALL_GROUPS, true, TYPE(RSA), TYPE(RSA)},
    {"one chain that the client cannot verify", WIRE("\x00\x02\x04\x03"), ALL_GROUPS, true, TYPE(RSA),
     TYPE(RSA)},
    {"RSA and P-256, both verified", ALL_SCHEMES, ALL_GROUPS, true, TYPE(RSA) | TYPE(P256),
     TYPE(RSA) | TYPE(P256)},
    {"RSA and P-256, RSA client", WIRE("\x00\x02\x08\x04"), ALL_GROUPS, true, TYPE(RSA) | TYPE(P256),
     TYPE(RSA)},
    {"the smallest curve", ALL_SCHEMES, ALL_GROUPS, true, TYPE(P521) | TYPE(P384) | TYPE(P256), TYPE(P256)},
    {"the curve that TLS 1.3 binds", WIRE("\x00\x04\x06\x03\x05\x03"), ALL_GROUPS, true,
     TYPE(P521) | TYPE(P384) | TYPE(P256), TYPE(P384)},
    {"TLS 1.2 binds no curve", WIRE("\x00\x02\x06\x03"), ALL_GROUPS, false, TYPE(P521) | TYPE(P256),
     TYPE(P256)},
    {"TLS 1.2, the client's groups", ALL_SCHEMES, WIRE("\x00\x02\x00\x18"), false, TYPE(P256) | TYPE(P384),
     TYPE(P384)},
    {"every type", ALL_SCHEMES, ALL_GROUPS, true, EVERY,
     TYPE(RSA) | TYPE(P256) | TYPE(ED25519) | TYPE(ED448)},
    {"none that the client verifies", WIRE("\x00\x02\x02\x01"), ALL_GROUPS, true, TYPE(RSA) | TYPE(P256),
     TYPE(RSA)},
};

static void test_choices(void **state)
{
    struct certificate certificates[KEY_TYPE_ED448 + 1];
    const struct certificate *found[CERTIFICATES_PER_NAME], *chosen[CERTIFICATES_PER_NAME];
    (void)state;
    for (size_t i = 0; i < COUNT_OF(CHOICES); i++) {
        struct client_hello hello = hello_of(CHOICES[i].schemes, CHOICES[i].groups);
        size_t count = 0;
        unsigned types = 0;
        for (enum key_type type = KEY_TYPE_RSA; type <= KEY_TYPE_ED448; type++) {
            certificates[type] = (struct certificate){.key = {.type = type}};
            if ((CHOICES[i].found & 1u << type) != 0)
                found[count++] = &certificates[type];
        }
        count = client_hello_choose(&hello, CHOICES[i].tls13, found, count, chosen);
        for (size_t c = 0; c < count; c++) {
            CHECK(CHOICES[i].name, (types & 1u << chosen[c]->key.type) == 0);
            types |= 1u << chosen[c]->key.type;
        }
        CHECK(CHOICES[i].name, types == CHOICES[i].chosen);
    }
}

/* ---- Application protocols. */

static const struct {
    const char *name;
    struct bytes offered;
    const char *without, *chosen;
} PROTOCOLS[] = {
    {"ours first", WIRE("\x08http/1.1\x02h2"), NULL, "h2"},
    {"the only one", WIRE("\x08http/1.1"), NULL, "http/1.1"},
    {"without h2", WIRE("\x02h2\x08http/1.1"), "h2", "http/1.1"},
    {"without h2, nothing left", WIRE("\x02h2"), "h2", NULL},
    {"none in common", WIRE("\x02h3\x04spdy"), NULL, NULL},
    {"a prefix is none", WIRE("\x01h\x07http/1."), NULL, NULL},
    {"nothing", WIRE(""), NULL, NULL},
    {"cut off", WIRE("\x02h"), NULL, NULL},
};

static void test_protocols(void **state)
{
    char *ours[] = {"h2", "http/1.1"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(PROTOCOLS); i++) {
        const char *chosen =
            client_hello_protocol(PROTOCOLS[i].offered, ours, COUNT_OF(ours), PROTOCOLS[i].without);
        if (PROTOCOLS[i].chosen == NULL)
            CHECK(PROTOCOLS[i].name, chosen == NULL);
        else
            CHECK(PROTOCOLS[i].name, chosen != NULL && strcmp(chosen, PROTOCOLS[i].chosen) == 0);
    }
}

/* Before TLS 1.3 a key is of no use to a client whose suites are authenticated by others alone. */
static void test_suites(void **state)
{
    static const uint8_t WITH_ECDSA[] = {0x13, 0x01, 0xc0, 0x2b, 0x00, 0xff}, WITH_RSA[] = {0xcc, 0xa8},
                         OTHERS[] = {0x00, 0x2f, 0xc0}, OFFERED[] = {0x00, 0x04, 0x04, 0x03, 0x08, 0x04};
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        struct client_hello hello = {0};
        client_hello_read_schemes(&hello, bytes_of(OFFERED, sizeof OFFERED));
        client_hello_read_suites(&hello, bytes_of(WITH_ECDSA, i & 1 ? sizeof WITH_ECDSA : 0));
        client_hello_read_suites(&hello, bytes_of(WITH_RSA, i & 2 ? sizeof WITH_RSA : 0));
        client_hello_read_suites(&hello, bytes_of(OTHERS, sizeof OTHERS));
        assert_int_equal(client_hello_verifies(&hello, KEY_TYPE_P256, false), (i & 1) != 0);
        assert_int_equal(client_hello_verifies(&hello, KEY_TYPE_RSA, false), (i & 2) != 0);
        assert_true(client_hello_verifies(&hello, KEY_TYPE_P256, true));
        assert_true(client_hello_verifies(&hello, KEY_TYPE_RSA, true));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),         cmocka_unit_test(test_longest_name),
        cmocka_unit_test(test_named_schemes), cmocka_unit_test(test_verifies),
        cmocka_unit_test(test_choices),       cmocka_unit_test(test_protocols),
        cmocka_unit_test(test_suites),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
