/* The helper: one process that serves the admin address, so that no worker waits for it. */
#ifndef KEYLESS_PROXY_HELPER_H
#define KEYLESS_PROXY_HELPER_H

#include "common/process.h"

/* process_kind.run; config is a struct proxy_setup whose admin_listener is set. */
int helper_run(struct child *child, const void *config);

#endif
