#include "proxy/certificate_expiry.h"

#include <stdlib.h>

#define LINES_MAX 20
#define DAY       86400
#define SECOND    UINT64_C(1000000)

static int by_end(const void *a, const void *b)
{
    const struct certificate *const *one = a, *const *other = b;
    return ((*one)->not_after > (*other)->not_after) - ((*one)->not_after < (*other)->not_after);
}

static void tell(const struct certificate *certificate, time_t now, struct log *log)
{
    if (certificate->not_after < now)
        log_warn(log, "certificate shown has expired", log_text("file", certificate->path));
    else
        log_warn(log, "certificate expires soon", log_text("file", certificate->path),
                 log_text("name", certificate->names),
                 log_number("days", (int64_t)(certificate->not_after - now) / DAY));
}

void certificate_expiry_warn(const struct certificates *certificates, uint64_t within, time_t now,
                             struct log *log)
{
    const time_t until = now + (time_t)(within / SECOND);
    const size_t count = certificates_count(certificates);
    const struct certificate **ending = within > 0 ? calloc(count + 1, sizeof(struct certificate *)) : NULL;
    size_t found = 0;
    if (ending == NULL)
        return;
    for (size_t i = 0; i < count; i++) {
        const struct certificate *certificate = certificates_at(certificates, i);
        if (certificate->not_after <= until && certificates_serve(certificates, certificate))
            ending[found++] = certificate;
    }
    qsort(ending, found, sizeof(struct certificate *), by_end);
    for (size_t i = 0; i < found && i < LINES_MAX; i++)
        tell(ending[i], now, log);
    if (found > LINES_MAX)
        log_warn(log, "more certificates expire soon", log_number("count", (int64_t)(found - LINES_MAX)));
    free(ending);
}
