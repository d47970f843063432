/*
 * What front ends and the signer tell of themselves in shared memory, for the admin endpoint. Plain values in
 * status areas of one generation; a process that was broken into may have written anything, and nothing here
 * is ever read by the signer.
 */
#ifndef KEYLESS_KEYSERVER_STATUS_RECORDS_H
#define KEYLESS_KEYSERVER_STATUS_RECORDS_H

#include <stddef.h>
#include <stdint.h>

#include "common/key_id.h"

/* Keys shown one by one; of more than these only the number is told. */
#define STATUS_KEYS_MAX   1000
#define STATUS_LABEL_SIZE 96

/* One for each front end, by index. */
struct frontend_status {
    int64_t pid;          /* the record is that of this process */
    uint32_t connections; /* those in their handshake included */
    uint32_t serving[];   /* open, by client entry */
};

static inline size_t frontend_status_size(size_t clients)
{
    return sizeof(struct frontend_status) + clients * sizeof(uint32_t);
}

/* The signer's only one. */
struct signer_status {
    int64_t pid;
    uint32_t keys;
};

/* One for each of its first STATUS_KEYS_MAX keys. */
struct key_status {
    int64_t pid;   /* the signer that has it */
    uint32_t type; /* enum key_type */
    uint8_t ski[KEY_ID_SKI_SIZE];
    char label[STATUS_LABEL_SIZE];
};

#endif
