/* What confined processes try, each attempt in a process of its own, and what must become of it. */
#ifndef KEYLESS_TESTS_UNIT_SUPPORT_ATTEMPTS_H
#define KEYLESS_TESTS_UNIT_SUPPORT_ATTEMPTS_H

#include <netinet/in.h>
#include <stdbool.h>

#include "common/sandbox.h"

/* What there is before the process is confined. */
struct attempt_world {
    int pid, other;             /* the process's own, and another's */
    int stream;                 /* a TCP socket that is not connected yet */
    int listener;               /* a TCP socket that listens; nobody waits on it */
    struct sockaddr_in address; /* its */
    int pair[2];                /* connected Unix sockets */
    void *page;                 /* of memory, readable and writable */
};

/* Outcomes beside errno values, which are positive. */
enum { ATTEMPT_DONE = 0, ATTEMPT_KILLED = -1 };

struct attempt {
    const char *name;
    int (*attempt)(const struct attempt_world *world); /* 0: it was done; an errno: it failed */
    int outcome;
    bool strict; /* only where sandbox_is_strict */
};

/* Skips the test where there can be no filter: a kernel without, or a build without libseccomp. */
void attempts_need_filter(void);

/* Fails the test unless every attempt has the outcome of its row under this profile; of those that kill, the
 * number of the call must be told too. Skips it as attempts_need_filter does. */
void attempts_check(const struct sandbox_profile *profile, const struct attempt *attempts, size_t count);
/* What no process of ours may do, whatever its kind, and what all must be able to. */
void attempts_check_common(const struct sandbox_profile *profile);

/* For rows of one kind. */
int attempt_socket_inet(const struct attempt_world *world);
int attempt_socket_inet6(const struct attempt_world *world);
int attempt_socket_unix(const struct attempt_world *world);
int attempt_socketpair(const struct attempt_world *world);
int attempt_connect(const struct attempt_world *world);
int attempt_accept(const struct attempt_world *world);
int attempt_getsockname(const struct attempt_world *world);
int attempt_getppid(const struct attempt_world *world);

#endif
