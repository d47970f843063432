/*
 * The chains the proxy serves, found by SNI: exact name, then one wildcard label, then the default; for one
 * name several chains of different key types. Read by the master (files may be readable by root alone),
 * inherited by workers through fork. The private keys are made per worker, as remote keys.
 */
#ifndef KEYLESS_PROXY_CERTIFICATES_H
#define KEYLESS_PROXY_CERTIFICATES_H

#include <stdbool.h>
#include <stddef.h>

#include <openssl/x509.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/log.h"
#include "common/result.h"
#include "proxy/config.h"

#define CERTIFICATE_MARK_SIZE 16

/* One chain. Several names lead to it. */
struct certificate {
    char *path;
    X509 *leaf;
    STACK_OF(X509) * chain; /* above the leaf, in order; may be empty */
    struct key_id key;
    uint8_t mark[CERTIFICATE_MARK_SIZE]; /* of the leaf: the first octets of its SHA-256 */
    const struct proxy_site *site;       /* the one whose names alone it serves; NULL: any */
    size_t index; /* 0 .. certificates_count - 1: a worker's array of remote keys goes by it */
};

#define CERTIFICATES_PER_NAME 8

struct certificates;

/*
 * Reads every chain that the configuration names. RESULT_CONFIG names the file: one that holds a private key
 * of any form (the proxy must never have one), does not parse, has no name, is out of its validity (a warning
 * for expired, refused when nothing else is left), an issuer out of order, a Certificate message over 24 kB,
 * a key we do not serve, a key or a signature that is too weak.
 */
MUST_CHECK enum result certificates_read(const struct proxy_config *config, struct log *log,
                                         struct certificates **certificates, struct failure *why);
void certificates_free(struct certificates *certificates);

size_t certificates_count(const struct certificates *certificates);
const struct certificate *certificates_at(const struct certificates *certificates, size_t index);

/*
 * The chains for a name (any case, NULL data: no SNI) of a site (NULL: of none), best match only: the site's
 * own before others. *found borrowed, returns how many; where no name matched, which `matched` tells, the
 * default's, or 0 where every chain is some site's own.
 */
size_t certificates_find(const struct certificates *certificates, const struct proxy_site *site,
                         struct bytes sni, const struct certificate *found[static CERTIFICATES_PER_NAME],
                         bool *matched);

#endif
