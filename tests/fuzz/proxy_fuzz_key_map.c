/* Pages of a key server's list of keys, each with its length before it: what is taken can be found, in order.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/key_map.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW UINT64_C(1000000)

/* False: no other page is asked for. */
static bool take(struct key_map *map, struct bytes page, bool first)
{
    static uint8_t after[KEY_ID_SKI_SIZE];
    uint8_t before[KEY_ID_SKI_SIZE];
    bool more = false;
    size_t count = key_map_count(map);
    memcpy(before, after, sizeof before);
    if (!key_map_take_page(map, page, first, NOW, after, &more))
        return false;
    if (!first && (memcmp(after, before, sizeof after) < 0 || key_map_count(map) < count))
        abort();
    if (key_map_count(map) > 0 && key_map_find(map, after, NOW) != KEY_HELD)
        abort();
    if (more && memcmp(after, before, sizeof after) == 0 && !first)
        abort(); /* it would be asked for again and again */
    return more;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct key_map *map = key_map_new();
    struct reader from = reader_of(bytes_of(data, size));
    struct bytes page;
    uint16_t length;
    bool first = true, more = true;
    if (map == NULL)
        return 0;
    while (more && read_u16(&from, &length) && read_bytes(&from, length % (from.left + 1), &page)) {
        more = take(map, page, first);
        first = false;
    }
    key_map_free(map);
    return 0;
}
