#include "proxy/handshake_state.h"

#include <stdlib.h>

#include <openssl/async.h>
#include <openssl/x509_vfy.h>

#include "proxy/client_bio.h"

/* ---- Why a certificate is refused, in the log and to the client. */

/*
 * libssl makes the alert from libcrypto's error, well in most cases (RFC 8446 section 6.2). `told` is for the
 * others: what is wrong with our lists is nothing that is wrong with the client's certificate, and
 * an error that it does not know becomes certificate_unknown.
 */
#define NOT_TOLD X509_V_ERR_NO_EXPLICIT_POLICY

static const struct {
    int error;
    const char *text;
    int told; /* 0: the error itself */
} REFUSALS[] = {
    {X509_V_ERR_CERT_HAS_EXPIRED, "client certificate has expired", 0},
    {X509_V_ERR_CERT_NOT_YET_VALID, "client certificate is not valid yet", 0},
    {X509_V_ERR_CERT_REVOKED, "client certificate is revoked", 0},
    {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT, "client certificate of an unknown CA", 0},
    {X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY, "client certificate of an unknown CA", 0},
    {X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE, "client certificate of an unknown CA",
     X509_V_ERR_INVALID_CA},
    {X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN, "client certificate of an unknown CA", 0},
    {X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT, "client certificate of an unknown CA", 0},
    {X509_V_ERR_INVALID_CA, "client certificate of an unknown CA", 0},
    {X509_V_ERR_CERT_UNTRUSTED, "client certificate of an unknown CA", X509_V_ERR_INVALID_CA},
    {X509_V_ERR_CERT_SIGNATURE_FAILURE, "client certificate has a wrong signature", X509_V_ERR_CERT_REJECTED},
    {X509_V_ERR_INVALID_PURPOSE, "client certificate is not for clients", 0},
    {X509_V_ERR_CERT_CHAIN_TOO_LONG, "client certificate's chain is too long", 0},
    {X509_V_ERR_PATH_LENGTH_EXCEEDED, "client certificate's chain is too long",
     X509_V_ERR_CERT_CHAIN_TOO_LONG},
    {X509_V_ERR_EE_KEY_TOO_SMALL, "client certificate has a weak key", 0},
    {X509_V_ERR_CA_KEY_TOO_SMALL, "client certificate has a weak key", 0},
    {X509_V_ERR_CA_MD_TOO_WEAK, "client certificate has a weak signature", 0},
    {X509_V_ERR_CRL_HAS_EXPIRED, "revocation list out of date", NOT_TOLD},
    {X509_V_ERR_CRL_NOT_YET_VALID, "revocation list not valid yet", NOT_TOLD},
    {X509_V_ERR_UNABLE_TO_GET_CRL, "no revocation list for the client certificate", NOT_TOLD},
};

static void refuse(struct handshake *handshake, X509_STORE_CTX *store)
{
    int error = X509_STORE_CTX_get_error(store);
    const char *text = X509_verify_cert_error_string(error);
    for (size_t i = 0; i < sizeof REFUSALS / sizeof *REFUSALS; i++) {
        if (REFUSALS[i].error != error)
            continue;
        text = REFUSALS[i].text;
        if (REFUSALS[i].told != 0)
            X509_STORE_CTX_set_error(store, REFUSALS[i].told);
    }
    handshake->reason = (struct handshake_reason){HANDSHAKE_CLASS_CLIENT_CERTIFICATE, text};
}

/* ---- access_denied. */

/*
 * "A valid certificate or PSK was received, but when access control was applied, the sender decided not to
 * proceed" (RFC 8446 section 6.2, RFC 5246 section 7.2.2): libssl has no error that becomes this alert. In
 * TLS 1.3 the callback of an extension names the alert of its choice; one of NewSessionTicket comes when the
 * client has proved that it has the key. TLS 1.2 has none that late, but there the alert is in the clear, and
 * our BIO writes the number. Whatever becomes of the alert: a handshake that is denied never succeeds
 * (handshake_clients_check).
 */
#define NO_EXTENSION 65535 /* for private use; it is never sent */

static int on_ticket_extension(SSL *ssl, unsigned type, unsigned context, const unsigned char **out,
                               size_t *size, X509 *certificate, size_t index, int *alert, void *argument)
{
    const struct handshake *handshake = SSL_get_app_data(ssl);
    (void)type, (void)context, (void)out, (void)size, (void)certificate, (void)index, (void)argument;
    if (handshake == NULL || !handshake->denied)
        return 0;
    *alert = SSL_AD_ACCESS_DENIED;
    return -1;
}

static int deny(struct handshake *handshake, SSL *ssl, X509_STORE_CTX *store)
{
    handshake->denied = true;
    handshake->reason = (struct handshake_reason){HANDSHAKE_CLASS_CLIENT_CERTIFICATE,
                                                  "name of the client certificate is not allowed"};
    if (SSL_version(ssl) == TLS1_3_VERSION) {
        /* One ticket, of the kind that needs no key. */
        (void)SSL_set_options(ssl, SSL_OP_NO_TICKET);
        return SSL_set_num_tickets(ssl, 1);
    }
    client_bio_replace_alert(handshake->bio, SSL_AD_ACCESS_DENIED);
    X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

/* ---- Verifying. */

/*
 * Not on the fibre, whose stack is small: nothing is read there any more once a signature is asked for
 * (client_bio_pause). What still comes there was in one record with the ClientHello, before anybody could
 * have asked for a certificate.
 */
static int on_verify(X509_STORE_CTX *store, void *argument)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct handshake *handshake = SSL_get_app_data(ssl);
    X509 *leaf = X509_STORE_CTX_get0_cert(store);
    (void)argument;
    if (ASYNC_get_current_job() != NULL) {
        handshake->reason = (struct handshake_reason){HANDSHAKE_CLASS_MALFORMED,
                                                      "client certificate before it was asked for"};
        X509_STORE_CTX_set_error(store, NOT_TOLD);
        return 0;
    }
    handshake->facts.client = handshake->client = client_identity_of(leaf);
    if (X509_verify_cert(store) != 1) {
        refuse(handshake, store);
        return 0;
    }
    if (!client_auth_allows(handshake->site->policy->client_auth, leaf))
        return deny(handshake, ssl, store);
    return 1;
}

/* ---- What handshakes are told. */

bool handshake_clients_set(SSL_CTX *context, const struct client_auth *auth)
{
    if (auth == NULL)
        return true;
    SSL_CTX_set_cert_verify_callback(context, on_verify, NULL);
    SSL_CTX_set1_cert_store(context, auth->store);
    SSL_CTX_set_client_CA_list(context, SSL_dup_CA_list(auth->ca_names));
    /* What a client may sign with is not what we sign with: an RSA CA's clients are not kept out by a policy
     * without PKCS#1. */
    return SSL_CTX_get_client_CA_list(context) != NULL &&
           SSL_CTX_set1_client_sigalgs_list(context, TLS_POLICY_SCHEMES_ALL) == 1 &&
           SSL_CTX_add_custom_ext(context, NO_EXTENSION,
                                  SSL_EXT_TLS1_3_NEW_SESSION_TICKET | SSL_EXT_TLS1_3_ONLY,
                                  on_ticket_extension, NULL, NULL, NULL, NULL) == 1;
}

void handshake_clients_ask(SSL *ssl, const struct client_auth *auth)
{
    static const int MODES[] = {
        [CLIENT_AUTH_OFF] = SSL_VERIFY_NONE,
        [CLIENT_AUTH_REQUEST] = SSL_VERIFY_PEER,
        [CLIENT_AUTH_REQUIRE] = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    };
    if (auth == NULL)
        return;
    SSL_set_verify(ssl, MODES[auth->config->mode], NULL);
    SSL_set_verify_depth(ssl, (int)auth->config->depth);
}

bool handshake_clients_session(const struct handshake *handshake, const SSL_SESSION *session)
{
    const struct client_auth *auth = handshake->site->policy->client_auth;
    X509 *leaf = SSL_SESSION_get0_peer((SSL_SESSION *)session);
    if (auth == NULL)
        return leaf == NULL;
    return leaf != NULL ? client_auth_still_good(auth, leaf) : auth->config->mode == CLIENT_AUTH_REQUEST;
}

bool handshake_clients_check(struct handshake *handshake)
{
    const struct client_auth *auth = handshake->site->policy->client_auth;
    X509 *leaf = SSL_get0_peer_certificate(handshake->ssl);
    if (auth == NULL)
        return true;
    if (handshake->denied || (leaf != NULL && SSL_get_verify_result(handshake->ssl) != X509_V_OK))
        return false;
    if (leaf != NULL && handshake->client == NULL) /* of a session that was resumed */
        handshake->facts.client = handshake->client = client_identity_of(leaf);
    return leaf != NULL || auth->config->mode != CLIENT_AUTH_REQUIRE;
}
