/* What both programs tell of themselves at the admin endpoint, beside what is theirs alone. */
#ifndef KEYLESS_COMMON_PROGRAM_STATUS_H
#define KEYLESS_COMMON_PROGRAM_STATUS_H

#include <stddef.h>
#include <time.h>

#include <openssl/x509.h>

#include "common/json.h"
#include "common/metrics.h"
#include "common/result.h"
#include "common/status_area.h"

/* What outlives a reading of the configuration; the master's, inherited by its children. */
struct program {
    const char *name; /* "proxy" */
    time_t started;   /* the master */
    struct metrics *metrics;
    struct status_area *processes; /* of process_status_new */
};

MUST_CHECK enum result program_init(struct program *program, const char *name, const struct metric *table,
                                    size_t count, struct failure *why);
void program_clear(struct program *program);

/* Members of the object that json is in: program, versions, times, generation, processes. Called in a child
 * of the master. */
void program_status_write(const struct program *program, unsigned generation, struct json *json);

/* Build, start, and how many children of each kind are ready. */
void program_metrics_write(const struct program *program, const char *const *kinds, size_t count,
                           struct evbuffer *to);

/* When the certificate ends; 0: at no time that can be told. */
time_t certificate_not_after(const X509 *certificate);

#endif
