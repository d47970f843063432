/* Whatever a client sends comes to an error of the protocol, an answer that fits a frame, or a request that
 * the signer would take. */
#include <stdlib.h>
#include <string.h>

#include "keyserver/operations.h"
#include "keyserver/signer_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct policy *policy(void)
{
    static char match[] = "CN:x", pattern[] = "*", label[] = "key", name[] = "*.a";
    static char *patterns[] = {pattern}, *names[] = {name};
    static int schemes[] = {0x0403};
    static struct keyserver_client clients[] = {
        {.match = match,
         .keys = patterns,
         .key_count = 1,
         .names = patterns,
         .name_count = 1,
         .allow = ALLOW_TLS13 | ALLOW_TLS12 | ALLOW_DIGEST | ALLOW_DECRYPT | ALLOW_LIST},
        {.match = match,
         .keys = patterns,
         .key_count = 1,
         .names = names,
         .name_count = 1,
         .allow = ALLOW_TLS12 | ALLOW_DIGEST,
         .schemes = schemes,
         .scheme_count = 1},
    };
    static const struct keyserver_config config = {.clients = clients, .client_count = 2};
    /* SKIs that a fuzzer finds. */
    static struct key_info keys[] = {
        {.id = {.type = KEY_TYPE_P256, .ski = {1}, .digest = {1}}, .label = label},
        {.id = {.type = KEY_TYPE_RSA, .bits = 2048, .ski = {2}, .digest = {2}}, .label = label},
        {.id = {.type = KEY_TYPE_ED25519, .ski = {3}}, .label = label},
    };
    static const struct key_table table = {.keys = keys, .count = 3};
    static struct policy *made;
    if (made == NULL && policy_new(&config, &table, &made, NULL) != RESULT_OK)
        abort();
    return made;
}

static bool error_is_known(enum kssl_error error)
{
    static const enum kssl_error KNOWN[] = {KSSL_ERROR_CRYPTO,
                                            KSSL_ERROR_KEY_NOT_FOUND,
                                            KSSL_ERROR_VERSION,
                                            KSSL_ERROR_BAD_OPCODE,
                                            KSSL_ERROR_UNEXPECTED_OPCODE,
                                            KSSL_ERROR_FORMAT,
                                            KSSL_ERROR_CONTENT,
                                            KSSL_ERROR_POLICY};
    for (size_t i = 0; i < sizeof KNOWN / sizeof *KNOWN; i++)
        if (KNOWN[i] == error)
            return true;
    return false;
}

static void check_answer(const struct operation *operation)
{
    static uint8_t frame[KSSL_FRAME_MAX];
    struct writer to = writer_of(frame, sizeof frame);
    const struct kssl_message message = {
        .has_opcode = true, .opcode = operation->answer_opcode, .payload = operation->answer};
    if (!kssl_message_write(&to, 1, &message))
        abort();
}

static void check_request(const struct operation *operation)
{
    static uint8_t octets[SIGNER_HEADER_SIZE + SIGNER_BODY_MAX];
    struct writer to = writer_of(octets, sizeof octets);
    struct sign_request parsed;
    const char *reason;
    size_t key;
    signer_ask_write(&to, &operation->request);
    if (!writer_ok(&to) ||
        !signer_ask_parse(octets[0], bytes_of(octets + SIGNER_HEADER_SIZE, to.size - SIGNER_HEADER_SIZE),
                          &parsed) ||
        sign_request_check(policy(), &parsed, &key, &reason) != KSSL_ERROR_NONE || operation->key == NULL)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t scratch[KSSL_PAYLOAD_MAX];
    if (size < 2 || size > 2 + KSSL_BODY_MAX)
        return -1;
    struct operation operation;
    const struct kssl_header header = {.major = data[0] != 0 ? 1 : 0, .length = (uint16_t)(size - 2)};
    const struct operation_time now = {.unix_seconds = 1};
    operation_decide(policy(), data[1] & 1, &header, bytes_of(data + 2, size - 2), &now, scratch, &operation);
    if (operation.outcome == OPERATION_REFUSE && !error_is_known(operation.error))
        abort();
    if (operation.outcome == OPERATION_ANSWER)
        check_answer(&operation);
    if (operation.outcome == OPERATION_SIGN)
        check_request(&operation);
    return 0;
}
