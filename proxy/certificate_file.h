/*
 * One chain file: read, checked, and refused with a line that says why. PEM (leaf first, its issuers behind
 * it in order) or one certificate in DER.
 */
#ifndef KEYLESS_PROXY_CERTIFICATE_FILE_H
#define KEYLESS_PROXY_CERTIFICATE_FILE_H

#include <stdbool.h>

#include "common/bytes.h"
#include "common/result.h"
#include "proxy/chain_parser.h"

/* The certificates of a file, leaf first. Free with certificate_chain_clear. */
struct certificate_chain {
    struct bytes der[CHAIN_CERTIFICATES_MAX + 1]; /* one more tells that there are too many */
    size_t count;
};

/* RESULT_CONFIG, and why names the file: a private key in it, no certificate, what is no PEM. What is in the
 * certificates is not looked at. */
MUST_CHECK enum result certificate_file_read(const char *path, struct certificate_chain *chain,
                                             struct failure *why);
void certificate_chain_clear(struct certificate_chain *chain);

/* For a file beside the chains: RESULT_CONFIG if it holds a private key. What cannot be read or is no file is
 * none of ours. */
MUST_CHECK enum result certificate_file_refuse_key(const char *path, struct failure *why);

/* Whether these bytes of a file hold a private key in any form: PEM of any kind, PKCS#8 (also encrypted),
 * PKCS#1, SEC1 or PKCS#12. */
bool certificate_file_holds_key(struct bytes content);

#endif
