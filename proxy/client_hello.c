#include "proxy/client_hello.h"

#include <string.h>

#include "common/tls_message.h"

#define SNI_HOST_NAME 0

void client_hello_read_sni(struct client_hello *hello, struct bytes extension)
{
    struct reader from = reader_of(extension);
    struct bytes list, name;
    uint8_t type;
    if (!read_vector16(&from, &list) || !reader_empty(&from))
        return;
    from = reader_of(list);
    /* RFC 6066 allows one name of a type, and there is one type. */
    if (!read_u8(&from, &type) || type != SNI_HOST_NAME || !read_vector16(&from, &name) ||
        !reader_empty(&from))
        return;
    if (name.size == 0 || name.size > sizeof hello->sni || memchr(name.data, '\0', name.size) != NULL)
        return;
    hello->sni_size = name.size;
    memcpy(hello->sni, name.data, name.size);
}

/* The list inside an extension that consists of one list of 16-bit numbers. */
static bool read_numbers(struct bytes extension, struct reader *numbers)
{
    struct reader from = reader_of(extension);
    struct bytes list;
    if (!read_vector16(&from, &list) || !reader_empty(&from))
        return false;
    *numbers = reader_of(list);
    return true;
}

static const uint16_t SCHEMES[] = {
    0x0403, 0x0503, 0x0603, 0x0804, 0x0805, 0x0806, 0x0807, 0x0808, 0x0401, 0x0501, 0x0601,
};
#define SCHEME_COUNT (sizeof SCHEMES / sizeof *SCHEMES)

void client_hello_read_schemes(struct client_hello *hello, struct bytes extension)
{
    struct reader from;
    uint16_t scheme;
    if (!read_numbers(extension, &from))
        return;
    hello->schemes = 0;
    while (read_u16(&from, &scheme)) {
        for (unsigned i = 0; i < SCHEME_COUNT; i++)
            hello->schemes |= SCHEMES[i] == scheme ? 1u << i : 0;
    }
}

uint32_t client_hello_schemes_named(const char *list)
{
    uint32_t bits = 0;
    for (unsigned i = 0; i < SCHEME_COUNT; i++) {
        const char *name = tls_scheme_find(SCHEMES[i])->name;
        size_t size = strlen(name);
        for (const char *word = list; word != NULL; word = strchr(word, ':'), word += word != NULL)
            if (strncmp(word, name, size) == 0 && (word[size] == ':' || word[size] == '\0'))
                bits |= 1u << i;
    }
    return bits;
}

static enum key_type curve_of(uint16_t group)
{
    switch (group) {
    case 0x0017:
        return KEY_TYPE_P256;
    case 0x0018:
        return KEY_TYPE_P384;
    case 0x0019:
        return KEY_TYPE_P521;
    default:
        return KEY_TYPE_NONE;
    }
}

void client_hello_read_groups(struct client_hello *hello, struct bytes extension)
{
    struct reader from;
    uint16_t group;
    if (!read_numbers(extension, &from))
        return;
    hello->has_groups = true;
    hello->curves = 0;
    while (read_u16(&from, &group))
        hello->curves |= 1u << curve_of(group);
}

/* ECDHE with an AEAD (RFC 5289, 7251, 7905). */
static bool is_ecdsa_suite(uint16_t suite)
{
    return suite == 0xc02b || suite == 0xc02c || suite == 0xcca9 || (suite >= 0xc0ac && suite <= 0xc0af);
}

static bool is_rsa_suite(uint16_t suite)
{
    return suite == 0xc02f || suite == 0xc030 || suite == 0xcca8;
}

void client_hello_read_suites(struct client_hello *hello, struct bytes suites)
{
    struct reader from = reader_of(suites);
    uint16_t suite;
    while (read_u16(&from, &suite)) {
        hello->ecdsa = hello->ecdsa || is_ecdsa_suite(suite);
        hello->rsa = hello->rsa || is_rsa_suite(suite);
    }
}

static bool is_ec(enum key_type type)
{
    return type == KEY_TYPE_P256 || type == KEY_TYPE_P384 || type == KEY_TYPE_P521;
}

bool client_hello_verifies(const struct client_hello *hello, enum key_type type, bool tls13)
{
    if (!tls13 && !(type == KEY_TYPE_RSA ? hello->rsa : hello->ecdsa))
        return false;
    /* Before TLS 1.3 the key's curve must be one of the client's groups (RFC 8422 section 5.1). */
    if (!tls13 && is_ec(type) && hello->has_groups && (hello->curves & 1u << type) == 0)
        return false;
    for (unsigned i = 0; i < SCHEME_COUNT; i++) {
        const struct tls_scheme *scheme = tls_scheme_find(SCHEMES[i]);
        if ((hello->schemes & 1u << i) != 0 &&
            (tls13 ? tls_scheme_fits_tls13(scheme, type) : tls_scheme_fits_tls12(scheme, type)))
            return true;
    }
    return false;
}

/* libssl's places for a server's keys. */
static bool same_place(enum key_type a, enum key_type b)
{
    return a == b || (is_ec(a) && is_ec(b));
}

/* Puts a chain among the chosen; where its place is taken the lower key type wins, which is the smaller
 * curve. */
static size_t choose(const struct certificate *chain, const struct certificate **chosen, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!same_place(chosen[i]->key.type, chain->key.type))
            continue;
        if (chain->key.type < chosen[i]->key.type)
            chosen[i] = chain;
        return count;
    }
    chosen[count] = chain;
    return count + 1;
}

size_t client_hello_choose(const struct client_hello *hello, bool tls13,
                           const struct certificate *const *found, size_t count,
                           const struct certificate *chosen[static CERTIFICATES_PER_NAME])
{
    size_t chosen_count = 0;
    for (size_t i = 0; i < count; i++) {
        if (client_hello_verifies(hello, found[i]->key.type, tls13))
            chosen_count = choose(found[i], chosen, chosen_count);
    }
    for (size_t i = 0; chosen_count == 0 && i < count; i++)
        chosen_count = choose(found[i], chosen, chosen_count);
    return chosen_count;
}

static bool is_offered(struct bytes offered, const char *protocol)
{
    struct reader from = reader_of(offered);
    struct bytes name;
    while (read_vector8(&from, &name)) {
        if (bytes_equal(name, bytes_of(protocol, strlen(protocol))))
            return true;
    }
    return false;
}

const char *client_hello_protocol(struct bytes offered, char *const *ours, size_t count, const char *without)
{
    for (size_t i = 0; i < count; i++) {
        bool allowed = without == NULL || strcmp(ours[i], without) != 0;
        if (allowed && is_offered(offered, ours[i]))
            return ours[i];
    }
    return NULL;
}
