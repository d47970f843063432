/* Contents to be signed and the payloads that carry them: whatever parses is written again, octet for octet.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/kssl.h"
#include "common/tls_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OUTPUT_MAX 4096

static void demand(bool holds)
{
    if (!holds)
        abort();
}

static void demand_wrote(const struct writer *to, struct bytes expected)
{
    demand(writer_ok(to) && bytes_equal(writer_bytes(to), expected));
}

static void certificate_verify(struct bytes input, struct writer to)
{
    struct bytes hash;
    if (tls_certificate_verify_parse(input, &hash)) {
        demand(hash.size == 32 || hash.size == 48);
        demand(tls_certificate_verify_write(&to, hash));
        demand_wrote(&to, input);
    }
}

/* The prefix is not easily guessed: the same from the other end. */
static void certificate_verify_of_hash(struct bytes input, struct writer to)
{
    struct bytes hash;
    if (tls_certificate_verify_write(&to, input)) {
        demand(tls_certificate_verify_parse(writer_bytes(&to), &hash));
        demand(bytes_equal(hash, input));
    } else {
        demand(input.size != 32 && input.size != 48);
    }
}

static void demand_params(const struct tls_server_key_exchange *parts)
{
    demand(parts->point.size + 4 == parts->params.size && parts->params.data[0] == 3);
    demand(parts->group == (parts->params.data[1] << 8 | parts->params.data[2]));
    demand(!tls_random_has_downgrade_11(parts->server_random) ||
           !tls_random_has_downgrade_12(parts->server_random));
    if (tls_ecdh_point_valid(parts->group, parts->point) && parts->point.size % 2 == 1)
        demand(parts->point.data[0] == 4);
}

static void server_key_exchange(struct bytes input, struct writer to)
{
    struct tls_server_key_exchange parts;
    if (tls_server_key_exchange_parse(input, &parts)) {
        demand_params(&parts);
        demand(tls_server_key_exchange_write(&to, &parts));
        demand_wrote(&to, input);
    }
}

static void demand_scheme(uint16_t code)
{
    const struct tls_scheme *scheme = tls_scheme_find(code);
    demand(scheme == NULL || scheme->code == code);
    for (int type = KEY_TYPE_NONE; type <= KEY_TYPE_ED448; type++)
        demand(!tls_scheme_fits_tls13(scheme, (enum key_type)type) ||
               tls_scheme_fits_tls12(scheme, (enum key_type)type));
}

static void sign_tls13(struct bytes input, struct writer to)
{
    struct kssl_sign_tls13 request;
    if (kssl_sign_tls13_parse(input, &request)) {
        demand_scheme(request.scheme);
        kssl_sign_tls13_write(&to, &request);
        demand_wrote(&to, input);
    }
}

static void sign_tls12(struct bytes input, struct writer to)
{
    struct kssl_sign_tls12 request;
    bool valid;
    if (!kssl_sign_tls12_parse(input, &request, &valid))
        return;
    demand_scheme(request.scheme);
    if (valid)
        demand_params(&request.parts);
    else
        demand(request.parts.point.data == NULL && request.parts.group == 0);
    kssl_sign_tls12_write(&to, &request);
    demand_wrote(&to, input);
}

static void hello(struct bytes input, struct writer to)
{
    struct kssl_hello message;
    if (!kssl_hello_parse(input, &message))
        return;
    for (size_t i = 0; i < message.opcodes.size; i++)
        demand(kssl_hello_offers(&message, message.opcodes.data[i]));
    kssl_hello_write(&to, &message);
    demand(writer_ok(&to) && to.size <= input.size);
    demand_wrote(&to, bytes_of(input.data, to.size)); /* what follows is ignored */
}

static void list_entries(struct bytes input, struct writer to)
{
    struct reader from = reader_of(input);
    struct kssl_list_entry entry;
    while (kssl_list_entry_read(&from, &entry)) {
        size_t type_at = to.size + KEY_ID_SKI_SIZE;
        kssl_list_entry_write(&to, &entry);
        if (!writer_ok(&to))
            return;
        if (entry.type == KEY_TYPE_NONE) /* a type that we do not know is not kept */
            to.data[type_at] = input.data[type_at];
    }
    demand_wrote(&to, bytes_of(input.data, input.size - from.left));
}

static void timing(struct bytes input, struct writer to)
{
    struct kssl_timing times;
    if (kssl_timing_parse(input, &times)) {
        kssl_timing_write(&to, &times);
        demand_wrote(&to, input);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const ROUND_TRIPS[])(struct bytes input, struct writer to) = {
        certificate_verify,  certificate_verify_of_hash,
        server_key_exchange, sign_tls13,
        sign_tls12,          hello,
        list_entries,        timing,
    };
    uint8_t octets[OUTPUT_MAX];
    for (size_t i = 0; i < sizeof ROUND_TRIPS / sizeof *ROUND_TRIPS; i++)
        ROUND_TRIPS[i](bytes_of(data, size), writer_of(octets, sizeof octets));
    return 0;
}
