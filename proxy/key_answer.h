/* What a key server's answer to a request says. */
#ifndef KEYLESS_PROXY_KEY_ANSWER_H
#define KEYLESS_PROXY_KEY_ANSWER_H

#include "common/kssl.h"
#include "common/result.h"
#include "proxy/key_client.h"

/* How an operation ends: goes into the fields of its name. */
struct key_answer {
    enum key_outcome outcome;
    enum result result;
    uint8_t error;
    const char *reason;
};

/* KEY_OUTCOME_OK: the operation has a signature, which is not verified yet. */
struct key_answer key_answer_read(struct key_operation *operation, const struct kssl_message *message);
/* Whether that signature is of the operation's content and key. */
bool key_answer_verify(const struct key_operation *operation);

#endif
