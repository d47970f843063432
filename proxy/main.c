/* keyless-proxy: terminates TLS with private keys that live on a key server. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <event2/buffer.h>
#include <event2/event.h>
#include <openssl/crypto.h>
#include <openssl/opensslv.h>

#include "common/key_id.h"
#include "common/process.h"
#include "proxy/certificates.h"
#include "proxy/master.h"

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

struct options {
    const char *path;
    bool check, version, help;
};

/* ---- Flags. */

static void set_path(struct options *options, const char *value)
{
    options->path = value;
}

static void set_check(struct options *options, const char *value)
{
    (void)value;
    options->check = true;
}

static void set_version(struct options *options, const char *value)
{
    (void)value;
    options->version = true;
}

static void set_help(struct options *options, const char *value)
{
    (void)value;
    options->help = true;
}

static const struct flag {
    const char *name;
    const char *longer; /* what people try first; may be NULL */
    const char *value;  /* what it takes; NULL: nothing */
    const char *text;
    void (*set)(struct options *options, const char *value);
} FLAGS[] = {
    {"-c", NULL, "FILE", "the configuration; required", set_path},
    {"-t", NULL, NULL,
     "check the configuration and all files it names, print the settings in force, and exit", set_check},
    {"-V", "--version", NULL, "print versions and exit", set_version},
    {"-h", "--help", NULL, "print this and exit", set_help},
};

#define FLAG_COUNT (sizeof FLAGS / sizeof *FLAGS)

static void usage(FILE *to)
{
    fprintf(to, "usage: keyless-proxy -c FILE [-t]\n");
    for (size_t i = 0; i < FLAG_COUNT; i++)
        fprintf(to, "  %s %-5s %s\n", FLAGS[i].name, FLAGS[i].value != NULL ? FLAGS[i].value : "",
                FLAGS[i].text);
    fprintf(to, "Exit status: 0 fine, 1 failed while running, 2 bad usage or configuration.\n"
                "Signals: HUP reloads, TERM drains and ends, QUIT ends at once.\n");
}

static const struct flag *flag_find(const char *name)
{
    for (size_t i = 0; i < FLAG_COUNT; i++)
        if (strcmp(FLAGS[i].name, name) == 0 ||
            (FLAGS[i].longer != NULL && strcmp(FLAGS[i].longer, name) == 0))
            return &FLAGS[i];
    return NULL;
}

static bool options_parse(int count, char **arguments, struct options *options)
{
    for (int i = 1; i < count; i++) {
        const struct flag *flag = flag_find(arguments[i]);
        if (flag == NULL) {
            fprintf(stderr, "keyless-proxy: unknown argument \"%s\"\n", arguments[i]);
            return false;
        }
        if (flag->value != NULL && i + 1 == count) {
            fprintf(stderr, "keyless-proxy: %s wants %s\n", flag->name, flag->value);
            return false;
        }
        flag->set(options, flag->value != NULL ? arguments[++i] : NULL);
    }
    if (options->path == NULL && !options->version && !options->help) {
        fprintf(stderr, "keyless-proxy: -c FILE is missing\n");
        return false;
    }
    return true;
}

/* ---- What they ask for. */

static int print_versions(void)
{
    printf("keyless-proxy %s\nOpenSSL %s (built with %s)\nlibevent %s (built with %s)\n", KEYLESS_VERSION,
           OpenSSL_version(OPENSSL_FULL_VERSION_STRING), OPENSSL_FULL_VERSION_STR, event_get_version(),
           LIBEVENT_VERSION);
    return STATUS_OK;
}

/* By SKI, as the key server's -t lists its keys: what is in one list and not in the other cannot be signed
 * for. */
static void describe_chain(struct evbuffer *text, const struct certificate *chain)
{
    char day[16] = "?";
    struct tm end;
    if (gmtime_r(&chain->not_after, &end) != NULL)
        (void)strftime(day, sizeof day, "%Y-%m-%d", &end);
    evbuffer_add_printf(text, "# ");
    for (size_t i = 0; i < sizeof chain->key.ski; i++)
        evbuffer_add_printf(text, "%02x", chain->key.ski[i]);
    evbuffer_add_printf(text, " %-7s until %s %s\n", key_type_name(chain->key.type), day, chain->path);
}

static void describe_chains(struct evbuffer *text, const struct certificates *certificates)
{
    size_t count = certificates_count(certificates);
    evbuffer_add_printf(text, "\n# %zu chain%s, by the key's SKI\n", count, count == 1 ? "" : "s");
    for (size_t i = 0; i < count; i++)
        describe_chain(text, certificates_at(certificates, i));
}

static int print_settings(const struct proxy_setup *setup)
{
    struct evbuffer *text = evbuffer_new();
    if (text == NULL)
        return STATUS_FAILED;
    proxy_config_print(setup->config, text);
    describe_chains(text, setup->certificates);
    bool printed = true;
    while (printed && evbuffer_get_length(text) > 0)
        printed = evbuffer_write(text, STDOUT_FILENO) > 0;
    evbuffer_free(text);
    return printed ? STATUS_OK : STATUS_FAILED;
}

static int check(const char *path, struct log *log)
{
    struct proxy_setup *setup;
    struct failure why;
    if (proxy_setup_read(path, NULL, log, false, &setup, &why) != RESULT_OK) {
        fprintf(stderr, "keyless-proxy: %s\n", why.text);
        return STATUS_USAGE;
    }
    int status = print_settings(setup);
    proxy_setup_free(setup);
    return status;
}

int main(int count, char **arguments)
{
    struct options options = {0};
    process_keep_standard_descriptors();
    if (!options_parse(count, arguments, &options)) {
        usage(stderr);
        return STATUS_USAGE;
    }
    if (options.help) {
        usage(stdout);
        return STATUS_OK;
    }
    if (options.version)
        return print_versions();
    const struct log_settings settings = {.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_LOGFMT};
    struct log *log = log_new("proxy", STDERR_FILENO, &settings);
    if (log == NULL) {
        fprintf(stderr, "keyless-proxy: no memory\n");
        return STATUS_FAILED;
    }
    int status = options.check ? check(options.path, log) : proxy_master_run(options.path, log);
    log_free(log);
    return status;
}
