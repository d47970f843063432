#include "proxy/chain_parser.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/err.h>
#include <openssl/provider.h>
#include <openssl/tls1.h>
#include <openssl/x509v3.h>

#include "common/certificate_names.h"
#include "proxy/issuers.h"

struct chain_parser {
    OSSL_LIB_CTX *without_keys; /* with no decoders, in which a certificate's public key stays unread */
    OSSL_PROVIDER *nothing;
    struct chain_strength *strength;
    struct issuers *issuers;
    unsigned users;
};

static enum result parser_fill(struct chain_parser *parser, struct failure *why)
{
    parser->without_keys = OSSL_LIB_CTX_new();
    if (parser->without_keys != NULL)
        parser->nothing = OSSL_PROVIDER_load(parser->without_keys, "null");
    if (parser->nothing == NULL)
        return failure_set_openssl(why, "cannot load OpenSSL's provider of nothing");
    enum result result = chain_strength_new(&parser->strength, why);
    if (result != RESULT_OK)
        return result;
    parser->issuers = issuers_new(parser->strength);
    return parser->issuers != NULL ? RESULT_OK : failure_set_errno(why, "certificates");
}

enum result chain_parser_new(struct chain_parser **parser, struct failure *why)
{
    *parser = calloc(1, sizeof **parser);
    if (*parser == NULL)
        return failure_set_errno(why, "certificates");
    (*parser)->users = 1;
    enum result result = parser_fill(*parser, why);
    if (result == RESULT_OK)
        return RESULT_OK;
    chain_parser_drop(*parser);
    *parser = NULL;
    return result;
}

struct chain_parser *chain_parser_hold(struct chain_parser *parser)
{
    parser->users++;
    return parser;
}

void chain_parser_drop(struct chain_parser *parser)
{
    if (parser == NULL || --parser->users > 0)
        return;
    issuers_free(parser->issuers);
    chain_strength_free(parser->strength);
    if (parser->nothing != NULL)
        (void)OSSL_PROVIDER_unload(parser->nothing);
    OSSL_LIB_CTX_free(parser->without_keys);
    free(parser);
}

/* ---- Whether one issued the other. */

static bool signs_with(EVP_PKEY *key, int signature)
{
    int algorithm;
    if (key == NULL || OBJ_find_sigid_algs(signature, NULL, &algorithm) != 1)
        return false;
    return EVP_PKEY_is_a(key, OBJ_nid2sn(algorithm)) == 1 ||
           (algorithm == NID_rsassaPss && EVP_PKEY_is_a(key, "RSA") == 1);
}

/* As X509_check_issued, which wants to compute digests with the leaf's own library context. */
static int check_issued(X509 *issuer, X509 *leaf)
{
    if (X509_NAME_cmp(X509_get_subject_name(issuer), X509_get_issuer_name(leaf)) != 0)
        return X509_V_ERR_SUBJECT_ISSUER_MISMATCH;
    AUTHORITY_KEYID *named = X509_get_ext_d2i(leaf, NID_authority_key_identifier, NULL, NULL);
    int problem = named != NULL ? X509_check_akid(issuer, named) : X509_V_OK;
    AUTHORITY_KEYID_free(named);
    if (problem != X509_V_OK)
        return problem;
    if (!signs_with(X509_get0_pubkey(issuer), X509_get_signature_nid(leaf)))
        return X509_V_ERR_SIGNATURE_ALGORITHM_MISMATCH;
    bool may_sign = (X509_get_key_usage(issuer) & KU_KEY_CERT_SIGN) != 0; /* all bits: it does not say */
    return may_sign ? X509_V_OK : X509_V_ERR_KEYUSAGE_NO_CERTSIGN;
}

/* ---- One chain. */

/* What is read of it before its memory is measured. */
struct parts {
    struct chain_parser *parser;
    struct arena *arena;
    const char *path;
    struct bytes der;
    X509 *leaf;
    X509 *issuers[CHAIN_CERTIFICATES_MAX];
    size_t issuer_count;
    struct certificate found; /* plain values */
    void (*ignored)(const char *what, struct bytes name, void *owner);
    void *owner;
    size_t names_size;
    char *names;
};

static enum result refuse(const struct parts *parts, const struct failure *reason, struct failure *why)
{
    return failure_set(why, RESULT_CONFIG, "%s: %s", parts->path, reason->text);
}

static time_t time_of(const ASN1_TIME *time)
{
    struct tm parts;
    return ASN1_TIME_to_tm(time, &parts) == 1 ? timegm(&parts) : 0;
}

/* The TLS features that a server must show with it (RFC 7633); of those there is one. */
static bool must_staple(X509 *leaf)
{
    TLS_FEATURE *features = X509_get_ext_d2i(leaf, NID_tlsfeature, NULL, NULL);
    bool found = false;
    for (int i = 0; features != NULL && i < sk_ASN1_INTEGER_num(features); i++)
        found = found || ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == TLSEXT_TYPE_status_request;
    TLS_FEATURE_free(features);
    return found;
}

static bool take_mark(struct parts *parts)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    if (EVP_Digest(parts->der.data, parts->der.size, digest, NULL, EVP_sha256(), NULL) != 1)
        return false;
    memcpy(parts->found.mark, digest, sizeof parts->found.mark);
    return true;
}

static enum result read_leaf(struct parts *parts, struct failure *why)
{
    struct failure reason;
    const unsigned char *at = parts->der.data;
    parts->leaf = X509_new_ex(parts->parser->without_keys, NULL);
    if (parts->leaf == NULL || d2i_X509(&parts->leaf, &at, (long)parts->der.size) == NULL ||
        at != parts->der.data + parts->der.size) {
        (void)failure_set_openssl(why, "%s: certificate number 1 does not parse", parts->path);
        return RESULT_CONFIG;
    }
    if (key_id_of_field(X509_get_X509_PUBKEY(parts->leaf), &parts->found.key, &reason) != RESULT_OK ||
        chain_strength_leaf(parts->parser->strength, parts->leaf, parts->der, &parts->found.key, &reason) !=
            RESULT_OK)
        return refuse(parts, &reason, why);
    if (!take_mark(parts))
        return failure_set_openssl(why, "%s", parts->path);
    parts->found.not_before = time_of(X509_get0_notBefore(parts->leaf));
    parts->found.not_after = time_of(X509_get0_notAfter(parts->leaf));
    parts->found.must_staple = must_staple(parts->leaf);
    return RESULT_OK;
}

static enum result read_issuers(struct parts *parts, const struct bytes *chain, struct failure *why)
{
    struct failure reason;
    for (size_t i = 0; i < parts->issuer_count; i++) {
        if (issuers_take(parts->parser->issuers, chain[i + 1], &parts->issuers[i], &reason) != RESULT_OK)
            return refuse(parts, &reason, why);
        int problem = i == 0 ? check_issued(parts->issuers[0], parts->leaf)
                             : X509_check_issued(parts->issuers[i], parts->issuers[i - 1]);
        if (problem != X509_V_OK)
            return failure_set(why, RESULT_CONFIG,
                               "%s: certificate %zu is not the issuer of the one before it (%s): expected "
                               "the site's own certificate, then its issuer, and so on",
                               parts->path, i + 2, X509_verify_cert_error_string(problem));
    }
    return RESULT_OK;
}

static bool name_found(const char *name, void *owner)
{
    struct parts *parts = owner;
    size_t size = strlen(name) + 1;
    char *names = realloc(parts->names, parts->names_size + size);
    if (names == NULL)
        return false;
    memcpy(names + parts->names_size, name, size);
    parts->names = names;
    parts->names_size += size;
    parts->found.name_count++;
    return true;
}

static void name_ignored(const char *what, struct bytes name, void *owner)
{
    const struct parts *parts = owner;
    if (parts->ignored != NULL)
        parts->ignored(what, name, parts->owner);
}

static enum result read_names(struct parts *parts, struct failure *why)
{
    static const struct certificate_names_handler HANDLER = {name_found, name_ignored};
    if (!certificate_names(parts->leaf, &HANDLER, parts))
        return failure_set_errno(why, "%s", parts->path);
    if (parts->found.name_count == 0)
        return failure_set(why, RESULT_CONFIG,
                           "%s: has no name that can be served: expected a dNSName in its subjectAltName",
                           parts->path);
    return RESULT_OK;
}

/* ---- In one piece: a chain costs what it is long. */

static size_t names_size(const struct certificate *certificate)
{
    const char *name = certificate->names;
    for (size_t i = 0; i < certificate->name_count; i++)
        name += strlen(name) + 1;
    return (size_t)(name - certificate->names);
}

struct certificate *certificate_copy(const struct certificate *certificate, struct arena *arena)
{
    size_t issuers = certificate->issuer_count * sizeof(X509 *), names = names_size(certificate);
    size_t leaf = certificate->leaf.size, path = strlen(certificate->path) + 1;
    size_t size = sizeof *certificate + issuers + leaf + names + path;
    struct certificate *made = arena != NULL ? arena_take(arena, size) : malloc(size);
    if (made == NULL)
        return NULL;
    *made = *certificate;
    made->users = 1;
    made->in_arena = arena != NULL;
    made->issuers = (X509 **)(made + 1);
    if (issuers > 0)
        memcpy(made->issuers, certificate->issuers, issuers);
    uint8_t *at = (uint8_t *)(made + 1) + issuers;
    made->leaf = bytes_of(memcpy(at, certificate->leaf.data, leaf), leaf);
    made->names = memcpy(at + leaf, certificate->names, names);
    made->path = memcpy(at + leaf + names, certificate->path, path);
    return made;
}

static enum result pack(struct parts *parts, struct certificate **certificate, struct failure *why)
{
    struct certificate *found = &parts->found;
    found->path = parts->path;
    found->leaf = parts->der;
    found->issuers = parts->issuers;
    found->issuer_count = parts->issuer_count;
    found->names = parts->names;
    *certificate = certificate_copy(found, parts->arena);
    return *certificate != NULL ? RESULT_OK : failure_set_errno(why, "%s", parts->path);
}

static enum result make(struct parts *parts, const struct bytes *chain, struct certificate **certificate,
                        struct failure *why)
{
    enum result result = read_leaf(parts, why);
    if (result == RESULT_OK)
        result = read_issuers(parts, chain, why);
    if (result != RESULT_OK)
        return result;
    result = read_names(parts, why);
    if (result != RESULT_OK)
        return result;
    return pack(parts, certificate, why);
}

/* Each CertificateEntry has a length of 3 octets and one of 2 for its extensions (RFC 8446 section 4.4.2). */
static size_t message_size(const struct bytes *chain, size_t count)
{
    size_t total = 4 + 1 + 3;
    for (size_t i = 0; i < count; i++)
        total += chain[i].size + 5;
    return total;
}

enum result chain_parser_make(struct chain_parser *parser, struct arena *arena, const char *path,
                              const struct bytes *chain, size_t count,
                              void (*ignored)(const char *what, struct bytes name, void *owner), void *owner,
                              struct certificate **certificate, struct failure *why)
{
    *certificate = NULL;
    if (count == 0 || count > CHAIN_CERTIFICATES_MAX || message_size(chain, count) > CERTIFICATE_MESSAGE_MAX)
        return failure_set(why, RESULT_CONFIG,
                           "%s: its Certificate message would have too many bytes or certificates: the most "
                           "allowed is %d and %d",
                           path, CERTIFICATE_MESSAGE_MAX, CHAIN_CERTIFICATES_MAX);
    struct parts parts = {.parser = parser,
                          .arena = arena,
                          .path = path,
                          .der = chain[0],
                          .issuer_count = count - 1,
                          .ignored = ignored,
                          .owner = owner};
    parts.found.message_size = message_size(chain, count);
    enum result result = make(&parts, chain, certificate, why);
    X509_free(parts.leaf);
    free(parts.names);
    ERR_clear_error();
    return result;
}
