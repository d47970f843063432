/*
 * The one error idiom. A function that can fail returns an enum result, which says whose fault it was, and
 * fills a struct failure with a sentence for the operator. Callers must look at the result.
 */
#ifndef KEYLESS_COMMON_RESULT_H
#define KEYLESS_COMMON_RESULT_H

#include <stddef.h>

enum result {
    RESULT_OK = 0,
    RESULT_AGAIN,    /* no error: nothing to do until the event loop says so */
    RESULT_CONFIG,   /* the operator's: a setting, a file or a certificate is wrong */
    RESULT_SYSTEM,   /* the kernel's: errno is in the text */
    RESULT_PEER,     /* the peer went away, was too slow or is not who it should be */
    RESULT_PROTOCOL, /* bytes that do not parse or are not allowed */
    RESULT_CRYPTO,   /* OpenSSL refused: its reason is in the text */
    RESULT_LIMIT,    /* a bound of ours was reached */
};

#define FAILURE_TEXT_SIZE 512

struct failure {
    enum result kind;
    char text[FAILURE_TEXT_SIZE]; /* one line, no newline; names the file, peer or value concerned */
};

#define MUST_CHECK      __attribute__((warn_unused_result))
#define PRINTF(fmt, va) __attribute__((format(printf, fmt, va)))

/* Runs function(&variable) when the variable goes out of scope: the one cleanup idiom. */
#define CLEANUP(function) __attribute__((cleanup(function)))

/* Fills why (which may be NULL) and returns kind, so that it can stand in a return statement. */
enum result failure_set(struct failure *why, enum result kind, const char *format, ...) PRINTF(3, 4);

/* The same with ": " and the text of the current errno behind it; the kind is RESULT_SYSTEM. */
enum result failure_set_errno(struct failure *why, const char *format, ...) PRINTF(2, 3);

/* The same with the newest reason in OpenSSL's error queue, which it clears; the kind is RESULT_CRYPTO. */
enum result failure_set_openssl(struct failure *why, const char *format, ...) PRINTF(2, 3);

/* "configuration", "system", "peer", ... for logs and metrics. */
const char *result_name(enum result kind);

#endif
