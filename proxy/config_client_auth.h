/* The settings of client certificates, `client_auth`: those under `tls`, and each site's own. Internal to the
 * configuration. */
#ifndef KEYLESS_PROXY_CONFIG_CLIENT_AUTH_H
#define KEYLESS_PROXY_CONFIG_CLIENT_AUTH_H

#include "common/config_table.h"
#include "proxy/config.h"

extern const struct config_word PROXY_CLIENT_AUTH_WORDS[];

/* A row's `check`: what client_match.h takes for a pattern. */
enum result proxy_config_check_client_name(const struct config_row *row, const void *value,
                                           struct failure *why);

/* NOLINTBEGIN(bugprone-macro-parentheses): types and members cannot stand in parentheses. */

#define PROXY_CLIENT_AUTH_ROWS(prefix, type_, member)                                                        \
    {                                                                                                        \
        .path = prefix "client_auth.mode",                                                                   \
        .type = &CONFIG_CHOICE,                                                                              \
        CONFIG_AT(type_, member.mode),                                                                       \
        .words = PROXY_CLIENT_AUTH_WORDS,                                                                    \
        .fallback = "off",                                                                                   \
        .shorthand = true,                                                                                   \
        .help = "Whether clients are asked for a certificate. request: they may have none, but not a bad "   \
                "one. require: they must have one.",                                                         \
    },                                                                                                       \
        {                                                                                                    \
            .path = prefix "client_auth.ca",                                                                 \
            .type = &CONFIG_PATH,                                                                            \
            CONFIG_AT(type_, member.ca),                                                                     \
            .help = "The CAs that clients' certificates must come from, PEM, up to the root; their names "   \
                    "are told to clients. No other CA is trusted.",                                          \
        },                                                                                                   \
        {                                                                                                    \
            .path = prefix "client_auth.crl",                                                                \
            .type = &CONFIG_PATH,                                                                            \
            CONFIG_AT(type_, member.crl),                                                                    \
            .help = "Revocation lists, PEM, one of each of these CAs. One that is out of date refuses "      \
                    "everybody. Without it: nobody is revoked.",                                             \
        },                                                                                                   \
        {                                                                                                    \
            .path = prefix "client_auth.depth",                                                              \
            .type = &CONFIG_COUNT,                                                                           \
            CONFIG_AT(type_, member.depth),                                                                  \
            .max = 16,                                                                                       \
            .fallback = "4",                                                                                 \
            .unit = "certificates",                                                                          \
            .help = "At most between a client's certificate and the root.",                                  \
        },                                                                                                   \
    {                                                                                                        \
        .path = prefix "client_auth.names", .type = &CONFIG_TEXT,                                            \
        CONFIG_LIST_AT(type_, member.names, member.name_count), .max = 512, .most = 4096,                    \
        .check = proxy_config_check_client_name,                                                             \
        .expected = "names such as [\"DNS:*.clients.example\", \"CN:name\"]",                                \
        .help = "Who may connect, of those with a good certificate: DNS:name or DNS:*.name, IP:address and " \
                "URI:uri of the subjectAltName, CN:name of the subject, sha256:fingerprint. Without it: "    \
                "all of them.",                                                                              \
    }

/* NOLINTEND(bugprone-macro-parentheses) */

/* That the settings of one client_auth fit together; prefix is "tls." or "". */
MUST_CHECK enum result proxy_config_check_client_auth(const struct config_scope *scope, const char *prefix,
                                                      const struct proxy_client_auth *auth,
                                                      struct failure *why);
/* A copy for a site that has none of its own. false: no memory. */
MUST_CHECK bool proxy_config_copy_client_auth(const struct proxy_client_auth *from,
                                              struct proxy_client_auth *to);

#endif
