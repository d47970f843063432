/*
 * Client certificates: the CAs, revocation lists and names of each client_auth of the configuration, read by
 * the master with its privileges and inherited by workers; and what is decided by them. The chain is verified
 * by libssl, against these CAs alone (handshake_clients.c); a session that is resumed brings only the
 * client's own certificate, which is looked at again here.
 */
#ifndef KEYLESS_PROXY_CLIENT_AUTH_H
#define KEYLESS_PROXY_CLIENT_AUTH_H

#include <stdbool.h>
#include <time.h>

#include <openssl/x509.h>

#include "common/log.h"
#include "common/result.h"
#include "proxy/config.h"

#define CLIENT_AUTH_MARK_SIZE 32 /* SHA-256 */

struct client_auth {
    const struct proxy_client_auth *config;
    X509_STORE *store;                   /* the CAs and their lists */
    STACK_OF(X509_NAME) * ca_names;      /* for CertificateRequest */
    struct client_match *matches;        /* one for each of config->names */
    time_t next_update;                  /* when the first list is out of date, in Unix seconds; 0: never */
    uint8_t mark[CLIENT_AUTH_MARK_SIZE]; /* of what a chain is verified with: mode, depth and the CAs */
};

/* All that a configuration has, each once however many sites have it. */
struct client_auths;

/* RESULT_CONFIG names setting and file: no CA in it, a list that none of the CAs has signed and the like. A
 * list that is out of date is a warning, and so is a site's backend that is reached past its client_auth. */
MUST_CHECK enum result client_auths_read(const struct proxy_config *config, struct log *log,
                                         struct client_auths **auths, struct failure *why);
void client_auths_free(struct client_auths *auths);

/* When the first of all lists is out of date, in Unix seconds; 0: never, or there is none. */
time_t client_auths_next_update(const struct client_auths *auths);

/* The one with these settings, which are the configuration's that was read; NULL: clients are not asked. */
const struct client_auth *client_auths_find(const struct client_auths *auths,
                                            const struct proxy_client_auth *settings);

/* Whether a certificate of a good chain is one of the names. */
bool client_auth_allows(const struct client_auth *auth, X509 *leaf);

/* Whether a certificate whose chain was good once, for a client_auth with the same mark, is good now: its
 * time, revocation of it or of a CA above it, names. false also where that cannot be decided. It computes no
 * signature, and fits on a fibre. */
bool client_auth_still_good(const struct client_auth *auth, X509 *leaf);

#endif
