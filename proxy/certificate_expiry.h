/* Warnings before certificates that are served end: at the start, at each reload, and daily. */
#ifndef KEYLESS_PROXY_CERTIFICATE_EXPIRY_H
#define KEYLESS_PROXY_CERTIFICATE_EXPIRY_H

#include "common/log.h"
#include "proxy/certificates.h"

/* Tells of the chains that are served for a name and end within so many microseconds from now (0: of none),
 * those that end first: a line for each of the first ones, and one with the number of the rest. Expired ones
 * are told as such. */
void certificate_expiry_warn(const struct certificates *certificates, uint64_t within, time_t now,
                             struct log *log);

#endif
