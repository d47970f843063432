/* The process that serves the admin endpoint, whatever else it may do: from the fork to its end. */
#ifndef KEYLESS_COMMON_ADMIN_PROCESS_H
#define KEYLESS_COMMON_ADMIN_PROCESS_H

#include "common/admin.h"
#include "common/process.h"

/* For process_kind.run of a kind that accepts on the admin address: drops privileges to user, serves on the
 * listening sockets that the master gives it, and returns the exit status. message is child_handler's, with
 * the source as its owner; it may be NULL. */
int admin_process_run(struct child *child, const char *user, const struct metrics *metrics,
                      struct admin_source *source,
                      void (*message)(const struct child_message *message, void *source));

/* What it may do once it has started; and its rules, for a profile of a process that does more. */
extern const struct sandbox_profile admin_process_sandbox;
#define ADMIN_PROCESS_RULES                                                                                  \
    SANDBOX_ALLOW("accept4"), SANDBOX_ALLOW("getsockname"), SANDBOX_ALLOW("getpeername"),                    \
        SANDBOX_ALLOW("getppid") /* /status shows the master's */

#endif
