/* The access log: whole lines in both formats, what is left out of them, hostile text, readers that are
 * behind. */
#include "proxy/access_log.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/socket.h"
#include "proxy/proxy_metrics.h"
#include "tests/unit/check.h"

static const char CONFIG[] = "listen: [{address: \"127.0.0.1:443\"}]\n"
                             "certificates: [{dir: sites}]\n"
                             "key_servers: [{address: \"127.0.0.1:2407\", server_name: keys.example}]\n"
                             "key_channel: {certificate: a, key: b, ca: c}\n"
                             "backends: {web: {servers: [\"127.0.0.1:8080\", \"builtin:hello\"]}}\n";

struct fixture {
    int file;
    struct log *log;
    struct metrics *metrics;
    struct metrics_row *row;
    struct access_log *access;
    struct proxy_config *config;
    struct backends *backends;
    struct backend_attempt attempt;
    struct address client;
    char line[8192];
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    const struct log_settings quiet = {.level = LOG_LEVEL_ERROR, .rate = 1};
    const struct config_source source = {
        .file = "proxy.yaml", .directory = "/", .text = bytes_of(CONFIG, sizeof CONFIG - 1)};
    struct failure why = {0};
    assert_non_null(fixture);
    fixture->file = memfd_create("access", MFD_CLOEXEC);
    fixture->log = log_new("proxy", fixture->file, &quiet);
    log_set_process(fixture->log, "worker", 1, 2);
    assert_int_equal(metrics_new(proxy_metrics, PROXY_METRIC_COUNT, &fixture->metrics, &why), RESULT_OK);
    fixture->row = metrics_take_row(fixture->metrics);
    assert_int_equal(proxy_config_parse(&source, &fixture->config, &why), RESULT_OK);
    fixture->backends = backends_new(fixture->config, NULL, fixture->log, fixture->row);
    assert_non_null(fixture->backends);
    assert_int_equal(address_parse("192.0.2.1:51234", &fixture->client, &why), RESULT_OK);
    fixture->attempt = backend_attempt_start(backends_find(fixture->backends, "web"), &fixture->client, NULL);
    *state = fixture;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    access_log_free(fixture->access);
    backends_free(fixture->backends);
    proxy_config_free(fixture->config);
    metrics_free(fixture->metrics);
    log_free(fixture->log);
    socket_close(&fixture->file);
    free(fixture);
    return 0;
}

static void use(struct fixture *fixture, enum log_format format)
{
    access_log_free(fixture->access);
    fixture->access = access_log_new(fixture->file, format, fixture->log, fixture->row);
    assert_non_null(fixture->access);
}

/* What was written since the last call, from the event on: what is before it is every log line's. */
static const char *written(struct fixture *fixture)
{
    ssize_t size = pread(fixture->file, fixture->line, sizeof fixture->line - 1, 0);
    assert_true(size >= 0);
    fixture->line[size] = '\0';
    assert_int_equal(ftruncate(fixture->file, 0), 0);
    assert_int_equal(lseek(fixture->file, 0, SEEK_SET), 0);
    char *event = strstr(fixture->line, "event");
    return event != NULL ? event : fixture->line;
}

static struct handshake_facts facts_of(const char *sni, const char *alpn)
{
    struct handshake_facts facts = {.sni_size = strlen(sni), .alpn_size = strlen(alpn), .duration = 900};
    memcpy(facts.sni, sni, facts.sni_size);
    memcpy(facts.alpn, alpn, facts.alpn_size);
    return facts;
}

static void tell(struct fixture *fixture, const struct access_handshake *handshake, const char *stage,
                 const char *reason)
{
    const struct access_connection line = {.client = &fixture->client,
                                           .listener = &fixture->config->listen[0].address,
                                           .handshake = handshake,
                                           .stage = stage,
                                           .reason = reason,
                                           .attempt = &fixture->attempt,
                                           .from_client = 78,
                                           .to_client = UINT64_C(5000000000),

                                           .end = reason != NULL ? "handshake failed" : "finished"};
    access_log_connection(fixture->access, &line);
}

/* Puts an N in place of the duration. */
static const char *without_duration(const char *text, const char *key)
{
    char *digits = strstr(text, key);
    assert_non_null(digits);
    digits += strlen(key);
    size_t size = strspn(digits, "0123456789");
    assert_true(size > 0);
    digits[0] = 'N';
    memmove(digits + 1, digits + size, strlen(digits + size) + 1);
    return text;
}

static struct access_handshake *signed_handshake(void)
{
    static const struct client_identity CLIENT = {
        .subject = "CN=app,O=\"x\\0A\"", .san = "DNS:app.example", .fingerprint = "aa11", .serial = "0102"};
    struct handshake_facts facts = facts_of("a.example", "h2");
    facts.version = "TLSv1.3";
    facts.suite = "TLS_AES_128_GCM_SHA256";
    facts.group = "X25519";
    facts.scheme = "ecdsa_secp256r1_sha256";
    facts.key_type = KEY_TYPE_P256;
    facts.client = &CLIENT;
    facts.key_server = "keys-a";
    facts.key_duration = 400;
    return access_handshake_new(&facts, "4f2a-17");
}

static void test_whole_lines(void **state)
{
    struct fixture *fixture = *state;
    struct access_handshake *handshake = signed_handshake();
    fixture->attempt.server = &fixture->config->backends[0].servers[0];
    use(fixture, LOG_FORMAT_LOGFMT);
    tell(fixture, handshake, NULL, NULL);
    assert_string_equal(
        without_duration(written(fixture), " us="),
        "event=access client=192.0.2.1:51234 listener=127.0.0.1:443 sni=a.example alpn=h2 version=TLSv1.3 "
        "suite=TLS_AES_128_GCM_SHA256 group=X25519 scheme=ecdsa_secp256r1_sha256 key_type=P-256 "
        "resumed=false client_subject=\"CN=app,O=\\\"x\\\\x5c0A\\\"\" client_san=DNS:app.example "
        "client_sha256=aa11 client_serial=0102 backend=web server=127.0.0.1:8080 from_client=78 "
        "to_client=5000000000 truncated=false handshake_us=900 key_server=keys-a key_us=400 request=4f2a-17 "
        "us=N end=finished\n");
    fixture->attempt.server = &fixture->config->backends[0].servers[1];
    use(fixture, LOG_FORMAT_JSON);
    tell(fixture, handshake, NULL, NULL);
    assert_string_equal(
        without_duration(written(fixture), "\"us\":"),
        "event\":\"access\",\"client\":\"192.0.2.1:51234\",\"listener\":\"127.0.0.1:443\","
        "\"sni\":\"a.example\",\"alpn\":\"h2\",\"version\":\"TLSv1.3\",\"suite\":\"TLS_AES_128_GCM_SHA256\","
        "\"group\":\"X25519\",\"scheme\":\"ecdsa_secp256r1_sha256\",\"key_type\":\"P-256\",\"resumed\":false,"
        "\"client_subject\":\"CN=app,O=\\\"x\\\\x5c0A\\\"\",\"client_san\":\"DNS:app.example\","
        "\"client_sha256\":\"aa11\",\"client_serial\":\"0102\",\"backend\":\"web\","
        "\"server\":\"builtin:hello\",\"from_client\":78,\"to_client\":5000000000,\"truncated\":false,"
        "\"handshake_us\":900,\"key_server\":\"keys-a\",\"key_us\":400,\"request\":\"4f2a-17\",\"us\":N,"
        "\"end\":\"finished\"}\n");
    access_handshake_free(handshake);
}

/* What is not there is left out, but for what a reader may count on. */
static void test_little_is_known(void **state)
{
    struct fixture *fixture = *state;
    const struct handshake_facts facts = facts_of("", "");
    struct access_handshake *handshake = access_handshake_new(&facts, NULL);
    use(fixture, LOG_FORMAT_LOGFMT);
    tell(fixture, handshake, "client hello", "not TLS");
    access_handshake_free(handshake);
    assert_string_equal(without_duration(written(fixture), " us="),
                        "event=access client=192.0.2.1:51234 listener=127.0.0.1:443 sni=\"\" resumed=false "
                        "from_client=78 to_client=5000000000 truncated=false handshake_us=900 us=N "
                        "end=\"handshake failed\" stage=\"client hello\" reason=\"not TLS\"\n");
    tell(fixture, NULL, NULL, NULL);
    assert_non_null(strstr(written(fixture), " sni=\"\" resumed=false "));
}

/* One line, and all of its fields, whatever a client calls itself. */
static void test_hostile_names(void **state)
{
    struct fixture *fixture = *state;
    struct client_identity client;
    struct handshake_facts facts = {
        .sni_size = HANDSHAKE_NAME_MAX, .alpn_size = HANDSHAKE_NAME_MAX, .client = &client};
    memset(facts.sni, '\n', sizeof facts.sni);
    memset(facts.alpn, 0xff, sizeof facts.alpn);
    memset(&client, '"', sizeof client);
    client.subject[sizeof client.subject - 1] = client.san[sizeof client.san - 1] = '\0';
    client.fingerprint[sizeof client.fingerprint - 1] = client.serial[sizeof client.serial - 1] = '\0';
    struct access_handshake *handshake = access_handshake_new(&facts, NULL);
    fixture->attempt.server = &fixture->config->backends[0].servers[0];
    use(fixture, LOG_FORMAT_LOGFMT);
    tell(fixture, handshake, "finished", "some reason");
    access_handshake_free(handshake);
    const char *line = written(fixture);
    assert_non_null(strstr(line, " sni=\"\\\\x0a\\\\x0a"));
    assert_non_null(strstr(line, " end=\"handshake failed\" stage=finished reason=\"some reason\"\n"));
    for (const char *at = line; at[1] != '\0'; at++)
        assert_in_range(*at, 0x20, 0x7e);
}

static void test_redirects(void **state)
{
    struct fixture *fixture = *state;
    struct access_redirect line = {.client = &fixture->client,
                                   .listener = &fixture->config->listen[0].address,
                                   .status = 308,
                                   .location = "https://a.example/",
                                   .end = "redirected"};
    use(fixture, LOG_FORMAT_LOGFMT);
    access_log_redirect(fixture->access, &line);
    assert_string_equal(without_duration(written(fixture), " us="),
                        "event=access client=192.0.2.1:51234 listener=127.0.0.1:443 status=308 "
                        "location=https://a.example/ us=N end=redirected\n");
    line.status = 0;
    line.location = NULL;
    line.end = "timeout";
    access_log_redirect(fixture->access, &line);
    assert_string_equal(without_duration(written(fixture), " us="),
                        "event=access client=192.0.2.1:51234 listener=127.0.0.1:443 us=N end=timeout\n");
}

static void test_off(void **state)
{
    struct fixture *fixture = *state;
    struct failure why;
    assert_int_equal(access_log_open(fixture->config, fixture->log, fixture->row, &fixture->access, &why),
                     RESULT_OK);
    assert_null(fixture->access);
    tell(fixture, NULL, NULL, NULL);
    access_log_redirect(NULL, &(struct access_redirect){.end = "timeout"});
    assert_string_equal(written(fixture), "");
}

/* Nobody reads: each line that is not in the pipe is counted. */
static void test_lines_lost(void **state)
{
    struct fixture *fixture = *state;
    int fds[2];
    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    assert_true(fcntl(fds[1], F_SETPIPE_SZ, 4096) >= 4096);
    fixture->access = access_log_new(fds[1], LOG_FORMAT_LOGFMT, fixture->log, fixture->row);
    assert_non_null(fixture->access);
    for (unsigned i = 0; i < 100; i++)
        tell(fixture, NULL, NULL, NULL);
    ssize_t size = read(fds[0], fixture->line, sizeof fixture->line - 1);
    assert_in_range(size, 1, sizeof fixture->line - 1);
    fixture->line[size] = '\0';
    int64_t got = 0;
    for (const char *at = fixture->line; (at = strstr(at, "end=finished\n")) != NULL; at++)
        got++;
    assert_in_range(got, 1, 99);
    assert_int_equal(metrics_sum(fixture->metrics, PROXY_ACCESS_LINES_LOST), 100 - got);
    socket_close(&fds[0]);
    socket_close(&fds[1]);
}

#define WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_FIXTURE(test_whole_lines),   WITH_FIXTURE(test_little_is_known),
        WITH_FIXTURE(test_hostile_names), WITH_FIXTURE(test_redirects),
        WITH_FIXTURE(test_off),           WITH_FIXTURE(test_lines_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
