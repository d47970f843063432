#include "common/config_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/buffer.h>

#include "tests/unit/support/every_setting.h"

/* ---- Helpers. */

static enum result parse_sized(const char *text, size_t size, struct every_setting **every,
                               struct failure *why)
{
    const struct config_source source = {
        .file = "t.yaml",
        .directory = "/etc/keyless",
        .text = bytes_of(text, size),
    };
    void *object = NULL;
    enum result result = config_parse(&EVERY, &source, &object, why);
    *every = object;
    return result;
}

static struct every_setting *must_parse(const char *text)
{
    struct failure why = {0};
    struct every_setting *every = NULL;
    if (parse_sized(text, strlen(text), &every, &why) != RESULT_OK)
        fail_msg("%s\nin:\n%s", why.text, text);
    return every;
}

/* What -t prints; to be freed. */
static char *print(const struct every_setting *every)
{
    struct evbuffer *buffer = evbuffer_new();
    config_print(&EVERY, every, buffer);
    size_t size = evbuffer_get_length(buffer);
    char *text = calloc(1, size + 1);
    assert_non_null(text);
    (void)evbuffer_remove(buffer, text, size);
    evbuffer_free(buffer);
    return text;
}

static void assert_contains(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("expected:\n%s\nin:\n%s", part, text);
}

/* Tells all that differs, so that one run shows every row. */
static bool is_refused(const char *text, const char *error)
{
    struct failure why = {0};
    struct every_setting *every = NULL;
    enum result result = parse_sized(text, strlen(text), &every, &why);
    bool same = result != RESULT_OK && result == why.kind && strcmp(why.text, error) == 0;
    if (!same)
        print_error("given:    %s\nexpected: %s\ngot:      %s\n", text, error, why.text);
    config_free(&EVERY, every);
    return same;
}

/* head, then part count times. To be freed. */
static char *repeat(const char *head, const char *part, size_t count)
{
    size_t size = strlen(part);
    char *text = malloc(strlen(head) + size * count + 1);
    assert_non_null(text);
    char *next = stpcpy(text, head);
    for (size_t i = 0; i < count; i++)
        next = stpcpy(next, part);
    return text;
}

/* ---- Values: what is given and what -t then prints. */

static const struct {
    const char *given;
    const char *printed;
} VALUES[] = {
    /* bool */
    {"flag: on", "flag: on\n"},
    {"flag: yes", "flag: on\n"},
    {"flag: true", "flag: on\n"},
    {"flag: off", "flag: off\n"},
    {"flag: no", "flag: off\n"},
    {"flag: false", "flag: off\n"},
    /* count */
    {"count: 2", "count: 2\n"},
    {"count: 100", "count: 100\n"},
    {"count: '7'", "count: 7\n"},
    {"workers: auto", "workers: auto\n"},
    {"workers: 4294967295", "workers: 4294967295\n"},
    /* duration */
    {"wait: 5s", "wait: 5s\n"},
    {"wait: 200ms", "wait: 200ms\n"},
    {"wait: 1h", "wait: 1h\n"},
    {"wait: 2d", "wait: 2d\n"},
    {"wait: 1001us", "wait: 1001us\n"},
    {"wait: 60s", "wait: 1m\n"},
    {"wait: 90m", "wait: 90m\n"},
    {"tickets: {lifetime: 0}", "  lifetime: 0\n"},
    {"tickets: {lifetime: 0s}", "  lifetime: 0\n"},
    /* size */
    {"room: 0", "room: 0\n"},
    {"room: 4097", "room: 4097\n"},
    {"room: 64k", "room: 64k\n"},
    {"room: 64K", "room: 64k\n"},
    {"room: 1024k", "room: 1M\n"},
    {"room: 1G", "room: 1G\n"},
    {"room: 1024T", "room: 1024T\n"},
    /* address */
    {"address: 192.0.2.1:443", "address: \"192.0.2.1:443\"\n"},
    {"address: '[2001:db8::1]:443'", "address: \"[2001:db8::1]:443\"\n"},
    {"address: 'unix:/run/x.sock'", "address: \"unix:/run/x.sock\"\n"},
    {"address: 'unix:run/x.sock'", "address: \"unix:/etc/keyless/run/x.sock\"\n"},
    {"host: name.example:443", "host: \"name.example:443\"\n"},
    {"host: 192.0.2.1:1", "host: \"192.0.2.1:1\"\n"},
    {"flag: on", "# address: not set\n"},
    /* path */
    {"path: /a/b", "path: \"/a/b\"\n"},
    {"path: b/../c", "path: \"/etc/keyless/b/../c\"\n"},
    {"flag: on", "# path: not set\n"},
    /* text */
    {"text: some words", "text: \"some words\"\n"},
    {"text: \"quote \\\" and \\\\\"", "text: \"quote \\\" and \\\\\"\n"},
    {"text: 'on'", "text: \"on\"\n"},
    {"text: gr\xc3\xbc\xc3\x9f", "text: \"gr\xc3\xbc\xc3\x9f\"\n"},
    {"text: 12345678901234567890", "text: \"12345678901234567890\"\n"},
    /* choice, flags */
    {"choice: red", "choice: red\n"},
    {"choice: 1.5", "choice: \"1.5\"\n"},
    {"flags: [write, read]", "flags: [read, write]\n"},
    {"flags: write", "flags: [write]\n"},
    {"flags: []", "flags: []\n"},
    {"flag: on", "flags: [read, list]\n"},
    /* lists */
    {"words: [x, y, x]", "words: [\"x\", \"y\", \"x\"]\n"},
    {"words: x", "words: [\"x\"]\n"},
    {"words: []", "words: []\n"},
    {"flag: on", "words: [\"a\", \"bc\"]\n"},
    {"listen: [192.0.2.1:1, 192.0.2.2:2]", "listen: [\"192.0.2.1:1\", \"192.0.2.2:2\"]\n"},
    /* mappings, and off and on in place of one */
    {"tickets: {enabled: no}", "tickets:\n  enabled: off\n  lifetime: 2h\n  deep:\n    depth: 0\n"},
    {"tickets: {deep: {depth: 7}}", "  enabled: on\n  lifetime: 2h\n  deep:\n    depth: 7\n"},
    {"tickets: off", "tickets:\n  enabled: off\n"},
    {"tickets: on", "tickets:\n  enabled: on\n"},
    {"tickets:", "tickets:\n  enabled: on\n"},
    {"tickets:\n  deep:\n", "    depth: 0\n"},
    {"items: [{label: a, nested: on}]", "    nested:\n      enabled: on\n"},
    /* lists of mappings, mappings by name */
    {"items: [{label: a}]", "items:\n  - label: \"a\"\n    weight: 1\n    nested:\n      enabled: off\n"},
    {"items: {label: a}", "items:\n  - label: \"a\"\n"},
    {"items: []", "items: []\n"},
    {"items: [{label: heavy, weight: 5}, {label: b}]", "  - label: \"b\"\n    weight: 1\n"},
    {"places: {x-1: {servers: 192.0.2.1:1}}", "places:\n  x-1:\n    servers: [\"192.0.2.1:1\"]\n"},
    {"places: {}", "places: {}\n"},
    /* YAML itself */
    {"%YAML 1.1\n---\ncount: 7\n...\n", "count: 7\n"},
    {"\xef\xbb\xbf"
     "count: 7",
     "count: 7\n"},
    {"\xef\xbb\xbf"
     "count: 7\nworkers: 2\n",
     "count: 7\n"},
    {"\"count\": 7", "count: 7\n"},
};

static void values_are_read(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof VALUES / sizeof *VALUES; i++) {
        struct every_setting *every = must_parse(VALUES[i].given);
        char *printed = print(every);
        assert_contains(printed, VALUES[i].printed);
        free(printed);
        config_free(&EVERY, every);
    }
}

/* What is printed reads back to the same; byte for byte, as -t prints every value. */
static void print_reads_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof VALUES / sizeof *VALUES; i++) {
        struct every_setting *first = must_parse(VALUES[i].given);
        char *once = print(first);
        struct every_setting *second = must_parse(once);
        char *twice = print(second);
        assert_string_equal(once, twice);
        free(once);
        free(twice);
        config_free(&EVERY, first);
        config_free(&EVERY, second);
    }
}

static void struct_is_filled(void **state)
{
    (void)state;
    struct every_setting *every = must_parse("count: 7\n"
                                             "wait: 3s\n"
                                             "choice: red\n"
                                             "items:\n"
                                             "  - label: first\n"
                                             "  - {weight: 3,\n"
                                             "     label: second}\n"
                                             "places:\n"
                                             "  b: {servers: [192.0.2.1:1]}\n"
                                             "  a:\n"
                                             "    servers: [192.0.2.1:1, 192.0.2.1:2]\n");
    assert_string_equal(every->file, "t.yaml");
    assert_int_equal(every->count, 7);
    assert_int_equal(every->wait, 3000000);
    assert_int_equal(every->room, 65536);
    assert_int_equal(every->choice, 3);
    assert_int_equal(every->flags, 5);
    assert_true(every->tickets.enabled);
    assert_int_equal(every->address.size, 0);
    assert_int_equal(every->item_count, 2);
    assert_string_equal(every->items[1].label, "second");
    assert_int_equal(every->items[1].where.line, 6);
    assert_int_equal(every->items[1].where.column, 5);
    assert_ptr_equal(every->items[1].where.file, every->file);
    assert_int_equal(every->place_count, 2);
    assert_string_equal(every->places[0].name, "b");
    assert_string_equal(every->places[1].name, "a");
    assert_int_equal(every->places[1].server_count, 2);
    assert_int_equal(every->places[1].where.line, 11);
    config_free(&EVERY, every);
}

/* ---- Errors: the whole text. */

#define COUNT_EXPECTED    "expected a whole number from 2 to 100"
#define DURATION_EXPECTED "expected a duration such as 500ms, 5s or 2h, from 1ms to 2d"
#define SIZE_EXPECTED     "expected a size such as 4096, 64k or 1G, from 0 to 1024T"
#define ADDRESS_EXPECTED  "expected an address such as 192.0.2.1:443, [2001:db8::1]:443 or unix:/run/app.sock"

static const struct {
    const char *given;
    const char *error;
} ERRORS[] = {
    /* the file */
    {"", "t.yaml: got an empty file, expected settings"},
    {"# only a comment\n", "t.yaml: got an empty file, expected settings"},
    {"count: 7\n---\ncount: 8\n", "t.yaml:2:1: got a second document (---), expected only one"},
    {"- a\n", "t.yaml:1:1: got a list, expected a mapping of settings"},
    {"text\n", "t.yaml:1:1: got \"text\", expected a mapping of settings"},
    {"count: &a 7\n",
     "t.yaml:1:8: got an anchor (&), expected a value; text that starts with & needs quotes"},
    {"text: *a\n", "t.yaml:1:7: got an alias (*), expected a value; text that starts with * needs quotes"},
    {"words: [*]\n", "t.yaml:1:10: got an alias (*), expected a value; text that starts with * needs quotes"},
    {"text: !!str 5\n", "t.yaml:1:7: got a tag (!), expected a value; text that starts with ! needs quotes"},
    {"tickets: !x {}\n",
     "t.yaml:1:10: got a tag (!), expected a value; text that starts with ! needs quotes"},
    {"items:\n\t- a\n", "t.yaml:2:1: got a tab, expected spaces (YAML has no tabs here)"},
    {"text: \"a\n", "t.yaml:2:1: not YAML: found unexpected end of stream while scanning a quoted scalar"},
    {"text: a: b\n", "t.yaml:1:8: not YAML: mapping values are not allowed in this context"},
    {"text: [a\n", "t.yaml:2:1: not YAML: did not find expected ',' or ']' while parsing a flow sequence"},
    {"count: 7\ntext: a\xff\n", "t.yaml:2:8: not UTF-8 text: invalid leading UTF-8 octet"},
    {"text: a\xc3\n", "t.yaml:1:9: not UTF-8 text: invalid trailing UTF-8 octet"},
    {"text: \xc3\xbc\x01\n", "t.yaml:1:8: not UTF-8 text: control characters are not allowed"},
    {"\xff\xfe"
     "c\0o\0",
     "t.yaml:1:1: not UTF-8 text: invalid leading UTF-8 octet"},
    /* names of settings */
    {"wokers: 3\n", "t.yaml:1:1: unknown setting \"wokers\"; did you mean \"workers\"?"},
    {"count: 7\nTEXT: a\n",
     "t.yaml:2:1: unknown setting \"TEXT\", expected one of flag, count, workers, wait, room, address, host, "
     "path, text, choice, flags, words, listen, tickets, items, places"},
    {"tickets: {lifetim: 1h}\n",
     "t.yaml:1:11: tickets: unknown setting \"lifetim\"; did you mean \"lifetime\"?"},
    {"tickets: {deep: {dept: 1}}\n",
     "t.yaml:1:18: tickets.deep: unknown setting \"dept\"; did you mean \"depth\"?"},
    {"lifetime: 1h\n", "t.yaml:1:1: unknown setting \"lifetime\"; did you mean \"tickets.lifetime\"?"},
    {"items: [{label: a}, {lable: b}]\n",
     "t.yaml:1:22: items[1]: unknown setting \"lable\"; did you mean \"label\"?"},
    {"places: {x: {server: a}}\n",
     "t.yaml:1:14: places.x: unknown setting \"server\"; did you mean \"servers\"?"},
    {"count: 7\nflag: on\ncount: 8\n",
     "t.yaml:3:1: count: got \"count\" a second time, the first is in line 1"},
    {"tickets: {enabled: on, enabled: off}\n",
     "t.yaml:1:24: tickets.enabled: got \"enabled\" a second time, the first is in line 1"},
    {"? [a]\n: b\n", "t.yaml:1:3: got a list, expected a setting's name"},
    {"<<: {count: 7}\n", "t.yaml:1:1: unknown setting \"<<\", expected one of flag, count, workers, wait, "
                         "room, address, host, path, "
                         "text, choice, flags, words, listen, tickets, items, places"},
    /* bool */
    {"flag: maybe\n", "t.yaml:1:7: flag: got \"maybe\", expected on or off"},
    {"flag: 1\n", "t.yaml:1:7: flag: got \"1\", expected on or off"},
    {"flag:\n", "t.yaml:1:6: flag: got nothing, expected on or off"},
    {"flag: [on]\n", "t.yaml:1:7: flag: got a list, expected on or off"},
    /* count */
    {"count: 3q\n", "t.yaml:1:8: count: got \"3q\", " COUNT_EXPECTED},
    {"count: 1\n", "t.yaml:1:8: count: got \"1\", " COUNT_EXPECTED},
    {"count: 101\n", "t.yaml:1:8: count: got \"101\", " COUNT_EXPECTED},
    {"count: -3\n", "t.yaml:1:8: count: got \"-3\", " COUNT_EXPECTED},
    {"count: +3\n", "t.yaml:1:8: count: got \"+3\", " COUNT_EXPECTED},
    {"count: 3.5\n", "t.yaml:1:8: count: got \"3.5\", " COUNT_EXPECTED},
    {"count: 0x10\n", "t.yaml:1:8: count: got \"0x10\", " COUNT_EXPECTED},
    {"count: 010\n", "t.yaml:1:8: count: got \"010\", " COUNT_EXPECTED},
    {"count: ' 7'\n", "t.yaml:1:8: count: got \" 7\", " COUNT_EXPECTED},
    {"count: ''\n", "t.yaml:1:8: count: got \"\", " COUNT_EXPECTED},
    {"count: auto\n", "t.yaml:1:8: count: got \"auto\", " COUNT_EXPECTED},
    {"count: {a: b}\n", "t.yaml:1:8: count: got a mapping, " COUNT_EXPECTED},
    {"count: 18446744073709551623\n", "t.yaml:1:8: count: got \"18446744073709551623\", " COUNT_EXPECTED},
    {"workers: 0\n", "t.yaml:1:10: workers: got \"0\", expected a whole number from 1 to 4294967295 or auto"},
    {"workers: 4294967296\n",
     "t.yaml:1:10: workers: got \"4294967296\", expected a whole number from 1 to 4294967295 or auto"},
    /* duration */
    {"wait: 5\n", "t.yaml:1:7: wait: got \"5\", " DURATION_EXPECTED},
    {"wait: 0\n", "t.yaml:1:7: wait: got \"0\", " DURATION_EXPECTED},
    {"wait: 5 s\n", "t.yaml:1:7: wait: got \"5 s\", " DURATION_EXPECTED},
    {"wait: s\n", "t.yaml:1:7: wait: got \"s\", " DURATION_EXPECTED},
    {"wait: 1.5s\n", "t.yaml:1:7: wait: got \"1.5s\", " DURATION_EXPECTED},
    {"wait: 1h30m\n", "t.yaml:1:7: wait: got \"1h30m\", " DURATION_EXPECTED},
    {"wait: 49h\n", "t.yaml:1:7: wait: got \"49h\", " DURATION_EXPECTED},
    {"wait: 999us\n", "t.yaml:1:7: wait: got \"999us\", " DURATION_EXPECTED},
    {"wait: 213503982334602d\n", "t.yaml:1:7: wait: got \"213503982334602d\", " DURATION_EXPECTED},
    /* size */
    {"room: 64kB\n", "t.yaml:1:7: room: got \"64kB\", " SIZE_EXPECTED},
    {"room: 1P\n", "t.yaml:1:7: room: got \"1P\", " SIZE_EXPECTED},
    {"room: 1025T\n", "t.yaml:1:7: room: got \"1025T\", " SIZE_EXPECTED},
    {"room: 16777216T\n", "t.yaml:1:7: room: got \"16777216T\", " SIZE_EXPECTED},
    /* address */
    {"address: 192.0.2.1\n", "t.yaml:1:10: address: got \"192.0.2.1\", " ADDRESS_EXPECTED},
    {"address: 192.0.2.1:65536\n", "t.yaml:1:10: address: got \"192.0.2.1:65536\", " ADDRESS_EXPECTED},
    {"address: name.example:443\n", "t.yaml:1:10: address: got \"name.example:443\", " ADDRESS_EXPECTED},
    {"address: 'unix:'\n", "t.yaml:1:10: address: got \"unix:\", " ADDRESS_EXPECTED},
    {"host: nonsense\n",
     "t.yaml:1:7: host: got \"nonsense\", expected an address such as 192.0.2.1:443, [2001:db8::1]:443, "
     "name.example:443 or unix:/run/app.sock"},
    /* path, text */
    {"path: ''\n", "t.yaml:1:7: path: got \"\", expected a path"},
    {"path:\n", "t.yaml:1:6: path: got nothing, expected a path"},
    {"text: ''\n", "t.yaml:1:7: text: got \"\", expected text of 1 to 20 octets"},
    {"text: 123456789012345678901\n",
     "t.yaml:1:7: text: got \"123456789012345678901\", expected text of 1 to 20 octets"},
    {"text: \"a\\nb\\\"\\0\"\n",
     "t.yaml:1:7: text: got \"a\\nb\\\"\\x00\", expected text without control characters"},
    {"text: forbidden\n", "t.yaml:1:7: text: got \"forbidden\", expected anything else"},
    /* choice, flags */
    {"choice: blue\n", "t.yaml:1:9: choice: got \"blue\", expected red, green or 1.5"},
    {"choice: Red\n", "t.yaml:1:9: choice: got \"Red\", expected red, green or 1.5"},
    {"flags: [read, execute]\n", "t.yaml:1:15: flags[1]: got \"execute\", expected read, write or list"},
    {"flags: execute\n", "t.yaml:1:8: flags: got \"execute\", expected read, write or list"},
    {"flags: {read: on}\n", "t.yaml:1:8: flags: got a mapping, expected read, write or list"},
    /* lists */
    {"words: [a, 123456]\n", "t.yaml:1:12: words[1]: got \"123456\", expected text of 1 to 5 octets"},
    {"words: [a, [b]]\n", "t.yaml:1:12: words[1]: got a list, expected text of 1 to 5 octets"},
    {"words: {a: b}\n", "t.yaml:1:8: words: got a mapping, expected text of 1 to 5 octets"},
    {"words:\n", "t.yaml:1:7: words: got nothing, expected text of 1 to 5 octets"},
    {"listen: [192.0.2.1:1, x]\n", "t.yaml:1:23: listen[1]: got \"x\", " ADDRESS_EXPECTED},
    /* mappings */
    {"tickets: maybe\n", "t.yaml:1:10: tickets.enabled: got \"maybe\", expected on or off"},
    {"tickets: [on]\n", "t.yaml:1:10: tickets: got a list, expected on or off, or a mapping of settings"},
    {"tickets: {deep: off}\n", "t.yaml:1:17: tickets.deep: got \"off\", expected a mapping of settings"},
    /* lists of mappings, mappings by name */
    {"items: [a]\n", "t.yaml:1:9: items[0]: got \"a\", expected a mapping of settings"},
    {"items: [{weight: 2}]\n", "t.yaml:1:9: items[0].label: missing, expected a label"},
    {"items:\n  - label: heavy\n", "t.yaml:2:5: items[0].weight: missing, expected at least 5 for heavy"},
    {"items:\n  - label: heavy\n    weight: 4\n",
     "t.yaml:3:13: items[0].weight: got \"4\", expected at least 5 for heavy"},
    {"items: {label: a, weight: 11}\n",
     "t.yaml:1:27: items.weight: got \"11\", expected a whole number from 0 to 10"},
    {"items: [{label: a, nested: maybe}]\n",
     "t.yaml:1:28: items[0].nested.enabled: got \"maybe\", expected on or off"},
    {"places: [a]\n", "t.yaml:1:9: places: got a list, expected a mapping of names to settings"},
    {"places: {x: {}}\n", "t.yaml:1:13: places.x.servers: missing, " ADDRESS_EXPECTED},
    {"places: {x: {servers: []}}\n",
     "t.yaml:1:23: places.x.servers: got nothing in it, expected at least one"},
    {"places: {x: {servers: [192.0.2.1:1, 192.0.2.1:2, 192.0.2.1:3, 192.0.2.1:4]}}\n",
     "t.yaml:1:23: places.x.servers: got 4, expected at most 3"},
    {"places:\n  a b: {servers: 192.0.2.1:1}\n",
     "t.yaml:2:3: places: got \"a b\", expected a name of 1 to 64 letters, digits, hyphens and underscores"},
    {"places:\n  a: {servers: 192.0.2.1:1}\n  a: {servers: 192.0.2.1:1}\n",
     "t.yaml:3:3: places: got \"a\", expected each name once"},
};

static void errors_say_what_and_where(void **state)
{
    (void)state;
    size_t wrong = 0;
    for (size_t i = 0; i < sizeof ERRORS / sizeof *ERRORS; i++)
        wrong += !is_refused(ERRORS[i].given, ERRORS[i].error);
    assert_int_equal(wrong, 0);
}

/* A value is cut at a whole character, wherever its end falls. */
static void long_values_are_cut(void **state)
{
    (void)state;
    char *letters = repeat("", "x", 170);
    for (int size = 130; size < 170; size++) {
        char text[256];
        struct failure why = {0};
        struct every_setting *every = NULL;
        (void)snprintf(text, sizeof text, "flag: %.*s\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\n", size, letters);
        assert_int_equal(parse_sized(text, strlen(text), &every, &why), RESULT_CONFIG);
        const char *end = strstr(why.text, "\", expected");
        assert_non_null(end);
        if (size + 9 > 153) {
            assert_int_equal(strncmp(end - 3, "...", 3), 0);
            end -= 3;
        }
        assert_true(end[-1] == 'x' || strncmp(end - 3, "\xe2\x82\xac", 3) == 0);
    }
    free(letters);
}

static void long_socket_paths_are_refused(void **state)
{
    (void)state;
    char *fits = repeat("address: unix:/", "x", 106);
    config_free(&EVERY, must_parse(fits));
    char *path = repeat("", "x", 102);
    char text[256];
    char error[512];
    /* With the directory, "/etc/keyless/", it is 115. */
    (void)snprintf(text, sizeof text, "address: unix:%s", path);
    (void)snprintf(
        error, sizeof error,
        "t.yaml:1:10: address: got \"unix:/etc/keyless/%s\" of 115 octets, expected a Unix socket's "
        "path of at most 107",
        path);
    assert_true(is_refused(text, error));
    free(path);
    free(fits);
}

/* ---- Bounds. */

static const struct {
    const char *head, *part;
    size_t count;
    const char *error;
} BOUNDS[] = {
    {"#", "x", (4u << 20) - 1, "t.yaml: got an empty file, expected settings"},
    {"#", "x", 4u << 20, "t.yaml: got 4194305 octets, expected at most 4 MB"},
    {"words: ", "[", 16, "t.yaml:1:23: nested too deeply, expected at most 16 levels"},
    {"words: ", "[", 100000, "t.yaml:1:23: nested too deeply, expected at most 16 levels"},
    {"", "- ", 100000, "t.yaml:1:33: nested too deeply, expected at most 16 levels"},
    {"", "? ", 100000, "t.yaml:1:33: nested too deeply, expected at most 16 levels"},
    {"", "{", 100000, "t.yaml:1:17: nested too deeply, expected at most 16 levels"},
    {"words:\n", "- a\n", 100000, "t.yaml:99999:3: too large, expected at most 100000 values"},
    {"text: ", "x", 4097, "xxx...\", expected at most 4096 octets"},
    {"places:\n", "  ? a\n", 4097, "t.yaml:2:3: places: got 4097, expected at most 4096"},
};

static void bounds_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof BOUNDS / sizeof *BOUNDS; i++) {
        char *text = repeat(BOUNDS[i].head, BOUNDS[i].part, BOUNDS[i].count);
        struct failure why = {0};
        struct every_setting *every = NULL;
        assert_int_equal(parse_sized(text, strlen(text), &every, &why), RESULT_CONFIG);
        assert_contains(why.text, BOUNDS[i].error);
        free(text);
    }
}

/* ---- Files. */

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
    assert_int_equal(fclose(file), 0);
}

static enum result read_path(const char *path, struct every_setting **every, struct failure *why)
{
    void *object = NULL;
    enum result result = config_read(&EVERY, path, &object, why);
    *every = object;
    return result;
}

static void files_are_read(void **state)
{
    (void)state;
    char directory[] = "/tmp/test_config_table.XXXXXX";
    assert_non_null(mkdtemp(directory));
    char path[128];
    char expected[256];
    struct failure why = {0};
    struct every_setting *every = NULL;
    (void)snprintf(path, sizeof path, "%s/a.yaml", directory);

    assert_int_equal(read_path(path, &every, &why), RESULT_CONFIG);
    (void)snprintf(expected, sizeof expected, "%s: cannot be read: No such file or directory", path);
    assert_string_equal(why.text, expected);

    assert_int_equal(read_path(directory, &every, &why), RESULT_CONFIG);
    (void)snprintf(expected, sizeof expected, "%s: cannot be read: Is a directory", directory);
    assert_string_equal(why.text, expected);

    write_file(path, "path: keys/b.pem\n");
    assert_int_equal(chmod(path, 0666), 0);
    assert_int_equal(read_path(path, &every, &why), RESULT_OK);
    (void)snprintf(expected, sizeof expected, "%s/keys/b.pem", directory);
    assert_string_equal(every->path, expected);
    assert_string_equal(every->file, path);
    config_free(&EVERY, every);

    write_file(path, "flag: on\ncount: x\n");
    assert_int_equal(read_path(path, &every, &why), RESULT_CONFIG);
    (void)snprintf(expected, sizeof expected, "%s:2:8: count: got \"x\", " COUNT_EXPECTED, path);
    assert_string_equal(why.text, expected);

    char *large = repeat("#", "x", 4u << 20);
    write_file(path, large);
    free(large);
    assert_int_equal(read_path(path, &every, &why), RESULT_CONFIG);
    (void)snprintf(expected, sizeof expected, "%s: got more than 4 MB, expected at most that", path);
    assert_string_equal(why.text, expected);

    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(directory), 0);
}

/* Paths of a file named relative to the working directory are absolute all the same. */
static void relative_files_give_absolute_paths(void **state)
{
    (void)state;
    char directory[] = "/tmp/test_config_table.XXXXXX";
    char before[4096];
    assert_non_null(getcwd(before, sizeof before));
    assert_non_null(mkdtemp(directory));
    assert_int_equal(chdir(directory), 0);
    write_file("a.yaml", "path: b\n");
    struct failure why = {0};
    struct every_setting *every = NULL;
    assert_int_equal(read_path("a.yaml", &every, &why), RESULT_OK);
    char expected[256];
    (void)snprintf(expected, sizeof expected, "%s/b", directory);
    assert_string_equal(every->path, expected);
    config_free(&EVERY, every);
    assert_int_equal(unlink("a.yaml"), 0);
    assert_int_equal(chdir(before), 0);
    assert_int_equal(rmdir(directory), 0);
}

/* ---- Later errors. */

static void later_errors_name_the_line(void **state)
{
    (void)state;
    struct failure why = {0};
    struct config_position where = {.file = "t.yaml", .line = 3, .column = 5};
    assert_int_equal(config_failure(&why, &where, "listen[0].backend", "got \"%s\"", "x"), RESULT_CONFIG);
    assert_string_equal(why.text, "t.yaml:3:5: listen[0].backend: got \"x\"");
    where.line = 0;
    (void)config_failure(&why, &where, "user", "no such user");
    assert_string_equal(why.text, "t.yaml: user: no such user");
    (void)config_failure(&why, &where, "", "is empty");
    assert_string_equal(why.text, "t.yaml: is empty");
}

/* ---- The manual. */

static char *manual(enum config_manual format)
{
    struct evbuffer *buffer = evbuffer_new();
    config_manual(&EVERY, format, buffer);
    size_t size = evbuffer_get_length(buffer);
    char *text = calloc(1, size + 1);
    assert_non_null(text);
    (void)evbuffer_remove(buffer, text, size);
    evbuffer_free(buffer);
    return text;
}

static void manual_has_every_row(void **state)
{
    (void)state;
    char *text = manual(CONFIG_MANUAL_TEXT);
    assert_contains(text,
                    "count\n    Value: a whole number from 2 to 100 (things). Default: 10.\n    How many.\n");
    assert_contains(text, "text\n    Value: text of 1 to 20 octets.\n"
                          "    Anything. Text that is long enough to be wrapped when the manual is\n"
                          "    written, and that begins with a dot: .so -b \\n.\n");
    assert_contains(text, "flags\n    Value: a list, each read, write or list. Default: read,list.\n");
    assert_contains(text, "items\n    Value: a list of mappings.\n    Items.\nitems[].label\n");
    assert_contains(text, "places.NAME.servers\n    Value: a list, each an address such as");
    assert_contains(text, " Required.\n");
    free(text);

    char *roff = manual(CONFIG_MANUAL_ROFF);
    assert_contains(roff, ".TP\n.B \"tickets.lifetime\"\nValue: a duration such as 500ms");
    assert_contains(roff, "\n\\&.so many.\n");
    assert_contains(roff, ": .so \\-b \\en.\n");
    free(roff);
}

/* ---- Tables themselves. */

static void table_is_sound(void **state)
{
    (void)state;
    struct failure why = {0};
    if (config_table_check(&EVERY, &why) != RESULT_OK)
        fail_msg("%s", why.text);
}

struct small {
    unsigned a, b;
    uint64_t wide;
};

#define A                                                                                                    \
    {                                                                                                        \
        .path = "a", .type = &CONFIG_COUNT, CONFIG_AT(struct small, a), .help = "A."                         \
    }

static const struct {
    struct config_row rows[3];
    const char *error;
} UNSOUND[] = {
    {{A, A}, "row \"a\": stands there twice"},
    {{A, {.path = "a.b", .type = &CONFIG_COUNT, CONFIG_AT(struct small, b), .help = "B."}},
     "row \"a.b\": is in a mapping that is also a value"},
    {{{.path = "a.b", .type = &CONFIG_COUNT, CONFIG_AT(struct small, b), .help = "B."}, A},
     "row \"a\": is a value that is also a mapping"},
    {{{.path = "g.a", .type = &CONFIG_COUNT, CONFIG_AT(struct small, b), .help = "B."},
      A,
      {.path = "g.b", .type = &CONFIG_COUNT, CONFIG_AT(struct small, b), .help = "B."}},
     "row \"g.b\": stands apart from its mapping"},
    {{{.path = "b", .type = &CONFIG_COUNT, CONFIG_AT(struct small, wide), .help = "B."}},
     "row \"b\": its member's size is not its type's"},
    {{{.path = "b", .type = &CONFIG_COUNT, CONFIG_AT(struct small, b), .fallback = "x", .help = "B."}},
     "row \"b\": its default does not parse"},
    {{{.path = "b",
       .type = &CONFIG_COUNT,
       CONFIG_AT(struct small, b),
       .min = 3,
       .fallback = "2",
       .help = "B."}},
     "row \"b\": its default does not parse"},
    {{{.path = "b", .type = &CONFIG_CHOICE, CONFIG_AT(struct small, b), .help = "B."}},
     "row \"b\": has no words"},
    {{{.path = "b", .type = &CONFIG_COUNT, CONFIG_AT(struct small, b)}}, "row \"b\": has no help"},
    {{{.path = "b", .help = "B."}}, "row \"b\": needs either a type or a table"},
    {{{.path = "b", .table = &EVERY_ITEM, CONFIG_AT(struct small, b), .help = "B."}},
     "row \"b\": is no list of the table's structs"},
};

static void unsound_tables_are_found(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof UNSOUND / sizeof *UNSOUND; i++) {
        struct config_table table = {.rows = UNSOUND[i].rows, .size = sizeof(struct small)};
        while (table.row_count < 3 && UNSOUND[i].rows[table.row_count].path != NULL)
            table.row_count++;
        struct failure why = {0};
        assert_int_equal(config_table_check(&table, &why), RESULT_CONFIG);
        assert_string_equal(why.text, UNSOUND[i].error);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_are_read),
        cmocka_unit_test(print_reads_back),
        cmocka_unit_test(struct_is_filled),
        cmocka_unit_test(errors_say_what_and_where),
        cmocka_unit_test(long_values_are_cut),
        cmocka_unit_test(long_socket_paths_are_refused),
        cmocka_unit_test(bounds_hold),
        cmocka_unit_test(files_are_read),
        cmocka_unit_test(relative_files_give_absolute_paths),
        cmocka_unit_test(later_errors_name_the_line),
        cmocka_unit_test(manual_has_every_row),
        cmocka_unit_test(table_is_sound),
        cmocka_unit_test(unsound_tables_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
