#include "tests/unit/support/test_peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* A CA, a key server "keys.example" and an edge, made once; a loop with a listener for each test. */
struct fixture {
    struct test_ca ca;
    SSL_CTX *server, *client;
    struct test_identity server_identity, client_identity;
    struct test_net net;
    struct test_end near, far; /* the client's end, the server's */
};

static SSL_CTX *make_context(const struct fixture *all, bool server)
{
    const struct test_identity *own = server ? &all->server_identity : &all->client_identity;
    const struct channel_credentials files = {
        .certificate = own->certificate, .key = own->key, .ca = all->ca.path};
    SSL_CTX *context = NULL;
    struct failure why;
    enum result result = server ? channel_server_context(&files, &context, &why)
                                : channel_client_context(&files, &context, &why);
    if (result != RESULT_OK)
        fail_msg("%s", why.text);
    return context;
}

static int set_up_all(void **state)
{
    static struct fixture all;
    test_ca_make(&all.ca, "Test CA");
    test_ca_issue(&all.ca,
                  &(struct test_subject){.name = "keys", .san = "DNS:keys.example", .usage = "serverAuth"},
                  &all.server_identity);
    test_ca_issue(&all.ca,
                  &(struct test_subject){.name = "edge1", .san = "DNS:edge1.example", .usage = "clientAuth"},
                  &all.client_identity);
    all.server = make_context(&all, true);
    all.client = make_context(&all, false);
    *state = &all;
    return 0;
}

static int tear_down_all(void **state)
{
    struct fixture *all = *state;
    SSL_CTX_free(all->server);
    SSL_CTX_free(all->client);
    test_ca_remove(&all->ca);
    return 0;
}

static int set_up(void **state)
{
    struct fixture *all = *state;
    all->near = (struct test_end){.other = &all->far};
    all->far = (struct test_end){.other = &all->near};
    test_net_open(&all->net, NULL);
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *all = *state;
    test_end_close(&all->near);
    test_end_close(&all->far);
    test_net_close(&all->net);
    return 0;
}

/* Starts both ends; their callbacks may be set before. */
static void start(struct fixture *all)
{
    test_end_connect(&all->near, &all->net, all->client, "keys.example");
    test_end_accept(&all->far, &all->net, all->server);
}

static void start_open(struct fixture *all)
{
    start(all);
    RUN_UNTIL(&all->net, all->near.opened == 1 && all->far.opened == 1);
}

static void test_opens(void **state)
{
    struct fixture *all = *state;
    char name[64];
    start_open(all);
    assert_string_equal(channel_tls_version(all->near.channel), "TLSv1.3");
    X509 *peer = channel_peer_certificate(all->far.channel);
    assert_non_null(peer);
    assert_true(X509_NAME_get_text_by_NID(X509_get_subject_name(peer), NID_commonName, name, sizeof name) >
                0);
    assert_string_equal(name, "edge1");
}

static void echo(struct test_end *end, const struct kssl_header *header, struct bytes body)
{
    assert_int_equal(test_end_send(end, header->id, body.size, body.size > 0 ? body.data[0] : 0), RESULT_OK);
}

static void test_frames_both_ways(void **state)
{
    struct fixture *all = *state;
    all->far.on_frame = echo;
    start_open(all);
    assert_int_equal(test_end_send(&all->near, 0xDEADBEEF, 5, 0xAB), RESULT_OK);
    RUN_UNTIL(&all->net, all->near.frames == 1);
    assert_int_equal(all->near.last.id, 0xDEADBEEF);
    assert_int_equal(all->near.octets, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_opens, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_frames_both_ways, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
