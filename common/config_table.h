/*
 * Configuration files from tables. A program describes its file as rows (path, type, range, default, unit,
 * text); parser, checks, defaults, the output of -t and the manual come from the rows. Files are YAML, read
 * with libyaml's document API, which keeps line and column, so that every error names file, line, key and
 * what was expected.
 */
#ifndef KEYLESS_COMMON_CONFIG_TABLE_H
#define KEYLESS_COMMON_CONFIG_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "common/result.h"

/* Where in which file a value stands, for errors that are found later (an unknown backend, a missing file).
 */
struct config_position {
    const char *file; /* borrowed from the configuration read */
    unsigned line;    /* from 1; 0: the value is a default */
    unsigned column;
};

/* "FILE:LINE: key: text"; returns RESULT_CONFIG. */
enum result config_failure(struct failure *why, const struct config_position *where, const char *key,
                           const char *format, ...) PRINTF(4, 5);

#endif
