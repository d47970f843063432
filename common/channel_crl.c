#include "common/channel_crl.h"

#include <stdbool.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

typedef STACK_OF(X509_INFO) info_stack;

static void info_free(info_stack **infos)
{
    sk_X509_INFO_pop_free(*infos, X509_INFO_free);
}

/* Whatever is in a PEM file. */
static enum result read_pem(const char *path, info_stack **infos, struct failure *why)
{
    BIO *file = BIO_new_file(path, "r");
    *infos = file != NULL ? PEM_X509_INFO_read_bio(file, NULL, NULL, NULL) : NULL;
    BIO_free(file);
    if (*infos != NULL)
        return RESULT_OK;
    (void)failure_set_openssl(why, "CRL %s", path);
    if (why != NULL)
        why->kind = RESULT_CONFIG;
    return RESULT_CONFIG;
}

/* What libcrypto would pass over, or hold against everybody, is better found out now than by clients. */
static bool is_of(X509_CRL *crl, X509 *ca)
{
    return ca != NULL && X509_NAME_cmp(X509_get_subject_name(ca), X509_CRL_get_issuer(crl)) == 0 &&
           (X509_get_key_usage(ca) & KU_CRL_SIGN) != 0 && X509_CRL_verify(crl, X509_get0_pubkey(ca)) == 1;
}

static bool is_of_one_of(X509_CRL *crl, const info_stack *cas)
{
    for (int i = 0; i < sk_X509_INFO_num(cas); i++)
        if (is_of(crl, sk_X509_INFO_value(cas, i)->x509))
            return true;
    return false;
}

/* A part of a list, by itself no list (RFC 5280 sections 5.2.4 and 5.2.5). */
static bool is_partial(const X509_CRL *crl)
{
    return X509_CRL_get_ext_by_NID(crl, NID_delta_crl, -1) >= 0 ||
           X509_CRL_get_ext_by_NID(crl, NID_issuing_distribution_point, -1) >= 0;
}

static time_t next_update_of(const X509_CRL *crl)
{
    const ASN1_TIME *until = X509_CRL_get0_nextUpdate(crl);
    struct tm utc;
    return until != NULL && ASN1_TIME_to_tm(until, &utc) == 1 ? timegm(&utc) : 0;
}

static enum result add(SSL_CTX *context, X509_CRL *crl, const info_stack *cas, const char *path,
                       time_t *next_update, struct failure *why)
{
    bool known = is_of_one_of(crl, cas);
    ERR_clear_error();
    if (!known)
        return failure_set(why, RESULT_CONFIG, "CRL %s: none of the CAs has signed it", path);
    if (is_partial(crl))
        return failure_set(why, RESULT_CONFIG, "CRL %s: a part of a list, expected a whole one", path);
    if (X509_STORE_add_crl(SSL_CTX_get_cert_store(context), crl) != 1)
        return failure_set_openssl(why, "CRL %s", path);
    time_t until = next_update_of(crl);
    if (until != 0 && (*next_update == 0 || until < *next_update))
        *next_update = until;
    return RESULT_OK;
}

/* Else all clients of the CA that has none would be refused. */
static bool each_has_one(const info_stack *cas, const info_stack *lists)
{
    for (int i = 0; i < sk_X509_INFO_num(cas); i++) {
        X509 *ca = sk_X509_INFO_value(cas, i)->x509;
        bool has = ca == NULL;
        for (int k = 0; !has && k < sk_X509_INFO_num(lists); k++) {
            X509_CRL *crl = sk_X509_INFO_value(lists, k)->crl;
            has = crl != NULL && is_of(crl, ca);
        }
        ERR_clear_error();
        if (!has)
            return false;
    }
    return true;
}

enum result channel_crl_load(SSL_CTX *context, const char *path, const char *ca, time_t *next_update,
                             struct failure *why)
{
    info_stack *lists CLEANUP(info_free) = NULL;
    info_stack *cas CLEANUP(info_free) = NULL;
    int found = 0;
    *next_update = 0;
    enum result result = read_pem(path, &lists, why);
    if (result == RESULT_OK)
        result = read_pem(ca, &cas, why);
    for (int i = 0; result == RESULT_OK && i < sk_X509_INFO_num(lists); i++) {
        X509_CRL *crl = sk_X509_INFO_value(lists, i)->crl;
        if (crl == NULL)
            continue;
        result = add(context, crl, cas, path, next_update, why);
        found++;
    }
    if (result != RESULT_OK)
        return result;
    if (found == 0)
        return failure_set(why, RESULT_CONFIG, "CRL %s: there is none in this file", path);
    if (!each_has_one(cas, lists))
        return failure_set(why, RESULT_CONFIG, "CRL %s: expected a list of each CA in %s", path, ca);
    if (X509_STORE_set_flags(SSL_CTX_get_cert_store(context),
                             X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL) != 1)
        return failure_set_openssl(why, "CRL %s", path);
    return RESULT_OK;
}
