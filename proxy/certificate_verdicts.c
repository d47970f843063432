#include "proxy/certificate_verdicts.h"

#include <stdlib.h>

#include "proxy/certificates_private.h"

static uint32_t mark_of(const struct certificate *certificate)
{
    struct reader from = reader_of(bytes_of(certificate->mark, sizeof certificate->mark));
    uint32_t mark = 0;
    (void)!read_u32(&from, &mark);
    return mark;
}

uint64_t certificate_place(const struct certificate *certificate)
{
    return (uint64_t)certificate->index << 32 | mark_of(certificate);
}

static bool is_listed(const struct certificates *certificates, const struct certificate *certificate)
{
    return certificate->index < certificates->count && certificates->list[certificate->index] == certificate;
}

enum certificate_verdict certificates_verdict(const struct certificates *certificates,
                                              const struct certificate *certificate)
{
    return is_listed(certificates, certificate)
               ? (enum certificate_verdict)certificates->verdicts[certificate->index]
               : certificate->verdict;
}

bool certificates_judge(struct certificates *certificates, uint64_t place, bool is_signed)
{
    const size_t index = (size_t)(place >> 32);
    if (index >= certificates->count || certificate_place(certificates->list[index]) != place)
        return false;
    bool was_kept_out = certificates->verdicts[index] == CERTIFICATE_KEPT_OUT;
    certificates->verdicts[index] = is_signed ? CERTIFICATE_GOOD : CERTIFICATE_KEPT_OUT;
    return was_kept_out == is_signed;
}

void certificates_verdict_begin(struct certificates *certificates, size_t index)
{
    certificates->verdicts[index] = (uint8_t)certificates->list[index]->verdict;
    if (index < certificates->tried)
        certificates->tried = index;
}

size_t certificates_untried_count(const struct certificates *certificates)
{
    size_t count = 0;
    for (size_t i = certificates->tried; i < certificates->count; i++)
        count += certificates->verdicts[i] == CERTIFICATE_UNTRIED;
    return count;
}

const struct certificate *certificates_untried(struct certificates *certificates)
{
    size_t *at = &certificates->tried;
    while (*at < certificates->count && certificates->verdicts[*at] != CERTIFICATE_UNTRIED)
        (*at)++;
    return *at < certificates->count ? certificates->list[*at] : NULL;
}
