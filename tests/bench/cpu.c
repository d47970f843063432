#include "tests/bench/cpu.h"

#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Depth to which children of children are followed; no server has more. */
#define DEPTH_MAX 8

static bool first_number(const char *path, uint64_t *number)
{
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return false;
    bool found = fscanf(file, "%" SCNu64, number) == 1;
    (void)fclose(file);
    return found;
}

static bool add_children(const char *path, unsigned depth, uint64_t *sum);

/* Adds pid's threads, and then whatever processes each of them has forked. */
static bool add_process(pid_t pid, unsigned depth, uint64_t *sum)
{
    char path[300];
    (void)snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    if (tasks == NULL)
        return false;
    bool found = false;
    for (struct dirent *task; (task = readdir(tasks)) != NULL;) {
        if (!isdigit((unsigned char)task->d_name[0]))
            continue;
        uint64_t on_cpu;
        (void)snprintf(path, sizeof path, "/proc/%d/task/%s/schedstat", (int)pid, task->d_name);
        if (first_number(path, &on_cpu)) {
            *sum += on_cpu;
            found = true;
        }
        (void)snprintf(path, sizeof path, "/proc/%d/task/%s/children", (int)pid, task->d_name);
        (void)add_children(path, depth, sum);
    }
    (void)closedir(tasks);
    return found;
}

static bool add_children(const char *path, unsigned depth, uint64_t *sum)
{
    FILE *file = depth < DEPTH_MAX ? fopen(path, "re") : NULL;
    if (file == NULL)
        return false;
    for (int child; fscanf(file, "%d", &child) == 1;)
        (void)add_process((pid_t)child, depth + 1, sum);
    (void)fclose(file);
    return true;
}

bool cpu_time_of(pid_t pid, uint64_t *nanoseconds)
{
    *nanoseconds = 0;
    return add_process(pid, 0, nanoseconds);
}
