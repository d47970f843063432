/*
 * What is asked of the signer: typed parts of fixed size, never bytes that somebody else has put together for
 * signing; and the checks that both a front end and the signer make of it.
 *
 * Bare digests, and whole messages for Ed25519, are there for clients that `allow: [digest]` only;
 * ciphertexts for those that `allow: [decrypt]`.
 */
#ifndef KEYLESS_KEYSERVER_SIGN_REQUEST_H
#define KEYLESS_KEYSERVER_SIGN_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/kssl.h"
#include "common/tls_message.h"
#include "keyserver/policy.h"

#define SIGN_DIGEST_MAX    64
#define SIGN_POINT_MAX     133
#define SIGN_SNI_MAX       255 /* no host name is longer: beyond it nothing is signed for */
#define SIGN_CLIENT_IP_MAX 16
#define SIGN_MESSAGE_MAX   KSSL_PAYLOAD_MAX

/* Which member of the union counts; of GIVE_TICKET_KEYS none, and it names no key. */
enum sign_kind { SIGN_TLS13, SIGN_TLS12, SIGN_DIGEST, SIGN_MESSAGE, SIGN_CIPHERTEXT, GIVE_TICKET_KEYS };

struct sign_request {
    uint64_t handle; /* the asker's; comes back with the answer */
    uint16_t entry;  /* the client, by its place in the configuration */
    uint8_t opcode;  /* KSSL_OP_SIGN_TLS13, _TRANSCRIPT (SIGN_TLS13 too, its hash computed from the whole
                        transcript), KSSL_OP_SIGN_TLS12, KSSL_OP_TICKET_KEYS, or a bare operation's */
    enum sign_kind kind;
    uint8_t ski[KEY_ID_SKI_SIZE];
    uint8_t sni_size; /* of handshakes: as the client claims it, or the front end has read it in the
                         transcript; 0: none */
    uint8_t sni[SIGN_SNI_MAX];
    /* For the audit; nothing else looks at what an edge claims here. */
    uint8_t client_ip_size; /* of its client; 0, 4 or 16 */
    uint8_t client_ip[SIGN_CLIENT_IP_MAX];
    uint8_t name_size; /* the edge's own for this request */
    uint8_t name[KSSL_REQUEST_ID_MAX];
    union {
        struct {
            uint16_t scheme;
            uint8_t hash_size;
            uint8_t hash[TLS_TRANSCRIPT_HASH_MAX];
        } tls13;
        struct {
            uint16_t scheme;
            uint16_t group; /* 0: the parameters were not of a form that anybody may sign */
            uint8_t point_size;
            uint8_t client_random[TLS_RANDOM_SIZE];
            uint8_t server_random[TLS_RANDOM_SIZE];
            uint8_t point[SIGN_POINT_MAX];
        } tls12;
        struct {
            uint8_t size; /* 0: of a size that fits no operation */
            uint8_t octets[SIGN_DIGEST_MAX];
        } digest;
        struct bytes message; /* borrowed; of SIGN_MESSAGE and SIGN_CIPHERTEXT */
    };
};

/* What a request borrows; empty: nothing. */
struct bytes sign_request_borrowed(const struct sign_request *request);

/*
 * Whether this entry may have this signature, in the order of the protocol: 0x05 not allowed, 0x02 no such
 * key for it, 0x01 the scheme or digest does not fit the key, 0x41 the content is not acceptable, 0x40 the
 * entry may not have it. *key is the key's index when the answer is KSSL_ERROR_NONE and a key was named;
 * *reason says in fixed
 * words what the error alone does not tell, or is NULL. Costs no public-key arithmetic: whether a point is on
 * its curve is sign_request_point_valid's to say.
 */
MUST_CHECK enum kssl_error sign_request_check(const struct policy *policy, const struct sign_request *request,
                                              size_t *key, const char **reason);

/* True for everything but a SIGN_TLS12 whose point is not on its curve. */
MUST_CHECK bool sign_request_point_valid(const struct sign_request *request);

/* What is signed or decrypted, by a digest: SHA-256, or a bare digest itself; its size, 0: of nothing. */
#define SIGN_DIGEST_OF_MAX SIGN_DIGEST_MAX
size_t sign_request_digest(const struct sign_request *request, uint8_t to[static SIGN_DIGEST_OF_MAX]);

#define SIGN_CONTENT_MAX TLS_SERVER_KEY_EXCHANGE_MAX

/* Rebuilds what is to be signed, for SIGN_TLS13 and SIGN_TLS12; to needs SIGN_CONTENT_MAX octets. */
MUST_CHECK bool sign_request_content(const struct sign_request *request, struct writer *to);

/* The kind of what this opcode asks of the signer; false: it asks nothing of it. */
MUST_CHECK bool sign_kind_of(uint8_t opcode, enum sign_kind *kind);

#endif
