/* How clients are spoken to: the configuration's tls section as an SSL_CTX. No certificates and no callbacks:
 * those are the handshake's. */
#ifndef KEYLESS_PROXY_TLS_POLICY_H
#define KEYLESS_PROXY_TLS_POLICY_H

#include <openssl/ssl.h>

#include "common/result.h"
#include "proxy/config.h"

/* RESULT_CONFIG: a list of groups or suites that OpenSSL does not take. Free with SSL_CTX_free. */
MUST_CHECK enum result tls_policy_context(const struct proxy_config *config, SSL_CTX **context,
                                          struct failure *why);

#endif
