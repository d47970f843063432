/* A frame from anybody: what parses is written again, and must then say the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/kssl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void demand(bool holds)
{
    if (!holds)
        abort();
}

static void demand_within(struct bytes slice, struct bytes body)
{
    if (slice.data == NULL)
        demand(slice.size == 0);
    else
        demand(slice.data >= body.data && slice.size <= body.size &&
               slice.data - body.data <= (ptrdiff_t)(body.size - slice.size));
}

/* Equal, and the one present where the other is. */
static void demand_same(struct bytes a, struct bytes b)
{
    demand((a.data == NULL) == (b.data == NULL) && bytes_equal(a, b));
}

static void demand_same_items(const struct kssl_message *a, const struct kssl_message *b)
{
    demand(a->has_opcode == b->has_opcode && a->opcode == b->opcode);
    demand_same(a->payload, b->payload);
    demand_same(a->sni, b->sni);
    demand_same(a->client_ip, b->client_ip);
    demand_same(a->server_ip, b->server_ip);
    demand_same(a->ski, b->ski);
    demand_same(a->digest, b->digest);
    demand_same(a->certificate_id, b->certificate_id);
    demand_same(a->function, b->function);
    demand_same(a->extra, b->extra);
    demand_same(a->trace, b->trace);
}

static void demand_limits(const struct kssl_message *message, struct bytes body)
{
    const struct bytes slices[] = {
        message->payload, message->sni,   message->client_ip, message->server_ip, message->ski,
        message->digest,  message->extra, message->trace,     message->function,  message->certificate_id};
    for (size_t i = 0; i < sizeof slices / sizeof *slices; i++)
        demand_within(slices[i], body);
    demand(message->ski.data == NULL || message->ski.size == KEY_ID_SKI_SIZE);
    demand(message->digest.data == NULL || message->digest.size == KEY_ID_DIGEST_SIZE);
    demand(message->client_ip.data == NULL || message->client_ip.size == 4 || message->client_ip.size == 16);
    demand(message->server_ip.data == NULL || message->server_ip.size == 4 || message->server_ip.size == 16);
}

static void write_and_read_again(uint32_t id, const struct kssl_message *message)
{
    static uint8_t octets[KSSL_FRAME_MAX];
    struct writer to = writer_of(octets, sizeof octets);
    struct kssl_header header;
    struct kssl_message again;
    demand(kssl_message_write(&to, id, message));
    kssl_header_parse(octets, &header);
    demand(header.major == KSSL_MAJOR && header.minor == 0 && header.id == id);
    demand(to.size >= KSSL_PAD_TO && to.size == KSSL_HEADER_SIZE + (size_t)header.length);
    demand(kssl_body_parse(bytes_of(octets + KSSL_HEADER_SIZE, header.length), &again, NULL) == RESULT_OK);
    demand_same_items(message, &again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct kssl_header header;
    struct kssl_message message;
    struct failure why = {0};
    if (size < KSSL_HEADER_SIZE)
        return 0;
    kssl_header_parse(data, &header);
    size_t left = size - KSSL_HEADER_SIZE;
    struct bytes body = bytes_of(data + KSSL_HEADER_SIZE, header.length < left ? header.length : left);
    enum result result = kssl_body_parse(body, &message, &why);
    demand(result == RESULT_OK || (result == RESULT_PROTOCOL && why.text[0] != '\0'));
    if (result == RESULT_OK) {
        demand_limits(&message, body);
        write_and_read_again(header.id, &message);
    }
    return 0;
}
