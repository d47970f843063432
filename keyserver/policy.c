#include "keyserver/policy.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "common/certificate_names.h"
#include "common/client_match.h"
#include "keyserver/key_index.h"

/* Entries whose `keys` say the same share one of these, which most of them do ("*"). */
struct key_set {
    char *const *patterns; /* borrowed from the configuration */
    size_t pattern_count;
    size_t *members; /* indices in the table of keys, ascending, and so by ascending SKI */
    size_t count;
    struct key_index *by_ski;
    struct key_index *by_digest;
};

struct policy {
    const struct keyserver_config *config;
    const struct key_table *keys;
    const struct site_certificates *certificates; /* NULL: none */
    struct client_match *matches;                 /* one an entry */
    size_t *sets;                                 /* index of each entry's set */
    struct key_set *key_sets;
    size_t set_count;
    struct policy_rates rates; /* buckets NULL: none */
    const char ***names;       /* of each entry, in order: the signer looks them up for each signature */
};

/* ---- Which keys a pattern means. */

static bool pattern_is_ski(const char *pattern, uint8_t ski[static KEY_ID_SKI_SIZE])
{
    if (strlen(pattern) != KEY_SKI_DIGITS)
        return false;
    for (size_t i = 0; i < KEY_ID_SKI_SIZE; i++) {
        int high = OPENSSL_hexchar2int((unsigned char)pattern[2 * i]);
        int low = OPENSSL_hexchar2int((unsigned char)pattern[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ski[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool pattern_matches(const char *pattern, const struct key_info *key)
{
    uint8_t ski[KEY_ID_SKI_SIZE];
    if (pattern_is_ski(pattern, ski) && key_ski_equal(ski, key->id.ski))
        return true;
    return fnmatch(pattern, key->label, FNM_NOESCAPE) == 0;
}

static bool set_wants(const struct key_set *set, const struct key_info *key)
{
    for (size_t i = 0; i < set->pattern_count; i++)
        if (pattern_matches(set->patterns[i], key))
            return true;
    return false;
}

static bool same_patterns(const struct key_set *set, const struct keyserver_client *client)
{
    if (set->pattern_count != client->key_count)
        return false;
    for (size_t i = 0; i < set->pattern_count; i++)
        if (strcmp(set->patterns[i], client->keys[i]) != 0)
            return false;
    return true;
}

static enum result out_of_memory(struct failure *why)
{
    return failure_set(why, RESULT_LIMIT, "no memory for the clients' tables of keys");
}

static enum result set_fill(struct key_set *set, const struct key_table *keys, struct failure *why)
{
    set->members = calloc(keys->count + 1, sizeof *set->members);
    if (set->members == NULL)
        return out_of_memory(why);
    for (size_t i = 0; i < keys->count; i++)
        if (set_wants(set, &keys->keys[i]))
            set->members[set->count++] = i;
    set->by_ski = key_index_new(keys, KEY_INDEX_SKI, set->members, set->count);
    set->by_digest = key_index_new(keys, KEY_INDEX_DIGEST, set->members, set->count);
    return set->by_ski != NULL && set->by_digest != NULL ? RESULT_OK : out_of_memory(why);
}

static enum result find_or_make_set(struct policy *policy, const struct keyserver_client *client, size_t *set,
                                    struct failure *why)
{
    for (*set = 0; *set < policy->set_count; ++*set)
        if (same_patterns(&policy->key_sets[*set], client))
            return RESULT_OK;
    struct key_set *made = &policy->key_sets[policy->set_count++];
    made->patterns = client->keys;
    made->pattern_count = client->key_count;
    return set_fill(made, policy->keys, why);
}

/* ---- Names. */

static int by_name(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum result sort_names(const struct keyserver_client *client, const char ***names, struct failure *why)
{
    *names = calloc(client->name_count + 1, sizeof **names);
    if (*names == NULL)
        return out_of_memory(why);
    for (size_t i = 0; i < client->name_count; i++)
        (*names)[i] = client->names[i];
    qsort(*names, client->name_count, sizeof **names, by_name);
    return RESULT_OK;
}

static bool names_have(const struct policy *policy, size_t entry, const char *name)
{
    size_t count = policy->config->clients[entry].name_count;
    return bsearch(&name, policy->names[entry], count, sizeof name, by_name) != NULL;
}

/* By itself, by a wildcard for its first label, or by "*". */
static bool names_hold(const struct policy *policy, size_t entry, const char *name)
{
    char wildcard[DNS_NAME_MAX + 2] = "*";
    const char *dot = strchr(name, '.');
    if (names_have(policy, entry, "*") || names_have(policy, entry, name))
        return true;
    if (dot == NULL || strlen(dot) > DNS_NAME_MAX)
        return false;
    memcpy(wildcard + 1, dot, strlen(dot) + 1);
    return names_have(policy, entry, wildcard);
}

/* ---- The policy. */

static enum result policy_fill(struct policy *policy, struct failure *why)
{
    size_t count = policy->config->client_count;
    policy->matches = calloc(count + 1, sizeof *policy->matches);
    policy->sets = calloc(count + 1, sizeof *policy->sets);
    policy->key_sets = calloc(count + 1, sizeof *policy->key_sets);
    policy->names = calloc(count + 1, sizeof *policy->names);
    if (policy->matches == NULL || policy->sets == NULL || policy->key_sets == NULL || policy->names == NULL)
        return out_of_memory(why);
    for (size_t i = 0; i < count; i++) {
        const struct keyserver_client *client = &policy->config->clients[i];
        enum result result = client_match_parse(client->match, &policy->matches[i], why);
        if (result == RESULT_OK)
            result = find_or_make_set(policy, client, &policy->sets[i], why);
        if (result == RESULT_OK)
            result = sort_names(client, &policy->names[i], why);
        if (result != RESULT_OK)
            return result;
    }
    return RESULT_OK;
}

enum result policy_new(const struct keyserver_config *config, const struct key_table *keys,
                       struct policy **policy, struct failure *why)
{
    *policy = NULL;
    if (!key_table_is_sorted(keys))
        return failure_set(why, RESULT_PROTOCOL, "the table of keys is not in order");
    struct policy *made = calloc(1, sizeof *made);
    if (made == NULL)
        return out_of_memory(why);
    made->config = config;
    made->keys = keys;
    enum result result = policy_fill(made, why);
    if (result != RESULT_OK) {
        policy_free(made);
        return result;
    }
    *policy = made;
    return RESULT_OK;
}

void policy_free(struct policy *policy)
{
    if (policy == NULL)
        return;
    for (size_t i = 0; i < policy->set_count; i++) {
        free(policy->key_sets[i].members);
        key_index_free(policy->key_sets[i].by_ski);
        key_index_free(policy->key_sets[i].by_digest);
    }
    for (size_t i = 0; policy->names != NULL && i < policy->config->client_count; i++)
        free(policy->names[i]);
    free(policy->names);
    free(policy->key_sets);
    free(policy->sets);
    free(policy->matches);
    free(policy);
}

bool policy_match(const struct policy *policy, X509 *certificate, size_t *entry)
{
    for (size_t i = 0; i < policy->config->client_count; i++) {
        if (client_match_fits(&policy->matches[i], certificate)) {
            *entry = i;
            return true;
        }
    }
    return false;
}

size_t policy_entries(const struct policy *policy)
{
    return policy->config->client_count;
}

unsigned policy_allow(const struct policy *policy, size_t entry)
{
    const struct keyserver_client *client = &policy->config->clients[entry];
    unsigned allow = client->deny ? 0 : client->allow;
    if ((allow & ALLOW_TLS13) != 0)
        allow |= ALLOW_TRANSCRIPT;
    if (policy->config->certificate_count == 0)
        allow &= ~(unsigned)ALLOW_TRANSCRIPT;
    if (policy->config->ticket_keys.secret == NULL)
        allow &= ~(unsigned)ALLOW_TICKET_KEYS;
    if (client->require == REQUIRE_TRANSCRIPT)
        allow &= ~((unsigned)ALLOW_TLS13 | ALLOW_DIGEST | ALLOW_DECRYPT);
    return allow;
}

bool policy_denies(const struct policy *policy, size_t entry)
{
    return policy->config->clients[entry].deny;
}

bool policy_allows_scheme(const struct policy *policy, size_t entry, uint16_t scheme)
{
    const struct keyserver_client *client = &policy->config->clients[entry];
    for (size_t i = 0; i < client->scheme_count; i++)
        if (client->schemes[i] == scheme)
            return true;
    return client->scheme_count == 0;
}

bool policy_allows_protocol(const struct policy *policy, size_t entry, struct bytes alpn)
{
    const struct keyserver_client *client = &policy->config->clients[entry];
    for (size_t i = 0; i < client->alpn_count; i++)
        if (bytes_equal(alpn, bytes_of(client->alpn[i], strlen(client->alpn[i]))))
            return true;
    return client->alpn_count == 0;
}

void policy_use_rates(struct policy *policy, const struct policy_rates *rates)
{
    policy->rates = *rates;
}

bool policy_admits(const struct policy *policy, size_t entry, uint64_t now)
{
    const struct policy_rates *rates = &policy->rates;
    const struct rate rate = {.per_second = policy->config->clients[entry].rate, .burst = rates->burst};
    return rate.per_second == 0 || rates->buckets == NULL ||
           rate_bucket_take(&rates->buckets[rates->numbers[entry]], &rate, now);
}

bool policy_allows_name(const struct policy *policy, size_t entry, struct bytes sni)
{
    char name[DNS_NAME_MAX + 1];
    if (sni.size == 0)
        return names_hold(policy, entry, "");
    /* What is no DNS name is none that anybody can have listed. */
    return names_hold(policy, entry, dns_name_normalise(sni, false, name) ? name : ".");
}

static const struct site_leaf *leaves_of(const struct policy *policy,
                                         const uint8_t ski[static KEY_ID_SKI_SIZE], size_t *count)
{
    *count = 0;
    return policy->certificates != NULL ? site_certificates_of(policy->certificates, ski, count) : NULL;
}

bool policy_has_leaf_for(const struct policy *policy, const uint8_t ski[static KEY_ID_SKI_SIZE],
                         struct bytes sni)
{
    size_t count;
    const struct site_leaf *leaves = leaves_of(policy, ski, &count);
    char name[DNS_NAME_MAX + 1];
    if (sni.size == 0)
        return count > 0;
    bool is_name = dns_name_normalise(sni, false, name);
    for (size_t i = 0; is_name && i < count; i++)
        if (site_leaf_covers(&leaves[i], name))
            return true;
    return false;
}

bool policy_names_cover(const struct policy *policy, size_t entry, const uint8_t ski[static KEY_ID_SKI_SIZE])
{
    size_t count, names = 0;
    const struct site_leaf *leaves = leaves_of(policy, ski, &count);
    for (size_t i = 0; i < count; i++)
        for (size_t k = 0; k < leaves[i].name_count; k++, names++)
            if (!names_hold(policy, entry, leaves[i].names[k]))
                return false;
    /* What the key serves for is not known: then only who may have any name may have it. */
    return names > 0 || names_have(policy, entry, "*");
}

void policy_use_certificates(struct policy *policy, const struct site_certificates *certificates)
{
    policy->certificates = certificates;
}

const struct site_leaf *policy_find_leaf(const struct policy *policy,
                                         const uint8_t ski[static KEY_ID_SKI_SIZE], struct bytes der)
{
    return policy->certificates != NULL ? site_certificates_find(policy->certificates, ski, der) : NULL;
}

static const struct key_set *set_of(const struct policy *policy, size_t entry)
{
    return &policy->key_sets[policy->sets[entry]];
}

bool policy_find(const struct policy *policy, size_t entry, const uint8_t ski[static KEY_ID_SKI_SIZE],
                 size_t *key)
{
    return key_index_find(set_of(policy, entry)->by_ski, ski, key);
}

bool policy_find_digest(const struct policy *policy, size_t entry,
                        const uint8_t digest[static KEY_ID_DIGEST_SIZE], size_t *key)
{
    return key_index_find(set_of(policy, entry)->by_digest, digest, key);
}

const struct key_info *policy_key(const struct policy *policy, size_t key)
{
    return &policy->keys->keys[key];
}

/* ---- The list. */

size_t policy_list_start(const struct policy *policy, size_t entry, const uint8_t *after_ski)
{
    const struct key_set *set = set_of(policy, entry);
    size_t low = 0;
    size_t high = after_ski != NULL ? set->count : 0;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct key_info *key = policy_key(policy, set->members[middle]);
        if (memcmp(key->id.ski, after_ski, KEY_ID_SKI_SIZE) <= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

const struct key_info *policy_list_next(const struct policy *policy, size_t entry, size_t *at)
{
    const struct key_set *set = set_of(policy, entry);
    return *at < set->count ? policy_key(policy, set->members[(*at)++]) : NULL;
}

static bool pattern_is_used(const struct policy *policy, const char *pattern)
{
    for (size_t i = 0; i < policy->keys->count; i++)
        if (pattern_matches(pattern, &policy->keys->keys[i]))
            return true;
    return false;
}

void policy_each_uncovered(const struct policy *policy,
                           void (*uncovered)(const struct keyserver_client *client,
                                             const struct key_info *key, void *owner),
                           void *owner)
{
    for (size_t i = 0; i < policy->config->client_count; i++) {
        const struct keyserver_client *client = &policy->config->clients[i];
        const struct key_info *key;
        size_t at = policy_list_start(policy, i, NULL);
        while ((key = policy_list_next(policy, i, &at)) != NULL)
            if (!policy_names_cover(policy, i, key->id.ski))
                uncovered(client, key, owner);
    }
}

void policy_each_unused(const struct policy *policy,
                        void (*unused)(const struct keyserver_client *client, const char *pattern,
                                       void *owner),
                        void *owner)
{
    for (size_t i = 0; i < policy->config->client_count; i++) {
        const struct keyserver_client *client = &policy->config->clients[i];
        for (size_t k = 0; k < client->key_count; k++)
            if (!pattern_is_used(policy, client->keys[k]))
                unused(client, client->keys[k], owner);
    }
}
