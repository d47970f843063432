#include "common/frame_output.h"

#include <string.h>

#include <openssl/crypto.h>

enum { FRAME_OUTPUT_BASE = KSSL_RECORD_MAX };

static size_t frame_size(const uint8_t *frame)
{
    struct kssl_header header;
    kssl_header_parse(frame, &header);
    return KSSL_HEADER_SIZE + (size_t)header.length;
}

bool frame_output_whole(struct bytes frame)
{
    return frame.size >= KSSL_HEADER_SIZE && frame.size == frame_size(frame.data);
}

static bool frame_output_grow(struct frame_output *output, size_t needed)
{
    size_t capacity = output->capacity > 0 ? 2 * output->capacity : FRAME_OUTPUT_BASE;
    while (capacity < needed)
        capacity *= 2;
    uint8_t *data = OPENSSL_malloc(capacity);
    if (data == NULL)
        return false;
    if (output->size > 0)
        memcpy(data, output->data + output->start, output->size);
    OPENSSL_clear_free(output->data, output->high);
    output->data = data;
    output->capacity = capacity;
    output->start = 0;
    output->high = output->size;
    return true;
}

/*
 * Makes room at the end: by moving to the front where that frees a quarter of what is moved, else by growing.
 * So an octet is moved a few times at most, and the memory stays below three times what was ever queued.
 */
static bool frame_output_reserve(struct frame_output *output, size_t size)
{
    if (output->capacity - output->start - output->size >= size)
        return true;
    if (output->start < output->size / 4 || output->capacity - output->size < size)
        return frame_output_grow(output, output->size + size);
    memmove(output->data, output->data + output->start, output->size);
    output->start = 0;
    return true;
}

bool frame_output_append(struct frame_output *output, struct bytes frame)
{
    if (!frame_output_reserve(output, frame.size))
        return false;
    memcpy(output->data + output->start + output->size, frame.data, frame.size);
    output->size += frame.size;
    if (output->high < output->start + output->size)
        output->high = output->start + output->size;
    return true;
}

/* As many whole frames as fit one record; of a longer one its first record. */
static void frame_output_cut(struct frame_output *output)
{
    const uint8_t *next = output->data + output->start;
    size_t size = frame_size(next);
    if (size > KSSL_RECORD_MAX) {
        output->chunk = KSSL_RECORD_MAX;
        output->frame = size - KSSL_RECORD_MAX;
        return;
    }
    size_t total = 0;
    while (total + size <= KSSL_RECORD_MAX) {
        total += size;
        if (total == output->size)
            break;
        size = frame_size(next + total);
    }
    output->chunk = total;
}

struct bytes frame_output_chunk(struct frame_output *output)
{
    if (output->chunk == 0 && output->frame > 0) {
        output->chunk = output->frame < KSSL_RECORD_MAX ? output->frame : KSSL_RECORD_MAX;
        output->frame -= output->chunk;
    } else if (output->chunk == 0) {
        frame_output_cut(output);
    }
    return bytes_of(output->data + output->start, output->chunk);
}

void frame_output_taken(struct frame_output *output, size_t size)
{
    output->start += size;
    output->size -= size;
    output->chunk -= size;
    if (output->size == 0)
        output->start = 0;
}

void frame_output_release(struct frame_output *output)
{
    OPENSSL_clear_free(output->data, output->high);
    *output = (struct frame_output){0};
}
