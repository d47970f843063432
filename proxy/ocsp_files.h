/*
 * OCSP responses of `ocsp: {source: file}`: NAME.ocsp beside each chain file NAME, in DER. The master reads
 * one that has changed, and puts it where all processes find it (staples.h) once it is verified.
 */
#ifndef KEYLESS_PROXY_OCSP_FILES_H
#define KEYLESS_PROXY_OCSP_FILES_H

#include <stdbool.h>

#include "common/log.h"
#include "common/metrics.h"
#include "proxy/certificates.h"
#include "proxy/config.h"
#include "proxy/staples.h"

struct ocsp_files;

/* All of it borrowed. NULL: no memory. */
struct ocsp_files *ocsp_files_new(const struct proxy_config *config, const struct certificates *certificates,
                                  struct staples *staples, struct log *log);
void ocsp_files_free(struct ocsp_files *files);

/* At the start, before there are children; it does not wait for files that are being written. */
void ocsp_files_begin(struct ocsp_files *files);
/* Looks at the files of all chains, also of those that are held back. True: some were left alone, as they may
 * still be written to. */
bool ocsp_files_look(struct ocsp_files *files, struct metrics_row *metrics);
/* Once a second or so: tells of what has ended. */
void ocsp_files_tick(struct ocsp_files *files);

#endif
