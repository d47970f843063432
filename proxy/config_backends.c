#include "proxy/config_backends.h"

#include <stdio.h>
#include <string.h>

#include "proxy/config.h"

#define BUILTIN_HELLO "builtin:hello"

static enum result backend_server_parse(const struct config_row *row, const struct config_source *source,
                                        const char *text, void *value, struct failure *why)
{
    struct proxy_backend_server *server = value;
    server->builtin_hello = strcmp(text, BUILTIN_HELLO) == 0;
    return server->builtin_hello ? RESULT_OK : CONFIG_ADDRESS.parse(row, source, text, &server->address, why);
}

static void backend_server_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    CONFIG_ADDRESS.expect(row, text);
    size_t used = strlen(text);
    (void)snprintf(text + used, CONFIG_EXPECT_SIZE - used, ", or " BUILTIN_HELLO);
}

static bool backend_server_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    const struct proxy_backend_server *server = value;
    if (!server->builtin_hello)
        return CONFIG_ADDRESS.print(row, &server->address, to);
    config_print_quoted(BUILTIN_HELLO, to);
    return true;
}

static const struct config_type BACKEND_SERVER = {
    .name = "address",
    .size = sizeof(struct proxy_backend_server),
    .parse = backend_server_parse,
    .expect = backend_server_expect,
    .print = backend_server_print,
};

static const struct config_row BACKEND_ROWS[] = {
    {
        .path = "servers",
        .type = &BACKEND_SERVER,
        CONFIG_LIST_AT(struct proxy_backend, servers, server_count),
        .required = true,
        .most = 1024,
        .help = "Where the plaintext goes, taken in turn. builtin:hello answers over HTTP with what the "
                "handshake did.",
    },
    {
        .path = "connect_timeout",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct proxy_backend, connect_timeout),
        .min = CONFIG_MILLISECOND,
        .max = CONFIG_HOUR,
        .fallback = "5s",
        .help = "Until a connection to one server is made.",
    },
};

const struct config_table PROXY_BACKENDS_TABLE = {
    CONFIG_ROWS(BACKEND_ROWS),
    .size = sizeof(struct proxy_backend),
    CONFIG_POSITION(struct proxy_backend, where),
    CONFIG_NAME(struct proxy_backend, name),
};
