#include "common/admin_process.h"

#include <fcntl.h>

#include "common/clock.h"
#include "common/socket.h"

/* For answers on their way when the process is told to end. */
#define DRAIN_MICROSECONDS 1000000

struct admin_process {
    struct child *child;
    struct admin *admin;
    struct admin_source *source;
    void (*message)(const struct child_message *message, void *source);
    uint64_t drain_until; /* 0: not draining */
};

/* ---- What the master says. */

static void serve(struct admin_process *process, size_t socket)
{
    struct failure why;
    int listener = fcntl(child_listener_fd(process->child, socket), F_DUPFD_CLOEXEC, 0);
    enum result result = listener < 0 ? failure_set_errno(&why, "cannot duplicate the admin socket")
                                      : admin_listen(process->admin, socket, listener, &why);
    if (result != RESULT_OK)
        log_error(child_log(process->child), "cannot serve the admin endpoint", log_reason(why.text));
}

static void on_retire(size_t socket, void *owner)
{
    struct admin_process *process = owner;
    admin_unlisten(process->admin, socket);
}

static bool listed(size_t socket, const size_t *sockets, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (sockets[i] == socket)
            return true;
    return false;
}

static void on_listen(const size_t *sockets, size_t count, void *owner)
{
    struct admin_process *process = owner;
    for (size_t i = 0; i < child_listener_count(process->child); i++) {
        if (!listed(i, sockets, count))
            admin_unlisten(process->admin, i);
        else if (!admin_is_listening(process->admin, i))
            serve(process, i);
    }
}

static void end_if_drained(struct admin_process *process)
{
    if (process->drain_until != 0 &&
        (admin_connections(process->admin) == 0 || clock_now() >= process->drain_until))
        child_end(process->child, 0);
}

static void on_drain(enum child_drain why, void *owner)
{
    (void)why;
    struct admin_process *process = owner;
    process->drain_until = clock_now() + DRAIN_MICROSECONDS;
    end_if_drained(process);
}

static void on_tick(void *owner)
{
    end_if_drained(owner);
}

static void on_message(const struct child_message *message, void *owner)
{
    const struct admin_process *process = owner;
    int descriptor = message->descriptor;
    if (process->message != NULL)
        process->message(message, process->source);
    else
        socket_close(&descriptor);
}

static const struct child_handler HANDLER = {
    .listen = on_listen, .retire = on_retire, .drain = on_drain, .message = on_message, .tick = on_tick};

/* ---- The process. */

static const struct sandbox_rule SANDBOX_RULES[] = {ADMIN_PROCESS_RULES};

const struct sandbox_profile admin_process_sandbox = {
    .rules = SANDBOX_RULES, .rule_count = sizeof SANDBOX_RULES / sizeof *SANDBOX_RULES};

int admin_process_run(struct child *child, const char *user, const struct metrics *metrics,
                      struct admin_source *source,
                      void (*message)(const struct child_message *message, void *source))
{
    struct admin_process process = {.child = child, .source = source, .message = message};
    struct failure why;
    enum result result = process_drop_privileges(user, &why);
    if (result == RESULT_OK)
        result = admin_new(child_base(child), metrics, source, child_log(child), &process.admin, &why);
    if (result != RESULT_OK) {
        child_failed(child, &why);
        return 1;
    }
    child_start(child, &HANDLER, &process);
    child_ready(child);
    int status = child_loop(child);
    admin_free(process.admin);
    return status;
}
