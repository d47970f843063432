#include "common/program_status.h"

#include <unistd.h>

#include <event2/event.h>
#include <openssl/crypto.h>

#include "common/process_status.h"

#define STARTED "process_start_time_seconds"

enum result program_init(struct program *program, const char *name, const struct metric *table, size_t count,
                         struct failure *why)
{
    *program = (struct program){.name = name, .started = time(NULL)};
    enum result result = metrics_new(table, count, &program->metrics, why);
    if (result == RESULT_OK)
        result = process_status_new(&program->processes, why);
    if (result != RESULT_OK)
        program_clear(program);
    return result;
}

void program_clear(struct program *program)
{
    metrics_free(program->metrics);
    status_area_free(program->processes);
    *program = (struct program){.name = program->name};
}

void program_status_write(const struct program *program, unsigned generation, struct json *json)
{
    time_t now = time(NULL);
    json_text(json, "program", program->name);
    json_text(json, "version", KEYLESS_VERSION);
    json_text(json, "openssl", OpenSSL_version(OPENSSL_VERSION_STRING));
    json_text(json, "libevent", event_get_version());
    json_number(json, "pid", getppid());
    json_time(json, "time", now);
    json_time(json, "started", program->started);
    json_number(json, "uptime_seconds", now - program->started);
    json_number(json, "generation", generation);
    process_status_write(program->processes, json);
}

void program_metrics_write(const struct program *program, const char *const *kinds, size_t count,
                           struct evbuffer *to)
{
    const struct metric_label build[] = {{"version", KEYLESS_VERSION},
                                         {"openssl", OpenSSL_version(OPENSSL_VERSION_STRING)},
                                         {"libevent", event_get_version()}};
    metrics_write_head(to, "keyless_build_info", METRIC_GAUGE, "1, with the versions that are running.");
    metrics_write_line(to, "keyless_build_info", build, sizeof build / sizeof *build, 1);
    metrics_write_head(to, STARTED, METRIC_GAUGE, "When the program was started, in Unix seconds.");
    metrics_write_line(to, STARTED, NULL, 0, program->started);
    metrics_write_head(to, "keyless_children_ready", METRIC_GAUGE,
                       "Child processes that are ready and alive, by kind.");
    for (size_t i = 0; i < count; i++) {
        const struct metric_label kind = {"kind", kinds[i]};
        metrics_write_line(to, "keyless_children_ready", &kind, 1,
                           process_status_count(program->processes, kinds[i], CHILD_READY, 0));
    }
}

time_t certificate_not_after(const X509 *certificate)
{
    struct tm end;
    if (certificate == NULL || ASN1_TIME_to_tm(X509_get0_notAfter(certificate), &end) != 1)
        return 0;
    return timegm(&end);
}
