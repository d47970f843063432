/*
 * OCSP responses fetched for all chains of `ocsp: {source: fetch}`: by the helper, before they are out of
 * date, a few at a time. What was verified goes to where all processes find it (staples.h), and stays there
 * until it is out of date, whatever responders say meanwhile but "revoked".
 */
#ifndef KEYLESS_PROXY_OCSP_REFRESH_H
#define KEYLESS_PROXY_OCSP_REFRESH_H

#include <event2/event.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"
#include "proxy/certificates.h"
#include "proxy/config.h"
#include "proxy/resolver.h"
#include "proxy/staples.h"

struct ocsp_refresh;

/* All of it borrowed. */
struct ocsp_refresh_settings {
    struct event_base *base;
    struct resolver *resolver;
    const struct proxy_config *config;
    const struct certificates *certificates; /* may change */
    struct staples *staples;
    unsigned generation;
    struct log *log;
    struct metrics_row *metrics;
};

/* Before the process is confined (ocsp_fetch_dns). Nothing is asked before the loop runs. */
MUST_CHECK enum result ocsp_refresh_new(const struct ocsp_refresh_settings *settings,
                                        struct ocsp_refresh **refresh, struct failure *why);
void ocsp_refresh_free(struct ocsp_refresh *refresh);

/* The chains that are held back (certificate_handover.h), in place of those before; -1: none. They are asked
 * for, too, so that a chain is not shown without a response first. fd is taken over. */
void ocsp_refresh_take(struct ocsp_refresh *refresh, int fd);

#endif
