#include "proxy/config_key_servers.h"

#include "proxy/config.h"
#include "proxy/config_settle.h"
#include "proxy/config_tls.h"

static const struct config_word MODE_WORDS[] = {
    {"transcript", KEY_MODE_TRANSCRIPT}, {"tbs", KEY_MODE_TBS}, {"digest", KEY_MODE_DIGEST}, {NULL, 0}};

static const struct config_row KEY_SERVER_ROWS[] = {
    {
        .path = "address",
        .type = &CONFIG_HOST_ADDRESS,
        CONFIG_AT(struct proxy_key_server, at),
        .help =
            "Where the key server listens. A host name is looked up at the start and whenever its TTL ends "
            "(after 5 s at least, an hour at most); each of its addresses, up to eight, is used. Either "
            "this or srv.",
    },
    {
        .path = "srv",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_key_server, srv),
        .max = 253,
        .check = proxy_config_check_srv,
        .expected = "a name such as _keyless._tcp.example",
        .help = "The name of SRV records that tell where key servers listen, with their priorities and "
                "weights; looked up as a host name is. Needs server_name.",
    },
    {
        .path = "server_name",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_key_server, server_name),
        .max = 253,
        .check = proxy_config_check_name,
        .expected = "a host name",
        .help =
            "The name that its certificate must have. Without it: the host name in address; what SRV records "
            "name is never taken for it.",
    },
    {
        .path = "mode",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct proxy_key_server, mode),
        .words = MODE_WORDS,
        .fallback = "transcript",
        .help = "What is sent to be signed. transcript: in TLS 1.3 the whole handshake, which the key server "
                "checks, so it needs the site's certificate; in TLS 1.2 the same as tbs. tbs: the parts of "
                "what is signed, from which the key server rebuilds it. digest: a digest, which it signs "
                "blindly; for key servers that know nothing else, and without Ed448. The proxy never goes "
                "below this, whatever a key server answers.",
    },
    {
        .path = "name",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_key_server, name),
        .max = 128,
        .expected = "a name of at most 128 octets",
        .help = "Its name in logs and metrics. Without it: address or srv as written.",
    },
    {
        .path = "weight",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct proxy_key_server, weight),
        .min = 1,
        .max = 1000,
        .fallback = "1",
        .help = "How much it gets beside others of the same priority.",
    },
    {
        .path = "priority",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct proxy_key_server, priority),
        .max = 100,
        .fallback = "0",
        .help =
            "It is used only while none with a lower number can be, and for what overloaded ones cannot do.",
    },
};

const struct config_table PROXY_KEY_SERVERS_TABLE = {
    CONFIG_ROWS(KEY_SERVER_ROWS),
    .size = sizeof(struct proxy_key_server),
    CONFIG_POSITION(struct proxy_key_server, where),
    .check = proxy_config_settle_key_server,
};
