/* How clients are spoken to: policies by name, and a policy as an SSL_CTX. No certificates and no callbacks:
 * those are the handshake's. */
#ifndef KEYLESS_PROXY_TLS_POLICY_H
#define KEYLESS_PROXY_TLS_POLICY_H

#include <openssl/ssl.h>

#include "common/result.h"
#include "proxy/config.h"

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
