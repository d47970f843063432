/*
 * What a process may still ask the kernel for once its start-up work is done, and before it handles the first
 * octet from outside: a seccomp filter over system calls (with libseccomp, if there is one where this is
 * built) and Landlock rules over files, TCP and other processes (if the kernel has them).
 *
 * A profile tells what one kind of process needs beside what every process of ours needs. All other system
 * calls end the process by SIGSYS, and its master says which call it was; a few that the C library only tries
 * get an error instead. Nothing of it can be taken back, by the process itself or by whoever has taken it
 * over.
 *
 * No profile allows: opening a file, executing a program, forking, tracing, signals to other processes,
 * memory that is executable. In builds with the address sanitizer the filter lets pass what the sanitizer
 * needs to report, reading files and tracing itself among it (sandbox_is_strict).
 */
#ifndef KEYLESS_COMMON_SANDBOX_H
#define KEYLESS_COMMON_SANDBOX_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/result.h"

#define SANDBOX_TESTS 3

/* Of one argument: (argument & mask) == value. A mask of 0 ends the list. */
struct sandbox_test {
    unsigned argument;
    uint64_t mask, value;
};

/* A system call by name; one that this machine does not have is left out. Several rules for one call with
 * different tests are alternatives. */
struct sandbox_rule {
    const char *call;
    int error; /* 0: allowed; otherwise it is not done and fails with this */
    struct sandbox_test tests[SANDBOX_TESTS];
    bool own_process; /* allowed only with the process's own id as first argument */
};

struct sandbox_profile {
    const struct sandbox_rule *rules; /* beside those of every process */
    size_t rule_count;
    bool connects; /* over TCP, as a client */
};

/* For tables of rules. An int or unsigned argument has 32 bits, whatever stands in the others. */
#define SANDBOX_ALLOW(call_)                                                                                 \
    {                                                                                                        \
        .call = (call_)                                                                                      \
    }
#define SANDBOX_REFUSE(call_, error_)                                                                        \
    {                                                                                                        \
        .call = (call_), .error = (error_)                                                                   \
    }
#define SANDBOX_ARGUMENT(number, value_)                                                                     \
    {                                                                                                        \
        .argument = (number), .mask = UINT32_MAX, .value = (value_)                                          \
    }
#define SANDBOX_BITS(number, mask_, value_)                                                                  \
    {                                                                                                        \
        .argument = (number), .mask = (mask_), .value = (value_)                                             \
    }

/* What could be applied. */
struct sandbox_state {
    bool filter;       /* system calls */
    unsigned landlock; /* the version of its rules that is in force; 0: none */
};

/* The last system call that a filter ended a process for, plus one; 0: none. In memory that is shared with
 * the master, which so learns the number. */
typedef _Atomic uint32_t sandbox_culprit;

/*
 * Landlock, for this thread and those that it makes from now on; so before a process makes threads. No file
 * can be opened or changed by name any more (Unix sockets can be connected to), no TCP port bound, none
 * connected to unless the profile connects, no process outside traced or (version 6) signalled. A kernel that
 * cannot is no failure. no_new_privs must be set.
 */
MUST_CHECK enum result sandbox_restrict_files(const struct sandbox_profile *profile,
                                              struct sandbox_state *state, struct failure *why);

/*
 * The filter, for all threads of the process. culprit may be NULL, and must stay where it is. A kernel, or a
 * build, that cannot is no failure. no_new_privs must be set.
 */
MUST_CHECK enum result sandbox_filter_calls(const struct sandbox_profile *profile, sandbox_culprit *culprit,
                                            struct sandbox_state *state, struct failure *why);

/* Why there is no filter in this state: a sentence; NULL: there is one. */
const char *sandbox_filter_lack(const struct sandbox_state *state);
/* The same of Landlock. */
const char *sandbox_landlock_lack(const struct sandbox_state *state);

/* False: a build with a sanitizer, whose own calls pass the filter. */
bool sandbox_is_strict(void);

/* "59 (execve)", as far as it can be told; of the call that culprit holds. Empty: none. */
#define SANDBOX_CALL_SIZE 40
void sandbox_culprit_format(uint32_t culprit, char text[static SANDBOX_CALL_SIZE]);

/* The state in one number, for messages and shared memory; any number means some state. */
uint32_t sandbox_state_pack(const struct sandbox_state *state);
struct sandbox_state sandbox_state_unpack(uint32_t packed);

#endif
