/* Reading a file that holds a secret: whole, into memory that is cleared, and only if nobody but its owner
 * may read it. */
#ifndef KEYLESS_COMMON_SECRET_FILE_H
#define KEYLESS_COMMON_SECRET_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/result.h"

struct secret_file {
    uint8_t *data;
    size_t size, capacity;
};

/* What kind of file it is, for errors. */
struct secret_file_kind {
    const char *what; /* "a private key" */
    size_t size_max;
};

/* RESULT_CONFIG, naming the file: cannot be opened or read, is not a regular file, may be used by its group
 * or by others, is too large. file is to be zeroed before, and wiped afterwards in any case. */
MUST_CHECK enum result secret_file_read(const char *path, const struct secret_file_kind *kind,
                                        struct secret_file *file, struct failure *why);
void secret_file_wipe(struct secret_file *file);

static inline struct bytes secret_file_bytes(const struct secret_file *file)
{
    return bytes_of(file->data, file->size);
}

/* The file at path cannot be `what` ("open"), for the reason in errno: RESULT_CONFIG. */
enum result secret_file_cannot(const char *path, const char *what, struct failure *why);

#endif
