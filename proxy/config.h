/* The proxy's configuration: proxy.yaml, read whole or not at all. Plain values; durations in microseconds.
 */
#ifndef KEYLESS_PROXY_CONFIG_H
#define KEYLESS_PROXY_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"
#include "common/bytes.h"
#include "common/config_table.h"
#include "common/log.h"
#include "common/result.h"

/* As many as a request's id can tell apart (key_client.c): those that are waited for, and those on the wire.
 */
#define PROXY_HANDSHAKES_MAX  32768
#define PROXY_KEY_SERVERS_MAX 16
#define PROXY_IN_FLIGHT_MAX   32766

struct proxy_listen {
    struct config_position where;
    struct address address;
    char *backend;          /* a name in backends, checked; NULL with redirect_port */
    unsigned redirect_port; /* plain HTTP is sent to HTTPS at this port; 0: TLS */
};

struct proxy_certificate_source {
    struct config_position where;
    char *dir;  /* *.pem and *.crt are read; or */
    char *file; /* one chain */
};

/* What is sent to a key server to be signed. */
enum proxy_key_mode {
    KEY_MODE_TRANSCRIPT, /* TLS 1.3: the whole handshake, operation 0x63; TLS 1.2 has none: as KEY_MODE_TBS */
    KEY_MODE_TBS,        /* the parts of what is signed: operations 0x61 and 0x62 */
    KEY_MODE_DIGEST, /* its digest: bare operations, for key servers that know only Part A of the protocol */
};

/* Which signatures of key servers are verified before they go to a client. */
enum proxy_key_verify {
    KEY_VERIFY_AUTO, /* as signature_check.h has it */
    KEY_VERIFY_ALL,
};

/* Where the keys of session tickets come from. */
enum proxy_ticket_source { TICKETS_OFF, TICKETS_LOCAL, TICKETS_FILE, TICKETS_KEYSERVER };
/* Named sets of what TLS is spoken with, after Mozilla's; tls_policy.h has what is in them. */
enum proxy_policy {
    POLICY_CONFIGURED, /* what the tls section says */
    POLICY_INTERMEDIATE,
    POLICY_MODERN,
};

/* Whether clients are asked for a certificate. */
enum proxy_client_auth_mode { CLIENT_AUTH_OFF, CLIENT_AUTH_REQUEST, CLIENT_AUTH_REQUIRE };

struct proxy_client_auth {
    enum proxy_client_auth_mode mode;
    char *ca;       /* not NULL unless off */
    char *crl;      /* NULL: none */
    unsigned depth; /* certificates between the client's and the root */
    char **names;   /* patterns, normalised; none: all names */
    size_t name_count;
};

/* Where OCSP responses come from. */
enum proxy_ocsp_source { OCSP_OFF, OCSP_FILE, OCSP_FETCH };

struct proxy_ocsp {
    enum proxy_ocsp_source source;
    char *responder; /* NULL: the certificate names it */
    uint64_t refresh, timeout;
};

/* Where the access log goes, of which each client that has gone leaves a line. */
enum proxy_access_to { ACCESS_OFF, ACCESS_STDOUT, ACCESS_STDERR };

/* What is different for some names. */
struct proxy_site {
    struct config_position where;
    char **names; /* normalised: in lower case; "*.example.com" */
    size_t name_count;
    struct proxy_certificate_source *certificates; /* for its names alone */
    size_t certificate_count;
    enum proxy_policy policy;
    char **alpn; /* tls.alpn, if the site has none of its own */
    size_t alpn_count;
    char *backend;                        /* a name in backends, checked; NULL: the listener's */
    struct proxy_client_auth client_auth; /* tls.client_auth, if the site has none of its own */
    struct proxy_ocsp ocsp;               /* tls.ocsp, if the site has none of its own */
};

struct proxy_site_name {
    const char *name;
    const struct proxy_site *site;
    size_t index; /* in its names */
};

struct proxy_key_server {
    struct config_position where;
    char *name;                    /* for logs and metrics; by default address or srv as written */
    struct config_host_address at; /* where it listens; or */
    char *srv;                     /* the name of SRV records that tell */
    char *server_name;             /* verified against its certificate */
    enum proxy_key_mode mode;
    unsigned weight;   /* how much it gets beside others of its priority */
    unsigned priority; /* those with a lower one go before it, while they can be used */
};

struct proxy_backend_server {
    struct address address; /* size 0: builtin:hello */
    bool builtin_hello;
};

struct proxy_backend {
    struct config_position where;
    char *name;
    struct proxy_backend_server *servers; /* taken in turn */
    size_t server_count;
    uint64_t connect_timeout;
};

struct proxy_config {
    char *file; /* its name as given; every position in here borrows it */

    unsigned workers; /* "auto": one per core */
    char *user;       /* NULL: nobody */

    struct proxy_listen *listen;
    size_t listen_count;

    struct {
        enum proxy_policy policy; /* where what follows comes from, as far as it is not given */
        int min_version;          /* TLS1_2_VERSION or TLS1_3_VERSION */
        char *groups;             /* OpenSSL's list, checked */
        char *ciphersuites;       /* TLS 1.3, checked */
        char *ciphers;            /* TLS 1.2, checked: ECDHE with AEAD only */
        char *schemes;            /* signature schemes by the registry's names, checked */
        char **alpn;              /* in order of preference; none: ALPN is not negotiated */
        size_t alpn_count;
        uint64_t expiry_warning; /* how long before the end of a certificate; 0: never */
        uint64_t early_flush;    /* the wait for a signature from which it is done; UINT64_MAX: never */
        char *default_name; /* tls.default: whose chain an unknown or absent SNI gets; NULL: the first valid
                             one's */
        struct proxy_client_auth client_auth;
        struct proxy_ocsp ocsp;
        bool strict_sni; /* an unknown or absent SNI is refused */
    } tls;

    struct proxy_certificate_source *certificates;
    size_t certificate_count;

    struct proxy_site *sites;
    size_t site_count;
    struct proxy_site_name *site_names; /* of all sites, sorted */
    size_t site_name_count;

    struct proxy_key_server *key_servers; /* at least one */
    size_t key_server_count;

    struct {
        char *certificate, *key, *ca;
        uint64_t timeout;         /* of one signature, queueing, reconnecting and other servers included */
        uint64_t attempt_timeout; /* of one server's answer, until another one is asked */
        uint64_t fail_fast;       /* of what waits while no server can be reached */
        uint64_t hedge; /* the wait until another one is asked, too; 0: by what it took lately; UINT64_MAX:
                           never */
        unsigned hedge_share; /* percent of requests that may be */
        unsigned in_flight;
        enum proxy_key_verify verify;
    } key_channel;

    struct {
        enum proxy_ticket_source source;
        char **files; /* of TICKETS_FILE */
        size_t file_count;
        uint64_t rotate;            /* of TICKETS_LOCAL; whole seconds, in microseconds */
        uint64_t lifetime, max_age; /* whole seconds, in microseconds */
        unsigned count;             /* for each handshake */
        bool tls12;
    } tickets;

    struct proxy_backend *backends;
    size_t backend_count;

    struct {
        unsigned connections; /* of the whole program; a worker takes its share */
        unsigned handshakes;  /* that wait for a signature in one worker */
        uint64_t handshake_timeout, idle_timeout;
    } limits;

    uint64_t drain_timeout;
    bool sandbox;
    struct log_settings log;
    struct {
        enum proxy_access_to to;
        enum log_format format; /* by default log's */
    } access;
    struct address admin_listen; /* size 0: off */
};

/* Relative paths come back relative to the file's directory. why names file, line, key and what was expected.
 */
MUST_CHECK enum result proxy_config_read(const char *path, struct proxy_config **config, struct failure *why);
/* The same from memory: for tests. */
MUST_CHECK enum result proxy_config_parse(const struct config_source *source, struct proxy_config **config,
                                          struct failure *why);
void proxy_config_free(struct proxy_config *config);

const struct proxy_backend *proxy_config_backend(const struct proxy_config *config, const char *name);

/* The site that a client's SNI (any case) is of: by its exact name, else by a wildcard; NULL: of none. */
const struct proxy_site *proxy_config_site(const struct proxy_config *config, struct bytes sni);
/* Whether some server of a backend speaks HTTP/1.1 alone: h2 must not be negotiated. */
bool proxy_backend_only_http11(const struct proxy_backend *backend);

/* Whether a name is to be looked up to find it. */
bool proxy_key_server_is_named(const struct proxy_key_server *server);
bool proxy_config_has_names(const struct proxy_config *config);

/* Prints every setting with its value in force, as `-t` does. */
struct evbuffer;
void proxy_config_print(const struct proxy_config *config, struct evbuffer *to);

/* The rows, for the manual. */
const struct config_table *proxy_config_table(void);

#endif
