#include "common/text.h"

#include <stdbool.h>

#include <event2/buffer.h>

/* Characters that no reader sees, or that change the order of what it sees. */
static bool code_point_is_deceptive(uint32_t code)
{
    static const struct {
        uint32_t first, last;
    } RANGES[] = {
        {0x80, 0x9f},     /* C1 controls */
        {0x61c, 0x61c},   /* Arabic letter mark */
        {0x200b, 0x200f}, /* zero widths and directional marks */
        {0x2028, 0x202e}, /* line and paragraph separators, directional embeddings and overrides */
        {0x2060, 0x206f}, /* invisible operators and directional isolates */
        {0xd800, 0xdfff}, /* surrogates: no characters (RFC 3629 section 3) */
        {0xfeff, 0xfeff}, /* byte order mark */
        {0xfff9, 0xfffb}, /* interlinear annotation */
    };
    for (size_t i = 0; i < sizeof RANGES / sizeof *RANGES; i++)
        if (code >= RANGES[i].first && code <= RANGES[i].last)
            return true;
    return false;
}

/* Octets of the multi-octet UTF-8 character in front (RFC 3629 section 4), 0 if there is none to be shown. */
static size_t utf8_size(struct bytes text)
{
    static const uint32_t SMALLEST[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t first = text.data[0];
    size_t size = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
    if (first < 0xc2 || first > 0xf4 || size > text.size)
        return 0;
    uint32_t code = first & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((text.data[i] & 0xc0) != 0x80)
            return 0;
        code = code << 6 | (text.data[i] & 0x3fu);
    }
    return code < SMALLEST[size] || code > 0x10ffff || code_point_is_deceptive(code) ? 0 : size;
}

size_t text_harmless_size(struct bytes text)
{
    if (text.size == 0)
        return 0;
    uint8_t first = text.data[0];
    if (first >= 0x80)
        return utf8_size(text);
    return first >= 0x20 && first != 0x7f && first != '\\' ? 1 : 0;
}

static struct bytes skip(struct bytes text, size_t size)
{
    return bytes_of(text.data + size, text.size - size);
}

void text_write_plain(struct evbuffer *to, struct bytes text)
{
    while (text.size > 0) {
        size_t size = text_harmless_size(text);
        if (size > 0)
            (void)evbuffer_add(to, text.data, size);
        else
            (void)evbuffer_add_printf(to, "\\x%02x", text.data[0]);
        text = skip(text, size > 0 ? size : 1);
    }
}

/* The backslash of an escape is doubled, since a quoted string halves it again. */
void text_write_quoted(struct evbuffer *to, struct bytes text)
{
    (void)evbuffer_add(to, "\"", 1);
    while (text.size > 0) {
        size_t size = text_harmless_size(text);
        if (size == 0)
            (void)evbuffer_add_printf(to, "\\\\x%02x", text.data[0]);
        else if (text.data[0] == '"')
            (void)evbuffer_add(to, "\\\"", 2);
        else
            (void)evbuffer_add(to, text.data, size);
        text = skip(text, size > 0 ? size : 1);
    }
    (void)evbuffer_add(to, "\"", 1);
}
