#include "common/secret_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "common/socket.h"

void secret_file_wipe(struct secret_file *file)
{
    OPENSSL_clear_free(file->data, file->capacity);
    *file = (struct secret_file){0};
}

enum result secret_file_cannot(const char *path, const char *what, struct failure *why)
{
    (void)failure_set_errno(why, "%s: cannot %s", path, what);
    if (why != NULL)
        why->kind = RESULT_CONFIG;
    return RESULT_CONFIG;
}

static enum result check(const char *path, const struct secret_file_kind *kind, const struct stat *status,
                         struct failure *why)
{
    if (!S_ISREG(status->st_mode))
        return failure_set(why, RESULT_CONFIG, "%s: not a regular file", path);
    if ((status->st_mode & 077) != 0)
        return failure_set(why, RESULT_CONFIG,
                           "%s: its mode is %04o; %s must be its owner's alone (chmod 600)", path,
                           (unsigned)status->st_mode & 07777u, kind->what);
    if (status->st_size > (off_t)kind->size_max)
        return failure_set(why, RESULT_CONFIG, "%s: %lld octets; %s has at most %zu", path,
                           (long long)status->st_size, kind->what, kind->size_max);
    return RESULT_OK;
}

static enum result fill(int fd, const char *path, struct secret_file *file, struct failure *why)
{
    while (file->size < file->capacity) {
        ssize_t got = read(fd, file->data + file->size, file->capacity - file->size);
        if (got < 0)
            return secret_file_cannot(path, "read", why);
        if (got == 0)
            break;
        file->size += (size_t)got;
    }
    if (file->size == file->capacity)
        return failure_set(why, RESULT_CONFIG, "%s: it grows while it is read", path);
    return RESULT_OK;
}

enum result secret_file_read(const char *path, const struct secret_file_kind *kind, struct secret_file *file,
                             struct failure *why)
{
    /* O_NONBLOCK: a pipe in the way must not stop us; what is opened is checked, not what was listed. */
    int fd CLEANUP(socket_close) = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        return secret_file_cannot(path, "open", why);
    enum result result = check(path, kind, &status, why);
    if (result != RESULT_OK)
        return result;
    file->capacity = (size_t)status.st_size + 1;
    file->data = OPENSSL_malloc(file->capacity);
    if (file->data == NULL)
        return failure_set(why, RESULT_LIMIT, "%s: no memory", path);
    return fill(fd, path, file, why);
}
