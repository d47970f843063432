/*
 * Certificate revocation lists (RFC 5280 section 5) of the private CA that a channel's peers come from. Once
 * a context has them, a peer whose chain has a certificate that is revoked, or whose issuer has no list that
 * is in force, is refused: a list that is out of date refuses everybody.
 */
#ifndef KEYLESS_COMMON_CHANNEL_CRL_H
#define KEYLESS_COMMON_CHANNEL_CRL_H

#include <time.h>

#include <openssl/ssl.h>

#include "common/result.h"

/*
 * Reads the lists in `path` (PEM, one for each CA of a chain) into the context, which has read the same ca.
 * RESULT_CONFIG names the file: there is none in it, or one that none of the CAs has signed. *next_update:
 * when the first of them is out of date, in Unix seconds; 0: never.
 */
MUST_CHECK enum result channel_crl_load(SSL_CTX *context, const char *path, const char *ca,
                                        time_t *next_update, struct failure *why);

#endif
