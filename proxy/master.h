/* The proxy as a program of processes: what the master reads, and what it hands to its children. */
#ifndef KEYLESS_PROXY_MASTER_H
#define KEYLESS_PROXY_MASTER_H

#include <sys/queue.h>

#include <openssl/ssl.h>

#include "common/log.h"
#include "common/metrics.h"
#include "common/process.h"
#include "proxy/certificates.h"
#include "proxy/config.h"

/* One reading of the configuration, with the files that it names: what a child gets. Read with the master's
 * privileges; after that nothing is opened any more. */
struct proxy_setup {
    LIST_ENTRY(proxy_setup) link; /* the master's: those in use */
    struct proxy_config *config;
    struct certificates *certificates;
    SSL_CTX *key_channel;          /* the worker's credentials towards the key server */
    int admin_listener;            /* -1: admin is off */
    const struct metrics *metrics; /* of the whole program; borrowed */
    struct address *listen;        /* config->listen's, in a row */
    struct process_kind kinds[2];
};

/* Reads everything that path names, whole or not at all. Binds nothing. */
MUST_CHECK enum result proxy_setup_read(const char *path, struct log *log, struct proxy_setup **setup,
                                        struct failure *why);
void proxy_setup_free(struct proxy_setup *setup);

/* In a child, whose copy of the setup no other process sees: the admin address's socket is the caller's now,
 * to serve or to close. -1: there is none. */
int proxy_setup_take_admin(const struct proxy_setup *setup);

/* Runs the proxy until it is told to end: its exit status. */
int proxy_master_run(const char *path, struct log *log);

#endif
