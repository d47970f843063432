/* A configuration with a setting of every type that config_table knows, for its unit test and its fuzzer. */
#ifndef KEYLESS_TESTS_UNIT_SUPPORT_EVERY_SETTING_H
#define KEYLESS_TESTS_UNIT_SUPPORT_EVERY_SETTING_H

#include <string.h>

#include "common/config_table.h"

struct every_item {
    struct config_position where;
    char *label;
    unsigned weight;
    bool nested_on;
};

struct every_place {
    char *name;
    struct config_position where;
    struct address *servers;
    size_t server_count;
};

struct every_setting {
    char *file;
    bool flag;
    unsigned count, workers;
    uint64_t wait, room;
    struct address address;
    struct config_host_address host;
    char *path, *text;
    int choice;
    unsigned flags;
    char **words;
    size_t word_count;
    struct address *listen;
    size_t listen_count;
    struct {
        bool enabled;
        uint64_t lifetime;
        struct {
            unsigned depth;
        } deep;
    } tickets;
    struct every_item *items;
    size_t item_count;
    struct every_place *places;
    size_t place_count;
};

static const struct config_word EVERY_AUTO[] = {{"auto", 0}, {NULL, 0}};
static const struct config_word EVERY_CHOICES[] = {{"red", 3}, {"green", 5}, {"1.5", 7}, {NULL, 0}};
static const struct config_word EVERY_FLAGS[] = {{"read", 1}, {"write", 2}, {"list", 4}, {NULL, 0}};

static const struct config_row EVERY_ITEM_ROWS[] = {
    {.path = "label", .type = &CONFIG_TEXT, CONFIG_AT(struct every_item, label), .help = "Its label."},
    {
        .path = "weight",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct every_item, weight),
        .max = 10,
        .fallback = "1",
        .help = "Its weight.",
    },
    {
        .path = "nested.enabled",
        .type = &CONFIG_BOOL,
        CONFIG_AT(struct every_item, nested_on),
        .shorthand = true,
        .fallback = "off",
        .help = "Whether.",
    },
};

static inline enum result every_item_check(const struct config_scope *scope, void *object,
                                           struct failure *why)
{
    const struct every_item *item = object;
    if (item->label == NULL)
        return config_refuse(scope, why, "label", "expected a label");
    if (strcmp(item->label, "heavy") == 0 && item->weight < 5)
        return config_refuse(scope, why, "weight", "expected at least 5 for heavy");
    return RESULT_OK;
}

static const struct config_table EVERY_ITEM = {
    CONFIG_ROWS(EVERY_ITEM_ROWS),
    .size = sizeof(struct every_item),
    CONFIG_POSITION(struct every_item, where),
    .check = every_item_check,
};

static const struct config_row EVERY_PLACE_ROWS[] = {
    {
        .path = "servers",
        .type = &CONFIG_ADDRESS,
        CONFIG_LIST_AT(struct every_place, servers, server_count),
        .required = true,
        .most = 3,
        .help = "Where.",
    },
};

static const struct config_table EVERY_PLACE = {
    CONFIG_ROWS(EVERY_PLACE_ROWS),
    .size = sizeof(struct every_place),
    CONFIG_POSITION(struct every_place, where),
    CONFIG_NAME(struct every_place, name),
};

static inline enum result every_text_check(const struct config_row *row, const void *value,
                                           struct failure *why)
{
    (void)row;
    const char *text = *(char *const *)value;
    if (strcmp(text, "forbidden") == 0)
        return failure_set(why, RESULT_CONFIG, "got \"%s\", expected anything else", text);
    return RESULT_OK;
}

static const struct config_row EVERY_ROWS[] = {
    {.path = "flag", .type = &CONFIG_BOOL, CONFIG_AT(struct every_setting, flag), .help = "A flag."},
    {
        .path = "count",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct every_setting, count),
        .min = 2,
        .max = 100,
        .fallback = "10",
        .unit = "things",
        .help = "How many.",
    },
    {
        .path = "workers",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct every_setting, workers),
        .min = 1,
        .words = EVERY_AUTO,
        .fallback = "auto",
        .help = "Processes.",
    },
    {
        .path = "wait",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct every_setting, wait),
        .min = CONFIG_MILLISECOND,
        .max = 48 * CONFIG_HOUR,
        .fallback = "1500ms",
        .help = "How long.",
    },
    {.path = "room",
     .type = &CONFIG_SIZE,
     CONFIG_AT(struct every_setting, room),
     .fallback = "64k",
     .help = "How much."},
    {.path = "address", .type = &CONFIG_ADDRESS, CONFIG_AT(struct every_setting, address), .help = "Where."},
    {
        .path = "host",
        .type = &CONFIG_HOST_ADDRESS,
        CONFIG_AT(struct every_setting, host),
        .help = "Where, by name.",
    },
    {.path = "path", .type = &CONFIG_PATH, CONFIG_AT(struct every_setting, path), .help = "A file."},
    {
        .path = "text",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct every_setting, text),
        .max = 20,
        .check = every_text_check,
        .help =
            "Anything. Text that is long enough to be wrapped when the manual is written, and that begins "
            "with a dot: .so -b \\n.",
    },
    {
        .path = "choice",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct every_setting, choice),
        .words = EVERY_CHOICES,
        .fallback = "green",
        .help = ".so many.",
    },
    {
        .path = "flags",
        .type = &CONFIG_FLAGS,
        CONFIG_AT(struct every_setting, flags),
        .words = EVERY_FLAGS,
        .fallback = "read,list",
        .help = "Rights.",
    },
    {
        .path = "words",
        .type = &CONFIG_TEXT,
        CONFIG_LIST_AT(struct every_setting, words, word_count),
        .max = 5,
        .fallback = "a,bc",
        .help = "Words.",
    },
    {
        .path = "listen",
        .type = &CONFIG_ADDRESS,
        CONFIG_LIST_AT(struct every_setting, listen, listen_count),
        .help = "Addresses.",
    },
    {
        .path = "tickets.enabled",
        .type = &CONFIG_BOOL,
        CONFIG_AT(struct every_setting, tickets.enabled),
        .shorthand = true,
        .fallback = "on",
        .help = "Whether.",
    },
    {
        .path = "tickets.lifetime",
        .type = &CONFIG_DURATION,
        CONFIG_AT(struct every_setting, tickets.lifetime),
        .fallback = "2h",
        .help = "How long.",
    },
    {
        .path = "tickets.deep.depth",
        .type = &CONFIG_COUNT,
        CONFIG_AT(struct every_setting, tickets.deep.depth),
        .help = "How deep.",
    },
    {
        .path = "items",
        .table = &EVERY_ITEM,
        CONFIG_LIST_AT(struct every_setting, items, item_count),
        .help = "Items.",
    },
    {
        .path = "places",
        .table = &EVERY_PLACE,
        CONFIG_LIST_AT(struct every_setting, places, place_count),
        .help = "Places.",
    },
};

static const struct config_table EVERY = {
    CONFIG_ROWS(EVERY_ROWS),
    .size = sizeof(struct every_setting),
    CONFIG_FILE(struct every_setting, file),
};

#endif
