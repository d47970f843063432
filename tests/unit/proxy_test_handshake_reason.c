#include "proxy/handshake_reason.h"

#include <openssl/err.h>
#include <openssl/proverr.h>
#include <openssl/ssl.h>
#include <openssl/sslerr.h>

#include "tests/unit/check.h"

#define OF_SSL(reason)   ERR_PACK(ERR_LIB_SSL, 0, (reason))
#define OF_OTHER(reason) ERR_PACK(ERR_LIB_PROV, 0, (reason))
#define ALERT(number)    OF_SSL(SSL_AD_REASON_OFFSET + (number))

static const struct {
    const char *name;
    unsigned long first, last;
    enum handshake_class class;
    enum handshake_fault fault;
    const char *text; /* NULL: OpenSSL's own */
} ROWS[] = {
    {"nothing queued", 0, 0, HANDSHAKE_CLASS_INTERNAL, HANDSHAKE_FAULT_INTERNAL,
     "no reason given by OpenSSL"},
    {"one of the table", OF_SSL(SSL_R_NO_SHARED_CIPHER), OF_SSL(SSL_R_NO_SHARED_CIPHER),
     HANDSHAKE_CLASS_CIPHER, HANDSHAKE_FAULT_CLIENT, "no shared cipher"},
    {"one of libssl's that the table has not", OF_SSL(SSL_R_TOO_MANY_WARN_ALERTS),
     OF_SSL(SSL_R_TOO_MANY_WARN_ALERTS), HANDSHAKE_CLASS_MALFORMED, HANDSHAKE_FAULT_CLIENT, NULL},
    {"the end of the stream", OF_SSL(SSL_R_UNEXPECTED_EOF_WHILE_READING), 0, HANDSHAKE_CLASS_CLOSED,
     HANDSHAKE_FAULT_CLIENT_GONE, "client closed"},
    {"an alert", ALERT(SSL_AD_UNKNOWN_CA), ALERT(SSL_AD_UNKNOWN_CA), HANDSHAKE_CLASS_CERTIFICATE,
     HANDSHAKE_FAULT_CLIENT, "client sent alert: unknown CA"},
    {"an alert about something else", ALERT(SSL_AD_DECODE_ERROR), ALERT(SSL_AD_DECODE_ERROR),
     HANDSHAKE_CLASS_ALERT, HANDSHAKE_FAULT_CLIENT, "client sent alert: decode error"},
    {"an alert that is a farewell", ALERT(SSL_AD_CLOSE_NOTIFY), ALERT(SSL_AD_CLOSE_NOTIFY),
     HANDSHAKE_CLASS_CLOSED, HANDSHAKE_FAULT_CLIENT_GONE, "client closed"},
    {"not TLS", OF_SSL(SSL_R_HTTP_REQUEST), OF_SSL(SSL_R_HTTP_REQUEST), HANDSHAKE_CLASS_NOT_TLS,
     HANDSHAKE_FAULT_CLIENT, "not TLS: HTTP request"},
    {"an alert that nobody knows", ALERT(200), ALERT(200), HANDSHAKE_CLASS_ALERT, HANDSHAKE_FAULT_CLIENT,
     "client sent an alert"},
    {"a client's key, judged by libssl after another library", OF_OTHER(1), OF_SSL(SSL_R_BAD_KEY_SHARE),
     HANDSHAKE_CLASS_MALFORMED, HANDSHAKE_FAULT_CLIENT, "bad key share"},
    {"a record that does not decrypt, as OpenSSL 3.5 tells it", OF_OTHER(PROV_R_CIPHER_OPERATION_FAILED),
     OF_SSL(313), HANDSHAKE_CLASS_MALFORMED, HANDSHAKE_FAULT_CLIENT, "record does not decrypt"},
    {"a client without a certificate", OF_SSL(SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE),
     OF_SSL(SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE), HANDSHAKE_CLASS_NO_CLIENT_CERTIFICATE,
     HANDSHAKE_FAULT_CLIENT, "no client certificate"},
    {"a client without its key, found out by another library", OF_OTHER(1), OF_SSL(SSL_R_BAD_SIGNATURE),
     HANDSHAKE_CLASS_CLIENT_CERTIFICATE, HANDSHAKE_FAULT_CLIENT, "client has not the key of its certificate"},
    {"the first that is known", OF_SSL(SSL_R_BAD_EXTENSION), OF_SSL(SSL_R_NO_SHARED_CIPHER),
     HANDSHAKE_CLASS_MALFORMED, HANDSHAKE_FAULT_CLIENT, "bad extension"},
    {"another library alone", OF_OTHER(1), OF_OTHER(2), HANDSHAKE_CLASS_INTERNAL, HANDSHAKE_FAULT_INTERNAL,
     NULL},
    {"no memory", OF_SSL(ERR_R_MALLOC_FAILURE), OF_SSL(ERR_R_MALLOC_FAILURE), HANDSHAKE_CLASS_INTERNAL,
     HANDSHAKE_FAULT_INTERNAL, NULL},
    {"another library, then libssl at a loss", OF_OTHER(1), OF_SSL(ERR_R_INTERNAL_ERROR),
     HANDSHAKE_CLASS_INTERNAL, HANDSHAKE_FAULT_INTERNAL, NULL},
};

static void test_reasons(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct handshake_reason reason = handshake_reason_of(ROWS[i].first, ROWS[i].last);
        CHECK(ROWS[i].name, reason.class == ROWS[i].class);
        CHECK(ROWS[i].name, handshake_fault_of(reason.class) == ROWS[i].fault);
        CHECK(ROWS[i].name, reason.text != NULL && *reason.text != '\0');
        CHECK(ROWS[i].name, ROWS[i].text == NULL || strcmp(reason.text, ROWS[i].text) == 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reasons),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
