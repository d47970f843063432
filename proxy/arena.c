#include "proxy/arena.h"

#include <stdalign.h>

#include <sys/mman.h>

#define BLOCK_SIZE ((size_t)256 * 1024)
#define ALIGNMENT  alignof(max_align_t)

struct arena_block {
    struct arena_block *before;
    size_t size;
};

static size_t aligned(size_t size)
{
    return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static struct arena_block *block_new(size_t size, struct arena_block *before)
{
    void *pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED)
        return NULL;
    struct arena_block *block = pages;
    *block = (struct arena_block){.before = before, .size = size};
    return block;
}

void *arena_take(struct arena *arena, size_t size)
{
    size_t head = aligned(sizeof(struct arena_block)), wanted = aligned(size);
    if (arena->last == NULL || arena->last->size - arena->used < wanted) {
        struct arena_block *block =
            block_new(head + wanted > BLOCK_SIZE ? head + wanted : BLOCK_SIZE, arena->last);
        if (block == NULL)
            return NULL;
        arena->last = block;
        arena->used = head;
    }
    void *taken = (char *)arena->last + arena->used;
    arena->used += wanted;
    return taken;
}

void arena_clear(struct arena *arena)
{
    while (arena->last != NULL) {
        struct arena_block *block = arena->last;
        arena->last = block->before;
        (void)munmap(block, block->size);
    }
    arena->used = 0;
}
