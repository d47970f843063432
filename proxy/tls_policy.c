#include "proxy/tls_policy.h"

/* All that a key server signs with; the cheap ones first, since the server's order decides. */
#define SIGNATURE_SCHEMES                                                                                    \
    "ecdsa_secp256r1_sha256:ed25519:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512:ed448:"                    \
    "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:"                                           \
    "rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512"

static void set_options(SSL_CTX *context)
{
    uint64_t options =
        SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_NO_TICKET;
#ifdef SSL_OP_NO_TX_CERTIFICATE_COMPRESSION
    /* A compressed Certificate would not be the one whose hash is checked. */
    options |= SSL_OP_NO_TX_CERTIFICATE_COMPRESSION | SSL_OP_NO_RX_CERTIFICATE_COMPRESSION;
#endif
    (void)SSL_CTX_set_options(context, options);
    (void)SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
}

static enum result set_lists(SSL_CTX *context, const struct proxy_config *config, struct failure *why)
{
    if (SSL_CTX_set_min_proto_version(context, config->tls.min_version) != 1 ||
        SSL_CTX_set_max_proto_version(context, 0) != 1)
        return failure_set_openssl(why, "tls.min_version");
    if (SSL_CTX_set1_groups_list(context, config->tls.groups) != 1)
        return failure_set_openssl(why, "tls.groups: \"%s\"", config->tls.groups);
    if (SSL_CTX_set_ciphersuites(context, config->tls.ciphersuites) != 1)
        return failure_set_openssl(why, "tls.ciphersuites: \"%s\"", config->tls.ciphersuites);
    if (SSL_CTX_set_cipher_list(context, config->tls.ciphers) != 1)
        return failure_set_openssl(why, "tls.ciphers: \"%s\"", config->tls.ciphers);
    if (SSL_CTX_set1_sigalgs_list(context, SIGNATURE_SCHEMES) != 1)
        return failure_set_openssl(why, "signature schemes");
    if (SSL_CTX_set_num_tickets(context, 0) != 1)
        return failure_set_openssl(why, "tickets");
    return RESULT_OK;
}

/* TLS_RSA is the one reason for a decryption operation to exist: no suite of it may be in force, whatever the
 * configuration says; nor one without authentication. */
static enum result check_ciphers(SSL_CTX *context, struct failure *why)
{
    STACK_OF(SSL_CIPHER) *ciphers = SSL_CTX_get_ciphers(context);
    for (int i = 0; i < sk_SSL_CIPHER_num(ciphers); i++) {
        const SSL_CIPHER *cipher = sk_SSL_CIPHER_value(ciphers, i);
        int exchange = SSL_CIPHER_get_kx_nid(cipher), authentication = SSL_CIPHER_get_auth_nid(cipher);
        bool ephemeral = exchange == NID_kx_ecdhe || exchange == NID_kx_any;
        bool signs = authentication == NID_auth_rsa || authentication == NID_auth_ecdsa ||
                     authentication == NID_auth_any;
        if (!ephemeral || !signs)
            return failure_set(why, RESULT_CONFIG,
                               "tls.ciphers: %s cannot be served: expected ECDHE suites with a signature",
                               SSL_CIPHER_get_name(cipher));
    }
    return RESULT_OK;
}

enum result tls_policy_context(const struct proxy_config *config, SSL_CTX **context, struct failure *why)
{
    *context = NULL;
    SSL_CTX *made = SSL_CTX_new(TLS_server_method());
    if (made == NULL)
        return failure_set_openssl(why, "cannot make a TLS context");
    set_options(made);
    enum result result = set_lists(made, config, why);
    if (result == RESULT_OK)
        result = check_ciphers(made, why);
    if (result != RESULT_OK) {
        SSL_CTX_free(made);
        return result == RESULT_CRYPTO ? RESULT_CONFIG : result;
    }
    *context = made;
    return RESULT_OK;
}
