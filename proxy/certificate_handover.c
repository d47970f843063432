#include "proxy/certificate_handover.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/stat.h>

#include "common/socket.h"
#include "proxy/chain_parser.h"

#define HANDOVER_MAX ((size_t)256 * 1024 * 1024)
/* Everything of a record but its certificates. */
#define RECORD_HEAD_MAX 8192

/* ---- Making. */

static bool write_issuer(struct writer *to, X509 *issuer)
{
    unsigned char *der = NULL;
    int size = i2d_X509(issuer, &der);
    WRITE_VECTOR(to, 3)
    {
        write_bytes(to, bytes_of(der, size > 0 ? (size_t)size : 0));
    }
    OPENSSL_free(der);
    return size > 0;
}

/* index, number of the site (0: none), verdict, path, and the certificates, leaf first. */
static bool write_record(const struct proxy_config *config, struct writer *to,
                         const struct certificate *certificate)
{
    const struct proxy_site *site = certificate->site;
    bool written = true;
    write_u32(to, (uint32_t)certificate->index);
    write_u32(to, site != NULL ? (uint32_t)(site - config->sites) + 1 : 0);
    write_u8(to, (uint8_t)certificate->verdict);
    WRITE_VECTOR(to, 2)
    {
        write_bytes(to, bytes_of(certificate->path, strlen(certificate->path)));
    }
    write_u8(to, (uint8_t)(certificate->issuer_count + 1));
    WRITE_VECTOR(to, 3)
    {
        write_bytes(to, certificate->leaf);
    }
    for (size_t i = 0; i < certificate->issuer_count; i++)
        written = write_issuer(to, certificate->issuers[i]) && written;
    return written && writer_ok(to);
}

static enum result write_all(int fd, struct bytes data, struct failure *why)
{
    while (data.size > 0) {
        ssize_t written = write(fd, data.data, data.size);
        if (written <= 0)
            return failure_set_errno(why, "a memfd");
        data = bytes_of(data.data + written, data.size - (size_t)written);
    }
    return RESULT_OK;
}

static enum result write_records(const struct proxy_config *config, const struct certificate *const *list,
                                 size_t count, int fd, struct failure *why)
{
    uint8_t record[RECORD_HEAD_MAX + CERTIFICATE_MESSAGE_MAX];
    enum result result = RESULT_OK;
    for (size_t i = 0; result == RESULT_OK && i < count; i++) {
        struct writer to = writer_of(record, sizeof record);
        if (!write_record(config, &to, list[i]))
            return failure_set(why, RESULT_LIMIT, "%s: too long to be handed over", list[i]->path);
        result = write_all(fd, writer_bytes(&to), why);
    }
    return result;
}

enum result certificate_handover_make(const struct proxy_config *config,
                                      const struct certificate *const *list, size_t count, int *fd,
                                      struct failure *why)
{
    *fd = memfd_create("certificates", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (*fd < 0)
        return failure_set_errno(why, "a memfd");
    enum result result = write_records(config, list, count, *fd, why);
    if (result == RESULT_OK &&
        fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
        result = failure_set_errno(why, "cannot seal a memfd");
    if (result != RESULT_OK)
        socket_close(fd);
    return result;
}

/* ---- Reading. */

enum result certificate_handover_open(int fd, struct certificate_handover *handover, struct failure *why)
{
    struct stat status;
    *handover = (struct certificate_handover){0};
    if (fstat(fd, &status) != 0)
        return failure_set_errno(why, "chains handed over");
    if (status.st_size <= 0 || (size_t)status.st_size > HANDOVER_MAX)
        return failure_set(why, RESULT_PROTOCOL, "chains handed over in %lld octets",
                           (long long)status.st_size);
    size_t size = (size_t)status.st_size;
    void *pages = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
    if (pages == MAP_FAILED)
        return failure_set_errno(why, "chains handed over");
    handover->whole = bytes_of(pages, size);
    handover->rest = reader_of(handover->whole);
    return RESULT_OK;
}

static bool read_chain(struct reader *from, struct bytes chain[static CHAIN_CERTIFICATES_MAX], uint8_t count)
{
    for (uint8_t i = 0; i < count; i++)
        if (!read_vector24(from, &chain[i]))
            return false;
    return true;
}

struct record {
    uint32_t index, site;
    struct bytes path, chain[CHAIN_CERTIFICATES_MAX];
    uint8_t verdict, count;
};

static bool read_record(struct reader *from, const struct proxy_config *config, struct record *record)
{
    return read_u32(from, &record->index) && read_u32(from, &record->site) &&
           record->site <= config->site_count && read_u8(from, &record->verdict) &&
           record->verdict <= CERTIFICATE_KEPT_OUT && read_vector16(from, &record->path) &&
           read_u8(from, &record->count) && record->count > 0 && record->count <= CHAIN_CERTIFICATES_MAX &&
           read_chain(from, record->chain, record->count);
}

static enum result take_record(struct certificate_handover *handover, const struct proxy_config *config,
                               struct record *record, struct failure *why)
{
    if (reader_empty(&handover->rest))
        return RESULT_AGAIN;
    return read_record(&handover->rest, config, record)
               ? RESULT_OK
               : failure_set(why, RESULT_PROTOCOL, "chains handed over do not parse");
}

bool certificate_handover_peek(const struct certificate_handover *handover, uint32_t *index)
{
    struct reader from = handover->rest;
    return read_u32(&from, index);
}

enum result certificate_handover_skip(struct certificate_handover *handover,
                                      const struct proxy_config *config, struct failure *why)
{
    struct record record;
    return take_record(handover, config, &record, why);
}

enum result certificate_handover_next(struct certificate_handover *handover,
                                      const struct proxy_config *config, struct chain_parser *parser,
                                      struct certificate **certificate, struct failure *why)
{
    struct record record;
    enum result result = take_record(handover, config, &record, why);
    if (result != RESULT_OK)
        return result;
    char *path = strndup((const char *)record.path.data, record.path.size);
    if (path == NULL)
        return failure_set_errno(why, "chains handed over");
    result = chain_parser_make(parser, NULL, path, record.chain, record.count, NULL, NULL, certificate, why);
    free(path);
    if (result != RESULT_OK)
        return result;
    (*certificate)->index = record.index;
    (*certificate)->verdict = (enum certificate_verdict)record.verdict;
    (*certificate)->site = record.site > 0 ? &config->sites[record.site - 1] : NULL;
    return RESULT_OK;
}

void certificate_handover_close(struct certificate_handover *handover)
{
    if (handover->whole.data != NULL)
        (void)munmap((void *)handover->whole.data, handover->whole.size);
    *handover = (struct certificate_handover){0};
}
