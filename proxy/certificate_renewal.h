/*
 * Certificates renewed while the proxy runs, as the master sees it: what the watch of the files finds goes
 * into the master's own table, which children that are forked later inherit, and is handed to those that run.
 */
#ifndef KEYLESS_PROXY_CERTIFICATE_RENEWAL_H
#define KEYLESS_PROXY_CERTIFICATE_RENEWAL_H

#include "common/process.h"
#include "proxy/master.h"

/* child_message.what between the proxy's processes. */
enum {
    PROXY_TOLD_CERTIFICATES = 1, /* master to worker and helper: certificate_handover.h's memfd */
};

struct certificate_renewal;

/* For the generation of this setup, which has the sockets now; all are borrowed. NULL: no memory. */
struct certificate_renewal *certificate_renewal_new(struct master *master, struct proxy_setup *setup,
                                                    struct log *log);
void certificate_renewal_free(struct certificate_renewal *renewal);

/* In a child, which inherits it: closes what it has open. NULL is allowed. */
void certificate_renewal_forget(struct certificate_renewal *renewal);

/* Ten times a second or so. */
void certificate_renewal_tick(struct certificate_renewal *renewal);

#endif
