#include "common/process_status.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/process_private.h"
#include "common/sandbox.h"

/* ---- The master's side. */

static enum child_state state_of(const struct process *process)
{
    static const enum child_state STATES[] = {
        [PROCESS_STARTING] = CHILD_STARTING, [PROCESS_READY] = CHILD_READY,
        [PROCESS_DRAINING] = CHILD_DRAINING, [PROCESS_ENDING] = CHILD_ENDING,
        [PROCESS_KILLED] = CHILD_ENDING,
    };
    if (process->state == PROCESS_READY && process->stalled)
        return CHILD_STALLED;
    return STATES[process->state];
}

static bool take_record(struct process *process)
{
    struct master *master = process->generation->master;
    for (size_t i = 0; i < PROCESS_STATUS_MAX && !process->has_record; i++) {
        if (master->records_taken[i])
            continue;
        master->records_taken[i] = true;
        process->record = i;
        process->has_record = true;
    }
    return process->has_record;
}

void process_publish(struct process *process)
{
    struct master *master = process->generation->master;
    struct process_status status = {.index = process->slot->index,
                                    .generation = process->generation->number,
                                    .pid = process->pid,
                                    .state = (uint32_t)state_of(process),
                                    .sandbox = process->sandbox,
                                    .since = (int64_t)time(NULL)};
    if (process->has_record && process->published == status.state)
        return;
    if (!take_record(process))
        return;
    process->published = status.state;
    (void)snprintf(status.kind, sizeof status.kind, "%s", process_kind_of(process)->name);
    status_area_write(master->program->processes, process->record, &status);
}

void process_unpublish(struct process *process)
{
    struct master *master = process->generation->master;
    if (!process->has_record)
        return;
    status_area_clear(master->program->processes, process->record);
    master->records_taken[process->record] = false;
    process->has_record = false;
}

/* ---- The reader's. */

enum result process_status_new(struct status_area **area, struct failure *why)
{
    return status_area_new(sizeof(struct process_status), PROCESS_STATUS_MAX, area, why);
}

static bool status_read(const struct status_area *area, size_t index, struct process_status *status)
{
    if (!status_area_read(area, index, status) || status->state >= CHILD_STATES)
        return false;
    status->kind[sizeof status->kind - 1] = '\0';
    return true;
}

unsigned process_status_count(const struct status_area *area, const char *kind, enum child_state state,
                              unsigned generation)
{
    unsigned count = 0;
    struct process_status status;
    for (size_t i = 0; i < status_area_count(area); i++)
        count += status_read(area, i, &status) && status.state == state && strcmp(status.kind, kind) == 0 &&
                 (generation == 0 || generation == status.generation);
    return count;
}

bool process_status_is_ready(const struct status_area *area, const char *kind, unsigned index,
                             unsigned generation, int64_t pid)
{
    struct process_status status;
    for (size_t i = 0; i < status_area_count(area); i++)
        if (status_read(area, i, &status) && status.state == CHILD_READY && status.pid == pid &&
            status.index == index && status.generation == generation && strcmp(status.kind, kind) == 0)
            return true;
    return false;
}

static void write_sandbox(uint32_t packed, struct json *json)
{
    const struct sandbox_state state = sandbox_state_unpack(packed);
    json_begin_object(json, "sandbox");
    json_bool(json, "system_calls", state.filter);
    json_number(json, "landlock", state.landlock);
    json_end_object(json);
}

void process_status_write(const struct status_area *area, struct json *json)
{
    static const char *const NAMES[CHILD_STATES] = {"starting", "ready", "stalled", "draining", "ending"};
    struct process_status status;
    json_begin_array(json, "processes");
    for (size_t i = 0; i < status_area_count(area); i++) {
        if (!status_read(area, i, &status))
            continue;
        json_begin_object(json, NULL);
        json_text(json, "kind", status.kind);
        json_number(json, "index", status.index);
        json_number(json, "generation", status.generation);
        json_number(json, "pid", status.pid);
        json_text(json, "state", NAMES[status.state]);
        json_time(json, "since", (time_t)status.since);
        write_sandbox(status.sandbox, json);
        json_end_object(json);
    }
    json_end_array(json);
}
