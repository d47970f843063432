/*
 * The sending half of a channel: whole frames go in, writes come out, cut so that a frame of up to 16,384
 * octets lies within one TLS record and a longer one starts a record of its own (deployed peers read a header
 * and a body with one read each).
 */
#ifndef KEYLESS_COMMON_FRAME_OUTPUT_H
#define KEYLESS_COMMON_FRAME_OUTPUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/kssl.h"

/* All zero: empty. */
struct frame_output {
    uint8_t *data;
    size_t capacity;
    size_t start; /* data[start .. start + size) is to be sent */
    size_t size;
    size_t high;  /* the largest start + size since data was allocated: what there is to cleanse */
    size_t chunk; /* what is left of the write handed out last */
    size_t frame; /* what is left of a long frame behind that write */
};

/* Whether these octets are one frame: as long as the header says. */
bool frame_output_whole(struct bytes frame);
/* Copies one whole frame behind the others. False: no memory. */
MUST_CHECK bool frame_output_append(struct frame_output *output, struct bytes frame);

/* The next write, 1 to 16,384 octets; the same (though perhaps
 * elsewhere in memory) until it is taken. Not when empty. */
struct bytes frame_output_chunk(struct frame_output *output);
/* So many octets of the chunk have been written. */
void frame_output_taken(struct frame_output *output, size_t size);

/* Gives the memory back; what was queued is lost. */
void frame_output_release(struct frame_output *output);

#endif
