/* keyless-bench: latency, rate and CPU of TLS handshakes and of key servers. */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "tests/bench/bench.h"

static const struct {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *text;
} COMMANDS[] = {
    {"handshake", bench_handshake, "TLS handshakes with any server, full or resumed"},
    {"keyserver", bench_keyserver, "signatures, pings and the key list of a key server"},
};

#define COMMAND_COUNT (sizeof COMMANDS / sizeof *COMMANDS)

static int usage(FILE *to, int status)
{
    (void)fprintf(to, "usage: keyless-bench COMMAND [OPTION ...]    (COMMAND --help tells its options)\n");
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        (void)fprintf(to, "  %-10s %s\n", COMMANDS[i].name, COMMANDS[i].text);
    return status;
}

int main(int argc, char **argv)
{
    (void)signal(SIGPIPE, SIG_IGN);
    if (argc < 2)
        return usage(stderr, 2);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return usage(stdout, 0);
    if (strcmp(argv[1], "-V") == 0) {
        (void)printf("keyless-bench %s\n", KEYLESS_VERSION);
        return 0;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++)
        if (strcmp(argv[1], COMMANDS[i].name) == 0)
            return COMMANDS[i].run(argc - 1, argv + 1);
    (void)fprintf(stderr, "keyless-bench: unknown command \"%s\"\n", argv[1]);
    return usage(stderr, 2);
}
