#include "common/bytes.h"

#include <string.h>

bool bytes_equal(struct bytes a, struct bytes b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

bool read_bytes(struct reader *from, size_t size, struct bytes *slice)
{
    if (size > from->left)
        return false;
    *slice = bytes_of(from->next, size);
    if (size > 0)
        from->next += size;
    from->left -= size;
    return true;
}

static bool read_integer(struct reader *from, size_t octets, uint64_t *value)
{
    struct bytes slice;
    if (!read_bytes(from, octets, &slice))
        return false;
    *value = 0;
    for (size_t i = 0; i < octets; i++)
        *value = *value << 8 | slice.data[i];
    return true;
}

bool read_u8(struct reader *from, uint8_t *value)
{
    uint64_t wide;
    if (!read_integer(from, 1, &wide))
        return false;
    *value = (uint8_t)wide;
    return true;
}

bool read_u16(struct reader *from, uint16_t *value)
{
    uint64_t wide;
    if (!read_integer(from, 2, &wide))
        return false;
    *value = (uint16_t)wide;
    return true;
}

bool read_u24(struct reader *from, uint32_t *value)
{
    uint64_t wide;
    if (!read_integer(from, 3, &wide))
        return false;
    *value = (uint32_t)wide;
    return true;
}

bool read_u32(struct reader *from, uint32_t *value)
{
    uint64_t wide;
    if (!read_integer(from, 4, &wide))
        return false;
    *value = (uint32_t)wide;
    return true;
}

bool read_u64(struct reader *from, uint64_t *value)
{
    return read_integer(from, 8, value);
}

bool read_copy(struct reader *from, void *into, size_t size)
{
    struct bytes slice;
    if (!read_bytes(from, size, &slice))
        return false;
    if (size > 0)
        memcpy(into, slice.data, size);
    return true;
}

static bool read_vector(struct reader *from, size_t prefix, struct bytes *slice)
{
    struct reader ahead = *from;
    uint64_t size;
    if (!read_integer(&ahead, prefix, &size) || !read_bytes(&ahead, (size_t)size, slice))
        return false;
    *from = ahead;
    return true;
}

bool read_vector8(struct reader *from, struct bytes *slice)
{
    return read_vector(from, 1, slice);
}

bool read_vector16(struct reader *from, struct bytes *slice)
{
    return read_vector(from, 2, slice);
}

bool read_vector24(struct reader *from, struct bytes *slice)
{
    return read_vector(from, 3, slice);
}

bool read_vector8_copy(struct reader *from, void *into, uint8_t *size, size_t most)
{
    struct reader ahead = *from;
    struct bytes slice;
    if (!read_vector8(&ahead, &slice) || slice.size > most)
        return false;
    *from = ahead;
    *size = (uint8_t)slice.size;
    if (slice.size > 0)
        memcpy(into, slice.data, slice.size);
    return true;
}

/* Room for size more octets, or NULL and the writer is spoilt for good. */
static uint8_t *writer_room(struct writer *to, size_t size)
{
    if (to->overflow || size > to->capacity - to->size) {
        to->overflow = true;
        return NULL;
    }
    uint8_t *room = to->data + to->size;
    to->size += size;
    return room;
}

static void store_integer(uint8_t *at, size_t octets, uint64_t value)
{
    for (size_t i = octets; i > 0; i--) {
        at[i - 1] = (uint8_t)value;
        value >>= 8;
    }
}

static void write_integer(struct writer *to, size_t octets, uint64_t value)
{
    uint8_t *room = writer_room(to, octets);
    if (room != NULL)
        store_integer(room, octets, value);
}

void write_u8(struct writer *to, uint8_t value)
{
    write_integer(to, 1, value);
}

void write_u16(struct writer *to, uint16_t value)
{
    write_integer(to, 2, value);
}

void write_u24(struct writer *to, uint32_t value)
{
    if (value > 0xFFFFFF)
        to->overflow = true;
    write_integer(to, 3, value);
}

void write_u32(struct writer *to, uint32_t value)
{
    write_integer(to, 4, value);
}

void write_u64(struct writer *to, uint64_t value)
{
    write_integer(to, 8, value);
}

void write_bytes(struct writer *to, struct bytes slice)
{
    uint8_t *room = slice.size > 0 ? writer_room(to, slice.size) : NULL;
    if (room != NULL)
        memcpy(room, slice.data, slice.size);
}

void write_fill(struct writer *to, uint8_t octet, size_t count)
{
    uint8_t *room = count > 0 ? writer_room(to, count) : NULL;
    if (room != NULL)
        memset(room, octet, count);
}

struct writer_vector writer_vector_open(struct writer *to, unsigned prefix)
{
    write_fill(to, 0, prefix);
    return (struct writer_vector){.start = to->size, .prefix = prefix, .open = true};
}

void writer_vector_close(struct writer *to, struct writer_vector *vector)
{
    vector->open = false;
    if (to->overflow)
        return;
    size_t size = to->size - vector->start;
    if (size >> (8 * vector->prefix) != 0) {
        to->overflow = true;
        return;
    }
    store_integer(to->data + vector->start - vector->prefix, vector->prefix, size);
}

void write_vector8(struct writer *to, struct bytes slice)
{
    WRITE_VECTOR(to, 1)
    {
        write_bytes(to, slice);
    }
}
