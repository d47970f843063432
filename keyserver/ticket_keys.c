#include "keyserver/ticket_keys.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "common/socket.h"
#include "common/ticket_chain.h"
#include "keyserver/ticket_file.h"
#include "keyserver/ticket_state.h"

#define GROUP_NAME_MAX 128

/* What a group's key is derived with. A configured name has no NUL, so nobody's is an entry's own. */
struct group_name {
    uint8_t octets[GROUP_NAME_MAX];
    size_t size;
};

/* What a group is answered, until other keys are due. */
struct answer {
    uint8_t *octets; /* NULL: none yet */
    size_t size;
    uint64_t oldest, present; /* epochs */
};

struct ticket_keys {
    const struct keyserver_config *config;
    bool unstored; /* the file holds an older value than memory */
    int fd;        /* of the secret; -1: another file has replaced it, and this process goes on without */
    struct ticket_state state;
    uint32_t rotate;
    uint64_t lifetime; /* seconds */
    size_t *groups;    /* of each entry, as an index in state.groups; state.group_count: none */
    struct answer *answers;
};

/* ---- Groups. */

static bool shares(const struct keyserver_client *client)
{
    return !client->deny && (client->allow & ALLOW_TICKET_KEYS) != 0;
}

static bool name_group(const struct keyserver_client *client, struct group_name *name)
{
    const char *own = client->ticket_group != NULL ? client->ticket_group : client->match;
    *name = (struct group_name){0};
    if (client->ticket_group != NULL) {
        name->size = strlen(own);
        if (name->size > GROUP_NAME_MAX)
            return false;
        memcpy(name->octets, own, name->size);
        return true;
    }
    unsigned size = 0;
    bool done = EVP_Digest(own, strlen(own), name->octets + 1, &size, EVP_sha256(), NULL) == 1;
    name->size = 1 + size;
    return done;
}

static bool identify(const struct keyserver_client *client, struct ticket_member *member)
{
    struct group_name name;
    return name_group(client, &name) && ticket_id_of(bytes_of(name.octets, name.size), &member->group) &&
           ticket_id_of(bytes_of(client->match, strlen(client->match)), &member->id);
}

static enum result settle_members(const struct keyserver_config *config, struct ticket_state *state,
                                  bool *changed, struct failure *why)
{
    struct ticket_member *members = calloc(config->client_count + 1, sizeof *members);
    size_t count = 0;
    bool done = members != NULL;
    for (size_t i = 0; i < config->client_count && done; i++)
        if (shares(&config->clients[i]))
            done = identify(&config->clients[i], &members[count++]);
    enum result result = done ? ticket_state_settle(state, members, count, changed, why)
                              : failure_set(why, RESULT_LIMIT, "no memory for the ticket groups");
    free(members);
    return result;
}

static bool group_of(const struct ticket_state *state, const struct keyserver_client *client, size_t *group)
{
    struct ticket_member member;
    *group = state->group_count;
    if (!shares(client))
        return true;
    if (!identify(client, &member))
        return false;
    const struct ticket_group *found = ticket_state_group(state, &member.group);
    if (found != NULL)
        *group = (size_t)(found - state->groups);
    return found != NULL;
}

static enum result assign_groups(struct ticket_keys *keys, struct failure *why)
{
    const struct keyserver_config *config = keys->config;
    keys->groups = calloc(config->client_count + 1, sizeof *keys->groups);
    keys->answers = calloc(keys->state.group_count + 1, sizeof *keys->answers);
    bool assigned = keys->groups != NULL && keys->answers != NULL;
    for (size_t i = 0; i < config->client_count && assigned; i++)
        assigned = group_of(&keys->state, &config->clients[i], &keys->groups[i]);
    return assigned ? RESULT_OK : failure_set(why, RESULT_LIMIT, "no memory for the ticket groups");
}

/* ---- The secret. */

static enum result read_secret(const struct keyserver_config *config, struct ticket_state *state,
                               bool *changed, struct failure *why)
{
    const char *path = config->ticket_keys.secret;
    const uint32_t rotate = (uint32_t)(config->ticket_keys.rotate / CONFIG_SECOND);
    enum result result = ticket_file_read(path, state, why);
    if (result != RESULT_OK)
        return result;
    if (state->rotate != 0 && state->rotate != rotate)
        return failure_set(why, RESULT_CONFIG,
                           "%s: made for ticket_keys.rotate: %us; expected that, or another secret", path,
                           state->rotate);
    bool fresh = state->rotate == 0;
    state->rotate = rotate;
    result = settle_members(config, state, changed, why);
    *changed = *changed || fresh;
    return result;
}

static enum result bring_chain(const struct keyserver_config *config, struct ticket_state *state,
                               uint64_t now, bool *changed, struct failure *why)
{
    const char *path = config->ticket_keys.secret;
    const uint64_t oldest =
        ticket_epoch_needed(now, state->rotate, config->ticket_keys.lifetime / CONFIG_SECOND);
    if (state->chain.epoch > ticket_epoch_of(now, state->rotate))
        return failure_set(
            why, RESULT_CONFIG,
            "%s: what it could make keys from for the present time is gone; expected a clock that "
            "is right, or another secret",
            path);
    if (state->chain.epoch >= oldest)
        return RESULT_OK;
    if (oldest - state->chain.epoch > TICKET_STEPS_MAX)
        return failure_set(why, RESULT_CONFIG,
                           "%s: %llu rotations behind the clock; expected at most %llu: take a longer "
                           "ticket_keys.rotate, or a secret that a key server has written",
                           path, (unsigned long long)(oldest - state->chain.epoch),
                           (unsigned long long)TICKET_STEPS_MAX);
    *changed = true;
    return ticket_chain_advance(&state->chain, oldest)
               ? RESULT_OK
               : failure_set(why, RESULT_CRYPTO, "%s: no key can be made from it", path);
}

enum result ticket_keys_check(const struct keyserver_config *config, uint64_t unix_seconds,
                              struct failure *why)
{
    struct ticket_state state CLEANUP(ticket_state_clear) = {0};
    bool changed;
    if (config->ticket_keys.secret == NULL)
        return RESULT_OK;
    enum result result = read_secret(config, &state, &changed, why);
    if (result == RESULT_OK)
        result = bring_chain(config, &state, unix_seconds, &changed, why);
    return result == RESULT_OK ? ticket_file_check(config->ticket_keys.secret, why) : result;
}

static enum result open_secret(struct ticket_keys *keys, uint64_t now, struct failure *why)
{
    const struct keyserver_config *config = keys->config;
    bool changed = false;
    enum result result = read_secret(config, &keys->state, &changed, why);
    if (result == RESULT_OK)
        result = bring_chain(config, &keys->state, now, &changed, why);
    if (result == RESULT_OK && changed)
        result = ticket_file_replace(config->ticket_keys.secret, &keys->state, why);
    return result == RESULT_OK ? ticket_file_open(config->ticket_keys.secret, &keys->fd, why) : result;
}

enum result ticket_keys_open(const struct keyserver_config *config, uint64_t unix_seconds,
                             struct ticket_keys **keys, struct failure *why)
{
    *keys = NULL;
    if (config->ticket_keys.secret == NULL)
        return RESULT_OK;
    struct ticket_keys *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for ticket keys");
    made->config = config;
    made->fd = -1;
    made->rotate = (uint32_t)(config->ticket_keys.rotate / CONFIG_SECOND);
    made->lifetime = config->ticket_keys.lifetime / CONFIG_SECOND;
    enum result result = open_secret(made, unix_seconds, why);
    if (result == RESULT_OK)
        result = assign_groups(made, why);
    if (result == RESULT_OK)
        *keys = made;
    else
        ticket_keys_free(made);
    return result;
}

static void answer_clear(struct answer *answer)
{
    OPENSSL_clear_free(answer->octets, answer->size);
    *answer = (struct answer){0};
}

static void answers_clear(struct ticket_keys *keys)
{
    for (size_t i = 0; keys->answers != NULL && i < keys->state.group_count; i++)
        answer_clear(&keys->answers[i]);
}

void ticket_keys_free(struct ticket_keys *keys)
{
    if (keys == NULL)
        return;
    answers_clear(keys);
    free(keys->answers);
    free(keys->groups);
    socket_close(&keys->fd);
    ticket_state_clear(&keys->state);
    free(keys);
}

static enum result store(struct ticket_keys *keys, struct failure *why)
{
    enum result result = ticket_file_store_chain(keys->fd, &keys->state, why);
    keys->unstored = result != RESULT_OK && result != RESULT_AGAIN;
    if (result != RESULT_AGAIN)
        return result;
    socket_close(&keys->fd);
    return failure_set(why, RESULT_SYSTEM,
                       "another signer has replaced the secret's file, as one of a reload that failed: until "
                       "the next reload it keeps an older value");
}

enum result ticket_keys_forget(struct ticket_keys *keys, uint64_t unix_seconds, struct failure *why)
{
    const uint64_t oldest = ticket_epoch_needed(unix_seconds, keys->rotate, keys->lifetime);
    if (keys->state.chain.epoch < oldest) {
        answers_clear(keys);
        if (oldest - keys->state.chain.epoch > TICKET_STEPS_MAX ||
            !ticket_chain_advance(&keys->state.chain, oldest))
            return failure_set(why, RESULT_CRYPTO, "the chain of ticket keys does not go on");
        keys->unstored = keys->fd >= 0;
    }
    return keys->unstored ? store(keys, why) : RESULT_OK;
}

/* ---- Answers. */

static void write_key(struct writer *to, const struct ticket_keys *keys, uint64_t epoch, const uint8_t *key)
{
    const struct ticket_key_parts parts = ticket_key_parts(key);
    const struct kssl_ticket_key told = {.name = parts.name,
                                         .not_before = ticket_epoch_start(epoch, keys->rotate),
                                         .not_after = ticket_epoch_end(epoch, keys->rotate, keys->lifetime),
                                         .aes_key = parts.aes_key,
                                         .hmac_key = parts.hmac_key};
    kssl_ticket_key_write(to, &told);
}

/* The keys of the epochs from the chain's own on. */
static bool make_keys(struct ticket_chain chain, const struct ticket_key_owner *owner, size_t count,
                      uint8_t (*keys)[TICKET_KEY_SIZE])
{
    bool made = true;
    for (size_t i = 0; i < count && made; i++)
        made = ticket_chain_key(&chain, owner, keys[i]) && ticket_chain_advance(&chain, chain.epoch + 1);
    OPENSSL_cleanse(&chain, sizeof chain);
    return made;
}

/* The present one, the next one, then older ones, the newest first. */
static void write_keys(struct writer *to, const struct ticket_keys *keys, const struct answer *answer,
                       uint8_t (*made)[TICKET_KEY_SIZE])
{
    const uint64_t oldest = answer->oldest, present = answer->present;
    write_u8(to, (uint8_t)(present - oldest + 2));
    write_key(to, keys, present, made[present - oldest]);
    write_key(to, keys, present + 1, made[present + 1 - oldest]);
    for (uint64_t epoch = present; epoch-- > oldest;)
        write_key(to, keys, epoch, made[epoch - oldest]);
}

static bool answer_fill(const struct ticket_keys *keys, struct answer *answer,
                        const struct ticket_key_owner *owner)
{
    const size_t count = (size_t)(answer->present - answer->oldest) + 2;
    uint8_t made[KSSL_TICKET_KEYS_MAX][TICKET_KEY_SIZE];
    struct ticket_chain chain = keys->state.chain;
    answer->size = 1 + count * KSSL_TICKET_KEY_SIZE;
    answer->octets = OPENSSL_malloc(answer->size);
    if (answer->octets == NULL)
        return false;
    struct writer to = writer_of(answer->octets, answer->size);
    bool filled = ticket_chain_advance(&chain, answer->oldest) && make_keys(chain, owner, count, made);
    if (filled)
        write_keys(&to, keys, answer, made);
    OPENSSL_cleanse(made, sizeof made);
    OPENSSL_cleanse(&chain, sizeof chain);
    return filled && writer_ok(&to);
}

static const struct answer *answer_of(struct ticket_keys *keys, size_t entry, uint64_t oldest,
                                      uint64_t present)
{
    struct answer *answer = &keys->answers[keys->groups[entry]];
    struct group_name name;
    if (answer->octets != NULL && answer->oldest == oldest && answer->present == present)
        return answer;
    answer_clear(answer);
    if (!name_group(&keys->config->clients[entry], &name))
        return NULL;
    answer->oldest = oldest;
    answer->present = present;
    const struct ticket_key_owner owner = {.group = bytes_of(name.octets, name.size),
                                           .generation = keys->state.groups[keys->groups[entry]].generation,
                                           .rotate = keys->rotate};
    if (answer_fill(keys, answer, &owner))
        return answer;
    answer_clear(answer);
    return NULL;
}

bool ticket_keys_write(struct ticket_keys *keys, size_t entry, uint64_t unix_seconds, struct writer *to)
{
    const uint64_t present = ticket_epoch_of(unix_seconds, keys->rotate);
    uint64_t oldest = ticket_epoch_needed(unix_seconds, keys->rotate, keys->lifetime);
    if (oldest < keys->state.chain.epoch)
        oldest = keys->state.chain.epoch;
    if (keys->groups[entry] >= keys->state.group_count || oldest > present ||
        present - oldest + 2 > KSSL_TICKET_KEYS_MAX)
        return false;
    const struct answer *answer = answer_of(keys, entry, oldest, present);
    if (answer == NULL)
        return false;
    write_bytes(to, bytes_of(answer->octets, answer->size));
    return writer_ok(to);
}

/* ---- What an operator should know. */

static bool same_names(const struct keyserver_client *a, const struct keyserver_client *b)
{
    bool same = a->name_count == b->name_count;
    for (size_t i = 0; i < a->name_count && same; i++) {
        same = false;
        for (size_t k = 0; k < b->name_count && !same; k++)
            same = strcmp(a->names[i], b->names[k]) == 0;
    }
    return same;
}

static const struct keyserver_client *before_in_group(const struct keyserver_config *config, size_t entry)
{
    const char *group = config->clients[entry].ticket_group;
    while (entry-- > 0) {
        const struct keyserver_client *other = &config->clients[entry];
        if (shares(other) && other->ticket_group != NULL && strcmp(other->ticket_group, group) == 0)
            return other;
    }
    return NULL;
}

void ticket_keys_each_mixed(const struct keyserver_config *config,
                            void (*mixed)(const struct keyserver_client *client,
                                          const struct keyserver_client *other, void *owner),
                            void *owner)
{
    for (size_t i = 0; i < config->client_count; i++) {
        const struct keyserver_client *client = &config->clients[i];
        if (!shares(client) || client->ticket_group == NULL)
            continue;
        const struct keyserver_client *other = before_in_group(config, i);
        if (other != NULL && !same_names(client, other))
            mixed(client, other, owner);
    }
}
