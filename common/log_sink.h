/* Where log lines go: writes that never wait, and a count of the lines that could not be written. For log.c.
 */
#ifndef KEYLESS_COMMON_LOG_SINK_H
#define KEYLESS_COMMON_LOG_SINK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/bytes.h"

enum log_sink_kind {
    LOG_SINK_FILE,   /* regular files and devices: write(2) does not wait for a reader */
    LOG_SINK_SOCKET, /* MSG_DONTWAIT: journald */
    LOG_SINK_PIPE,   /* RWF_NOWAIT, which pipes know since Linux 6.4 */
    LOG_SINK_POLL,   /* terminals, and pipes of older kernels: asked with poll(2) before each write */
};

struct log_sink {
    int fd; /* borrowed */
    enum log_sink_kind kind;
    bool torn;     /* the last line was cut in the middle */
    uint64_t lost; /* lines not written since the caller last set it to 0 */
};

void log_sink_init(struct log_sink *sink, int fd);

/* Writes a line, its newline included. false: it was lost, and counted. */
bool log_sink_write(struct log_sink *sink, struct bytes line);

#endif
