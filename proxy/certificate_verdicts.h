/*
 * What the test requests to the key server have found of the chains in the table (certificate_trial.h). The
 * first worker finds it, and the master tells every process, so that all make the same choice.
 *
 * Verdicts stand beside the chains, not in them: a child shares the memory of those with its parent.
 */
#ifndef KEYLESS_PROXY_CERTIFICATE_VERDICTS_H
#define KEYLESS_PROXY_CERTIFICATE_VERDICTS_H

#include "proxy/certificates.h"

/* By which processes speak of a chain: its index, and the beginning of its mark, since another one may be in
 * its place in the process that hears of it. */
uint64_t certificate_place(const struct certificate *certificate);

/* The key server signs for the chain in this place, or does not; nothing if another one is there. True: it is
 * kept out from now on and was not before, or the other way round. */
bool certificates_judge(struct certificates *certificates, uint64_t place, bool is_signed);
/* Of one that is not in the table, what it came with. */
enum certificate_verdict certificates_verdict(const struct certificates *certificates,
                                              const struct certificate *certificate);
/* How many were not tried. */
size_t certificates_untried_count(const struct certificates *certificates);
/* The first that was not tried; NULL: there is none. */
const struct certificate *certificates_untried(struct certificates *certificates);

#endif
