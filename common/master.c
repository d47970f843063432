#include "common/process_private.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/wait.h>

#include "common/clock.h"

/* ---- Time and numbers */

uint64_t master_now(struct master *master)
{
    uint64_t now = clock_now();
    uint64_t passed = now - master->clock_read;
    master->clock_read = now;
    master->clock += passed < MASTER_CLOCK_STEP ? passed : MASTER_CLOCK_STEP;
    return master->clock;
}

void master_count(struct master *master, size_t metric, uint64_t amount)
{
    metric_add(master->row, master->program->first_metric + metric, amount);
}

void master_gauge(struct master *master, size_t metric, int64_t by)
{
    metric_change(master->row, master->program->first_metric + metric, by);
}

struct metrics_row *master_metrics(const struct master *master)
{
    return master->row;
}

/* ---- What the program tells its children */

static void tell_generation(const struct generation *generation, const struct child_message *message)
{
    for (size_t i = 0; i < generation->slot_count; i++) {
        const struct slot *slot = &generation->slots[i];
        bool meant = slot->kind == message->kind &&
                     (message->index == MASTER_TELL_ALL || message->index == slot->index);
        if (meant && slot->process != NULL && slot->process->state <= PROCESS_READY)
            process_tell(slot->process, MESSAGE_TOLD, message->what, message->number, message->descriptor);
    }
}

void master_tell(struct master *master, const void *config, const struct child_message *message)
{
    for (const struct generation *at = master->generations; at != NULL; at = at->next)
        if (at->plan.config == config && at->state != GENERATION_DRAINING)
            tell_generation(at, message);
}

/* ---- The service manager */

/* In time to be heard before half of the interval has passed. */
#define WATCHDOG_SIGNS 3

static void tell_hunger(struct master *master, const char *dead)
{
    if (dead != NULL && !master->watchdog_starves)
        log_warn(master->log, "watchdog starves", log_text("kind", dead),
                 log_reason("no child of this kind works"));
    if (dead == NULL && master->watchdog_starves)
        log_info(master->log, "watchdog fed again");
    master->watchdog_starves = dead != NULL;
}

/* Only while children of every kind do their work. Before and after there is a generation at work, that the
 * master itself runs is enough: what lasts too long then has deadlines of its own. */
static void feed_watchdog(struct master *master, uint64_t now)
{
    if (master->watchdog == 0 || clock_now() - master->watchdog_fed < master->watchdog)
        return;
    tell_hunger(master, master->active != NULL ? generation_dead_kind(master->active, now) : NULL);
    if (master->watchdog_starves)
        return;
    master->watchdog_fed = clock_now();
    process_notify_alive();
}

/* ---- Reading the configuration */

/* A generation that has been told to start, in master->starting. */
static enum result start_generation(struct master *master, struct failure *why)
{
    const struct process_program *program = master->program;
    struct process_plan plan = {0};
    struct generation *generation = NULL;
    enum result result = program->load(program->context, &plan, why);
    if (result != RESULT_OK)
        return result;
    /* Only now is known how to write it. */
    log_set_settings(master->log, &plan.log);
    if (master->active == NULL)
        log_info(master->log, "starting", log_text("version", KEYLESS_VERSION), log_number("pid", getpid()));
    result = generation_new(master, master->last_number + 1, &plan, &generation, why);
    if (result != RESULT_OK) {
        program->release(program->context, &plan);
        return result;
    }
    inherited_free(master->inherited, master->log);
    master->inherited = NULL;
    master->last_number++;
    master->starting = generation;
    generation->next = master->generations;
    master->generations = generation;
    struct failure fork_failure;
    if (generation_start(generation, &fork_failure) != RESULT_OK)
        master_generation_failed(generation, &fork_failure);
    return RESULT_OK;
}

static void reload_failed(struct master *master, const struct failure *why)
{
    log_set_settings(master->log, &master->active->plan.log);
    log_error(master->log, "reload failed", log_number("generation", master->active->number),
              log_text("kind", result_name(why->kind)), log_reason(why->text));
    master_count(master, METRIC_RELOAD_FAILED, 1); /* who waits for it finds the line in the log */
    process_notify("READY=1", "generation %u goes on, a reload has failed: %s", master->active->number,
                   why->text);
}

static void start_failed(struct master *master, const struct failure *why)
{
    master->status = why->kind == RESULT_CONFIG ? 2 : 1;
    master->ending = true;
    log_error(master->log, "start failed", log_text("kind", result_name(why->kind)), log_reason(why->text));
}

static void reload(struct master *master)
{
    struct failure why;
    master->reload_wanted = false;
    process_notify("RELOADING=1", "reading the configuration again");
    /* Nothing else is done meanwhile, which may last: names are looked up. */
    master->watchdog_fed = 0;
    feed_watchdog(master, master_now(master));
    log_info(master->log, "reload starts");
    if (start_generation(master, &why) != RESULT_OK)
        reload_failed(master, &why);
}

/* ---- Which generation has the sockets */

/* What drains already was told to take its time, and is not told again: it ends. */
static void supersede(struct master *master, const struct generation *by)
{
    for (struct generation *at = master->generations; at != NULL; at = at->next) {
        if (at == by || master->program->supersedes == NULL ||
            !master->program->supersedes(at->plan.config, by->plan.config))
            continue;
        at->superseded = true;
        for (struct process *process = at->processes; process != NULL; process = process->next)
            if (process->drain_told)
                process_end(process);
    }
}

void master_generation_ready(struct generation *generation)
{
    struct master *master = generation->master;
    struct generation *old = master->active;
    master->starting = NULL;
    master->active = generation;
    generation->state = GENERATION_ACTIVE;
    int64_t change = (int64_t)generation->number - (old != NULL ? old->number : 0);
    log_set_settings(master->log, &generation->plan.log);
    /* What is told them now they hear before they accept. */
    if (master->program->activated != NULL)
        master->program->activated(master->program->context, master, &generation->plan);
    /* The new children accept before the old ones stop. */
    generation_assign(generation);
    if (old != NULL) {
        supersede(master, generation);
        generation_drain(old, old->plan.drain_timeout);
        master_count(master, METRIC_RELOAD_OK, 1);
    }
    log_info(master->log, old != NULL ? "reloaded" : "ready", log_number("generation", generation->number),
             log_number("children", (int64_t)generation->slot_count));
    /* Last: who waits for it finds the sockets handed over, the reload counted and its line in the log. */
    master_gauge(master, METRIC_CURRENT, change);
    process_notify("READY=1", "generation %u, %zu children", generation->number, generation->slot_count);
}

void master_generation_failed(struct generation *generation, const struct failure *why)
{
    struct master *master = generation->master;
    if (generation != master->starting)
        return;
    master->starting = NULL;
    generation_drain(generation, END_TIMEOUT);
    generation_end(generation);
    if (master->active != NULL)
        reload_failed(master, why);
    else
        start_failed(master, why);
}

static void free_ended_generations(struct master *master)
{
    struct generation **at = &master->generations;
    while (*at != NULL) {
        struct generation *generation = *at;
        if (generation->state != GENERATION_DRAINING || generation->processes != NULL) {
            at = &generation->next;
            continue;
        }
        *at = generation->next;
        log_info(master->log, "generation ended", log_number("generation", generation->number));
        generation_free(generation, true);
    }
}

static void limit_draining(struct master *master)
{
    unsigned draining = 0;
    for (struct generation *at = master->generations; at != NULL; at = at->next)
        if (at->state == GENERATION_DRAINING && ++draining > DRAINING_MAX)
            generation_end(at);
}

void master_settle(struct master *master)
{
    free_ended_generations(master);
    limit_draining(master);
    if (master->reload_wanted && master->starting == NULL && !master->ending)
        reload(master);
    if (master->ending && master->generations == NULL)
        (void)event_base_loopbreak(master->base);
}

/* ---- Signals and the clock's tick */

static void on_hangup(evutil_socket_t number, short events, void *argument)
{
    (void)number;
    (void)events;
    struct master *master = argument;
    if (master->ending) {
        log_info(master->log, "reload refused", log_reason("the program ends"));
        return;
    }
    /* One that comes during a reload leads to one more afterwards. */
    master->reload_wanted = true;
    if (master->starting != NULL)
        log_info(master->log, "reload waits", log_reason("another is under way"));
    master_settle(master);
}

static void on_terminate(evutil_socket_t number, short events, void *argument)
{
    (void)events;
    struct master *master = argument;
    if (master->ending) {
        log_info(master->log, "still draining", log_text("signal", strsignal((int)number)));
        return;
    }
    master->ending = true;
    log_info(master->log, "draining", log_text("signal", strsignal((int)number)));
    process_notify("STOPPING=1", "finishing what is open");
    if (master->starting != NULL) {
        generation_drain(master->starting, END_TIMEOUT);
        generation_end(master->starting);
    }
    if (master->active != NULL)
        generation_drain(master->active, master->active->plan.drain_timeout);
    master->starting = NULL;
    master->active = NULL;
    master_settle(master);
}

static void on_quit(evutil_socket_t number, short events, void *argument)
{
    (void)events;
    struct master *master = argument;
    log_info(master->log, "ending at once", log_text("signal", strsignal((int)number)));
    process_notify("STOPPING=1", "ending at once");
    master->ending = true;
    master->starting = NULL;
    master->active = NULL;
    for (struct generation *at = master->generations; at != NULL; at = at->next)
        generation_kill(at);
    master_settle(master);
}

static struct process *find_process(const struct master *master, pid_t pid)
{
    for (struct generation *at = master->generations; at != NULL; at = at->next)
        for (struct process *process = at->processes; process != NULL; process = process->next)
            if (process->pid == pid)
                return process;
    return NULL;
}

/* As process 1 of a container we also get to bury processes that we do not know. */
static void on_child(evutil_socket_t number, short events, void *argument)
{
    (void)number;
    (void)events;
    struct master *master = argument;
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        struct process *process = find_process(master, pid);
        if (process != NULL)
            process_ended(process, status);
    }
    master_settle(master);
}

static void on_tick(evutil_socket_t fd, short events, void *argument)
{
    (void)fd;
    (void)events;
    struct master *master = argument;
    uint64_t now = master_now(master);
    for (struct generation *at = master->generations; at != NULL; at = at->next)
        generation_check(at, now);
    feed_watchdog(master, now);
    log_flush(master->log);
    if (master->program->tick != NULL)
        master->program->tick(master->program->context);
    master_settle(master);
}

static const struct {
    int number;
    event_callback_fn callback;
} SIGNALS[MASTER_SIGNALS] = {{SIGHUP, on_hangup},
                             {SIGTERM, on_terminate},
                             {SIGINT, on_terminate},
                             {SIGQUIT, on_quit},
                             {SIGCHLD, on_child}};

/* ---- Life */

static void free_events(struct master *master)
{
    for (size_t i = 0; i < MASTER_SIGNALS; i++)
        if (master->signals[i] != NULL)
            event_free(master->signals[i]);
    if (master->tick != NULL)
        event_free(master->tick);
    if (master->base != NULL)
        event_base_free(master->base);
}

static bool make_events(struct master *master)
{
    struct timeval tick = clock_timeval(MASTER_TICK);
    master->base = event_base_new();
    if (master->base == NULL)
        return false;
    for (size_t i = 0; i < MASTER_SIGNALS; i++) {
        master->signals[i] = evsignal_new(master->base, SIGNALS[i].number, SIGNALS[i].callback, master);
        if (master->signals[i] == NULL || event_add(master->signals[i], NULL) != 0)
            return false;
    }
    master->tick = event_new(master->base, -1, EV_PERSIST, on_tick, master);
    return master->tick != NULL && event_add(master->tick, &tick) == 0;
}

/* What we were started with may ignore or block signals that we live by. */
static void accept_signals(void)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGUSR1, SIG_IGN);
    (void)signal(SIGUSR2, SIG_IGN);
}

static struct master *master_new(const struct process_program *program, struct log *log)
{
    struct master *master = calloc(1, sizeof *master);
    if (master == NULL)
        return NULL;
    *master = (struct master){.program = program,
                              .log = log,
                              .clock_read = clock_now(),
                              .clock = 1,
                              .watchdog = process_watchdog() / WATCHDOG_SIGNS};
    if (!make_events(master)) {
        free_events(master);
        free(master);
        return NULL;
    }
    if (program->metrics != NULL)
        master->row = metrics_take_row(program->metrics);
    return master;
}

static void master_free(struct master *master)
{
    if (master->row != NULL)
        metrics_return_row(master->program->metrics, master->row);
    inherited_free(master->inherited, NULL);
    free_events(master);
    free(master);
}

void master_forget(struct master *master, const struct generation *keep)
{
    /* A new epoll descriptor first: deleting events from the one we inherited would delete the master's. */
    (void)event_reinit(master->base);
    listeners_forget(&master->listeners);
    while (master->generations != NULL) {
        struct generation *generation = master->generations;
        master->generations = generation->next;
        generation_free(generation, generation != keep);
    }
    free_events(master);
    free(master);
}

static void guard(struct log *log)
{
    struct failure why;
    if (process_guard_master(&why) != RESULT_OK)
        log_warn(log, "master not guarded", log_reason(why.text));
}

int master_run(const struct process_program *program, struct log *log)
{
    accept_signals();
    process_raise_descriptors();
    guard(log);
    struct master *master = master_new(program, log);
    if (master == NULL) {
        log_error(log, "start failed", log_reason("no event loop"));
        return 1;
    }
    struct failure why;
    if (inherited_take(&master->inherited, &why) != RESULT_OK || start_generation(master, &why) != RESULT_OK)
        start_failed(master, &why);
    if (!master->ending || master->generations != NULL)
        (void)event_base_dispatch(master->base);
    int status = master->status;
    master_free(master);
    log_info(log, "ended", log_number("status", status));
    return status;
}
