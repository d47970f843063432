/* Bytes as a whole proxy.yaml, its own checks included. What is accepted must print and read back. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>

#include "proxy/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct proxy_config *parse(const void *data, size_t size)
{
    const struct config_source source = {
        .file = "f",
        .directory = "/d",
        .text = bytes_of(data, size),
    };
    struct failure why = {0};
    struct proxy_config *config = NULL;
    if (proxy_config_parse(&source, &config, &why) != RESULT_OK && why.text[0] == '\0')
        abort();
    return config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct proxy_config *config = parse(data, size);
    if (config == NULL)
        return 0;
    struct evbuffer *printed = evbuffer_new();
    proxy_config_print(config, printed);
    struct proxy_config *again = parse(evbuffer_pullup(printed, -1), evbuffer_get_length(printed));
    if (again == NULL)
        abort();
    proxy_config_free(again);
    proxy_config_free(config);
    evbuffer_free(printed);
    return 0;
}
