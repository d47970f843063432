/* A worker: clients, backends, and a key channel of its own. It opens no file; it parses what clients send.
 */
#ifndef KEYLESS_PROXY_WORKER_H
#define KEYLESS_PROXY_WORKER_H

#include "common/process.h"

/* process_kind.run; config is a struct proxy_setup. */
int worker_run(struct child *child, const void *config);

/* What it may do once it has started. */
extern const struct sandbox_profile worker_sandbox;

#endif
