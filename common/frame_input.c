#include "common/frame_input.h"

#include <string.h>

#include <openssl/crypto.h>

/* Room for a whole record behind any frame that fits one. */
enum { FRAME_INPUT_BASE = 2 * KSSL_RECORD_MAX };

static size_t frame_input_held(const struct frame_input *input)
{
    return input->end - input->start;
}

/* Octets of the frame at the front, as far as is known. */
static size_t frame_input_needed(const struct frame_input *input, struct kssl_header *header)
{
    if (frame_input_held(input) < KSSL_HEADER_SIZE)
        return KSSL_HEADER_SIZE;
    kssl_header_parse(input->data + input->start, header);
    return header->major == KSSL_MAJOR ? KSSL_HEADER_SIZE + (size_t)header->length : KSSL_HEADER_SIZE;
}

static void frame_input_free(struct frame_input *input)
{
    OPENSSL_clear_free(input->data, input->high);
    *input = (struct frame_input){.skip = input->skip};
}

/* Moves the part of a frame that is held to the front, into memory of at least that capacity. */
static bool frame_input_arrange(struct frame_input *input, size_t capacity)
{
    size_t held = frame_input_held(input);
    if (capacity > input->capacity) {
        uint8_t *data = OPENSSL_malloc(capacity);
        if (data == NULL)
            return false;
        if (held > 0)
            memcpy(data, input->data + input->start, held);
        frame_input_free(input);
        input->data = data;
        input->capacity = capacity;
        input->high = held;
    } else if (input->start > 0 && held > 0) {
        memmove(input->data, input->data + input->start, held);
    }
    input->start = 0;
    input->end = held;
    return true;
}

bool frame_input_room(struct frame_input *input, uint8_t **room, size_t *size)
{
    struct kssl_header header;
    size_t needed = frame_input_needed(input, &header);
    /* What was grown for one long frame holds exactly that frame,
     * so it is empty when the frame has been taken. */
    if (frame_input_held(input) == 0 && input->capacity > FRAME_INPUT_BASE)
        frame_input_free(input);
    if (!frame_input_arrange(input, needed > FRAME_INPUT_BASE ? needed : FRAME_INPUT_BASE))
        return false;
    *room = input->data + input->end;
    *size = input->capacity - input->end;
    return true;
}

static void frame_input_skip(struct frame_input *input)
{
    size_t held = frame_input_held(input);
    size_t skipped = input->skip < held ? input->skip : held;
    input->start += skipped;
    input->skip -= skipped;
}

void frame_input_filled(struct frame_input *input, size_t size)
{
    input->end += size;
    if (input->high < input->end)
        input->high = input->end;
    frame_input_skip(input);
}

bool frame_input_next(struct frame_input *input, struct kssl_header *header, struct bytes *body)
{
    size_t needed = frame_input_needed(input, header);
    if (frame_input_held(input) < needed)
        return false;
    *body = bytes_of(input->data + input->start + KSSL_HEADER_SIZE, needed - KSSL_HEADER_SIZE);
    input->start += needed;
    if (header->major != KSSL_MAJOR) {
        input->skip = header->length;
        frame_input_skip(input);
    }
    return true;
}

bool frame_input_amid(const struct frame_input *input)
{
    return frame_input_held(input) > 0 || input->skip > 0;
}

void frame_input_clear(struct frame_input *input)
{
    input->skip = 0;
    input->start = input->end = 0;
}

void frame_input_release(struct frame_input *input)
{
    if (frame_input_held(input) == 0)
        frame_input_free(input);
}
