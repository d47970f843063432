/*
 * Records in memory that the processes of a program share: what a process tells of itself, for another to
 * show. A record has one writer at a time, and any number of readers, who get the last one that was written
 * whole; nobody ever waits, not even for a writer that was killed half-way.
 *
 * Whoever reads must not trust what it gets: the writer may have been broken into.
 */
#ifndef KEYLESS_COMMON_STATUS_AREA_H
#define KEYLESS_COMMON_STATUS_AREA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/result.h"

struct status_area;

/* Made by the master before it forks those who write and read. Records begin as not there. */
MUST_CHECK enum result status_area_new(size_t record_size, size_t count, struct status_area **area,
                                       struct failure *why);
/* This process's view; NULL is allowed. */
void status_area_free(struct status_area *area);

/* NULL: none. */
size_t status_area_count(const struct status_area *area);
/* record has record_size octets. An area that is NULL, or an index out of bounds: nothing happens. */
void status_area_write(struct status_area *area, size_t index, const void *record);
/* The record is no longer there. */
void status_area_clear(struct status_area *area, size_t index);
/* Another number than before: another record has been written. 0: none ever was. */
uint64_t status_area_version(const struct status_area *area, size_t index);
/* False: it is not there. */
MUST_CHECK bool status_area_read(const struct status_area *area, size_t index, void *record);

/* Keeps the record's memory from being swapped out, in this process. False: the limit is too low. */
MUST_CHECK bool status_area_lock(const struct status_area *area, size_t index);

#endif
