/*
 * What the file `ticket_keys.secret` holds: the chain's value of the oldest epoch that is still needed, and
 * who is in which ticket group, so that a group's generation is raised when somebody leaves it. Pure.
 *
 *     chain record (512)   the same twice, so that one is whole when the other is torn while it is written
 *     chain record (512)
 *     SHA-256(32) over what follows
 *     groups(4) members(4)
 *     groups of             id(16) generation(4)        by ascending id
 *     members of            group id(16) id(16)         by ascending ids
 *
 * chain record: magic(16) rotate(4) epoch(8) value(32) SHA-256(32) over all that, zeros.
 *
 * A file of exactly 32 octets is one that an operator has made (openssl rand 32): the value of epoch 0.
 */
#ifndef KEYLESS_KEYSERVER_TICKET_STATE_H
#define KEYLESS_KEYSERVER_TICKET_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/result.h"
#include "common/ticket_chain.h"

enum {
    TICKET_ID_SIZE = 16,
    TICKET_CHAIN_RECORD_SIZE = 512,
    TICKET_GROUPS_MAX = 65536,
    TICKET_MEMBERS_MAX = 65536,
};

/* A digest of a group's or a member's name. */
struct ticket_id {
    uint8_t octets[TICKET_ID_SIZE];
};

struct ticket_group {
    struct ticket_id id;
    uint32_t generation;
};

struct ticket_member {
    struct ticket_id group, id;
};

struct ticket_state {
    uint32_t rotate; /* seconds; 0: not known yet */
    struct ticket_chain chain;
    struct ticket_group *groups; /* by ascending id; those that everybody has left, too */
    size_t group_count;
    struct ticket_member *members; /* by ascending ids */
    size_t member_count;
};

/* False: libcrypto failed. */
MUST_CHECK bool ticket_id_of(struct bytes name, struct ticket_id *id);

/* RESULT_CONFIG, RESULT_LIMIT; state is cleared by the caller in any case. */
MUST_CHECK enum result ticket_state_parse(struct bytes octets, struct ticket_state *state,
                                          struct failure *why);
size_t ticket_state_size(const struct ticket_state *state);
/* to needs ticket_state_size octets. False: libcrypto failed. */
MUST_CHECK bool ticket_state_write(struct writer *to, const struct ticket_state *state);
/* The first TICKET_CHAIN_RECORD_SIZE octets of that. */
MUST_CHECK bool ticket_chain_record_write(struct writer *to, const struct ticket_state *state);
/* Frees what it holds and clears it. */
void ticket_state_clear(struct ticket_state *state);

/* These are the members from now on, in any order, none twice: each that has left raises its group's
 * generation by one. *changed: the state is another one than before. */
MUST_CHECK enum result ticket_state_settle(struct ticket_state *state, const struct ticket_member *members,
                                           size_t count, bool *changed, struct failure *why);

/* NULL: nobody has ever been in it. */
const struct ticket_group *ticket_state_group(const struct ticket_state *state, const struct ticket_id *id);

#endif
