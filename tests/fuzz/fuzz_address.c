/* Whatever is taken for an address comes out as text that is taken for the same address. */
#include <stdlib.h>
#include <string.h>

#include "common/address.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char input[512];
    char text[ADDRESS_TEXT_SIZE];
    struct address address;
    struct address again;
    struct failure why;
    if (size >= sizeof input)
        return -1;
    memcpy(input, data, size);
    input[size] = '\0';
    if (address_parse(input, &address, &why) != RESULT_OK)
        return why.kind == RESULT_CONFIG && address.size == 0 ? 0 : (abort(), 0);
    (void)address_format(&address, text);
    if (address_parse(text, &again, NULL) != RESULT_OK || !address_equal(&address, &again))
        abort();
    return 0;
}
