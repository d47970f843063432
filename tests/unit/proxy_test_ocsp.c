/* URLs of responders, requests, and what responses are worth, on a clock of the test's own; the integration
 * tests have what whole responders do. */
#include <string.h>

#include <openssl/ocsp.h>
#include <openssl/pem.h>

#include "proxy/ocsp_response.h"
#include "proxy/ocsp_url.h"
#include "tests/unit/check.h"
#include "tests/unit/support/test_certificates.h"

#define NOW 1800000000

struct fixture {
    struct test_ca ca;
    X509 *leaf;
    unsigned char *der;
    struct certificate certificate;
};

static int set_up(void **state)
{
    static struct fixture fixture;
    struct test_identity identity;
    test_ca_make(&fixture.ca, "Test CA");
    test_ca_issue(&fixture.ca, &(struct test_subject){.name = "site", .san = "DNS:a.example"}, &identity);
    BIO *file = BIO_new_file(identity.certificate, "r");
    fixture.leaf = PEM_read_bio_X509(file, NULL, NULL, NULL);
    BIO_free(file);
    int size = i2d_X509(fixture.leaf, &fixture.der);
    fixture.certificate = (struct certificate){.path = "site.pem",
                                               .leaf = bytes_of(fixture.der, (size_t)size),
                                               .issuers = &fixture.ca.certificate,
                                               .issuer_count = 1};
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    X509_free(fixture->leaf);
    OPENSSL_free(fixture->der);
    test_ca_remove(&fixture->ca);
    return 0;
}

/* ---- URLs. */

static void urls(void **state)
{
    static const struct {
        const char *text, *host, *target;
        uint16_t port;
    } GOOD[] = {
        {"http://ocsp.example", "ocsp.example", "/", 80},
        {"HTTP://ocsp.example/", "ocsp.example", "/", 80},
        {"http://ocsp.example:8080/a/b", "ocsp.example", "/a/b", 8080},
        {"http://[::1]:81/?x=1", "::1", "/?x=1", 81},
        {"http://192.0.2.1/", "192.0.2.1", "/", 80},
    };
    struct ocsp_url url;
    struct failure why;
    (void)state;
    for (size_t i = 0; i < sizeof GOOD / sizeof *GOOD; i++) {
        assert_int_equal(ocsp_url_parse(GOOD[i].text, &url, &why), RESULT_OK);
        assert_string_equal(url.host, GOOD[i].host);
        assert_string_equal(url.target, GOOD[i].target);
        assert_int_equal(url.port, GOOD[i].port);
    }
}

static void bad_urls(void **state)
{
    static const char *const BAD[] = {
        "",          "/",           "ocsp.example",          "https://ocsp.example/", "ftp://ocsp.example/",
        "http:///x", "http://a:0/", "http://a:65536/",       "http://u:p@a/",         "http://a b/",
        "http://[",  "http://a/\n", "ldap://ocsp.example/x",
    };
    char long_one[1000];
    struct ocsp_url url;
    struct failure why;
    (void)state;
    for (size_t i = 0; i < sizeof BAD / sizeof *BAD; i++)
        if (ocsp_url_parse(BAD[i], &url, &why) != RESULT_CONFIG)
            fail_msg("taken: %s", BAD[i]);
    memset(long_one, 'x', sizeof long_one);
    memcpy(long_one, "http://a/", 9);
    long_one[sizeof long_one - 1] = '\0';
    assert_int_equal(ocsp_url_parse(long_one, &url, &why), RESULT_CONFIG);
    memcpy(long_one, "http://aa", 9);
    assert_int_equal(ocsp_url_parse(long_one, &url, &why), RESULT_CONFIG);
}

/* ---- Requests. */

static void request(void **state)
{
    const struct fixture *fixture = *state;
    struct ocsp_request made;
    struct failure why;
    assert_int_equal(ocsp_request_make(&fixture->certificate, &made, &why), RESULT_OK);
    const unsigned char *at = made.der;
    OCSP_REQUEST *parsed = d2i_OCSP_REQUEST(NULL, &at, (long)made.size);
    assert_non_null(parsed);
    assert_ptr_equal(at, made.der + made.size);
    assert_int_equal(OCSP_request_onereq_count(parsed), 1);
    assert_int_equal(OCSP_REQUEST_get_ext_count(parsed), 0);
    OCSP_CERTID *wanted = OCSP_cert_to_id(NULL, fixture->leaf, fixture->ca.certificate);
    assert_int_equal(OCSP_id_cmp(OCSP_onereq_get0_id(OCSP_request_onereq_get0(parsed, 0)), wanted), 0);
    OCSP_CERTID_free(wanted);
    OCSP_REQUEST_free(parsed);
    assert_null(ocsp_responder_of(&fixture->certificate));
}

static void request_without_issuer(void **state)
{
    const struct fixture *fixture = *state;
    struct certificate alone = fixture->certificate;
    struct ocsp_request made;
    struct ocsp_status status;
    struct failure why;
    alone.issuer_count = 0;
    assert_int_equal(ocsp_request_make(&alone, &made, &why), RESULT_CONFIG);
    assert_int_equal(ocsp_response_check(bytes_of("x", 1), &alone, NOW, &status, &why), RESULT_CONFIG);
}

/* ---- Responses. */

struct answer {
    int status;
    long from, until; /* seconds from NOW; until 0: it has no end */
};

static struct bytes respond(const struct fixture *fixture, const struct answer *answer)
{
    unsigned char *der = NULL;
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, fixture->leaf, fixture->ca.certificate);
    ASN1_TIME *from = ASN1_GENERALIZEDTIME_set(NULL, NOW + answer->from);
    ASN1_TIME *until = answer->until != 0 ? ASN1_GENERALIZEDTIME_set(NULL, NOW + answer->until) : NULL;
    bool revoked = answer->status == V_OCSP_CERTSTATUS_REVOKED;
    assert_non_null(OCSP_basic_add1_status(basic, id, answer->status, 0, revoked ? from : NULL, from, until));
    assert_int_equal(
        OCSP_basic_sign(basic, fixture->ca.certificate, fixture->ca.key, EVP_sha256(), NULL, OCSP_NOCERTS),
        1);
    OCSP_RESPONSE *response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    int size = i2d_OCSP_RESPONSE(response, &der);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(id);
    ASN1_TIME_free(from);
    ASN1_TIME_free(until);
    return bytes_of(der, (size_t)size);
}

static const struct {
    struct answer answer;
    const char *reason; /* NULL: it is taken */
} ANSWERS[] = {
    {{V_OCSP_CERTSTATUS_GOOD, -10, 10}, NULL},
    {{V_OCSP_CERTSTATUS_REVOKED, -10, 10}, NULL},
    {{V_OCSP_CERTSTATUS_GOOD, 0, 1}, NULL},
    {{V_OCSP_CERTSTATUS_GOOD, 300, 400}, NULL}, /* the responder's clock is a little ahead */
    {{V_OCSP_CERTSTATUS_GOOD, 301, 400}, "it is not in force yet"},
    {{V_OCSP_CERTSTATUS_GOOD, -10, -1}, "it is out of date"},
    {{V_OCSP_CERTSTATUS_GOOD, -NOW, -NOW + 1}, "it has no good thisUpdate"},
    {{V_OCSP_CERTSTATUS_REVOKED, -10, 0}, NULL}, /* it counts for a week */
    {{V_OCSP_CERTSTATUS_GOOD, -10, 0}, "it has no nextUpdate, and so no end"},
    {{V_OCSP_CERTSTATUS_UNKNOWN, -10, 10}, "the responder does not know the certificate"},
};

static void responses(void **state)
{
    const struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof ANSWERS / sizeof *ANSWERS; i++) {
        const struct answer *answer = &ANSWERS[i].answer;
        struct bytes response = respond(fixture, answer);
        struct ocsp_status status;
        struct failure why = {0};
        enum result result = ocsp_response_check(response, &fixture->certificate, NOW, &status, &why);
        if (ANSWERS[i].reason == NULL) {
            assert_int_equal(result, RESULT_OK);
            assert_int_equal(status.revoked, answer->status == V_OCSP_CERTSTATUS_REVOKED);
            assert_int_equal(status.this_update, NOW + answer->from);
            assert_int_equal(status.next_update, NOW + (answer->until != 0 ? answer->until : 7 * 86400));
        } else {
            assert_int_equal(result, RESULT_PROTOCOL);
            assert_string_equal(why.text, ANSWERS[i].reason);
        }
        OPENSSL_free((void *)response.data);
    }
}

/* At exactly its end it is over. */
static void the_end(void **state)
{
    const struct fixture *fixture = *state;
    struct bytes response = respond(fixture, &(struct answer){V_OCSP_CERTSTATUS_GOOD, -10, 10});
    struct ocsp_status status;
    assert_int_equal(ocsp_response_check(response, &fixture->certificate, NOW + 9, &status, NULL), RESULT_OK);
    assert_int_equal(ocsp_response_check(response, &fixture->certificate, NOW + 10, &status, NULL),
                     RESULT_PROTOCOL);
    OPENSSL_free((void *)response.data);
}

/* No bit can be another, not even one that BER would let be, and no octet can be missing. */
static void spoilt(void **state)
{
    const struct fixture *fixture = *state;
    struct bytes response = respond(fixture, &(struct answer){V_OCSP_CERTSTATUS_GOOD, -10, 10});
    uint8_t *octets = (uint8_t *)response.data;
    struct ocsp_status status;
    for (size_t i = 0; i < response.size; i++) {
        for (unsigned bit = 1; bit < 256; bit *= 2) {
            octets[i] ^= (uint8_t)bit;
            if (ocsp_response_check(response, &fixture->certificate, NOW, &status, NULL) == RESULT_OK)
                fail_msg("bit %#x of octet %zu may be another", bit, i);
            octets[i] ^= (uint8_t)bit;
        }
        assert_int_not_equal(
            ocsp_response_check(bytes_of(octets, i), &fixture->certificate, NOW, &status, NULL), RESULT_OK);
    }
    assert_int_equal(ocsp_response_check(response, &fixture->certificate, NOW, &status, NULL), RESULT_OK);
    OPENSSL_free(octets);
}

/* A SEQUENCE OF that says it is primitive: libcrypto parses that, and finds the signature good. */
static void not_der(void **state)
{
    const struct fixture *fixture = *state;
    struct bytes response = respond(fixture, &(struct answer){V_OCSP_CERTSTATUS_GOOD, -10, 10});
    static const uint8_t PRODUCED_AT[] = {V_ASN1_GENERALIZEDTIME, 15};
    uint8_t *octets = (uint8_t *)response.data;
    uint8_t *responses = memmem(octets, response.size, PRODUCED_AT, sizeof PRODUCED_AT);
    struct ocsp_status status;
    struct failure why = {0};
    assert_non_null(responses);
    responses += sizeof PRODUCED_AT + 15;
    assert_int_equal(*responses, V_ASN1_SEQUENCE | V_ASN1_CONSTRUCTED);
    *responses = V_ASN1_SEQUENCE;
    assert_int_equal(ocsp_response_check(response, &fixture->certificate, NOW, &status, &why),
                     RESULT_PROTOCOL);
    assert_string_equal(why.text, "it is not in DER");
    OPENSSL_free(octets);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls),      cmocka_unit_test(bad_urls),
        cmocka_unit_test(request),   cmocka_unit_test(request_without_issuer),
        cmocka_unit_test(responses), cmocka_unit_test(the_end),
        cmocka_unit_test(spoilt),    cmocka_unit_test(not_der),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
