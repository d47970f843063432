#include "proxy/chain_strength.h"

#include <stdbool.h>
#include <stdlib.h>

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

/* Bits of security of a signature with SHA-1 and worse, which clients refuse. OpenSSL 3.5 serves it all the
 * same. Nobody looks at a root's. */
#define SIGNATURE_BITS_MIN 80

/* Kinds of leafs that are remembered; there are few. */
#define KINDS_MAX 64

struct leaf_kind {
    enum key_type type;
    unsigned bits;
    int signature;
};

struct chain_strength {
    SSL_CTX *scratch;
    struct leaf_kind good[KINDS_MAX];
    size_t good_count;
};

enum result chain_strength_new(struct chain_strength **strength, struct failure *why)
{
    *strength = calloc(1, sizeof **strength);
    if (*strength == NULL)
        return failure_set_errno(why, "certificates");
    (*strength)->scratch = SSL_CTX_new(TLS_server_method());
    if ((*strength)->scratch != NULL)
        return RESULT_OK;
    chain_strength_free(*strength);
    *strength = NULL;
    return failure_set_openssl(why, "cannot make a TLS context");
}

void chain_strength_free(struct chain_strength *strength)
{
    if (strength == NULL)
        return;
    SSL_CTX_free(strength->scratch);
    free(strength);
}

static bool is_badly_signed(X509 *certificate)
{
    int bits;
    bool self_signed = (X509_get_extension_flags(certificate) & EXFLAG_SS) != 0;
    return !self_signed && X509_get_signature_info(certificate, NULL, NULL, &bits, NULL) == 1 &&
           bits < SIGNATURE_BITS_MIN;
}

static enum result check(const struct chain_strength *strength, X509 *certificate,
                         int (*use)(SSL_CTX *context, X509 *certificate), struct failure *why)
{
    int level = SSL_CTX_get_security_level(strength->scratch);
    if (level > 0 && is_badly_signed(certificate))
        return failure_set(why, RESULT_CONFIG, "a certificate is signed with a digest that clients refuse");
    if (use(strength->scratch, certificate) == 1)
        return RESULT_OK;
    (void)failure_set_openssl(why, "cannot be served at OpenSSL's security level %d", level);
    return RESULT_CONFIG;
}

static int use_issuer(SSL_CTX *context, X509 *issuer)
{
    int taken = (int)SSL_CTX_add1_chain_cert(context, issuer);
    (void)SSL_CTX_clear_chain_certs(context);
    return taken;
}

enum result chain_strength_issuer(struct chain_strength *strength, X509 *issuer, struct failure *why)
{
    return check(strength, issuer, use_issuer, why);
}

static bool is_known(const struct chain_strength *strength, const struct leaf_kind *kind)
{
    for (size_t i = 0; i < strength->good_count; i++)
        if (strength->good[i].type == kind->type && strength->good[i].bits == kind->bits &&
            strength->good[i].signature == kind->signature)
            return true;
    return false;
}

enum result chain_strength_leaf(struct chain_strength *strength, X509 *leaf, struct bytes der,
                                const struct key_id *key, struct failure *why)
{
    const struct leaf_kind kind = {key->type, key->bits, X509_get_signature_nid(leaf)};
    if (is_known(strength, &kind))
        return RESULT_OK;
    const unsigned char *at = der.data;
    X509 *whole = d2i_X509(NULL, &at, (long)der.size);
    if (whole == NULL)
        return failure_set_openssl(why, "does not parse");
    enum result result = check(strength, whole, SSL_CTX_use_certificate, why);
    X509_free(whole);
    /* RSA-PSS has its digest in parameters, which the number does not tell. */
    if (result == RESULT_OK && kind.signature != NID_rsassaPss && strength->good_count < KINDS_MAX)
        strength->good[strength->good_count++] = kind;
    return result;
}
