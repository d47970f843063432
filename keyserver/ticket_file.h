/*
 * The file of a ticket_state. What follows from another configuration replaces it as a whole, which takes a
 * start's privileges; the chain goes on within the file that is there, through a descriptor, so that an
 * earlier value is not only unlinked but overwritten.
 */
#ifndef KEYLESS_KEYSERVER_TICKET_FILE_H
#define KEYLESS_KEYSERVER_TICKET_FILE_H

#include "common/result.h"
#include "keyserver/ticket_state.h"

/* RESULT_CONFIG, naming the file: not there, not its owner's alone, damaged. state is cleared by the caller
 * in any case. */
MUST_CHECK enum result ticket_file_read(const char *path, struct ticket_state *state, struct failure *why);

/* Puts the state in the place of what is there, which is overwritten; mode 0600, and its owner. */
MUST_CHECK enum result ticket_file_replace(const char *path, const struct ticket_state *state,
                                           struct failure *why);

/* Whether it could be replaced, as far as that shows without doing it. */
MUST_CHECK enum result ticket_file_check(const char *path, struct failure *why);

/* For ticket_file_store_chain. */
MUST_CHECK enum result ticket_file_open(const char *path, int *fd, struct failure *why);

/* Writes the state's chain over the one in the file. RESULT_AGAIN: another file has replaced this one. */
MUST_CHECK enum result ticket_file_store_chain(int fd, const struct ticket_state *state, struct failure *why);

#endif
