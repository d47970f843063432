/* Sockets as both programs want them: non-blocking, close-on-exec, with errors that name the address. */
#ifndef KEYLESS_COMMON_SOCKET_H
#define KEYLESS_COMMON_SOCKET_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/address.h"
#include "common/result.h"

struct socket_listen_options {
    int backlog;
    bool reuse_port;  /* SO_REUSEPORT: several sockets on one address (not for Unix sockets) */
    mode_t unix_mode; /* permissions of a Unix socket's file; 0: 0660 */
};

/*
 * A listening socket. A stale Unix socket file (nobody answers on it) is replaced; a live one is an error.
 * IPv6 sockets are IPv6 only.
 */
MUST_CHECK enum result socket_listen(const struct address *address,
                                     const struct socket_listen_options *options, int *fd,
                                     struct failure *why);

/* Accepts one connection. RESULT_AGAIN: none queued. RESULT_LIMIT: out of descriptors or memory (EMFILE,
 * ENFILE, ENOBUFS, ENOMEM). Transient network errors (ECONNABORTED, EPROTO, ...) are skipped over. TCP gets
 * TCP_NODELAY. */
MUST_CHECK enum result socket_accept(int listener, int *fd, struct address *peer, struct failure *why);

/* Starts a connection: RESULT_OK, connected or under way (wait for writability, then ask socket_error). */
MUST_CHECK enum result socket_connect(const struct address *address, int *fd, struct failure *why);

/* SO_ERROR of the socket, cleared: 0 or an errno. */
int socket_error(int fd);

/* A connected pair of Unix sockets; type SOCK_STREAM or SOCK_SEQPACKET. */
MUST_CHECK enum result socket_pair(int type, int fds[2], struct failure *why);

/* Sends one datagram of at most 4096 octets with at most one descriptor (-1: none) over a Unix socket. */
MUST_CHECK enum result socket_send_message(int socket, const void *data, size_t size, int descriptor,
                                           struct failure *why);
/* Receives one; *size is the buffer's size, then the datagram's. *descriptor is -1 or owned by the caller.
 * RESULT_AGAIN: none there; RESULT_PEER: the other end is closed. */
MUST_CHECK enum result socket_receive_message(int socket, void *data, size_t *size, int *descriptor,
                                              struct failure *why);

/* Closes *fd if it is one and sets it to -1: for CLEANUP. */
void socket_close(int *fd);

#endif
