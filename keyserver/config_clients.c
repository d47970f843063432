#include "keyserver/config_clients.h"

#include <string.h>

#include "common/certificate_names.h"
#include "common/client_match.h"
#include "keyserver/config.h"

static enum result check_match(const struct config_row *row, const void *value, struct failure *why)
{
    (void)row;
    struct client_match match;
    return client_match_parse(*(char *const *)value, &match, why);
}

static const struct config_word ALLOW_WORDS[] = {
    {"tls13", ALLOW_TLS13},
    {"tls12", ALLOW_TLS12},
    {"transcript", ALLOW_TRANSCRIPT},
    {"list", ALLOW_LIST},
    {"digest", ALLOW_DIGEST},
    {"decrypt", ALLOW_DECRYPT},
    {"ticket-keys", ALLOW_TICKET_KEYS},
    {NULL, 0},
};

const char *keyserver_allow_name(unsigned allow)
{
    const struct config_word *word = ALLOW_WORDS;
    while (word->name != NULL && (unsigned)word->value != allow)
        word++;
    return word->name;
}

static const struct config_word REQUIRE_WORDS[] = {
    {"tbs", REQUIRE_TBS},
    {"transcript", REQUIRE_TRANSCRIPT},
    {NULL, 0},
};

static const struct config_word REPLAY_WORDS[] = {
    {"count", REPLAYS_COUNTED},
    {"refuse", REPLAYS_REFUSED},
    {NULL, 0},
};

/* The schemes of common/tls_message.h. */
static const struct config_word SCHEME_WORDS[] = {
    {"ecdsa_secp256r1_sha256", 0x0403},
    {"ecdsa_secp384r1_sha384", 0x0503},
    {"ecdsa_secp521r1_sha512", 0x0603},
    {"ed25519", 0x0807},
    {"ed448", 0x0808},
    {"rsa_pss_rsae_sha256", 0x0804},
    {"rsa_pss_rsae_sha384", 0x0805},
    {"rsa_pss_rsae_sha512", 0x0806},
    {"rsa_pkcs1_sha256", 0x0401},
    {"rsa_pkcs1_sha384", 0x0501},
    {"rsa_pkcs1_sha512", 0x0601},
    {NULL, 0},
};

#define PROTOCOL_EXPECTED                                                                                    \
    "an ALPN protocol such as h2, of at most 255 octets, or \"\" for none; acme-tls/1 is never signed for"

static enum result check_protocol(const struct config_row *row, const void *value, struct failure *why)
{
    const char *name = *(char *const *)value;
    (void)row;
    if (strlen(name) <= 255 && strcmp(name, "acme-tls/1") != 0)
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG, "got \"%.255s\", expected " PROTOCOL_EXPECTED, name);
}

#define KEYS_EXPECTED "labels, globs or SKIs of keys"
#define NAME_EXPECTED "a host name in lower case, \"*.\" and one, \"*\" for any or no name, or \"\" for none"

static enum result check_name(const struct config_row *row, const void *value, struct failure *why)
{
    const char *name = *(char *const *)value;
    char normal[DNS_NAME_MAX + 1];
    (void)row;
    if (name[0] == '\0' || strcmp(name, "*") == 0)
        return RESULT_OK;
    if (dns_name_normalise(bytes_of(name, strlen(name)), true, normal) && strcmp(name, normal) == 0)
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG, "got \"%.200s\", expected " NAME_EXPECTED, name);
}

static const struct config_row CLIENT_ROWS[] = {
    {
        .path = "match",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct keyserver_client, match),
        .required = true,
        .check = check_match,
        .expected = CLIENT_MATCH_FORMS,
        .help =
            "What the client's certificate must have: a SAN (DNS:name, IP:address, URI:uri), the subject's "
            "CN:name, or the certificate's own sha256:fingerprint.",
    },
    {
        .path = "keys",
        .type = &CONFIG_TEXT,
        CONFIG_LIST_AT(struct keyserver_client, keys, key_count),
        .min = 1,
        .expected = KEYS_EXPECTED,
        .help = "The keys that it may use: labels, globs on labels (\"*\" is all), or SKIs in hex. Any other "
                "key looks to it like one that does not exist.",
    },
    {
        .path = "allow",
        .type = &CONFIG_FLAGS,
        CONFIG_AT(struct keyserver_client, allow),
        .words = ALLOW_WORDS,
        .fallback = "tls13,tls12",
        .help =
            "What it may ask for. tls13, tls12: signatures in handshakes, over contents that the key server "
            "rebuilds. transcript, which tls13 includes: in TLS 1.3, from the whole handshake, in which the "
            "key server sees the SNI itself. list: the keys it may use. digest: signatures over bare "
            "digests, "
            "for peers that know nothing else; whoever has this client's certificate can then sign anything. "
            "decrypt: whatever is encrypted to an RSA key, for terminators of others that still serve "
            "TLS_RSA: "
            "with it every recorded session of theirs can be opened. ticket-keys: the keys of its "
            "ticket_group.",
    },
    {
        .path = "names",
        .type = &CONFIG_TEXT,
        CONFIG_LIST_AT(struct keyserver_client, names, name_count),
        .fallback = "*",
        .empty = true,
        .check = check_name,
        .expected = NAME_EXPECTED,
        .help =
            "The SNIs that it may have signatures for. \"*.example.com\" is one label before example.com, "
            "\"*\" any name and none, \"\" none. Where no transcript shows the SNI it is what the client "
            "says; a key is then refused unless these names cover all of its certificates'.",
    },
    {
        .path = "require",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct keyserver_client, require),
        .words = REQUIRE_WORDS,
        .fallback = "tbs",
        .help = "transcript: TLS 1.3 signatures only from whole handshakes, and nothing bare, whatever allow "
                "says.",
    },
    {
        .path = "schemes",
        .type = &CONFIG_CHOICE,
        CONFIG_LIST_AT(struct keyserver_client, schemes, scheme_count),
        .words = SCHEME_WORDS,
        .help = "The TLS signature schemes that it may have signatures with. None listed: all that fit the "
                "key. A bare digest is taken for the scheme with its padding and hash (ECDSA, SHA-256: "
                "ecdsa_secp256r1_sha256, whatever the curve); those with older hashes are none that could be "
                "listed.",
    },
    {
        .path = "alpn",
        .type = &CONFIG_TEXT,
        CONFIG_LIST_AT(struct keyserver_client, alpn, alpn_count),
        .empty = true,
        .check = check_protocol,
        .expected = PROTOCOL_EXPECTED,
        .help = "The protocols that a whole handshake may have agreed on, \"\" being none. None listed: any. "
                "acme-tls/1, which proves to a CA whose name it is, is never signed for.",
    },
    {
        .path = "replay",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct keyserver_client, replay),
        .words = REPLAY_WORDS,
        .fallback = "count",
        .help = "What becomes of a request for a signature that was already asked for, by another client "
                "within ten "
                "minutes or by the same one 5 to 600 seconds ago (sooner it is a retry). count: it is "
                "signed, told "
                "in the log and counted. refuse: it is also refused.",
    },
    {
        .path = "ticket_group",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct keyserver_client, ticket_group),
        .min = 1,
        .max = 128,
        .help =
            "Entries of one group get the same ticket keys, so that each resumes the sessions of all. "
            "Whoever "
            "has them can pass for any of these edges to clients that resume: put only those together that "
            "serve the same names. By default an entry shares them with nobody. When an entry leaves its "
            "group the others get new keys at once.",
    },
    {
        .path = "rate",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct keyserver_client, rate),
        .max = 1000000,
        .fallback = "0",
        .unit = "operations a second",
        .help =
            "Of all its connections together, twice as many at once after a pause; what is beyond is told "
            "that it is over its rate. Hello and pings do not count. 0: no limit.",
    },
    {
        .path = "connections",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct keyserver_client, connections),
        .max = 1000000,
        .fallback = "0",
        .unit = "connections",
        .help = "At once; further ones are closed after their handshake. 0: no limit but limits.connections.",
    },
    {
        .path = "in_flight",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct keyserver_client, in_flight),
        .max = 1000000,
        .fallback = "0",
        .unit = "requests",
        .help = "Unanswered at once, of all its connections together; past it they are not read from. Each "
                "worker "
                "has its share, of one at least. 0: no limit but limits.in_flight for each connection.",
    },
    {
        .path = "deny",
        .type = &CONFIG_BOOL,
        CONFIG_AT(struct keyserver_client, deny),
        .fallback = "off",
        .help = "Turns these clients away, even where a later entry would take them. Needs no keys.",
    },
};

static enum result check_client(const struct config_scope *scope, void *object, struct failure *why)
{
    const struct keyserver_client *client = object;
    if (client->deny)
        return RESULT_OK;
    if (client->key_count == 0)
        return config_refuse(scope, why, "keys", "expected " KEYS_EXPECTED ", at least one");
    if (client->ticket_group != NULL && (client->allow & ALLOW_TICKET_KEYS) == 0)
        return config_refuse(scope, why, "ticket_group", "expected ticket-keys in allow for it");
    return RESULT_OK;
}

const struct config_table KEYSERVER_CLIENTS_TABLE = {
    CONFIG_ROWS(CLIENT_ROWS),
    .size = sizeof(struct keyserver_client),
    CONFIG_POSITION(struct keyserver_client, where),
    .check = check_client,
};
