/*
 * The receiving half of a channel: octets go in, whole frames come out, none copied. Memory is bounded by one
 * frame, and there is none while nothing is held.
 */
#ifndef KEYLESS_COMMON_FRAME_INPUT_H
#define KEYLESS_COMMON_FRAME_INPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/kssl.h"

/* All zero: empty. */
struct frame_input {
    uint8_t *data;
    size_t capacity;
    size_t start; /* data[start .. end) was filled and not yet taken */
    size_t end;
    size_t high; /* the largest end since data was allocated: what there is to cleanse */
    size_t skip; /* octets still to come of a body that nobody wants */
};

/* Where to put the next octets, and how many fit (never 0).
 * Invalidates bodies handed out. False: no memory. */
MUST_CHECK bool frame_input_room(struct frame_input *input, uint8_t **room, size_t *size);
/* So many were put there. */
void frame_input_filled(struct frame_input *input, size_t size);

/*
 * Takes the next whole frame; false when there is none. body borrows, until the next call of room, clear or
 * release. A frame of another major version is handed out with an empty body as soon as its header is here;
 * then exactly `length` octets are skipped.
 */
MUST_CHECK bool frame_input_next(struct frame_input *input, struct kssl_header *header, struct bytes *body);

/* Whether the end of input now would cut a frame. */
bool frame_input_amid(const struct frame_input *input);
/* Forgets what is held. */
void frame_input_clear(struct frame_input *input);
/* Gives the memory back, but only when it holds nothing. */
void frame_input_release(struct frame_input *input);

#endif
