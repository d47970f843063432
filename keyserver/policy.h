/*
 * Who may do what: the client entries of the configuration, against the keys that there are.
 *
 * Each entry has a table of its own with the keys that it may use, found by SKI, and no other table is ever
 * asked on its behalf: a key that a client may not use takes the same path as one that does not exist.
 * Front ends and the signer have a policy each, made from the same configuration; the signer's is the one
 * that counts.
 */
#ifndef KEYLESS_KEYSERVER_POLICY_H
#define KEYLESS_KEYSERVER_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/x509.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/result.h"
#include "keyserver/config.h"
#include "keyserver/key_table.h"
#include "keyserver/rate_bucket.h"
#include "keyserver/site_certificates.h"

struct policy;

/* config and keys are borrowed and must outlive the policy; keys must be sorted. */
MUST_CHECK enum result policy_new(const struct keyserver_config *config, const struct key_table *keys,
                                  struct policy **policy, struct failure *why);
void policy_free(struct policy *policy);

/* The first entry that this certificate matches. False: none does. */
MUST_CHECK bool policy_match(const struct policy *policy, X509 *certificate, size_t *entry);

/* Entries are numbered as in the configuration. */
size_t policy_entries(const struct policy *policy);
/* Of enum keyserver_allow, with what `require` takes away gone and transcript where tls13 implies it; but no
 * transcript where no `certificates` are configured, against which one could be checked. */
unsigned policy_allow(const struct policy *policy, size_t entry);

/* An entry whose clients are turned away; nothing is allowed to it. */
bool policy_denies(const struct policy *policy, size_t entry);
/* Whether the entry may have signatures with this TLS SignatureScheme; 0: with something that is none. */
bool policy_allows_scheme(const struct policy *policy, size_t entry, uint16_t scheme);
/* Whether it may have them for handshakes that agree on this protocol; size 0: on none. */
bool policy_allows_protocol(const struct policy *policy, size_t entry, struct bytes alpn);

/* The buckets that the entries' `rate` is kept in, borrowed, by the entries' numbers of theirs; and how many
 * seconds' worth may be taken at once. No rate is kept until this was called. */
struct policy_rates {
    struct rate_bucket *buckets;
    const size_t *numbers;
    unsigned burst;
};
void policy_use_rates(struct policy *policy, const struct policy_rates *rates);
/* Counts an operation of the entry's; false: it is over its rate. now is clock_now(). */
bool policy_admits(const struct policy *policy, size_t entry, uint64_t now);

/* The sites' certificates, borrowed, which transcripts are checked against. None until this was called. */
void policy_use_certificates(struct policy *policy, const struct site_certificates *certificates);
/* A leaf of this key. NULL: not one of ours. */
const struct site_leaf *policy_find_leaf(const struct policy *policy,
                                         const uint8_t ski[static KEY_ID_SKI_SIZE], struct bytes der);
/* Whether the entry's `names` hold this SNI; size 0: none. */
bool policy_allows_name(const struct policy *policy, size_t entry, struct bytes sni);
/* Whether they hold every name of every certificate of this key: without a transcript the SNI is only
 * claimed, and a signature would serve for any of them. A key without certificates may serve for any name. */
bool policy_names_cover(const struct policy *policy, size_t entry, const uint8_t ski[static KEY_ID_SKI_SIZE]);
/* Whether one of this key's certificates is for this SNI; size 0: whether it has any. */
bool policy_has_leaf_for(const struct policy *policy, const uint8_t ski[static KEY_ID_SKI_SIZE],
                         struct bytes sni);
/* Calls `uncovered` for each key of an entry's of which that is not so. */
void policy_each_uncovered(const struct policy *policy,
                           void (*uncovered)(const struct keyserver_client *client,
                                             const struct key_info *key, void *owner),
                           void *owner);

/* A key that this entry may use; *key is its index in the table of keys. */
MUST_CHECK bool policy_find(const struct policy *policy, size_t entry,
                            const uint8_t ski[static KEY_ID_SKI_SIZE], size_t *key);
/* ... by its legacy digest. */
MUST_CHECK bool policy_find_digest(const struct policy *policy, size_t entry,
                                   const uint8_t digest[static KEY_ID_DIGEST_SIZE], size_t *key);
const struct key_info *policy_key(const struct policy *policy, size_t key);

/* The keys that this entry may use, by ascending SKI: those from place *at on. policy_list_start finds the
 * place behind an SKI (NULL: the first); policy_list_next is NULL at the end. */
size_t policy_list_start(const struct policy *policy, size_t entry, const uint8_t *after_ski);
const struct key_info *policy_list_next(const struct policy *policy, size_t entry, size_t *at);

/* Calls `unused` for each of the patterns in `keys` that no key matches: most likely a slip of the
 * operator's. */
void policy_each_unused(const struct policy *policy,
                        void (*unused)(const struct keyserver_client *client, const char *pattern,
                                       void *owner),
                        void *owner);

#endif
