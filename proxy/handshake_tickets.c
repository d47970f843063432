#include "proxy/handshake_state.h"

#include <string.h>
#include <time.h>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/rand.h>

#include "common/certificate_names.h"
#include "proxy/proxy_metrics.h"

/* What a ticket of ours carries beside libssl's own: when the chain of resumptions began, and with which
 * certificate. Version 1. */
struct ticket_note {
    uint64_t began;                      /* Unix seconds */
    uint8_t leaf[CERTIFICATE_MARK_SIZE]; /* certificate.mark */
};

#define NOTE_VERSION 1
#define NOTE_SIZE    (1 + 8 + CERTIFICATE_MARK_SIZE)

static void count(const struct handshake *handshake, enum proxy_metric metric)
{
    metric_add(handshake->context->metrics, metric, 1);
}

/* ---- Encryption: name(16) IV(16) AES-CBC HMAC-SHA-256, as RFC 5077 section 4 recommends. */

static bool set_mac(EVP_MAC_CTX *mac, const struct ticket_key *key)
{
    char digest[] = "SHA256";
    const OSSL_PARAM parameters[] = {
        OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)key->hmac_key, key->secret_size),
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end()};
    return EVP_MAC_CTX_set_params(mac, parameters) == 1;
}

static const EVP_CIPHER *cipher_of(const struct handshake_context *context, const struct ticket_key *key)
{
    return key->secret_size == TICKET_SECRET_MAX ? context->aes256 : context->aes128;
}

static int make(struct handshake *handshake, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                EVP_MAC_CTX *mac)
{
    const struct ticket_keys *keys = ticket_source_keys(handshake->context->tickets);
    const struct ticket_key *key = ticket_keys_making(keys, (uint64_t)time(NULL));
    if (key == NULL) /* there was one when the ticket was promised (handshake_tickets_offer) */
        return 0;
    if (RAND_bytes(iv, EVP_CIPHER_get_iv_length(cipher_of(handshake->context, key))) != 1)
        return -1;
    memcpy(name, key->name, sizeof key->name);
    if (EVP_EncryptInit_ex2(cipher, cipher_of(handshake->context, key), key->aes_key, iv, NULL) != 1 ||
        !set_mac(mac, key))
        return -1;
    count(handshake, PROXY_TICKETS_MADE);
    return 1;
}

/* 1: it is good; 2: and a new one is due. In TLS 1.3 one always is, since clients use each but once (RFC 8446
 * appendix C.4). */
static int open_ticket(struct handshake *handshake, const unsigned char *name, const unsigned char *iv,
                       EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac)
{
    const uint64_t now = (uint64_t)time(NULL);
    const struct ticket_keys *keys = ticket_source_keys(handshake->context->tickets);
    const struct ticket_key *key = ticket_keys_opening(keys, name, now);
    if (key == NULL)
        return 0; /* no error: a full handshake */
    if (EVP_DecryptInit_ex2(cipher, cipher_of(handshake->context, key), key->aes_key, iv, NULL) != 1 ||
        !set_mac(mac, key))
        return -1;
    bool present = key == ticket_keys_making(keys, now);
    return present && SSL_version(handshake->ssl) != TLS1_3_VERSION ? 1 : 2;
}

static int on_ticket_key(SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher,
                         EVP_MAC_CTX *mac, int encrypt)
{
    struct handshake *handshake = SSL_get_app_data(ssl);
    return encrypt == 1 ? make(handshake, name, iv, cipher, mac)
                        : open_ticket(handshake, name, iv, cipher, mac);
}

/* ---- What is written into a ticket, and looked at when it comes back. */

/* The chain whose key has signed, or NULL. */
static const struct certificate *signed_with(const struct handshake *handshake)
{
    const struct key_id *key = handshake->signature.operation.key;
    for (size_t i = 0; i < handshake->found_count && key != NULL; i++)
        if (key_ski_equal(handshake->found[i]->key.ski, key->ski))
            return handshake->found[i];
    return NULL;
}

static int on_ticket_made(SSL *ssl, void *argument)
{
    const struct handshake *handshake = SSL_get_app_data(ssl);
    (void)argument;
    if (SSL_session_reused(ssl) == 1)
        return 1; /* its note stays: the chain of resumptions goes on */
    uint8_t note[NOTE_SIZE];
    struct writer to = writer_of(note, sizeof note);
    const struct certificate *certificate = signed_with(handshake);
    if (certificate == NULL)
        return 0;
    write_u8(&to, NOTE_VERSION);
    write_u64(&to, (uint64_t)time(NULL));
    write_bytes(&to, bytes_of(certificate->mark, sizeof certificate->mark));
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), note, to.size);
}

static bool read_note(SSL_SESSION *session, struct ticket_note *note)
{
    void *data = NULL;
    size_t size = 0;
    uint8_t version;
    if (SSL_SESSION_get0_ticket_appdata(session, &data, &size) != 1)
        return false;
    struct reader from = reader_of(bytes_of(data, size));
    return read_u8(&from, &version) && version == NOTE_VERSION && read_u64(&from, &note->began) &&
           read_copy(&from, note->leaf, sizeof note->leaf) && reader_empty(&from);
}

/* Whether the certificate of then would be shown today. */
static bool leaf_is_served(const struct handshake *handshake, const struct ticket_note *note)
{
    for (size_t i = 0; i < handshake->found_count; i++)
        if (memcmp(handshake->found[i]->mark, note->leaf, sizeof note->leaf) == 0)
            return handshake->found[i]->not_after > time(NULL);
    return false;
}

static bool is_good(const struct handshake *handshake, SSL_SESSION *session)
{
    const struct proxy_config *config = handshake->context->config;
    const uint64_t now = (uint64_t)time(NULL);
    struct ticket_note note;
    return read_note(session, &note) && note.began + config->tickets.max_age / CONFIG_SECOND >= now &&
           leaf_is_served(handshake, &note) && handshake_clients_session(handshake, session);
}

static SSL_TICKET_RETURN on_ticket_opened(SSL *ssl, SSL_SESSION *session, const unsigned char *name,
                                          size_t name_size, SSL_TICKET_STATUS status, void *argument)
{
    const struct handshake *handshake = SSL_get_app_data(ssl);
    (void)name;
    (void)name_size;
    (void)argument;
    if (status == SSL_TICKET_NO_DECRYPT)
        count(handshake, PROXY_TICKETS_UNKNOWN);
    if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW)
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    if (!is_good(handshake, session)) {
        count(handshake, PROXY_TICKETS_STALE);
        return SSL_TICKET_RETURN_IGNORE_RENEW;
    }
    return status == SSL_TICKET_SUCCESS ? SSL_TICKET_RETURN_USE : SSL_TICKET_RETURN_USE_RENEW;
}

/* ---- In the client hello. */

/* libssl compares it with what the session has, before it looks at the name (CVE-2025-23419 was the lack of
 * it): a session is resumed only where it was made. The same on every edge of one configuration. */
static bool set_session_context(SSL *ssl, const struct handshake *handshake)
{
    uint8_t octets[EVP_MAX_MD_SIZE];
    char name[DNS_NAME_MAX + 1] = "";
    unsigned size = 0;
    struct bytes sni = bytes_of(handshake->hello.sni, handshake->hello.sni_size);
    const struct handshake_policy *policy = handshake->site->policy;
    if (sni.size > 0 && !dns_name_normalise(sni, false, name))
        return false;
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool made = digest != NULL && EVP_DigestInit_ex2(digest, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(digest, policy->mark, sizeof policy->mark) == 1 &&
                EVP_DigestUpdate(digest, name, strlen(name)) == 1 &&
                EVP_DigestFinal_ex(digest, octets, &size) == 1;
    EVP_MD_CTX_free(digest);
    return made && SSL_set_session_id_context(ssl, octets, size) == 1;
}

/* Whether this will be TLS 1.3: libssl has not chosen yet. */
static bool will_be_tls13(SSL *ssl)
{
    const unsigned char *data;
    size_t size;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_supported_versions, &data, &size) != 1)
        return false;
    struct reader from = reader_of(bytes_of(data, size));
    struct bytes versions;
    uint16_t version;
    if (!read_vector8(&from, &versions))
        return false;
    for (from = reader_of(versions); read_u16(&from, &version);)
        if (version == TLS1_3_VERSION)
            return true;
    return false;
}

void handshake_tickets_offer(SSL *ssl, const struct handshake *handshake)
{
    const struct handshake_context *context = handshake->context;
    if (context->config->tickets.source == TICKETS_OFF)
        return;
    const struct ticket_keys *keys = ticket_source_keys(context->tickets);
    bool can = ticket_keys_making(keys, (uint64_t)time(NULL)) != NULL && set_session_context(ssl, handshake);
    bool wanted = will_be_tls13(ssl) || context->config->tickets.tls12;
    if (can && wanted)
        return;
    (void)SSL_set_options(ssl, SSL_OP_NO_TICKET);
    (void)SSL_set_num_tickets(ssl, 0);
}

bool handshake_tickets_set(struct handshake_context *context)
{
    const struct proxy_config *config = context->config;
    SSL_CTX *ssl_context = context->policies[0].ssl_context; /* of tickets the first is asked */
    if (config->tickets.source == TICKETS_OFF)
        return true; /* as the policy has it */
    context->aes128 = EVP_CIPHER_fetch(NULL, "AES-128-CBC", NULL);
    context->aes256 = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
    (void)SSL_CTX_clear_options(ssl_context, SSL_OP_NO_TICKET);
    (void)SSL_CTX_set_timeout(ssl_context, (long)(config->tickets.lifetime / CONFIG_SECOND));
    return context->aes128 != NULL && context->aes256 != NULL &&
           SSL_CTX_set_num_tickets(ssl_context, config->tickets.count) == 1 &&
           SSL_CTX_set_tlsext_ticket_key_evp_cb(ssl_context, on_ticket_key) == 1 &&
           SSL_CTX_set_session_ticket_cb(ssl_context, on_ticket_made, on_ticket_opened, NULL) == 1;
}
