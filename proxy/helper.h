/* The helper: one process that serves the admin address, fetches OCSP responses and looks up the names of key
 * servers, so that no worker waits for any of it. */
#ifndef KEYLESS_PROXY_HELPER_H
#define KEYLESS_PROXY_HELPER_H

#include "common/process.h"
#include "proxy/config.h"

/* process_kind.run; config is a struct proxy_setup. */
int helper_run(struct child *child, const void *config);

/* Whether it asks anybody on the network: responders, or name servers for key servers. */
bool helper_fetches(const struct proxy_config *config);
/* What it may do once it has started, if it does; admin_process_sandbox otherwise. */
extern const struct sandbox_profile helper_fetching_sandbox;

#endif
