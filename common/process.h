/*
 * Masters, generations and children: what both programs are made of.
 *
 * The master reads the configuration, binds the listening sockets and forks; it parses nothing that comes
 * from the network. The children of one reading of the configuration are a generation. A reload is a new
 * generation: when all of its children are ready it gets the listening sockets, and the old one drains and
 * ends. If the new configuration is bad, or one of the new children fails to become ready, the old generation
 * goes on and the log says why.
 *
 * Sockets and children are separate things. An address has S listening sockets (SO_REUSEPORT; S = cores, at
 * least 4; a Unix socket has one). S covers the children that accept at the first bind, too. Every child of a
 * kind that accepts inherits them all, and is told by the master which it accepts on: socket i belongs to
 * live child i mod n; where there are fewer than children, all accept on all of them. When a child dies or
 * stalls, its sockets go to others at once. They are bound once and kept over reloads, matched by address as
 * the plan writes it. Port 0 is chosen by the kernel at the first bind, the same for all sockets of the
 * address. An address for which a service manager has passed on sockets (inherited.h) has those instead.
 *
 * Master and child talk over a SOCK_SEQPACKET pair; a child whose master has gone drains and ends. A child
 * shows that it is alive by a heartbeat in shared memory, written by a timer of its event loop. Without one
 * for 400 ms it loses its sockets until it beats again; without one for stall_timeout it is killed (SIGABRT,
 * then SIGKILL) and replaced.
 *
 * Signals of the master: SIGHUP reload, SIGTERM and SIGINT drain and end, SIGQUIT end at once. Children are
 * replaced when they end unasked: at once the first time, with a growing delay (100 ms .. 5 s) when they end
 * again within 10 s. SIGTERM makes a child drain, and the master replaces it; children ignore SIGHUP, SIGINT
 * and SIGPIPE.
 *
 * What drains is told in order: a kind that others link to only when the last of those has ended.
 *
 * A service manager is told when the program is ready, reloads and ends; and, if it wants, that all is well:
 * while each kind of the active generation has a child that beats, or one that takes its place in time.
 */
#ifndef KEYLESS_COMMON_PROCESS_H
#define KEYLESS_COMMON_PROCESS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <event2/event.h>

#include "common/address.h"
#include "common/log.h"
#include "common/metrics.h"
#include "common/result.h"
#include "common/sandbox.h"

struct child;
struct master;
struct status_area;

/* What a program's processes tell each other besides, over the control pair. */
struct child_message {
    size_t kind; /* of the child that it comes from, or goes to: both as in the plan */
    unsigned index;
    uint32_t what; /* the program's own, as is the number */
    uint64_t number;
    int descriptor; /* -1: none; a child sends none */
};

/* ---- What a program tells its master. */

struct process_kind {
    const char *name; /* "worker", "frontend", "signer" */
    unsigned count;
    bool accepts; /* gets listening sockets: those of its addresses */
    /* The kind of which every child of this one gets a link (a stream socket pair) to every child; or -1. The
     * link's ends reach both through child_handler.link, again whenever one of the two was replaced;
     * never the own kind. */
    int links_to;
    bool auxiliary; /* the program does its work without: the watchdog does not starve when it stands still */
    const struct sandbox_profile *sandbox; /* what child_start leaves it; NULL: everything */
    /* The child's life. Runs in the new process, still with the master's privileges; sets up, drops
     * privileges (process_drop_privileges), calls child_start and child_ready, and runs child_loop.
     * Its result is the exit status (0: ended as asked). It frees what it made; the config is released later.
     */
    int (*run)(struct child *child, const void *config);
};

/* One reading of the configuration. No address twice in listen; at least one child in all. */
struct process_plan {
    void *config;
    const struct process_kind *kinds;
    size_t kind_count;
    const struct address *listen; /* addresses to bind */
    size_t listen_count;
    /* For each of them the kind that accepts on it (an admin address is not the workers'); NULL: the first
     * kind that accepts has them all. */
    const size_t *listen_kind;
    int listen_backlog;
    mode_t unix_mode;       /* permissions of Unix sockets; 0: 0660 */
    gid_t unix_group;       /* their group; 0: the master's */
    uint64_t drain_timeout; /* microseconds; then draining children are ended; 0: never */
    uint64_t ready_timeout; /* microseconds that a new generation, or a replaced child, may take; 0: any */
    uint64_t stall_timeout; /* microseconds without a heartbeat until a child is replaced; 0: 10 s */
    bool sandbox;           /* confine children as their kinds say */
    struct log_settings log;
};

/* The rows that the master keeps, for the program's table of metrics; they stand together, in this order. */
/* clang-format off */
#define PROCESS_METRIC_ROWS                                                                                \
    {"keyless_children", NULL, METRIC_GAUGE, "Child processes, draining ones included."},                  \
    {"keyless_generation", NULL, METRIC_GAUGE, "Number of the reading of the configuration in use."},      \
    {"keyless_children_restarted_total", NULL, METRIC_COUNTER, "Children that ended unasked."},            \
    {"keyless_children_stalled_total", NULL, METRIC_COUNTER, "Times that a child's heartbeat stopped."},   \
    {"keyless_reloads_total", "outcome=\"ok\"", METRIC_COUNTER, "Reloads of the configuration."},          \
    {"keyless_reloads_total", "outcome=\"failed\"", METRIC_COUNTER, "Reloads of the configuration."}
/* clang-format on */
#define PROCESS_METRIC_COUNT 6

struct process_program {
    const char *name; /* "proxy", "keyserver" */
    /* Reads everything, whole or not at all. The plan's memory is the program's, given back through release
     * once its generation has ended. Called at the start and at each SIGHUP. release is also called in a
     * child, for its copies of plans: it frees memory and closes descriptors, nothing else. */
    enum result (*load)(void *context, struct process_plan *plan, struct failure *why);
    void (*release)(void *context, struct process_plan *plan);
    /* Whether what the old plan's children still do must not go on beside the new plan's: they are then told
     * so when they are told to drain. NULL: never. */
    bool (*supersedes)(const void *old_config, const void *new_config);
    /* In the master, ten times a second or so. NULL: nothing. */
    void (*tick)(void *context);
    /* The plan's generation is about to get the sockets: what its children are told now (master_tell) they
     * hear before they accept. NULL: nothing. */
    void (*activated)(void *context, struct master *master, const struct process_plan *plan);
    /* A child of the plan with this config says something (child_tell); it may be one that was taken over.
     * NULL: it is not heard. */
    void (*heard)(void *context, struct master *master, const void *config,
                  const struct child_message *message);
    void *context;
    struct metrics *metrics;       /* may be NULL */
    size_t first_metric;           /* the id of the first of PROCESS_METRIC_ROWS in its table */
    struct status_area *processes; /* of process_status_new: what the children are doing; may be NULL */
};

/* Runs the master until it is told to end: the program's exit status (0, 1 or 2). */
int master_run(const struct process_program *program, struct log *log);

/* Tells a child, or with index MASTER_TELL_ALL each of the kind, of the generation that was made from config,
 * if it is there and does not drain. The descriptor stays the caller's. */
#define MASTER_TELL_ALL UINT_MAX
void master_tell(struct master *master, const void *config, const struct child_message *message);
/* What the master itself counts in; NULL: nothing. */
struct metrics_row *master_metrics(const struct master *master);

/* ---- What a child has. */

/* Why a child is to end. */
enum child_drain {
    DRAIN_REPLACED,   /* others have its place, and time to spare for it */
    DRAIN_SUPERSEDED, /* ... but what it allows is no longer allowed (process_program.supersedes) */
    DRAIN_ORPHANED,   /* the master has gone */
};

struct child_handler {
    /* Accept on exactly these sockets from now on; their meaning: child_listener. May be none. Sockets that
     * are not in the list are left alone, not closed: no event on them is left when this returns. NULL: does
     * not accept. */
    void (*listen)(const size_t *sockets, size_t count, void *owner);
    /* Listening socket is no longer wanted: accept until EAGAIN, if the child was accepting on it; then it is
     * closed by the caller, so no event on it is left when this returns. */
    void (*retire)(size_t socket, void *owner);
    /* A link to child `index` of the kind linked (both as in the plan); fd is owned by the callee. One that
     * was there before for the same kind and index leads to a process that is dead or draining: start nothing
     * new on it. It ends by EOF; closing it at once is legal too. NULL: the kind has no links. */
    void (*link)(size_t kind, unsigned index, int fd, void *owner);
    /* End when the work is done: accept nothing new (listen or retire was called before), finish, then call
     * child_end. With DRAIN_ORPHANED nobody keeps the order of draining: a kind that others link to goes on
     * until its links have closed. Called once. NULL: ends at once. */
    void (*drain)(enum child_drain why, void *owner);
    /* The program's master says something (master_tell); the descriptor, if there is one, is owned by the
     * callee. NULL: it is not heard. */
    void (*message)(const struct child_message *message, void *owner);
    /* With each heartbeat, ten times a second or so: for what others look at (status). NULL: nothing. */
    void (*tick)(void *owner);
};

/* The event loop: EVENT_BASE_FLAG_PRECISE_TIMER, made after the fork. */
struct event_base *child_base(struct child *child);
struct log *child_log(struct child *child);
struct metrics_row *child_metrics(struct child *child);
unsigned child_index(const struct child *child);
unsigned child_generation(const struct child *child);

/* Listening socket number i (-1: closed, drained or retired), and the index in plan.listen of its address;
 * only those of the child's kind. */
size_t child_listener_count(const struct child *child);
int child_listener_fd(const struct child *child, size_t socket);
size_t child_listener_address(const struct child *child, size_t socket);

/*
 * Confines this thread, and those it makes from now on, as to files (sandbox_restrict_files). For kinds that
 * make threads before child_start, which does it otherwise; after process_drop_privileges.
 */
MUST_CHECK enum result child_restrict_files(struct child *child, struct failure *why);

/*
 * The start-up work is done: nothing from outside has been handled before, and from now on the process is
 * confined as its kind says (sandbox.h), which the log and the status tell. The loop hears the master.
 * Handler and owner must live until child_loop has returned.
 */
void child_start(struct child *child, const struct child_handler *handler, void *owner);
/* Tells the master that this child can do its work: it gets its sockets. Before child_loop or from within. */
void child_ready(struct child *child);
/* Tells the master why this child cannot; run then returns non-zero. During a start or reload it fails the
 * generation. */
void child_failed(struct child *child, const struct failure *why);
/* Tells the master something (process_program.heard). */
void child_tell(struct child *child, uint32_t what, uint64_t number);
/* Runs the loop until child_end. Returns run's result: the status that child_end was given. */
int child_loop(struct child *child);
void child_end(struct child *child, int status);

/*
 * Becomes user (NULL: nobody) for good, with its groups, if started as root; otherwise the user stays and the
 * name is not looked up. In any case afterwards: no capabilities, no_new_privs, no core dumps, not traceable
 * (PR_SET_DUMPABLE 0). RESULT_CONFIG: no such user, or one with root's id.
 */
MUST_CHECK enum result process_drop_privileges(const char *user, struct failure *why);
/* RESULT_CONFIG: that would refuse this user. For a master that has not forked yet. */
MUST_CHECK enum result process_check_user(const char *user, struct failure *why);
/* Whether children become another user than the present one, and which. */
bool process_changes_user(const char *user, uid_t *id);
/* Says once, if it is so, that children run as nobody because no user is set. */
void process_tell_user(const char *user, bool *told, struct log *log);
/* No core dumps, not traceable: at once, for who reads keys before dropping privileges. */
MUST_CHECK enum result process_forbid_dumps(struct failure *why);

/* Opens /dev/null in place of standard descriptors that are closed: otherwise something of ours would take
 * their numbers, and lines of the log would go into it. First of all in main. */
void process_keep_standard_descriptors(void);

/* Cores that this process may use: what "auto" means. */
unsigned process_cores(void);

#endif
