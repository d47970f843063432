#include "common/config_table.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/config_yaml.h"

/* What has been read of a file. */
struct file {
    char *directory;
    uint8_t *data;
    size_t size;
};

static void file_free(struct file *file)
{
    free(file->directory);
    free(file->data);
}

/* A file that cannot be read is the operator's to mend, whatever errno says. */
static enum result refuse_file(struct failure *why, const char *path)
{
    return failure_set(why, RESULT_CONFIG, "%s: cannot be read: %s", path, strerror(errno));
}

static void close_descriptor(int *fd)
{
    if (*fd >= 0)
        (void)close(*fd);
}

/* Up to one octet more than is allowed, so that config_yaml_load sees that there is more. */
static enum result read_all(int fd, const char *path, struct file *file, struct failure *why)
{
    file->data = malloc(CONFIG_FILE_MAX + 1);
    if (file->data == NULL)
        return failure_set(why, RESULT_SYSTEM, "%s: out of memory", path);
    while (file->size <= CONFIG_FILE_MAX) {
        ssize_t got = read(fd, file->data + file->size, CONFIG_FILE_MAX + 1 - file->size);
        if (got == 0)
            return RESULT_OK;
        if (got < 0 && errno != EINTR)
            return refuse_file(why, path);
        file->size += got > 0 ? (size_t)got : 0;
    }
    return failure_set(why, RESULT_CONFIG, "%s: got more than 4 MB, expected at most that", path);
}

static enum result find_directory(const char *path, struct file *file, struct failure *why)
{
    char *copy = strdup(path);
    if (copy == NULL)
        return failure_set(why, RESULT_SYSTEM, "%s: out of memory", path);
    file->directory = realpath(dirname(copy), NULL);
    free(copy);
    return file->directory != NULL ? RESULT_OK : refuse_file(why, path);
}

enum result config_read(const struct config_table *table, const char *path, void **object,
                        struct failure *why)
{
    *object = NULL;
    CLEANUP(file_free) struct file file = {0};
    CLEANUP(close_descriptor) int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return refuse_file(why, path);
    enum result result = find_directory(path, &file, why);
    if (result == RESULT_OK)
        result = read_all(fd, path, &file, why);
    if (result != RESULT_OK)
        return result;
    const struct config_source source = {
        .file = path,
        .directory = file.directory,
        .text = bytes_of(file.data, file.size),
    };
    return config_parse(table, &source, object, why);
}
