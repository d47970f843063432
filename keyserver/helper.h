/* The helper: serves the admin endpoint, and has neither keys nor clients. */
#ifndef KEYLESS_KEYSERVER_HELPER_H
#define KEYLESS_KEYSERVER_HELPER_H

#include "common/process.h"

/* A process_kind's run; config is a struct keyserver_plan. */
int helper_run(struct child *child, const void *config);

#endif
