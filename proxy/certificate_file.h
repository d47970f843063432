/*
 * One chain file: read, checked, and refused with a line that says why. PEM (leaf first, its issuers behind
 * it in order) or one certificate in DER.
 */
#ifndef KEYLESS_PROXY_CERTIFICATE_FILE_H
#define KEYLESS_PROXY_CERTIFICATE_FILE_H

#include <stdbool.h>

#include "common/bytes.h"
#include "common/result.h"
#include "proxy/certificates.h"

/* Larger messages would not fit the key protocol's transcript, nor any client's patience. */
#define CERTIFICATE_MESSAGE_MAX 24576

/* Fills all of *certificate but index; free with certificate_clear. RESULT_CONFIG, and why names the file: a
 * private key in it, no certificate, what does not parse, issuers out of order, too large a chain, a key that
 * we do not serve. Whether it is in its validity is not looked at. */
MUST_CHECK enum result certificate_file_read(const char *path, struct certificate *certificate,
                                             struct failure *why);
void certificate_clear(struct certificate *certificate);

/* For a file beside the chains: RESULT_CONFIG if it holds a private key. What cannot be read or is no file is
 * none of ours. */
MUST_CHECK enum result certificate_file_refuse_key(const char *path, struct failure *why);

/* Whether these bytes of a file hold a private key in any form: PEM of any kind, PKCS#8 (also encrypted),
 * PKCS#1, SEC1 or PKCS#12. */
bool certificate_file_holds_key(struct bytes content);

#endif
