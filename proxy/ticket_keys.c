#include "proxy/ticket_keys.h"

#include <string.h>

#include <openssl/crypto.h>

/* ---- Use. */

/* The newest whose time has come. Past its own time it goes on until the next one is told: a key server that
 * is away must not end resumption before the key's tickets end anyway. */
const struct ticket_key *ticket_keys_making(const struct ticket_keys *keys, uint64_t now)
{
    const struct ticket_key *newest = NULL;
    for (size_t i = 0; i < keys->count; i++) {
        const struct ticket_key *key = &keys->keys[i];
        if (key->not_before <= now && now <= key->not_after &&
            (newest == NULL || key->not_before > newest->not_before))
            newest = key;
    }
    return newest;
}

/* A key whose time to make tickets has not come opens them all the same: somebody's clock is ahead of ours.
 */
const struct ticket_key *ticket_keys_opening(const struct ticket_keys *keys,
                                             const uint8_t name[static TICKET_NAME_SIZE], uint64_t now)
{
    for (size_t i = 0; i < keys->count; i++)
        if (memcmp(keys->keys[i].name, name, TICKET_NAME_SIZE) == 0)
            return now <= keys->keys[i].not_after ? &keys->keys[i] : NULL;
    return NULL;
}

/* ---- From a key server. */

static bool read_keys(struct bytes payload, struct ticket_keys *keys)
{
    struct reader from = reader_of(payload);
    uint8_t count;
    if (!read_u8(&from, &count) || count < 2)
        return false;
    for (keys->count = 0; keys->count < count; keys->count++) {
        struct kssl_ticket_key told;
        if (!kssl_ticket_key_read(&from, &told) || told.not_after < told.not_before)
            return false;
        struct ticket_key *key = &keys->keys[keys->count];
        *key = (struct ticket_key){
            .secret_size = TICKET_SECRET_MAX, .not_before = told.not_before, .not_after = told.not_after};
        memcpy(key->name, told.name.data, sizeof key->name);
        memcpy(key->aes_key, told.aes_key.data, sizeof key->aes_key);
        memcpy(key->hmac_key, told.hmac_key.data, sizeof key->hmac_key);
    }
    return reader_empty(&from);
}

/* Which key opens a ticket is its name's to say. */
static bool has_namesakes(const struct ticket_keys *keys)
{
    for (size_t i = 1; i < keys->count; i++)
        for (size_t k = 0; k < i; k++)
            if (memcmp(keys->keys[i].name, keys->keys[k].name, TICKET_NAME_SIZE) == 0)
                return true;
    return false;
}

enum result ticket_keys_parse(struct bytes payload, uint64_t now, struct ticket_keys *keys,
                              struct failure *why)
{
    if (!read_keys(payload, keys))
        return failure_set(why, RESULT_PROTOCOL, "an answer that does not parse");
    if (has_namesakes(keys))
        return failure_set(why, RESULT_PROTOCOL, "two keys of one name");
    const uint64_t present = keys->keys[0].not_before, next = keys->keys[1].not_before;
    if (next <= present)
        return failure_set(why, RESULT_PROTOCOL, "keys that are not in order");
    const uint64_t rotate = next - present;
    if (now + rotate < present || now >= next + rotate)
        return failure_set(why, RESULT_PEER, "its clock is more than one rotation off ours");
    return RESULT_OK;
}

/* ---- Our own. */

_Static_assert(TICKET_NAME_SIZE + 2 * TICKET_SECRET_MAX == TICKET_KEY_SIZE, "a derived key fills its places");

static bool derive_key(const struct ticket_chain *chain, const struct ticket_times *times,
                       struct ticket_key *key)
{
    static const char GROUP[] = "local";
    const struct ticket_key_owner owner = {.group = bytes_of(GROUP, sizeof GROUP - 1),
                                           .rotate = times->rotate};
    uint8_t octets[TICKET_KEY_SIZE];
    bool made = ticket_chain_key(chain, &owner, octets);
    const struct ticket_key_parts parts = ticket_key_parts(octets);
    *key = (struct ticket_key){.secret_size = TICKET_SECRET_MAX,
                               .not_before = ticket_epoch_start(chain->epoch, times->rotate),
                               .not_after = ticket_epoch_end(chain->epoch, times->rotate, times->lifetime)};
    memcpy(key->name, parts.name.data, parts.name.size);
    memcpy(key->aes_key, parts.aes_key.data, parts.aes_key.size);
    memcpy(key->hmac_key, parts.hmac_key.data, parts.hmac_key.size);
    OPENSSL_cleanse(octets, sizeof octets);
    return made;
}

bool ticket_keys_derive(const struct ticket_chain *chain, const struct ticket_times *times, uint64_t now,
                        struct ticket_keys *keys)
{
    const uint64_t present = ticket_epoch_of(now, times->rotate);
    uint64_t oldest = ticket_epoch_needed(now, times->rotate, times->lifetime);
    oldest = oldest > chain->epoch ? oldest : chain->epoch;
    struct ticket_chain at = *chain;
    bool made =
        oldest <= present && present - oldest + 1 <= TICKET_KEYS_MAX && ticket_chain_advance(&at, oldest);
    keys->count = made ? (uint32_t)(present - oldest + 1) : 0;
    for (size_t place = keys->count; place-- > 0 && made;) {
        made = derive_key(&at, times, &keys->keys[place]);
        made = made && (place == 0 || ticket_chain_advance(&at, at.epoch + 1));
    }
    OPENSSL_cleanse(&at, sizeof at);
    keys->since = now;
    return made;
}

/* ---- From a file. */

bool ticket_key_from_file(struct bytes octets, struct ticket_key *key)
{
    struct reader from = reader_of(octets);
    *key = (struct ticket_key){.not_after = UINT64_MAX};
    if (octets.size == TICKET_NAME_SIZE + 2 * 16) {
        key->secret_size = 16;
        return read_copy(&from, key->name, TICKET_NAME_SIZE) && read_copy(&from, key->aes_key, 16) &&
               read_copy(&from, key->hmac_key, 16);
    }
    key->secret_size = 32;
    return octets.size == TICKET_NAME_SIZE + 2 * 32 && read_copy(&from, key->name, TICKET_NAME_SIZE) &&
           read_copy(&from, key->hmac_key, 32) && read_copy(&from, key->aes_key, 32);
}
