#include "keyserver/rsa_block.h"

#include <string.h>

#include <openssl/rand.h>

/* ---- PKCS#1 v1.5 (section 9.2). */

/* DER of DigestInfo up to the digest (section 9.2, note 1), and the digest's size. */
static const struct digest_info {
    const char *hash;
    size_t digest_size;
    size_t prefix_size;
    uint8_t prefix[19];
} DIGEST_INFOS[] = {
    {"MD5-SHA1", 36, 0, {0}},
    {"SHA1",
     20,
     15,
     {0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14}},
    {"SHA224",
     28,
     19,
     {0x30, 0x2d, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x04, 0x05, 0x00,
      0x04, 0x1c}},
    {"SHA256",
     32,
     19,
     {0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
      0x04, 0x20}},
    {"SHA384",
     48,
     19,
     {0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00,
      0x04, 0x30}},
    {"SHA512",
     64,
     19,
     {0x30, 0x51, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x03, 0x05, 0x00,
      0x04, 0x40}},
};

static const struct digest_info *digest_info_of(const char *hash)
{
    for (size_t i = 0; i < sizeof DIGEST_INFOS / sizeof *DIGEST_INFOS; i++)
        if (strcmp(DIGEST_INFOS[i].hash, hash) == 0)
            return &DIGEST_INFOS[i];
    return NULL;
}

bool rsa_block_pkcs1(const char *hash, struct bytes digest, uint8_t *block, size_t size)
{
    const struct digest_info *info = digest_info_of(hash);
    const size_t frame = 3 + 8; /* 00 01 .. 00, and at least eight octets of padding */
    if (info == NULL || digest.size != info->digest_size || size < frame + info->prefix_size + digest.size)
        return false;
    struct writer to = writer_of(block, size);
    write_u16(&to, 0x0001);
    write_fill(&to, 0xFF, size - 3 - info->prefix_size - digest.size);
    write_u8(&to, 0x00);
    write_bytes(&to, bytes_of(info->prefix, info->prefix_size));
    write_bytes(&to, digest);
    return writer_ok(&to) && to.size == size;
}

/* ---- PSS (section 9.1.1). */

struct pss {
    EVP_MD_CTX *context;
    const EVP_MD *hash;
    size_t hash_size;
};

static bool hash_two(const struct pss *pss, struct bytes first, struct bytes second, uint8_t *into)
{
    return EVP_DigestInit_ex2(pss->context, pss->hash, NULL) == 1 &&
           EVP_DigestUpdate(pss->context, first.data, first.size) == 1 &&
           EVP_DigestUpdate(pss->context, second.data, second.size) == 1 &&
           EVP_DigestFinal_ex(pss->context, into, NULL) == 1;
}

/* H = Hash(eight zeros || digest || salt). */
static bool hash_salted(const struct pss *pss, struct bytes digest, const uint8_t *salt, uint8_t *into)
{
    uint8_t front[8 + EVP_MAX_MD_SIZE] = {0};
    memcpy(front + 8, digest.data, digest.size);
    return hash_two(pss, bytes_of(front, 8 + digest.size), bytes_of(salt, pss->hash_size), into);
}

/* Masks octets with MGF1 of the seed (appendix B.2.1). */
static bool mask(const struct pss *pss, const uint8_t *seed, uint8_t *octets, size_t size)
{
    uint8_t counter[4] = {0}, stream[EVP_MAX_MD_SIZE];
    for (size_t done = 0; done < size; counter[3]++) {
        if (!hash_two(pss, bytes_of(seed, pss->hash_size), bytes_of(counter, sizeof counter), stream))
            return false;
        for (size_t i = 0; i < pss->hash_size && done < size; i++)
            octets[done++] ^= stream[i];
    }
    return true;
}

bool rsa_block_pss(EVP_MD_CTX *context, const EVP_MD *hash, struct bytes digest, unsigned bits,
                   uint8_t *block)
{
    const struct pss pss = {context, hash, (size_t)EVP_MD_get_size(hash)};
    /* One bit less than the modulus has, so that the block is less than it; where that is an octet less, it
     * is zero. */
    const size_t size = (bits + 7) / 8, used = (bits - 1 + 7) / 8, salt_size = pss.hash_size;
    if (digest.size != pss.hash_size || used < pss.hash_size + salt_size + 2 || used > 256 * pss.hash_size)
        return false;
    uint8_t *masked = block + (size - used), *hashed = block + size - 1 - pss.hash_size;
    uint8_t *salt = hashed - salt_size;
    memset(block, 0, size);
    salt[-1] = 0x01;
    if (RAND_bytes(salt, (int)salt_size) != 1 || !hash_salted(&pss, digest, salt, hashed) ||
        !mask(&pss, hashed, masked, (size_t)(hashed - masked)))
        return false;
    masked[0] &= (uint8_t)(0xFF >> (8 * used - (bits - 1)));
    block[size - 1] = 0xBC;
    return true;
}
