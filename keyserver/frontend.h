/* A front end: it speaks TLS with clients and parses what they send, and has no site key. What it lets
 * through it asks of the signer. */
#ifndef KEYLESS_KEYSERVER_FRONTEND_H
#define KEYLESS_KEYSERVER_FRONTEND_H

#include "common/process.h"

/* A process_kind's run; config is a struct keyserver_plan. */
int frontend_run(struct child *child, const void *config);

/* What it may do once it has started. */
extern const struct sandbox_profile frontend_sandbox;

#endif
