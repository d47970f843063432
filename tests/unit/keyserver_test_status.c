/* What the admin endpoint makes of the records that master, front ends and signer leave in shared memory. */
#include "keyserver/status.h"

#include <event2/buffer.h>

#include "common/process_status.h"
#include "keyserver/keyserver_metrics.h"
#include "keyserver/status_records.h"
#include "tests/unit/check.h"

enum { GENERATION = 2, SIGNER = 100, FRONTEND = 200, CLIENTS = 2 };

struct fixture {
    struct keyserver_client clients[CLIENTS];
    struct keyserver_config config;
    struct keyserver_plan plan;
    struct keyserver_status status;
};

static int set_up(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct keyserver_plan *plan = &fixture->plan;
    struct failure why;
    for (size_t i = 0; i < CLIENTS; i++)
        fixture->clients[i].match = strdup(i == 0 ? "DNS:edge1.example" : "CN:\x1b[2J");
    fixture->config =
        (struct keyserver_config){.workers = 1, .clients = fixture->clients, .client_count = CLIENTS};
    plan->config = &fixture->config;
    plan->context = SSL_CTX_new(TLS_server_method()); /* without a certificate */
    fixture->status = (struct keyserver_status){.plan = plan, .generation = GENERATION};
    *state = fixture;
    assert_int_equal(
        program_init(&plan->program, "keyserver", keyserver_metrics, KEYSERVER_METRIC_COUNT, &why),
        RESULT_OK);
    assert_int_equal(status_area_new(frontend_status_size(CLIENTS), 1, &plan->frontend_status, &why),
                     RESULT_OK);
    assert_int_equal(status_area_new(sizeof(struct signer_status), 1, &plan->signer_status, &why), RESULT_OK);
    assert_int_equal(status_area_new(sizeof(struct key_status), STATUS_KEYS_MAX, &plan->key_status, &why),
                     RESULT_OK);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *fixture = *state;
    program_clear(&fixture->plan.program);
    status_area_free(fixture->plan.frontend_status);
    status_area_free(fixture->plan.signer_status);
    status_area_free(fixture->plan.key_status);
    SSL_CTX_free(fixture->plan.context);
    for (size_t i = 0; i < CLIENTS; i++)
        free(fixture->clients[i].match);
    free(fixture);
    return 0;
}

/* As the master tells it. */
static void tell_process(struct fixture *fixture, const char *kind, int64_t pid, enum child_state state)
{
    struct process_status status = {.generation = GENERATION, .pid = pid, .state = state};
    strcpy(status.kind, kind);
    status_area_write(fixture->plan.program.processes, pid == SIGNER ? 0 : 1, &status);
}

static void tell_signer(struct fixture *fixture, int64_t pid, uint32_t keys)
{
    const struct signer_status status = {.pid = pid, .keys = keys};
    status_area_write(fixture->plan.signer_status, 0, &status);
}

static void assert_readiness(const struct fixture *fixture, const char *why_not)
{
    struct evbuffer *text = evbuffer_new();
    assert_int_equal(keyserver_status_ready(&fixture->status, text), why_not == NULL);
    (void)evbuffer_add(text, "", 1);
    assert_string_equal((const char *)evbuffer_pullup(text, -1), why_not != NULL ? why_not : "");
    evbuffer_free(text);
}

static void test_readiness(void **state)
{
    struct fixture *fixture = *state;
    assert_readiness(fixture, "no signer is ready");
    tell_process(fixture, "signer", SIGNER, CHILD_READY);
    assert_readiness(fixture, "no signer is ready"); /* it has told nothing yet */
    tell_signer(fixture, SIGNER - 1, 5);             /* its predecessor's */
    assert_readiness(fixture, "no signer is ready");
    tell_signer(fixture, SIGNER, 0);
    assert_readiness(fixture, "no key is loaded");
    tell_signer(fixture, SIGNER, 5);
    assert_readiness(fixture, "no front end is ready");
    tell_process(fixture, "frontend", FRONTEND, CHILD_STARTING);
    assert_readiness(fixture, "no front end is ready");
    tell_process(fixture, "frontend", FRONTEND, CHILD_READY);
    assert_readiness(fixture, NULL);
    tell_process(fixture, "signer", SIGNER, CHILD_ENDING);
    assert_readiness(fixture, "no signer is ready");
}

static char *written(const struct fixture *fixture)
{
    struct evbuffer *buffer = evbuffer_new();
    struct json json = json_to(buffer);
    json_begin_object(&json, NULL);
    keyserver_status_write(&fixture->status, &json);
    json_end_object(&json);
    (void)evbuffer_add(buffer, "", 1);
    char *text = strdup((const char *)evbuffer_pullup(buffer, -1));
    evbuffer_free(buffer);
    return text;
}

static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL)
        fail_msg("no %s in %s", part, text);
}

static void test_status(void **state)
{
    struct fixture *fixture = *state;
    struct key_status key = {.pid = SIGNER, .type = KEY_TYPE_P256, .ski = {0xab}, .label = "www"};
    union {
        struct frontend_status status;
        uint8_t octets[sizeof(struct frontend_status) + CLIENTS * sizeof(uint32_t)];
    } frontend = {.status = {.pid = FRONTEND, .connections = 9}};
    frontend.status.serving[0] = 3;
    frontend.status.serving[1] = 4;
    tell_process(fixture, "signer", SIGNER, CHILD_READY);
    tell_process(fixture, "frontend", FRONTEND, CHILD_READY);
    tell_signer(fixture, SIGNER, 2);
    status_area_write(fixture->plan.key_status, 0, &key);
    status_area_write(fixture->plan.frontend_status, 0, &frontend);
    key.pid = SIGNER - 1; /* left by its predecessor */
    status_area_write(fixture->plan.key_status, 1, &key);
    char *text = written(fixture);
    assert_has(text, "\"connections\":9,\"client_count\":2,");
    assert_has(text, "\"match\":\"DNS:edge1.example\"");
    assert_has(text, "\"allow\":[],\"connections\":3,\"rate\":0,\"denied\":false}");
    assert_has(text, "\"match\":\"CN:\\\\x1b[2J\"");
    assert_has(text, "\"key_count\":2,\"keys\":[{\"label\":\"www\",\"type\":\"P-256\","
                     "\"ski\":\"ab00000000000000000000000000000000000000\"}],");
    free(text);
}

/* A front end that was broken into may write wherever it likes. */
static void test_nonsense(void **state)
{
    struct fixture *fixture = *state;
    struct key_status key;
    memset(&key, 0xff, sizeof key);
    key.pid = SIGNER;
    tell_process(fixture, "signer", SIGNER, CHILD_READY);
    tell_signer(fixture, SIGNER, UINT32_MAX);
    for (size_t i = 0; i < STATUS_KEYS_MAX; i++)
        status_area_write(fixture->plan.key_status, i, &key);
    char *text = written(fixture);
    size_t keys = 0;
    for (const char *at = text; (at = strstr(at, "{\"label\":\"\\\\xff")) != NULL; at++)
        keys++;
    assert_int_equal(keys, STATUS_KEYS_MAX);
    assert_has(text, "\"type\":\"none\"");
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_readiness, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_status, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nonsense, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
