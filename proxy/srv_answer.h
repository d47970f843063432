/* A name server's answer to a question for SRV records (RFC 2782). Pure: octets in, plain values out. */
#ifndef KEYLESS_PROXY_SRV_ANSWER_H
#define KEYLESS_PROXY_SRV_ANSWER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"
#include "common/bytes.h"
#include "common/result.h"

/* Further ones are passed over: of the highest priority numbers, and of one priority the lightest. */
#define SRV_TARGETS_MAX 8

struct srv_target {
    char host[ADDRESS_HOST_SIZE];
    uint16_t port, priority, weight;
};

struct srv_answer {
    struct srv_target targets[SRV_TARGETS_MAX]; /* by priority, those of one by weight, heaviest first */
    size_t count;                               /* 0: the service is not offered */
    uint32_t ttl;                               /* seconds; of all records the least */
};

/* False: it does not parse. Records of other types, and targets that are no host names, are passed over. */
MUST_CHECK bool srv_answer_read(struct bytes message, struct srv_answer *answer);

#endif
