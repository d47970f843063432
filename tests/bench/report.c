#include "tests/bench/report.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/bench/cpu.h"

static const struct {
    const char *name;
    double percent;
} PERCENTILES[] = {{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}, {"max", 100}};

static void start_clock(struct bench_run *run)
{
    run->cpu_known = run->limits->pid != 0 && cpu_time_of(run->limits->pid, &run->cpu_began);
    run->began = clock_now();
}

void bench_begin(struct bench_run *run, const struct bench_limits *limits, const char *what)
{
    memset(run, 0, sizeof *run);
    run->limits = limits;
    run->what = what;
    if (limits->warm_up == 0)
        start_clock(run);
}

void bench_done(struct bench_run *run, uint64_t microseconds)
{
    if (run->began == 0) {
        if (++run->warmed >= run->limits->warm_up)
            start_clock(run);
        return;
    }
    histogram_add(&run->latency, microseconds);
}

void bench_answered(struct bench_run *run, uint64_t microseconds, uint64_t first_octet)
{
    if (run->began != 0)
        histogram_add(&run->first_octet, first_octet);
    bench_done(run, microseconds);
}

void bench_failed(struct bench_run *run, const char *reason)
{
    if (run->failed++ == 0)
        (void)snprintf(run->first_failure, sizeof run->first_failure, "%s", reason);
    if (run->began == 0)
        bench_done(run, 0);
}

bool bench_goes_on(const struct bench_run *run)
{
    const struct bench_limits *limits = run->limits;
    if (run->began == 0)
        return true;
    if (limits->count != 0 && run->latency.count + run->failed >= limits->count)
        return false;
    return limits->seconds == 0 || clock_now() - run->began < limits->seconds * 1000000u;
}

void bench_progress(const struct bench_run *run)
{
    if (run->limits->quiet || run->limits->json || !isatty(STDERR_FILENO))
        return;
    (void)fprintf(stderr, "\r%" PRIu64 " %s, %" PRIu64 " failed, p50 %" PRIu64 " us   ", run->latency.count,
                  run->what, run->failed, histogram_percentile(&run->latency, 50));
}

void bench_end(struct bench_run *run)
{
    run->ended = clock_now();
    if (run->cpu_known)
        run->cpu_known = cpu_time_of(run->limits->pid, &run->cpu_ended);
    if (!run->limits->quiet && !run->limits->json && isatty(STDERR_FILENO))
        (void)fputc('\n', stderr);
}

static double seconds_of(const struct bench_run *run)
{
    return (double)(run->ended - run->began) / 1e6;
}

/* Failed operations cost the server too, so they count. */
static double cpu_per_operation(const struct bench_run *run)
{
    uint64_t operations = run->latency.count + run->failed;
    return operations == 0 ? 0 : (double)(run->cpu_ended - run->cpu_began) / 1000.0 / (double)operations;
}

static void print_json(const char *key, const struct histogram *histogram)
{
    (void)printf(", \"%s\": {\"mean\": %.1f", key, histogram_mean(histogram));
    for (size_t i = 0; i < sizeof PERCENTILES / sizeof *PERCENTILES; i++)
        (void)printf(", \"%s\": %" PRIu64, PERCENTILES[i].name,
                     histogram_percentile(histogram, PERCENTILES[i].percent));
    (void)printf("}");
}

static void print_text(const char *what, const struct histogram *histogram)
{
    (void)printf("%s, microseconds:", what);
    for (size_t i = 0; i < sizeof PERCENTILES / sizeof *PERCENTILES; i++)
        (void)printf("  %s %" PRIu64, PERCENTILES[i].name,
                     histogram_percentile(histogram, PERCENTILES[i].percent));
    (void)printf("\n");
}

static void report_json(const struct bench_run *run, const char *detail)
{
    (void)printf("{\"what\": \"%s\", \"done\": %" PRIu64 ", \"failed\": %" PRIu64
                 ", \"seconds\": %.3f, \"rate\": %.1f",
                 run->what, run->latency.count, run->failed, seconds_of(run),
                 (double)run->latency.count / seconds_of(run));
    print_json("latency_us", &run->latency);
    if (run->first_octet.count != 0)
        print_json("first_octet_us", &run->first_octet);
    if (run->cpu_known)
        (void)printf(", \"cpu_us\": %.1f", cpu_per_operation(run));
    if (detail != NULL)
        (void)printf(", %s", detail);
    (void)printf("}\n");
}

static void report_text(const struct bench_run *run)
{
    (void)printf("%" PRIu64 " %s in %.2f s: %.0f a second, %" PRIu64 " failed\n", run->latency.count,
                 run->what, seconds_of(run), (double)run->latency.count / seconds_of(run), run->failed);
    print_text("latency", &run->latency);
    if (run->first_octet.count != 0)
        print_text("first octet of the answer", &run->first_octet);
    if (run->cpu_known)
        (void)printf("CPU of process %d and its children: %.1f us an operation\n", (int)run->limits->pid,
                     cpu_per_operation(run));
}

int bench_report(const struct bench_run *run, const char *detail)
{
    if (run->limits->json)
        report_json(run, detail);
    else
        report_text(run);
    if (run->failed > 0)
        (void)fprintf(stderr, "first failure: %s\n", run->first_failure);
    return run->failed == 0 && run->latency.count > 0 ? 0 : 1;
}
