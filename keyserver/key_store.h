/* The site keys: private halves, which only the signer has, and beside each what may be known about it. */
#ifndef KEYLESS_KEYSERVER_KEY_STORE_H
#define KEYLESS_KEYSERVER_KEY_STORE_H

#include <stddef.h>

#include <openssl/evp.h>

#include "common/result.h"
#include "keyserver/config.h"
#include "keyserver/key_table.h"

struct key_store;

/*
 * Reads every *.key and *.pem (hidden files aside) of the configuration's directories: all of them or none.
 * RESULT_CONFIG names the file or the line: what key_file_read refuses, a file of the user that front ends
 * run as (when started as root), keys of kinds that are not served, private halves that do not belong to
 * their public ones, the same key twice, a directory that cannot be read, and no key at all.
 */
MUST_CHECK enum result key_store_load(const struct keyserver_config *config, struct key_store **store,
                                      struct failure *why);
void key_store_free(struct key_store *store);

/* By ascending SKI. */
const struct key_table *key_store_table(const struct key_store *store);
/* A duplicate of the private key of the table's key with this index, the caller's own: threads share none.
 * May be called by any thread. NULL: no memory. */
EVP_PKEY *key_store_duplicate(struct key_store *store, size_t key);

#endif
