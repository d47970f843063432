#include "proxy/certificates.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/pem.h>
#include <openssl/pkcs12.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "proxy/certificate_expiry.h"
#include "proxy/certificate_file.h"
#include "proxy/certificate_verdicts.h"
#include "proxy/certificates_private.h"
#include "tests/unit/check.h"
#include "tests/unit/support/test_certificates.h"

/* A directory of chains for each test, made from one CA's certificates. */
struct fixture {
    struct test_ca ca;
    char directory[64];
    struct proxy_certificate_source source;
    struct proxy_config config;
    struct certificates *certificates;
    struct failure why;
};

static int make_all(void **state)
{
    static struct fixture fixture;
    test_ca_make(&fixture.ca, "Test CA");
    *state = &fixture;
    return 0;
}

static int remove_all(void **state)
{
    struct fixture *fixture = *state;
    test_ca_remove(&fixture->ca);
    return 0;
}

static int set_up(void **state)
{
    struct fixture *fixture = *state;
    (void)snprintf(fixture->directory, sizeof fixture->directory, "/tmp/keyless-test-XXXXXX");
    assert_non_null(mkdtemp(fixture->directory));
    fixture->source = (struct proxy_certificate_source){.dir = fixture->directory};
    fixture->config = (struct proxy_config){.certificates = &fixture->source, .certificate_count = 1};
    fixture->certificates = NULL;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    char path[TEST_PATH_SIZE + 256];
    certificates_free(fixture->certificates);
    DIR *directory = opendir(fixture->directory);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        (void)snprintf(path, sizeof path, "%s/%s", fixture->directory, entry->d_name);
        (void)remove(path); /* "." and ".." stay */
    }
    (void)closedir(directory);
    return rmdir(fixture->directory);
}

static void path_of(const struct fixture *fixture, const char *name, char path[static TEST_PATH_SIZE])
{
    (void)snprintf(path, TEST_PATH_SIZE, "%s/%s", fixture->directory, name);
}

/* Issues a certificate and moves it into the directory as `file`; its key stays with the CA's. */
static struct test_identity put(struct fixture *fixture, const char *file, const struct test_subject *subject)
{
    struct test_identity identity;
    char path[TEST_PATH_SIZE];
    test_ca_issue(&fixture->ca, subject, &identity);
    path_of(fixture, file, path);
    assert_int_equal(rename(identity.certificate, path), 0);
    return identity;
}

static void put_site(struct fixture *fixture, const char *file, const char *san, const char *key_type)
{
    (void)put(fixture, file, &(struct test_subject){.name = "site", .san = san, .key_type = key_type});
}

static enum result read_all(struct fixture *fixture)
{
    return certificates_read(&fixture->config, NULL, NULL, &fixture->certificates, &fixture->why);
}

static void check_read(struct fixture *fixture)
{
    if (read_all(fixture) != RESULT_OK)
        fail_msg("%s", fixture->why.text);
}

static void check_refused(struct fixture *fixture, const char *file, const char *reason)
{
    assert_int_equal(read_all(fixture), RESULT_CONFIG);
    assert_null(fixture->certificates);
    if (strstr(fixture->why.text, file) == NULL || strstr(fixture->why.text, reason) == NULL)
        fail_msg("\"%s\" names not both \"%s\" and \"%s\"", fixture->why.text, file, reason);
}

static const char *base_name(const struct certificate *certificate)
{
    return strrchr(certificate->path, '/') + 1;
}

static size_t find(const struct fixture *fixture, const char *sni,
                   const struct certificate *found[static CERTIFICATES_PER_NAME], bool *matched)
{
    struct bytes name = sni != NULL ? bytes_of(sni, strlen(sni)) : bytes_of(NULL, 0);
    return certificates_find(fixture->certificates, NULL, name, found, matched);
}

/* ---- Which chain a name gets. */

static const struct {
    const char *sni, *file;
    bool matched;
} LOOKUPS[] = {
    {"www.example.com", "b.pem", true},
    {"WWW.Example.COM", "b.pem", true},
    {"www.example.com.", "b.pem", true},
    {"shop.example.com", "b.pem", true},
    {"other.example.com", "c.crt", true},
    {"a.b.example.com", "a.pem", false}, /* a wildcard is one label */
    {"example.com", "a.pem", false},     /* ... and not none */
    {".example.com", "a.pem", false},
    {"*.example.com", "a.pem", false}, /* no client's SNI */
    {"default.example", "a.pem", true},
    {"nowhere.example", "a.pem", false},
    {"192.0.2.1", "a.pem", false},
    {"b\xC3\xBC"
     "cher.example",
     "a.pem", false},
    {"xn--bcher-kva.example", "b.pem", true},
    {NULL, "a.pem", false},
};

static void test_lookup(void **state)
{
    struct fixture *fixture = *state;
    const struct certificate *found[CERTIFICATES_PER_NAME];
    bool matched;
    put_site(fixture, "a.pem", "DNS:default.example,IP:192.0.2.1", NULL);
    put_site(fixture, "b.pem", "DNS:WWW.example.com,DNS:shop.example.com,DNS:xn--bcher-kva.example", NULL);
    put_site(fixture, "c.crt", "DNS:*.example.com,DNS:www.*.example.com,DNS:f*.example.com,DNS:*", NULL);
    check_read(fixture);
    assert_int_equal(certificates_count(fixture->certificates), 3);
    for (size_t i = 0; i < COUNT_OF(LOOKUPS); i++) {
        const char *row = LOOKUPS[i].sni != NULL ? LOOKUPS[i].sni : "no SNI";
        CHECK(row, find(fixture, LOOKUPS[i].sni, found, &matched) == 1);
        CHECK(row, strcmp(base_name(found[0]), LOOKUPS[i].file) == 0);
        CHECK(row, matched == LOOKUPS[i].matched);
        CHECK(row, certificates_at(fixture->certificates, found[0]->index) == found[0]);
    }
}

static void test_long_names(void **state)
{
    struct fixture *fixture = *state;
    const struct certificate *found[CERTIFICATES_PER_NAME];
    char name[600];
    bool matched;
    put_site(fixture, "a.pem", "DNS:*.example.com", NULL);
    check_read(fixture);
    for (size_t size = 200; size < sizeof name; size++) {
        memset(name, 'a', size);
        memcpy(name + size - 12, ".example.com", 13);
        for (size_t i = 60; i + 13 < size; i += 60)
            name[i] = '.';
        assert_int_equal(find(fixture, name, found, &matched), 1);
        assert_false(matched);
    }
}

static void test_types_and_duplicates(void **state)
{
    struct fixture *fixture = *state;
    const struct certificate *found[CERTIFICATES_PER_NAME];
    bool matched, has_rsa = false, has_ec = false;
    put_site(fixture, "rsa.pem", "DNS:a.example", "RSA");
    const struct test_subject longer = {.name = "long", .san = "DNS:a.example", .lifetime = 777600};
    const struct test_subject shorter = {.name = "short", .san = "DNS:a.example,DNS:b.example"};
    (void)put(fixture, "ec-1-longer.pem", &longer);
    (void)put(fixture, "ec-2-shorter.pem", &shorter);
    check_read(fixture);
    assert_int_equal(find(fixture, "a.example", found, &matched), 2);
    for (size_t i = 0; i < 2; i++) {
        has_rsa = has_rsa || strcmp(base_name(found[i]), "rsa.pem") == 0;
        has_ec = has_ec || strcmp(base_name(found[i]), "ec-1-longer.pem") == 0;
    }
    assert_true(has_rsa && has_ec);
    assert_int_equal(find(fixture, "b.example", found, &matched), 1);
    assert_string_equal(base_name(found[0]), "ec-2-shorter.pem");
}

/* Next month's certificate may lie beside this month's, whichever is read first. */
static void test_not_valid_yet(void **state)
{
    static const char *const names[] = {"1.pem", "3.pem"};
    struct fixture *fixture = *state;
    const struct certificate *found[CERTIFICATES_PER_NAME];
    const struct test_subject next = {
        .name = "next", .san = "DNS:a.example", .delay = 3600, .lifetime = 777600};
    char path[TEST_PATH_SIZE];
    bool matched;
    put_site(fixture, "2.pem", "DNS:a.example", NULL);
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        (void)put(fixture, names[i], &next);
        check_read(fixture);
        CHECK(names[i], find(fixture, "a.example", found, &matched) == 1);
        CHECK(names[i], strcmp(base_name(found[0]), "2.pem") == 0);
        certificates_free(fixture->certificates);
        fixture->certificates = NULL;
        path_of(fixture, names[i], path);
        assert_int_equal(unlink(path), 0);
    }
}

static void test_default_name(void **state)
{
    struct fixture *fixture = *state;
    const struct certificate *found[CERTIFICATES_PER_NAME];
    bool matched;
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    put_site(fixture, "b.pem", "DNS:b.example", NULL);
    fixture->config.tls.default_name = (char[]){"B.example"};
    check_read(fixture);
    assert_int_equal(find(fixture, "c.example", found, &matched), 1);
    assert_string_equal(base_name(found[0]), "b.pem");
    certificates_free(fixture->certificates);
    fixture->config.tls.default_name = (char[]){"c.example"};
    check_refused(fixture, "tls.default", "c.example");
    put_site(fixture, "c.pem", "DNS:*.wild.example", NULL);
    fixture->config.tls.default_name = (char[]){"some.wild.example"};
    check_read(fixture);
    assert_int_equal(find(fixture, "c.example", found, &matched), 1);
    assert_string_equal(base_name(found[0]), "c.pem");
    fixture->config.tls.default_name = NULL;
}

/* ---- Sites. */

enum { WILD, SHOP, PLAIN, SITES };

/* A site of a wildcard, one of a name below it, both with chains of their own, and one without. */
struct sites {
    struct proxy_certificate_source wild, shop;
    struct proxy_site list[SITES];
    struct proxy_site_name names[4];
};

static void sites_set(struct fixture *fixture, struct sites *sites)
{
    static char *wild[] = {"*.example.com"}, *shop[] = {"shop.example.com", "shop.example"},
                *plain[] = {"plain.example.com"};
    char path[TEST_PATH_SIZE];
    path_of(fixture, "wild.der", path);
    sites->wild.file = strdup(path);
    path_of(fixture, "shop.der", path);
    sites->shop.file = strdup(path);
    sites->list[WILD] = (struct proxy_site){
        .names = wild, .name_count = 1, .certificates = &sites->wild, .certificate_count = 1};
    sites->list[SHOP] = (struct proxy_site){
        .names = shop, .name_count = 2, .certificates = &sites->shop, .certificate_count = 1};
    sites->list[PLAIN] = (struct proxy_site){.names = plain, .name_count = 1};
    sites->names[0] = (struct proxy_site_name){wild[0], &sites->list[WILD], 0};
    sites->names[1] = (struct proxy_site_name){plain[0], &sites->list[PLAIN], 0};
    sites->names[2] = (struct proxy_site_name){shop[1], &sites->list[SHOP], 1};
    sites->names[3] = (struct proxy_site_name){shop[0], &sites->list[SHOP], 0};
    fixture->config.sites = sites->list;
    fixture->config.site_count = SITES;
    fixture->config.site_names = sites->names;
    fixture->config.site_name_count = COUNT_OF(sites->names);
}

static void sites_clear(struct fixture *fixture, struct sites *sites)
{
    fixture->config.site_count = fixture->config.site_name_count = 0;
    free(sites->wild.file);
    free(sites->shop.file);
}

static const struct {
    const char *sni;
    int site; /* that it is asked for in; -1: none */
    const char *file;
    bool matched;
} SITE_LOOKUPS[] = {
    {"www.example.com", WILD, "wild.der", true},  {"exact.example.com", WILD, "wild.der", true},
    {"shop.example.com", SHOP, "shop.der", true}, /* by the chain's wildcard */
    {"shop.example", SHOP, "a.pem", true},        /* no chain of the site's is for it */
    {"plain.example.com", PLAIN, "a.pem", false}, /* nobody's wildcard but the other site's is for it */
    {"www.example.com", -1, "a.pem", false},      {"other.example", -1, "a.pem", false},
};

static void test_sites(void **state)
{
    struct fixture *fixture = *state;
    struct sites sites = {0};
    const struct certificate *found[CERTIFICATES_PER_NAME];
    bool matched;
    put_site(fixture, "a.pem", "DNS:default.example,DNS:shop.example", NULL);
    put_site(fixture, "wild.der",
             "DNS:*.example.com,DNS:exact.example.com,DNS:shop.example.com,DNS:other.example", NULL);
    put_site(fixture, "shop.der", "DNS:*.example.com", NULL);
    sites_set(fixture, &sites);
    check_read(fixture);
    for (size_t i = 0; i < COUNT_OF(SITE_LOOKUPS); i++) {
        const char *sni = SITE_LOOKUPS[i].sni;
        const struct proxy_site *site = SITE_LOOKUPS[i].site < 0 ? NULL : &sites.list[SITE_LOOKUPS[i].site];
        CHECK(sni, certificates_find(fixture->certificates, site, bytes_of(sni, strlen(sni)), found,
                                     &matched) == 1);
        CHECK(sni, strcmp(base_name(found[0]), SITE_LOOKUPS[i].file) == 0);
        CHECK(sni, matched == SITE_LOOKUPS[i].matched);
    }
    sites_clear(fixture, &sites);
}

/* Without chains for everybody an unknown name gets none, unless one is named. */
static void test_sites_alone(void **state)
{
    struct fixture *fixture = *state;
    struct sites sites = {0};
    const struct certificate *found[CERTIFICATES_PER_NAME];
    bool matched;
    put_site(fixture, "wild.der", "DNS:*.example.com", NULL);
    put_site(fixture, "shop.der", "DNS:shop.example", NULL);
    sites_set(fixture, &sites);
    fixture->config.certificate_count = 0;
    check_read(fixture);
    assert_int_equal(find(fixture, "other.example", found, &matched), 0);
    assert_false(matched);
    certificates_free(fixture->certificates);
    fixture->config.tls.default_name = (char[]){"shop.example"};
    check_read(fixture);
    assert_int_equal(find(fixture, "other.example", found, &matched), 1);
    assert_string_equal(base_name(found[0]), "shop.der");
    assert_false(matched);
    fixture->config.tls.default_name = NULL;
    sites_clear(fixture, &sites);
}

static void test_chain_of_no_name_of_the_site(void **state)
{
    struct fixture *fixture = *state;
    struct sites sites = {0};
    put_site(fixture, "a.pem", "DNS:default.example", NULL);
    put_site(fixture, "wild.der", "DNS:shop.example.com",
             NULL); /* the other site's, though below the wildcard */
    put_site(fixture, "shop.der", "DNS:shop.example", NULL);
    sites_set(fixture, &sites);
    check_refused(fixture, "wild.der", "sites.certificates.file");
    assert_non_null(strstr(fixture->why.text, "is for none of the site's names"));
    sites_clear(fixture, &sites);
}

static void test_many_names(void **state)
{
    enum { NAMES = 500 };
    struct fixture *fixture = *state;
    const struct certificate *found[CERTIFICATES_PER_NAME];
    char san[NAMES * 24], name[24];
    bool matched;
    size_t at = 0;
    for (int i = 0; i < NAMES; i++)
        at += (size_t)snprintf(san + at, sizeof san - at, "%sDNS:n%d.example", i > 0 ? "," : "", i);
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    put_site(fixture, "b.pem", san, NULL);
    check_read(fixture);
    for (int i = 0; i < NAMES; i++) {
        (void)snprintf(name, sizeof name, "n%d.example", i);
        assert_int_equal(find(fixture, name, found, &matched), 1);
        assert_string_equal(base_name(found[0]), "b.pem");
    }
    assert_int_equal(find(fixture, "n500.example", found, &matched), 1);
    assert_string_equal(base_name(found[0]), "a.pem");
}

/* ---- One chain in another's place. */

static struct certificate *read_again(struct fixture *fixture, const char *file)
{
    struct certificate *certificate;
    char path[TEST_PATH_SIZE];
    path_of(fixture, file, path);
    if (certificates_read_file(fixture->certificates, path, NULL, &certificate, &fixture->why) != RESULT_OK)
        fail_msg("%s", fixture->why.text);
    return certificate;
}

static void check_served(const struct fixture *fixture, const char *name, const struct certificate *expected)
{
    const struct certificate *found[CERTIFICATES_PER_NAME];
    bool matched;
    size_t count = find(fixture, name, found, &matched);
    CHECK(name, matched == (expected != NULL));
    CHECK(name, expected == NULL || (count == 1 && found[0] == expected));
}

static void test_put(void **state)
{
    struct fixture *fixture = *state;
    put_site(fixture, "a.pem", "DNS:a.example,DNS:old.example", NULL);
    put_site(fixture, "b.pem", "DNS:b.example", NULL);
    check_read(fixture);
    const struct certificate *held = certificate_hold(certificates_at(fixture->certificates, 0));
    put_site(fixture, "a.pem", "DNS:a.example,DNS:new.example", NULL);
    struct certificate *renewed = read_again(fixture, "a.pem");
    assert_true(certificates_put(fixture->certificates, 0, renewed));
    check_served(fixture, "a.example", renewed);
    check_served(fixture, "new.example", renewed);
    check_served(fixture, "old.example", NULL);
    check_served(fixture, "b.example", certificates_at(fixture->certificates, 1));
    assert_string_equal(held->names, "a.example"); /* for who was served before */
    certificate_drop(held);
    struct certificate *again = read_again(fixture, "a.pem");
    assert_true(certificates_put(fixture->certificates, 0, again)); /* one that is in no arena goes */
    check_served(fixture, "a.example", again);
    put_site(fixture, "c.pem", "DNS:c.example", NULL);
    struct certificate *third = read_again(fixture, "c.pem");
    assert_true(certificates_put(fixture->certificates, 2, third));
    check_served(fixture, "c.example", third);
    assert_int_equal(certificates_count(fixture->certificates), 3);
    assert_int_equal(third->index, 2);
}

/* Renewed for other names, it gives the one that stood back its place. */
static void test_put_lets_others_come_forward(void **state)
{
    struct fixture *fixture = *state;
    const struct test_subject longer = {.name = "long", .san = "DNS:a.example", .lifetime = 777600};
    (void)put(fixture, "a.pem", &longer);
    put_site(fixture, "b.pem", "DNS:a.example", NULL);
    check_read(fixture);
    check_served(fixture, "a.example", certificates_at(fixture->certificates, 0));
    put_site(fixture, "a.pem", "DNS:z.example", NULL);
    assert_true(certificates_put(fixture->certificates, 0, read_again(fixture, "a.pem")));
    check_served(fixture, "a.example", certificates_at(fixture->certificates, 1));
    check_served(fixture, "z.example", certificates_at(fixture->certificates, 0));
    (void)put(fixture, "a.pem", &longer);
    assert_true(certificates_put(fixture->certificates, 0, read_again(fixture, "a.pem")));
    check_served(fixture, "a.example", certificates_at(fixture->certificates, 0));
}

/* There is always something for strangers, whatever becomes of the name in tls.default. */
static void test_put_keeps_a_default(void **state)
{
    struct fixture *fixture = *state;
    const struct certificate *found[CERTIFICATES_PER_NAME];
    bool matched;
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    put_site(fixture, "b.pem", "DNS:b.example", NULL);
    fixture->config.tls.default_name = (char[]){"b.example"};
    check_read(fixture);
    put_site(fixture, "b.pem", "DNS:z.example", NULL);
    assert_true(certificates_put(fixture->certificates, 1, read_again(fixture, "b.pem")));
    assert_int_equal(find(fixture, "unknown.example", found, &matched), 1);
    assert_string_equal(base_name(found[0]), "a.pem");
    put_site(fixture, "b.pem", "DNS:b.example", NULL);
    assert_true(certificates_put(fixture->certificates, 1, read_again(fixture, "b.pem")));
    assert_int_equal(find(fixture, "unknown.example", found, &matched), 1);
    assert_string_equal(base_name(found[0]), "b.pem");
    fixture->config.tls.default_name = NULL;
}

/* What is the same is copied, what has changed is read, and what is gone is gone. */
static void test_read_again(void **state)
{
    struct fixture *fixture = *state;
    struct certificates *before;
    char path[TEST_PATH_SIZE];
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    put_site(fixture, "b.pem", "DNS:b.example", NULL);
    put_site(fixture, "c.pem", "DNS:c.example", NULL);
    check_read(fixture);
    before = fixture->certificates;
    put_site(fixture, "b.pem", "DNS:b2.example", NULL);
    path_of(fixture, "c.pem", path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(certificates_read(&fixture->config, before, NULL, &fixture->certificates, &fixture->why),
                     RESULT_OK);
    certificates_free(before);
    assert_int_equal(certificates_count(fixture->certificates), 2);
    check_served(fixture, "a.example", certificates_at(fixture->certificates, 0));
    check_served(fixture, "b.example", certificates_at(fixture->certificates, 1));
    check_served(fixture, "b2.example", NULL);
    check_served(fixture, "c.example", NULL);
    /* The key server is asked first. */
    const struct certificate *held = certificates_held_back(fixture->certificates, 0);
    assert_non_null(held);
    assert_null(certificates_held_back(fixture->certificates, 1));
    assert_string_equal(held->names, "b2.example");
    const uint32_t number = (uint32_t)held->index;
    assert_null(certificates_promote(fixture->certificates, number + 1, CERTIFICATE_GOOD));
    assert_ptr_equal(certificates_promote(fixture->certificates, number, CERTIFICATE_GOOD), held);
    assert_int_equal(certificates_verdict(fixture->certificates, held), CERTIFICATE_GOOD);
    check_served(fixture, "b2.example", held);
    check_served(fixture, "b.example", NULL);
    assert_null(certificates_held_back(fixture->certificates, 0));
}

static void check_verdicts(const struct fixture *fixture, enum certificate_verdict first,
                           enum certificate_verdict second)
{
    const struct certificates *certificates = fixture->certificates;
    assert_int_equal(certificates_verdict(certificates, certificates_at(certificates, 0)), first);
    assert_int_equal(certificates_verdict(certificates, certificates_at(certificates, 1)), second);
}

/* What was found of a chain is remembered, until another key server is asked. */
static void test_verdicts_over_a_reload(void **state)
{
    struct fixture *fixture = *state;
    struct proxy_key_server server = {.mode = KEY_MODE_TBS}, other = {.mode = KEY_MODE_TRANSCRIPT};
    struct proxy_config changed;
    struct certificates *before;
    put_site(fixture, "b.pem", "DNS:b.example", NULL);
    put_site(fixture, "c.pem", "DNS:c.example", NULL);
    fixture->config.key_servers = &server;
    fixture->config.key_server_count = 1;
    check_read(fixture);
    before = fixture->certificates;
    (void)certificates_judge(before, certificate_place(certificates_at(before, 0)), false);
    (void)certificates_judge(before, certificate_place(certificates_at(before, 1)), true);
    assert_int_equal(certificates_read(&fixture->config, before, NULL, &fixture->certificates, &fixture->why),
                     RESULT_OK);
    check_verdicts(fixture, CERTIFICATE_KEPT_OUT, CERTIFICATE_GOOD);
    certificates_free(fixture->certificates);
    changed = fixture->config;
    changed.key_servers = &other;
    assert_int_equal(certificates_read(&changed, before, NULL, &fixture->certificates, &fixture->why),
                     RESULT_OK);
    check_verdicts(fixture, CERTIFICATE_UNTRIED, CERTIFICATE_UNTRIED);
    certificates_free(before);
    fixture->config.key_servers = NULL;
    fixture->config.key_server_count = 0;
}

/* What has expired is no reason to wait. */
static void test_read_again_after_expiry(void **state)
{
    struct fixture *fixture = *state;
    struct certificates *before;
    const struct test_subject expired = {.name = "old", .san = "DNS:a.example", .lifetime = -3600};
    (void)put(fixture, "a.pem", &expired);
    put_site(fixture, "b.pem", "DNS:b.example", NULL);
    check_read(fixture);
    before = fixture->certificates;
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    assert_int_equal(certificates_read(&fixture->config, before, NULL, &fixture->certificates, &fixture->why),
                     RESULT_OK);
    certificates_free(before);
    assert_null(certificates_held_back(fixture->certificates, 0));
    assert_true(certificate_is_valid(certificates_at(fixture->certificates, 0), time(NULL)));
}

/* ---- What ends soon. */

enum { DAY = 86400 };
#define DAYS(count) ((uint64_t)(count)*DAY * 1000000)

static size_t lines_with(const char *text, const char *part)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at++)
        count++;
    return count;
}

/* What the log is told, with a zero behind it. */
static const char *warned(const struct fixture *fixture, uint64_t within, time_t now)
{
    static char text[65536];
    const struct log_settings settings = {.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_LOGFMT};
    int fd = memfd_create("log", MFD_CLOEXEC);
    struct log *log = log_new("proxy", fd, &settings);
    certificate_expiry_warn(fixture->certificates, within, now, log);
    log_free(log);
    ssize_t size = pread(fd, text, sizeof text - 1, 0);
    assert_true(size >= 0);
    text[size] = '\0';
    (void)close(fd);
    return text;
}

static void test_expiry(void **state)
{
    struct fixture *fixture = *state;
    const time_t now = time(NULL);
    const struct test_subject rows[] = {{.name = "1", .san = "DNS:a.example", .lifetime = 3 * DAY + 60},
                                        {.name = "2", .san = "DNS:b.example", .lifetime = 13 * DAY},
                                        {.name = "3", .san = "DNS:c.example", .lifetime = 20 * DAY},
                                        /* Another is shown in its place. */
                                        {.name = "4", .san = "DNS:c.example", .lifetime = 2 * DAY}};
    static const char *const FILES[] = {"a.pem", "b.pem", "c.pem", "d.pem"};
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        (void)put(fixture, FILES[i], &rows[i]);
    check_read(fixture);
    const char *text = warned(fixture, DAYS(14), now);
    assert_int_equal(lines_with(text, "certificate expires soon"), 2);
    assert_true(strstr(text, "a.pem") < strstr(text, "b.pem")); /* what ends first */
    assert_non_null(strstr(text, "a.pem name=a.example days=3"));
    assert_null(strstr(text, "c.pem"));
    assert_null(strstr(text, "d.pem"));
    assert_string_equal(warned(fixture, 0, now), "");
    assert_string_equal(warned(fixture, DAYS(2), now), "");
    text = warned(fixture, DAYS(14), now + 5 * DAY);
    assert_int_equal(lines_with(text, "certificate shown has expired"), 1);
    assert_int_equal(lines_with(text, "certificate expires soon"), 1);
}

static void test_expiry_of_many(void **state)
{
    struct fixture *fixture = *state;
    char file[16], san[32];
    for (int i = 0; i < 25; i++) {
        (void)snprintf(file, sizeof file, "%d.pem", i);
        (void)snprintf(san, sizeof san, "DNS:n%d.example", i);
        put_site(fixture, file, san, NULL);
    }
    check_read(fixture);
    const char *text = warned(fixture, DAYS(365), time(NULL));
    assert_int_equal(lines_with(text, "event=\"certificate expires soon\""), 20);
    assert_non_null(strstr(text, "event=\"more certificates expire soon\" count=5"));
}

/* ---- What is refused. */

static void test_nothing(void **state)
{
    struct fixture *fixture = *state;
    check_refused(fixture, "certificates", "no chain found");
    fixture->source.dir = (char[]){"/nonexistent/keyless"};
    check_refused(fixture, "/nonexistent/keyless", "No such file");
}

static void test_no_name(void **state)
{
    struct fixture *fixture = *state;
    put_site(fixture, "a.pem", NULL, NULL);
    check_refused(fixture, "a.pem", "has no name");
}

static void test_ip_alone(void **state)
{
    struct fixture *fixture = *state;
    put_site(fixture, "a.pem", "IP:192.0.2.1", NULL);
    check_refused(fixture, "a.pem", "has no name");
}

static void test_expired(void **state)
{
    struct fixture *fixture = *state;
    const struct test_subject expired = {.name = "old", .san = "DNS:a.example", .lifetime = -3600};
    (void)put(fixture, "a.pem", &expired);
    check_refused(fixture, "certificates", "expired");
    put_site(fixture, "b.pem", "DNS:b.example", NULL); /* beside a good one it is only warned of */
    check_read(fixture);
    assert_int_equal(certificates_count(fixture->certificates), 2);
    const struct certificate *found[CERTIFICATES_PER_NAME];
    bool matched;
    assert_int_equal(find(fixture, "a.example", found, &matched), 1);
    assert_string_equal(base_name(found[0]), "a.pem");
    assert_int_equal(find(fixture, "unknown.example", found, &matched), 1);
    assert_string_equal(base_name(found[0]), "b.pem"); /* but it is not what strangers get */
}

static void test_not_a_certificate(void **state)
{
    struct fixture *fixture = *state;
    char path[TEST_PATH_SIZE];
    path_of(fixture, "a.pem", path);
    test_write_file(path, "hello\n");
    check_refused(fixture, "a.pem", "holds no certificate");
    test_write_file(path, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    check_refused(fixture, "a.pem", "number 1 does not parse");
    test_write_file(path, "");
    check_refused(fixture, "a.pem", "1 .. 1048576 bytes");
}

/* A leaf of a kind that the key protocol has no scheme for. */
static void test_unknown_key(void **state)
{
    struct fixture *fixture = *state;
    put_site(fixture, "a.pem", "DNS:a.example", "P-224");
    check_refused(fixture, "a.pem", "curve");
}

/* A signature that libssl would refuse when the first client comes. */
static void test_too_weak(void **state)
{
    struct fixture *fixture = *state;
    const struct test_subject weak = {.name = "weak", .san = "DNS:a.example", .digest = "SHA1"};
    (void)put(fixture, "a.pem", &weak);
    check_refused(fixture, "a.pem", "signed with a digest that clients refuse");
}

/* ---- Chains. */

static void append_file(const char *path, const char *more)
{
    char data[8192];
    FILE *from = fopen(more, "re"), *to = fopen(path, "ae");
    assert_non_null(from);
    assert_non_null(to);
    size_t size = fread(data, 1, sizeof data, from);
    assert_int_equal(fwrite(data, 1, size, to), size);
    assert_int_equal(fclose(from) | fclose(to), 0);
}

static void test_chain_order(void **state)
{
    struct fixture *fixture = *state;
    struct test_ca other;
    char path[TEST_PATH_SIZE];
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    path_of(fixture, "a.pem", path);
    append_file(path, fixture->ca.path);
    check_read(fixture);
    assert_int_equal(certificates_at(fixture->certificates, 0)->issuer_count, 1);
    certificates_free(fixture->certificates);
    fixture->certificates = NULL;
    test_ca_make(&other, "Other CA");
    append_file(path, other.path);
    test_ca_remove(&other);
    check_refused(fixture, "a.pem", "certificate 3 is not the issuer");
}

/* Beside ten thousand leafs there are few issuers. */
static void test_issuers_are_shared(void **state)
{
    struct fixture *fixture = *state;
    char path[TEST_PATH_SIZE];
    static const char *const FILES[] = {"a.pem", "b.pem"};
    for (size_t i = 0; i < COUNT_OF(FILES); i++) {
        put_site(fixture, FILES[i], i == 0 ? "DNS:a.example" : "DNS:b.example", NULL);
        path_of(fixture, FILES[i], path);
        append_file(path, fixture->ca.path);
    }
    check_read(fixture);
    const struct certificate *a = certificates_at(fixture->certificates, 0);
    const struct certificate *b = certificates_at(fixture->certificates, 1);
    assert_int_equal(a->issuer_count, 1);
    assert_int_equal(b->issuer_count, 1);
    assert_ptr_equal(a->issuers[0], b->issuers[0]);
}

static void test_chain_size(void **state)
{
    struct fixture *fixture = *state;
    char path[TEST_PATH_SIZE];
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    path_of(fixture, "a.pem", path);
    for (int i = 0; i < 80; i++)
        append_file(path, fixture->ca.path); /* a self-signed one is its own issuer */
    check_refused(fixture, "a.pem", "Certificate message");
}

static void test_der(void **state)
{
    struct fixture *fixture = *state;
    char path[TEST_PATH_SIZE];
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    path_of(fixture, "a.pem", path);
    FILE *file = fopen(path, "re");
    X509 *leaf = PEM_read_X509(file, NULL, NULL, NULL);
    assert_int_equal(fclose(file), 0);
    file = fopen(path, "we");
    assert_int_equal(i2d_X509_fp(file, leaf), 1);
    assert_int_equal(fclose(file), 0);
    X509_free(leaf);
    check_read(fixture);
    assert_int_equal(certificates_count(fixture->certificates), 1);
    certificates_free(fixture->certificates);
    fixture->certificates = NULL;
    file = fopen(path, "ae");
    EVP_PKEY *key = EVP_EC_gen("P-256");
    assert_int_equal(i2d_PKCS8PrivateKeyInfo_fp(file, key), 1);
    assert_int_equal(fclose(file), 0);
    EVP_PKEY_free(key);
    check_refused(fixture, "a.pem", "must be alone");
}

/* ---- Private keys. */

typedef int (*key_writer)(FILE *file, EVP_PKEY *key);

static int write_pem(FILE *file, EVP_PKEY *key)
{
    return PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL);
}

static int write_pem_encrypted(FILE *file, EVP_PKEY *key)
{
    return PEM_write_PKCS8PrivateKey(file, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
}

static int write_pem_traditional(FILE *file, EVP_PKEY *key)
{
    BIO *to = BIO_new_fp(file, BIO_NOCLOSE);
    /* Ed25519 has no form of its own. */
    int result = EVP_PKEY_is_a(key, "ED25519")
                     ? write_pem(file, key)
                     : PEM_write_bio_PrivateKey_traditional(to, key, NULL, NULL, 0, NULL, NULL);
    BIO_free(to);
    return result;
}

static int write_der(FILE *file, EVP_PKEY *key)
{
    return i2d_PKCS8PrivateKeyInfo_fp(file, key);
}

static int write_der_encrypted(FILE *file, EVP_PKEY *key)
{
    return i2d_PKCS8PrivateKey_fp(file, key, EVP_aes_128_cbc(), "secret", 6, NULL, NULL);
}

static int write_der_traditional(FILE *file, EVP_PKEY *key)
{
    unsigned char *der = NULL;
    int size = i2d_PrivateKey(key, &der);
    size_t written = size > 0 ? fwrite(der, 1, (size_t)size, file) : 0;
    OPENSSL_free(der);
    return written > 0;
}

static int write_pkcs12(FILE *file, EVP_PKEY *key)
{
    PKCS12 *container = PKCS12_create("secret", "site", key, NULL, NULL, 0, 0, 0, 0, 0);
    int result = container != NULL && i2d_PKCS12_fp(file, container);
    PKCS12_free(container);
    return result;
}

static const struct {
    const char *file;
    key_writer write;
} KEY_FORMS[] = {
    {"z.pem", write_pem},
    {"z.crt", write_pem_encrypted},
    {"z.pem", write_pem_traditional},
    {"z.key", write_pem},
    {"z.key", write_der},
    {"z.der", write_der_encrypted},
    {"z.crt", write_der},
    {"z.pem", write_der_traditional},
    {"z.p12", write_pkcs12},
    {"z", write_der_traditional},
};

static EVP_PKEY *make_key(const char *type)
{
    EVP_PKEY *key = strcmp(type, "RSA") == 0  ? EVP_RSA_gen(2048)
                    : strcmp(type, "EC") == 0 ? EVP_EC_gen("P-256")
                                              : EVP_PKEY_Q_keygen(NULL, NULL, type);
    assert_non_null(key);
    return key;
}

static void test_private_keys(void **state)
{
    static const char *const types[] = {"RSA", "EC", "ED25519"};
    struct fixture *fixture = *state;
    char path[TEST_PATH_SIZE];
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        EVP_PKEY *key = make_key(types[t]);
        for (size_t i = 0; i < COUNT_OF(KEY_FORMS); i++) {
            path_of(fixture, KEY_FORMS[i].file, path);
            FILE *file = fopen(path, "we");
            assert_int_equal(KEY_FORMS[i].write(file, key), 1);
            assert_int_equal(fclose(file), 0);
            check_refused(fixture, KEY_FORMS[i].file, "holds a private key");
            assert_int_equal(unlink(path), 0);
        }
        EVP_PKEY_free(key);
    }
    check_read(fixture); /* without them it is fine */
}

/* The usual mistake: one file with chain and key. */
static void test_key_behind_chain(void **state)
{
    struct fixture *fixture = *state;
    const struct test_subject site = {.name = "site", .san = "DNS:a.example"};
    char path[TEST_PATH_SIZE];
    struct test_identity identity = put(fixture, "a.pem", &site);
    path_of(fixture, "a.pem", path);
    append_file(path, identity.key);
    check_refused(fixture, "a.pem", "holds a private key");
}

static void test_channel_key_may_stay(void **state)
{
    struct fixture *fixture = *state;
    const struct test_subject edge = {.name = "edge", .san = "DNS:edge.example"};
    char path[TEST_PATH_SIZE];
    struct test_identity identity = put(fixture, "a.pem", &edge);
    path_of(fixture, "edge-key.pem", path);
    assert_int_equal(rename(identity.key, path), 0);
    check_refused(fixture, "edge-key.pem", "holds a private key");
    fixture->config.key_channel.key = path;
    check_read(fixture);
}

/* Neither directories nor what is hidden is a chain. */
static void test_other_entries(void **state)
{
    struct fixture *fixture = *state;
    char path[TEST_PATH_SIZE];
    put_site(fixture, "a.pem", "DNS:a.example", NULL);
    path_of(fixture, ".hidden.pem", path);
    test_write_file(path, "hello\n");
    path_of(fixture, "README", path);
    test_write_file(path, "hello\n");
    path_of(fixture, "old", path);
    assert_int_equal(mkdir(path, 0700), 0);
    check_read(fixture);
    assert_int_equal(certificates_count(fixture->certificates), 1);
}

int main(void)
{
#define TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_lookup),
        TEST(test_long_names),
        TEST(test_types_and_duplicates),
        TEST(test_not_valid_yet),
        TEST(test_default_name),
        TEST(test_sites),
        TEST(test_sites_alone),
        TEST(test_chain_of_no_name_of_the_site),
        TEST(test_many_names),
        TEST(test_put),
        TEST(test_put_lets_others_come_forward),
        TEST(test_put_keeps_a_default),
        TEST(test_read_again),
        TEST(test_verdicts_over_a_reload),
        TEST(test_read_again_after_expiry),
        TEST(test_expiry),
        TEST(test_expiry_of_many),
        TEST(test_nothing),
        TEST(test_no_name),
        TEST(test_ip_alone),
        TEST(test_expired),
        TEST(test_not_a_certificate),
        TEST(test_unknown_key),
        TEST(test_too_weak),
        TEST(test_chain_order),
        TEST(test_issuers_are_shared),
        TEST(test_chain_size),
        TEST(test_der),
        TEST(test_private_keys),
        TEST(test_key_behind_chain),
        TEST(test_channel_key_may_stay),
        TEST(test_other_entries),
    };
    return cmocka_run_group_tests(tests, make_all, remove_all);
}
