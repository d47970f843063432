#include "proxy/ocsp_take.h"

#include <time.h>

/* In TLS 1.3 it stands in the leaf's CertificateEntry, as an extension (RFC 8446 section 4.4.2.1). */
#define STAPLE_HEAD 8

/* An answer from before a revocation, say, that somebody has kept and shows again: also when what was said
 * then has ended. */
static bool is_older(const struct staples *staples, const struct certificate *certificate,
                     const struct ocsp_status *status)
{
    struct staple there;
    size_t place = staples_find(staples, certificate);
    return place != STAPLE_NOWHERE && staples_read(staples, place, certificate, &there) &&
           there.kind != STAPLE_NO_RESPONDER && status->this_update < there.this_update;
}

static bool fits(const struct certificate *certificate, struct bytes response)
{
    return response.size <= STAPLE_MAX &&
           certificate->message_size + STAPLE_HEAD + response.size <= CERTIFICATE_MESSAGE_MAX;
}

enum result ocsp_take(struct staples *staples, const struct certificate *certificate, struct bytes response,
                      time_t now, struct ocsp_status *status, struct failure *why)
{
    enum result result = ocsp_response_check(response, certificate, now, status, why);
    if (result != RESULT_OK)
        return result;
    if (is_older(staples, certificate, status))
        return failure_set(why, RESULT_PROTOCOL, "it is older than the one before it");
    const struct staple_times times = {status->this_update, status->next_update, now};
    struct bytes kept = bytes_of(status->revoked ? NULL : response.data, status->revoked ? 0 : response.size);
    if (!fits(certificate, kept))
        return failure_set(why, RESULT_LIMIT,
                           "it has more than %d octets, or the Certificate message would have more than %d",
                           STAPLE_MAX, CERTIFICATE_MESSAGE_MAX);
    if (staples_put(staples, certificate, status->revoked ? STAPLE_REVOCATION : STAPLE_RESPONSE, kept,
                    &times))
        return RESULT_OK;
    return failure_set(why, RESULT_LIMIT, "there are too many chains");
}

void ocsp_taken_log(struct log *log, enum log_level level, const struct certificate *certificate,
                    const struct ocsp_status *status)
{
    const int64_t lasts = (int64_t)(status->next_update - time(NULL));
    if (status->revoked)
        log_error(log, "certificate is revoked", log_text("file", certificate->path),
                  log_text("name", certificate->names));
    else
        (void)log_write(log, level, "OCSP response taken",
                        LOG_FIELDS(log_text("file", certificate->path), log_number("lasts_s", lasts)));
}
