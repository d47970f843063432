#include "proxy/handshake_state.h"

#include <string.h>

/* Everything here runs on the fibre: 32 kB of stack. */

/* Which of the chains that were found libssl has chosen. */
static const struct certificate *chosen_of(const struct handshake *handshake, SSL *ssl)
{
    const X509 *leaf = SSL_get_certificate(ssl);
    for (size_t i = 0; i < handshake->found_count; i++) {
        const struct ready_chain *chain = ready_chains_get(handshake->context->chains, handshake->found[i]);
        if (chain != NULL && chain->leaf == leaf)
            return handshake->found[i];
    }
    return NULL;
}

bool handshake_staples_on(const struct handshake *handshake)
{
    const struct proxy_site *site = handshake->site->config;
    const struct proxy_ocsp *ocsp = site != NULL ? &site->ocsp : &handshake->context->config->tls.ocsp;
    return ocsp->source != OCSP_OFF;
}

/* The client has asked for the certificate's status, and the certificate is chosen (RFC 6066 section 8). */
static int on_status(SSL *ssl, void *argument)
{
    struct handshake *handshake = SSL_get_app_data(ssl);
    const struct certificate *certificate =
        handshake_staples_on(handshake) ? chosen_of(handshake, ssl) : NULL;
    (void)argument;
    if (certificate == NULL)
        return SSL_TLSEXT_ERR_NOACK;
    struct bytes staple = ready_chains_staple(handshake->context->chains, certificate);
    unsigned char *copy = staple.size > 0 ? OPENSSL_memdup(staple.data, staple.size) : NULL;
    if (copy == NULL || SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)staple.size) != 1)
        return SSL_TLSEXT_ERR_NOACK;
    handshake->stapled = true;
    return SSL_TLSEXT_ERR_OK;
}

void handshake_staples_set(SSL_CTX *context)
{
    (void)SSL_CTX_set_tlsext_status_cb(context, on_status);
}
