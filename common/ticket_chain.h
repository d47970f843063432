/*
 * The one-way chain that ticket keys come from (common/protocol.md, 0x66). Time is cut into epochs of
 * `rotate` seconds, numbered from 1970; each has its value, from which the next one's can be had and no
 * earlier one's. A group's key of an epoch comes from that epoch's value, so key servers that have started
 * from one secret make the same keys.
 */
#ifndef KEYLESS_COMMON_TICKET_CHAIN_H
#define KEYLESS_COMMON_TICKET_CHAIN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"

enum {
    TICKET_CHAIN_SIZE = 32,
    TICKET_KEY_SIZE = 80, /* name 16, AES key 32, HMAC key 32 */
    TICKET_GROUP_MAX = 255,
};

struct ticket_chain {
    uint64_t epoch;
    uint8_t value[TICKET_CHAIN_SIZE]; /* a secret */
};

/* Whose a key is, beside its epoch. */
struct ticket_key_owner {
    struct bytes group;  /* at most TICKET_GROUP_MAX octets */
    uint32_t generation; /* of the group: raised when somebody leaves it */
    uint32_t rotate;     /* seconds */
};

/* More steps take the better part of a minute: something is wrong with a clock or a file. */
#define TICKET_STEPS_MAX UINT64_C(50000000)

/* Walks to a later epoch, about a microsecond for each on the way; the values passed are cleared. False:
 * the epoch is an earlier one, which cannot be had, or libcrypto failed; the chain is as it was. */
MUST_CHECK bool ticket_chain_advance(struct ticket_chain *chain, uint64_t epoch);

/* The owner's key of the chain's own epoch. False: libcrypto failed, or the group is too long. */
MUST_CHECK bool ticket_chain_key(const struct ticket_chain *chain, const struct ticket_key_owner *owner,
                                 uint8_t key[static TICKET_KEY_SIZE]);

/* What a key's octets are, in this order; borrowed. */
struct ticket_key_parts {
    struct bytes name, aes_key, hmac_key;
};

static inline struct ticket_key_parts ticket_key_parts(const uint8_t key[static TICKET_KEY_SIZE])
{
    return (struct ticket_key_parts){bytes_of(key, 16), bytes_of(key + 16, 32), bytes_of(key + 48, 32)};
}

/* The epoch that this second lies in. */
static inline uint64_t ticket_epoch_of(uint64_t unix_seconds, uint32_t rotate)
{
    return unix_seconds / rotate;
}

/* The first second of an epoch. */
static inline uint64_t ticket_epoch_start(uint64_t epoch, uint32_t rotate)
{
    return epoch * rotate;
}

/* The last second in which an epoch's key opens tickets: so many seconds after its end. */
static inline uint64_t ticket_epoch_end(uint64_t epoch, uint32_t rotate, uint64_t lifetime)
{
    return ticket_epoch_start(epoch + 1, rotate) + lifetime;
}

/* The oldest epoch whose key still opens tickets. */
static inline uint64_t ticket_epoch_needed(uint64_t unix_seconds, uint32_t rotate, uint64_t lifetime)
{
    const uint64_t since = unix_seconds > lifetime ? unix_seconds - lifetime : 0;
    const uint64_t ends = since / rotate + (since % rotate != 0 ? 1 : 0);
    return ends > 0 ? ends - 1 : 0;
}

#endif
