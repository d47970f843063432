/*
 * The keys of session tickets, for the edges of each ticket group (common/protocol.md, 0x66). The signer's:
 * it alone has the chain that they come from.
 */
#ifndef KEYLESS_KEYSERVER_TICKET_KEYS_H
#define KEYLESS_KEYSERVER_TICKET_KEYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/kssl.h"
#include "common/result.h"
#include "keyserver/config.h"

struct ticket_keys;

enum { TICKET_KEYS_ANSWER_MAX = 1 + KSSL_TICKET_KEYS_MAX * KSSL_TICKET_KEY_SIZE };

/*
 * For who may read and replace the secret's file: raises the generation of every group that somebody has
 * left, and brings the chain to where it is needed, in memory and in the file. *keys is NULL if the
 * configuration has none. RESULT_CONFIG: the file is not as it must be. config is borrowed.
 */
MUST_CHECK enum result ticket_keys_open(const struct keyserver_config *config, uint64_t unix_seconds,
                                        struct ticket_keys **keys, struct failure *why);
/* The same, but nothing is changed: what `-t` does. */
MUST_CHECK enum result ticket_keys_check(const struct keyserver_config *config, uint64_t unix_seconds,
                                         struct failure *why);
/* Clears what is secret; NULL is allowed. */
void ticket_keys_free(struct ticket_keys *keys);

/* Appends the payload of an answer to this client entry; to needs TICKET_KEYS_ANSWER_MAX octets. False: the
 * entry has no group, or the clock says a time whose keys cannot be had any more. */
MUST_CHECK bool ticket_keys_write(struct ticket_keys *keys, size_t entry, uint64_t unix_seconds,
                                  struct writer *to);

/* Forgets what is no longer needed, in memory and in the file: to be called every second or so. RESULT_OK: it
 * did, or there was nothing to do. */
MUST_CHECK enum result ticket_keys_forget(struct ticket_keys *keys, uint64_t unix_seconds,
                                          struct failure *why);

/* Calls `mixed` for each entry of a group whose names are others than those of the entry before it in the
 * group: each of them can pass for the other. */
void ticket_keys_each_mixed(const struct keyserver_config *config,
                            void (*mixed)(const struct keyserver_client *client,
                                          const struct keyserver_client *other, void *owner),
                            void *owner);

#endif
