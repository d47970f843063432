/*
 * Listening sockets that a service manager has opened for this program and passed on: sd_listen_fds(3). They
 * stay open there when the program ends, so a restart refuses nobody, and the program needs no privilege to
 * have them.
 *
 * The environment is read once, and what it says of them is taken out of it. Each socket goes to the first
 * address that asks for it; what nobody has asked for by the time the addresses are known is closed.
 */
#ifndef KEYLESS_COMMON_INHERITED_H
#define KEYLESS_COMMON_INHERITED_H

#include <stddef.h>

#include "common/address.h"
#include "common/log.h"
#include "common/result.h"

struct inherited;

/* *inherited is NULL when there are none. RESULT_CONFIG: one of them is not a listening stream socket, or the
 * environment makes no sense. */
MUST_CHECK enum result inherited_take(struct inherited **inherited, struct failure *why);

/* How many there are for this address: bound to just that. */
size_t inherited_count(const struct inherited *inherited, const struct address *address);
/* Gives them away, non-blocking and close-on-exec: fds has room for inherited_count. */
void inherited_use(struct inherited *inherited, const struct address *address, int *fds);

/* Closes what is left, with a warning for each if there is a log. NULL is allowed. */
void inherited_free(struct inherited *inherited, struct log *log);

#endif
