/*
 * Configuration files from tables. A program describes its file as rows (path, type, range, default, unit,
 * text); parser, checks, defaults, the output of -t and the manual come from the rows. Files are YAML, read
 * with libyaml's document API, which keeps line and column, so that every error reads
 *     FILE:LINE:COLUMN: key.path: got "value", expected ...
 *
 * A path with dots stands in nested mappings: "limits.connections" is `limits: {connections: 100}`. Rows of
 * one mapping stand together, in the order in which -t and the manual show them. A list of mappings, or a
 * mapping keyed by name, is a row with a table of its own. Where a list is expected, one value or mapping is
 * a list of one. A setting that no row knows is an error, never ignored.
 *
 * Everything is bounded: files of 4 MB, 100,000 values, 16 levels; no anchors, aliases or tags.
 */
#ifndef KEYLESS_COMMON_CONFIG_TABLE_H
#define KEYLESS_COMMON_CONFIG_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/address.h"
#include "common/bytes.h"
#include "common/result.h"

struct evbuffer;

/* ---- Positions. */

/* Where in which file a value stands, for errors that are found later (an unknown backend, a missing file).
 */
struct config_position {
    const char *file; /* borrowed from the configuration read */
    unsigned line;    /* from 1; 0: the value is a default */
    unsigned column;
};

/* "FILE:LINE:COLUMN: key: text" ("FILE: key: text" for a default); returns RESULT_CONFIG. */
enum result config_failure(struct failure *why, const struct config_position *where, const char *key,
                           const char *format, ...) PRINTF(4, 5);

/* ---- Where a configuration comes from. */

struct config_source {
    const char *file;      /* its name in errors */
    const char *directory; /* relative paths are joined to it */
    struct bytes text;
};

/* ---- Types of values. */

#define CONFIG_EXPECT_SIZE 256

struct config_row;

struct config_type {
    const char *name; /* for the manual: "duration" */
    size_t size;      /* of the value in the program's struct */
    /* A list of words is one value: parse is called once for each word and adds it to the value. */
    bool gathers;
    /* text has no control characters; value is zeroed. On failure config_unexpected, or the
     * sentence that stands behind the path in the error. why is never NULL. */
    enum result (*parse)(const struct config_row *row, const struct config_source *source, const char *text,
                         void *value, struct failure *why);
    /* What comes after "expected": "a whole number from 1 to 1024". */
    void (*expect)(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE]);
    /* Appends the value as YAML that parse reads back to the same. False: not set, nothing was appended. */
    bool (*print)(const struct config_row *row, const void *value, struct evbuffer *to);
    void (*release)(void *value); /* may be NULL */
};

/* An address, or a host name and port that is for somebody else to look up. */
struct config_host_address {
    struct address address; /* size 0: */
    char *host;             /* not NULL */
    uint16_t port;
};

/* What comes after "expected" in errors and stands in the manual: the row's words, or its type's. */
void config_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE]);

/* For parse: the value is not what `expect` says. */
enum result config_unexpected(struct failure *why);

extern const struct config_type CONFIG_BOOL;     /* bool: on/yes/true, off/no/false */
extern const struct config_type CONFIG_COUNT;    /* unsigned; words stand for numbers ("auto") */
extern const struct config_type CONFIG_PERCENT;  /* unsigned: 0, 5%, 100% */
extern const struct config_type CONFIG_DURATION; /* uint64_t, microseconds: 500ms, 5s, 2h */
extern const struct config_type CONFIG_SIZE;     /* uint64_t, octets: 4096, 64k, 1G */
extern const struct config_type CONFIG_ADDRESS;  /* struct address */
/* struct config_host_address */
extern const struct config_type CONFIG_HOST_ADDRESS;
extern const struct config_type CONFIG_PATH;   /* char *, joined to the file's directory */
extern const struct config_type CONFIG_TEXT;   /* char *; min and max are octets */
extern const struct config_type CONFIG_CHOICE; /* int or an enum: one of words */
extern const struct config_type CONFIG_FLAGS;  /* unsigned: a list of words, or-ed */

#define CONFIG_MILLISECOND UINT64_C(1000)
#define CONFIG_SECOND      (1000 * CONFIG_MILLISECOND)
#define CONFIG_MINUTE      (60 * CONFIG_SECOND)
#define CONFIG_HOUR        (60 * CONFIG_MINUTE)

/* For print: appends text as a YAML scalar in double quotes, escaped; */
void config_print_quoted(const char *text, struct evbuffer *to);
/* a word of letters, digits, hyphens and underscores as it is, but for one that looks like a number. */
void config_print_word(const char *word, struct evbuffer *to);

/* ---- Rows and tables. */

struct config_table;

struct config_word {
    const char *name; /* the last one is NULL */
    int value;
};

struct config_row {
    const char *path;
    const struct config_type *type;   /* of a value, or of each element of a list; or */
    const struct config_table *table; /* of each element of a list of mappings, or mapping keyed by name */
    size_t offset, size;              /* of the value in the struct; size: of one element of a list */
    size_t count_offset;              /* a list's size_t */
    bool list;                        /* the value is a pointer to elements */
    bool required;                    /* must be given; a list must not be empty */
    bool shorthand;                   /* a scalar in place of the mapping is this: `tickets: off` */
    bool empty;                       /* a text may be "" */
    uint64_t min, max;                /* of a number, a text's octets; max 0: as far as the type goes */
    size_t most;                      /* elements of a list; 0: as many as fit into a file */
    const struct config_word *words;
    const char *fallback; /* the default as text, a list's elements between commas; NULL: zero, none */
    const char *unit;     /* of a count: "connections" */
    const char *expected; /* what comes after "expected", if its type has no better words */
    const char *help;     /* sentences for the manual */
    /* After parsing, for each value or element. why: the sentence behind the path. */
    enum result (*check)(const struct config_row *row, const void *value, struct failure *why);
};

/* .offset, .size and so on of a row: CONFIG_AT(struct proxy_config, limits.connections) */
#define CONFIG_AT(type, member) .offset = offsetof(type, member), .size = sizeof(((type *)NULL)->member)
#define CONFIG_LIST_AT(type, member, number)                                                                 \
    .list = true, .offset = offsetof(type, member), .size = sizeof(*((type *)NULL)->member),                 \
    .count_offset = offsetof(type, number)

struct config_scope;

struct config_table {
    const struct config_row *rows;
    size_t row_count;
    size_t size;                   /* of the struct */
    bool filed, positioned, named; /* it has these members: */
    size_t file_offset;     /* char *: the file's name, owned, that every position borrows. The root's */
    size_t position_offset; /* struct config_position: where the mapping stands */
    size_t name_offset;     /* char *: its key; the row is then a mapping keyed by name, not a list */
    /* What concerns several settings: after all rows of this mapping. May change values. */
    enum result (*check)(const struct config_scope *scope, void *object, struct failure *why);
};

#define CONFIG_ROWS(array)            .rows = (array), .row_count = sizeof(array) / sizeof *(array)
#define CONFIG_FILE(type, member)     .filed = true, .file_offset = offsetof(type, member)
#define CONFIG_POSITION(type, member) .positioned = true, .position_offset = offsetof(type, member)
#define CONFIG_NAME(type, member)     .named = true, .name_offset = offsetof(type, member)

/* ---- For checks of tables. Paths are relative to the mapping and may go into lists: "listen[2].backend". */

bool config_given(const struct config_scope *scope, const char *path);
/* The text given, or NULL. Borrowed until the parse ends. */
const char *config_given_text(const struct config_scope *scope, const char *path);
/* "FILE:LINE:COLUMN: path: got "value", text", or "... path: missing, text" if it is not given. */
enum result config_refuse(const struct config_scope *scope, struct failure *why, const char *path,
                          const char *format, ...) PRINTF(4, 5);

/* ---- What is done with a table. */

/*
 * Makes a struct of the table, filled from memory. RESULT_CONFIG: why names file, line, column, key, value
 * and what was expected. *object is NULL on failure.
 */
MUST_CHECK enum result config_parse(const struct config_table *table, const struct config_source *source,
                                    void **object, struct failure *why);
/* The same from a file. Paths are joined to its directory's absolute path, so that -t prints paths that mean
 * the same anywhere. */
MUST_CHECK enum result config_read(const struct config_table *table, const char *path, void **object,
                                   struct failure *why);
/* NULL is allowed. */
void config_free(const struct config_table *table, void *object);

/* Appends every setting with its value in force, as YAML that config_parse reads back to the same. */
void config_print(const struct config_table *table, const void *object, struct evbuffer *to);

enum config_manual { CONFIG_MANUAL_TEXT, CONFIG_MANUAL_ROFF };
/* Appends each setting with type, range, default and help: for -h and man pages. */
void config_manual(const struct config_table *table, enum config_manual format, struct evbuffer *to);

/* Whether a table is sound: sizes fit types, defaults parse, mappings stand together. For unit tests. */
MUST_CHECK enum result config_table_check(const struct config_table *table, struct failure *why);

#endif
