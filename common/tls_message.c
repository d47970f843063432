#include "common/tls_message.h"

#include <string.h>

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/objects.h>

/* ---- Signature schemes. */

static const struct tls_scheme SCHEMES[] = {
    {0x0403, "ecdsa_secp256r1_sha256", "SHA256", 32, TLS_PADDING_NONE, KEY_TYPE_P256},
    {0x0804, "rsa_pss_rsae_sha256", "SHA256", 32, TLS_PADDING_PSS, KEY_TYPE_RSA},
    {0x0503, "ecdsa_secp384r1_sha384", "SHA384", 48, TLS_PADDING_NONE, KEY_TYPE_P384},
    {0x0603, "ecdsa_secp521r1_sha512", "SHA512", 64, TLS_PADDING_NONE, KEY_TYPE_P521},
    {0x0805, "rsa_pss_rsae_sha384", "SHA384", 48, TLS_PADDING_PSS, KEY_TYPE_RSA},
    {0x0806, "rsa_pss_rsae_sha512", "SHA512", 64, TLS_PADDING_PSS, KEY_TYPE_RSA},
    {0x0807, "ed25519", NULL, 0, TLS_PADDING_NONE, KEY_TYPE_ED25519},
    {0x0808, "ed448", NULL, 0, TLS_PADDING_NONE, KEY_TYPE_ED448},
    {0x0401, "rsa_pkcs1_sha256", "SHA256", 32, TLS_PADDING_PKCS1, KEY_TYPE_RSA},
    {0x0501, "rsa_pkcs1_sha384", "SHA384", 48, TLS_PADDING_PKCS1, KEY_TYPE_RSA},
    {0x0601, "rsa_pkcs1_sha512", "SHA512", 64, TLS_PADDING_PKCS1, KEY_TYPE_RSA},
};

const struct tls_scheme *tls_scheme_find(uint16_t code)
{
    for (size_t i = 0; i < sizeof SCHEMES / sizeof *SCHEMES; i++)
        if (SCHEMES[i].code == code)
            return &SCHEMES[i];
    return NULL;
}

const struct tls_scheme *tls_scheme_named(const char *name)
{
    const struct tls_scheme *scheme = NULL;
    while ((scheme = tls_scheme_next(scheme)) != NULL && strcmp(scheme->name, name) != 0)
        ;
    return scheme;
}

const struct tls_scheme *tls_scheme_next(const struct tls_scheme *scheme)
{
    size_t next = scheme != NULL ? (size_t)(scheme - SCHEMES) + 1 : 0;
    return next < sizeof SCHEMES / sizeof *SCHEMES ? &SCHEMES[next] : NULL;
}

static bool curve_is_nist(enum key_type type)
{
    return type == KEY_TYPE_P256 || type == KEY_TYPE_P384 || type == KEY_TYPE_P521;
}

bool tls_scheme_fits_tls13(const struct tls_scheme *scheme, enum key_type type)
{
    return scheme != NULL && scheme->padding != TLS_PADDING_PKCS1 && scheme->curve == type;
}

bool tls_scheme_fits_tls12(const struct tls_scheme *scheme, enum key_type type)
{
    if (scheme == NULL)
        return false;
    return scheme->curve == type || (curve_is_nist(scheme->curve) && curve_is_nist(type));
}

/* ---- TLS 1.3 CertificateVerify. */

#define SPACES_SIZE 64

/* The array's terminating zero is the separator of RFC 8446 section 4.4.3: it is part of what is signed. */
static const char SERVER_CONTEXT[] = "TLS 1.3, server CertificateVerify";

static bool transcript_hash_size_fits(size_t size)
{
    return size == 32 || size == 48; /* SHA-256 or SHA-384: all that TLS 1.3's cipher suites use */
}

bool tls_certificate_verify_write(struct writer *to, struct bytes hash)
{
    if (!transcript_hash_size_fits(hash.size))
        return false;
    write_fill(to, ' ', SPACES_SIZE);
    write_bytes(to, bytes_of(SERVER_CONTEXT, sizeof SERVER_CONTEXT));
    write_bytes(to, hash);
    return writer_ok(to);
}

static bool octets_are(struct bytes slice, uint8_t octet)
{
    for (size_t i = 0; i < slice.size; i++)
        if (slice.data[i] != octet)
            return false;
    return true;
}

bool tls_certificate_verify_parse(struct bytes content, struct bytes *hash)
{
    struct reader from = reader_of(content);
    struct bytes spaces, context;
    if (!read_bytes(&from, SPACES_SIZE, &spaces) || !read_bytes(&from, sizeof SERVER_CONTEXT, &context))
        return false;
    if (!octets_are(spaces, ' ') || !bytes_equal(context, bytes_of(SERVER_CONTEXT, sizeof SERVER_CONTEXT)))
        return false;
    return transcript_hash_size_fits(from.left) && read_bytes(&from, from.left, hash);
}

bool tls_content_is_tls13(struct bytes content)
{
    return content.size >= SPACES_SIZE && octets_are(bytes_of(content.data, SPACES_SIZE), ' ');
}

/* ---- TLS 1.2 ServerKeyExchange. */

#define CURVE_TYPE_NAMED   3 /* RFC 8422 section 5.4: explicit curves are not allowed */
#define POINT_UNCOMPRESSED 4

struct group {
    uint16_t code;
    int nid; /* of a NIST curve; NID_undef where every string of that size is a point */
    size_t point_size;
};

static const struct group GROUPS[] = {
    {0x001D, NID_undef, 32},            /* x25519 */
    {0x0017, NID_X9_62_prime256v1, 65}, /* secp256r1 */
    {0x0018, NID_secp384r1, 97},        /* secp384r1 */
    {0x0019, NID_secp521r1, 133},       /* secp521r1 */
    {0x001E, NID_undef, 56},            /* x448 */
};

static const struct group *group_find(uint16_t code)
{
    for (size_t i = 0; i < sizeof GROUPS / sizeof *GROUPS; i++)
        if (GROUPS[i].code == code)
            return &GROUPS[i];
    return NULL;
}

bool tls_ecdh_params_parse(struct bytes params, uint16_t *group, struct bytes *point)
{
    struct reader from = reader_of(params);
    uint8_t curve_type;
    uint16_t code;
    struct bytes octets;
    if (!read_u8(&from, &curve_type) || curve_type != CURVE_TYPE_NAMED)
        return false;
    if (!read_u16(&from, &code) || !read_vector8(&from, &octets) || !reader_empty(&from))
        return false;
    const struct group *known = group_find(code);
    if (known == NULL || octets.size != known->point_size)
        return false;
    *group = code;
    *point = octets;
    return true;
}

bool tls_server_key_exchange_parse(struct bytes content, struct tls_server_key_exchange *parts)
{
    struct reader from = reader_of(content);
    return read_copy(&from, parts->client_random, TLS_RANDOM_SIZE) &&
           read_copy(&from, parts->server_random, TLS_RANDOM_SIZE) &&
           read_bytes(&from, from.left, &parts->params) &&
           tls_ecdh_params_parse(parts->params, &parts->group, &parts->point);
}

static void group_free(EC_GROUP **group)
{
    EC_GROUP_free(*group);
}

static void point_free(EC_POINT **point)
{
    EC_POINT_free(*point);
}

static bool nist_point_valid(int nid, struct bytes octets)
{
    CLEANUP(group_free) EC_GROUP *group = EC_GROUP_new_by_curve_name(nid);
    CLEANUP(point_free) EC_POINT *point = group != NULL ? EC_POINT_new(group) : NULL;
    /* EC_POINT_oct2point refuses coordinates outside the field and points off the curve. */
    return point != NULL && EC_POINT_oct2point(group, point, octets.data, octets.size, NULL) == 1;
}

bool tls_ecdh_point_valid(uint16_t group, struct bytes point)
{
    const struct group *known = group_find(group);
    if (known == NULL || point.size != known->point_size)
        return false;
    if (known->nid == NID_undef)
        return true;
    if (point.data[0] != POINT_UNCOMPRESSED)
        return false;
    ERR_set_mark();
    bool valid = nist_point_valid(known->nid, point);
    ERR_pop_to_mark();
    return valid;
}

bool tls_server_key_exchange_write(struct writer *to, const struct tls_server_key_exchange *parts)
{
    uint16_t group;
    struct bytes point;
    if (!tls_ecdh_params_parse(parts->params, &group, &point))
        return false;
    write_bytes(to, bytes_of(parts->client_random, TLS_RANDOM_SIZE));
    write_bytes(to, bytes_of(parts->server_random, TLS_RANDOM_SIZE));
    write_bytes(to, parts->params);
    return writer_ok(to);
}

static bool random_ends_in(const uint8_t *random, const uint8_t mark[static 8])
{
    return memcmp(random + TLS_RANDOM_SIZE - 8, mark, 8) == 0;
}

bool tls_random_has_downgrade_12(const uint8_t random[static TLS_RANDOM_SIZE])
{
    static const uint8_t MARK[8] = {'D', 'O', 'W', 'N', 'G', 'R', 'D', 1};
    return random_ends_in(random, MARK);
}

bool tls_random_has_downgrade_11(const uint8_t random[static TLS_RANDOM_SIZE])
{
    static const uint8_t MARK[8] = {'D', 'O', 'W', 'N', 'G', 'R', 'D', 0};
    return random_ends_in(random, MARK);
}
