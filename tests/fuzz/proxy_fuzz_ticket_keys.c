/* What a key server answers when it is asked for ticket keys: what is taken can be used. */
#include <stdint.h>
#include <stdlib.h>

#include "proxy/ticket_keys.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NOW UINT64_C(1700000000)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ticket_keys keys;
    if (ticket_keys_parse(bytes_of(data, size), NOW, &keys, NULL) != RESULT_OK)
        return 0;
    const struct ticket_key *making = ticket_keys_making(&keys, NOW);
    if (keys.count < 2 || keys.count > TICKET_KEYS_MAX)
        abort();
    if (making != NULL && ticket_keys_opening(&keys, making->name, NOW) == NULL)
        abort();
    return 0;
}
