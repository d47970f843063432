/*
 * A stream of frames cut into reads anywhere gives the same frames as the stream in one piece; frames sent on
 * come out as the same stream, in writes that keep the record rule.
 */
#include <stdlib.h>
#include <string.h>

#include "common/frame_input.h"
#include "common/frame_output.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
    if (!holds)
        abort();
}

/* The next frame by the rule of the format alone. A body of another version is not handed out. */
static bool expect(struct reader *stream, struct kssl_header *header, struct bytes *body)
{
    struct bytes octets;
    if (!read_bytes(stream, KSSL_HEADER_SIZE, &octets))
        return false;
    kssl_header_parse(octets.data, header);
    if (header->major == KSSL_MAJOR)
        return read_bytes(stream, header->length, body);
    *body = bytes_of(NULL, 0);
    size_t skipped = header->length < stream->left ? header->length : stream->left;
    return read_bytes(stream, skipped, &octets);
}

static void send_on(struct frame_output *output, const struct kssl_header *header, struct bytes body)
{
    uint8_t frame[KSSL_FRAME_MAX];
    struct writer to = writer_of(frame, sizeof frame);
    write_u8(&to, KSSL_MAJOR);
    write_u8(&to, header->minor);
    write_u16(&to, (uint16_t)body.size);
    write_u32(&to, header->id);
    write_bytes(&to, body);
    demand(frame_output_whole(writer_bytes(&to)));
    demand(frame_output_append(output, writer_bytes(&to)));
}

/* Takes one write in two parts, as a socket that is nearly full would; it must keep to whole frames. */
static void take_chunk(struct frame_output *output, uint8_t cut, size_t *long_left)
{
    struct bytes chunk = frame_output_chunk(output);
    demand(chunk.size > 0 && chunk.size <= KSSL_RECORD_MAX && chunk.size <= output->size);
    if (*long_left > 0) {
        demand(chunk.size == (*long_left < KSSL_RECORD_MAX ? *long_left : KSSL_RECORD_MAX));
        *long_left -= chunk.size;
    } else {
        struct reader inside = reader_of(chunk);
        struct kssl_header header;
        struct bytes octets;
        while (read_bytes(&inside, KSSL_HEADER_SIZE, &octets)) {
            kssl_header_parse(octets.data, &header);
            if (read_bytes(&inside, header.length, &octets))
                continue;
            demand(octets.data == chunk.data && chunk.size == KSSL_RECORD_MAX);
            *long_left = KSSL_HEADER_SIZE + (size_t)header.length - chunk.size;
            break;
        }
        demand(*long_left > 0 || reader_empty(&inside));
    }
    size_t first = chunk.size * cut / 256;
    if (first > 0 && first < chunk.size) {
        frame_output_taken(output, first);
        struct bytes rest = frame_output_chunk(output);
        demand(rest.size == chunk.size - first);
        chunk = rest;
    }
    frame_output_taken(output, chunk.size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4)
        return -1;
    const uint8_t *cuts = data;
    struct bytes stream = bytes_of(data + 4, size - 4);
    struct reader expected = reader_of(stream);
    struct frame_input input = {0};
    struct frame_output output = {0};
    struct kssl_header header, wanted;
    struct bytes body, wanted_body;
    size_t long_left = 0;
    for (size_t at = 0, turn = 0; at < stream.size; turn++) {
        uint8_t *room;
        size_t fits;
        demand(frame_input_room(&input, &room, &fits));
        demand(fits > 0 && input.capacity <= KSSL_FRAME_MAX);
        size_t piece = 1 + (size_t)cuts[turn % 4] * cuts[(turn + 1) % 4];
        piece = piece < fits ? piece : fits;
        piece = piece < stream.size - at ? piece : stream.size - at;
        memcpy(room, stream.data + at, piece);
        frame_input_filled(&input, piece);
        at += piece;
        while (frame_input_next(&input, &header, &body)) {
            demand(expect(&expected, &wanted, &wanted_body));
            demand(header.id == wanted.id && header.major == wanted.major && header.length == wanted.length);
            demand(bytes_equal(body, wanted_body));
            send_on(&output, &header, body);
        }
        if (output.size > 0 && cuts[turn % 4] % 2 == 0)
            take_chunk(&output, cuts[(turn + 2) % 4], &long_left);
    }
    demand(!expect(&expected, &wanted, &wanted_body));
    while (output.size > 0)
        take_chunk(&output, cuts[3], &long_left);
    demand(long_left == 0);
    frame_output_release(&output);
    frame_input_clear(&input);
    frame_input_release(&input);
    return 0;
}
