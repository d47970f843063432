#include "proxy/ocsp_response.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

/* Seconds that a responder's clock may be ahead of ours. Clients allow as much, and more. */
#define AHEAD_MAX 300
/* Seconds that a revocation without an end counts from now. */
#define REVOKED_FOR (7 * 86400L)

static void free_leaf(X509 **leaf)
{
    X509_free(*leaf);
}

static X509 *leaf_of(const struct certificate *certificate)
{
    const unsigned char *at = certificate->leaf.data;
    return d2i_X509(NULL, &at, (long)certificate->leaf.size);
}

static enum result no_issuer(const struct certificate *certificate, struct failure *why)
{
    return failure_set(why, RESULT_CONFIG, "%s has no issuer behind the certificate", certificate->path);
}

/* ---- The request. */

static bool request_fill(OCSP_REQUEST *to, X509 *leaf, X509 *issuer)
{
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, leaf, issuer);
    if (id != NULL && to != NULL && OCSP_request_add0_id(to, id) != NULL)
        return true;
    OCSP_CERTID_free(id);
    return false;
}

static bool request_write(OCSP_REQUEST *from, struct ocsp_request *request)
{
    uint8_t *at = request->der;
    int size = i2d_OCSP_REQUEST(from, NULL);
    if (size <= 0 || size > OCSP_REQUEST_MAX)
        return false;
    request->size = (size_t)i2d_OCSP_REQUEST(from, &at);
    return true;
}

enum result ocsp_request_make(const struct certificate *certificate, struct ocsp_request *request,
                              struct failure *why)
{
    if (certificate->issuer_count == 0)
        return no_issuer(certificate, why);
    X509 *leaf CLEANUP(free_leaf) = leaf_of(certificate);
    OCSP_REQUEST *made = OCSP_REQUEST_new();
    bool good =
        leaf != NULL && request_fill(made, leaf, certificate->issuers[0]) && request_write(made, request);
    OCSP_REQUEST_free(made);
    return good ? RESULT_OK : failure_set_openssl(why, "cannot make an OCSP request");
}

static bool is_http(const char *url)
{
    return strncmp(url, "http://", 7) == 0;
}

char *ocsp_responder_of(const struct certificate *certificate)
{
    X509 *leaf CLEANUP(free_leaf) = leaf_of(certificate);
    STACK_OF(OPENSSL_STRING) *urls = leaf != NULL ? X509_get1_ocsp(leaf) : NULL;
    char *found = NULL;
    for (int i = 0; found == NULL && i < sk_OPENSSL_STRING_num(urls); i++)
        if (is_http(sk_OPENSSL_STRING_value(urls, i)))
            found = strdup(sk_OPENSSL_STRING_value(urls, i));
    X509_email_free(urls);
    ERR_clear_error();
    return found;
}

/* ---- The response. */

static enum result refuse(const char *reason, struct failure *why)
{
    ERR_clear_error();
    return failure_set(why, RESULT_PROTOCOL, "%s", reason);
}

/* Clients look for the certificate by SHA-1 alone, whatever else responders may use. */
static OCSP_SINGLERESP *single_of(OCSP_BASICRESP *basic, X509 *leaf, X509 *issuer)
{
    OCSP_CERTID *id = OCSP_cert_to_id(NULL, leaf, issuer);
    int index = id != NULL ? OCSP_resp_find(basic, id, -1) : -1;
    OCSP_CERTID_free(id);
    return index >= 0 ? OCSP_resp_get0(basic, index) : NULL;
}

/* By the issuer itself, or by a certificate that it has issued for OCSPSigning (RFC 6960 section 4.2.2.2):
 * the issuer alone is trusted, whoever has issued that. */
static bool is_signed(OCSP_BASICRESP *basic, X509 *issuer)
{
    X509_STORE *store = X509_STORE_new();
    STACK_OF(X509) *issuers = sk_X509_new_null();
    bool good = store != NULL && issuers != NULL && X509_STORE_add_cert(store, issuer) == 1 &&
                X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1 &&
                sk_X509_push(issuers, issuer) > 0 && OCSP_basic_verify(basic, issuers, store, 0) == 1;
    sk_X509_free(issuers);
    X509_STORE_free(store);
    return good;
}

static bool time_of(const ASN1_GENERALIZEDTIME *time, time_t *seconds)
{
    struct tm parts;
    if (time == NULL || ASN1_TIME_to_tm(time, &parts) != 1)
        return false;
    *seconds = timegm(&parts);
    return *seconds > 0;
}

static enum result check_single(OCSP_SINGLERESP *single, time_t now, struct ocsp_status *status,
                                struct failure *why)
{
    ASN1_GENERALIZEDTIME *from, *until;
    int reason, answer = OCSP_single_get0_status(single, &reason, NULL, &from, &until);
    status->revoked = answer == V_OCSP_CERTSTATUS_REVOKED;
    if (!time_of(from, &status->this_update))
        return refuse("it has no good thisUpdate", why);
    /* What is revoked stays so, whether or not it is said for how long. */
    if (until == NULL && status->revoked)
        status->next_update = now + REVOKED_FOR;
    else if (!time_of(until, &status->next_update))
        return refuse("it has no nextUpdate, and so no end", why);
    if (status->this_update > now + AHEAD_MAX)
        return refuse("it is not in force yet", why);
    if (status->next_update <= now)
        return refuse("it is out of date", why);
    if (answer != V_OCSP_CERTSTATUS_GOOD && answer != V_OCSP_CERTSTATUS_REVOKED)
        return refuse("the responder does not know the certificate", why);
    return RESULT_OK;
}

static enum result check_basic(OCSP_BASICRESP *basic, const struct certificate *certificate, time_t now,
                               struct ocsp_status *status, struct failure *why)
{
    X509 *leaf CLEANUP(free_leaf) = leaf_of(certificate);
    OCSP_SINGLERESP *single = leaf != NULL ? single_of(basic, leaf, certificate->issuers[0]) : NULL;
    if (single == NULL)
        return refuse("it is about another certificate, or names it by another digest than SHA-1", why);
    if (!is_signed(basic, certificate->issuers[0])) {
        (void)failure_set_openssl(why, "it is not signed by the issuer, nor by whom it has appointed");
        return RESULT_PROTOCOL;
    }
    return check_single(single, now, status, why);
}

/* libcrypto verifies what it has parsed and encoded again, and it parses more than DER: clients, who are
 * shown the octets themselves, would refuse what somebody on the way has changed within that. */
static bool is_der(struct bytes response, OCSP_BASICRESP *basic)
{
    OCSP_RESPONSE *again = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    unsigned char *der = NULL;
    int size = again != NULL ? i2d_OCSP_RESPONSE(again, &der) : 0;
    bool same = size > 0 && bytes_equal(bytes_of(der, (size_t)size), response);
    OPENSSL_free(der);
    OCSP_RESPONSE_free(again);
    return same;
}

static enum result check_outer(OCSP_RESPONSE *outer, struct bytes response,
                               const struct certificate *certificate, time_t now, struct ocsp_status *status,
                               struct failure *why)
{
    int answer = OCSP_response_status(outer);
    if (answer != OCSP_RESPONSE_STATUS_SUCCESSFUL)
        return failure_set(why, RESULT_PROTOCOL, "the responder says: %s", OCSP_response_status_str(answer));
    OCSP_BASICRESP *basic = OCSP_response_get1_basic(outer);
    if (basic == NULL)
        return refuse("it is of an unknown kind", why);
    enum result result = is_der(response, basic) ? check_basic(basic, certificate, now, status, why)
                                                 : refuse("it is not in DER", why);
    OCSP_BASICRESP_free(basic);
    return result;
}

enum result ocsp_response_check(struct bytes response, const struct certificate *certificate, time_t now,
                                struct ocsp_status *status, struct failure *why)
{
    const unsigned char *at = response.data;
    *status = (struct ocsp_status){0};
    if (certificate->issuer_count == 0)
        return no_issuer(certificate, why);
    OCSP_RESPONSE *outer = response.size > 0 ? d2i_OCSP_RESPONSE(NULL, &at, (long)response.size) : NULL;
    bool whole = outer != NULL && at == response.data + response.size;
    enum result result = whole ? check_outer(outer, response, certificate, now, status, why)
                               : refuse("it does not parse as an OCSP response", why);
    OCSP_RESPONSE_free(outer);
    ERR_clear_error();
    return result;
}
