#include "keyserver/ticket_file.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>

#include "common/secret_file.h"
#include "common/socket.h"

#define FILE_MAX ((size_t)4 * 1024 * 1024)

_Static_assert(FILE_MAX > 2 * TICKET_CHAIN_RECORD_SIZE + 64 +
                              (size_t)TICKET_GROUPS_MAX * (TICKET_ID_SIZE + 4) +
                              (size_t)TICKET_MEMBERS_MAX * 2 * TICKET_ID_SIZE,
               "what is written can be read again");

static const struct secret_file_kind KIND = {"a secret of ticket keys", FILE_MAX};

enum result ticket_file_read(const char *path, struct ticket_state *state, struct failure *why)
{
    struct secret_file file CLEANUP(secret_file_wipe) = {0};
    struct failure damage;
    *state = (struct ticket_state){0};
    enum result result = secret_file_read(path, &KIND, &file, why);
    if (result != RESULT_OK)
        return result;
    result = ticket_state_parse(secret_file_bytes(&file), state, &damage);
    return result == RESULT_OK ? result : failure_set(why, result, "%s: %s", path, damage.text);
}

enum result ticket_file_open(const char *path, int *fd, struct failure *why)
{
    *fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NOFOLLOW);
    return *fd >= 0 ? RESULT_OK : secret_file_cannot(path, "open for writing", why);
}

enum result ticket_file_check(const char *path, struct failure *why)
{
    char copy[PATH_MAX];
    int fd CLEANUP(socket_close) = -1;
    enum result result = ticket_file_open(path, &fd, why);
    if (result != RESULT_OK)
        return result;
    (void)snprintf(copy, sizeof copy, "%s", path);
    return access(dirname(copy), W_OK) == 0 ? RESULT_OK : secret_file_cannot(path, "replace", why);
}

static bool write_at(int fd, struct bytes octets, off_t at)
{
    while (octets.size > 0) {
        ssize_t written = pwrite(fd, octets.data, octets.size, at);
        if (written < 0 && errno != EINTR)
            return false;
        if (written > 0) {
            octets = bytes_of(octets.data + written, octets.size - (size_t)written);
            at += written;
        }
    }
    return true;
}

/* ---- The whole file. */

struct contents {
    uint8_t *data;
    size_t size;
};

static void contents_wipe(struct contents *contents)
{
    OPENSSL_clear_free(contents->data, contents->size);
}

static enum result fill_new(int fd, const char *path, const struct stat *owner,
                            const struct ticket_state *state, struct failure *why)
{
    struct contents contents CLEANUP(contents_wipe) = {.size = ticket_state_size(state)};
    contents.data = OPENSSL_malloc(contents.size);
    if (contents.data == NULL)
        return failure_set(why, RESULT_LIMIT, "%s: no memory", path);
    struct writer to = writer_of(contents.data, contents.size);
    if (!ticket_state_write(&to, state))
        return failure_set(why, RESULT_CRYPTO, "%s: cannot be put together", path);
    /* Only root can give a file away; anybody else is its owner. */
    if ((geteuid() == 0 && fchown(fd, owner->st_uid, owner->st_gid) != 0) ||
        !write_at(fd, writer_bytes(&to), 0) || fsync(fd) != 0)
        return secret_file_cannot(path, "write", why);
    return RESULT_OK;
}

/* One that a crash has left is in the way. */
static int create_new(const char *path)
{
    (void)unlink(path);
    return open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
}

static void sync_directory(const char *path)
{
    char copy[PATH_MAX];
    (void)snprintf(copy, sizeof copy, "%s", path);
    int fd CLEANUP(socket_close) = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        (void)fsync(fd);
}

/* Nothing can be reached by this name any more; what its blocks hold should not be had from the disk. */
static void overwrite(int fd, const struct stat *status)
{
    static const uint8_t ZEROS[TICKET_CHAIN_RECORD_SIZE];
    const off_t end =
        status->st_size < 2 * TICKET_CHAIN_RECORD_SIZE ? status->st_size : 2 * TICKET_CHAIN_RECORD_SIZE;
    for (off_t at = 0; at < end; at += (off_t)sizeof ZEROS)
        if (!write_at(fd, bytes_of(ZEROS, sizeof ZEROS), at))
            return;
    (void)fdatasync(fd);
}

enum result ticket_file_replace(const char *path, const struct ticket_state *state, struct failure *why)
{
    char new_path[PATH_MAX];
    struct stat status;
    int old CLEANUP(socket_close) = -1;
    enum result result = ticket_file_open(path, &old, why);
    if (result != RESULT_OK)
        return result;
    if (fstat(old, &status) != 0 || snprintf(new_path, sizeof new_path, "%s.new", path) >= PATH_MAX)
        return secret_file_cannot(path, "replace", why);
    int fd CLEANUP(socket_close) = create_new(new_path);
    if (fd < 0)
        return secret_file_cannot(new_path, "create", why);
    result = fill_new(fd, new_path, &status, state, why);
    if (result == RESULT_OK && rename(new_path, path) != 0)
        result = secret_file_cannot(path, "replace", why);
    if (result != RESULT_OK) {
        (void)unlink(new_path);
        return result;
    }
    sync_directory(path);
    overwrite(old, &status);
    return RESULT_OK;
}

/* ---- The chain. */

enum result ticket_file_store_chain(int fd, const struct ticket_state *state, struct failure *why)
{
    uint8_t record[TICKET_CHAIN_RECORD_SIZE];
    struct stat status;
    if (fstat(fd, &status) == 0 && status.st_nlink == 0)
        return RESULT_AGAIN;
    struct writer to = writer_of(record, sizeof record);
    bool made = ticket_chain_record_write(&to, state);
    /* One after the other: a crash tears one of them at most, and a record is one sector. */
    bool written = made && write_at(fd, bytes_of(record, sizeof record), 0) &&
                   write_at(fd, bytes_of(record, sizeof record), TICKET_CHAIN_RECORD_SIZE);
    if (!written)
        (void)failure_set_errno(why, "the secret of ticket keys cannot be written");
    OPENSSL_cleanse(record, sizeof record);
    return written ? RESULT_OK : RESULT_SYSTEM;
}
