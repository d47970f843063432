#include "common/client_match.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/pem.h>

#include "tests/unit/check.h"
#include "tests/unit/support/test_certificates.h"

/* What has no pattern in it is in keyserver_test_policy.c. */

static const struct {
    const char *pattern;
    bool fits;
} ROWS[] = {
    {"DNS:*.clients.example", true},
    {"DNS:*.CLIENTS.example", true},
    {"DNS:a.clients.example", true},
    {"DNS:*.a.clients.example", false}, /* the name has no label before it */
    {"DNS:*.example", false},           /* not a pattern: see below */
    {"DNS:*.wild.example", false},      /* the certificate's own wildcard is no client's name */
    {"DNS:*.deep.example", false},      /* two labels */
    {"DNS:*.lients.example", false},
    {"CN:common", true},
    {"CN:*", false},
    {"CN:comm*", false},
    {"URI:spiffe://example/a", true},
    {"URI:spiffe://example/*", false},
};

static X509 *load_certificate(const char *path)
{
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    X509 *certificate = PEM_read_X509(file, NULL, NULL, NULL);
    assert_int_equal(fclose(file), 0);
    assert_non_null(certificate);
    return certificate;
}

static void patterns_fit(void **state)
{
    (void)state;
    struct test_ca ca;
    struct test_identity identity;
    test_ca_make(&ca, "test CA");
    test_ca_issue(&ca,
                  &(const struct test_subject){.name = "common",
                                               .san = "DNS:a.clients.example,DNS:*.wild.example,"
                                                      "DNS:a.b.deep.example,URI:spiffe://example/a"},
                  &identity);
    X509 *certificate = load_certificate(identity.certificate);
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        char text[100];
        struct client_match match;
        (void)snprintf(text, sizeof text, "%s", ROWS[i].pattern);
        bool fits = client_match_parse_pattern(text, &match, NULL) == RESULT_OK &&
                    client_match_fits(&match, certificate);
        CHECK(ROWS[i].pattern, fits == ROWS[i].fits);
    }
    X509_free(certificate);
    test_ca_remove(&ca);
}

static void what_is_no_pattern(void **state)
{
    static const char *const WRONG[] = {"DNS:*",      "DNS:*.",          "DNS:*.example", "DNS:*.*.example",
                                        "DNS:a*.b.c", "DNS:a.*.example", "DNS:.a.b",      "*.a.example"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(WRONG); i++) {
        char text[100], words[120];
        struct client_match match;
        struct failure why = {RESULT_OK, ""};
        (void)snprintf(text, sizeof text, "%s", WRONG[i]);
        (void)snprintf(words, sizeof words, "got \"%s\", expected ", WRONG[i]);
        CHECK(WRONG[i], client_match_parse_pattern(text, &match, &why) == RESULT_CONFIG);
        CHECK(WRONG[i], strncmp(why.text, words, strlen(words)) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_fit),
        cmocka_unit_test(what_is_no_pattern),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
