#include "tests/unit/support/test_fixture.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

SSL_CTX *test_context(bool server, const struct test_identity *own, const struct test_ca *ca)
{
    const struct channel_credentials files = {
        .certificate = own->certificate, .key = own->key, .ca = ca->path};
    SSL_CTX *context = NULL;
    struct failure why;
    enum result result = server ? channel_server_context(&files, &context, &why)
                                : channel_client_context(&files, &context, &why);
    if (result != RESULT_OK)
        fail_msg("%s", why.text);
    return context;
}

int test_fixture_make(void **state)
{
    static struct test_fixture all;
    static const struct test_subject SERVER = {
        .name = "keys", .san = "DNS:" TEST_SERVER_NAME, .usage = "serverAuth"};
    static const struct test_subject CLIENT = {
        .name = "edge1", .san = "DNS:edge1.example", .usage = "clientAuth"};
    test_ca_make(&all.ca, "Test CA");
    test_ca_make(&all.other_ca, "Other CA");
    test_ca_issue(&all.ca, &SERVER, &all.server_identity);
    test_ca_issue(&all.ca, &CLIENT, &all.client_identity);
    all.server = test_context(true, &all.server_identity, &all.ca);
    all.client = test_context(false, &all.client_identity, &all.ca);
    *state = &all;
    return 0;
}

int test_fixture_remove(void **state)
{
    struct test_fixture *all = *state;
    SSL_CTX_free(all->server);
    SSL_CTX_free(all->client);
    test_ca_remove(&all->ca);
    test_ca_remove(&all->other_ca);
    return 0;
}

int test_fixture_open(void **state)
{
    struct test_fixture *all = *state;
    all->near = (struct test_end){.other = &all->far};
    all->far = (struct test_end){.other = &all->near};
    all->raw = (struct test_raw){.fd = -1};
    test_net_open(&all->net, NULL);
    return 0;
}

int test_fixture_close(void **state)
{
    struct test_fixture *all = *state;
    test_end_close(&all->near);
    test_end_close(&all->far);
    test_raw_close(&all->raw);
    test_net_close(&all->net);
    return 0;
}

void test_start(struct test_fixture *all)
{
    test_end_connect(&all->near, &all->net, all->client, TEST_SERVER_NAME);
    test_end_accept(&all->far, &all->net, all->server);
}

void test_start_open(struct test_fixture *all)
{
    test_start(all);
    RUN_UNTIL(&all->net, all->near.opened == 1 && all->far.opened == 1);
}

void test_start_raw_client(struct test_fixture *all)
{
    test_raw_connect(&all->raw, &all->net, &all->ca, &all->client_identity);
    test_end_accept(&all->far, &all->net, all->server);
    RUN_UNTIL(&all->net, test_raw_handshake(&all->raw) && all->far.opened == 1);
}

void test_start_raw_server(struct test_fixture *all)
{
    test_end_connect(&all->near, &all->net, all->client, TEST_SERVER_NAME);
    test_raw_accept(&all->raw, &all->net, &all->ca, &all->server_identity);
    RUN_UNTIL(&all->net, test_raw_handshake(&all->raw) && all->near.opened == 1);
}
