#include "proxy/ocsp_tasks.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/rand.h>

#include "common/clock.h"
#include "proxy/certificate_handover.h"
#include "proxy/ocsp_settings.h"

#define SECOND    UINT64_C(1000000)
#define PAUSE_MIN SECOND
#define PAUSE_MAX (300 * SECOND)

/* ---- When. */

static uint64_t jitter(uint64_t of)
{
    uint32_t random = 0;
    (void)RAND_bytes((unsigned char *)&random, sizeof random);
    return of / 10 * (random % 1000) / 1000;
}

/* At half of its life, or when it is as old as `refresh`; a little earlier, so that not all come at once. */
static uint64_t due_after(const struct ocsp_task *task, time_t taken, time_t now)
{
    uint64_t life = (uint64_t)(task->next_update > taken ? task->next_update - taken : 0) * SECOND;
    uint64_t wait = life / 2 < task->settings->refresh ? life / 2 : task->settings->refresh;
    uint64_t age = (uint64_t)(now > taken ? now - taken : 0) * SECOND;
    if (wait < SECOND)
        wait = SECOND;
    wait -= jitter(wait);
    return clock_now() + (wait > age ? wait - age : 0);
}

void ocsp_task_succeeded(struct ocsp_task *task, time_t next_update, time_t now)
{
    task->tried = true;
    task->failures = 0;
    task->next_update = next_update;
    task->due = due_after(task, now, now);
}

void ocsp_task_failed(struct ocsp_task *task)
{
    uint64_t pause = PAUSE_MAX;
    if (task->failures < 9)
        pause = PAUSE_MIN << task->failures;
    if (pause > PAUSE_MAX)
        pause = PAUSE_MAX;
    task->failures++;
    task->tried = true;
    task->due = clock_now() + pause + jitter(pause);
}

bool ocsp_task_is_of(const struct ocsp_task *task, const struct certificate *certificate)
{
    return memcmp(task->mark, certificate->mark, sizeof task->mark) == 0;
}

/* ---- Which. */

/* A task for this chain from the beginning, with what another process has left. */
static void task_begin(const struct ocsp_tasks *tasks, struct ocsp_task *task,
                       const struct certificate *certificate)
{
    const struct proxy_ocsp *settings = ocsp_settings_of(tasks->config, certificate);
    const time_t now = time(NULL);
    struct staple staple;
    *task = (struct ocsp_task){.settings = settings->source == OCSP_FETCH ? settings : NULL,
                               .host = OCSP_NO_HOST};
    memcpy(task->mark, certificate->mark, sizeof task->mark);
    size_t place = task->settings != NULL ? staples_find(tasks->staples, certificate) : STAPLE_NOWHERE;
    if (place == STAPLE_NOWHERE || !staples_read(tasks->staples, place, certificate, &staple) ||
        staple.next_update <= now)
        return;
    task->tried = true;
    task->next_update = (time_t)staple.next_update;
    task->due = due_after(task, (time_t)staple.taken, now);
}

static struct ocsp_task *task_at(struct ocsp_task_list *list, size_t index)
{
    if (index >= list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : 2 * list->capacity;
        struct ocsp_task *grown = realloc(list->tasks, capacity * sizeof *grown);
        if (grown == NULL)
            return NULL;
        list->tasks = grown;
        list->capacity = capacity;
    }
    if (index == list->count)
        list->tasks[list->count++] = (struct ocsp_task){0};
    return &list->tasks[index];
}

void ocsp_tasks_follow(struct ocsp_tasks *tasks)
{
    for (size_t i = 0; i < certificates_count(tasks->certificates); i++) {
        const struct certificate *certificate = certificates_at(tasks->certificates, i);
        bool is_new = i >= tasks->served.count;
        struct ocsp_task *task = task_at(&tasks->served, i);
        if (task == NULL)
            return;
        if (is_new || !ocsp_task_is_of(task, certificate))
            task_begin(tasks, task, certificate);
    }
}

size_t ocsp_tasks_count(const struct ocsp_tasks *tasks)
{
    return tasks->served.count + tasks->waiting.count;
}

struct ocsp_task *ocsp_tasks_at(struct ocsp_tasks *tasks, size_t number)
{
    size_t served = tasks->served.count;
    return number < served ? &tasks->served.tasks[number] : &tasks->waiting.tasks[number - served];
}

const struct certificate *ocsp_tasks_certificate(const struct ocsp_tasks *tasks, size_t number)
{
    size_t served = tasks->served.count;
    return number < served ? certificates_at(tasks->certificates, number) : tasks->pending[number - served];
}

/* ---- Those held back. */

static void waiting_free(struct ocsp_task_list *list, struct certificate **pending)
{
    for (size_t i = 0; i < list->count; i++)
        certificate_drop(pending[i]);
    free(list->tasks);
    free(pending);
    *list = (struct ocsp_task_list){0};
}

static void waiting_begin(const struct ocsp_tasks *tasks, struct ocsp_task *task,
                          const struct certificate *certificate, const struct ocsp_task_list *before)
{
    for (size_t i = 0; i < before->count; i++)
        if (ocsp_task_is_of(&before->tasks[i], certificate)) {
            *task = before->tasks[i];
            return;
        }
    task_begin(tasks, task, certificate);
}

static bool waiting_add(struct ocsp_tasks *tasks, struct certificate *certificate,
                        const struct ocsp_task_list *before)
{
    size_t count = tasks->waiting.count;
    struct certificate **pending = realloc(tasks->pending, (count + 1) * sizeof(struct certificate *));
    if (pending != NULL)
        tasks->pending = pending;
    struct ocsp_task *task = pending != NULL ? task_at(&tasks->waiting, count) : NULL;
    if (task == NULL)
        return false;
    tasks->pending[count] = certificate;
    waiting_begin(tasks, task, certificate, before);
    return true;
}

static enum result waiting_read(struct ocsp_tasks *tasks, int fd, const struct ocsp_task_list *before,
                                struct failure *why)
{
    struct certificate_handover handover;
    struct certificate *certificate;
    enum result result = certificate_handover_open(fd, &handover, why);
    while (result == RESULT_OK) {
        result = certificate_handover_next(&handover, tasks->config, certificates_parser(tasks->certificates),
                                           &certificate, why);
        if (result == RESULT_OK && !waiting_add(tasks, certificate, before)) {
            certificate_drop(certificate);
            result = failure_set(why, RESULT_SYSTEM, "no memory");
        }
    }
    certificate_handover_close(&handover);
    return result;
}

enum result ocsp_tasks_take(struct ocsp_tasks *tasks, int fd, struct failure *why)
{
    struct ocsp_task_list before = tasks->waiting;
    struct certificate **pending = tasks->pending;
    tasks->waiting = (struct ocsp_task_list){0};
    tasks->pending = NULL;
    enum result result = fd >= 0 ? waiting_read(tasks, fd, &before, why) : RESULT_AGAIN;
    waiting_free(&before, pending);
    return result;
}

void ocsp_tasks_free(struct ocsp_tasks *tasks)
{
    waiting_free(&tasks->waiting, tasks->pending);
    free(tasks->served.tasks);
}
