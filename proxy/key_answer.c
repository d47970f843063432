#include "proxy/key_answer.h"

#include <string.h>

/* RSA and EdDSA signatures have one size; ECDSA's, being DER, a largest one. */
static bool signature_size_ok(const struct key_id *key, size_t size)
{
    bool ecdsa = key->type == KEY_TYPE_P256 || key->type == KEY_TYPE_P384 || key->type == KEY_TYPE_P521;
    if (size == 0 || size > key->signature_size || size > KEY_SIGNATURE_MAX)
        return false;
    return ecdsa || size == key->signature_size;
}

struct key_answer key_answer_read(struct key_operation *operation, const struct kssl_message *message)
{
    if (message->opcode == KSSL_OP_ERROR && message->payload.size == 1)
        return (struct key_answer){KEY_OUTCOME_ERROR, RESULT_PEER, message->payload.data[0],
                                   kssl_error_name(message->payload.data[0])};
    if (message->opcode != KSSL_OP_SUCCESS)
        return (struct key_answer){KEY_OUTCOME_INVALID, RESULT_PROTOCOL, 0, "unexpected answer"};
    if (!signature_size_ok(operation->key, message->payload.size))
        return (struct key_answer){KEY_OUTCOME_INVALID, RESULT_PROTOCOL, 0, "signature of a wrong size"};
    operation->signature_size = message->payload.size;
    memcpy(operation->signature, message->payload.data, message->payload.size);
    return (struct key_answer){KEY_OUTCOME_OK, RESULT_OK, 0, NULL};
}

bool key_answer_verify(const struct key_operation *operation)
{
    return signature_check_passes(operation->check, operation->scheme, operation->content,
                                  bytes_of(operation->signature, operation->signature_size));
}
