/*
 * OCSP responses that were verified, for all processes of the proxy: in memory that they share, made by the
 * master before it forks anybody, and kept over reloads and dead processes. Who verifies one writes it here;
 * workers find it by the leaf's mark and take a copy when it has changed.
 */
#ifndef KEYLESS_PROXY_STAPLES_H
#define KEYLESS_PROXY_STAPLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include "common/bytes.h"
#include "common/result.h"
#include "proxy/certificates.h"

/* Octets of a response. That of a CA's own key has some 500, with a certificate in it up to 3000. */
#define STAPLE_MAX 4096

struct staples;

/* What is known of a leaf; but for the first without a response. */
enum staple_kind { STAPLE_RESPONSE, STAPLE_REVOCATION, STAPLE_NO_RESPONDER };

struct staple {
    uint8_t mark[CERTIFICATE_MARK_SIZE];   /* of the leaf */
    uint8_t digest[CERTIFICATE_MARK_SIZE]; /* of the response: that it is whole */
    int64_t this_update, next_update;      /* Unix seconds */
    int64_t taken;                         /* when it was read or fetched */
    uint32_t size;
    uint32_t kind; /* enum staple_kind */
    uint8_t response[STAPLE_MAX];
};

#define STAPLE_NOWHERE SIZE_MAX

MUST_CHECK enum result staples_new(struct staples **staples, struct failure *why);
/* This process's view of it; NULL is allowed. */
void staples_free(struct staples *staples);

/* ---- For who serves chains. */

/* Where the certificate's is, for as long as it may be asked for; STAPLE_NOWHERE: there is none. NULL staples
 * have none. */
size_t staples_find(const struct staples *staples, const struct certificate *certificate);
/* Another number: what is there has changed. */
uint64_t staples_version(const struct staples *staples, size_t place);
/* What is there, good or not. False: nothing of this certificate, nothing whole, or nothing that can be true.
 */
MUST_CHECK bool staples_read(const struct staples *staples, size_t place,
                             const struct certificate *certificate, struct staple *staple);
/* Whether it may be shown to a client now. */
bool staple_is_good(const struct staple *staple, time_t now);
/* Both at once: whether there is one that may be shown. */
bool staples_have(const struct staples *staples, const struct certificate *certificate, time_t now);

/* ---- For who shows what there is. */

enum staple_state {
    STAPLE_MISSING,
    STAPLE_GOOD,
    STAPLE_REVOKED,
    STAPLE_UNNAMED, /* the certificate names no responder */
    STAPLE_STATE_COUNT
};

/* next_update is set if it is good or revoked. */
enum staple_state staples_state(const struct staples *staples, const struct certificate *certificate,
                                time_t now, time_t *next_update);

/* ---- For who verifies. */

struct staple_times {
    time_t this_update, next_update, taken;
};

/* response.size at most STAPLE_MAX; 0 but for a response. False: there is no place left. */
MUST_CHECK bool staples_put(struct staples *staples, const struct certificate *certificate,
                            enum staple_kind kind, struct bytes response, const struct staple_times *times);
/* Gives back the places of what has been out of date for a day: their chains are gone. */
void staples_forget(struct staples *staples, time_t now);

/* ---- For a start: workers do not begin before each chain was asked for once. */

void staples_settle(struct staples *staples, unsigned generation);
bool staples_settled(const struct staples *staples, unsigned generation);

#endif
