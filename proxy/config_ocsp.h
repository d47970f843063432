/* The settings of OCSP stapling, `ocsp`: those under `tls`, and each site's own. Internal to the
 * configuration.
 */
#ifndef KEYLESS_PROXY_CONFIG_OCSP_H
#define KEYLESS_PROXY_CONFIG_OCSP_H

#include "common/config_table.h"
#include "proxy/config.h"

extern const struct config_word PROXY_OCSP_WORDS[];

/* A row's `check`: an http URL. */
enum result proxy_config_check_responder(const struct config_row *row, const void *value,
                                         struct failure *why);

/* NOLINTBEGIN(bugprone-macro-parentheses): types and members cannot stand in parentheses. */

#define PROXY_OCSP_ROWS(prefix, type_, member)                                                               \
    {                                                                                                        \
        .path = prefix "ocsp.source",                                                                        \
        .type = &CONFIG_CHOICE,                                                                              \
        CONFIG_AT(type_, member.source),                                                                     \
        .words = PROXY_OCSP_WORDS,                                                                           \
        .fallback = "off",                                                                                   \
        .shorthand = true,                                                                                   \
        .help = "Where the OCSP responses come from that are stapled to chains. file: NAME.ocsp beside "     \
                "each chain file NAME, in DER, which somebody else renews. fetch: the responder that the "   \
                "certificate names. They are verified before they are used.",                                \
    },                                                                                                       \
        {                                                                                                    \
            .path = prefix "ocsp.responder",                                                                 \
            .type = &CONFIG_TEXT,                                                                            \
            CONFIG_AT(type_, member.responder),                                                              \
            .max = 512,                                                                                      \
            .check = proxy_config_check_responder,                                                           \
            .expected = "a URL such as http://ocsp.example/",                                                \
            .help = "With source: fetch. In place of the responder that a certificate names.",               \
        },                                                                                                   \
        {                                                                                                    \
            .path = prefix "ocsp.refresh",                                                                   \
            .type = &CONFIG_DURATION,                                                                        \
            CONFIG_AT(type_, member.refresh),                                                                \
            .min = CONFIG_SECOND,                                                                            \
            .max = 7 * 24 * CONFIG_HOUR,                                                                     \
            .fallback = "1h",                                                                                \
            .help = "With source: fetch. How old a response gets before the next is asked for; at half of "  \
                    "its life in any case.",                                                                 \
        },                                                                                                   \
    {                                                                                                        \
        .path = prefix "ocsp.timeout", .type = &CONFIG_DURATION, CONFIG_AT(type_, member.timeout),           \
        .min = 100 * CONFIG_MILLISECOND, .max = 5 * CONFIG_MINUTE, .fallback = "10s",                        \
        .help = "With source: fetch. For the whole of one answer, looking up the name included.",            \
    }

/* NOLINTEND(bugprone-macro-parentheses) */

/* That the settings of one `ocsp` fit together; prefix is "tls." or "". */
MUST_CHECK enum result proxy_config_check_ocsp(const struct config_scope *scope, const char *prefix,
                                               const struct proxy_ocsp *ocsp, struct failure *why);
/* A copy for a site that has none of its own. false: no memory. */
MUST_CHECK bool proxy_config_copy_ocsp(const struct proxy_ocsp *from, struct proxy_ocsp *to);

#endif
