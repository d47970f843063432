/* The log: exact lines in both formats, hostile text, bounds, rate limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include <pthread.h>
#include <sys/mman.h>

#include "common/log.h"
#include "common/log_rate.h"
#include "common/socket.h"

#define TEXT_MAX (1 << 20)

/* ---- A log that writes to memory */

struct fixture {
    int file;
    struct log *log;
    char text[TEXT_MAX]; /* what was written, times replaced by T */
};

static void use(struct fixture *fixture, enum log_level level, enum log_format format, unsigned rate)
{
    struct log_settings settings = {.level = level, .format = format, .rate = rate};
    log_set_settings(fixture->log, &settings);
}

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct log_settings settings = {.level = LOG_LEVEL_DEBUG};
    fixture->file = memfd_create("log", MFD_CLOEXEC);
    fixture->log = log_new("proxy", fixture->file, &settings);
    *state = fixture;
    return fixture->file >= 0 && fixture->log != NULL ? 0 : -1;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    log_free(fixture->log);
    socket_close(&fixture->file);
    free(fixture);
    return 0;
}

static bool time_at(const char *text)
{
    static const char PATTERN[] = "dddd-dd-ddTdd:dd:dd.dddZ";
    for (size_t i = 0; i < sizeof PATTERN - 1; i++)
        if (PATTERN[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != PATTERN[i])
            return false;
    return true;
}

/* Takes what was written since the last call. */
static const char *written(struct fixture *fixture)
{
    size_t used = 0;
    off_t size = lseek(fixture->file, 0, SEEK_CUR);
    char *raw = calloc(1, (size_t)size + 32);
    assert_non_null(raw);
    assert_int_equal(pread(fixture->file, raw, (size_t)size, 0), size);
    for (const char *at = raw; *at != '\0' && used < TEXT_MAX - 1;) {
        bool time = time_at(at);
        fixture->text[used++] = time ? 'T' : *at;
        at += time ? strlen("2026-01-01T00:00:00.000Z") : 1;
    }
    fixture->text[used] = '\0';
    free(raw);
    assert_int_equal(ftruncate(fixture->file, 0), 0);
    assert_int_equal(lseek(fixture->file, 0, SEEK_SET), 0);
    return fixture->text;
}

static size_t count_of(const char *text, const char *part)
{
    size_t count = 0;
    for (const char *at = text; (at = strstr(at, part)) != NULL; at += strlen(part))
        count++;
    return count;
}

/* ---- Lines */

static void write_all_fields(struct log *log)
{
    struct address address;
    assert_int_equal(address_parse("[2001:db8::1]:443", &address, NULL), RESULT_OK);
    log_warn(log, "handshake failed", log_address("client", &address), log_text("sni", "www.example.com"),
             log_text("alpn", NULL), log_address("backend", NULL), log_text("stage", ""),
             log_hex("ski", bytes_of("\x00\xff\x10", 3)), log_hex("none", bytes_of(NULL, 0)),
             log_number("size", -5), log_number("big", INT64_MIN), log_bool("resumed", true),
             log_bool("early", false), log_bytes("raw", bytes_of("a\0b", 3)), log_reason("no shared cipher"));
}

static void test_exact_lines(void **state)
{
    struct fixture *fixture = *state;
    log_info(fixture->log, "started");
    assert_string_equal(written(fixture), "time=T level=info program=proxy event=started\n");
    log_set_process(fixture->log, "worker", 3, 2);
    write_all_fields(fixture->log);
    assert_string_equal(
        written(fixture),
        "time=T level=warn program=proxy process=worker/3 generation=2 event=\"handshake failed\" "
        "client=[2001:db8::1]:443 sni=www.example.com stage=\"\" ski=00ff10 none=\"\" size=-5 "
        "big=-9223372036854775808 resumed=true early=false raw=\"a\\\\x00b\" reason=\"no shared cipher\"\n");

    use(fixture, LOG_LEVEL_DEBUG, LOG_FORMAT_JSON, 0);
    log_error(fixture->log, "started");
    assert_string_equal(written(fixture),
                        "{\"time\":\"T\",\"level\":\"error\",\"program\":\"proxy\","
                        "\"process\":\"worker/3\",\"generation\":2,\"event\":\"started\"}\n");
    write_all_fields(fixture->log);
    assert_string_equal(
        written(fixture),
        "{\"time\":\"T\",\"level\":\"warn\",\"program\":\"proxy\",\"process\":\"worker/3\",\"generation\":2,"
        "\"event\":\"handshake failed\",\"client\":\"[2001:db8::1]:443\",\"sni\":\"www.example.com\","
        "\"stage\":\"\",\"ski\":\"00ff10\",\"none\":\"\",\"size\":-5,\"big\":-9223372036854775808,"
        "\"resumed\":true,\"early\":false,\"raw\":\"a\\\\x00b\",\"reason\":\"no shared cipher\"}\n");
}

/* It names the same process, and else has nothing of the other. */
static void test_beside(void **state)
{
    struct fixture *fixture = *state;
    const struct log_settings settings = {.level = LOG_LEVEL_INFO, .format = LOG_FORMAT_JSON};
    use(fixture, LOG_LEVEL_ERROR, LOG_FORMAT_LOGFMT, 1);
    log_set_process(fixture->log, "worker", 3, 2);
    struct log *beside = log_new_beside(fixture->log, fixture->file, &settings);
    assert_non_null(beside);
    for (unsigned i = 0; i < 3; i++) {
        log_info(beside, "access");
        log_info(fixture->log, "other");
    }
    assert_int_equal(count_of(written(fixture), "{\"time\":\"T\",\"level\":\"info\",\"program\":\"proxy\","
                                                "\"process\":\"worker/3\",\"generation\":2,"
                                                "\"event\":\"access\"}\n"),
                     3);
    log_error(fixture->log, "other");
    assert_string_equal(written(fixture),
                        "time=T level=error program=proxy process=worker/3 generation=2 event=other\n");
    log_free(beside);
}

/* Text from outside, and how it stands between the quotes in either format. */
static const struct {
    const char *text;
    size_t size;
    const char *shown;
} HOSTILE[] = {
    {"a b", 3, "a b"},
    {"a=b", 3, "a=b"},
    {"x\nlevel=error event=forged", 26, "x\\\\x0alevel=error event=forged"},
    {"\r\n\t\x1b[2J\x7f", 8, "\\\\x0d\\\\x0a\\\\x09\\\\x1b[2J\\\\x7f"},
    {"say \"no\"", 8, "say \\\"no\\\""},
    {"\",\"level\":\"x", 12, "\\\",\\\"level\\\":\\\"x"},
    {"C:\\n", 4, "C:\\\\x5cn"},
    {"\\x41", 4, "\\\\x5cx41"},
    {"\0\0", 2, "\\\\x00\\\\x00"},
    {"caf\xc3\xa9", 5, "caf\xc3\xa9"},
    {"\xe2\x82\xac \xf0\x9f\x94\x91", 8, "\xe2\x82\xac \xf0\x9f\x94\x91"},
    {"\xff\xfe", 2, "\\\\xff\\\\xfe"},
    {"\xc3", 1, "\\\\xc3"},
    {"\xc3(", 2, "\\\\xc3("},
    {"\xe2\x82", 2, "\\\\xe2\\\\x82"},
    {"\x80", 1, "\\\\x80"},
    /* Overlong forms, surrogates, and what lies past Unicode. */
    {"\xc0\xaf", 2, "\\\\xc0\\\\xaf"},
    {"\xe0\x80\xaf", 3, "\\\\xe0\\\\x80\\\\xaf"},
    {"\xf0\x80\x80\xaf", 4, "\\\\xf0\\\\x80\\\\x80\\\\xaf"},
    {"\xed\xa0\x80", 3, "\\\\xed\\\\xa0\\\\x80"},
    {"\xf4\x90\x80\x80", 4, "\\\\xf4\\\\x90\\\\x80\\\\x80"},
    {"\xf5\x80\x80\x80", 4, "\\\\xf5\\\\x80\\\\x80\\\\x80"},
    /* C1 controls, a right-to-left override, a zero width space, a line separator, a byte order mark. */
    {"\xc2\x9b"
     "2J",
     4, "\\\\xc2\\\\x9b2J"},
    {"\xe2\x80\xae"
     "gpj",
     6, "\\\\xe2\\\\x80\\\\xaegpj"},
    {"\xe2\x80\x8b", 3, "\\\\xe2\\\\x80\\\\x8b"},
    {"\xe2\x80\xa8", 3, "\\\\xe2\\\\x80\\\\xa8"},
    {"\xef\xbb\xbf", 3, "\\\\xef\\\\xbb\\\\xbf"},
};

static void test_hostile_text(void **state)
{
    struct fixture *fixture = *state;
    for (size_t i = 0; i < sizeof HOSTILE / sizeof *HOSTILE; i++) {
        /* A copy of just this size, so that a read past the end is seen. */
        uint8_t *copy = malloc(HOSTILE[i].size);
        char expected[256];
        assert_non_null(copy);
        memcpy(copy, HOSTILE[i].text, HOSTILE[i].size);
        use(fixture, LOG_LEVEL_DEBUG, LOG_FORMAT_LOGFMT, 0);
        log_info(fixture->log, "x", log_bytes("v", bytes_of(copy, HOSTILE[i].size)));
        (void)snprintf(expected, sizeof expected, "time=T level=info program=proxy event=x v=\"%s\"\n",
                       HOSTILE[i].shown);
        assert_string_equal(written(fixture), expected);
        use(fixture, LOG_LEVEL_DEBUG, LOG_FORMAT_JSON, 0);
        log_info(fixture->log, "x", log_bytes("v", bytes_of(copy, HOSTILE[i].size)));
        (void)snprintf(
            expected, sizeof expected,
            "{\"time\":\"T\",\"level\":\"info\",\"program\":\"proxy\",\"event\":\"x\",\"v\":\"%s\"}\n",
            HOSTILE[i].shown);
        assert_string_equal(written(fixture), expected);
        free(copy);
    }
}

/* Every octet, alone and after a letter: a line is one line of printable octets, whatever comes. */
static void test_every_octet(void **state)
{
    struct fixture *fixture = *state;
    for (unsigned octet = 0; octet < 256; octet++) {
        uint8_t text[2] = {'a', (uint8_t)octet};
        use(fixture, LOG_LEVEL_DEBUG, octet % 2 == 0 ? LOG_FORMAT_LOGFMT : LOG_FORMAT_JSON, 0);
        log_info(fixture->log, "x", log_bytes("one", bytes_of(text + 1, 1)),
                 log_bytes("two", bytes_of(text, 2)));
        const char *line = written(fixture);
        assert_int_equal(count_of(line, "\n"), 1);
        for (const char *at = line; at[1] != '\0'; at++)
            assert_in_range(*at, 0x20, 0x7e);
    }
}

/* ---- Bounds */

static void test_long_values_are_cut(void **state)
{
    struct fixture *fixture = *state;
    char text[10001];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    log_info(fixture->log, "x", log_text("v", text), log_number("after", 1));
    const char *line = written(fixture);
    assert_non_null(strstr(line, "aaa...(+9360)\" after=1\n"));
    assert_in_range(strlen(line), 640, 740);

    memset(text, '\xff', sizeof text - 1);
    log_info(fixture->log, "x", log_text("v", text), log_number("after", 1));
    line = written(fixture);
    assert_non_null(strstr(line, "\\\\xff\\\\xff...(+9872)\" after=1\n"));
    assert_in_range(strlen(line), 640, 740);

    log_info(fixture->log, "x", log_hex("v", bytes_of(text, 400)), log_number("after", 1));
    line = written(fixture);
    assert_non_null(strstr(line, "ffff...(+80) after=1\n"));
}

/* A value of exactly the bound is whole. */
static void test_value_at_the_bound(void **state)
{
    struct fixture *fixture = *state;
    char text[642];
    memset(text, 'a', sizeof text);
    text[640] = '\0';
    log_info(fixture->log, "x", log_text("v", text));
    assert_null(strstr(written(fixture), "...(+"));
    text[640] = 'a';
    text[641] = '\0';
    log_info(fixture->log, "x", log_text("v", text));
    assert_non_null(strstr(written(fixture), "a...(+1)\"\n"));
}

static void test_long_lines_lose_fields(void **state)
{
    struct fixture *fixture = *state;
    char text[601];
    memset(text, 'a', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    static const char *const ENDS[] = {
        [LOG_FORMAT_LOGFMT] = " small=1 cut=true\n", [LOG_FORMAT_JSON] = ",\"small\":1,\"cut\":true}\n"};
    for (enum log_format format = LOG_FORMAT_LOGFMT; format <= LOG_FORMAT_JSON; format++) {
        use(fixture, LOG_LEVEL_DEBUG, format, 0);
        log_info(fixture->log, "x", log_text("a", text), log_text("b", text), log_text("c", text),
                 log_text("d", text), log_text("e", text), log_text("f", text), log_text("g", text),
                 log_text("h", text), log_number("small", 1));
        const char *line = written(fixture);
        assert_int_equal(count_of(line, "\n"), 1);
        assert_in_range(strlen(line), 3600, 4096);
        assert_int_equal(count_of(line, text), 6);
        assert_string_equal(line + strlen(line) - strlen(ENDS[format]), ENDS[format]);
    }
}

/* The fields' sum takes every value around the bound: never a torn line, never one too long. */
static void test_every_length(void **state)
{
    struct fixture *fixture = *state;
    char text[601];
    memset(text, 'a', sizeof text);
    text[600] = '\0';
    for (size_t size = 300; size <= 600; size++) {
        struct log_field fields[] = {log_text("a", text),
                                     log_text("b", text),
                                     log_text("c", text),
                                     log_text("d", text),
                                     log_text("e", text),
                                     log_text("f", text),
                                     log_bytes("g", bytes_of(text, size)),
                                     {.type = LOG_FIELD_END}};
        log_write(fixture->log, LOG_LEVEL_INFO, "x", fields);
        const char *line = written(fixture);
        size_t length = strlen(line) - strlen("T") + strlen("2026-01-01T00:00:00.000Z");
        assert_in_range(length, 3600, 4096);
        assert_int_equal(line[strlen(line) - 1], '\n');
        bool cut = strstr(line, "cut=true") != NULL;
        assert_int_equal(cut, strstr(line, " g=") == NULL);
    }
}

/* ---- Levels */

static void test_levels(void **state)
{
    struct fixture *fixture = *state;
    static const size_t LINES[] = {
        [LOG_LEVEL_ERROR] = 1, [LOG_LEVEL_WARN] = 2, [LOG_LEVEL_INFO] = 3, [LOG_LEVEL_DEBUG] = 4};
    for (enum log_level level = LOG_LEVEL_ERROR; level <= LOG_LEVEL_DEBUG; level++) {
        use(fixture, level, LOG_FORMAT_LOGFMT, 0);
        assert_true(log_enabled(fixture->log, level));
        assert_int_equal(log_enabled(fixture->log, LOG_LEVEL_DEBUG), level == LOG_LEVEL_DEBUG);
        log_error(fixture->log, "x");
        log_warn(fixture->log, "x");
        log_info(fixture->log, "x");
        log_debug(fixture->log, "x");
        assert_int_equal(count_of(written(fixture), "\n"), LINES[level]);
    }
}

static void test_no_log(void **state)
{
    (void)state;
    log_error(NULL, "x", log_reason("y"));
    log_debug(NULL, "x");
    log_flush(NULL);
    log_set_process(NULL, "worker", 1, 1);
    assert_false(log_enabled(NULL, LOG_LEVEL_ERROR));
    log_free(NULL);
}

/* ---- Rate */

/* The sum of count= in the lines that tell what was suppressed. */
static unsigned long suppressed(const char *text)
{
    unsigned long sum = 0;
    for (const char *at = text; (at = strstr(at, "event=suppressed ")) != NULL; at++) {
        const char *count = strstr(at, " count=");
        assert_non_null(count);
        sum += strtoul(count + strlen(" count="), NULL, 10);
    }
    return sum;
}

static void free_log(struct fixture *fixture)
{
    log_free(fixture->log);
    fixture->log = NULL;
}

static void test_rate(void **state)
{
    struct fixture *fixture = *state;
    use(fixture, LOG_LEVEL_DEBUG, LOG_FORMAT_LOGFMT, 3);
    for (unsigned i = 0; i < 1000; i++) {
        log_warn(fixture->log, "handshake failed", log_number("i", i), log_reason("timed out"));
        log_warn(fixture->log, "handshake failed", log_number("i", i), log_reason("no cipher"));
        log_info(fixture->log, "connected");
    }
    free_log(fixture);
    const char *text = written(fixture);
    /* A second may have ended meanwhile, at most a few on a slow machine: then as many again. */
    assert_in_range(count_of(text, " reason=\"timed out\"\n"), 3, 30);
    assert_in_range(count_of(text, "event=connected\n"), 3, 30);
    size_t told = suppressed(text);
    assert_int_equal(told + count_of(text, "\n") - count_of(text, "event=suppressed "), 3000);
    assert_non_null(strstr(text, "level=warn program=proxy event=suppressed of=\"handshake failed\" "
                                 "reason=\"timed out\" count="));
    assert_non_null(strstr(text, "level=info program=proxy event=suppressed of=connected count="));
}

/* A peer that chooses reasons cannot write more lines than the table has slots. */
static void test_rate_with_many_reasons(void **state)
{
    struct fixture *fixture = *state;
    use(fixture, LOG_LEVEL_DEBUG, LOG_FORMAT_LOGFMT, 2);
    for (unsigned i = 0; i < 5000; i++) {
        char reason[32];
        (void)snprintf(reason, sizeof reason, "chosen %u", i);
        log_warn(fixture->log, "x", log_reason(reason));
    }
    free_log(fixture);
    const char *text = written(fixture);
    size_t lines = count_of(text, "\n");
    assert_in_range(lines, LOG_RATE_SLOTS, 2000);
    assert_int_equal(suppressed(text) + count_of(text, " event=x "), 5000);
    assert_non_null(strstr(text, "event=suppressed of=\"other lines\" count="));
}

static void test_rate_forgets_at_fork(void **state)
{
    struct fixture *fixture = *state;
    use(fixture, LOG_LEVEL_DEBUG, LOG_FORMAT_LOGFMT, 1);
    for (unsigned i = 0; i < 10; i++)
        log_info(fixture->log, "x");
    (void)written(fixture);
    log_set_process(fixture->log, "worker", 0, 1);
    log_info(fixture->log, "y");
    free_log(fixture);
    assert_string_equal(written(fixture),
                        "time=T level=info program=proxy process=worker/0 generation=1 event=y\n");
}

/* ---- Threads */

static void *write_many(void *log)
{
    for (unsigned i = 0; i < 2000; i++)
        log_info(log, "x", log_number("i", i));
    return NULL;
}

static void test_threads(void **state)
{
    struct fixture *fixture = *state;
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, write_many, fixture->log), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    const char *text = written(fixture);
    assert_int_equal(count_of(text, "\n"), 8000);
    assert_int_equal(count_of(text, "time=T level=info program=proxy event=x i="), 8000);
    assert_int_equal(count_of(text, " i=1999\n"), 4);
}

#define WITH_LOG(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_LOG(test_exact_lines),
        WITH_LOG(test_beside),
        WITH_LOG(test_hostile_text),
        WITH_LOG(test_every_octet),
        WITH_LOG(test_long_values_are_cut),
        WITH_LOG(test_value_at_the_bound),
        WITH_LOG(test_long_lines_lose_fields),
        WITH_LOG(test_every_length),
        WITH_LOG(test_levels),
        cmocka_unit_test(test_no_log),
        WITH_LOG(test_rate),
        WITH_LOG(test_rate_with_many_reasons),
        WITH_LOG(test_rate_forgets_at_fork),
        WITH_LOG(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
