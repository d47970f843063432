#include "proxy/config.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/ssl.h>

#include "common/config_rows.h"
#include "proxy/config_backends.h"
#include "proxy/config_client_auth.h"
#include "proxy/config_key_servers.h"
#include "proxy/config_ocsp.h"
#include "proxy/config_settle.h"
#include "proxy/config_sites.h"
#include "proxy/config_tls.h"

/* ---- listen */

static const struct config_word REDIRECT_WORDS[] = {{"off", 0}, {"on", 443}, {NULL, 0}};

static const struct config_row LISTEN_ROWS[] = {
    {
        .path = "address",
        .type = &CONFIG_ADDRESS,
        CONFIG_AT(struct proxy_listen, address),
        .required = true,
        .help = "Where clients connect. [::] takes IPv6 only; list both families to have both.",
    },
    {
        .path = "backend",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_listen, backend),
        .max = 64,
        .expected = "the name of a backend",
        .help = "The name in backends that gets the connections. May be left out when there is only one.",
    },
    {
        .path = "redirect_to_https",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct proxy_listen, redirect_port),
        .min = 1,
        .max = 65535,
        .words = REDIRECT_WORDS,
        .fallback = "off",
        .expected = "on, off or a port from 1 to 65535",
        .help =
            "Here clients speak plain HTTP, and each request is answered with 308 to the same host and path "
            "over HTTPS, at this port. on: 443. There is no backend.",
    },
};

static const struct config_table LISTEN = {
    CONFIG_ROWS(LISTEN_ROWS),
    .size = sizeof(struct proxy_listen),
    CONFIG_POSITION(struct proxy_listen, where),
};

/* ---- tickets */

static const struct config_word TICKET_SOURCE_WORDS[] = {{"keyserver", TICKETS_KEYSERVER},
                                                         {"local", TICKETS_LOCAL},
                                                         {"file", TICKETS_FILE},
                                                         {"off", TICKETS_OFF},
                                                         {NULL, 0}};

/* ---- The file. */

static const struct config_word VERSION_WORDS[] = {
    {"1.2", TLS1_2_VERSION},
    {"1.3", TLS1_3_VERSION},
    {NULL, 0},
};

const struct config_word PROXY_POLICY_WORDS[] = {
    {"intermediate", POLICY_INTERMEDIATE}, {"modern", POLICY_MODERN}, {NULL, 0}};

static const struct config_word HEDGE_WORDS[] = {{"auto", 0}, {"off", -1}, {NULL, 0}};

static const struct config_word VERIFY_WORDS[] = {
    {"auto", KEY_VERIFY_AUTO}, {"all", KEY_VERIFY_ALL}, {NULL, 0}};

/* auto: from a wait that is long beside what the additional packet costs both sides. */
static const struct config_word EARLY_FLUSH_WORDS[] = {
    {"auto", (int)CONFIG_MILLISECOND}, {"on", 0}, {"off", -1}, {NULL, 0}};

static const struct config_word EXPIRY_WORDS[] = {{"off", 0}, {NULL, 0}};

static const struct config_word ACCESS_WORDS[] = {
    {"off", ACCESS_OFF}, {"stdout", ACCESS_STDOUT}, {"stderr", ACCESS_STDERR}, {NULL, 0}};

static const struct config_row ROWS[] = {
    CONFIG_WORKERS_ROW(struct proxy_config, workers,
                       "Processes that serve clients. auto: one for each core that the proxy may use."),
    CONFIG_USER_ROW(struct proxy_config, user),
    {
        .path = "listen",
        .table = &LISTEN,
        CONFIG_LIST_AT(struct proxy_config, listen, listen_count),
        .required = true,
        .most = 256,
        .expected = "a list such as [{address: \"0.0.0.0:443\"}]",
        .help = "Addresses on which clients are served.",
    },
    {
        .path = "tls.policy",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct proxy_config, tls.policy),
        .words = PROXY_POLICY_WORDS,
        .fallback = "intermediate",
        .help = "What TLS is spoken with clients, after Mozilla's policies of these names. intermediate: TLS "
                "1.2 and 1.3. modern: TLS 1.3 alone, without RSA PKCS#1. It decides min_version, groups, "
                "ciphersuites, ciphers and schemes where they are not given; -t shows them.",
    },
    {
        .path = "tls.min_version",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct proxy_config, tls.min_version),
        .words = VERSION_WORDS,
        .help = "The oldest version of TLS that is spoken with clients. Without it: the policy's.",
    },
    {
        .path = "tls.groups",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_config, tls.groups),
        .check = proxy_config_check_groups,
        .expected = "groups between colons",
        .help = "Key exchange groups between colons, the preferred one first. Without it: the policy's, with "
                "X25519MLKEM768 first where OpenSSL has it (3.5).",
    },
    {
        .path = "tls.ciphersuites",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_config, tls.ciphersuites),
        .check = proxy_config_check_ciphersuites,
        .expected = "cipher suites between colons",
        .help = "Cipher suites of TLS 1.3 between colons, the preferred one first. Without it: the policy's.",
    },
    {
        .path = "tls.ciphers",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_config, tls.ciphers),
        .check = proxy_config_check_ciphers,
        .expected = "ciphers between colons",
        .help = "Ciphers of TLS 1.2 between colons, by OpenSSL's names; only ECDHE with an AEAD. Without it: "
                "the policy's.",
    },
    {
        .path = "tls.schemes",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_config, tls.schemes),
        .check = proxy_config_check_schemes,
        .expected = "signature schemes between colons",
        .help = "Signature schemes between colons, the preferred one first, that key servers are asked for. "
                "Of a name's chains those are served whose keys have one. Without it: the policy's.",
    },
    {
        .path = "tls.alpn",
        .type = &CONFIG_TEXT,
        CONFIG_LIST_AT(struct proxy_config, tls.alpn, tls.alpn_count),
        .max = 255,
        .most = 64,
        .expected = "a protocol's name of 1 to 255 octets",
        .help = "Application protocols, the preferred one first: those that the backends speak, as the proxy "
                "passes the plaintext on unseen. Without it, ALPN is not negotiated.",
    },
    {
        .path = "tls.default",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_config, tls.default_name),
        .max = 253,
        .check = proxy_config_check_name,
        .expected = "a host name",
        .help =
            "The name whose chain is shown to clients that ask for none, or for an unknown one (in TLS 1.3 "
            "these are refused with a key server of mode transcript, which signs nothing for them). Without "
            "it: the first chain that is valid.",
    },
    PROXY_CLIENT_AUTH_ROWS("tls.", struct proxy_config, tls.client_auth),
    PROXY_OCSP_ROWS("tls.", struct proxy_config, tls.ocsp),
    {
        .path = "tls.strict_sni",
        .type = &CONFIG_BOOL,
        CONFIG_AT(struct proxy_config, tls.strict_sni),
        .fallback = "off",
        .help = "Clients that ask for no name, or for one that no chain is for, are refused with the alert "
                "unrecognized_name.",
    },
    {
        .path = "tls.expiry_warning",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, tls.expiry_warning),
        .words = EXPIRY_WORDS,
        .max = 365 * 24 * CONFIG_HOUR,
        .fallback = "14d",
        .help =
            "How long before a certificate ends the log warns of it: at the start, at each reload and daily. "
            "off: never.",
    },
    {
        .path = "tls.early_flush",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, tls.early_flush),
        .words = EARLY_FLUSH_WORDS,
        .max = CONFIG_HOUR,
        .fallback = "auto",
        .help = "What a handshake has to say before its signature is sent while the signature is made, if "
                "the key server's answers take at least so long: a packet more, for which the client has the "
                "chain earlier. auto: 1ms.",
    },
    {
        .path = "certificates",
        .table = &PROXY_CERTIFICATES_TABLE,
        CONFIG_LIST_AT(struct proxy_config, certificates, certificate_count),
        .most = 1024,
        .expected = "a list such as [{dir: sites}]",
        .help =
            "The chains, for whatever names they have. A file that holds a private key is refused. May be "
            "left out when entries of sites have certificates; other names are then refused.",
    },
    {
        .path = "sites",
        .table = &PROXY_SITES_TABLE,
        CONFIG_LIST_AT(struct proxy_config, sites, site_count),
        .expected = "a list such as [{names: www.example.com, backend: web}]",
        .help = "What is different for some names. Whatever an entry does not say is as for all others.",
    },
    {
        .path = "key_servers",
        .table = &PROXY_KEY_SERVERS_TABLE,
        CONFIG_LIST_AT(struct proxy_config, key_servers, key_server_count),
        .required = true,
        .expected = "a list such as [{address: \"keys.example:2407\"}]",
        .most = PROXY_KEY_SERVERS_MAX,
        .help = "Who holds the sites' private keys: several that hold the same, or each its own.",
    },
    {
        .path = "key_channel.certificate",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct proxy_config, key_channel.certificate),
        .required = true,
        .help = "The certificate that the proxy shows to key servers, PEM, with its intermediates.",
    },
    {
        .path = "key_channel.key",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct proxy_config, key_channel.key),
        .required = true,
        .help = "Its private key: the only one that the proxy has.",
    },
    {
        .path = "key_channel.ca",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct proxy_config, key_channel.ca),
        .required = true,
        .help = "The private CA that key servers' certificates must come from.",
    },
    {
        .path = "key_channel.timeout",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, key_channel.timeout),
        .min = CONFIG_MILLISECOND,
        .max = CONFIG_HOUR,
        .fallback = "2s",
        .help =
            "Until a signature must be there, waiting and reconnecting included; then the handshake fails. "
            "At most limits.handshake_timeout.",
    },
    {
        .path = "key_channel.attempt_timeout",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, key_channel.attempt_timeout),
        .min = CONFIG_MILLISECOND,
        .max = CONFIG_HOUR,
        .fallback = "500ms",
        .help = "Until one key server must have answered; then another is asked. At most timeout.",
    },
    {
        .path = "key_channel.fail_fast",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, key_channel.fail_fast),
        .min = CONFIG_MILLISECOND,
        .max = CONFIG_HOUR,
        .fallback = "200ms",
        .help =
            "How long a handshake waits while no key server can be reached; then it fails. At most timeout.",
    },
    {
        .path = "key_channel.hedge",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, key_channel.hedge),
        .words = HEDGE_WORDS,
        .min = 100,
        .max = CONFIG_HOUR,
        .fallback = "auto",
        .help = "When an answer is later than this, another key server is asked the same, and the first good "
                "answer counts. "
                "auto: than 95 of 100 of the server's last answers.",
    },
    {
        .path = "key_channel.hedge_share",
        .type = &CONFIG_PERCENT,
        CONFIG_AT(struct proxy_config, key_channel.hedge_share),
        .fallback = "5%",
        .help =
            "How many of all requests may be hedged. Beside these, 3 % may be sent to another server after "
            "attempt_timeout, and 2 % when what has failed moves to one that is in trouble, too.",
    },
    {
        .path = "key_channel.in_flight",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct proxy_config, key_channel.in_flight),
        .min = 1,
        .max = PROXY_IN_FLIGHT_MAX,
        .fallback = "512",
        .unit = "requests of one worker",
        .help = "Unanswered on one key server's channel; others go elsewhere, or wait.",
    },
    {
        .path = "key_channel.verify",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct proxy_config, key_channel.verify),
        .words = VERIFY_WORDS,
        .fallback = "auto",
        .help =
            "Which signatures are verified with the certificate before a client gets them. auto: every one "
            "made with an RSA key; with another key, which costs three times what the signature did, the "
            "first 256 after each connect and each failure, then one in 16 at random. all: every one.",
    },
    {
        .path = "tickets.source",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct proxy_config, tickets.source),
        .shorthand = true,
        .words = TICKET_SOURCE_WORDS,
        .fallback = "local",
        .help =
            "Where the keys of session tickets come from. keyserver: the key server, so that all edges of a "
            "ticket group resume each other's sessions. local: made by this proxy, for all its workers, and "
            "kept over reloads but not over restarts. file: tickets.files. off: no session is resumed.",
    },
    {
        .path = "tickets.files",
        .type = &CONFIG_PATH,
        CONFIG_LIST_AT(struct proxy_config, tickets.files, tickets.file_count),
        .most = 64,
        .help =
            "With source: file. Each is one key of 48 or 80 octets (nginx's ssl_session_ticket_key) or lines "
            "of such keys in base64 (HAProxy's tls-ticket-keys). The first file's key makes tickets, of "
            "three lines or more the last but one; all open them. Read at start and reload: somebody else "
            "must rotate them.",
    },
    {
        .path = "tickets.rotate",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, tickets.rotate),
        .min = CONFIG_SECOND,
        .max = 30 * 24 * CONFIG_HOUR,
        .fallback = "1h",
        .help = "With source: local, how long each key makes tickets.",
    },
    {
        .path = "tickets.lifetime",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, tickets.lifetime),
        .min = CONFIG_SECOND,
        .max = 7 * 24 * CONFIG_HOUR, /* RFC 8446 section 4.6.1 */
        .fallback = "2h",
        .help = "How long a ticket can be used.",
    },
    {
        .path = "tickets.max_age",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, tickets.max_age),
        .min = CONFIG_SECOND,
        .max = 365 * 24 * CONFIG_HOUR,
        .fallback = "24h",
        .help = "How long a session can go on from ticket to ticket since its full handshake.",
    },
    {
        .path = "tickets.count",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct proxy_config, tickets.count),
        .min = 1,
        .max = 16,
        .fallback = "1",
        .unit = "tickets",
        .help = "For each TLS 1.3 handshake.",
    },
    {
        .path = "tickets.tls12",
        .type = &CONFIG_BOOL,
        CONFIG_AT(struct proxy_config, tickets.tls12),
        .fallback = "off",
        .help =
            "Tickets in TLS 1.2, too: whoever gets a ticket key then opens all recorded sessions that had a "
            "ticket of it. In TLS 1.3 each session has a key exchange of its own.",
    },
    {
        .path = "backends",
        .table = &PROXY_BACKENDS_TABLE,
        CONFIG_LIST_AT(struct proxy_config, backends, backend_count),
        .required = true,
        .expected = "a mapping such as {web: {servers: \"127.0.0.1:8080\"}}",
        .help = "Where decrypted connections go, by name.",
    },
    {
        .path = "limits.connections",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct proxy_config, limits.connections),
        .min = 1,
        .max = 10000000,
        .fallback = "100000",
        .unit = "clients",
        .help = "At once, of the whole program; a worker takes its share.",
    },
    {
        .path = "limits.handshakes",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct proxy_config, limits.handshakes),
        .min = 1,
        .max = PROXY_HANDSHAKES_MAX,
        .fallback = "2000",
        .unit = "handshakes of one worker",
        .help = "That wait for a signature at once; further ones are refused, but for sessions resumed. At "
                "most limits.connections.",
    },
    {
        .path = "limits.handshake_timeout",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, limits.handshake_timeout),
        .min = CONFIG_MILLISECOND,
        .max = CONFIG_HOUR,
        .fallback = "10s",
        .help = "From a client's connection to the end of its handshake.",
    },
    {
        .path = "limits.idle_timeout",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, limits.idle_timeout),
        .min = CONFIG_MILLISECOND,
        .fallback = "60s",
        .help = "Until a connection is closed on which nothing moves in either direction.",
    },
    {
        .path = "drain_timeout",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_config, drain_timeout),
        .max = 24 * CONFIG_HOUR,
        .fallback = "60s",
        .help = "How long connections may go on after a reload or SIGTERM before they are cut.",
    },
    CONFIG_SANDBOX_ROW(struct proxy_config, sandbox),
    CONFIG_LOG_ROWS(struct proxy_config, log),
    {
        .path = "log.access.to",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct proxy_config, access.to),
        .words = ACCESS_WORDS,
        .fallback = "off",
        .shorthand = true,
        .help = "Where each client that has gone leaves a line: standard output, or standard error among the "
                "other lines. log.level and log.rate do not apply to it.",
    },
    {
        .path = "log.access.format",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct proxy_config, access.format),
        .words = CONFIG_LOG_FORMAT_WORDS,
        .help = "Of these lines. Without it: log.format.",
    },
    CONFIG_ADMIN_ROW(struct proxy_config, admin_listen),
};

static const struct config_table TABLE = {
    CONFIG_ROWS(ROWS),
    .size = sizeof(struct proxy_config),
    CONFIG_FILE(struct proxy_config, file),
    .check = proxy_config_settle,
};

const struct config_table *proxy_config_table(void)
{
    return &TABLE;
}

/* ---- Reading. */

enum result proxy_config_parse(const struct config_source *source, struct proxy_config **config,
                               struct failure *why)
{
    void *object = NULL;
    enum result result = config_parse(&TABLE, source, &object, why);
    *config = object;
    return result;
}

enum result proxy_config_read(const char *path, struct proxy_config **config, struct failure *why)
{
    void *object = NULL;
    enum result result = config_read(&TABLE, path, &object, why);
    *config = object;
    return result;
}

void proxy_config_free(struct proxy_config *config)
{
    if (config != NULL)
        free(config->site_names);
    config_free(&TABLE, config);
}

bool proxy_key_server_is_named(const struct proxy_key_server *server)
{
    return server->srv != NULL || server->at.host != NULL;
}

bool proxy_config_has_names(const struct proxy_config *config)
{
    for (size_t i = 0; i < config->key_server_count; i++)
        if (proxy_key_server_is_named(&config->key_servers[i]))
            return true;
    return false;
}

const struct proxy_backend *proxy_config_backend(const struct proxy_config *config, const char *name)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        if (strcmp(config->backends[i].name, name) == 0)
            return &config->backends[i];
    }
    return NULL;
}

bool proxy_backend_only_http11(const struct proxy_backend *backend)
{
    for (size_t i = 0; i < backend->server_count; i++)
        if (backend->servers[i].builtin_hello)
            return true;
    return false;
}

void proxy_config_print(const struct proxy_config *config, struct evbuffer *to)
{
    config_print(&TABLE, config, to);
}
