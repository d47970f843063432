/*
 * Memory for many things that live equally long: taken from the kernel in large pieces and given back whole.
 * A process that lets go of what it shares with its parent writes nothing into it, and so makes no copy of
 * it; and what a reload gives back the kernel gets.
 */
#ifndef KEYLESS_PROXY_ARENA_H
#define KEYLESS_PROXY_ARENA_H

#include <stddef.h>

struct arena_block;

/* All zero: empty. */
struct arena {
    struct arena_block *last;
    size_t used; /* octets of the last block */
};

/* Zeroed memory, aligned for anything. NULL: there is none. */
void *arena_take(struct arena *arena, size_t size);
void arena_clear(struct arena *arena);

#endif
