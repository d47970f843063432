/* The signer: the one process that has site keys, and the one that decides. It has no network socket; front
 * ends ask it over their links, and it believes them nothing but which client is asking. */
#ifndef KEYLESS_KEYSERVER_SIGNER_H
#define KEYLESS_KEYSERVER_SIGNER_H

#include "common/process.h"

/* A process_kind's run; config is a struct keyserver_plan. */
int signer_run(struct child *child, const void *config);

/* What it may do once it has started. */
extern const struct sandbox_profile signer_sandbox;

#endif
