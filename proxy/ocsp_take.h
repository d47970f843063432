/* A response that came from somewhere: verified, and put where all processes find it. */
#ifndef KEYLESS_PROXY_OCSP_TAKE_H
#define KEYLESS_PROXY_OCSP_TAKE_H

#include "common/log.h"
#include "proxy/ocsp_response.h"
#include "proxy/staples.h"

/*
 * RESULT_PROTOCOL: as ocsp_response_check, or it is older than the one that is there and still in force.
 * RESULT_LIMIT: no place for it. What is there then stays; of a certificate that is revoked nothing does.
 */
MUST_CHECK enum result ocsp_take(struct staples *staples, const struct certificate *certificate,
                                 struct bytes response, time_t now, struct ocsp_status *status,
                                 struct failure *why);

/* What was taken, at `level`; a revocation as an error. */
void ocsp_taken_log(struct log *log, enum log_level level, const struct certificate *certificate,
                    const struct ocsp_status *status);

#endif
