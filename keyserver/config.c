#include "keyserver/config.h"

#include <stdio.h>
#include <string.h>

#include "common/config_rows.h"
#include "keyserver/config_clients.h"

/* ---- keys */

static const struct config_row KEY_ROWS[] = {
    {
        .path = "dir",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct keyserver_key_source, dir),
        .required = true,
        .help =
            "A directory: every *.key and *.pem in it is one private key, in PEM or DER. Its label is the "
            "file's name without the ending. A file that others may read is refused.",
    },
};

static const struct config_table KEYS = {
    CONFIG_ROWS(KEY_ROWS),
    .size = sizeof(struct keyserver_key_source),
    CONFIG_POSITION(struct keyserver_key_source, where),
};

/* ---- certificates */

static const struct config_row CERTIFICATE_ROWS[] = {
    {
        .path = "dir",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct keyserver_certificate_source, dir),
        .required = true,
        .help =
            "A directory: the first certificate of every *.pem and *.crt in it is one that sites use. Keep "
            "the old and the new one there while a certificate is renewed.",
    },
};

static const struct config_table CERTIFICATES = {
    CONFIG_ROWS(CERTIFICATE_ROWS),
    .size = sizeof(struct keyserver_certificate_source),
    CONFIG_POSITION(struct keyserver_certificate_source, where),
};

/* ---- The file. */

static const struct config_word AUDIT_ERROR_WORDS[] = {
    {"stop", AUDIT_ERROR_STOP},
    {"continue", AUDIT_ERROR_CONTINUE},
    {NULL, 0},
};

static const struct config_row ROWS[] = {
    CONFIG_WORKERS_ROW(
        struct keyserver_config, workers,
        "Processes that speak with clients. auto: one for each core that the key server may use."),
    CONFIG_USER_ROW(struct keyserver_config, user),
    {
        .path = "listen",
        .type = &CONFIG_ADDRESS,
        CONFIG_LIST_AT(struct keyserver_config, listen, listen_count),
        .required = true,
        .most = 256,
        .help = "Where proxies connect. [::] takes IPv6 only; list both families to have both.",
    },
    {
        .path = "tls.certificate",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct keyserver_config, tls.certificate),
        .required = true,
        .help = "The certificate that is shown to clients, PEM, with its intermediates.",
    },
    {
        .path = "tls.key",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct keyserver_config, tls.key),
        .required = true,
        .help = "Its private key.",
    },
    {
        .path = "tls.client_ca",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct keyserver_config, tls.client_ca),
        .required = true,
        .help = "The private CA that clients' certificates must come from.",
    },
    {
        .path = "tls.crl",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct keyserver_config, tls.crl),
        .help = "Its revocation lists, PEM: one for each CA in a client's chain. A list that is out of date "
                "refuses every client. Read again at each reload.",
    },
    {
        .path = "keys",
        .table = &KEYS,
        CONFIG_LIST_AT(struct keyserver_config, keys, key_count),
        .required = true,
        .most = 1024,
        .expected = "a list such as [{dir: keys}]",
        .help = "Where the sites' private keys are.",
    },
    {
        .path = "certificates",
        .table = &CERTIFICATES,
        CONFIG_LIST_AT(struct keyserver_config, certificates, certificate_count),
        .most = 1024,
        .expected = "a list such as [{dir: sites}]",
        .help =
            "Where the sites' certificates are, which are public: what a whole handshake is checked against.",
    },
    {
        .path = "clients",
        .table = &KEYSERVER_CLIENTS_TABLE,
        CONFIG_LIST_AT(struct keyserver_config, clients, client_count),
        .required = true,
        .most = 4096,
        .expected = "a list such as [{match: \"DNS:edge1.example\", keys: [\"*\"]}]",
        .help = "Who may use which keys, and for what. The first entry that matches a certificate counts; a "
                "client that matches none is refused.",
    },
    {
        .path = "limits.connections",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct keyserver_config, limits.connections),
        .min = 1,
        .max = 1000000,
        .fallback = "1024",
        .unit = "clients",
        .help = "At once, of the whole program; a worker takes its share.",
    },
    {
        .path = "limits.per_address",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct keyserver_config, limits.per_address),
        .max = 1000000,
        .fallback = "128",
        .unit = "connections",
        .help =
            "In their handshake at once from one IPv4 address, or one /64 of IPv6; further ones are closed "
            "when they are accepted. A worker takes its share, of one at least. Where many proxies come "
            "from one address (NAT), as many as they all open when the key server has been away. 0: no "
            "limit but limits.connections.",
    },
    {
        .path = "limits.in_flight",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct keyserver_config, limits.in_flight),
        .min = 1,
        .max = 65536,
        .fallback = "1024",
        .unit = "requests of one connection",
        .help = "Unanswered at once; past it the connection is not read from.",
    },
    {
        .path = "limits.handshake_timeout",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct keyserver_config, limits.handshake_timeout),
        .min = CONFIG_MILLISECOND,
        .max = CONFIG_HOUR,
        .fallback = "5s",
        .help = "From a client's connection to the end of its handshake.",
    },
    {
        .path = "limits.idle_timeout",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct keyserver_config, limits.idle_timeout),
        .min = CONFIG_MILLISECOND,
        .fallback = "60s",
        .help =
            "Until a connection is closed on which nothing is asked, and no answer is taken. Half a request "
            "does not keep it, however its octets come in.",
    },
    {
        .path = "queues.ec",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct keyserver_config, queues.ec),
        .min = 1,
        .max = 1000000,
        .fallback = "8192",
        .unit = "requests",
        .help =
            "That may wait for a P-256 or Ed25519 signature; further ones are told that they were not tried.",
    },
    {
        .path = "queues.rsa",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct keyserver_config, queues.rsa),
        .min = 1,
        .max = 1000000,
        .fallback = "2048",
        .unit = "requests",
        .help = "The same for RSA keys of up to 2048 bits, P-384, P-521 and Ed448.",
    },
    {
        .path = "queues.rsa_large",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct keyserver_config, queues.rsa_large),
        .min = 1,
        .max = 1000000,
        .fallback = "256",
        .unit = "requests",
        .help = "The same for larger RSA keys.",
    },
    {
        .path = "queues.deadline",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct keyserver_config, queues.deadline),
        .min = CONFIG_MILLISECOND,
        .max = CONFIG_HOUR,
        .fallback = "1s",
        .help = "A request that has waited this long is not tried any more.",
    },
    {
        .path = "ticket_keys.secret",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct keyserver_config, ticket_keys.secret),
        .help = "What the keys of session tickets are made from, for clients that allow ticket-keys: 32 "
                "random octets "
                "(openssl rand -out FILE 32; chmod 600). Give all key servers of the same edges the same. "
                "The key "
                "server replaces it by what is left to make later keys from, so that a stolen file opens no "
                "session "
                "from before; to add a key server, copy the file that one of them has now.",
    },
    {
        .path = "ticket_keys.rotate",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct keyserver_config, ticket_keys.rotate),
        .min = CONFIG_SECOND,
        .max = 30 * 24 * CONFIG_HOUR,
        .fallback = "1h",
        .help = "How long each key makes tickets. The secret is tied to it.",
    },
    {
        .path = "ticket_keys.lifetime",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct keyserver_config, ticket_keys.lifetime),
        .min = CONFIG_SECOND,
        .max = 7 * 24 * CONFIG_HOUR, /* RFC 8446 section 4.6.1 */
        .fallback = "2h",
        .help = "How long after that a key opens the tickets that it has made.",
    },
    {
        .path = "audit.file",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct keyserver_config, audit.file),
        .help = "Where a line of JSON is appended for each signature, decryption and giving of ticket keys, "
                "and for "
                "what a front end asked for and the signer refused. Opened with the privileges of the start, "
                "by a "
                "process of its own.",
    },
    {
        .path = "audit.on_error",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct keyserver_config, audit.on_error),
        .words = AUDIT_ERROR_WORDS,
        .fallback = "stop",
        .help = "When lines cannot be written, and as many wait as may: stop: further operations are not "
                "tried, which "
                "proxies are told as an overload. continue: lines are lost, and counted.",
    },
    {
        .path = "drain_timeout",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct keyserver_config, drain_timeout),
        .max = 24 * CONFIG_HOUR,
        .fallback = "30s",
        .help = "How long connections may go on after a reload or SIGTERM before they are cut.",
    },
    CONFIG_SANDBOX_ROW(struct keyserver_config, sandbox),
    CONFIG_LOG_ROWS(struct keyserver_config, log),
    CONFIG_ADMIN_ROW(struct keyserver_config, admin_listen),
};

/* ---- What concerns several settings. */

static const struct address *listen_address(const void *object, size_t i)
{
    return &((const struct keyserver_config *)object)->listen[i];
}

/* The first match wins, so a second entry for the same would never be used. */
static enum result check_clients(const struct config_scope *scope, const struct keyserver_config *config,
                                 struct failure *why)
{
    for (size_t i = 1; i < config->client_count; i++) {
        for (size_t j = 0; j < i; j++) {
            if (strcmp(config->clients[i].match, config->clients[j].match) != 0)
                continue;
            char path[64];
            (void)snprintf(path, sizeof path, "clients[%zu].match", i);
            return config_refuse(
                scope, why, path,
                "expected one entry for it: the one in line %u comes first, this is never used",
                config->clients[j].where.line);
        }
    }
    return RESULT_OK;
}

/* What a client was expressly given would never work: a transcript is checked against the certificates. */
static enum result check_transcripts(const struct config_scope *scope, const struct keyserver_config *config,
                                     struct failure *why)
{
    for (size_t i = 0; config->certificate_count == 0 && i < config->client_count; i++) {
        const struct keyserver_client *client = &config->clients[i];
        bool required = client->require == REQUIRE_TRANSCRIPT;
        if (!required && (client->allow & ALLOW_TRANSCRIPT) == 0)
            continue;
        char path[64];
        (void)snprintf(path, sizeof path, "clients[%zu].%s", i, required ? "require" : "allow");
        return config_refuse(scope, why, path,
                             "expected certificates, such as [{dir: sites}], to check transcripts against");
    }
    return RESULT_OK;
}

static enum result check_ticket_times(const struct config_scope *scope, const struct keyserver_config *config,
                                      struct failure *why)
{
    const uint64_t rotate = config->ticket_keys.rotate, lifetime = config->ticket_keys.lifetime;
    enum result result = config_check_seconds(scope, "ticket_keys.rotate", rotate, why);
    if (result == RESULT_OK)
        result = config_check_seconds(scope, "ticket_keys.lifetime", lifetime, why);
    return result == RESULT_OK ? config_check_ticket_count(scope, "ticket_keys", rotate, lifetime, why)
                               : result;
}

static enum result check_tickets(const struct config_scope *scope, const struct keyserver_config *config,
                                 struct failure *why)
{
    char path[64];
    if (config->ticket_keys.secret != NULL)
        return check_ticket_times(scope, config, why);
    for (size_t i = 0; i < config->client_count; i++) {
        if ((config->clients[i].allow & ALLOW_TICKET_KEYS) == 0)
            continue;
        (void)snprintf(path, sizeof path, "clients[%zu].allow", i);
        return config_refuse(scope, why, path, "expected ticket_keys.secret to make ticket keys from");
    }
    return RESULT_OK;
}

static enum result settle(const struct config_scope *scope, void *object, struct failure *why)
{
    struct keyserver_config *config = object;
    enum result result = config_settle_workers(scope, &config->workers, config->limits.connections, why);
    if (result == RESULT_OK)
        result = config_check_listen(scope, "", listen_address, config, config->listen_count,
                                     &config->admin_listen, why);
    if (result == RESULT_OK)
        result = check_clients(scope, config, why);
    if (result == RESULT_OK)
        result = check_transcripts(scope, config, why);
    return result == RESULT_OK ? check_tickets(scope, config, why) : result;
}

static const struct config_table TABLE = {
    CONFIG_ROWS(ROWS),
    .size = sizeof(struct keyserver_config),
    CONFIG_FILE(struct keyserver_config, file),
    .check = settle,
};

const struct config_table *keyserver_config_table(void)
{
    return &TABLE;
}

/* ---- Reading. */

enum result keyserver_config_parse(const struct config_source *source, struct keyserver_config **config,
                                   struct failure *why)
{
    void *object = NULL;
    enum result result = config_parse(&TABLE, source, &object, why);
    *config = object;
    return result;
}

enum result keyserver_config_read(const char *path, struct keyserver_config **config, struct failure *why)
{
    void *object = NULL;
    enum result result = config_read(&TABLE, path, &object, why);
    *config = object;
    return result;
}

void keyserver_config_free(struct keyserver_config *config)
{
    config_free(&TABLE, config);
}

void keyserver_config_print(const struct keyserver_config *config, struct evbuffer *to)
{
    config_print(&TABLE, config, to);
}
