/* Whatever a peer calls itself, a log line is one line, of bounded size, without a control character, and
 * whole. */
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>

#include "common/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition)
{
    if (!condition)
        abort();
}

/* The strings and the nesting of a line, as a JSON parser would see them. */
static void check_json(const char *line, size_t size)
{
    bool quoted = false;
    require(line[0] == '{' && line[size - 2] == '}');
    for (size_t i = 1; i + 2 < size; i++) {
        if (line[i] == '"')
            quoted = !quoted;
        else if (quoted && line[i] == '\\')
            require(line[++i] == '"' || line[i] == '\\');
        else
            require(quoted || strchr("{}", line[i]) == NULL);
    }
    require(!quoted);
}

static void check(const char *line, size_t size, enum log_format format)
{
    require(size > 0 && size <= 4096 && line[size - 1] == '\n');
    for (size_t i = 0; i + 1 < size; i++)
        require((uint8_t)line[i] >= 0x20 && line[i] != 0x7f);
    require(mbstowcs(NULL, line, 0) != (size_t)-1);
    if (format == LOG_FORMAT_JSON)
        check_json(line, size);
}

static void write_and_check(int file, struct log *log, const uint8_t *data, size_t size,
                            enum log_format format)
{
    char line[8192];
    struct log_settings settings = {.level = LOG_LEVEL_INFO, .format = format};
    log_set_settings(log, &settings);
    require(ftruncate(file, 0) == 0 && lseek(file, 0, SEEK_SET) == 0);
    size_t half = size / 2;
    log_info(log, "handshake failed", log_bytes("sni", bytes_of(data, half)),
             log_bytes("name", bytes_of(data + half, size - half)), log_bytes("all", bytes_of(data, size)),
             log_hex("hex", bytes_of(data, size)), log_number("end", 1));
    ssize_t got = pread(file, line, sizeof line - 1, 0);
    require(got > 0);
    line[got] = '\0';
    check(line, (size_t)got, format);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct log *log = NULL;
    static int file = -1;
    if (log == NULL) {
        struct log_settings settings = {.level = LOG_LEVEL_INFO};
        file = memfd_create("log", MFD_CLOEXEC);
        log = log_new("proxy", file, &settings);
        require(file >= 0 && log != NULL && setlocale(LC_CTYPE, "C.UTF-8") != NULL);
    }
    write_and_check(file, log, data, size, LOG_FORMAT_LOGFMT);
    write_and_check(file, log, data, size, LOG_FORMAT_JSON);
    return 0;
}
