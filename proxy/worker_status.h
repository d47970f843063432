/*
 * What a worker tells of itself in shared memory, ten times a second: a record of a status area, one for each
 * worker of a generation, by index. Plain values; a worker that was broken into may have written anything.
 */
#ifndef KEYLESS_PROXY_WORKER_STATUS_H
#define KEYLESS_PROXY_WORKER_STATUS_H

#include <stddef.h>
#include <stdint.h>

#include "common/result.h"
#include "common/status_area.h"

#define KEY_SERVER_FAILURE_SIZE 224

/* A key server as the worker sees it. */
struct key_server_status {
    uint32_t up;        /* 1: its channel is ready for use */
    uint32_t in_flight; /* requests sent and not yet answered */
    uint64_t latency;   /* microseconds, smoothed; 0: not known */
    uint32_t breaker;   /* enum key_breaker */
    uint32_t lied;      /* 1: its signatures are not trusted */
    int64_t failed;     /* time(2) of the last failure; 0: none */
    char failure[KEY_SERVER_FAILURE_SIZE];
};

struct worker_status {
    int64_t pid;          /* the record is that of this process */
    uint32_t connections; /* open */
    uint32_t pending;     /* signatures that handshakes wait for */
    struct key_server_status servers[];
};

static inline size_t worker_status_size(size_t servers)
{
    return sizeof(struct worker_status) + servers * sizeof(struct key_server_status);
}

#endif
