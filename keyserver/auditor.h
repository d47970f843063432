/*
 * The process that writes the audit log: it appends to one file, which was opened before it gave up its
 * privileges, and has nothing else to do. A record is a line; the signer is told when it is written.
 */
#ifndef KEYLESS_KEYSERVER_AUDITOR_H
#define KEYLESS_KEYSERVER_AUDITOR_H

#include "common/process.h"
#include "keyserver/config.h"

/* process_kind.run and its profile; config is a struct keyserver_plan. */
int auditor_run(struct child *child, const void *config);
extern const struct sandbox_profile auditor_sandbox;

/* RESULT_CONFIG: audit.file could not be appended to, as far as that shows without doing it. */
MUST_CHECK enum result auditor_check(const struct keyserver_config *config, struct failure *why);

#endif
