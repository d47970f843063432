/*
 * What is told of each operation for the audit, as the signer hands it to the auditor: a codec, pure. In a
 * message of the link between them (signer_link.h); what is claimed by an edge, or by the front end alone, is
 * marked so.
 */
#ifndef KEYLESS_KEYSERVER_AUDIT_RECORD_H
#define KEYLESS_KEYSERVER_AUDIT_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "keyserver/sign_request.h"

enum audit_message_type {
    AUDIT_RECORD = 0x21, /* the signer tells */
    AUDIT_WRITTEN = 0x22 /* the auditor has written all records up to this number */
};

enum {
    AUDIT_SIGNED_MAX = 64,
    AUDIT_MESSAGE_MAX = 512,
};

/* How it ended; a number never gets another meaning. */
enum audit_outcome {
    AUDIT_DONE = 1,      /* signed, decrypted, or ticket keys given */
    AUDIT_FAILED = 2,    /* tried in vain */
    AUDIT_FORBIDDEN = 3, /* a front end let it through, the signer did not */
    AUDIT_REPLAYED = 4,  /* refused for having been asked for before */
};

struct audit_record {
    uint64_t number; /* counted up; no two signers share one */
    uint64_t time;   /* when it was handed on; Unix microseconds */
    uint16_t entry;  /* of the client, as the front end says */
    uint8_t opcode;
    uint8_t outcome;              /* enum audit_outcome */
    uint8_t error;                /* enum kssl_error */
    bool replay;                  /* it had been asked for before */
    uint8_t ski[KEY_ID_SKI_SIZE]; /* zeros: none */
    uint8_t signed_size;          /* 0: nothing was */
    uint8_t
        signed_octets[AUDIT_SIGNED_MAX]; /* SHA-256 of what was signed or decrypted; of a bare digest, it */
    uint8_t sni_size;
    uint8_t sni[SIGN_SNI_MAX];
    uint8_t client_ip_size; /* claimed */
    uint8_t client_ip[SIGN_CLIENT_IP_MAX];
    uint8_t name_size; /* claimed: the edge's own for the request */
    uint8_t name[KSSL_REQUEST_ID_MAX];
};

/* Each appends one whole message, of AUDIT_MESSAGE_MAX octets at most. */
void audit_record_write(struct writer *to, const struct audit_record *record);
void audit_written_write(struct writer *to, uint64_t number);

/* Of a message's body. False: malformed. */
MUST_CHECK bool audit_record_parse(struct bytes body, struct audit_record *record);
MUST_CHECK bool audit_written_parse(struct bytes body, uint64_t *number);

/* "done", "failed", ... */
const char *audit_outcome_name(uint8_t outcome);

#endif
