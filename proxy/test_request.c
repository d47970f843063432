#include "proxy/test_request.h"

#include <string.h>

static struct signature_check *check_of(const struct certificate *certificate)
{
    const unsigned char *at = certificate->leaf.data;
    X509 *leaf = d2i_X509(NULL, &at, (long)certificate->leaf.size);
    EVP_PKEY *key = leaf != NULL ? X509_get0_pubkey(leaf) : NULL;
    struct signature_check *check =
        key != NULL ? signature_check_new(NULL, key, certificate->key.type) : NULL;
    X509_free(leaf);
    return check;
}

static void release(struct test_request *request)
{
    made_up_handshake_clear(&request->handshake);
    signature_check_free(request->check);
    request->check = NULL;
}

static void on_done(struct key_operation *operation)
{
    struct test_request *request = operation->owner;
    release(request);
    request->done(request);
}

bool test_request_send(struct test_request *request, struct key_client *client,
                       const struct certificate *certificate, const char *alpn)
{
    struct made_up_handshake *handshake = &request->handshake;
    request->operation = (struct key_operation){
        .outcome = KEY_OUTCOME_REFUSED, .result = RESULT_SYSTEM, .reason = "no memory"};
    if (!made_up_handshake_make(handshake, certificate, alpn))
        return false;
    request->check = check_of(certificate);
    if (request->check == NULL) {
        release(request);
        return false;
    }
    request->operation =
        (struct key_operation){.key = &certificate->key,
                               .check = request->check,
                               .content = bytes_of(handshake->content, handshake->content_size),
                               .sni = bytes_of(handshake->name, strlen(handshake->name)),
                               .transcript = &handshake->transcript,
                               .done = on_done,
                               .owner = request,
                               .is_test = true,
                               .scheme = handshake->scheme};
    bool sent = key_client_sign(client, &request->operation) == RESULT_OK;
    if (!sent)
        release(request);
    return sent;
}

void test_request_cancel(struct test_request *request, struct key_client *client)
{
    key_client_cancel(client, &request->operation);
    release(request);
}

/* Of an error that the key server answered. */
static enum test_finding finding_of_error(uint8_t error)
{
    switch (error) {
    case KSSL_ERROR_KEY_NOT_FOUND:
    case KSSL_ERROR_CRYPTO:
        return TEST_BAD;
    case KSSL_ERROR_POLICY:
    case KSSL_ERROR_CONTENT:
    case KSSL_ERROR_FORMAT:
    case KSSL_ERROR_BAD_OPCODE:
        return TEST_IRRELEVANT;
    default:
        return TEST_UNANSWERED;
    }
}

enum test_finding test_request_finding(const struct test_request *request)
{
    const struct key_operation *operation = &request->operation;
    switch (operation->outcome) {
    case KEY_OUTCOME_OK:
        return TEST_GOOD;
    case KEY_OUTCOME_INVALID:
    case KEY_OUTCOME_WRONG:
        return TEST_BAD;
    case KEY_OUTCOME_ERROR:
        return finding_of_error(operation->error);
    default: /* what cannot be asked at all would keep a good chain out for ever */
        return operation->result == RESULT_PROTOCOL ? TEST_IRRELEVANT : TEST_UNANSWERED;
    }
}
