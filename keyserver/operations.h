/*
 * What one frame of a client comes to: refused, answered at once, or asked of the signer. Pure: it looks at
 * the frame and at the policy, in the protocol's order of checks, and changes nothing but the client's rate.
 */
#ifndef KEYLESS_KEYSERVER_OPERATIONS_H
#define KEYLESS_KEYSERVER_OPERATIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/kssl.h"
#include "keyserver/policy.h"
#include "keyserver/sign_request.h"

enum operation_outcome {
    OPERATION_REFUSE, /* with error */
    OPERATION_ANSWER, /* with answer_opcode and answer */
    OPERATION_SIGN,   /* ask the signer for what request says */
};

struct operation {
    enum operation_outcome outcome;
    struct kssl_message message; /* the items, as far as they parsed; borrowed from the frame */
    enum kssl_error error;
    const char *reason;          /* why, in fixed words, where the error alone does not tell; or NULL */
    uint8_t answer_opcode;       /* KSSL_OP_SUCCESS or KSSL_OP_PONG */
    struct bytes answer;         /* borrowed from the frame or from scratch */
    struct sign_request request; /* its handle is not set; a message is borrowed from the frame */
    const struct key_info *key;  /* the key it names, once that is known to be one the client may use */
};

/* When a frame came: certificates are valid by the one, rates are kept by the other. */
struct operation_time {
    uint64_t unix_seconds;
    uint64_t clock; /* clock_now */
};

/* scratch needs KSSL_PAYLOAD_MAX octets. Takes from the client's rate. */
void operation_decide(const struct policy *policy, size_t entry, const struct kssl_header *header,
                      struct bytes body, const struct operation_time *now, uint8_t *scratch,
                      struct operation *operation);

/* Whether this client may use the opcode: what hello lists. */
bool operation_allowed(unsigned allow, uint8_t opcode);

#endif
