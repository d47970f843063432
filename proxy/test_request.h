/*
 * A test request: asks the key server for a signature as a handshake with a chain would need it, of a
 * handshake that never was, and tells what the answer says of the chain.
 */
#ifndef KEYLESS_PROXY_TEST_REQUEST_H
#define KEYLESS_PROXY_TEST_REQUEST_H

#include "proxy/certificates.h"
#include "proxy/key_client.h"
#include "proxy/made_up_handshake.h"
#include "proxy/signature_check.h"

enum test_finding {
    TEST_GOOD,       /* handshakes with the chain get their signature */
    TEST_BAD,        /* they get none: its key, or the leaf, is not there, or is another */
    TEST_UNANSWERED, /* the key server is away or busy: it is to be asked again */
    TEST_IRRELEVANT, /* it has something against the request, which says nothing of handshakes */
};

/* Embedded in its owner; all is the request's own. */
struct test_request {
    struct key_operation operation; /* with the outcome, once it is done */
    struct made_up_handshake handshake;
    struct signature_check *check;
    void (*done)(struct test_request *request);
    void *owner;
};

/* The caller has set done and owner. The certificate is borrowed until done is called; alpn: the protocol
 * that is agreed on, or NULL. False: it could not be sent, which is what was found; done is not called. */
MUST_CHECK bool test_request_send(struct test_request *request, struct key_client *client,
                                  const struct certificate *certificate, const char *alpn);
void test_request_cancel(struct test_request *request, struct key_client *client);

/* When it is done; the reason is the operation's. */
enum test_finding test_request_finding(const struct test_request *request);

#endif
