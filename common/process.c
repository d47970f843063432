#include "common/process_private.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include "common/clock.h"
#include "common/socket.h"

/* A child's messages are few; one that floods us must not keep the master from its other work. */
#define PROCESS_MESSAGES_AT_ONCE 8

const struct process_kind *process_kind_of(const struct process *process)
{
    return &process->generation->plan.kinds[process->slot->kind];
}

bool process_is_current(const struct process *process)
{
    return process->slot->process == process;
}

static struct master *master_of(const struct process *process)
{
    return process->generation->master;
}

/* Which child a line is about. */
#define LOG_CHILD(process)                                                                                   \
    log_text("child", (process)->slot->name), log_number("child_pid", (process)->pid),                       \
        log_number("generation", (process)->generation->number)

static void set_deadline(struct process *process, uint64_t timeout)
{
    process->deadline = timeout != 0 ? master_now(master_of(process)) + timeout : 0;
}

/* ---- Start and end */

static struct heartbeat *heartbeat_new(void)
{
    void *page =
        mmap(NULL, sizeof(struct heartbeat), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return page != MAP_FAILED ? page : NULL;
}

static struct process *process_new(struct slot *slot, struct failure *why)
{
    struct process *process = calloc(1, sizeof *process);
    if (process == NULL || (process->heartbeat = heartbeat_new()) == NULL) {
        free(process);
        (void)failure_set(why, RESULT_LIMIT, "no memory for a child process");
        return NULL;
    }
    process->generation = slot->generation;
    process->slot = slot;
    process->control = -1;
    return process;
}

void process_free(struct process *process, bool reaped)
{
    struct metrics *metrics = master_of(process)->program->metrics;
    if (process->control_event != NULL)
        event_free(process->control_event);
    if (reaped && process->row != NULL)
        metrics_return_row(metrics, process->row);
    if (reaped)
        process_unpublish(process);
    socket_close(&process->control);
    if (process->heartbeat != NULL)
        (void)munmap(process->heartbeat, sizeof *process->heartbeat);
    free(process);
}

static void on_control(evutil_socket_t fd, short events, void *argument);

/* Signals are blocked until the child has handlers of its
 * own: the master's would write into a pipe that both share. */
static pid_t fork_child(struct process *process, int child_end)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &before);
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        process->pid = getpid();
        child_become(process, child_end);
    }
    int saved = errno;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    errno = saved;
    return pid;
}

static enum result process_fork(struct process *process, struct failure *why)
{
    struct master *master = master_of(process);
    int ends[2];
    enum result result = socket_pair(SOCK_SEQPACKET, ends, why);
    if (result != RESULT_OK)
        return result;
    process->control = ends[0];
    process->control_event = event_new(master->base, ends[0], EV_READ | EV_PERSIST, on_control, process);
    if (process->control_event == NULL || event_add(process->control_event, NULL) != 0)
        result = failure_set(why, RESULT_LIMIT, "no memory for a child process");
    if (result == RESULT_OK) {
        if (master->program->metrics != NULL)
            process->row = metrics_take_row(master->program->metrics);
        process->pid = fork_child(process, ends[1]);
        if (process->pid < 0)
            result = failure_set_errno(why, "cannot fork");
    }
    socket_close(&ends[1]);
    return result;
}

static void link_process(struct process *process)
{
    process->slot->process = process;
    process->next = process->generation->processes;
    process->generation->processes = process;
}

static void unlink_process(struct process *process)
{
    struct process **at = &process->generation->processes;
    while (*at != process)
        at = &(*at)->next;
    *at = process->next;
    if (process_is_current(process))
        process->slot->process = NULL;
}

/* In the list before the fork: the child lets go of all that is in it. */
enum result process_spawn(struct slot *slot, struct failure *why)
{
    struct generation *generation = slot->generation;
    struct process *process = process_new(slot, why);
    if (process == NULL)
        return RESULT_LIMIT;
    link_process(process);
    enum result result = process_fork(process, why);
    if (result != RESULT_OK) {
        unlink_process(process);
        process_free(process, true);
        return result;
    }
    set_deadline(process, generation->plan.ready_timeout);
    process_publish(process);
    master_gauge(generation->master, METRIC_CHILDREN, 1);
    log_info(generation->master->log, "child started", LOG_CHILD(process));
    return RESULT_OK;
}

#define END_TEXT_SIZE 128

/* What the child's own sandbox ended; it tells the call's number as far as it still could. */
static void describe_forbidden(const struct process *process, char text[static END_TEXT_SIZE])
{
    char call[SANDBOX_CALL_SIZE];
    sandbox_culprit_format(atomic_load_explicit(&process->heartbeat->culprit, memory_order_relaxed), call);
    if (call[0] != '\0')
        (void)snprintf(text, END_TEXT_SIZE, "killed by SIGSYS: system call %s is forbidden to it", call);
    else
        (void)snprintf(text, END_TEXT_SIZE, "killed by SIGSYS: a forbidden system call");
}

static void describe_end(const struct process *process, int status, char text[static END_TEXT_SIZE])
{
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS)
        describe_forbidden(process, text);
    else if (WIFSIGNALED(status))
        (void)snprintf(text, END_TEXT_SIZE, "killed by signal %d (%s)", WTERMSIG(status),
                       strsignal(WTERMSIG(status)));
    else
        (void)snprintf(text, END_TEXT_SIZE, "exited with status %d", WEXITSTATUS(status));
}

static void receive_all(struct process *process);

void process_ended(struct process *process, int status)
{
    struct slot *slot = process->slot;
    struct log *log = master_of(process)->log;
    bool current = process_is_current(process);
    bool asked = !current || process->generation->state == GENERATION_DRAINING;
    bool was_ready = process->was_ready;
    char how[END_TEXT_SIZE];
    struct failure why;

    receive_all(process); /* its last words */
    describe_end(process, status, how);
    log_write(log, asked ? LOG_LEVEL_INFO : LOG_LEVEL_ERROR, "child ended",
              LOG_FIELDS(LOG_CHILD(process), log_text("how", how)));
    why = process->failure;
    if (why.kind == RESULT_OK)
        (void)failure_set(&why, RESULT_SYSTEM, "%s %s before it was ready", slot->name, how);
    master_gauge(master_of(process), METRIC_CHILDREN, -1);
    if (current && was_ready)
        slot->served = process->beat_seen;
    unlink_process(process);
    process_free(process, true);
    generation_process_ended(slot, current, was_ready, &why);
}

/* ---- Messages */

static void on_ready(struct process *process, const struct message *message)
{
    if (process->state != PROCESS_STARTING)
        return;
    process->sandbox = message->first;
    process->state = PROCESS_READY;
    process->was_ready = true;
    process->deadline = 0;
    process->beats = atomic_load_explicit(&process->heartbeat->beats, memory_order_relaxed);
    process->beat_seen = master_now(master_of(process));
    process_publish(process);
    generation_process_ready(process);
}

static void on_failed(struct process *process, const struct message *message)
{
    enum result kind = message->first == RESULT_CONFIG ? RESULT_CONFIG : RESULT_SYSTEM;
    (void)failure_set(&process->failure, kind, "%s: %s", process->slot->name, message->text);
    log_error(master_of(process)->log, "child failed", LOG_CHILD(process), log_reason(message->text));
}

static void on_leaving(struct process *process, const struct message *message)
{
    (void)message;
    if (process->state > PROCESS_READY || !process_is_current(process))
        return;
    log_info(master_of(process)->log, "child wants to drain", LOG_CHILD(process));
    generation_process_leaving(process);
}

static void on_said(struct process *process, const struct message *message)
{
    struct master *master = master_of(process);
    const struct child_message said = {.kind = process->slot->kind,
                                       .index = process->slot->index,
                                       .what = message->first,
                                       .number = message->second,
                                       .descriptor = -1};
    if (master->program->heard != NULL && process_is_current(process) && process->state <= PROCESS_READY)
        master->program->heard(master->program->context, master, process->generation->plan.config, &said);
}

static void (*const ON_MESSAGE[MESSAGE_TYPES])(struct process *,
                                               const struct message *) = {[MESSAGE_READY] = on_ready,
                                                                          [MESSAGE_FAILED] = on_failed,
                                                                          [MESSAGE_LEAVING] = on_leaving,
                                                                          [MESSAGE_SAID] = on_said};

/* It ends, or has gone mad: either way it can no longer be told anything. */
static void process_lose(struct process *process)
{
    if (process->control_event != NULL)
        event_free(process->control_event);
    process->control_event = NULL;
    socket_close(&process->control);
    if (process->state < PROCESS_ENDING) {
        process->state = PROCESS_ENDING;
        set_deadline(process, END_TIMEOUT);
    }
}

/* False: nothing more to read now. */
static bool receive_one(struct process *process)
{
    struct message message;
    struct failure why;
    enum result result = message_receive(process->control, &message, &why);
    if (result == RESULT_AGAIN)
        return false;
    /* No child has a reason to send a descriptor. */
    socket_close(&message.descriptor);
    if (result == RESULT_OK && ON_MESSAGE[message.type] != NULL) {
        ON_MESSAGE[message.type](process, &message);
        return process->control >= 0;
    }
    if (result != RESULT_PEER)
        log_error(master_of(process)->log, "child sent nonsense", LOG_CHILD(process));
    process_lose(process);
    return false;
}

static void receive_all(struct process *process)
{
    for (unsigned i = 0; i < PROCESS_MESSAGES_AT_ONCE && process->control >= 0; i++)
        if (!receive_one(process))
            return;
}

static void on_control(evutil_socket_t fd, short events, void *argument)
{
    (void)fd;
    (void)events;
    struct process *process = argument;
    struct master *master = master_of(process);
    struct generation *generation = process->generation;
    receive_all(process);
    if (process->control < 0)
        generation_assign(generation);
    master_settle(master);
}

void process_tell(struct process *process, enum message_type type, uint32_t first, uint64_t second,
                  int descriptor)
{
    if (process->control < 0)
        return;
    struct message message = {.type = type, .first = first, .second = second, .descriptor = descriptor};
    struct failure why;
    enum result result = message_send(process->control, &message, &why);
    /* One that has closed its end is dealt with by reading: its last words may still be there. */
    if (result == RESULT_OK || result == RESULT_PEER)
        return;
    log_error(master_of(process)->log, "child cannot be told", LOG_CHILD(process),
              log_reason(result == RESULT_AGAIN ? "it does not read" : why.text));
    process_lose(process);
}

/* ---- Heartbeat and deadlines */

static void heartbeat_came(struct process *process, uint64_t beats, uint64_t now)
{
    process->beats = beats;
    process->beat_seen = now;
    if (!process->stalled)
        return;
    process->stalled = false;
    log_info(master_of(process)->log, "child goes on", LOG_CHILD(process));
    generation_assign(process->generation);
}

static void heartbeat_stopped(struct process *process)
{
    process->stalled = true;
    log_warn(master_of(process)->log, "child stalls", LOG_CHILD(process));
    master_count(master_of(process), METRIC_STALLED, 1);
    generation_assign(process->generation);
}

/* One at a time: what stalls all of them is rarely in them, and then killing all would make it worse. */
static void replace_stalled(struct process *process, uint64_t now)
{
    struct master *master = master_of(process);
    if (master->stall_kill != 0 && now - master->stall_kill < STALL_KILL_PAUSE)
        return;
    master->stall_kill = now;
    log_error(master->log, "child killed", LOG_CHILD(process), log_reason("no heartbeat"));
    (void)kill(process->pid, SIGABRT);
    process->state = PROCESS_ENDING;
    set_deadline(process, END_TIMEOUT);
}

static void check_heartbeat(struct process *process, uint64_t now)
{
    uint64_t beats = atomic_load_explicit(&process->heartbeat->beats, memory_order_relaxed);
    uint64_t timeout = process->generation->plan.stall_timeout;
    uint64_t silent = now - process->beat_seen;
    if (beats != process->beats)
        heartbeat_came(process, beats, now);
    else if (!process->stalled && silent >= HEARTBEAT_LOST)
        heartbeat_stopped(process);
    else if (process->stalled && silent >= (timeout != 0 ? timeout : STALL_TIMEOUT))
        replace_stalled(process, now);
}

static void never_ready(struct process *process)
{
    (void)failure_set(&process->failure, RESULT_SYSTEM, "%s was not ready in time", process->slot->name);
    log_error(master_of(process)->log, "child killed", LOG_CHILD(process), log_reason("not ready in time"));
    process_kill(process);
}

static void drained_too_long(struct process *process)
{
    log_warn(master_of(process)->log, "child ended", LOG_CHILD(process),
             log_reason("drain_timeout has passed"));
    process_end(process);
}

static void (*const ON_DEADLINE[])(struct process *) = {
    [PROCESS_STARTING] = never_ready,
    [PROCESS_DRAINING] = drained_too_long,
    [PROCESS_ENDING] = process_kill,
};

void process_check(struct process *process, uint64_t now)
{
    if (process->state == PROCESS_READY)
        check_heartbeat(process, now);
    else if (process->deadline != 0 && now >= process->deadline)
        ON_DEADLINE[process->state](process);
    process_publish(process);
}

/* ---- Ways to end it */

void process_drain(struct process *process, uint64_t timeout)
{
    if (process->state > PROCESS_READY)
        return;
    process->state = PROCESS_DRAINING;
    set_deadline(process, timeout);
}

void process_drain_now(struct process *process)
{
    if (process->drain_told)
        return;
    process->drain_told = true;
    if (process->deadline == 0)
        set_deadline(process, process->generation->plan.drain_timeout);
    process_tell(process, MESSAGE_DRAIN, process->generation->superseded, 0, -1);
}

void process_end(struct process *process)
{
    if (process->state >= PROCESS_ENDING)
        return;
    process->state = PROCESS_ENDING;
    set_deadline(process, END_TIMEOUT);
    process_tell(process, MESSAGE_END, 0, 0, -1);
}

/* It ends for certain; should the kernel need long, there is nothing more to do. */
void process_kill(struct process *process)
{
    process->state = PROCESS_KILLED;
    process->deadline = 0;
    (void)kill(process->pid, SIGKILL);
}
