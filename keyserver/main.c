/* keyless-keyserver: holds sites' private keys and signs TLS handshakes with them, for the proxies that its
 * configuration names. */
#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <openssl/crypto.h>

#include "common/process.h"
#include "keyserver/master.h"

/* Exit codes. */
enum { EXIT_FINE = 0, EXIT_USAGE = 2 };

static int show_usage(const char *config_path);
static int show_versions(const char *config_path);

/* What can be asked for. -c says which configuration; without another option the key server runs. */
static const struct option_row {
    int (*run)(const char *config_path);
    const char *text;
    char letter;
    bool wants_config;
} OPTIONS[] = {
    {keyserver_master, "FILE  run with the configuration in FILE", 'c', true},
    {keyserver_check, "      check the configuration and all that it names, print it, and exit", 't', true},
    {show_versions, "      print versions and exit", 'V', false},
    {show_usage, "      print this and exit", 'h', false},
};

/* What people try first. */
static const struct option LONG_OPTIONS[] = {
    {"version", no_argument, NULL, 'V'}, {"help", no_argument, NULL, 'h'}, {NULL, 0, NULL, 0}};

#define OPTION_COUNT (sizeof OPTIONS / sizeof *OPTIONS)

static void print_usage(FILE *to)
{
    (void)fprintf(to, "usage: keyless-keyserver -c FILE [-t]\n"
                      "       keyless-keyserver -V | -h\n\n");
    for (size_t i = 0; i < OPTION_COUNT; i++)
        (void)fprintf(to, "  -%c %s\n", OPTIONS[i].letter, OPTIONS[i].text);
    (void)fprintf(to, "\nSIGHUP reloads, SIGTERM drains and ends, SIGQUIT ends at once.\n"
                      "Exit status: 0 fine, 1 failure at run time, 2 bad usage or configuration.\n");
}

static int show_usage(const char *config_path)
{
    (void)config_path;
    print_usage(stdout);
    return EXIT_FINE;
}

static int show_versions(const char *config_path)
{
    (void)config_path;
    printf("keyless-keyserver %s\nOpenSSL %s (built with %s)\nlibevent %s (built with %s)\n", KEYLESS_VERSION,
           OpenSSL_version(OPENSSL_VERSION_STRING), OPENSSL_VERSION_STR, event_get_version(),
           LIBEVENT_VERSION);
    return EXIT_FINE;
}

static const struct option_row *find_option(int letter)
{
    for (size_t i = 0; i < OPTION_COUNT; i++)
        if (OPTIONS[i].letter == letter)
            return &OPTIONS[i];
    return NULL;
}

static int bad_usage(const char *reason)
{
    (void)fprintf(stderr, "keyless-keyserver: %s\n\n", reason);
    print_usage(stderr);
    return EXIT_USAGE;
}

int main(int argc, char **argv)
{
    const struct option_row *chosen = NULL;
    const char *config_path = NULL;
    int letter;
    process_keep_standard_descriptors();
    opterr = 0;
    while ((letter = getopt_long(argc, argv, ":c:tVh", LONG_OPTIONS, NULL)) != -1) {
        const struct option_row *option = find_option(letter);
        if (option == NULL)
            return bad_usage(letter == ':' ? "-c wants a file" : "there is no such option");
        if (letter == 'c')
            config_path = optarg;
        if (chosen == NULL || letter != 'c')
            chosen = option;
    }
    if (optind < argc)
        return bad_usage("unexpected argument");
    if (chosen == NULL || (chosen->wants_config && config_path == NULL))
        return bad_usage("no configuration: -c FILE is missing");
    return chosen->run(config_path);
}
