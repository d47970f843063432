/*
 * What the files of the process module share: the master's view of generations, their slots, and the
 * processes in them.
 *
 *   master.c      signals, reload, the clock, which generation has the sockets
 *   generation.c  the children of one plan: start, replacement, who accepts on what, links, draining
 *   process.c     one child as the master sees it: fork, messages, heartbeat, how it ends
 *   listeners.c   listening sockets, kept over generations
 *   process_status.c  what is told of children in shared memory
 *   child.c       the other side: what runs in the child
 *
 * Nothing is freed while a list is walked: processes are freed when they are reaped, generations in
 * master_settle, which every callback of the master's loop ends with.
 */
#ifndef KEYLESS_COMMON_PROCESS_PRIVATE_H
#define KEYLESS_COMMON_PROCESS_PRIVATE_H

#include <stdatomic.h>
#include <sys/types.h>

#include "common/inherited.h"
#include "common/process.h"
#include "common/process_status.h"

/* All times are in microseconds. */
enum {
    MILLISECOND = 1000,
    SECOND = 1000 * MILLISECOND,
    MASTER_TICK = 100 * MILLISECOND,       /* how often deadlines and heartbeats are looked at */
    MASTER_CLOCK_STEP = 250 * MILLISECOND, /* see master_now */
    HEARTBEAT_PERIOD = 100 * MILLISECOND,
    HEARTBEAT_LOST = 400 * MILLISECOND,
    STALL_TIMEOUT = 10 * SECOND,
    STALL_KILL_PAUSE =
        1 * SECOND, /* between two kills for stalling: whatever stalls all children is outside them */
    END_TIMEOUT = 1 * SECOND, /* from being told to end at once to SIGKILL */
    RESTART_DELAY_MIN = 100 * MILLISECOND,
    RESTART_DELAY_MAX = 5 * SECOND,
    RESTART_SETTLED =
        10 * SECOND,  /* a child that ends later than this after the last one is replaced at once */
    DRAINING_MAX = 8, /* generations that drain at the same time */
    LISTENER_SOCKETS_MIN = 4,
    LISTENER_SOCKETS_MAX = 256,
};

/* ---- Messages over the control pair. */

enum message_type {
    /* child to master */
    MESSAGE_READY = 1, /* first: sandbox_state_pack */
    MESSAGE_FAILED,    /* first: enum result; text */
    MESSAGE_LEAVING,   /* was sent SIGTERM: wants to drain */
    MESSAGE_SAID,      /* first: what, second: number; the program's own */
    /* master to child */
    MESSAGE_LISTEN, /* accept on the sockets i with i mod second == first; second 0: on none */
    MESSAGE_RETIRE, /* first: address, as in the plan */
    MESSAGE_LINK,   /* first: kind, second: index; with a descriptor */
    MESSAGE_DRAIN,
    MESSAGE_END,  /* end at once */
    MESSAGE_TOLD, /* first: what, second: number; with a descriptor or without; the program's own */
    MESSAGE_TYPES
};

struct message {
    enum message_type type;
    uint32_t first;
    uint64_t second;
    int descriptor; /* -1: none */
    char text[FAILURE_TEXT_SIZE];
};

/* RESULT_AGAIN: the child does not read. The descriptor stays the caller's. */
MUST_CHECK enum result message_send(int control, const struct message *message, struct failure *why);
/* RESULT_AGAIN: none there; RESULT_PEER: the other side has gone. The descriptor becomes the caller's. */
MUST_CHECK enum result message_receive(int control, struct message *message, struct failure *why);

/* ---- Listening sockets. */

struct listener {
    struct listener *next;
    struct address address; /* as configured */
    int *fds;
    size_t count;
    unsigned users; /* generations that are starting or active with it */
    bool inherited; /* the service manager has them too: a Unix socket's file stays */
    dev_t device;   /* of a Unix socket's file, by which it is known to be ours still */
    ino_t inode;
};

/* The kind whose children accept on this address of the plan; kind_count: none. */
size_t listener_kind(const struct process_plan *plan, size_t address);
/* Finds or binds the listeners of plan, all or none, and writes them to used[plan->listen_count]. Sockets
 * that are among inherited (may be NULL) come from there. */
MUST_CHECK enum result listeners_acquire(struct listener **list, struct inherited *inherited,
                                         const struct process_plan *plan, struct listener **used,
                                         struct log *log, struct failure *why);
/* The opposite: those that nobody else uses are closed. */
void listeners_release(struct listener **list, struct listener *const *used, size_t count);
/* In a child: closes the descriptors that are left in the list, and nothing more. */
void listeners_forget(struct listener **list);
/* Nobody can find the Unix socket any more. */
void listener_unlink(struct listener *listener);

/* ---- One child. */

/*
 *   STARTING --READY--> READY --drain--> DRAINING --deadline--> ENDING --deadline--> KILLED
 *      any state but the last goes to ENDING or KILLED when something is wrong; every state ends with the
 * process.
 */
enum process_state {
    PROCESS_STARTING, /* deadline: ready_timeout */
    PROCESS_READY,
    PROCESS_DRAINING, /* told so, or to be told; deadline: drain_timeout */
    PROCESS_ENDING,   /* told to end at once, aborted, or closed its control socket; deadline: END_TIMEOUT */
    PROCESS_KILLED,
};

/* A page that a child shares with its master. */
struct heartbeat {
    _Atomic uint64_t beats;
    sandbox_culprit culprit; /* the forbidden system call that ended it */
};

struct process {
    struct process *next; /* in generation->processes */
    struct generation *generation;
    struct slot *slot;
    pid_t pid;
    enum process_state state;
    int control; /* -1: the child has closed its end */
    struct event *control_event;
    struct heartbeat *heartbeat;
    uint64_t beats;     /* as last seen */
    uint64_t beat_seen; /* when it last changed */
    uint64_t deadline;  /* of the state; 0: none */
    bool was_ready;
    bool stalled;
    bool drain_told;
    uint32_t rank, share; /* MESSAGE_LISTEN's fields as last sent */
    struct metrics_row *row;
    bool has_record; /* of its status */
    size_t record;
    uint32_t published;     /* the state that stands in it */
    uint32_t sandbox;       /* MESSAGE_READY's: how far the child is confined */
    struct failure failure; /* MESSAGE_FAILED's */
};

/* Forks the child of an empty slot. */
MUST_CHECK enum result process_spawn(struct slot *slot, struct failure *why);
/* Frees the master's side. In a child (reaped false) the process itself, and what it shares with the master,
 * is let be. */
void process_free(struct process *process, bool reaped);
/* The process has ended: status is waitpid's. Frees it. */
void process_ended(struct process *process, int status);
/* Looks at its deadline and heartbeat. */
void process_check(struct process *process, uint64_t now);
/* Sends; a child that cannot be told is ended. */
void process_tell(struct process *process, enum message_type type, uint32_t first, uint64_t second,
                  int descriptor);
/* Drains when its turn comes (process_drain_now); timeout 0: no deadline until then. */
void process_drain(struct process *process, uint64_t timeout);
void process_drain_now(struct process *process);
void process_end(struct process *process);
void process_kill(struct process *process);
/* It is the one in its slot, not a draining one that was replaced. */
bool process_is_current(const struct process *process);
const struct process_kind *process_kind_of(const struct process *process);
/* Tells its state in shared memory, if it has changed. */
void process_publish(struct process *process);
void process_unpublish(struct process *process);

/* ---- A generation. */

enum generation_state { GENERATION_STARTING, GENERATION_ACTIVE, GENERATION_DRAINING };

/* The place of one child: kind and index. The process in it changes. */
struct slot {
    struct generation *generation;
    size_t kind;
    unsigned index;
    char name[40]; /* "worker/3", as the child calls itself in the log */
    struct process *process;
    uint64_t served;      /* when one that is gone was last known to work; 0: never */
    uint64_t ended;       /* when the last process ended; 0: never */
    uint64_t delay;       /* until the next one starts */
    uint64_t start_after; /* ended + delay */
};

struct generation {
    struct generation *next; /* older */
    struct master *master;
    unsigned number;
    enum generation_state state;
    bool superseded; /* by the next one: its children are told so when they drain */
    struct process_plan plan;
    struct slot *slots;
    size_t slot_count;
    struct process *processes;
    struct listener **listeners; /* plan.listen_count; NULL once given back */
};

/* Takes the plan over if it succeeds. */
MUST_CHECK enum result generation_new(struct master *master, unsigned number, const struct process_plan *plan,
                                      struct generation **generation, struct failure *why);
/* Forks all children. */
MUST_CHECK enum result generation_start(struct generation *generation, struct failure *why);
/* Frees it; in a child, everything but its own plan and processes' shared state. */
void generation_free(struct generation *generation, bool release_plan);
/* Heartbeats, deadlines, replacements, and whose turn it is to drain. */
void generation_check(struct generation *generation, uint64_t now);
/* What follows from a change of a process. */
void generation_process_ready(struct process *process);
void generation_process_leaving(struct process *process);
void generation_process_ended(struct slot *slot, bool was_current, bool was_ready, const struct failure *why);
/* The name of a kind whose work nobody does: all of its children hang, or have been missing for longer than
 * one may take to start. NULL: there is none. */
const char *generation_dead_kind(const struct generation *generation, uint64_t now);
/* Who accepts on what, told to whom it changed for. */
void generation_assign(struct generation *generation);
/* Gives its sockets back (those that no other generation uses are retired) and lets its children drain. */
void generation_drain(struct generation *generation, uint64_t timeout);
/* Ends at once: by message, or by SIGKILL. */
void generation_end(struct generation *generation);
void generation_kill(struct generation *generation);

/* ---- The master. */

enum { MASTER_SIGNALS = 5 };

struct master {
    const struct process_program *program;
    struct log *log;
    struct event_base *base;
    struct event *signals[MASTER_SIGNALS];
    struct event *tick;
    struct metrics_row *row;
    struct inherited *inherited; /* until the first generation has its listeners */
    struct listener *listeners;
    struct generation *generations; /* newest first */
    struct generation *active;      /* has the sockets */
    struct generation *starting;    /* will have them */
    unsigned last_number;
    bool reload_wanted;
    bool ending;
    int status;
    uint64_t clock_read; /* CLOCK_MONOTONIC when last read */
    uint64_t clock;      /* master_now */
    uint64_t stall_kill; /* when a child was last killed for stalling */
    uint64_t watchdog;   /* how often the service manager is told that all is well; 0: never */
    uint64_t watchdog_fed;
    bool watchdog_starves; /* and the log says why */
    bool records_taken[PROCESS_STATUS_MAX];
};

/*
 * The master's own time: CLOCK_MONOTONIC, but it advances at most MASTER_CLOCK_STEP from one look to the
 * next, so that time in which the master itself did not run (the machine was stopped or the configuration
 * took long to read) is not held against the children. Never 0.
 */
uint64_t master_now(struct master *master);
void master_generation_ready(struct generation *generation);
void master_generation_failed(struct generation *generation, const struct failure *why);
/* What is left to do when the cause has been dealt with: frees generations that have ended, starts the reload
 * that waits. */
void master_settle(struct master *master);
/* In a child: lets go of all that is the master's but its own process, generation and plan's memory. */
void master_forget(struct master *master, const struct generation *keep);
void master_count(struct master *master, size_t metric, uint64_t amount);
void master_gauge(struct master *master, size_t metric, int64_t by);

enum {
    METRIC_CHILDREN,
    METRIC_CURRENT,
    METRIC_RESTARTED,
    METRIC_STALLED,
    METRIC_RELOAD_OK,
    METRIC_RELOAD_FAILED
};

/* ---- The child. */

/* In the new process, with all signals blocked: becomes the child and never returns. control is its end of
 * the pair. */
_Noreturn void child_become(struct process *self, int control);

/* Tells the service manager (sd_notify's protocol), if there is one: "READY=1", and in one line what an
 * operator is shown of it. */
void process_notify(const char *state, const char *format, ...) PRINTF(2, 3);
/* Tells it that all is well. */
void process_notify_alive(void);
/* How soon after the last of these it takes us for hung, in microseconds; 0: it never does. */
uint64_t process_watchdog(void);
/* What the master can do without, as it must go on reading files and forking: gaining privileges by executing
 * something, core dumps, being traced. */
MUST_CHECK enum result process_guard_master(struct failure *why);
/* Soft limit of descriptors up to the hard one. */
void process_raise_descriptors(void);

#endif
