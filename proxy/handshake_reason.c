#include "proxy/handshake_reason.h"

#include <stdbool.h>
#include <stddef.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/sslerr.h>

/* An alert from the client is queued as a reason of this plus the alert's number. */
#define ALERT_REASON SSL_AD_REASON_OFFSET

static const struct {
    int reason;
    const char *text;
} REASONS[] = {
    {SSL_R_HTTP_REQUEST, "not TLS: HTTP request"},
    {SSL_R_HTTPS_PROXY_REQUEST, "not TLS: HTTP proxy request"},
    {SSL_R_WRONG_VERSION_NUMBER, "not TLS, or a bad record version"},
    {SSL_R_BAD_RECORD_TYPE, "bad record type"},
    {SSL_R_RECORD_LENGTH_MISMATCH, "not TLS: lengths do not fit"},
    {SSL_R_PACKET_LENGTH_TOO_LONG, "record too long"},
    {SSL_R_ENCRYPTED_LENGTH_TOO_LONG, "record too long"},
    {SSL_R_DATA_LENGTH_TOO_LONG, "record too long"},
    {SSL_R_EXCESSIVE_MESSAGE_SIZE, "message too long"},
    {SSL_R_RECORD_TOO_SMALL, "record too small"},
    {SSL_R_UNSUPPORTED_PROTOCOL, "unsupported protocol version"},
    {SSL_R_VERSION_TOO_LOW, "unsupported protocol version"},
    {SSL_R_UNKNOWN_PROTOCOL, "unsupported protocol version"},
    {SSL_R_INAPPROPRIATE_FALLBACK, "fallback to an older version (SCSV)"},
    {SSL_R_NO_SHARED_CIPHER, "no shared cipher"},
    {SSL_R_NO_CIPHERS_SPECIFIED, "client offered no cipher"},
    {SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS, "no shared signature algorithm"},
    {SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, "no shared signature algorithm"},
    {SSL_R_MISSING_SIGALGS_EXTENSION, "client offered no signature algorithm"},
    {SSL_R_NO_SHARED_GROUPS, "no shared group"},
    {SSL_R_NO_SUITABLE_GROUPS, "no shared group"},
    {SSL_R_NO_SUITABLE_KEY_SHARE, "no shared group"},
    {SSL_R_MISSING_SUPPORTED_GROUPS_EXTENSION, "client offered no group"},
    {SSL_R_BAD_KEY_SHARE, "bad key share"},
    {SSL_R_BAD_ECPOINT, "bad key share"},
    {SSL_R_NO_APPLICATION_PROTOCOL, "no shared application protocol"},
    {SSL_R_BAD_EXTENSION, "bad extension"},
    {SSL_R_SSL3_EXT_INVALID_MAX_FRAGMENT_LENGTH, "bad extension"},
    {SSL_R_LENGTH_MISMATCH, "message does not parse"},
    {SSL_R_BAD_LENGTH, "message does not parse"},
    {SSL_R_LENGTH_TOO_SHORT, "message does not parse"},
    {SSL_R_UNEXPECTED_MESSAGE, "unexpected message"},
    {SSL_R_UNEXPECTED_RECORD, "unexpected message"},
    {SSL_R_CCS_RECEIVED_EARLY, "unexpected message"},
    {SSL_R_DIGEST_CHECK_FAILED, "wrong Finished message"},
    {SSL_R_BAD_DIGEST_LENGTH, "wrong Finished message"},
    {SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, "record does not decrypt"},
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

static struct handshake_reason alert_reason(size_t alert)
{
    const char *text = alert < ALERT_COUNT ? ALERTS[alert] : NULL;
    return (struct handshake_reason){HANDSHAKE_FAULT_CLIENT, text != NULL ? text : "client sent an alert"};
}

static struct handshake_reason other_reason(unsigned long error)
{
    const char *text = ERR_reason_error_string(error);
    /* libssl's own reasons are about what the peer sent; the common ones (no memory, internal error) and the
     * other libraries' are about us. */
    bool of_peer = ERR_GET_LIB(error) == ERR_LIB_SSL && !ERR_COMMON_ERROR(error);
    return (struct handshake_reason){of_peer ? HANDSHAKE_FAULT_CLIENT : HANDSHAKE_FAULT_INTERNAL,
                                     text != NULL ? text : "unnamed OpenSSL error"};
}

static bool known_reason(unsigned long error, struct handshake_reason *known)
{
    int reason = ERR_GET_REASON(error);
    if (ERR_GET_LIB(error) != ERR_LIB_SSL)
        return false;
    if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        *known = (struct handshake_reason){HANDSHAKE_FAULT_CLIENT_GONE, "client closed"};
        return true;
    }
    if (reason >= ALERT_REASON && reason < ALERT_REASON + 256) {
        *known = alert_reason((size_t)(reason - ALERT_REASON));
        return true;
    }
    for (size_t i = 0; i < sizeof REASONS / sizeof *REASONS; i++) {
        if (REASONS[i].reason == reason) {
            *known = (struct handshake_reason){HANDSHAKE_FAULT_CLIENT, REASONS[i].text};
            return true;
        }
    }
    return false;
}

struct handshake_reason handshake_reason_of(unsigned long first, unsigned long last)
{
    struct handshake_reason known;
    if (first == 0)
        return (struct handshake_reason){HANDSHAKE_FAULT_INTERNAL, "no reason given by OpenSSL"};
    if (known_reason(first, &known) || known_reason(last, &known))
        return known;
    return other_reason(first);
}
