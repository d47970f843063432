/* The types of settings that are text of some form: text, path, address. */
#include "common/config_table.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <event2/buffer.h>

static void text_release(void *value)
{
    free(*(char **)value);
}

static bool text_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    (void)row;
    const char *text = *(char *const *)value;
    if (text == NULL)
        return false;
    config_print_quoted(text, to);
    return true;
}

/* ---- text */

static size_t text_max(const struct config_row *row)
{
    return row->max != 0 ? (size_t)row->max : 1024;
}

static enum result text_parse(const struct config_row *row, const struct config_source *source,
                              const char *text, void *value, struct failure *why)
{
    (void)source;
    size_t size = strlen(text);
    if ((size == 0 && !row->empty) || size < row->min || size > text_max(row))
        return config_unexpected(why);
    *(char **)value = strdup(text);
    return *(char **)value != NULL ? RESULT_OK : failure_set(why, RESULT_SYSTEM, "out of memory");
}

static void text_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    (void)snprintf(text, CONFIG_EXPECT_SIZE, "text of %llu to %zu octets",
                   (unsigned long long)(row->min > 0 ? row->min : 1), text_max(row));
}

const struct config_type CONFIG_TEXT = {
    .name = "text",
    .size = sizeof(char *),
    .parse = text_parse,
    .expect = text_expect,
    .print = text_print,
    .release = text_release,
};

/* ---- path */

static char *join(const char *prefix, const char *directory, const char *path)
{
    char *joined = NULL;
    const char *slash = directory[0] != '\0' && directory[strlen(directory) - 1] != '/' ? "/" : "";
    return asprintf(&joined, "%s%s%s%s", prefix, directory, slash, path) < 0 ? NULL : joined;
}

static enum result path_parse(const struct config_row *row, const struct config_source *source,
                              const char *text, void *value, struct failure *why)
{
    (void)row;
    if (text[0] == '\0')
        return config_unexpected(why);
    char *path = text[0] == '/' ? strdup(text) : join("", source->directory, text);
    *(char **)value = path;
    if (path == NULL)
        return failure_set(why, RESULT_SYSTEM, "out of memory");
    if (strlen(path) < PATH_MAX)
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG, "got a path of %zu octets, expected at most %d", strlen(path),
                       PATH_MAX - 1);
}

static void path_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    (void)row;
    (void)snprintf(text, CONFIG_EXPECT_SIZE, "a path");
}

const struct config_type CONFIG_PATH = {
    .name = "path",
    .size = sizeof(char *),
    .parse = path_parse,
    .expect = path_expect,
    .print = text_print,
    .release = text_release,
};

/* ---- address */

#define UNIX_PREFIX   "unix:"
#define UNIX_PATH_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

/* Relative to the file's directory, like every path. */
static enum result unix_parse(const struct config_source *source, const char *path, struct address *address,
                              struct failure *why)
{
    if (path[0] == '\0')
        return config_unexpected(why);
    CLEANUP(text_release) char *text = join(UNIX_PREFIX, path[0] == '/' ? "" : source->directory, path);
    if (text == NULL)
        return failure_set(why, RESULT_SYSTEM, "out of memory");
    size_t size = strlen(text) - strlen(UNIX_PREFIX);
    if (size > UNIX_PATH_MAX)
        return failure_set(why, RESULT_CONFIG,
                           "got \"%.200s\" of %zu octets, expected a Unix socket's path of at most %zu", text,
                           size, UNIX_PATH_MAX);
    return address_parse(text, address, why);
}

static enum result address_from_text(const struct config_row *row, const struct config_source *source,
                                     const char *text, void *value, struct failure *why)
{
    (void)row;
    if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
        return unix_parse(source, text + strlen(UNIX_PREFIX), value, why);
    return address_parse(text, value, why) == RESULT_OK ? RESULT_OK : config_unexpected(why);
}

static void address_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    (void)row;
    (void)snprintf(text, CONFIG_EXPECT_SIZE,
                   "an address such as 192.0.2.1:443, [2001:db8::1]:443 or unix:/run/app.sock");
}

static bool address_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    (void)row;
    const struct address *address = value;
    char text[ADDRESS_TEXT_SIZE];
    if (address->size == 0)
        return false;
    config_print_quoted(address_format(address, text), to);
    return true;
}

const struct config_type CONFIG_ADDRESS = {
    .name = "address",
    .size = sizeof(struct address),
    .parse = address_from_text,
    .expect = address_expect,
    .print = address_print,
};

/* ---- address, or host name and port */

static enum result host_address_parse(const struct config_row *row, const struct config_source *source,
                                      const char *text, void *value, struct failure *why)
{
    struct config_host_address *to = value;
    char host[ADDRESS_HOST_SIZE];
    if (!address_split_host(text, host, &to->port))
        return address_from_text(row, source, text, &to->address, why);
    to->host = strdup(host);
    return to->host != NULL ? RESULT_OK : failure_set(why, RESULT_SYSTEM, "out of memory");
}

static void host_address_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    (void)row;
    (void)snprintf(
        text, CONFIG_EXPECT_SIZE,
        "an address such as 192.0.2.1:443, [2001:db8::1]:443, name.example:443 or unix:/run/app.sock");
}

static bool host_address_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    const struct config_host_address *from = value;
    char text[ADDRESS_HOST_SIZE + sizeof ":65535"];
    if (from->host == NULL)
        return address_print(row, &from->address, to);
    (void)snprintf(text, sizeof text, "%s:%u", from->host, (unsigned)from->port);
    config_print_quoted(text, to);
    return true;
}

static void host_address_release(void *value)
{
    struct config_host_address *from = value;
    free(from->host);
}

const struct config_type CONFIG_HOST_ADDRESS = {
    .name = "address",
    .size = sizeof(struct config_host_address),
    .parse = host_address_parse,
    .expect = host_address_expect,
    .print = host_address_print,
    .release = host_address_release,
};
