#include "keyserver/operations.h"

#include <string.h>

#include "keyserver/config.h"
#include "keyserver/transcript_check.h"

/* What the steps below share. */
struct decision {
    const struct policy *policy;
    size_t entry;
    const struct operation_time *now;
    struct writer scratch;
    struct operation *operation;
};

/* Each step returns the error to answer, or KSSL_ERROR_NONE when the operation's outcome is set. */
typedef enum kssl_error step(struct decision *decision);

static step ping, hello, list, sign_tls13, sign_tls12, sign_transcript, bare, ticket_keys, unexpected;

struct rule {
    unsigned allow; /* one of these must be allowed, and it counts for the rate; 0: always, and it does not */
    step *decide;   /* NULL: no such opcode */
};

/* All 256 opcodes: what is not here answers 0x05. */
static const struct rule RULES[256] = {
    [KSSL_OP_RSA_DECRYPT] = {ALLOW_DECRYPT, bare},
    [KSSL_OP_RSA_DECRYPT_RAW] = {ALLOW_DECRYPT, bare},
    [KSSL_OP_RSA_SIGN_MD5SHA1] = {ALLOW_DIGEST, bare},
    [KSSL_OP_RSA_SIGN_SHA1] = {ALLOW_DIGEST, bare},
    [KSSL_OP_RSA_SIGN_SHA224] = {ALLOW_DIGEST, bare},
    [KSSL_OP_RSA_SIGN_SHA256] = {ALLOW_DIGEST, bare},
    [KSSL_OP_RSA_SIGN_SHA384] = {ALLOW_DIGEST, bare},
    [KSSL_OP_RSA_SIGN_SHA512] = {ALLOW_DIGEST, bare},
    [KSSL_OP_ECDSA_MD5SHA1] = {ALLOW_DIGEST, bare},
    [KSSL_OP_ECDSA_SHA1] = {ALLOW_DIGEST, bare},
    [KSSL_OP_ECDSA_SHA224] = {ALLOW_DIGEST, bare},
    [KSSL_OP_ECDSA_SHA256] = {ALLOW_DIGEST, bare},
    [KSSL_OP_ECDSA_SHA384] = {ALLOW_DIGEST, bare},
    [KSSL_OP_ECDSA_SHA512] = {ALLOW_DIGEST, bare},
    [KSSL_OP_ED25519] = {ALLOW_DIGEST, bare},
    [KSSL_OP_RSA_PSS_SHA256] = {ALLOW_DIGEST, bare},
    [KSSL_OP_RSA_PSS_SHA384] = {ALLOW_DIGEST, bare},
    [KSSL_OP_RSA_PSS_SHA512] = {ALLOW_DIGEST, bare},
    [KSSL_OP_HELLO] = {0, hello},
    [KSSL_OP_SIGN_TLS13] = {ALLOW_TLS13, sign_tls13},
    [KSSL_OP_SIGN_TLS12] = {ALLOW_TLS12, sign_tls12},
    [KSSL_OP_SIGN_TRANSCRIPT] = {ALLOW_TRANSCRIPT, sign_transcript},
    [KSSL_OP_TICKET_KEYS] = {ALLOW_TICKET_KEYS, ticket_keys},
    [KSSL_OP_LIST] = {ALLOW_LIST, list},
    [KSSL_OP_PING] = {0, ping},
    [KSSL_OP_SUCCESS] = {0, unexpected},
    [KSSL_OP_PONG] = {0, unexpected},
    [KSSL_OP_ERROR] = {0, unexpected},
};

static bool rule_allows(const struct rule *rule, unsigned allow)
{
    return rule->decide != NULL && (rule->allow == 0 || (rule->allow & allow) != 0);
}

bool operation_allowed(unsigned allow, uint8_t opcode)
{
    return rule_allows(&RULES[opcode], allow) && RULES[opcode].decide != unexpected;
}

static enum kssl_error unexpected(struct decision *decision)
{
    (void)decision;
    return KSSL_ERROR_UNEXPECTED_OPCODE;
}

/* ---- Answered at once. */

static enum kssl_error answer(struct decision *decision, uint8_t opcode, struct bytes payload)
{
    decision->operation->outcome = OPERATION_ANSWER;
    decision->operation->answer_opcode = opcode;
    decision->operation->answer = payload;
    return KSSL_ERROR_NONE;
}

static enum kssl_error ping(struct decision *decision)
{
    return answer(decision, KSSL_OP_PONG, decision->operation->message.payload);
}

static enum kssl_error hello(struct decision *decision)
{
    uint8_t opcodes[256];
    size_t count = 0;
    unsigned allow = policy_allow(decision->policy, decision->entry);
    for (unsigned opcode = 0; opcode < 256; opcode++)
        if (operation_allowed(allow, (uint8_t)opcode))
            opcodes[count++] = (uint8_t)opcode;
    const struct kssl_hello said = {
        .version = 1, .opcodes = bytes_of(opcodes, count), .time = decision->now->unix_seconds};
    kssl_hello_write(&decision->scratch, &said);
    return answer(decision, KSSL_OP_SUCCESS, writer_bytes(&decision->scratch));
}

/* As many entries as fit; the first octet says whether there are more. */
static void list_write(struct decision *decision, const uint8_t *after_ski)
{
    struct writer *to = &decision->scratch;
    size_t at = policy_list_start(decision->policy, decision->entry, after_ski);
    write_u8(to, 0);
    const struct key_info *key;
    while ((key = policy_list_next(decision->policy, decision->entry, &at)) != NULL) {
        size_t before = to->size;
        const struct kssl_list_entry entry = {
            .ski = key->id.ski, .type = key->id.type, .name = bytes_of(key->label, strlen(key->label))};
        kssl_list_entry_write(to, &entry);
        if (to->size > KSSL_LIST_MAX) {
            to->size = before;
            to->data[0] = 1;
            return;
        }
    }
}

static enum kssl_error list(struct decision *decision)
{
    struct bytes after = decision->operation->message.payload;
    if (after.size != 0 && after.size != KEY_ID_SKI_SIZE)
        return KSSL_ERROR_FORMAT;
    list_write(decision, after.size != 0 ? after.data : NULL);
    return answer(decision, KSSL_OP_SUCCESS, writer_bytes(&decision->scratch));
}

/* ---- Asked of the signer. */

/* The request's parts are in place: the checks that depend on the key. */
static enum kssl_error ask(struct decision *decision)
{
    struct operation *operation = decision->operation;
    size_t key;
    operation->request.entry = (uint16_t)decision->entry;
    operation->request.opcode = operation->message.opcode;
    enum kssl_error error =
        sign_request_check(decision->policy, &operation->request, &key, &operation->reason);
    if (error != KSSL_ERROR_NONE)
        return error;
    operation->key = policy_key(decision->policy, key);
    operation->outcome = OPERATION_SIGN;
    return KSSL_ERROR_NONE;
}

/* Part B names a key by SKI alone. An item that is missing is a format error, whoever asks. */
static bool take_ski(struct decision *decision)
{
    struct bytes ski = decision->operation->message.ski;
    if (ski.data == NULL)
        return false;
    memcpy(decision->operation->request.ski, ski.data, KEY_ID_SKI_SIZE);
    return true;
}

static enum kssl_error refuse(struct decision *decision, enum kssl_error error, const char *reason)
{
    decision->operation->outcome = OPERATION_REFUSE;
    decision->operation->reason = reason;
    return error;
}

static enum kssl_error ask_with_sni(struct decision *decision, struct bytes sni)
{
    struct sign_request *request = &decision->operation->request;
    if (sni.size > 0 && sni.size <= SIGN_SNI_MAX) {
        request->sni_size = (uint8_t)sni.size;
        memcpy(request->sni, sni.data, sni.size);
    }
    enum kssl_error error = ask(decision);
    if (error == KSSL_ERROR_NONE && sni.size > SIGN_SNI_MAX)
        return refuse(decision, KSSL_ERROR_POLICY, "the SNI is too long for a host name");
    return error;
}

/* Where no transcript shows the SNI it is what the client claims. */
static enum kssl_error ask_claimed(struct decision *decision)
{
    return ask_with_sni(decision, decision->operation->message.sni);
}

static enum kssl_error sign_tls13(struct decision *decision)
{
    struct sign_request *request = &decision->operation->request;
    struct kssl_sign_tls13 asked;
    if (!kssl_sign_tls13_parse(decision->operation->message.payload, &asked) || !take_ski(decision))
        return KSSL_ERROR_FORMAT;
    request->kind = SIGN_TLS13;
    request->tls13.scheme = asked.scheme;
    request->tls13.hash_size = (uint8_t)asked.hash.size;
    memcpy(request->tls13.hash, asked.hash.data, asked.hash.size);
    return ask_claimed(decision);
}

static enum kssl_error sign_tls12(struct decision *decision)
{
    struct sign_request *request = &decision->operation->request;
    struct kssl_sign_tls12 asked;
    bool parts_valid;
    if (!kssl_sign_tls12_parse(decision->operation->message.payload, &asked, &parts_valid) ||
        !take_ski(decision))
        return KSSL_ERROR_FORMAT;
    request->kind = SIGN_TLS12;
    request->tls12.scheme = asked.scheme;
    memcpy(request->tls12.client_random, asked.parts.client_random, TLS_RANDOM_SIZE);
    memcpy(request->tls12.server_random, asked.parts.server_random, TLS_RANDOM_SIZE);
    /* Parameters of another form, or a point off its curve, stay group 0, which no policy accepts. */
    if (parts_valid && tls_ecdh_point_valid(asked.parts.group, asked.parts.point)) {
        request->tls12.group = asked.parts.group;
        request->tls12.point_size = (uint8_t)asked.parts.point.size;
        memcpy(request->tls12.point, asked.parts.point.data, asked.parts.point.size);
    }
    return ask_claimed(decision);
}

/* What is left when the messages have their form and the client may use the key. */
static enum kssl_error check_transcript(struct decision *decision, const struct transcript *transcript)
{
    struct sign_request *request = &decision->operation->request;
    const char *reason;
    size_t size;
    const struct site_leaf *leaf =
        policy_find_leaf(decision->policy, request->ski, transcript->certificate.leaf);
    if (leaf == NULL)
        return refuse(decision, KSSL_ERROR_KEY_NOT_FOUND, "the certificate is none of this key's");
    if (!tls_scheme_fits_tls13(tls_scheme_find(request->tls13.scheme), decision->operation->key->id.type))
        return KSSL_ERROR_CRYPTO;
    if (!transcript_check(transcript, request->tls13.scheme, leaf, (int64_t)decision->now->unix_seconds,
                          &reason))
        return refuse(decision, KSSL_ERROR_CONTENT, reason);
    if (!transcript_hash(transcript, request->tls13.hash, &size))
        return KSSL_ERROR_INTERNAL;
    request->tls13.hash_size = (uint8_t)size;
    return KSSL_ERROR_NONE;
}

static enum kssl_error check_transcript_policy(struct decision *decision, const struct transcript *transcript)
{
    if (!policy_allows_name(decision->policy, decision->entry, transcript->sni))
        return refuse(decision, KSSL_ERROR_POLICY, "the SNI is none of the client's names");
    if (transcript_is_for_acme(transcript))
        return refuse(decision, KSSL_ERROR_POLICY, "the protocol is acme-tls/1");
    if (!policy_allows_protocol(decision->policy, decision->entry, transcript->alpn))
        return refuse(decision, KSSL_ERROR_POLICY, "the protocol is none of the client's");
    return KSSL_ERROR_NONE;
}

/* The payload without the key: its scheme, the messages' form, and that a claimed SNI is the real one. */
static enum kssl_error take_transcript(struct decision *decision, struct transcript *transcript)
{
    struct operation *operation = decision->operation;
    struct reader from = reader_of(operation->message.payload);
    const char *reason;
    if (!read_u16(&from, &operation->request.tls13.scheme) || !take_ski(decision))
        return KSSL_ERROR_FORMAT;
    if (!transcript_parse(bytes_of(from.next, from.left), transcript, &reason))
        return refuse(decision, KSSL_ERROR_FORMAT, reason);
    if (operation->message.sni.data != NULL && !transcript_is_for(transcript, operation->message.sni))
        return refuse(decision, KSSL_ERROR_FORMAT, "the SNI is not that of the ClientHello");
    return KSSL_ERROR_NONE;
}

static enum kssl_error sign_transcript(struct decision *decision)
{
    struct sign_request *request = &decision->operation->request;
    struct transcript transcript;
    size_t key;
    request->kind = SIGN_TLS13;
    enum kssl_error error = take_transcript(decision, &transcript);
    if (error != KSSL_ERROR_NONE)
        return error;
    if (!policy_find(decision->policy, decision->entry, request->ski, &key))
        return KSSL_ERROR_KEY_NOT_FOUND;
    decision->operation->key = policy_key(decision->policy, key);
    error = check_transcript(decision, &transcript);
    if (error == KSSL_ERROR_NONE)
        error = check_transcript_policy(decision, &transcript);
    return error == KSSL_ERROR_NONE ? ask_with_sni(decision, transcript.sni) : error;
}

/* Part A also knows keys by a digest, where there is no SKI. A digest that is no key's of this client's
 * leaves the SKI at zero, which is no key's either. */
static bool take_ski_or_digest(struct decision *decision)
{
    const struct kssl_message *message = &decision->operation->message;
    if (message->ski.data != NULL)
        return take_ski(decision);
    size_t key;
    if (message->digest.data == NULL)
        return false;
    if (policy_find_digest(decision->policy, decision->entry, message->digest.data, &key))
        memcpy(decision->operation->request.ski, policy_key(decision->policy, key)->id.ski, KEY_ID_SKI_SIZE);
    return true;
}

static enum kssl_error bare(struct decision *decision)
{
    struct sign_request *request = &decision->operation->request;
    struct bytes payload = decision->operation->message.payload;
    enum sign_kind kind;
    if (payload.data == NULL || !take_ski_or_digest(decision) ||
        !sign_kind_of(decision->operation->message.opcode, &kind))
        return KSSL_ERROR_FORMAT;
    request->kind = kind;
    if (kind == SIGN_MESSAGE || kind == SIGN_CIPHERTEXT) {
        request->message = payload;
    } else if (payload.size <= SIGN_DIGEST_MAX) {
        request->digest.size = (uint8_t)payload.size;
        memcpy(request->digest.octets, payload.data, payload.size);
    }
    return ask(decision);
}

/* The group is the entry's own; nothing that is sent says another. */
static enum kssl_error ticket_keys(struct decision *decision)
{
    struct operation *operation = decision->operation;
    if (operation->message.payload.size > 0)
        return KSSL_ERROR_FORMAT;
    operation->request.kind = GIVE_TICKET_KEYS;
    operation->request.entry = (uint16_t)decision->entry;
    operation->request.opcode = operation->message.opcode;
    operation->outcome = OPERATION_SIGN;
    return KSSL_ERROR_NONE;
}

/* ---- The order of checks. */

/* Who the edge says its client is. */
static void take_client_ip(struct operation *operation)
{
    struct bytes ip = operation->message.client_ip;
    operation->request.client_ip_size = (uint8_t)ip.size;
    if (ip.size > 0)
        memcpy(operation->request.client_ip, ip.data, ip.size);
}

static enum kssl_error decide(struct decision *decision, const struct kssl_header *header, struct bytes body)
{
    struct kssl_message *message = &decision->operation->message;
    if (header->major != KSSL_MAJOR)
        return KSSL_ERROR_VERSION;
    if (kssl_body_parse(body, message, NULL) != RESULT_OK || !message->has_opcode)
        return KSSL_ERROR_FORMAT;
    const struct rule *rule = &RULES[message->opcode];
    if (!rule_allows(rule, policy_allow(decision->policy, decision->entry)))
        return KSSL_ERROR_BAD_OPCODE;
    if (rule->allow != 0 && !policy_admits(decision->policy, decision->entry, decision->now->clock))
        return KSSL_ERROR_RATE;
    take_client_ip(decision->operation);
    return rule->decide(decision);
}

void operation_decide(const struct policy *policy, size_t entry, const struct kssl_header *header,
                      struct bytes body, const struct operation_time *now, uint8_t *scratch,
                      struct operation *operation)
{
    *operation = (struct operation){.outcome = OPERATION_REFUSE};
    struct decision decision = {.policy = policy,
                                .entry = entry,
                                .now = now,
                                .scratch = writer_of(scratch, KSSL_PAYLOAD_MAX),
                                .operation = operation};
    operation->error = decide(&decision, header, body);
}
