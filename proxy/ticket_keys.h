/*
 * The keys of session tickets that are in use: which one makes new tickets and which ones open those that
 * there are. Plain values without pointers, so that they can be copied to memory that processes share.
 */
#ifndef KEYLESS_PROXY_TICKET_KEYS_H
#define KEYLESS_PROXY_TICKET_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/kssl.h"
#include "common/result.h"
#include "common/ticket_chain.h"

enum {
    TICKET_NAME_SIZE = 16,
    TICKET_SECRET_MAX = 32,
    TICKET_KEYS_MAX = KSSL_TICKET_KEYS_MAX,
};

struct ticket_key {
    uint8_t name[TICKET_NAME_SIZE];
    uint32_t secret_size; /* of each of the two: 32, or 16 for keys of 48 octets from a file */
    uint8_t aes_key[TICKET_SECRET_MAX], hmac_key[TICKET_SECRET_MAX];
    uint64_t not_before; /* Unix seconds: the first in which it makes tickets */
    uint64_t not_after;  /* the last in which it opens them */
};

struct ticket_keys {
    uint64_t since; /* Unix seconds: when these were told; 0: there are none */
    uint32_t count;
    uint32_t generation;                     /* counted up with each change, for who has a copy */
    struct ticket_key keys[TICKET_KEYS_MAX]; /* the present one first, then the next, then older ones */
};

/* The one that makes tickets in this second; NULL: none may. */
const struct ticket_key *ticket_keys_making(const struct ticket_keys *keys, uint64_t now);
/* The one with this name, if it still opens tickets in this second. */
const struct ticket_key *ticket_keys_opening(const struct ticket_keys *keys,
                                             const uint8_t name[static TICKET_NAME_SIZE], uint64_t now);

/* What a key server has answered (operation 0x66). RESULT_PROTOCOL: not of the form. RESULT_PEER: its clock
 * is more than one rotation off ours, so that we would refuse what it makes or it what we make. */
MUST_CHECK enum result ticket_keys_parse(struct bytes payload, uint64_t now, struct ticket_keys *keys,
                                         struct failure *why);

/* Keys that only this proxy has: of the epochs of this chain that are still of use. False: libcrypto failed,
 * or the clock is behind the chain. */
struct ticket_times {
    uint32_t rotate, lifetime; /* seconds */
};
MUST_CHECK bool ticket_keys_derive(const struct ticket_chain *chain, const struct ticket_times *times,
                                   uint64_t now, struct ticket_keys *keys);

/* The octets of one key in a file, 48 or 80 (nginx's and HAProxy's forms): name, then for 48 AES and HMAC key
 * of 16 each, for 80 HMAC and AES key of 32 each. False: another size. */
MUST_CHECK bool ticket_key_from_file(struct bytes octets, struct ticket_key *key);

#endif
