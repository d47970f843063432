#include "tests/unit/support/test_certificates.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sys/stat.h>

#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

enum { DAY = 24 * 3600 };

static EVP_PKEY *make_key(const char *type)
{
    EVP_PKEY *key = NULL;
    if (type == NULL || strcmp(type, "EC") == 0)
        key = EVP_EC_gen("P-256");
    else if (strcmp(type, "RSA") == 0)
        key = EVP_RSA_gen(2048);
    else if (strncmp(type, "P-", 2) == 0)
        key = EVP_EC_gen(type);
    else
        key = EVP_PKEY_Q_keygen(NULL, NULL, type);
    assert_non_null(key);
    return key;
}

static void add_extension(X509 *certificate, X509 *issuer, int nid, const char *value)
{
    if (value == NULL)
        return;
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, issuer, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, nid, value);
    assert_non_null(extension);
    assert_int_equal(X509_add_ext(certificate, extension, -1), 1);
    X509_EXTENSION_free(extension);
}

static X509 *make_certificate(EVP_PKEY *key, const struct test_subject *subject, X509 *issuer, long serial)
{
    X509 *certificate = X509_new();
    assert_non_null(certificate);
    assert_int_equal(X509_set_version(certificate, X509_VERSION_3), 1);
    assert_int_equal(ASN1_INTEGER_set(X509_get_serialNumber(certificate), serial), 1);
    X509_NAME *name = X509_get_subject_name(certificate);
    assert_int_equal(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                                (const unsigned char *)subject->name, -1, -1, 0),
                     1);
    assert_int_equal(X509_set_issuer_name(certificate, issuer != NULL ? X509_get_subject_name(issuer) : name),
                     1);
    assert_int_equal(X509_set_pubkey(certificate, key), 1);
    assert_non_null(
        X509_gmtime_adj(X509_getm_notBefore(certificate), subject->delay != 0 ? subject->delay : -(long)DAY));
    if (subject->not_after != NULL)
        assert_int_equal(ASN1_TIME_set_string_X509(X509_getm_notAfter(certificate), subject->not_after), 1);
    else
        assert_non_null(X509_gmtime_adj(X509_getm_notAfter(certificate),
                                        subject->lifetime != 0 ? subject->lifetime : DAY));
    return certificate;
}

static void sign(X509 *certificate, EVP_PKEY *key, const char *digest)
{
    assert_true(X509_sign(certificate, key, EVP_get_digestbyname(digest != NULL ? digest : "SHA256")) > 0);
}

static FILE *create(const char *path)
{
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    return file;
}

static void write_certificate(const char *path, X509 *certificate)
{
    FILE *file = create(path);
    assert_int_equal(PEM_write_X509(file, certificate), 1);
    assert_int_equal(fclose(file), 0);
}

static void write_key(const char *path, EVP_PKEY *key)
{
    FILE *file = create(path);
    assert_int_equal(fchmod(fileno(file), 0600), 0);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
}

void test_ca_make(struct test_ca *ca, const char *name)
{
    const struct test_subject subject = {.name = name};
    *ca = (struct test_ca){.directory = "/tmp/keyless-test-XXXXXX"};
    assert_non_null(mkdtemp(ca->directory));
    (void)snprintf(ca->path, sizeof ca->path, "%s/ca.pem", ca->directory);
    ca->key = make_key(NULL);
    ca->certificate = make_certificate(ca->key, &subject, NULL, 1);
    add_extension(ca->certificate, ca->certificate, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(ca->certificate, ca->certificate, NID_key_usage, "critical,keyCertSign,cRLSign");
    sign(ca->certificate, ca->key, NULL);
    write_certificate(ca->path, ca->certificate);
}

void test_ca_issue(struct test_ca *ca, const struct test_subject *subject, struct test_identity *identity)
{
    long serial = 2 + ca->issued++;
    EVP_PKEY *key = make_key(subject->key_type);
    X509 *certificate = make_certificate(key, subject, ca->certificate, serial);
    add_extension(certificate, ca->certificate, NID_subject_alt_name, subject->san);
    add_extension(certificate, ca->certificate, NID_ext_key_usage, subject->usage);
    sign(certificate, ca->key, subject->digest);
    (void)snprintf(identity->certificate, sizeof identity->certificate, "%s/%s-%ld.pem", ca->directory,
                   subject->name, serial);
    (void)snprintf(identity->key, sizeof identity->key, "%s/%s-%ld.key", ca->directory, subject->name,
                   serial);
    write_certificate(identity->certificate, certificate);
    write_key(identity->key, key);
    X509_free(certificate);
    EVP_PKEY_free(key);
}

void test_ca_remove(struct test_ca *ca)
{
    char path[TEST_PATH_SIZE + 256];
    DIR *directory = opendir(ca->directory);
    assert_non_null(directory);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) {
        (void)snprintf(path, sizeof path, "%s/%s", ca->directory, entry->d_name);
        (void)unlink(path); /* "." and ".." stay */
    }
    (void)closedir(directory);
    (void)rmdir(ca->directory);
    X509_free(ca->certificate);
    EVP_PKEY_free(ca->key);
    *ca = (struct test_ca){0};
}

void test_write_file(const char *path, const char *content)
{
    FILE *file = create(path);
    assert_true(fputs(content, file) >= 0);
    assert_int_equal(fclose(file), 0);
}
