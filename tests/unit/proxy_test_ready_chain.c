#include "proxy/ready_chain.h"

#include <string.h>
#include <unistd.h>

#include <openssl/provider.h>

#include "proxy/certificate_file.h"
#include "proxy/chain_parser.h"
#include "tests/unit/check.h"
#include "tests/unit/support/test_certificates.h"

enum { CHAINS = 5 };

struct fixture {
    struct test_ca ca;
    struct chain_parser *parser;
    struct remote_signer signer;
    OSSL_PROVIDER *provider;
    struct certificate *certificates[CHAINS];
};

static struct certificate *make(struct fixture *fixture, const char *san, const char *key_type)
{
    struct test_identity identity;
    struct certificate_chain chain;
    struct certificate *certificate;
    struct failure why;
    test_ca_issue(&fixture->ca, &(struct test_subject){.name = "site", .san = san, .key_type = key_type},
                  &identity);
    if (certificate_file_read(identity.certificate, &chain, &why) != RESULT_OK ||
        chain_parser_make(fixture->parser, NULL, "x.pem", chain.der, chain.count, NULL, NULL, &certificate,
                          &why) != RESULT_OK)
        fail_msg("%s", why.text);
    certificate_chain_clear(&chain);
    return certificate;
}

static int set_up(void **state)
{
    static const char *const TYPES[CHAINS] = {NULL, "RSA", "ED25519", "P-384", NULL};
    static struct fixture fixture;
    struct failure why;
    test_ca_make(&fixture.ca, "Test CA");
    assert_int_equal(remote_key_provider_load(NULL, &fixture.provider, &why), RESULT_OK);
    assert_int_equal(chain_parser_new(&fixture.parser, &why), RESULT_OK);
    for (size_t i = 0; i < CHAINS; i++)
        fixture.certificates[i] = make(&fixture, "DNS:a.example", TYPES[i]);
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < CHAINS; i++) {
        assert_int_equal(fixture->certificates[i]->users, 1);
        certificate_drop(fixture->certificates[i]);
    }
    chain_parser_drop(fixture->parser);
    assert_int_equal(OSSL_PROVIDER_unload(fixture->provider), 1);
    test_ca_remove(&fixture->ca);
    return 0;
}

static void what_is_served(void **state)
{
    struct fixture *fixture = *state;
    struct ready_chains *chains = ready_chains_new(CHAINS, &fixture->signer, NULL);
    assert_non_null(chains);
    for (size_t i = 0; i < CHAINS; i++) {
        const struct certificate *certificate = fixture->certificates[i];
        const struct ready_chain *ready = ready_chains_get(chains, certificate);
        unsigned char *der = NULL;
        assert_non_null(ready);
        assert_int_equal(i2d_X509(ready->leaf, &der), certificate->leaf.size);
        assert_memory_equal(der, certificate->leaf.data, certificate->leaf.size);
        assert_int_equal(EVP_PKEY_eq(ready->key, X509_get0_pubkey(ready->leaf)), 1);
        assert_int_equal(sk_X509_num(ready->issuers), certificate->issuer_count);
        OPENSSL_free(der);
    }
    ready_chains_free(chains);
}

/* The least recently used one goes, and is made anew when it is wanted. */
static void few_are_kept(void **state)
{
    struct fixture *fixture = *state;
    struct ready_chains *chains = ready_chains_new(2, &fixture->signer, NULL);
    const X509 *first = ready_chains_get(chains, fixture->certificates[0])->leaf;
    assert_non_null(ready_chains_get(chains, fixture->certificates[1]));
    assert_int_equal(ready_chains_count(chains), 2);
    assert_ptr_equal(ready_chains_get(chains, fixture->certificates[0])->leaf, first);
    assert_non_null(ready_chains_get(chains, fixture->certificates[2])); /* in the second one's place */
    assert_int_equal(ready_chains_count(chains), 2);
    assert_int_equal(fixture->certificates[1]->users, 1);
    assert_int_equal(fixture->certificates[0]->users, 2);
    assert_ptr_equal(ready_chains_get(chains, fixture->certificates[0])->leaf, first);
    for (size_t i = 0; i < 1000; i++)
        assert_non_null(ready_chains_get(chains, fixture->certificates[i * 7 % CHAINS]));
    assert_int_equal(ready_chains_count(chains), 2);
    ready_chains_free(chains);
}

/* Who serves a chain keeps what it needs, although it has gone from here meanwhile. */
static void the_served_outlives_it(void **state)
{
    struct fixture *fixture = *state;
    struct ready_chains *chains = ready_chains_new(1, &fixture->signer, NULL);
    X509 *leaf = ready_chains_get(chains, fixture->certificates[0])->leaf;
    assert_int_equal(X509_up_ref(leaf), 1);
    assert_non_null(ready_chains_get(chains, fixture->certificates[1]));
    assert_non_null(X509_get0_pubkey(leaf));
    X509_free(leaf);
    ready_chains_free(chains);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_served),
        cmocka_unit_test(few_are_kept),
        cmocka_unit_test(the_served_outlives_it),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
