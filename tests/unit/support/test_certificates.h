/* A private CA and certificates for tests, made at run time and written to a directory of their own. */
#ifndef KEYLESS_TESTS_TEST_CERTIFICATES_H
#define KEYLESS_TESTS_TEST_CERTIFICATES_H

#include <openssl/evp.h>
#include <openssl/x509.h>

#define TEST_PATH_SIZE 160

struct test_ca {
    char directory[64];
    char path[TEST_PATH_SIZE]; /* the CA's certificate, PEM */
    EVP_PKEY *key;
    X509 *certificate;
    int issued;
};

/* What is asked for; 0 and NULL stand for the usual. */
struct test_subject {
    const char *name;      /* CN; files are called after it */
    const char *san;       /* "DNS:keys.example", "IP:127.0.0.1"; NULL: none */
    const char *usage;     /* extendedKeyUsage: "clientAuth", "serverAuth"; NULL: no such extension */
    const char *not_after; /* "99991231235959Z"; NULL: `lifetime` from now */
    long lifetime;         /* seconds from now, negative for an expired one; 0: a day */
    long delay;            /* seconds from now until it becomes valid; 0: it did a day ago */
    const char *digest;    /* of the signature; NULL: SHA256 */
    const char *key_type;  /* "EC" (P-256), "P-384", "ED25519", "RSA"; NULL: EC */
};

struct test_identity {
    char certificate[TEST_PATH_SIZE]; /* PEM */
    char key[TEST_PATH_SIZE];
};

/* These end the test that calls them when they cannot do their work. */
void test_ca_make(struct test_ca *ca, const char *name);
void test_ca_issue(struct test_ca *ca, const struct test_subject *subject, struct test_identity *identity);
/* Removes the directory with everything in it. */
void test_ca_remove(struct test_ca *ca);

/* Writes a file for a test: broken PEM and the like. */
void test_write_file(const char *path, const char *content);

#endif
