/* Bytes as a whole keyserver.yaml, its own checks included. What is accepted must print and read back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>

#include "keyserver/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct keyserver_config *parse(const void *data, size_t size)
{
    const struct config_source source = {
        .file = "f",
        .directory = "/d",
        .text = bytes_of(data, size),
    };
    struct failure why = {0};
    struct keyserver_config *config = NULL;
    if (keyserver_config_parse(&source, &config, &why) != RESULT_OK && why.text[0] == '\0')
        abort();
    return config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct keyserver_config *config = parse(data, size);
    if (config == NULL)
        return 0;
    struct evbuffer *printed = evbuffer_new();
    keyserver_config_print(config, printed);
    struct keyserver_config *again = parse(evbuffer_pullup(printed, -1), evbuffer_get_length(printed));
    if (again == NULL)
        abort();
    keyserver_config_free(again);
    keyserver_config_free(config);
    evbuffer_free(printed);
    return 0;
}
