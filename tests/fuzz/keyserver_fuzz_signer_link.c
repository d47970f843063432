/* What the signer takes from a link parses into a request that, written again, is the same octets; and the
 * checks of a request that came from anywhere are without harm. */
#include <stdlib.h>
#include <string.h>

#include "keyserver/signer_protocol.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t again[SIGNER_HEADER_SIZE + SIGNER_BODY_MAX];

static const struct policy *policy(void)
{
    static char match[] = "CN:x", pattern[] = "*", label[] = "key", name[] = "*.a";
    static char *patterns[] = {pattern}, *names[] = {name};
    static struct keyserver_client client = {.match = match,
                                             .keys = patterns,
                                             .key_count = 1,
                                             .names = names,
                                             .name_count = 1,
                                             .allow =
                                                 ALLOW_TLS13 | ALLOW_TLS12 | ALLOW_DIGEST | ALLOW_DECRYPT};
    static const struct keyserver_config config = {.clients = &client, .client_count = 1};
    static struct key_info key = {.id = {.type = KEY_TYPE_P256, .ski = "ski of twenty octet"},
                                  .label = label};
    static const struct key_table table = {.keys = &key, .count = 1};
    static struct policy *made;
    if (made == NULL && policy_new(&config, &table, &made, NULL) != RESULT_OK)
        abort();
    return made;
}

static void ask(uint8_t type, struct bytes body)
{
    struct sign_request request;
    uint8_t content[SIGN_CONTENT_MAX];
    struct writer content_to = writer_of(content, sizeof content);
    struct writer to = writer_of(again, sizeof again);
    const char *reason;
    size_t key;
    if (!signer_ask_parse(type, body, &request))
        return;
    signer_ask_write(&to, &request);
    if (to.overflow || to.size != SIGNER_HEADER_SIZE + body.size ||
        memcmp(again + SIGNER_HEADER_SIZE, body.data, body.size) != 0)
        abort();
    if (sign_request_check(policy(), &request, &key, &reason) != KSSL_ERROR_NONE)
        return;
    (void)sign_request_point_valid(&request);
    bool rebuilt = sign_request_content(&request, &content_to);
    if (rebuilt != (request.kind == SIGN_TLS13 || request.kind == SIGN_TLS12))
        abort();
}

static void told(struct bytes body)
{
    struct key_id id;
    struct bytes label;
    struct signer_reply reply;
    uint32_t count;
    struct writer to = writer_of(again, sizeof again);
    (void)signer_key_parse(body, &id, &label);
    (void)signer_keys_end_parse(body, &count);
    if (!signer_reply_parse(body, &reply))
        return;
    signer_reply_write(&to, &reply);
    if (to.size != SIGNER_HEADER_SIZE + body.size ||
        memcmp(again + SIGNER_HEADER_SIZE, body.data, body.size) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 1 + SIGNER_BODY_MAX)
        return -1;
    struct bytes body = bytes_of(data + 1, size - 1);
    ask(data[0], body);
    told(body);
    return 0;
}
