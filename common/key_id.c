#include "common/key_id.h"

#include <string.h>
#include <strings.h>

#include <pthread.h>

#include <openssl/asn1.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/x509.h>

/*
 * Keys may live in another provider (a token, or our own that signs remotely), which shows nothing but
 * parameters: everything here is computed from those, never from a structure of libcrypto's or by exporting
 * the key.
 */

/* An uncompressed P-521 point, or anything smaller: other curves and Edwards keys. */
#define POINT_MAX 133

static void bn_free(BIGNUM **number)
{
    BN_free(*number);
}

static void integer_free(ASN1_INTEGER **integer)
{
    ASN1_INTEGER_free(*integer);
}

static void point_free(EC_POINT **point)
{
    EC_POINT_free(*point);
}

static void digest_free(EVP_MD_CTX **context)
{
    EVP_MD_CTX_free(*context);
}

static void octets_free(unsigned char **octets)
{
    OPENSSL_free(*octets);
}

static enum result crypto_failure(struct failure *why)
{
    return failure_set_openssl(why, "cannot compute the identifier of a key");
}

static bool ski_of(struct bytes subject_public_key, struct key_id *id)
{
    return EVP_Digest(subject_public_key.data, subject_public_key.size, id->ski, NULL, EVP_sha1(), NULL) == 1;
}

/* The legacy digest: SHA-256 of the octets in upper-case hexadecimal. */
static bool hex_digest_of(struct bytes octets, struct key_id *id)
{
    static const char DIGITS[] = "0123456789ABCDEF";
    CLEANUP(digest_free) EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (context == NULL || EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1)
        return false;
    for (size_t i = 0; i < octets.size; i++) {
        const char pair[2] = {DIGITS[octets.data[i] >> 4], DIGITS[octets.data[i] & 15]};
        if (EVP_DigestUpdate(context, pair, sizeof pair) != 1)
            return false;
    }
    return EVP_DigestFinal_ex(context, id->digest, NULL) == 1;
}

/* ---- RSA. */

/* RSAPublicKey (RFC 8017 appendix A.1.1): SEQUENCE { modulus INTEGER, publicExponent INTEGER }. 0: no memory.
 */
static size_t rsa_public_key_der(const BIGNUM *modulus, const BIGNUM *exponent, unsigned char **der)
{
    CLEANUP(integer_free) ASN1_INTEGER *n = BN_to_ASN1_INTEGER(modulus, NULL);
    CLEANUP(integer_free) ASN1_INTEGER *e = BN_to_ASN1_INTEGER(exponent, NULL);
    int n_size = n != NULL ? i2d_ASN1_INTEGER(n, NULL) : 0;
    int e_size = e != NULL ? i2d_ASN1_INTEGER(e, NULL) : 0;
    if (n_size <= 0 || e_size <= 0)
        return 0;
    int size = ASN1_object_size(1, n_size + e_size, V_ASN1_SEQUENCE);
    *der = OPENSSL_malloc((size_t)size);
    if (*der == NULL)
        return 0;
    unsigned char *at = *der;
    ASN1_put_object(&at, 1, n_size + e_size, V_ASN1_SEQUENCE, V_ASN1_UNIVERSAL);
    i2d_ASN1_INTEGER(n, &at);
    i2d_ASN1_INTEGER(e, &at);
    return (size_t)size;
}

static bool rsa_identify(const BIGNUM *modulus, const BIGNUM *exponent, struct key_id *id)
{
    CLEANUP(octets_free) unsigned char *der = NULL;
    size_t size = rsa_public_key_der(modulus, exponent, &der);
    unsigned char octets[KEY_RSA_MAX_BITS / 8];
    if (size == 0 || BN_bn2bin(modulus, octets) < 0)
        return false;
    return ski_of(bytes_of(der, size), id) &&
           hex_digest_of(bytes_of(octets, (size_t)BN_num_bytes(modulus)), id);
}

static enum result rsa_id(const BIGNUM *modulus, const BIGNUM *exponent, struct key_id *id,
                          struct failure *why)
{
    int bits = BN_num_bits(modulus);
    if (bits < KEY_RSA_MIN_BITS || bits > KEY_RSA_MAX_BITS)
        return failure_set(why, RESULT_CONFIG, "an RSA key of %d bits; expected %d to %d", bits,
                           KEY_RSA_MIN_BITS, KEY_RSA_MAX_BITS);
    id->type = KEY_TYPE_RSA;
    id->bits = (unsigned)bits;
    id->signature_size = (size_t)BN_num_bytes(modulus);
    return rsa_identify(modulus, exponent, id) ? RESULT_OK : crypto_failure(why);
}

static enum result rsa_key_id(EVP_PKEY *key, struct key_id *id, struct failure *why)
{
    CLEANUP(bn_free) BIGNUM *modulus = NULL;
    CLEANUP(bn_free) BIGNUM *exponent = NULL;
    if (EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_N, &modulus) != 1 ||
        EVP_PKEY_get_bn_param(key, OSSL_PKEY_PARAM_RSA_E, &exponent) != 1)
        return crypto_failure(why);
    return rsa_id(modulus, exponent, id, why);
}

/* ---- ECDSA. */

struct curve {
    int nid;
    enum key_type type;
    size_t signature_size; /* DER: two INTEGERs as large as the order, in a SEQUENCE */
};

static const struct curve CURVES[] = {
    {NID_X9_62_prime256v1, KEY_TYPE_P256, 72},
    {NID_secp384r1, KEY_TYPE_P384, 104},
    {NID_secp521r1, KEY_TYPE_P521, 139},
};

/* Providers name a group as X9.62, SEC or NIST do. */
static int group_nid(const char *name)
{
    int nid = EC_curve_nist2nid(name);
    if (nid == NID_undef)
        nid = strcasecmp(name, "secp256r1") == 0 ? NID_X9_62_prime256v1 : OBJ_txt2nid(name);
    return nid;
}

static const struct curve *curve_find(int nid)
{
    for (size_t i = 0; i < sizeof CURVES / sizeof *CURVES; i++)
        if (CURVES[i].nid == nid)
            return &CURVES[i];
    return NULL;
}

/* A certificate must name its curve (RFC 5480 section 2.1.1). libcrypto also remembers a named curve's
 * parameters that were spelt out. A provider that does not have these parameters knows named curves only. */
static bool curve_is_explicit(EVP_PKEY *key)
{
    char encoding[16] = "";
    int from_explicit = 0;
    (void)EVP_PKEY_get_utf8_string_param(key, OSSL_PKEY_PARAM_EC_ENCODING, encoding, sizeof encoding, NULL);
    (void)EVP_PKEY_get_int_param(key, OSSL_PKEY_PARAM_EC_DECODED_FROM_EXPLICIT_PARAMS, &from_explicit);
    return from_explicit == 1 || strcmp(encoding, OSSL_PKEY_EC_ENCODING_EXPLICIT) == 0;
}

/* The public key in whatever form the provider keeps it; 0: none. */
static size_t public_octets(EVP_PKEY *key, unsigned char octets[static POINT_MAX])
{
    size_t size = 0;
    if (EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, octets, POINT_MAX, &size) == 1 ||
        EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, octets, POINT_MAX, &size) ==
            1)
        return size;
    return 0;
}

/* Made once: it takes as long as all the rest. Only read after that, by whichever thread. */
static EC_GROUP *groups[sizeof CURVES / sizeof *CURVES];

static void make_groups(void)
{
    for (size_t i = 0; i < sizeof CURVES / sizeof *CURVES; i++)
        groups[i] = EC_GROUP_new_by_curve_name(CURVES[i].nid);
}

static const EC_GROUP *group_of(const struct curve *curve)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, make_groups);
    return groups[curve - CURVES];
}

/* Whatever form the point is kept in, the SKI is of the uncompressed one and the digest of the compressed
 * one. */
static bool ec_identify(const struct curve *curve, struct bytes stored, struct key_id *id)
{
    const EC_GROUP *group = group_of(curve);
    CLEANUP(point_free) EC_POINT *point = group != NULL ? EC_POINT_new(group) : NULL;
    if (point == NULL || EC_POINT_oct2point(group, point, stored.data, stored.size, NULL) != 1)
        return false;
    unsigned char octets[POINT_MAX];
    size_t size =
        EC_POINT_point2oct(group, point, POINT_CONVERSION_UNCOMPRESSED, octets, sizeof octets, NULL);
    if (size <= 1 || !ski_of(bytes_of(octets, size), id))
        return false;
    size = EC_POINT_point2oct(group, point, POINT_CONVERSION_COMPRESSED, octets, sizeof octets, NULL);
    return size > 0 && hex_digest_of(bytes_of(octets, size), id);
}

static enum result ec_id(int nid, const char *name, struct bytes point, struct key_id *id,
                         struct failure *why)
{
    const struct curve *curve = curve_find(nid);
    if (curve == NULL)
        return failure_set(why, RESULT_CONFIG, "an EC key on the curve %s; expected P-256, P-384 or P-521",
                           name);
    if (point.size == 0 || !ec_identify(curve, point, id))
        return crypto_failure(why);
    id->type = curve->type;
    id->signature_size = curve->signature_size;
    return RESULT_OK;
}

static enum result ec_key_id(EVP_PKEY *key, struct key_id *id, struct failure *why)
{
    char name[64];
    if (curve_is_explicit(key))
        return failure_set(why, RESULT_CONFIG,
                           "an EC key with explicit curve parameters; expected a named curve");
    if (EVP_PKEY_get_group_name(key, name, sizeof name, NULL) != 1)
        return crypto_failure(why);
    unsigned char octets[POINT_MAX];
    size_t size = public_octets(key, octets);
    return ec_id(group_nid(name), name, bytes_of(octets, size), id, why);
}

/* ---- EdDSA: subjectPublicKey is the raw key (RFC 8410 section 4). */

static enum result edwards_key_id(EVP_PKEY *key, struct key_id *id, struct failure *why, size_t size)
{
    unsigned char octets[POINT_MAX];
    if (public_octets(key, octets) != size || !ski_of(bytes_of(octets, size), id))
        return crypto_failure(why);
    return RESULT_OK;
}

static enum result ed25519_key_id(EVP_PKEY *key, struct key_id *id, struct failure *why)
{
    id->type = KEY_TYPE_ED25519;
    id->signature_size = 64;
    return edwards_key_id(key, id, why, 32);
}

static enum result ed448_key_id(EVP_PKEY *key, struct key_id *id, struct failure *why)
{
    id->type = KEY_TYPE_ED448;
    id->signature_size = 114;
    return edwards_key_id(key, id, why, 57);
}

static enum result rsa_pss_key_id(EVP_PKEY *key, struct key_id *id, struct failure *why)
{
    (void)key;
    (void)id;
    return failure_set(
        why, RESULT_CONFIG,
        "a key with the RSASSA-PSS identifier; expected rsaEncryption, which signs with PSS all the same");
}

/* ---- All of them. */

struct family {
    const char *name; /* of OpenSSL's key manager */
    enum result (*identify)(EVP_PKEY *key, struct key_id *id, struct failure *why);
};

static const struct family FAMILIES[] = {
    {"RSA", rsa_key_id},     {"EC", ec_key_id},           {"ED25519", ed25519_key_id},
    {"ED448", ed448_key_id}, {"RSA-PSS", rsa_pss_key_id},
};

static enum result unknown_key_id(EVP_PKEY *key, struct failure *why)
{
    const char *name = EVP_PKEY_get0_type_name(key);
    return failure_set(why, RESULT_CONFIG, "a key of type %s; expected RSA, EC, Ed25519 or Ed448",
                       name != NULL ? name : "unknown");
}

static enum result identify(EVP_PKEY *key, struct key_id *id, struct failure *why)
{
    for (size_t i = 0; i < sizeof FAMILIES / sizeof *FAMILIES; i++)
        if (EVP_PKEY_is_a(key, FAMILIES[i].name))
            return FAMILIES[i].identify(key, id, why);
    return unknown_key_id(key, why);
}

enum result key_id_of(EVP_PKEY *key, struct key_id *id, struct failure *why)
{
    *id = (struct key_id){0};
    ERR_set_mark();
    enum result result = identify(key, id, why);
    ERR_pop_to_mark(); /* asking for parameters that a provider does not have is no error */
    if (result != RESULT_OK)
        *id = (struct key_id){0};
    return result;
}

/* ---- From a certificate's field. */

static void sequence_free(ASN1_SEQUENCE_ANY **sequence)
{
    sk_ASN1_TYPE_pop_free(*sequence, ASN1_TYPE_free);
}

static BIGNUM *integer_at(const ASN1_SEQUENCE_ANY *sequence, int place)
{
    const ASN1_TYPE *element = sk_ASN1_TYPE_value(sequence, place);
    return element != NULL && element->type == V_ASN1_INTEGER
               ? ASN1_INTEGER_to_BN(element->value.integer, NULL)
               : NULL;
}

static enum result rsa_field_id(struct bytes octets, struct key_id *id, struct failure *why)
{
    const unsigned char *at = octets.data;
    CLEANUP(sequence_free)
    ASN1_SEQUENCE_ANY *sequence = d2i_ASN1_SEQUENCE_ANY(NULL, &at, (long)octets.size);
    CLEANUP(bn_free) BIGNUM *modulus = integer_at(sequence, 0);
    CLEANUP(bn_free) BIGNUM *exponent = integer_at(sequence, 1);
    if (modulus == NULL || exponent == NULL)
        return crypto_failure(why);
    return rsa_id(modulus, exponent, id, why);
}

/* NID_undef: not one of ours by name. */
static int field_curve(const X509_ALGOR *algorithm)
{
    const void *curve;
    int type;
    X509_ALGOR_get0(NULL, &type, &curve, algorithm);
    int nid = type == V_ASN1_OBJECT ? OBJ_obj2nid(curve) : NID_undef;
    return curve_find(nid) != NULL ? nid : NID_undef;
}

/* Whatever is rare, or wrong in a way that should be told exactly. */
static enum result other_field_id(const X509_PUBKEY *field, struct key_id *id, struct failure *why)
{
    CLEANUP(octets_free) unsigned char *der = NULL;
    int size = i2d_X509_PUBKEY(field, &der);
    const unsigned char *at = der;
    EVP_PKEY *key = size > 0 ? d2i_PUBKEY(NULL, &at, size) : NULL;
    if (key == NULL)
        return failure_set_openssl(why, "the public key does not parse");
    enum result result = key_id_of(key, id, why);
    EVP_PKEY_free(key);
    return result;
}

static enum result identify_field(const X509_PUBKEY *field, struct key_id *id, struct failure *why)
{
    ASN1_OBJECT *object;
    X509_ALGOR *algorithm;
    const unsigned char *data;
    int size;
    if (X509_PUBKEY_get0_param(&object, &data, &size, &algorithm, field) != 1)
        return crypto_failure(why);
    struct bytes octets = bytes_of(data, (size_t)size);
    int curve = field_curve(algorithm);
    if (OBJ_obj2nid(object) == NID_rsaEncryption)
        return rsa_field_id(octets, id, why);
    if (OBJ_obj2nid(object) == NID_X9_62_id_ecPublicKey && curve != NID_undef)
        return ec_id(curve, OBJ_nid2sn(curve), octets, id, why);
    return other_field_id(field, id, why);
}

enum result key_id_of_field(const X509_PUBKEY *field, struct key_id *id, struct failure *why)
{
    *id = (struct key_id){0};
    ERR_set_mark();
    enum result result = identify_field(field, id, why);
    ERR_pop_to_mark();
    if (result != RESULT_OK)
        *id = (struct key_id){0};
    return result;
}

const char *key_type_name(enum key_type type)
{
    static const char *const NAMES[] = {
        [KEY_TYPE_NONE] = "none",   [KEY_TYPE_RSA] = "RSA",    [KEY_TYPE_P256] = "P-256",
        [KEY_TYPE_P384] = "P-384",  [KEY_TYPE_P521] = "P-521", [KEY_TYPE_ED25519] = "Ed25519",
        [KEY_TYPE_ED448] = "Ed448",
    };
    return (size_t)type < sizeof NAMES / sizeof *NAMES ? NAMES[type] : "unknown";
}

bool key_ski_equal(const uint8_t a[static KEY_ID_SKI_SIZE], const uint8_t b[static KEY_ID_SKI_SIZE])
{
    return memcmp(a, b, KEY_ID_SKI_SIZE) == 0;
}
