#include "proxy/ocsp_take.h"

/* An answer from before a revocation, say, that somebody has kept and shows again. */
static bool is_older(const struct staples *staples, const struct certificate *certificate,
                     const struct ocsp_status *status, time_t now)
{
    struct staple there;
    size_t place = staples_find(staples, certificate);
    return place != STAPLE_NOWHERE && staples_read(staples, place, certificate, &there) &&
           there.next_update > now && status->this_update < there.this_update;
}

enum result ocsp_take(struct staples *staples, const struct certificate *certificate, struct bytes response,
                      time_t now, struct ocsp_status *status, struct failure *why)
{
    enum result result = ocsp_response_check(response, certificate, now, status, why);
    if (result != RESULT_OK)
        return result;
    if (is_older(staples, certificate, status, now))
        return failure_set(why, RESULT_PROTOCOL, "it is older than the one before it");
    struct bytes kept = bytes_of(status->revoked ? NULL : response.data, status->revoked ? 0 : response.size);
    if (staples_put(staples, certificate, kept, status->revoked, status->this_update, status->next_update,
                    now))
        return RESULT_OK;
    return failure_set(why, RESULT_LIMIT, "it has more than %d octets, or there are too many chains",
                       STAPLE_MAX);
}
