/* How clients are spoken to: policies by name, and a policy as an SSL_CTX. No certificates and no callbacks:
 * those are the handshake's. */
#ifndef KEYLESS_PROXY_TLS_POLICY_H
#define KEYLESS_PROXY_TLS_POLICY_H

#include <openssl/ssl.h>

#include "common/result.h"
#include "proxy/config.h"

/* All schemes that a key server signs with; the cheap ones first, since the server's order decides. */
#define TLS_POLICY_SCHEMES_TLS13                                                                             \
    "ecdsa_secp256r1_sha256:ed25519:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512:ed448:"                    \
    "rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512"
#define TLS_POLICY_SCHEMES_ALL TLS_POLICY_SCHEMES_TLS13 ":rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512"

/* Octets of a client's Certificate message. */
#define TLS_POLICY_CLIENT_CERTIFICATE_MAX 16384

/* Lists as OpenSSL takes them; borrowed from the program or from the configuration. */
struct tls_policy {
    int min_version;
    const char *groups, *ciphersuites, *ciphers, *schemes;
};

/* intermediate or modern. X25519MLKEM768 is in it, first, where the OpenSSL at hand has it. */
struct tls_policy tls_policy_named(enum proxy_policy name);
/* A policy by name, or what is configured under `tls` for POLICY_CONFIGURED. */
struct tls_policy tls_policy_of(const struct proxy_config *config, enum proxy_policy name);

/* RESULT_CONFIG: a list of groups or suites that OpenSSL does not take. Free with SSL_CTX_free. */
MUST_CHECK enum result tls_policy_context(const struct tls_policy *policy, SSL_CTX **context,
                                          struct failure *why);

#endif
