/*
 * A small program for tests of masters and children, and the means to drive it: workers that accept
 * connections and say who they are, stores that they are linked to. Its master is a process of its own;
 * configuration and facts are in memory shared with the test.
 */
#ifndef KEYLESS_TESTS_UNIT_SUPPORT_TOY_PROGRAM_H
#define KEYLESS_TESTS_UNIT_SUPPORT_TOY_PROGRAM_H

#include <stdatomic.h>
#include <sys/types.h>

#include "common/clock.h"
#include "common/process.h"
#include "common/process_status.h"

#define TOY_CHILDREN  8
#define TOY_ADDRESSES 3

/* Kinds; also the first index of toy_shared.pids. */
enum toy_kind { TOY_WORKER, TOY_STORE, TOY_KINDS };

enum toy_fault {
    TOY_FINE,
    TOY_LOAD_FAILS,  /* load: RESULT_CONFIG, "line 7 is odd" */
    TOY_CHILD_FAILS, /* worker 1: child_failed, RESULT_CONFIG, "no such file" */
    TOY_CHILD_EXITS, /* worker 1 exits with status 7 and no word */
    TOY_NONSENSE,    /* worker 1 sends the master nonsense when it is ready */
    TOY_NEVER_READY, /* worker 1 */
};

/* What the next load reads. */
struct toy_config {
    unsigned workers, stores;
    char listen[TOY_ADDRESSES][ADDRESS_TEXT_SIZE]; /* "": none, and none after it */
    unsigned store_address;                        /* index of the address that stores accept on; 0: none */
    enum toy_fault fault;
    bool supersedes; /* the generation before: its children then end at once */
    unsigned drain_ms, ready_ms, stall_ms;
};

struct toy_shared {
    struct toy_config config;
    _Atomic bool hold; /* children do not get ready while it is set */
    _Atomic pid_t pids[TOY_KINDS][TOY_CHILDREN];
    _Atomic unsigned ports[TOY_ADDRESSES]; /* as in config.listen */
    _Atomic unsigned ticks;                /* of all children */
    _Atomic unsigned say; /* the master tells all workers at its next tick, with a descriptor */
    _Atomic unsigned
        heard[TOY_CHILDREN]; /* what workers answered: TOY_ANSWER plus what is in the descriptor */
};

#define TOY_ANSWER 1000

/* What a plan's config is: a copy, and where the facts go. */
struct toy_plan {
    struct toy_config config;
    struct toy_shared *shared;
    struct process_kind kinds[TOY_KINDS];
    struct address listen[TOY_ADDRESSES];
    size_t listen_kind[TOY_ADDRESSES];
};

/* process_kind.run of both kinds. */
int toy_worker_run(struct child *child, const void *config);
int toy_store_run(struct child *child, const void *config);

struct toy {
    struct toy_shared *shared;
    struct metrics *metrics;
    struct status_area *processes;
    int log;
    pid_t master; /* 0: has ended */
};

/* Who answered. */
struct toy_answer {
    pid_t pid;
    unsigned index, generation;
    pid_t store; /* 0: the worker has no working link to the store asked for */
};

/* cmocka's setup and teardown; *state is a struct toy. */
int toy_setup(void **state);
int toy_teardown(void **state);

/* Two workers on 127.0.0.1 and a port of the kernel's choice. */
struct toy_config toy_config(void);
void toy_start(struct toy *toy, const struct toy_config *config);
void toy_reload(struct toy *toy, const struct toy_config *config);
void toy_signal(const struct toy *toy, int number);
/* The usual steps: to a generation, to a number of children, to a peaceful end. */
void toy_wait_generation(const struct toy *toy, unsigned number);
void toy_wait_children(const struct toy *toy, unsigned number);
void toy_start_well(struct toy *toy, const struct toy_config *config);
void toy_reload_well(struct toy *toy, const struct toy_config *config, unsigned number);
void toy_end_well(struct toy *toy);
/* The master's exit status; fails the test if it takes as long as TOY_WAIT does at most, or a sanitizer
 * complained in any process. */
int toy_wait_end(struct toy *toy);

int64_t toy_metric(const struct toy *toy, size_t metric);
bool toy_log_has(const struct toy *toy, const char *text);
unsigned toy_log_count(const struct toy *toy, const char *text);
pid_t toy_pid(const struct toy *toy, enum toy_kind kind, unsigned index);
/* SIGSTOP, and it has arrived. */
void toy_stop_child(const struct toy *toy, pid_t pid);

/* Connects to config.listen[address]; -1 when refused. */
int toy_connect(const struct toy *toy, unsigned address);
/* Asks on the connection for store number store; false: no answer within timeout_ms. */
bool toy_ask(int fd, unsigned store, struct toy_answer *answer, unsigned timeout_ms);
/* Connects, asks and closes. */
bool toy_visit(const struct toy *toy, unsigned address, struct toy_answer *answer);

/* Nobody listens there. */
bool toy_is_refused(const struct toy *toy, unsigned address);
/* The pid of who answers on the connection; 0: nobody. */
pid_t toy_ask_pid(int fd);
bool toy_visit_reaches(const struct toy *toy, unsigned address, pid_t pid);
/* A connection that this generation has: just after a reload the one before may still accept. */
int toy_connect_to_generation(const struct toy *toy, unsigned generation);

/* Connections that wait to be accepted, spread by the kernel over all listening sockets of the address. */
/* The patience is for a busy machine: who is forgotten waits for ever. */
enum { TOY_BURST = 24, TOY_PATIENCE = 4000000, TOY_ANSWER_MS = 5000 };
struct toy_burst {
    int fds[TOY_BURST];
};
struct toy_burst toy_burst_open(const struct toy *toy, unsigned address);
/* Closes them; the test fails unless all were answered within TOY_PATIENCE of started. */
void toy_burst_finish(struct toy_burst *burst, uint64_t started);

/* Connects and asks all the time, in a thread. */
struct toy_load;
struct toy_load *toy_load_start(const struct toy *toy, unsigned address);
/* Ends it; the test fails unless each visit was answered within TOY_PATIENCE. */
void toy_load_stop(struct toy_load *load);

/* Polls for a condition for at most twenty seconds; fails the test with the condition and the log. */
void toy_wait_step(const struct toy *toy, uint64_t started, const char *what);
#define TOY_WAIT(toy, condition)                                                                             \
    for (uint64_t toy_started = clock_now(); !(condition);)                                                  \
    toy_wait_step((toy), toy_started, #condition)

#endif
