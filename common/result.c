#include "common/result.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <openssl/err.h>

static const char *const NAMES[] = {
    [RESULT_OK] = "ok",         [RESULT_AGAIN] = "again", [RESULT_CONFIG] = "configuration",
    [RESULT_SYSTEM] = "system", [RESULT_PEER] = "peer",   [RESULT_PROTOCOL] = "protocol",
    [RESULT_CRYPTO] = "crypto", [RESULT_LIMIT] = "limit",
};

const char *result_name(enum result kind)
{
    return (size_t)kind < sizeof NAMES / sizeof *NAMES ? NAMES[kind] : "unknown";
}

PRINTF(3, 0)
static void failure_format(struct failure *why, enum result kind, const char *format, va_list arguments)
{
    why->kind = kind;
    (void)vsnprintf(why->text, sizeof why->text, format, arguments);
}

static void failure_append(struct failure *why, const char *reason)
{
    size_t used = strlen(why->text);
    (void)snprintf(why->text + used, sizeof why->text - used, ": %s", reason);
}

enum result failure_set(struct failure *why, enum result kind, const char *format, ...)
{
    if (why != NULL) {
        va_list arguments;
        va_start(arguments, format);
        failure_format(why, kind, format, arguments);
        va_end(arguments);
    }
    return kind;
}

enum result failure_set_errno(struct failure *why, const char *format, ...)
{
    int saved = errno;
    if (why != NULL) {
        va_list arguments;
        va_start(arguments, format);
        failure_format(why, RESULT_SYSTEM, format, arguments);
        va_end(arguments);
        failure_append(why, strerror(saved));
    }
    errno = saved;
    return RESULT_SYSTEM;
}

/* OpenSSL 3 leaves a system call's errno as the "reason" of an ERR_LIB_SYS error. */
static const char *openssl_reason(unsigned long code)
{
    if (code == 0)
        return "no reason given by OpenSSL";
    if (ERR_SYSTEM_ERROR(code))
        return strerror(ERR_GET_REASON(code));
    const char *reason = ERR_reason_error_string(code);
    return reason != NULL ? reason : "unnamed OpenSSL error";
}

enum result failure_set_openssl(struct failure *why, const char *format, ...)
{
    unsigned long code = ERR_peek_last_error();
    if (why != NULL) {
        va_list arguments;
        va_start(arguments, format);
        failure_format(why, RESULT_CRYPTO, format, arguments);
        va_end(arguments);
        failure_append(why, openssl_reason(code));
    }
    ERR_clear_error();
    return RESULT_CRYPTO;
}
