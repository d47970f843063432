#include "tests/bench/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

bool option_number(const char *name, const char *text, uint64_t least, uint64_t most, uint64_t *number)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || *text < '0' || *text > '9' || *end != '\0' || value < least || value > most) {
        (void)fprintf(stderr, "keyless-bench: --%s: got \"%s\", expected a number from %llu to %llu\n", name,
                      text, (unsigned long long)least, (unsigned long long)most);
        return false;
    }
    *number = value;
    return true;
}

bool option_shared(int option, const char *text, struct bench_limits *limits)
{
    uint64_t number = 0;
    bool ok = true;
    switch (option) {
    case OPTION_PARALLEL:
        ok = option_number("parallel", text, 1, 65536, &number);
        limits->parallel = (unsigned)number;
        return ok;
    case OPTION_COUNT:
        return option_number("count", text, 1, 1000000000, &limits->count);
    case OPTION_SECONDS:
        return option_number("seconds", text, 1, 86400, &limits->seconds);
    case OPTION_WARM_UP:
        return option_number("warm-up", text, 0, 1000000, &limits->warm_up);
    case OPTION_PID:
        ok = option_number("pid", text, 1, INT32_MAX, &number);
        limits->pid = (pid_t)number;
        return ok;
    case OPTION_JSON:
        return limits->json = true;
    default:
        return limits->quiet = true;
    }
}

bool option_address(int argc, char **argv, const char *usage, struct address *address,
                    struct bench_limits *limits)
{
    struct failure why;
    if (optind + 1 != argc) {
        (void)fputs(usage, stderr);
        return false;
    }
    if (address_resolve(argv[optind], address, &why) != RESULT_OK) {
        (void)fprintf(stderr, "keyless-bench: %s\n", why.text);
        return false;
    }
    if (limits->count == 0 && limits->seconds == 0)
        limits->seconds = 10;
    return true;
}
