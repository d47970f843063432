#include "tests/unit/support/toy_program.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "common/process_private.h"
#include "common/socket.h"
#include "tests/unit/check.h"

enum { WAIT_LIMIT = 20000000, LOG_SHOWN = 16384, LOAD_VISITS = 20 };

/* ---- The program that the master runs */

static const struct metric METRICS[] = {
    {"toy_before_total", NULL, METRIC_COUNTER, "Makes the master's first metric number one."},
    PROCESS_METRIC_ROWS,
};
enum { FIRST_METRIC = 1 };

static enum result toy_load(void *context, struct process_plan *plan, struct failure *why)
{
    struct toy_shared *shared = context;
    if (shared->config.fault == TOY_LOAD_FAILS)
        return failure_set(why, RESULT_CONFIG, "line 7 is odd");
    struct toy_plan *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory");
    made->config = shared->config;
    made->shared = shared;
    made->kinds[TOY_WORKER] = (struct process_kind){.name = "worker",
                                                    .count = made->config.workers,
                                                    .accepts = true,
                                                    .links_to = TOY_STORE,
                                                    .run = toy_worker_run};
    made->kinds[TOY_STORE] = (struct process_kind){
        .name = "store", .count = made->config.stores, .links_to = -1, .run = toy_store_run};
    size_t count = 0;
    for (; count < TOY_ADDRESSES && made->config.listen[count][0] != '\0'; count++)
        if (address_parse(made->config.listen[count], &made->listen[count], why) != RESULT_OK) {
            free(made);
            return RESULT_CONFIG;
        }
    if (made->config.store_address != 0) {
        made->kinds[TOY_STORE].accepts = true;
        made->listen_kind[made->config.store_address] = TOY_STORE;
    }
    *plan = (struct process_plan){.config = made,
                                  .kinds = made->kinds,
                                  .kind_count = TOY_KINDS,
                                  .listen = made->listen,
                                  .listen_count = count,
                                  .listen_kind = made->config.store_address != 0 ? made->listen_kind : NULL,
                                  .listen_backlog = 128,
                                  .drain_timeout = made->config.drain_ms * (uint64_t)1000,
                                  .ready_timeout = made->config.ready_ms * (uint64_t)1000,
                                  .stall_timeout = made->config.stall_ms * (uint64_t)1000,
                                  .log = {.level = LOG_LEVEL_DEBUG, .format = LOG_FORMAT_LOGFMT}};
    return RESULT_OK;
}

static void toy_release(void *context, struct process_plan *plan)
{
    (void)context;
    free(plan->config);
}

static bool toy_supersedes(const void *old_config, const void *new_config)
{
    const struct toy_plan *new = new_config;
    (void)old_config;
    return new->config.supersedes;
}

/* ---- What it says to its workers */

/* The active generation; only the master's process looks. */
static struct {
    struct master *master;
    const void *config;
} active;

static void toy_activated(void *context, struct master *master, const struct process_plan *plan)
{
    (void)context;
    active.master = master;
    active.config = plan->config;
}

static void toy_tick_of_master(void *context)
{
    struct toy_shared *shared = context;
    const unsigned say = atomic_exchange(&shared->say, 0);
    int fd = say != 0 && active.master != NULL ? memfd_create("said", MFD_CLOEXEC) : -1;
    if (fd < 0)
        return;
    if (write(fd, &say, sizeof say) == (ssize_t)sizeof say)
        master_tell(active.master, active.config,
                    &(struct child_message){.kind = TOY_WORKER,
                                            .index = MASTER_TELL_ALL,
                                            .what = 7,
                                            .number = TOY_ANSWER,
                                            .descriptor = fd});
    (void)close(fd);
}

static void toy_heard(void *context, struct master *master, const void *config,
                      const struct child_message *message)
{
    struct toy_shared *shared = context;
    if (master == active.master && config == active.config && message->kind == TOY_WORKER &&
        message->what == 7)
        atomic_store(&shared->heard[message->index], (unsigned)message->number);
}

static _Noreturn void run_master(const struct toy *toy)
{
    struct log_settings settings = {.level = LOG_LEVEL_DEBUG, .format = LOG_FORMAT_LOGFMT};
    struct process_program program = {.name = "toy",
                                      .load = toy_load,
                                      .release = toy_release,
                                      .supersedes = toy_supersedes,
                                      .tick = toy_tick_of_master,
                                      .activated = toy_activated,
                                      .heard = toy_heard,
                                      .context = toy->shared,
                                      .metrics = toy->metrics,
                                      .first_metric = FIRST_METRIC,
                                      .processes = toy->processes};
    (void)dup2(toy->log, STDERR_FILENO); /* what sanitizers say belongs to the log */
    struct log *log = log_new("toy", STDERR_FILENO, &settings);
    int status = master_run(&program, log);
    log_free(log);
    exit(status);
}

/* ---- Driving it */

struct toy_config toy_config(void)
{
    /* Beyond any wait: what only such a time brings about fails the test. */
    return (struct toy_config){
        .workers = 2, .listen = {"127.0.0.1:0"}, .drain_ms = 60000, .ready_ms = 60000, .stall_ms = 60000};
}

int toy_setup(void **state)
{
    struct toy *toy = calloc(1, sizeof *toy);
    struct failure why;
    if (toy == NULL || metrics_new(METRICS, COUNT_OF(METRICS), &toy->metrics, &why) != RESULT_OK ||
        process_status_new(&toy->processes, &why) != RESULT_OK)
        return -1;
    /* Orphans are ours to bury. */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    toy->log = memfd_create("log", MFD_CLOEXEC);
    toy->shared = mmap(NULL, sizeof *toy->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    *state = toy;
    return toy->log >= 0 && toy->shared != MAP_FAILED ? 0 : -1;
}

/* After a test that failed, all kinds of processes may be left: without the master the others are our
 * children. */
int toy_teardown(void **state)
{
    struct toy *toy = *state;
    if (toy->master > 0) {
        (void)kill(toy->master, SIGKILL);
        (void)waitpid(toy->master, NULL, 0);
        for (unsigned kind = 0; kind < TOY_KINDS; kind++)
            for (unsigned i = 0; i < TOY_CHILDREN; i++)
                if (toy->shared->pids[kind][i] > 0 && waitpid(toy->shared->pids[kind][i], NULL, WNOHANG) == 0)
                    (void)kill(toy->shared->pids[kind][i], SIGKILL);
        uint64_t give_up = clock_now() + WAIT_LIMIT;
        while (waitpid(-1, NULL, WNOHANG) >= 0 && clock_now() < give_up)
            (void)poll(NULL, 0, 2);
    }
    metrics_free(toy->metrics);
    status_area_free(toy->processes);
    (void)munmap(toy->shared, sizeof *toy->shared);
    socket_close(&toy->log);
    free(toy);
    return 0;
}

void toy_start(struct toy *toy, const struct toy_config *config)
{
    toy->shared->config = *config;
    (void)fflush(NULL);
    toy->master = fork();
    if (toy->master == 0)
        run_master(toy);
    assert_true(toy->master > 0);
}

void toy_signal(const struct toy *toy, int number)
{
    assert_int_equal(kill(toy->master, number), 0);
}

void toy_reload(struct toy *toy, const struct toy_config *config)
{
    toy->shared->config = *config;
    toy_signal(toy, SIGHUP);
}

int64_t toy_metric(const struct toy *toy, size_t metric)
{
    return metrics_sum(toy->metrics, FIRST_METRIC + metric);
}

pid_t toy_pid(const struct toy *toy, enum toy_kind kind, unsigned index)
{
    return atomic_load(&toy->shared->pids[kind][index]);
}

static bool is_stopped(pid_t pid)
{
    char path[64];
    char text[512];
    (void)snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    int fd CLEANUP(socket_close) = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd >= 0 ? read(fd, text, sizeof text - 1) : -1;
    text[size > 0 ? size : 0] = '\0';
    return strstr(text, ") T ") != NULL;
}

void toy_stop_child(const struct toy *toy, pid_t pid)
{
    assert_int_equal(kill(pid, SIGSTOP), 0);
    TOY_WAIT(toy, is_stopped(pid));
}

/* ---- Its log */

static char *read_log(const struct toy *toy)
{
    off_t size = lseek(toy->log, 0, SEEK_END);
    char *text = calloc(1, (size_t)size + 1);
    assert_non_null(text);
    assert_true(pread(toy->log, text, (size_t)size, 0) == size);
    return text;
}

unsigned toy_log_count(const struct toy *toy, const char *text)
{
    char *log = read_log(toy);
    unsigned count = 0;
    for (const char *at = strstr(log, text); at != NULL; at = strstr(at + 1, text))
        count++;
    free(log);
    return count;
}

bool toy_log_has(const struct toy *toy, const char *text)
{
    return toy_log_count(toy, text) > 0;
}

static _Noreturn void fail_with_log(const struct toy *toy, const char *what)
{
    char *log = read_log(toy);
    size_t size = strlen(log);
    print_error("%s\n", log + (size > LOG_SHOWN ? size - LOG_SHOWN : 0));
    free(log);
    fail_msg("%s", what);
    abort();
}

void toy_wait_step(const struct toy *toy, uint64_t started, const char *what)
{
    if (clock_now() - started > WAIT_LIMIT) {
        char text[256];
        (void)snprintf(text, sizeof text, "waited in vain for: %s", what);
        fail_with_log(toy, text);
    }
    (void)poll(NULL, 0, 2);
}

int toy_wait_end(struct toy *toy)
{
    int status = 0;
    TOY_WAIT(toy, waitpid(toy->master, &status, WNOHANG) == toy->master);
    toy->master = 0;
    if (toy_log_has(toy, "Sanitizer") || toy_log_has(toy, "runtime error"))
        fail_with_log(toy, "a sanitizer complained");
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

void toy_wait_generation(const struct toy *toy, unsigned number)
{
    TOY_WAIT(toy, toy_metric(toy, METRIC_CURRENT) == number);
}

void toy_wait_children(const struct toy *toy, unsigned number)
{
    TOY_WAIT(toy, toy_metric(toy, METRIC_CHILDREN) == number);
}

void toy_start_well(struct toy *toy, const struct toy_config *config)
{
    toy_start(toy, config);
    toy_wait_generation(toy, 1);
}

void toy_reload_well(struct toy *toy, const struct toy_config *config, unsigned number)
{
    toy_reload(toy, config);
    toy_wait_generation(toy, number);
}

void toy_end_well(struct toy *toy)
{
    toy_signal(toy, SIGTERM);
    assert_int_equal(toy_wait_end(toy), 0);
    assert_true(toy_log_has(toy, "event=ended status=0"));
    assert_int_equal(toy_metric(toy, METRIC_CHILDREN), 0);
}

/* ---- Its clients */

static bool find_address(const struct toy *toy, unsigned index, struct address *address)
{
    struct failure why;
    if (address_parse(toy->shared->config.listen[index], address, &why) != RESULT_OK)
        return false;
    if (!address_is_unix(address))
        ((struct sockaddr_in *)&address->storage)->sin_port = htons((in_port_t)toy->shared->ports[index]);
    return true;
}

/* Blocking: on the loopback a connection is made or refused at once, without the program's help. */
int toy_connect(const struct toy *toy, unsigned index)
{
    struct address address;
    if (!find_address(toy, index, &address))
        return -1;
    int fd = socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (const struct sockaddr *)&address.storage, address.size) != 0)
        socket_close(&fd);
    return fd;
}

bool toy_ask(int fd, unsigned store, struct toy_answer *answer, unsigned timeout_ms)
{
    char question = (char)('0' + store);
    struct pollfd answered = {.fd = fd, .events = POLLIN};
    return send(fd, &question, 1, MSG_NOSIGNAL) == 1 && poll(&answered, 1, (int)timeout_ms) == 1 &&
           recv(fd, answer, sizeof *answer, MSG_WAITALL) == (ssize_t)sizeof *answer;
}

bool toy_visit(const struct toy *toy, unsigned index, struct toy_answer *answer)
{
    int fd CLEANUP(socket_close) = toy_connect(toy, index);
    return fd >= 0 && toy_ask(fd, 0, answer, TOY_ANSWER_MS);
}

bool toy_is_refused(const struct toy *toy, unsigned address)
{
    int fd CLEANUP(socket_close) = toy_connect(toy, address);
    return fd < 0;
}

pid_t toy_ask_pid(int fd)
{
    struct toy_answer answer;
    return toy_ask(fd, 0, &answer, TOY_ANSWER_MS) ? answer.pid : 0;
}

bool toy_visit_reaches(const struct toy *toy, unsigned address, pid_t pid)
{
    struct toy_answer answer;
    return toy_visit(toy, address, &answer) && answer.pid == pid;
}

int toy_connect_to_generation(const struct toy *toy, unsigned generation)
{
    struct toy_answer answer;
    int fd = -1;
    TOY_WAIT(toy, (socket_close(&fd), (fd = toy_connect(toy, 0)) >= 0) &&
                      toy_ask(fd, 0, &answer, TOY_ANSWER_MS) && answer.generation == generation);
    return fd;
}

struct toy_burst toy_burst_open(const struct toy *toy, unsigned address)
{
    struct toy_burst burst;
    for (unsigned i = 0; i < TOY_BURST; i++)
        assert_true((burst.fds[i] = toy_connect(toy, address)) >= 0);
    return burst;
}

void toy_burst_finish(struct toy_burst *burst, uint64_t started)
{
    for (unsigned i = 0; i < TOY_BURST; i++) {
        assert_int_not_equal(toy_ask_pid(burst->fds[i]), 0);
        socket_close(&burst->fds[i]);
    }
    assert_in_range(clock_now() - started, 0, TOY_PATIENCE);
}

/* ---- Load */

struct toy_load {
    const struct toy *toy;
    unsigned address;
    pthread_t thread;
    _Atomic bool stop;
    _Atomic unsigned visits;
    unsigned failures;
    uint64_t longest;
};

static void *load_main(void *argument)
{
    struct toy_load *load = argument;
    while (!atomic_load(&load->stop)) {
        struct toy_answer answer;
        uint64_t started = clock_now();
        if (!toy_visit(load->toy, load->address, &answer))
            load->failures++;
        uint64_t took = clock_now() - started;
        load->longest = took > load->longest ? took : load->longest;
        load->visits++;
    }
    return NULL;
}

struct toy_load *toy_load_start(const struct toy *toy, unsigned address)
{
    struct toy_load *load = calloc(1, sizeof *load);
    assert_non_null(load);
    load->toy = toy;
    load->address = address;
    assert_int_equal(pthread_create(&load->thread, NULL, load_main, load), 0);
    return load;
}

void toy_load_stop(struct toy_load *load)
{
    TOY_WAIT(load->toy, atomic_load(&load->visits) > LOAD_VISITS);
    atomic_store(&load->stop, true);
    (void)pthread_join(load->thread, NULL);
    unsigned failures = load->failures;
    uint64_t longest = load->longest;
    free(load);
    assert_int_equal(failures, 0);
    assert_in_range(longest, 0, TOY_PATIENCE);
}
