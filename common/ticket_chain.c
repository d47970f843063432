#include "common/ticket_chain.h"

#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>

#define HASH_SIZE 32
#define INFO_MAX  (32 + 1 + TICKET_GROUP_MAX + 4 + 4 + 8)

static EVP_MAC_CTX *hmac_new(void)
{
    char digest[] = "SHA256";
    const OSSL_PARAM parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                     OSSL_PARAM_construct_end()};
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *hmac = mac != NULL ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac); /* the context has its own reference */
    if (hmac != NULL && EVP_MAC_CTX_set_params(hmac, parameters) != 1) {
        EVP_MAC_CTX_free(hmac);
        return NULL;
    }
    return hmac;
}

/* T(n) = HMAC(key, T(n - 1) || info || n) */
static bool expand_block(EVP_MAC_CTX *hmac, const uint8_t *key, struct bytes before, struct bytes info,
                         uint8_t number, uint8_t block[static HASH_SIZE])
{
    size_t size = 0;
    return EVP_MAC_init(hmac, key, TICKET_CHAIN_SIZE, NULL) == 1 &&
           EVP_MAC_update(hmac, before.data, before.size) == 1 &&
           EVP_MAC_update(hmac, info.data, info.size) == 1 && EVP_MAC_update(hmac, &number, 1) == 1 &&
           EVP_MAC_final(hmac, block, &size, HASH_SIZE) == 1 && size == HASH_SIZE;
}

/* HKDF-Expand (RFC 5869 section 2.3). Not libcrypto's EVP_KDF, which takes four times as long: a secret that
 * starts in 1970 is half a million steps behind. */
static bool expand(EVP_MAC_CTX *hmac, const uint8_t *key, struct bytes info, uint8_t *to, size_t size)
{
    uint8_t block[HASH_SIZE];
    size_t done = 0, before = 0;
    bool expanded = true;
    for (uint8_t number = 1; done < size && expanded; number++) {
        expanded = expand_block(hmac, key, bytes_of(block, before), info, number, block);
        size_t take = size - done < HASH_SIZE ? size - done : HASH_SIZE;
        memcpy(to + done, block, take);
        done += take;
        before = HASH_SIZE;
    }
    OPENSSL_cleanse(block, sizeof block);
    return expanded;
}

bool ticket_chain_advance(struct ticket_chain *chain, uint64_t epoch)
{
    static const char INFO[] = "keyless ticket chain";
    struct ticket_chain ahead = *chain;
    if (epoch < chain->epoch)
        return false;
    EVP_MAC_CTX *hmac = hmac_new();
    bool walked = hmac != NULL;
    for (; walked && ahead.epoch < epoch; ahead.epoch++)
        walked = expand(hmac, ahead.value, bytes_of(INFO, sizeof INFO - 1), ahead.value, sizeof ahead.value);
    EVP_MAC_CTX_free(hmac);
    if (walked)
        *chain = ahead;
    OPENSSL_cleanse(&ahead, sizeof ahead);
    return walked;
}

bool ticket_chain_key(const struct ticket_chain *chain, const struct ticket_key_owner *owner,
                      uint8_t key[static TICKET_KEY_SIZE])
{
    static const char LABEL[] = "keyless ticket key";
    uint8_t info[INFO_MAX];
    struct writer to = writer_of(info, sizeof info);
    if (owner->group.size > TICKET_GROUP_MAX)
        return false;
    write_bytes(&to, bytes_of(LABEL, sizeof LABEL - 1));
    write_vector8(&to, owner->group);
    write_u32(&to, owner->generation);
    write_u32(&to, owner->rotate);
    write_u64(&to, chain->epoch);
    EVP_MAC_CTX *hmac = hmac_new();
    bool made =
        hmac != NULL && writer_ok(&to) && expand(hmac, chain->value, writer_bytes(&to), key, TICKET_KEY_SIZE);
    EVP_MAC_CTX_free(hmac);
    return made;
}
