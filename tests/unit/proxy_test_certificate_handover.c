#include "proxy/certificate_handover.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>

#include "common/socket.h"
#include "proxy/certificate_file.h"
#include "proxy/chain_parser.h"
#include "tests/unit/check.h"
#include "tests/unit/support/test_certificates.h"

enum { CHAINS = 3 };

struct fixture {
    struct test_ca ca;
    struct chain_parser *parser;
    struct certificate *list[CHAINS];
    struct proxy_site sites[2];
    struct proxy_config config;
};

static struct certificate *make(struct fixture *fixture, size_t index)
{
    struct test_identity identity;
    struct certificate_chain chain, issuer;
    struct certificate *certificate;
    struct failure why;
    test_ca_issue(&fixture->ca,
                  &(struct test_subject){.name = "site", .san = "DNS:a.example,DNS:*.b.example"}, &identity);
    assert_int_equal(certificate_file_read(identity.certificate, &chain, &why), RESULT_OK);
    assert_int_equal(certificate_file_read(fixture->ca.path, &issuer, &why), RESULT_OK);
    if (index > 0) { /* the first one is a leaf alone */
        chain.der[chain.count++] = issuer.der[0];
        issuer.count = 0;
    }
    assert_int_equal(chain_parser_make(fixture->parser, NULL, "/etc/a.pem", chain.der, chain.count, NULL,
                                       NULL, &certificate, &why),
                     RESULT_OK);
    certificate_chain_clear(&chain);
    certificate_chain_clear(&issuer);
    certificate->index = 7 * index;
    return certificate;
}

static int set_up(void **state)
{
    static struct fixture fixture;
    struct failure why;
    test_ca_make(&fixture.ca, "Test CA");
    assert_int_equal(chain_parser_new(&fixture.parser, &why), RESULT_OK);
    fixture.config = (struct proxy_config){.sites = fixture.sites, .site_count = 2};
    for (size_t i = 0; i < CHAINS; i++)
        fixture.list[i] = make(&fixture, i);
    fixture.list[2]->site = &fixture.sites[1];
    fixture.list[1]->verdict = CERTIFICATE_GOOD;
    *state = &fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < CHAINS; i++)
        certificate_drop(fixture->list[i]);
    chain_parser_drop(fixture->parser);
    test_ca_remove(&fixture->ca);
    return 0;
}

static int handed_over(struct fixture *fixture)
{
    struct failure why;
    int fd;
    const struct certificate *const *list = (const struct certificate *const *)fixture->list;
    assert_int_equal(certificate_handover_make(&fixture->config, list, CHAINS, &fd, &why), RESULT_OK);
    return fd;
}

static void what_comes_is_what_went(void **state)
{
    struct fixture *fixture = *state;
    struct certificate_handover handover;
    struct certificate *certificate;
    struct failure why;
    int fd = handed_over(fixture);
    assert_int_equal(certificate_handover_open(fd, &handover, &why), RESULT_OK);
    socket_close(&fd);
    for (size_t i = 0; i < CHAINS; i++) {
        const struct certificate *sent = fixture->list[i];
        assert_int_equal(
            certificate_handover_next(&handover, &fixture->config, fixture->parser, &certificate, &why),
            RESULT_OK);
        assert_int_equal(certificate->index, sent->index);
        assert_ptr_equal(certificate->site, sent->site);
        assert_int_equal(certificate->verdict, sent->verdict);
        assert_string_equal(certificate->path, sent->path);
        assert_true(bytes_equal(certificate->leaf, sent->leaf));
        assert_int_equal(certificate->issuer_count, sent->issuer_count);
        for (size_t issuer = 0; issuer < sent->issuer_count; issuer++)
            assert_ptr_equal(certificate->issuers[issuer], sent->issuers[issuer]);
        assert_int_equal(certificate->name_count, 2);
        assert_string_equal(certificate->names, "a.example");
        assert_memory_equal(&certificate->key, &sent->key, sizeof sent->key);
        assert_memory_equal(certificate->mark, sent->mark, sizeof sent->mark);
        certificate_drop(certificate);
    }
    assert_int_equal(
        certificate_handover_next(&handover, &fixture->config, fixture->parser, &certificate, &why),
        RESULT_AGAIN);
    certificate_handover_close(&handover);
}

static void nobody_can_change_it(void **state)
{
    int fd = handed_over(*state);
    assert_int_equal(write(fd, "x", 1), -1);
    assert_int_equal(ftruncate(fd, 1), -1);
    assert_ptr_equal(mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), -1);
    socket_close(&fd);
}

/* However it is cut, an error or an end comes, and nothing else. */
static void what_is_cut(void **state)
{
    struct fixture *fixture = *state;
    static uint8_t data[65536];
    struct failure why;
    int fd = handed_over(fixture);
    ssize_t size = pread(fd, data, sizeof data, 0);
    socket_close(&fd);
    assert_in_range(size, 1000, sizeof data - 1);
    for (ssize_t cut = 1; cut < size; cut += 37) {
        struct certificate_handover handover;
        struct certificate *certificate;
        enum result result;
        fd = memfd_create("cut", MFD_CLOEXEC);
        assert_int_equal(write(fd, data, (size_t)cut), cut);
        assert_int_equal(certificate_handover_open(fd, &handover, &why), RESULT_OK);
        socket_close(&fd);
        while ((result = certificate_handover_next(&handover, &fixture->config, fixture->parser, &certificate,
                                                   &why)) == RESULT_OK)
            certificate_drop(certificate);
        assert_true(result == RESULT_AGAIN || result == RESULT_PROTOCOL);
        certificate_handover_close(&handover);
    }
}

static void what_is_nothing(void **state)
{
    (void)state;
    struct certificate_handover handover;
    struct failure why;
    int fd = memfd_create("nothing", MFD_CLOEXEC);
    assert_int_equal(certificate_handover_open(fd, &handover, &why), RESULT_PROTOCOL);
    assert_int_equal(ftruncate(fd, (off_t)1 << 40), 0);
    assert_int_equal(certificate_handover_open(fd, &handover, &why), RESULT_PROTOCOL);
    socket_close(&fd);
    assert_int_equal(certificate_handover_open(-1, &handover, &why), RESULT_SYSTEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_comes_is_what_went),
        cmocka_unit_test(nobody_can_change_it),
        cmocka_unit_test(what_is_cut),
        cmocka_unit_test(what_is_nothing),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
