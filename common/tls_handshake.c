#include "common/tls_handshake.h"

#include <string.h>

#define SESSION_ID_MAX 32
/* Of a Certificate: no chain is longer, and each costs a look for extensions that stand twice. */
#define ENTRIES_MAX 32

bool tls_handshake_read(struct reader *from, struct tls_handshake *message)
{
    struct reader start = *from;
    const uint8_t *at = from->next;
    if (!read_u8(from, &message->type) || !read_vector24(from, &message->body)) {
        *from = start;
        return false;
    }
    message->whole = bytes_of(at, start.left - from->left);
    return true;
}

/* ---- Extensions. */

bool tls_extension_read(struct reader *from, uint16_t *type, struct bytes *content)
{
    return read_u16(from, type) && read_vector16(from, content);
}

/* One bit for each type there can be, since a hello may hold thousands of extensions. Most lists have none
 * but the first 64, and the other bits are only cleared where they are used. */
static bool extensions_valid(struct bytes list)
{
    uint64_t seen[65536 / 64];
    size_t clear = 1;
    seen[0] = 0;
    struct reader from = reader_of(list);
    while (!reader_empty(&from)) {
        uint16_t type;
        struct bytes content;
        if (!tls_extension_read(&from, &type, &content))
            return false;
        if (type / 64 >= clear) {
            memset(seen + clear, 0, sizeof seen - clear * sizeof *seen);
            clear = sizeof seen / sizeof *seen;
        }
        uint64_t bit = UINT64_C(1) << (type % 64);
        if ((seen[type / 64] & bit) != 0)
            return false;
        seen[type / 64] |= bit;
    }
    return true;
}

static bool read_extensions(struct reader *from, struct bytes *list)
{
    return read_vector16(from, list) && extensions_valid(*list);
}

bool tls_extension_find(struct bytes list, uint16_t type, struct bytes *content)
{
    struct reader from = reader_of(list);
    uint16_t next;
    while (tls_extension_read(&from, &next, content)) {
        if (next == type)
            return true;
    }
    *content = bytes_of(NULL, 0);
    return false;
}

static bool numbers_valid(const struct reader *from, struct bytes numbers)
{
    return reader_empty(from) && numbers.size > 0 && numbers.size % 2 == 0;
}

bool tls_numbers8_parse(struct bytes content, struct bytes *numbers)
{
    struct reader from = reader_of(content);
    return read_vector8(&from, numbers) && numbers_valid(&from, *numbers);
}

bool tls_numbers16_parse(struct bytes content, struct bytes *numbers)
{
    struct reader from = reader_of(content);
    return read_vector16(&from, numbers) && numbers_valid(&from, *numbers);
}

bool tls_numbers_hold(struct bytes numbers, uint16_t wanted)
{
    struct reader from = reader_of(numbers);
    uint16_t number;
    while (read_u16(&from, &number)) {
        if (number == wanted)
            return true;
    }
    return false;
}

bool tls_number_parse(struct bytes content, uint16_t *number)
{
    struct reader from = reader_of(content);
    return read_u16(&from, number) && reader_empty(&from);
}

bool tls_server_name_parse(struct bytes content, struct bytes *name)
{
    const uint8_t host_name = 0;
    struct reader from = reader_of(content);
    struct bytes list;
    uint8_t type;
    if (!read_vector16(&from, &list) || !reader_empty(&from))
        return false;
    from = reader_of(list);
    return read_u8(&from, &type) && type == host_name && read_vector16(&from, name) && reader_empty(&from) &&
           name->size > 0;
}

bool tls_protocols_parse(struct bytes content, struct bytes *names)
{
    struct reader from = reader_of(content);
    struct bytes name;
    if (!read_vector16(&from, names) || !reader_empty(&from) || names->size == 0)
        return false;
    from = reader_of(*names);
    while (!reader_empty(&from)) {
        if (!read_vector8(&from, &name) || name.size == 0)
            return false;
    }
    return true;
}

bool tls_protocols_hold(struct bytes names, struct bytes wanted)
{
    struct reader from = reader_of(names);
    struct bytes name;
    while (read_vector8(&from, &name)) {
        if (bytes_equal(name, wanted))
            return true;
    }
    return false;
}

bool tls_protocol_chosen(struct bytes content, struct bytes *name)
{
    struct bytes names;
    if (!tls_protocols_parse(content, &names))
        return false;
    struct reader from = reader_of(names);
    return read_vector8(&from, name) && reader_empty(&from);
}

static bool read_key_share(struct reader *from, uint16_t *group)
{
    struct bytes share;
    return read_u16(from, group) && read_vector16(from, &share) && share.size > 0;
}

bool tls_key_shares_parse(struct bytes content, struct bytes *shares)
{
    struct reader from = reader_of(content);
    if (!read_vector16(&from, shares) || !reader_empty(&from))
        return false;
    from = reader_of(*shares);
    while (!reader_empty(&from)) {
        uint16_t group;
        if (!read_key_share(&from, &group))
            return false;
    }
    return true;
}

size_t tls_key_shares_count(struct bytes shares, uint16_t group, size_t *found)
{
    struct reader from = reader_of(shares);
    size_t count = 0;
    uint16_t next;
    *found = 0;
    for (; read_key_share(&from, &next); count++)
        *found += next == group ? 1 : 0;
    return count;
}

bool tls_key_share_chosen(struct bytes content, uint16_t *group)
{
    struct reader from = reader_of(content);
    return read_key_share(&from, group) && reader_empty(&from);
}

/* ---- Messages. */

bool tls_client_hello_parse(struct bytes body, struct tls_client_hello *hello)
{
    struct reader from = reader_of(body);
    return read_u16(&from, &hello->legacy_version) && read_bytes(&from, TLS_RANDOM_SIZE, &hello->random) &&
           read_vector8(&from, &hello->session_id) && hello->session_id.size <= SESSION_ID_MAX &&
           read_vector16(&from, &hello->suites) && hello->suites.size > 0 && hello->suites.size % 2 == 0 &&
           read_vector8(&from, &hello->compression) && hello->compression.size > 0 &&
           read_extensions(&from, &hello->extensions) && reader_empty(&from);
}

/* SHA-256 of "HelloRetryRequest". */
static const uint8_t RETRY_RANDOM[TLS_RANDOM_SIZE] = {
    0xCF, 0x21, 0xAD, 0x74, 0xE5, 0x9A, 0x61, 0x11, 0xBE, 0x1D, 0x8C, 0x02, 0x1E, 0x65, 0xB8, 0x91,
    0xC2, 0xA2, 0x11, 0x16, 0x7A, 0xBB, 0x8C, 0x5E, 0x07, 0x9E, 0x09, 0xE2, 0xC8, 0xA8, 0x33, 0x9C,
};

bool tls_server_hello_parse(struct bytes body, struct tls_server_hello *hello)
{
    struct reader from = reader_of(body);
    if (!read_u16(&from, &hello->legacy_version) || !read_bytes(&from, TLS_RANDOM_SIZE, &hello->random))
        return false;
    hello->retry = memcmp(hello->random.data, RETRY_RANDOM, TLS_RANDOM_SIZE) == 0;
    return read_vector8(&from, &hello->session_id) && hello->session_id.size <= SESSION_ID_MAX &&
           read_u16(&from, &hello->suite) && read_u8(&from, &hello->compression) &&
           read_extensions(&from, &hello->extensions) && reader_empty(&from);
}

bool tls_encrypted_extensions_parse(struct bytes body, struct bytes *extensions)
{
    struct reader from = reader_of(body);
    return read_extensions(&from, extensions) && reader_empty(&from);
}

bool tls_certificate_request_parse(struct bytes body, struct tls_certificate_request *request)
{
    struct reader from = reader_of(body);
    return read_vector8(&from, &request->context) && read_extensions(&from, &request->extensions) &&
           reader_empty(&from);
}

bool tls_certificate_entry_read(struct reader *from, struct bytes *data, struct bytes *extensions)
{
    return read_vector24(from, data) && data->size > 0 && read_extensions(from, extensions);
}

bool tls_certificate_parse(struct bytes body, struct tls_certificate *certificate)
{
    struct reader from = reader_of(body);
    struct bytes data, extensions;
    if (!read_vector8(&from, &certificate->context) || !read_vector24(&from, &certificate->entries) ||
        !reader_empty(&from))
        return false;
    from = reader_of(certificate->entries);
    if (!tls_certificate_entry_read(&from, &certificate->leaf, &extensions))
        return false;
    for (size_t i = 1; i < ENTRIES_MAX && !reader_empty(&from); i++) {
        if (!tls_certificate_entry_read(&from, &data, &extensions))
            return false;
    }
    return reader_empty(&from);
}
