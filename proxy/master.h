/* The proxy as a program of processes: what the master reads, and what it hands to its children. */
#ifndef KEYLESS_PROXY_MASTER_H
#define KEYLESS_PROXY_MASTER_H

#include <openssl/ssl.h>

#include "common/log.h"
#include "common/process.h"
#include "common/program_status.h"
#include "proxy/certificates.h"
#include "proxy/client_auth.h"
#include "proxy/config.h"
#include "proxy/endpoints.h"
#include "proxy/staples.h"
#include "proxy/ticket_memory.h"

/* Index of each kind of child in the plan. */
enum { KIND_WORKER, KIND_HELPER, KIND_COUNT };

/* One reading of the configuration, with the files that it names: what a child gets. Read with the master's
 * privileges; after that nothing is opened any more. */
struct certificate_renewal;

struct proxy_setup {
    struct proxy_config *config;
    struct certificates *certificates;
    struct client_auths *client_auths;
    struct certificate_renewal *renewal; /* the master's; NULL: nothing is ever renewed */
    struct ticket_keys *ticket_keys;     /* from tickets.files; NULL: none */
    struct ticket_memory *tickets;       /* borrowed */
    struct staples *staples;             /* borrowed; NULL: nothing is stapled */
    struct endpoints *endpoints;         /* borrowed; NULL: no key server has a name */
    SSL_CTX *key_channel;                /* the worker's credentials towards the key server */
    struct key_id channel_key;           /* theirs; type NONE: of a kind that no site has */
    struct program program;              /* borrowed */
    struct status_area *workers;         /* what they tell of themselves: struct worker_status, by index */
    struct address *listen;              /* the configuration's, and the admin address last if there is one */
    size_t *listen_kind;                 /* which kind accepts on each */
    size_t listen_count;
    struct process_kind kinds[KIND_COUNT];
    size_t kind_count;
    size_t endpoint_places[PROXY_KEY_SERVERS_MAX]; /* where the addresses are of those that have a name */
};

/* Reads everything that path names, whole or not at all; files that active has read and that are still the
 * same, not again (NULL: there is none). Binds nothing. as_configured: the log is told the configuration's
 * settings for it as soon as they are known. */
MUST_CHECK enum result proxy_setup_read(const char *path, const struct proxy_setup *active, struct log *log,
                                        bool as_configured, struct proxy_setup **setup, struct failure *why);
void proxy_setup_free(struct proxy_setup *setup);
/* Whether the certificate's key is the one that the proxy has for its channel, which no site may have. */
bool proxy_setup_has_channel_key(const struct proxy_setup *setup, const struct certificate *certificate);

/* Runs the proxy until it is told to end: its exit status. */
int proxy_master_run(const char *path, struct log *log);

#endif
