/*
 * The sites' leaf certificates, parsed once and kept: what a transcript must name. Public; read by the master
 * with the configuration, and found by the SKI of their keys. A key has several leaves while one is renewed.
 */
#ifndef KEYLESS_KEYSERVER_SITE_CERTIFICATES_H
#define KEYLESS_KEYSERVER_SITE_CERTIFICATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/result.h"
#include "keyserver/config.h"

struct site_leaf {
    uint8_t ski[KEY_ID_SKI_SIZE]; /* of its key */
    struct bytes der;
    int64_t not_before, not_after; /* Unix seconds, both within the validity */
    char **names;                  /* dNSNames, normalised: "www.example.com", "*.example.com" */
    size_t name_count;
};

struct site_certificates;

/*
 * Reads every *.pem and *.crt (hidden files aside) of the configuration's directories: all or none. The first
 * certificate of a file is the leaf, what follows is its chain and not looked at. RESULT_CONFIG names the
 * file or the line: no certificate, one that does not parse, a key that is not served, a directory that
 * cannot be read. A configuration without `certificates` makes an empty set.
 */
MUST_CHECK enum result site_certificates_load(const struct keyserver_config *config,
                                              struct site_certificates **certificates, struct failure *why);
void site_certificates_free(struct site_certificates *certificates);
size_t site_certificates_count(const struct site_certificates *certificates);

/* Adds one; it takes nothing over. */
struct x509_st;
MUST_CHECK enum result site_certificates_add(struct site_certificates *certificates, struct x509_st *leaf,
                                             struct failure *why);
/* None yet. NULL: no memory. */
struct site_certificates *site_certificates_new(void);

/* The leaves of a key: *count of them, one behind the other. NULL: none. */
const struct site_leaf *site_certificates_of(const struct site_certificates *certificates,
                                             const uint8_t ski[static KEY_ID_SKI_SIZE], size_t *count);
/* The leaf of this key that is these octets. NULL: none. */
const struct site_leaf *site_certificates_find(const struct site_certificates *certificates,
                                               const uint8_t ski[static KEY_ID_SKI_SIZE], struct bytes der);

/* Whether a normalised name is one that the leaf is for: a wildcard stands for one left-most label. */
bool site_leaf_covers(const struct site_leaf *leaf, const char *name);
/* Whether `pattern` is the name, or "*." before the rest of the name behind its first label. */
bool site_name_matches(const char *pattern, const char *name);

#endif
