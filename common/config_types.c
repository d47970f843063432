#include "common/config_table.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/buffer.h>

/* ---- Words that stand for values. */

static const struct config_word *find_word(const struct config_word *words, const char *text)
{
    for (const struct config_word *word = words; word != NULL && word->name != NULL; word++) {
        if (strcmp(word->name, text) == 0)
            return word;
    }
    return NULL;
}

static void append(char text[static CONFIG_EXPECT_SIZE], const char *more)
{
    size_t used = strlen(text);
    (void)snprintf(text + used, CONFIG_EXPECT_SIZE - used, "%s", more);
}

/* "a", "a or b", "a, b or c" */
static void append_words(char text[static CONFIG_EXPECT_SIZE], const struct config_word *words)
{
    for (const struct config_word *word = words; word != NULL && word->name != NULL; word++) {
        if (word != words)
            append(text, word[1].name == NULL ? " or " : ", ");
        append(text, word->name);
    }
}

/* Behind a number's expectation: " or auto". */
static void append_or_words(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    if (row->words == NULL)
        return;
    append(text, " or ");
    append_words(text, row->words);
}

void config_print_word(const char *word, struct evbuffer *to)
{
    if (word[0] >= '0' && word[0] <= '9')
        config_print_quoted(word, to);
    else
        (void)evbuffer_add_printf(to, "%s", word);
}

void config_print_quoted(const char *text, struct evbuffer *to)
{
    (void)evbuffer_add(to, "\"", 1);
    for (const char *next = text; *next != '\0'; next++) {
        unsigned char octet = (unsigned char)*next;
        if (octet == '"' || octet == '\\')
            (void)evbuffer_add_printf(to, "\\%c", octet);
        else if (octet < 0x20 || octet == 0x7f)
            (void)evbuffer_add_printf(to, "\\x%02x", octet);
        else
            (void)evbuffer_add(to, next, 1);
    }
    (void)evbuffer_add(to, "\"", 1);
}

void config_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    const char *words = row->expected;
    if (words == NULL && row->table != NULL)
        words = row->table->named ? "a mapping of names to settings" : "a list of mappings";
    if (words != NULL)
        (void)snprintf(text, CONFIG_EXPECT_SIZE, "%s", words);
    else
        row->type->expect(row, text);
}

/* ---- bool */

static const struct config_word BOOL_WORDS[] = {
    {"on", 1}, {"off", 0}, {"yes", 1}, {"no", 0}, {"true", 1}, {"false", 0}, {NULL, 0},
};

static enum result bool_parse(const struct config_row *row, const struct config_source *source,
                              const char *text, void *value, struct failure *why)
{
    (void)row;
    (void)source;
    const struct config_word *word = find_word(BOOL_WORDS, text);
    if (word == NULL)
        return config_unexpected(why);
    *(bool *)value = word->value != 0;
    return RESULT_OK;
}

static void bool_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    (void)row;
    (void)snprintf(text, CONFIG_EXPECT_SIZE, "on or off");
}

static bool bool_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    (void)row;
    (void)evbuffer_add_printf(to, "%s", *(const bool *)value ? "on" : "off");
    return true;
}

const struct config_type CONFIG_BOOL = {
    .name = "on or off",
    .size = sizeof(bool),
    .parse = bool_parse,
    .expect = bool_expect,
    .print = bool_print,
};

/* ---- Numbers: digits and one unit. */

struct unit {
    const char *suffix; /* the last one is NULL */
    uint64_t factor;
};

static const struct unit NO_UNITS[] = {{"", 1}, {NULL, 0}};

static const struct unit DURATION_UNITS[] = {
    {"d", 24 * CONFIG_HOUR},
    {"h", CONFIG_HOUR},
    {"m", 60 * CONFIG_SECOND},
    {"s", CONFIG_SECOND},
    {"ms", CONFIG_MILLISECOND},
    {"us", 1},
    {NULL, 0},
};

static const struct unit SIZE_UNITS[] = {
    {"T", UINT64_C(1) << 40},
    {"G", UINT64_C(1) << 30},
    {"M", UINT64_C(1) << 20},
    {"k", UINT64_C(1) << 10},
    {"K", UINT64_C(1) << 10},
    {"", 1},
    {NULL, 0},
};

static const struct unit *find_unit(const struct unit *units, const char *suffix)
{
    for (; units->suffix != NULL; units++) {
        if (strcmp(units->suffix, suffix) == 0)
            return units;
    }
    return NULL;
}

/* No sign, no leading zero (octal to some, decimal to others), nothing behind the unit, no overflow. A zero
 * needs no unit. */
static bool parse_scaled(const char *text, const struct unit *units, uint64_t *number)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || (text[0] == '0' && digits > 1))
        return false;
    *number = 0;
    for (size_t i = 0; i < digits; i++) {
        if (__builtin_mul_overflow(*number, UINT64_C(10), number) ||
            __builtin_add_overflow(*number, (uint64_t)(text[i] - '0'), number))
            return false;
    }
    if (strcmp(text, "0") == 0)
        return true;
    const struct unit *unit = find_unit(units, text + digits);
    return unit != NULL && !__builtin_mul_overflow(*number, unit->factor, number);
}

/* With the largest unit that leaves no rest. */
static void format_scaled(uint64_t number, const struct unit *units, char text[static 32])
{
    const struct unit *unit = units;
    while (unit[1].suffix != NULL && number != 0 && number % unit->factor != 0)
        unit++;
    (void)snprintf(text, 32, "%llu%s", (unsigned long long)(number / unit->factor),
                   number != 0 ? unit->suffix : "");
}

static uint64_t number_max(const struct config_row *row, uint64_t type_max)
{
    return row->max != 0 ? row->max : type_max;
}

static enum result number_parse(const struct config_row *row, const char *text, const struct unit *units,
                                uint64_t type_max, uint64_t *number, struct failure *why)
{
    const struct config_word *word = find_word(row->words, text);
    if (word != NULL) {
        *number = (uint64_t)word->value;
        return RESULT_OK;
    }
    if (!parse_scaled(text, units, number) || *number < row->min || *number > number_max(row, type_max))
        return config_unexpected(why);
    return RESULT_OK;
}

/* "a duration from 1ms to 1h" */
static void number_expect(const struct config_row *row, const char *what, const struct unit *units,
                          uint64_t type_max, char text[static CONFIG_EXPECT_SIZE])
{
    char low[32];
    char high[32];
    format_scaled(row->min, units, low);
    format_scaled(number_max(row, type_max), units, high);
    (void)snprintf(text, CONFIG_EXPECT_SIZE, "%s from %s to %s", what, low, high);
    append_or_words(row, text);
}

static void number_print(const struct config_row *row, uint64_t number, const struct unit *units,
                         struct evbuffer *to)
{
    for (const struct config_word *word = row->words; word != NULL && word->name != NULL; word++) {
        if ((uint64_t)word->value == number) {
            config_print_word(word->name, to);
            return;
        }
    }
    char text[32];
    format_scaled(number, units, text);
    (void)evbuffer_add_printf(to, "%s", text);
}

/* ---- count */

static enum result count_parse(const struct config_row *row, const struct config_source *source,
                               const char *text, void *value, struct failure *why)
{
    (void)source;
    uint64_t number = 0;
    enum result result = number_parse(row, text, NO_UNITS, UINT_MAX, &number, why);
    *(unsigned *)value = (unsigned)number;
    return result;
}

static void count_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    number_expect(row, "a whole number", NO_UNITS, UINT_MAX, text);
}

static bool count_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    number_print(row, *(const unsigned *)value, NO_UNITS, to);
    return true;
}

const struct config_type CONFIG_COUNT = {
    .name = "count",
    .size = sizeof(unsigned),
    .parse = count_parse,
    .expect = count_expect,
    .print = count_print,
};

/* ---- percent */

static const struct unit PERCENT_UNITS[] = {{"%", 1}, {NULL, 0}};

static enum result percent_parse(const struct config_row *row, const struct config_source *source,
                                 const char *text, void *value, struct failure *why)
{
    (void)source;
    uint64_t number = 0;
    enum result result = number_parse(row, text, PERCENT_UNITS, 100, &number, why);
    *(unsigned *)value = (unsigned)number;
    return result;
}

static void percent_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    number_expect(row, "a share such as 5%,", PERCENT_UNITS, 100, text);
}

static bool percent_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    number_print(row, *(const unsigned *)value, PERCENT_UNITS, to);
    return true;
}

const struct config_type CONFIG_PERCENT = {
    .name = "percent",
    .size = sizeof(unsigned),
    .parse = percent_parse,
    .expect = percent_expect,
    .print = percent_print,
};

/* ---- duration */

#define DURATION_MAX (UINT64_C(8760) * CONFIG_HOUR) /* a year */

static enum result duration_parse(const struct config_row *row, const struct config_source *source,
                                  const char *text, void *value, struct failure *why)
{
    (void)source;
    return number_parse(row, text, DURATION_UNITS, DURATION_MAX, value, why);
}

static void duration_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    number_expect(row, "a duration such as 500ms, 5s or 2h,", DURATION_UNITS, DURATION_MAX, text);
}

static bool duration_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    number_print(row, *(const uint64_t *)value, DURATION_UNITS, to);
    return true;
}

const struct config_type CONFIG_DURATION = {
    .name = "duration",
    .size = sizeof(uint64_t),
    .parse = duration_parse,
    .expect = duration_expect,
    .print = duration_print,
};

/* ---- size */

#define SIZE_LIMIT (UINT64_C(1) << 50)

static enum result size_parse(const struct config_row *row, const struct config_source *source,
                              const char *text, void *value, struct failure *why)
{
    (void)source;
    return number_parse(row, text, SIZE_UNITS, SIZE_LIMIT, value, why);
}

static void size_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    number_expect(row, "a size such as 4096, 64k or 1G,", SIZE_UNITS, SIZE_LIMIT, text);
}

static bool size_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    number_print(row, *(const uint64_t *)value, SIZE_UNITS, to);
    return true;
}

const struct config_type CONFIG_SIZE = {
    .name = "size",
    .size = sizeof(uint64_t),
    .parse = size_parse,
    .expect = size_expect,
    .print = size_print,
};

/* ---- choice and flags */

static enum result choice_parse(const struct config_row *row, const struct config_source *source,
                                const char *text, void *value, struct failure *why)
{
    (void)source;
    const struct config_word *word = find_word(row->words, text);
    if (word == NULL)
        return config_unexpected(why);
    *(int *)value = word->value;
    return RESULT_OK;
}

static void choice_expect(const struct config_row *row, char text[static CONFIG_EXPECT_SIZE])
{
    text[0] = '\0';
    append_words(text, row->words);
}

static bool choice_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    for (const struct config_word *word = row->words; word->name != NULL; word++) {
        if (word->value == *(const int *)value) {
            config_print_word(word->name, to);
            return true;
        }
    }
    return false;
}

const struct config_type CONFIG_CHOICE = {
    .name = "choice",
    .size = sizeof(int),
    .parse = choice_parse,
    .expect = choice_expect,
    .print = choice_print,
};

static enum result flags_parse(const struct config_row *row, const struct config_source *source,
                               const char *text, void *value, struct failure *why)
{
    (void)source;
    const struct config_word *word = find_word(row->words, text);
    if (word == NULL)
        return config_unexpected(why);
    *(unsigned *)value |= (unsigned)word->value;
    return RESULT_OK;
}

static bool flags_print(const struct config_row *row, const void *value, struct evbuffer *to)
{
    unsigned flags = *(const unsigned *)value;
    const char *between = "";
    (void)evbuffer_add(to, "[", 1);
    for (const struct config_word *word = row->words; word->name != NULL; word++) {
        if ((flags & (unsigned)word->value) == 0)
            continue;
        (void)evbuffer_add_printf(to, "%s", between);
        config_print_word(word->name, to);
        between = ", ";
    }
    (void)evbuffer_add(to, "]", 1);
    return true;
}

const struct config_type CONFIG_FLAGS = {
    .name = "list of choices",
    .size = sizeof(unsigned),
    .gathers = true,
    .parse = flags_parse,
    .expect = choice_expect,
    .print = flags_print,
};
