#include "proxy/handshake_state.h"

#include <string.h>

#include "proxy/certificate_verdicts.h"
#include "proxy/client_bio.h"

/* Octets after the ClientHello: a second one, or 16 kB of early data that is passed over. */
#define AFTER_HELLO_MAX 32768
/* ... and what a client proves itself with: its Certificate, and its CertificateVerify. */
#define CLIENT_MAX (TLS_POLICY_CLIENT_CERTIFICATE_MAX + 2048)

/* Everything here runs on the fibre: 32 kB of stack. */

static void refuse(struct handshake *handshake, enum handshake_class class, const char *text)
{
    handshake->reason = (struct handshake_reason){class, text};
}

static void read_extension(SSL *ssl, unsigned type, struct client_hello *hello,
                           void (*read)(struct client_hello *, struct bytes))
{
    const unsigned char *data;
    size_t size;
    if (SSL_client_hello_get0_ext(ssl, type, &data, &size) == 1)
        read(hello, bytes_of(data, size));
}

static void read_suites(SSL *ssl, struct client_hello *hello)
{
    const unsigned char *data;
    size_t size = SSL_client_hello_get0_ciphers(ssl, &data);
    client_hello_read_suites(hello, bytes_of(data, size));
}

/* The certificate was chosen by the name in the first ClientHello, which libssl does not compare. RFC 8446
 * section 4.1.2 lets the client change other things. */
static bool has_same_name(const struct handshake *handshake)
{
    return bytes_equal(bytes_of(handshake->hello.sni, handshake->hello.sni_size),
                       bytes_of(handshake->facts.sni, handshake->facts.sni_size));
}

void handshake_chains_drop(struct handshake *handshake)
{
    for (size_t i = 0; i < handshake->found_count; i++)
        certificate_drop(handshake->found[i]);
    handshake->found_count = 0;
}

/* They are kept, as a ticket is made of one at the end of the handshake, and a renewal may come before. */
static void find_chains(struct handshake *handshake, struct bytes sni)
{
    handshake_chains_drop(handshake);
    handshake->found_count = certificates_find(handshake->context->certificates, handshake->site->config, sni,
                                               handshake->found, &handshake->name_matched);
    for (size_t i = 0; i < handshake->found_count; i++)
        (void)certificate_hold(handshake->found[i]);
}

/* Before libssl has looked at versions or extensions, so that the SNI of what fails is known too. */
static int on_client_hello(SSL *ssl, int *alert, void *argument)
{
    struct handshake *handshake = SSL_get_app_data(ssl);
    (void)argument;
    if (SSL_client_hello_isv2(ssl)) {
        refuse(handshake, HANDSHAKE_CLASS_VERSION, "hello in SSLv2 format");
        *alert = SSL_AD_PROTOCOL_VERSION;
        return SSL_CLIENT_HELLO_ERROR;
    }
    if (handshake->transcript.hello_too_long) {
        refuse(handshake, HANDSHAKE_CLASS_MALFORMED, handshake->transcript.failure);
        *alert = SSL_AD_ILLEGAL_PARAMETER;
        return SSL_CLIENT_HELLO_ERROR;
    }
    struct client_hello *hello = &handshake->hello;
    *hello = (struct client_hello){0};
    read_extension(ssl, TLSEXT_TYPE_server_name, hello, client_hello_read_sni);
    read_extension(ssl, TLSEXT_TYPE_signature_algorithms, hello, client_hello_read_schemes);
    read_extension(ssl, TLSEXT_TYPE_supported_groups, hello, client_hello_read_groups);
    read_suites(ssl, hello);
    if (handshake->hellos++ > 0 && !has_same_name(handshake)) {
        refuse(handshake, HANDSHAKE_CLASS_MALFORMED, "another name in the second ClientHello");
        *alert = SSL_AD_ILLEGAL_PARAMETER;
        return SSL_CLIENT_HELLO_ERROR;
    }
    handshake->facts.sni_size = hello->sni_size;
    memcpy(handshake->facts.sni, hello->sni, hello->sni_size);
    struct bytes sni = bytes_of(hello->sni_size > 0 ? hello->sni : NULL, hello->sni_size);
    handshake->signature.operation.sni = sni;
    if (!handshake_site_choose(handshake, ssl, sni)) {
        refuse(handshake, HANDSHAKE_CLASS_INTERNAL, "no memory for the site's policy");
        *alert = SSL_AD_INTERNAL_ERROR;
        return SSL_CLIENT_HELLO_ERROR;
    }
    bool asked = handshake->site->policy->client_auth != NULL;
    client_bio_allow(handshake->bio, AFTER_HELLO_MAX + (asked ? CLIENT_MAX : 0));
    hello->schemes &= handshake->site->policy->schemes; /* what the client verifies and we sign */
    find_chains(handshake, sni);
    handshake_tickets_offer(ssl, handshake);
    return SSL_CLIENT_HELLO_SUCCESS;
}

/* A name with another name's chain is nothing that a key server signs when it sees the whole handshake. */
static bool is_name_in_vain(SSL *ssl, const struct handshake *handshake)
{
    if (handshake->name_matched)
        return false;
    bool by_transcript =
        handshake->signature.operation.transcript != NULL && SSL_version(ssl) == TLS1_3_VERSION;
    return (by_transcript && handshake->hello.sni_size > 0) || handshake->found_count == 0 ||
           handshake->context->config->tls.strict_sni;
}

/* Makes libssl acknowledge the name if a chain is for it (RFC 6066 section 3). */
static int on_server_name(SSL *ssl, int *alert, void *argument)
{
    struct handshake *handshake = SSL_get_app_data(ssl);
    (void)argument;
    if (is_name_in_vain(ssl, handshake)) {
        refuse(handshake, HANDSHAKE_CLASS_NAME,
               handshake->hello.sni_size > 0 ? "no certificate for this name" : "no name asked for");
        *alert = SSL_AD_UNRECOGNIZED_NAME;
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    return handshake->name_matched ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

/* Whether a handshake with the chain can be expected to go well: the key server signs for it, and clients
 * that know of must-staple (RFC 7633) get what they want. */
static bool is_fit(const struct handshake *handshake, const struct certificate *certificate)
{
    const struct handshake_context *context = handshake->context;
    if (certificates_verdict(context->certificates, certificate) == CERTIFICATE_KEPT_OUT)
        return false;
    return !certificate->must_staple ||
           (handshake_staples_on(handshake) && ready_chains_staple(context->chains, certificate).size > 0);
}

/* The chains to choose from: those that are fit, if the client can verify one of them. A poor chance is
 * better than none. */
static size_t choose_chains(const struct handshake *handshake, bool tls13,
                            const struct certificate *chosen[static CERTIFICATES_PER_NAME])
{
    const struct client_hello *hello = &handshake->hello;
    const struct certificate *fit[CERTIFICATES_PER_NAME];
    size_t count = 0;
    for (size_t i = 0; i < handshake->found_count; i++)
        if (is_fit(handshake, handshake->found[i]) &&
            client_hello_verifies(hello, handshake->found[i]->key.type, tls13))
            fit[count++] = handshake->found[i];
    if (count > 0)
        return client_hello_choose(hello, tls13, fit, count, chosen);
    return client_hello_choose(hello, tls13, handshake->found, handshake->found_count, chosen);
}

/*
 * libssl asks when it knows that no session is resumed, before it makes its key share, and again for a second
 * ClientHello: a handshake that would not get its signature is turned away before its dear part, the key
 * exchange, and whatever its client claims to bring.
 */
static int on_certificate(SSL *ssl, void *argument)
{
    struct handshake *handshake = SSL_get_app_data(ssl);
    const struct certificate *chosen[CERTIFICATES_PER_NAME];
    (void)argument;
    handshake->stage = "certificate";
    if (key_client_full(handshake->context->signer.client)) {
        refuse(handshake, HANDSHAKE_CLASS_KEY_TOO_MANY, key_client_full_reason);
        return 0;
    }
    if (handshake->certificates_set)
        return 1;
    client_bio_pause(handshake->bio, true); /* what the client answers is not read on the fibre */
    size_t count = choose_chains(handshake, SSL_version(ssl) == TLS1_3_VERSION, chosen);
    for (size_t i = 0; i < count; i++) {
        const struct ready_chain *chain = ready_chains_get(handshake->context->chains, chosen[i]);
        if (chain == NULL || SSL_use_cert_and_key(ssl, chain->leaf, chain->key, chain->issuers, 1) != 1)
            return 0;
    }
    handshake->certificates_set = true;
    return 1;
}

static int on_protocol(SSL *ssl, const unsigned char **out, unsigned char *out_size, const unsigned char *in,
                       unsigned in_size, void *argument)
{
    struct handshake *handshake = SSL_get_app_data(ssl);
    const struct handshake_site *site = handshake->site;
    (void)argument;
    if (site->alpn_count == 0)
        return SSL_TLSEXT_ERR_NOACK;
    bool only_http11 = site->backend != NULL ? site->only_http11 : handshake->only_http11;
    const char *chosen =
        client_hello_protocol(bytes_of(in, in_size), site->alpn, site->alpn_count, only_http11 ? "h2" : NULL);
    if (chosen == NULL) {
        refuse(handshake, HANDSHAKE_CLASS_ALPN, "no shared application protocol");
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    }
    *out = (const unsigned char *)chosen;
    *out_size = (unsigned char)strlen(chosen);
    return SSL_TLSEXT_ERR_OK;
}

void handshake_choices_set(SSL_CTX *context)
{
    SSL_CTX_set_client_hello_cb(context, on_client_hello, NULL);
    (void)SSL_CTX_set_tlsext_servername_callback(context, on_server_name);
    SSL_CTX_set_cert_cb(context, on_certificate, NULL);
    SSL_CTX_set_alpn_select_cb(context, on_protocol, NULL);
}
