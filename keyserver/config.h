/* The key server's configuration: keyserver.yaml, read whole or not at all. Plain values; durations in
 * microseconds. */
#ifndef KEYLESS_KEYSERVER_CONFIG_H
#define KEYLESS_KEYSERVER_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"
#include "common/config_table.h"
#include "common/log.h"
#include "common/result.h"

/* What a client entry may `allow`. */
enum keyserver_allow {
    ALLOW_TLS13 = 1u << 0,
    ALLOW_TLS12 = 1u << 1,
    ALLOW_LIST = 1u << 2,
    ALLOW_DIGEST = 1u << 3,
    ALLOW_TRANSCRIPT = 1u << 4,
    ALLOW_DECRYPT = 1u << 5,
    ALLOW_TICKET_KEYS = 1u << 6,
};

/* What a client entry may `require`. */
enum keyserver_require { REQUIRE_TBS, REQUIRE_TRANSCRIPT };

/* What becomes of an entry's requests that were there before. */
enum keyserver_replay { REPLAYS_COUNTED, REPLAYS_REFUSED };

/* What becomes of operations that cannot be recorded. */
enum keyserver_audit_error { AUDIT_ERROR_STOP, AUDIT_ERROR_CONTINUE };

struct keyserver_key_source {
    struct config_position where;
    char *dir; /* *.key and *.pem are read */
};

struct keyserver_certificate_source {
    struct config_position where;
    char *dir; /* *.pem and *.crt are read */
};

struct keyserver_client {
    struct config_position where;
    char *match; /* "DNS:name", "IP:address", "URI:uri", "CN:name", "sha256:" + hex of the certificate */
    char **keys; /* labels, globs on labels, SKI in hex */
    size_t key_count;
    unsigned allow; /* of enum keyserver_allow; what `require` takes away is not in it */
    char **names;   /* SNI: "www.example.com", "*.example.com", "*" (any, or none), "" (none) */
    size_t name_count;
    enum keyserver_require require;
    int *schemes; /* TLS SignatureSchemes; none: all */
    size_t scheme_count;
    char **alpn; /* "" is a handshake without; none: any */
    size_t alpn_count;
    enum keyserver_replay replay;
    char *ticket_group;              /* whom it shares ticket keys with; NULL: nobody */
    unsigned rate;                   /* operations a second; 0: any */
    unsigned connections, in_flight; /* of all its connections together; 0: what `limits` says */
    bool deny;                       /* turned away; it may have no keys then */
};

struct keyserver_config {
    char *file; /* its name as given; every position in here borrows it */

    unsigned workers; /* front ends; "auto": one per core */
    char *user;       /* NULL: nobody */

    struct address *listen;
    size_t listen_count;

    struct {
        char *certificate, *key, *client_ca;
        char *crl; /* NULL: none */
    } tls;

    struct keyserver_key_source *keys;
    size_t key_count;

    struct keyserver_certificate_source *certificates; /* public chains: what transcripts must name */
    size_t certificate_count;

    struct keyserver_client *clients; /* first match wins */
    size_t client_count;

    struct {
        unsigned connections; /* of one front end process times workers: the whole program's */
        unsigned per_address; /* of one source address in their handshake, of all processes; 0: any */
        unsigned in_flight;   /* requests of one connection */
        uint64_t handshake_timeout, idle_timeout;
    } limits;

    struct {
        unsigned ec, rsa, rsa_large; /* bounded queue per cost class, in requests */
        uint64_t deadline;
    } queues;

    struct {
        char *secret;              /* NULL: nobody gets ticket keys */
        uint64_t rotate, lifetime; /* whole seconds, in microseconds */
    } ticket_keys;

    struct {
        char *file; /* NULL: none is kept */
        enum keyserver_audit_error on_error;
    } audit;

    uint64_t drain_timeout;
    bool sandbox;
    struct log_settings log;
    struct address admin_listen; /* size 0: off */
};

/* The word for what an entry may `allow`: "tls13"; NULL: it is none. */
const char *keyserver_allow_name(unsigned allow);

/* Relative paths come back relative to the file's directory. why names file, line, key and what was expected.
 */
MUST_CHECK enum result keyserver_config_read(const char *path, struct keyserver_config **config,
                                             struct failure *why);
/* The same from memory, with host names looked up as source says: for tests. */
MUST_CHECK enum result keyserver_config_parse(const struct config_source *source,
                                              struct keyserver_config **config, struct failure *why);
void keyserver_config_free(struct keyserver_config *config);

/* Prints every setting with its value in force, as `-t` does. */
struct evbuffer;
void keyserver_config_print(const struct keyserver_config *config, struct evbuffer *to);

/* The rows, for the manual. */
const struct config_table *keyserver_config_table(void);

#endif
