#include "proxy/tls_policy.h"

#include <openssl/err.h>

/* ---- By name. */

#define HYBRID "X25519MLKEM768"

static const struct {
    const char *groups, *groups_hybrid; /* without and with what OpenSSL has from 3.5 on */
    struct tls_policy rest;
} POLICIES[] = {
    [POLICY_INTERMEDIATE] = {"X25519:P-256",
                             HYBRID ":X25519:P-256",
                             {.min_version = TLS1_2_VERSION, .schemes = TLS_POLICY_SCHEMES_ALL}},
    [POLICY_MODERN] = {"X25519:P-256:P-384",
                       HYBRID ":X25519:P-256:P-384",
                       {.min_version = TLS1_3_VERSION, .schemes = TLS_POLICY_SCHEMES_TLS13}},
};

static bool has_hybrid(void)
{
    SSL_CTX *scratch = SSL_CTX_new(TLS_server_method());
    bool has = scratch != NULL && SSL_CTX_set1_groups_list(scratch, HYBRID) == 1;
    SSL_CTX_free(scratch);
    ERR_clear_error();
    return has;
}

struct tls_policy tls_policy_named(enum proxy_policy name)
{
    struct tls_policy policy = POLICIES[name].rest;
    policy.groups = has_hybrid() ? POLICIES[name].groups_hybrid : POLICIES[name].groups;
    policy.ciphersuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
    policy.ciphers = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                     "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                     "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";
    return policy;
}

struct tls_policy tls_policy_of(const struct proxy_config *config, enum proxy_policy name)
{
    if (name != POLICY_CONFIGURED)
        return tls_policy_named(name);
    return (struct tls_policy){.min_version = config->tls.min_version,
                               .groups = config->tls.groups,
                               .ciphersuites = config->tls.ciphersuites,
                               .ciphers = config->tls.ciphers,
                               .schemes = config->tls.schemes};
}

/* ---- As a context. */

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
    (void)SSL_CTX_set_max_cert_list(context, TLS_POLICY_CLIENT_CERTIFICATE_MAX);
}

static enum result set_lists(SSL_CTX *context, const struct tls_policy *policy, struct failure *why)
{
    if (SSL_CTX_set_min_proto_version(context, policy->min_version) != 1 ||
        SSL_CTX_set_max_proto_version(context, 0) != 1)
        return failure_set_openssl(why, "tls.min_version");
    if (SSL_CTX_set1_groups_list(context, policy->groups) != 1)
        return failure_set_openssl(why, "tls.groups: \"%s\"", policy->groups);
    if (SSL_CTX_set_ciphersuites(context, policy->ciphersuites) != 1)
        return failure_set_openssl(why, "tls.ciphersuites: \"%s\"", policy->ciphersuites);
    if (SSL_CTX_set_cipher_list(context, policy->ciphers) != 1)
        return failure_set_openssl(why, "tls.ciphers: \"%s\"", policy->ciphers);
    if (SSL_CTX_set1_sigalgs_list(context, policy->schemes) != 1)
        return failure_set_openssl(why, "tls.schemes: \"%s\"", policy->schemes);
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

enum result tls_policy_context(const struct tls_policy *policy, SSL_CTX **context, struct failure *why)
{
    *context = NULL;
    SSL_CTX *made = SSL_CTX_new(TLS_server_method());
    if (made == NULL)
        return failure_set_openssl(why, "cannot make a TLS context");
    set_options(made);
    enum result result = set_lists(made, policy, why);
    if (result == RESULT_OK)
        result = check_ciphers(made, why);
    if (result != RESULT_OK) {
        SSL_CTX_free(made);
        return result == RESULT_CRYPTO ? RESULT_CONFIG : result;
    }
    *context = made;
    return RESULT_OK;
}
