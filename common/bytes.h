/*
 * The one bounded reader and the one bounded writer for all bytes that come from or go to another process.
 * Integers are big-endian. Nothing here allocates; a struct bytes borrows.
 */
#ifndef KEYLESS_COMMON_BYTES_H
#define KEYLESS_COMMON_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/result.h"

/* A borrowed slice. data may be NULL only when size is 0. */
struct bytes {
    const uint8_t *data;
    size_t size;
};

static inline struct bytes bytes_of(const void *data, size_t size)
{
    return (struct bytes){.data = data, .size = size};
}

bool bytes_equal(struct bytes a, struct bytes b);

/* ---- Reader: each call takes from the front; false means too little is left, and then nothing was taken. */

struct reader {
    const uint8_t *next;
    size_t left;
};

static inline struct reader reader_of(struct bytes from)
{
    return (struct reader){.next = from.data, .left = from.size};
}

static inline bool reader_empty(const struct reader *from)
{
    return from->left == 0;
}

MUST_CHECK bool read_u8(struct reader *from, uint8_t *value);
MUST_CHECK bool read_u16(struct reader *from, uint16_t *value);
MUST_CHECK bool read_u24(struct reader *from, uint32_t *value);
MUST_CHECK bool read_u32(struct reader *from, uint32_t *value);
MUST_CHECK bool read_u64(struct reader *from, uint64_t *value);
MUST_CHECK bool read_bytes(struct reader *from, size_t size, struct bytes *slice);
MUST_CHECK bool read_copy(struct reader *from, void *into, size_t size);
/* A vector with a length prefix of 1, 2 or 3 octets (RFC 8446 section 3.4). */
MUST_CHECK bool read_vector8(struct reader *from, struct bytes *slice);
MUST_CHECK bool read_vector16(struct reader *from, struct bytes *slice);
MUST_CHECK bool read_vector24(struct reader *from, struct bytes *slice);
/* A vector with a length prefix of one octet into a field of at most `most` octets. */
MUST_CHECK bool read_vector8_copy(struct reader *from, void *into, uint8_t *size, size_t most);

/* ---- Writer: appends to a buffer the caller owns. Running out is sticky and checked once, with writer_ok.
 */

struct writer {
    uint8_t *data;
    size_t capacity;
    size_t size;   /* octets written so far */
    bool overflow; /* something did not fit; the content is then worthless */
};

static inline struct writer writer_of(void *data, size_t capacity)
{
    return (struct writer){.data = data, .capacity = capacity};
}

static inline bool writer_ok(const struct writer *to)
{
    return !to->overflow;
}

static inline struct bytes writer_bytes(const struct writer *to)
{
    return bytes_of(to->data, to->overflow ? 0 : to->size);
}

void write_u8(struct writer *to, uint8_t value);
void write_u16(struct writer *to, uint16_t value);
void write_u24(struct writer *to, uint32_t value);
void write_u32(struct writer *to, uint32_t value);
void write_u64(struct writer *to, uint64_t value);
void write_bytes(struct writer *to, struct bytes slice);
void write_fill(struct writer *to, uint8_t octet, size_t count);

/*
 * Nested vectors, so that the source nests as the wire does and no length is forgotten:
 *     WRITE_VECTOR(to, 2) { write_u16(to, scheme); }
 * Do not leave the block with break, return or goto.
 */
struct writer_vector {
    size_t start;
    unsigned prefix; /* octets of the length: 1, 2 or 3 */
    bool open;
};

struct writer_vector writer_vector_open(struct writer *to, unsigned prefix);
void writer_vector_close(struct writer *to, struct writer_vector *vector);

#define WRITE_VECTOR_NAME2(line) vector_at_##line
#define WRITE_VECTOR_NAME(line)  WRITE_VECTOR_NAME2(line)
#define WRITE_VECTOR(to, prefix)                                                                             \
    for (struct writer_vector WRITE_VECTOR_NAME(__LINE__) = writer_vector_open((to), (prefix));              \
         WRITE_VECTOR_NAME(__LINE__).open; writer_vector_close((to), &WRITE_VECTOR_NAME(__LINE__)))

/* A vector of these octets, with a length prefix of one octet. */
void write_vector8(struct writer *to, struct bytes slice);

#endif
