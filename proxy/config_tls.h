/* Checks of the settings under `tls`: OpenSSL is asked, on a scratch SSL_CTX, so that an error names the word
 * that is wrong when the file is read and not when the first client comes. Internal to the configuration. */
#ifndef KEYLESS_PROXY_CONFIG_TLS_H
#define KEYLESS_PROXY_CONFIG_TLS_H

#include "common/config_table.h"

extern const struct config_word PROXY_POLICY_WORDS[];

/* Each is a row's `check` for a char *. */

/* Groups that the key server signs for in TLS 1.2, and the hybrids of TLS 1.3. */
enum result proxy_config_check_groups(const struct config_row *row, const void *value, struct failure *why);
enum result proxy_config_check_ciphersuites(const struct config_row *row, const void *value,
                                            struct failure *why);
/* Only ECDHE with an AEAD: with TLS_RSA every recorded session could be opened through the key server. */
enum result proxy_config_check_ciphers(const struct config_row *row, const void *value, struct failure *why);
/* Schemes that a key server signs with, by their names in the registry. */
enum result proxy_config_check_schemes(const struct config_row *row, const void *value, struct failure *why);
/* A host name, for certificates and SNI. */
enum result proxy_config_check_name(const struct config_row *row, const void *value, struct failure *why);

#endif
