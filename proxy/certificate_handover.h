/*
 * Chains that the master hands to children that run already: in a sealed memfd, which nobody can change or
 * cut short while it is read.
 */
#ifndef KEYLESS_PROXY_CERTIFICATE_HANDOVER_H
#define KEYLESS_PROXY_CERTIFICATE_HANDOVER_H

#include "common/bytes.h"
#include "common/result.h"
#include "proxy/certificates.h"

/* *fd is the caller's. */
MUST_CHECK enum result certificate_handover_make(const struct proxy_config *config,
                                                 const struct certificate *const *list, size_t count, int *fd,
                                                 struct failure *why);

struct certificate_handover {
    struct bytes whole;
    struct reader rest;
};

/* fd stays the caller's; it may be closed at once. */
MUST_CHECK enum result certificate_handover_open(int fd, struct certificate_handover *handover,
                                                 struct failure *why);
/* The next one, with the index, the site and the verdict that it had; config is the one that they were read
 * for. RESULT_AGAIN: that was the last. */
MUST_CHECK enum result certificate_handover_next(struct certificate_handover *handover,
                                                 const struct proxy_config *config,
                                                 struct chain_parser *parser,
                                                 struct certificate **certificate, struct failure *why);
/* The index of the next one, which stays; false: there is none, or it does not parse. */
MUST_CHECK bool certificate_handover_peek(const struct certificate_handover *handover, uint32_t *index);
/* The next one is passed over. RESULT_AGAIN: there is none. */
MUST_CHECK enum result certificate_handover_skip(struct certificate_handover *handover,
                                                 const struct proxy_config *config, struct failure *why);
void certificate_handover_close(struct certificate_handover *handover);

#endif
