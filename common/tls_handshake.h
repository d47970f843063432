/*
 * The handshake messages that a TLS 1.3 transcript consists of up to the server's Certificate (RFC 8446
 * section 4), taken apart. Pure: nothing here allocates; every slice borrows from the input. Parsers demand
 * the message's whole form and nothing behind it, and that no extension stands twice; what the values mean
 * is the caller's to judge.
 */
#ifndef KEYLESS_COMMON_TLS_HANDSHAKE_H
#define KEYLESS_COMMON_TLS_HANDSHAKE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/result.h"
#include "common/tls_message.h"

enum tls_handshake_type {
    TLS_CLIENT_HELLO = 1,
    TLS_SERVER_HELLO = 2,
    TLS_ENCRYPTED_EXTENSIONS = 8,
    TLS_CERTIFICATE = 11,
    TLS_CERTIFICATE_REQUEST = 13,
    TLS_COMPRESSED_CERTIFICATE = 25, /* RFC 8879 */
    TLS_MESSAGE_HASH = 254,
};

enum tls_extension_type {
    TLS_EXTENSION_SERVER_NAME = 0,
    TLS_EXTENSION_MAX_FRAGMENT_LENGTH = 1,
    TLS_EXTENSION_STATUS_REQUEST = 5,
    TLS_EXTENSION_SUPPORTED_GROUPS = 10,
    TLS_EXTENSION_SIGNATURE_ALGORITHMS = 13,
    TLS_EXTENSION_ALPN = 16,
    TLS_EXTENSION_SCT = 18,
    TLS_EXTENSION_RECORD_SIZE_LIMIT = 28,
    TLS_EXTENSION_PRE_SHARED_KEY = 41,
    TLS_EXTENSION_EARLY_DATA = 42,
    TLS_EXTENSION_SUPPORTED_VERSIONS = 43,
    TLS_EXTENSION_COOKIE = 44,
    TLS_EXTENSION_KEY_SHARE = 51,
    TLS_EXTENSION_QUIC_PARAMETERS = 57,           /* RFC 9001 section 8.2 */
    TLS_EXTENSION_QUIC_PARAMETERS_DRAFT = 0xFFA5, /* as drafts had it */
};

struct tls_handshake {
    uint8_t type;
    struct bytes body;
    struct bytes whole; /* with its header of 4 octets */
};

/* Takes one message. False: the header or the body is cut short. */
MUST_CHECK bool tls_handshake_read(struct reader *from, struct tls_handshake *message);

/* ---- Extensions. `list` is what the messages below call extensions: well formed, no type twice. */

/* content.data is never NULL when it is true. */
MUST_CHECK bool tls_extension_find(struct bytes list, uint16_t type, struct bytes *content);
/* Takes the next one of a list. */
MUST_CHECK bool tls_extension_read(struct reader *from, uint16_t *type, struct bytes *content);

/* Whether content is one vector, its length in 1 or 2 octets, of 16-bit numbers: at least one, no half. */
MUST_CHECK bool tls_numbers8_parse(struct bytes content, struct bytes *numbers);
MUST_CHECK bool tls_numbers16_parse(struct bytes content, struct bytes *numbers);
bool tls_numbers_hold(struct bytes numbers, uint16_t wanted);

/* server_name of a ClientHello: exactly one host_name, not empty (RFC 6066 section 3). */
MUST_CHECK bool tls_server_name_parse(struct bytes content, struct bytes *name);

/* A ProtocolNameList (RFC 7301): at least one name, none empty. *names is the list's contents. */
MUST_CHECK bool tls_protocols_parse(struct bytes content, struct bytes *names);
bool tls_protocols_hold(struct bytes names, struct bytes wanted);
/* The list of a server: exactly one name. */
MUST_CHECK bool tls_protocol_chosen(struct bytes content, struct bytes *name);

/* key_share of a ClientHello: a list of shares, none empty; the list itself may be. */
MUST_CHECK bool tls_key_shares_parse(struct bytes content, struct bytes *shares);
/* How many shares there are, and in *found how many of this group. */
size_t tls_key_shares_count(struct bytes shares, uint16_t group, size_t *found);
/* key_share of a ServerHello: one share. */
MUST_CHECK bool tls_key_share_chosen(struct bytes content, uint16_t *group);
/* A content that is one 16-bit number: supported_versions of a ServerHello, key_share of a retry. */
MUST_CHECK bool tls_number_parse(struct bytes content, uint16_t *number);

/* ---- Messages, by their bodies. */

struct tls_client_hello {
    uint16_t legacy_version;
    struct bytes random; /* TLS_RANDOM_SIZE */
    struct bytes session_id;
    struct bytes suites; /* 16-bit numbers */
    struct bytes compression;
    struct bytes extensions;
};
MUST_CHECK bool tls_client_hello_parse(struct bytes body, struct tls_client_hello *hello);

struct tls_server_hello {
    bool retry; /* by its random it is a HelloRetryRequest (RFC 8446 section 4.1.3) */
    uint16_t legacy_version;
    struct bytes random;
    struct bytes session_id;
    uint16_t suite;
    uint8_t compression;
    struct bytes extensions;
};
MUST_CHECK bool tls_server_hello_parse(struct bytes body, struct tls_server_hello *hello);

MUST_CHECK bool tls_encrypted_extensions_parse(struct bytes body, struct bytes *extensions);

struct tls_certificate_request {
    struct bytes context;
    struct bytes extensions;
};
MUST_CHECK bool tls_certificate_request_parse(struct bytes body, struct tls_certificate_request *request);

struct tls_certificate {
    struct bytes context;
    struct bytes entries; /* 1 to 32; each well formed */
    struct bytes leaf;    /* the first one's cert_data */
};
MUST_CHECK bool tls_certificate_parse(struct bytes body, struct tls_certificate *certificate);
/* Takes the next entry. */
MUST_CHECK bool tls_certificate_entry_read(struct reader *from, struct bytes *data, struct bytes *extensions);

#endif
