/* What the unit tests share: cmocka, octets written as string literals, and checks that name the row that
 * failed. */
#ifndef KEYLESS_TESTS_UNIT_CHECK_H
#define KEYLESS_TESTS_UNIT_CHECK_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/bytes.h"

#define COUNT_OF(array) (sizeof(array) / sizeof *(array))

/* A string literal without its terminating zero: as an expression, and as an initialiser in a table. */
#define OCTETS(literal) bytes_of((literal), sizeof(literal) - 1)
#define WIRE(literal)                                                                                        \
    {                                                                                                        \
        (const uint8_t *)(literal), sizeof(literal) - 1                                                      \
    }

#define CHECK(row, holds)                                                                                    \
    do {                                                                                                     \
        if (!(holds))                                                                                        \
            fail_msg("%s: not true: %s", (row), #holds);                                                     \
    } while (0)

/* A copy in a heap block of exactly its size: the address sanitizer sees an octet too many. Free it. */
static inline uint8_t *exact_copy(struct bytes from)
{
    uint8_t *copy = malloc(from.size > 0 ? from.size : 1);
    assert_non_null(copy);
    if (from.size > 0)
        memcpy(copy, from.data, from.size);
    return copy;
}

#endif
