#include "proxy/handshake_reason.h"

#include <stdbool.h>
#include <stddef.h>

#include <openssl/err.h>
#include <openssl/proverr.h>
#include <openssl/ssl.h>
#include <openssl/sslerr.h>

/* An alert from the client is queued as a reason of this plus the alert's number. */
#define ALERT_REASON SSL_AD_REASON_OFFSET

static const struct {
    int reason;
    enum handshake_class class;
    const char *text;
} REASONS[] = {
    {SSL_R_HTTP_REQUEST, HANDSHAKE_CLASS_NOT_TLS, "not TLS: HTTP request"},
    {SSL_R_HTTPS_PROXY_REQUEST, HANDSHAKE_CLASS_NOT_TLS, "not TLS: HTTP proxy request"},
    {SSL_R_WRONG_VERSION_NUMBER, HANDSHAKE_CLASS_NOT_TLS, "not TLS, or a bad record version"},
    {SSL_R_BAD_RECORD_TYPE, HANDSHAKE_CLASS_NOT_TLS, "bad record type"},
    {SSL_R_RECORD_LENGTH_MISMATCH, HANDSHAKE_CLASS_NOT_TLS, "not TLS: lengths do not fit"},
    {SSL_R_PACKET_LENGTH_TOO_LONG, HANDSHAKE_CLASS_MALFORMED, "record too long"},
    {SSL_R_ENCRYPTED_LENGTH_TOO_LONG, HANDSHAKE_CLASS_MALFORMED, "record too long"},
    {SSL_R_DATA_LENGTH_TOO_LONG, HANDSHAKE_CLASS_MALFORMED, "record too long"},
    {SSL_R_EXCESSIVE_MESSAGE_SIZE, HANDSHAKE_CLASS_MALFORMED, "message too long"},
    {SSL_R_RECORD_TOO_SMALL, HANDSHAKE_CLASS_MALFORMED, "record too small"},
    {SSL_R_UNSUPPORTED_PROTOCOL, HANDSHAKE_CLASS_VERSION, "unsupported protocol version"},
    {SSL_R_VERSION_TOO_LOW, HANDSHAKE_CLASS_VERSION, "unsupported protocol version"},
    {SSL_R_UNKNOWN_PROTOCOL, HANDSHAKE_CLASS_VERSION, "unsupported protocol version"},
    {SSL_R_INAPPROPRIATE_FALLBACK, HANDSHAKE_CLASS_VERSION, "fallback to an older version (SCSV)"},
    {SSL_R_NO_SHARED_CIPHER, HANDSHAKE_CLASS_CIPHER, "no shared cipher"},
    {SSL_R_NO_CIPHERS_SPECIFIED, HANDSHAKE_CLASS_CIPHER, "client offered no cipher"},
    {SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, HANDSHAKE_CLASS_SCHEME, "no shared signature algorithm"},
    {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, HANDSHAKE_CLASS_SCHEME, "no shared signature algorithm"},
    {SSL_R_MISSING_SIGALGS_EXTENSION, HANDSHAKE_CLASS_SCHEME, "client offered no signature algorithm"},
    {SSL_R_NO_SHARED_GROUPS, HANDSHAKE_CLASS_GROUP, "no shared group"},
    {SSL_R_NO_SUITABLE_GROUPS, HANDSHAKE_CLASS_GROUP, "no shared group"},
    {SSL_R_NO_SUITABLE_KEY_SHARE, HANDSHAKE_CLASS_GROUP, "no shared group"},
    {SSL_R_MISSING_SUPPORTED_GROUPS_EXTENSION, HANDSHAKE_CLASS_GROUP, "client offered no group"},
    {SSL_R_BAD_KEY_SHARE, HANDSHAKE_CLASS_MALFORMED, "bad key share"},
    {SSL_R_BAD_ECPOINT, HANDSHAKE_CLASS_MALFORMED, "bad key share"},
    {SSL_R_NO_APPLICATION_PROTOCOL, HANDSHAKE_CLASS_ALPN, "no shared application protocol"},
    {SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, HANDSHAKE_CLASS_NO_CLIENT_CERTIFICATE, "no client certificate"},
    {SSL_R_CERTIFICATE_VERIFY_FAILED, HANDSHAKE_CLASS_CLIENT_CERTIFICATE, "client certificate refused"},
    {SSL_R_BAD_SIGNATURE, HANDSHAKE_CLASS_CLIENT_CERTIFICATE, "client has not the key of its certificate"},
    {SSL_R_BAD_EXTENSION, HANDSHAKE_CLASS_MALFORMED, "bad extension"},
    {SSL_R_SSL3_EXT_INVALID_MAX_FRAGMENT_LENGTH, HANDSHAKE_CLASS_MALFORMED, "bad extension"},
    {SSL_R_LENGTH_MISMATCH, HANDSHAKE_CLASS_MALFORMED, "message does not parse"},
    {SSL_R_BAD_LENGTH, HANDSHAKE_CLASS_MALFORMED, "message does not parse"},
    {SSL_R_LENGTH_TOO_SHORT, HANDSHAKE_CLASS_MALFORMED, "message does not parse"},
    {SSL_R_UNEXPECTED_MESSAGE, HANDSHAKE_CLASS_MALFORMED, "unexpected message"},
    {SSL_R_UNEXPECTED_RECORD, HANDSHAKE_CLASS_MALFORMED, "unexpected message"},
    {SSL_R_CCS_RECEIVED_EARLY, HANDSHAKE_CLASS_MALFORMED, "unexpected message"},
    {SSL_R_DIGEST_CHECK_FAILED, HANDSHAKE_CLASS_MALFORMED, "wrong Finished message"},
    {SSL_R_BAD_DIGEST_LENGTH, HANDSHAKE_CLASS_MALFORMED, "wrong Finished message"},
    {SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, HANDSHAKE_CLASS_MALFORMED, "record does not decrypt"},
};

/* RFC 8446 section 6 and the older ones that still come. */
static const char *const ALERTS[] = {
    [SSL_AD_CLOSE_NOTIFY] = "client closed",
    [SSL_AD_UNEXPECTED_MESSAGE] = "client sent alert: unexpected message",
    [SSL_AD_BAD_RECORD_MAC] = "client sent alert: bad record MAC",
    [SSL_AD_RECORD_OVERFLOW] = "client sent alert: record overflow",
    [SSL_AD_DECOMPRESSION_FAILURE] = "client sent alert: decompression failure",
    [SSL_AD_HANDSHAKE_FAILURE] = "client sent alert: handshake failure",
    [SSL_AD_BAD_CERTIFICATE] = "client sent alert: bad certificate",
    [SSL_AD_UNSUPPORTED_CERTIFICATE] = "client sent alert: unsupported certificate",
    [SSL_AD_CERTIFICATE_REVOKED] = "client sent alert: certificate revoked",
    [SSL_AD_CERTIFICATE_EXPIRED] = "client sent alert: certificate expired",
    [SSL_AD_CERTIFICATE_UNKNOWN] = "client sent alert: certificate unknown",
    [SSL_AD_ILLEGAL_PARAMETER] = "client sent alert: illegal parameter",
    [SSL_AD_UNKNOWN_CA] = "client sent alert: unknown CA",
    [SSL_AD_ACCESS_DENIED] = "client sent alert: access denied",
    [SSL_AD_DECODE_ERROR] = "client sent alert: decode error",
    [SSL_AD_DECRYPT_ERROR] = "client sent alert: decrypt error",
    [SSL_AD_PROTOCOL_VERSION] = "client sent alert: protocol version",
    [SSL_AD_INSUFFICIENT_SECURITY] = "client sent alert: insufficient security",
    [SSL_AD_INTERNAL_ERROR] = "client sent alert: internal error",
    [SSL_AD_INAPPROPRIATE_FALLBACK] = "client sent alert: inappropriate fallback",
    [SSL_AD_USER_CANCELLED] = "client sent alert: user cancelled",
    [SSL_AD_MISSING_EXTENSION] = "client sent alert: missing extension",
    [SSL_AD_UNSUPPORTED_EXTENSION] = "client sent alert: unsupported extension",
    [SSL_AD_UNRECOGNIZED_NAME] = "client sent alert: unrecognised name",
    [SSL_AD_BAD_CERTIFICATE_STATUS_RESPONSE] = "client sent alert: bad certificate status response",
    [SSL_AD_CERTIFICATE_REQUIRED] = "client sent alert: certificate required",
    [SSL_AD_NO_APPLICATION_PROTOCOL] = "client sent alert: no application protocol",
};
#define ALERT_COUNT (sizeof ALERTS / sizeof *ALERTS)

/* Alerts about certificates are numbered in a row (RFC 8446 section 6). */
static enum handshake_class alert_class(size_t alert)
{
    if (alert == SSL_AD_CLOSE_NOTIFY)
        return HANDSHAKE_CLASS_CLOSED;
    bool about_ours = (alert >= SSL_AD_BAD_CERTIFICATE && alert <= SSL_AD_CERTIFICATE_UNKNOWN) ||
                      alert == SSL_AD_UNKNOWN_CA;
    return about_ours ? HANDSHAKE_CLASS_CERTIFICATE : HANDSHAKE_CLASS_ALERT;
}

static struct handshake_reason alert_reason(size_t alert)
{
    const char *text = alert < ALERT_COUNT ? ALERTS[alert] : NULL;
    return (struct handshake_reason){alert_class(alert), text != NULL ? text : "client sent an alert"};
}

static struct handshake_reason other_reason(unsigned long error)
{
    const char *text = ERR_reason_error_string(error);
    /* libssl's own reasons are about what the peer sent; the common ones (no memory, internal error) and the
     * other libraries' are about us. */
    bool of_peer = ERR_GET_LIB(error) == ERR_LIB_SSL && !ERR_COMMON_ERROR(error);
    return (struct handshake_reason){of_peer ? HANDSHAKE_CLASS_MALFORMED : HANDSHAKE_CLASS_INTERNAL,
                                     text != NULL ? text : "unnamed OpenSSL error"};
}

/* From OpenSSL 3.2 on a TLS 1.2 record whose tag is wrong leaves this first, and last only that the record
 * layer failed. Encrypting does not fail in this way. */
static bool is_cipher_failure(unsigned long error)
{
    return ERR_GET_LIB(error) == ERR_LIB_PROV && ERR_GET_REASON(error) == PROV_R_CIPHER_OPERATION_FAILED;
}

static bool known_reason(unsigned long error, struct handshake_reason *known)
{
    int reason = ERR_GET_REASON(error);
    if (is_cipher_failure(error)) {
        *known = (struct handshake_reason){HANDSHAKE_CLASS_MALFORMED, "record does not decrypt"};
        return true;
    }
    if (ERR_GET_LIB(error) != ERR_LIB_SSL)
        return false;
    if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        *known = (struct handshake_reason){HANDSHAKE_CLASS_CLOSED, "client closed"};
        return true;
    }
    if (reason >= ALERT_REASON && reason < ALERT_REASON + 256) {
        *known = alert_reason((size_t)(reason - ALERT_REASON));
        return true;
    }
    for (size_t i = 0; i < sizeof REASONS / sizeof *REASONS; i++) {
        if (REASONS[i].reason == reason) {
            *known = (struct handshake_reason){REASONS[i].class, REASONS[i].text};
            return true;
        }
    }
    return false;
}

struct handshake_reason handshake_reason_of(unsigned long first, unsigned long last)
{
    struct handshake_reason known;
    if (first == 0)
        return (struct handshake_reason){HANDSHAKE_CLASS_INTERNAL, "no reason given by OpenSSL"};
    if (known_reason(first, &known) || known_reason(last, &known))
        return known;
    return other_reason(first);
}

enum handshake_fault handshake_fault_of(enum handshake_class class)
{
    static const enum handshake_fault FAULTS[HANDSHAKE_CLASSES] = {
        [HANDSHAKE_CLASS_NONE] = HANDSHAKE_FAULT_NONE,
        [HANDSHAKE_CLASS_CLOSED] = HANDSHAKE_FAULT_CLIENT_GONE,
        [HANDSHAKE_CLASS_RESET] = HANDSHAKE_FAULT_CLIENT_GONE,
        [HANDSHAKE_CLASS_NOT_TLS] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_VERSION] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_CIPHER] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_GROUP] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_SCHEME] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_ALPN] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_NAME] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_CERTIFICATE] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_NO_CLIENT_CERTIFICATE] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_CLIENT_CERTIFICATE] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_ALERT] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_MALFORMED] = HANDSHAKE_FAULT_CLIENT,
        [HANDSHAKE_CLASS_KEY_NO_SERVER] = HANDSHAKE_FAULT_KEY,
        [HANDSHAKE_CLASS_KEY_TIMEOUT] = HANDSHAKE_FAULT_KEY,
        [HANDSHAKE_CLASS_KEY_ERROR] = HANDSHAKE_FAULT_KEY,
        [HANDSHAKE_CLASS_KEY_INVALID] = HANDSHAKE_FAULT_KEY,
        [HANDSHAKE_CLASS_KEY_WRONG] = HANDSHAKE_FAULT_KEY,
        [HANDSHAKE_CLASS_KEY_REFUSED] = HANDSHAKE_FAULT_KEY,
        [HANDSHAKE_CLASS_KEY_TOO_MANY] = HANDSHAKE_FAULT_KEY,
        [HANDSHAKE_CLASS_KEY_TRANSCRIPT] = HANDSHAKE_FAULT_KEY,
        [HANDSHAKE_CLASS_TIMEOUT] = HANDSHAKE_FAULT_ABORTED,
        [HANDSHAKE_CLASS_DROPPED] = HANDSHAKE_FAULT_ABORTED,
        [HANDSHAKE_CLASS_INTERNAL] = HANDSHAKE_FAULT_INTERNAL,
    };
    return FAULTS[class];
}
