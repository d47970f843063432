/* Bytes as a configuration with a setting of every type; what is accepted must print and read back the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>

#include "common/config_table.h"
#include "tests/unit/support/every_setting.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *parse(const void *data, size_t size, struct failure *why)
{
    const struct config_source source = {.file = "f", .directory = "/d", .text = bytes_of(data, size)};
    void *object = NULL;
    if (config_parse(&EVERY, &source, &object, why) != RESULT_OK && why->text[0] == '\0')
        abort();
    return object;
}

static void print(const void *object, struct evbuffer *to)
{
    config_print(&EVERY, object, to);
}

static void check_round_trip(const void *first)
{
    struct evbuffer *once = evbuffer_new();
    struct evbuffer *twice = evbuffer_new();
    struct failure why = {0};
    print(first, once);
    size_t size = evbuffer_get_length(once);
    void *second = parse(evbuffer_pullup(once, -1), size, &why);
    if (second == NULL)
        abort();
    print(second, twice);
    if (evbuffer_get_length(twice) != size ||
        memcmp(evbuffer_pullup(once, -1), evbuffer_pullup(twice, -1), size) != 0)
        abort();
    config_free(&EVERY, second);
    evbuffer_free(once);
    evbuffer_free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct failure why = {0};
    void *object = parse(data, size, &why);
    if (object != NULL)
        check_round_trip(object);
    config_free(&EVERY, object);
    return 0;
}
