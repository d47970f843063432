/* Whatever stands in a transcript, it is refused with a reason or comes to a hash; and only for the name and
 * the leaf that it shows. */
#include <stdlib.h>
#include <string.h>

#include "keyserver/transcript_check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool within(struct bytes slice, struct bytes whole)
{
    return slice.data == NULL ||
           (slice.data >= whole.data && slice.data + slice.size <= whole.data + whole.size);
}

static void check_slices(const struct transcript *transcript, struct bytes whole)
{
    size_t total = 0;
    for (size_t i = 0; i < transcript->count; i++)
        total += transcript->messages[i].size;
    if (total != whole.size || transcript->count < 4 || !within(transcript->sni, whole) ||
        !within(transcript->alpn, whole) || !within(transcript->certificate.leaf, whole))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static char wildcard[] = "*.example.com", name[] = "a";
    static char *names[] = {wildcard, name};
    struct transcript transcript;
    const char *reason = NULL;
    uint8_t hash[TLS_TRANSCRIPT_HASH_MAX];
    size_t hash_size = 0;
    if (size < 2 || size > 65536)
        return -1;
    struct bytes messages = bytes_of(data + 2, size - 2);
    if (!transcript_parse(messages, &transcript, &reason)) {
        if (reason == NULL)
            abort();
        return 0;
    }
    check_slices(&transcript, messages);
    /* The leaf is the transcript's own, so that a fuzzer gets as far as the names. */
    const struct site_leaf leaf = {
        .der = transcript.certificate.leaf, .not_after = 2, .names = names, .name_count = 2};
    uint16_t scheme = (uint16_t)(data[0] << 8 | data[1]);
    if (!transcript_check(&transcript, scheme, &leaf, 1, &reason)) {
        if (reason == NULL)
            abort();
        return 0;
    }
    (void)transcript_is_for_acme(&transcript);
    if (!transcript_is_for(&transcript, transcript.sni) || !transcript_hash(&transcript, hash, &hash_size) ||
        (hash_size != 32 && hash_size != 48))
        abort();
    return 0;
}
