/*
 * The chains the proxy serves, found by SNI: exact name, then one wildcard label, then the default; for one
 * name several chains of different key types. Read by the master (files may be readable by root alone),
 * inherited by workers through fork: plain memory, which all of them share as long as nobody writes to it.
 * What libssl needs of a chain, and its remote key, a worker makes when it first serves it (ready_chain.h).
 */
#ifndef KEYLESS_PROXY_CERTIFICATES_H
#define KEYLESS_PROXY_CERTIFICATES_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include <openssl/x509.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/log.h"
#include "common/result.h"
#include "proxy/config.h"

#define CERTIFICATE_MARK_SIZE 16

/* Larger messages would not fit the key protocol's transcript, nor any client's patience. */
#define CERTIFICATE_MESSAGE_MAX 24576

/* What a test request to the key server has found. */
enum certificate_verdict {
    CERTIFICATE_UNTRIED,
    CERTIFICATE_GOOD,
    CERTIFICATE_KEPT_OUT, /* it does not sign for it: clients get another chain if there is one that they take
                           */
};

/* One chain, in one piece of memory. Several names lead to it. */
struct certificate {
    const char *path;
    struct bytes leaf; /* DER */
    X509 **issuers;    /* above the leaf, in order; may be none */
    size_t issuer_count;
    const char *names; /* those that it is for, in lower case, each with its zero: at least one */
    size_t name_count;
    time_t not_before, not_after;
    size_t message_size; /* of a Certificate message of TLS 1.3 without extensions */
    bool must_staple;    /* clients that know of it refuse it without an OCSP response (RFC 7633) */
    struct key_id key;
    uint8_t mark[CERTIFICATE_MARK_SIZE]; /* of the leaf: the first octets of its SHA-256 */
    const struct proxy_site *site;       /* the one whose names alone it serves; NULL: any */
    size_t index;                        /* 0 .. certificates_count - 1 */
    enum certificate_verdict verdict;    /* as it came into its table: see certificate_verdicts.h */
    unsigned users;                      /* certificate_hold's */
    bool in_arena;                       /* its memory stays until that is cleared */
};

#define CERTIFICATES_PER_NAME 8

struct certificates;
struct chain_parser;

/* Whether they are the same to a client. Both of the same parser. */
bool certificate_same_chain(const struct certificate *a, const struct certificate *b);
bool certificate_is_valid(const struct certificate *certificate, time_t now);
/* Keeps a chain although its table may let go of it; and gives it back. */
const struct certificate *certificate_hold(const struct certificate *certificate);
void certificate_drop(const struct certificate *certificate);

/*
 * Reads every chain that the configuration names. RESULT_CONFIG names the file: one that holds a private key
 * of any form (the proxy must never have one), does not parse, has no name, is out of its validity (a warning
 * for expired, refused when nothing else is left), an issuer out of order, a Certificate message over 24 kB,
 * a key we do not serve, a key or a signature that is too weak. What before, the table
 * of another reading, has of files that are still the same is not read again (NULL: there is none). Where a
 * file holds another chain than before, the old one is served, if it is still valid, and the new one held
 * back (certificates_private.h).
 */
MUST_CHECK enum result certificates_read(const struct proxy_config *config, const struct certificates *before,
                                         struct log *log, struct certificates **certificates,
                                         struct failure *why);
void certificates_free(struct certificates *certificates);

/* Takes certificate over: it is served in place of the one with this index, or as one more. What is under way
 * keeps what it holds. False: no memory for its names. */
MUST_CHECK bool certificates_put(struct certificates *certificates, size_t index,
                                 struct certificate *certificate);
/* For chains that are to be put into the table. */
struct chain_parser *certificates_parser(const struct certificates *certificates);

/* Whether clients are shown it for one of its names: another chain may be better for all of them. */
bool certificates_serve(const struct certificates *certificates, const struct certificate *certificate);
size_t certificates_count(const struct certificates *certificates);
/* Those that are held back, in no order; NULL: there are no more. */
const struct certificate *certificates_held_back(const struct certificates *certificates, size_t number);
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
