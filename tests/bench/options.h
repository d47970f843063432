/* The options that every run shares, and numbers with errors that print the offending value and what was
 * expected. */
#ifndef KEYLESS_BENCH_OPTIONS_H
#define KEYLESS_BENCH_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "common/address.h"
#include "tests/bench/report.h"

/* getopt_long's values for them; a subcommand's own begin at 1. */
enum {
    OPTION_PARALLEL = 1000,
    OPTION_COUNT,
    OPTION_SECONDS,
    OPTION_WARM_UP,
    OPTION_PID,
    OPTION_JSON,
    OPTION_QUIET,
    OPTION_HELP
};

#define SHARED_OPTIONS                                                                                       \
    {"parallel", required_argument, NULL, OPTION_PARALLEL},                                                  \
        {"count", required_argument, NULL, OPTION_COUNT},                                                    \
        {"seconds", required_argument, NULL, OPTION_SECONDS},                                                \
        {"warm-up", required_argument, NULL, OPTION_WARM_UP}, {"pid", required_argument, NULL, OPTION_PID},  \
        {"json", no_argument, NULL, OPTION_JSON}, {"quiet", no_argument, NULL, OPTION_QUIET},                \
        {"help", no_argument, NULL, OPTION_HELP},                                                            \
    {                                                                                                        \
        NULL, 0, NULL, 0                                                                                     \
    }

#define SHARED_USAGE                                                                                         \
    "  --count N           operations; --seconds N: time (default 10 s)\n"                                   \
    "  --warm-up N         operations before the clock starts\n"                                             \
    "  --pid PID           also tell the CPU time per operation of this process and its children\n"          \
    "  --json, --quiet     the result as JSON; no progress line\n"

/* False, with a line on standard error: text is no number from least to most. */
bool option_number(const char *name, const char *text, uint64_t least, uint64_t most, uint64_t *number);
/* One of SHARED_OPTIONS but help. */
bool option_shared(int option, const char *text, struct bench_limits *limits);
/* The one argument that is left: the server's address. Gives limits their default end. */
bool option_address(int argc, char **argv, const char *usage, struct address *address,
                    struct bench_limits *limits);

#endif
