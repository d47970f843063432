/*
 * Certificates renewed while the proxy runs, as the master sees it: what the watch of the files finds, and
 * what a reload has found, is held back until the first worker has had a test signature of the key server for
 * it. Then it goes into the master's own table, which children that are forked later inherit, and is handed
 * to those that run. What that worker finds of the chains in the table goes the same way.
 */
#ifndef KEYLESS_PROXY_CERTIFICATE_RENEWAL_H
#define KEYLESS_PROXY_CERTIFICATE_RENEWAL_H

#include "common/process.h"
#include "proxy/master.h"

/* child_message.what between the proxy's processes. */
enum {
    /* Master to worker and helper: chains to be served (certificate_handover.h). */
    PROXY_TOLD_CERTIFICATES = 1,
    /* Master to the first worker, which tries them, and to the helper, which asks for their OCSP responses:
     * all that are held back, by number; without a descriptor: none. */
    PROXY_TOLD_TRIALS,
    /* The first worker and the helper to the master: want to know which are held back. */
    PROXY_SAID_WHICH,
    /* The first worker to the master, with a number: that one is good. */
    PROXY_SAID_GOOD,
    /* ... number: the key server signs for the chain in this place of the table (certificate_verdicts.h), or
     * does not. The master to the first worker: that it has heard so; and to all, where it changes anything
     * for them. */
    PROXY_SAID_SIGNED,
    PROXY_SAID_NOT_SIGNED,
    PROXY_TOLD_SIGNED,
    PROXY_TOLD_NOT_SIGNED,
};
/* The worker that tries. */
#define PROXY_TRIES 0

struct certificate_renewal;

/* For the generation of this setup; both are borrowed. NULL: no memory. */
struct certificate_renewal *certificate_renewal_new(struct proxy_setup *setup, struct log *log);
void certificate_renewal_free(struct certificate_renewal *renewal);

/* Before there are children: reads the OCSP responses that lie in files. */
void certificate_renewal_prepare(struct certificate_renewal *renewal);
/* The generation has the sockets from now on: its files are watched. */
void certificate_renewal_begin(struct certificate_renewal *renewal, struct master *master);
/* ... and another's are. */
void certificate_renewal_end(struct certificate_renewal *renewal);
/* In a child, which inherits it: closes what it has open. NULL is allowed. */
void certificate_renewal_forget(struct certificate_renewal *renewal);

/* What a worker of the generation says. */
void certificate_renewal_heard(struct certificate_renewal *renewal, struct master *master,
                               const struct child_message *message);
/* Ten times a second or so, once it has begun. */
void certificate_renewal_tick(struct certificate_renewal *renewal);

#endif
