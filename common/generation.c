#include "common/process_private.h"

#include <stdio.h>
#include <stdlib.h>

#include "common/socket.h"

/* ---- Making and freeing */

static size_t count_children(const struct process_plan *plan)
{
    size_t count = 0;
    for (size_t i = 0; i < plan->kind_count; i++)
        count += plan->kinds[i].count;
    return count;
}

static void name_slot(struct slot *slot, struct generation *generation, size_t kind, unsigned index)
{
    *slot = (struct slot){.generation = generation, .kind = kind, .index = index};
    (void)snprintf(slot->name, sizeof slot->name, "%.24s/%u", generation->plan.kinds[kind].name, index);
}

static void fill_slots(struct generation *generation)
{
    size_t next = 0;
    for (size_t kind = 0; kind < generation->plan.kind_count; kind++)
        for (unsigned i = 0; i < generation->plan.kinds[kind].count; i++)
            name_slot(&generation->slots[next++], generation, kind, i);
}

static void free_memory(struct generation *generation)
{
    if (generation == NULL)
        return;
    free(generation->listeners);
    free(generation->slots);
    free(generation);
}

static struct generation *allocate(const struct process_plan *plan)
{
    struct generation *generation = calloc(1, sizeof *generation);
    if (generation == NULL)
        return NULL;
    generation->plan = *plan;
    generation->slot_count = count_children(plan);
    generation->slots = calloc(generation->slot_count, sizeof(struct slot));
    generation->listeners = calloc(plan->listen_count + 1, sizeof(struct listener *));
    if (generation->slots != NULL && generation->listeners != NULL) {
        fill_slots(generation);
        return generation;
    }
    free_memory(generation);
    return NULL;
}

enum result generation_new(struct master *master, unsigned number, const struct process_plan *plan,
                           struct generation **generation, struct failure *why)
{
    if (count_children(plan) == 0)
        return failure_set(why, RESULT_CONFIG, "the configuration asks for no processes");
    struct generation *made = allocate(plan);
    if (made == NULL)
        return failure_set(why, RESULT_LIMIT, "no memory for a generation");
    made->master = master;
    made->number = number;
    enum result result =
        listeners_acquire(&master->listeners, master->inherited, plan, made->listeners, master->log, why);
    if (result == RESULT_OK)
        *generation = made;
    else
        free_memory(made);
    return result;
}

void generation_free(struct generation *generation, bool release_plan)
{
    const struct process_program *program = generation->master->program;
    while (generation->processes != NULL) {
        struct process *process = generation->processes;
        generation->processes = process->next;
        process_free(process, false);
    }
    if (release_plan)
        program->release(program->context, &generation->plan);
    free_memory(generation);
}

/* ---- Links */

static bool kinds_are_linked(const struct process_plan *plan, size_t a, size_t b)
{
    return a != b && (plan->kinds[a].links_to == (int)b || plan->kinds[b].links_to == (int)a);
}

static enum result link_processes(struct process *a, struct process *b, struct failure *why)
{
    int ends[2];
    enum result result = socket_pair(SOCK_STREAM, ends, why);
    if (result != RESULT_OK)
        return result;
    process_tell(a, MESSAGE_LINK, (uint32_t)b->slot->kind, b->slot->index, ends[0]);
    process_tell(b, MESSAGE_LINK, (uint32_t)a->slot->kind, a->slot->index, ends[1]);
    socket_close(&ends[0]);
    socket_close(&ends[1]);
    return RESULT_OK;
}

/* A new process gets its links to all that are there; those that come later bring theirs. */
static enum result link_slot(struct slot *slot, struct failure *why)
{
    struct generation *generation = slot->generation;
    for (size_t i = 0; i < generation->slot_count; i++) {
        struct slot *other = &generation->slots[i];
        if (other->process == NULL || !kinds_are_linked(&generation->plan, slot->kind, other->kind))
            continue;
        enum result result = link_processes(slot->process, other->process, why);
        if (result != RESULT_OK)
            return result;
    }
    return RESULT_OK;
}

/* ---- Starting and replacing */

static enum result start_slot(struct slot *slot, struct failure *why)
{
    enum result result = process_spawn(slot, why);
    if (result == RESULT_OK && (result = link_slot(slot, why)) != RESULT_OK)
        process_kill(slot->process);
    return result;
}

enum result generation_start(struct generation *generation, struct failure *why)
{
    for (size_t i = 0; i < generation->slot_count; i++) {
        enum result result = start_slot(&generation->slots[i], why);
        if (result != RESULT_OK)
            return result;
    }
    return RESULT_OK;
}

/* At once the first time, later and later when it ends again soon. */
static void schedule_start(struct slot *slot)
{
    uint64_t now = master_now(slot->generation->master);
    if (slot->ended == 0 || now - slot->ended >= RESTART_SETTLED)
        slot->delay = 0;
    else if (slot->delay == 0)
        slot->delay = RESTART_DELAY_MIN;
    else
        slot->delay = slot->delay * 2 < RESTART_DELAY_MAX ? slot->delay * 2 : RESTART_DELAY_MAX;
    slot->ended = now;
    slot->start_after = now + slot->delay;
    if (slot->delay > 0)
        log_warn(slot->generation->master->log, "child restarts later", log_text("child", slot->name),
                 log_number("delay_ms", (int64_t)slot->delay / MILLISECOND));
}

static void fill_empty_slots(struct generation *generation, uint64_t now)
{
    struct failure why;
    for (size_t i = 0; i < generation->slot_count && generation->state != GENERATION_DRAINING; i++) {
        struct slot *slot = &generation->slots[i];
        if (slot->process != NULL || now < slot->start_after)
            continue;
        if (start_slot(slot, &why) == RESULT_OK)
            continue;
        log_error(generation->master->log, "child cannot be started", log_reason(why.text));
        if (slot->process == NULL)
            schedule_start(slot);
    }
}

/* ---- Who accepts on what */

static bool may_accept(const struct slot *slot)
{
    return slot->process != NULL && slot->generation->plan.kinds[slot->kind].accepts &&
           slot->process->state == PROCESS_READY;
}

static bool is_accepting(const struct slot *slot)
{
    return may_accept(slot) && !slot->process->stalled;
}

static void give_share(struct process *process, uint32_t rank, uint32_t share)
{
    if (process->rank == rank && process->share == share)
        return;
    process->rank = rank;
    process->share = share;
    process_tell(process, MESSAGE_LISTEN, rank, share, -1);
}

static void assign_kind(struct generation *generation, size_t kind)
{
    uint32_t live = 0;
    uint32_t rank = 0;
    for (size_t i = 0; i < generation->slot_count; i++)
        live += generation->slots[i].kind == kind && is_accepting(&generation->slots[i]);
    /* When all of them stall, nobody is better than those who have the sockets now. */
    if (live == 0)
        return;
    for (size_t i = 0; i < generation->slot_count; i++) {
        const struct slot *slot = &generation->slots[i];
        if (slot->kind != kind)
            continue;
        if (is_accepting(slot))
            give_share(slot->process, rank++, live);
        else if (may_accept(slot))
            give_share(slot->process, 0, 0);
    }
}

void generation_assign(struct generation *generation)
{
    for (size_t i = 0; i < generation->plan.kind_count && generation->state == GENERATION_ACTIVE; i++)
        assign_kind(generation, i);
}

/* ---- Draining */

static bool is_linked_to_by_living(const struct process *process)
{
    const struct generation *generation = process->generation;
    for (const struct process *other = generation->processes; other != NULL; other = other->next)
        if (other->slot->kind != process->slot->kind &&
            process_kind_of(other)->links_to == (int)process->slot->kind)
            return true;
    return false;
}

/* A generation drains from the clients inwards; a single child when its successor works. */
static bool may_drain_now(const struct process *process)
{
    if (process->generation->state == GENERATION_DRAINING)
        return !is_linked_to_by_living(process);
    const struct process *successor = process->slot->process;
    return successor != NULL && successor->state == PROCESS_READY;
}

static void tell_to_drain(struct generation *generation)
{
    for (struct process *process = generation->processes; process != NULL; process = process->next)
        if (process->state == PROCESS_DRAINING && !process->drain_told && may_drain_now(process))
            process_drain_now(process);
}

static void retire_address(struct generation *generation, size_t address)
{
    size_t kind = listener_kind(&generation->plan, address);
    for (struct process *process = generation->processes; process != NULL; process = process->next)
        if (process->slot->kind == kind)
            process_tell(process, MESSAGE_RETIRE, (uint32_t)address, 0, -1);
}

/* Those that nobody else uses are accepted from until they are empty. The master's own copies close here. */
static void give_listeners_back(struct generation *generation)
{
    if (generation->listeners == NULL)
        return;
    for (size_t i = 0; i < generation->plan.listen_count; i++)
        if (generation->listeners[i]->users == 1) {
            listener_unlink(generation->listeners[i]);
            retire_address(generation, i);
        }
    listeners_release(&generation->master->listeners, generation->listeners, generation->plan.listen_count);
    free(generation->listeners);
    generation->listeners = NULL;
}

void generation_drain(struct generation *generation, uint64_t timeout)
{
    if (generation->state == GENERATION_DRAINING)
        return;
    generation->state = GENERATION_DRAINING;
    give_listeners_back(generation);
    for (struct process *process = generation->processes; process != NULL; process = process->next)
        process_drain(process, timeout);
    tell_to_drain(generation);
}

void generation_end(struct generation *generation)
{
    for (struct process *process = generation->processes; process != NULL; process = process->next)
        process_end(process);
}

void generation_kill(struct generation *generation)
{
    generation->state = GENERATION_DRAINING;
    for (struct process *process = generation->processes; process != NULL; process = process->next)
        process_kill(process);
    give_listeners_back(generation);
}

/* ---- What happens to its processes */

static bool all_are_ready(const struct generation *generation)
{
    for (size_t i = 0; i < generation->slot_count; i++) {
        const struct process *process = generation->slots[i].process;
        if (process == NULL || process->state != PROCESS_READY)
            return false;
    }
    return true;
}

void generation_process_ready(struct process *process)
{
    struct generation *generation = process->generation;
    if (generation->state == GENERATION_STARTING && all_are_ready(generation))
        master_generation_ready(generation);
    generation_assign(generation);
    tell_to_drain(generation);
}

void generation_process_leaving(struct process *process)
{
    struct slot *slot = process->slot;
    slot->process = NULL;
    slot->served = process->beat_seen;
    slot->start_after = 0;
    process_drain(process, 0);
    fill_empty_slots(process->generation, master_now(process->generation->master));
    generation_assign(process->generation);
}

void generation_process_ended(struct slot *slot, bool was_current, bool was_ready, const struct failure *why)
{
    struct generation *generation = slot->generation;
    if (was_current && generation->state != GENERATION_DRAINING) {
        schedule_start(slot);
        if (generation->state == GENERATION_STARTING && !was_ready) {
            master_generation_failed(generation, why);
            return;
        }
        master_count(generation->master, METRIC_RESTARTED, 1);
        generation_assign(generation);
        fill_empty_slots(generation, master_now(generation->master));
    }
    tell_to_drain(generation);
}

/* One that is being replaced is given the time that any child may take to start. */
static bool works(const struct slot *slot, uint64_t now)
{
    uint64_t patience = slot->generation->plan.ready_timeout;
    if (slot->process != NULL && slot->process->state == PROCESS_READY)
        return !slot->process->stalled;
    return slot->served != 0 && (patience == 0 || now - slot->served < patience);
}

static bool kind_works(const struct generation *generation, size_t kind, uint64_t now)
{
    for (size_t i = 0; i < generation->slot_count; i++)
        if (generation->slots[i].kind == kind && works(&generation->slots[i], now))
            return true;
    return generation->plan.kinds[kind].count == 0 || generation->plan.kinds[kind].auxiliary;
}

const char *generation_dead_kind(const struct generation *generation, uint64_t now)
{
    for (size_t kind = 0; kind < generation->plan.kind_count; kind++)
        if (!kind_works(generation, kind, now))
            return generation->plan.kinds[kind].name;
    return NULL;
}

void generation_check(struct generation *generation, uint64_t now)
{
    for (struct process *process = generation->processes; process != NULL; process = process->next)
        process_check(process, now);
    fill_empty_slots(generation, now);
    tell_to_drain(generation);
}
