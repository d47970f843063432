/*
 * What is asked of an OCSP responder, and what its answer is worth (RFC 6960). Pure: bytes in, a verdict out.
 */
#ifndef KEYLESS_PROXY_OCSP_RESPONSE_H
#define KEYLESS_PROXY_OCSP_RESPONSE_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "common/bytes.h"
#include "common/result.h"
#include "proxy/certificates.h"

/* Octets of a request: names and keys stand in it as digests, and a serial number has 20 at most. */
#define OCSP_REQUEST_MAX 512

/* The request for a chain's leaf, without a nonce (RFC 5019 section 2.1.1), in DER. RESULT_CONFIG: the chain
 * file has no issuer, without which nothing can be asked and no answer verified. */
struct ocsp_request {
    uint8_t der[OCSP_REQUEST_MAX];
    size_t size;
};
MUST_CHECK enum result ocsp_request_make(const struct certificate *certificate, struct ocsp_request *request,
                                         struct failure *why);

/* The responder that the leaf names in its authorityInfoAccess, the first that is http; NULL: it names none.
 * Free with free(). */
char *ocsp_responder_of(const struct certificate *certificate);

struct ocsp_status {
    bool revoked;
    time_t this_update, next_update;
};

/*
 * Whether the response is about the leaf, and signed by its issuer or by whom that has appointed for it, and
 * in force now, with an end unless it says revoked: then its verdict is good or revoked. RESULT_PROTOCOL:
 * what does not parse, speaks of another certificate, is not signed by who may, out of date or not in force
 * yet, or says that it does not know.
 */
MUST_CHECK enum result ocsp_response_check(struct bytes response, const struct certificate *certificate,
                                           time_t now, struct ocsp_status *status, struct failure *why);

#endif
