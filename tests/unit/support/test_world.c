#include "tests/unit/support/test_world.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/err.h>

#include "common/socket.h"

static const struct {
    const char *name, *key_type, *san;
} SITES[WORLD_SITES] = {
    {"rsa", "RSA", "DNS:rsa.example"},
    {"p256", "P-256", "DNS:p256.example"},
    {"p384", "P-384", "DNS:p384.example"},
    {"p521", "P-521", "DNS:p521.example"},
    {"ed25519", "ED25519", "DNS:ed25519.example"},
    {"ed448", "ED448", "DNS:ed448.example"},
    {"both-rsa", "RSA", "DNS:both.example,DNS:*.wild.example"},
    {"both-p256", "P-256", "DNS:both.example,DNS:*.wild.example"},
    {"curves-p384", "P-384", "DNS:curves.example"},
    {"curves-p256", "P-256", "DNS:curves.example"},
};

/* ---- The world. */

static void make_contexts(struct test_world *world)
{
    struct failure why;
    const struct channel_credentials server = {world->server_identity.certificate, world->server_identity.key,
                                               world->ca.path};
    const struct channel_credentials edge = {world->edge_identity.certificate, world->edge_identity.key,
                                             world->ca.path};
    if (channel_server_context(&server, &world->server_context, &why) != RESULT_OK ||
        channel_client_context(&edge, &world->edge_context, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    world->client_context = SSL_CTX_new(TLS_client_method());
    assert_non_null(world->client_context);
    assert_int_equal(SSL_CTX_load_verify_file(world->client_context, world->ca.path), 1);
    SSL_CTX_set_verify(world->client_context, SSL_VERIFY_PEER, NULL);
}

int test_world_make(void **state)
{
    static struct test_world world;
    (void)signal(SIGPIPE, SIG_IGN);
    test_ca_make(&world.ca, "Test CA");
    const struct test_subject server = {.name = "keys", .san = "DNS:keys.example", .usage = "serverAuth"};
    const struct test_subject edge = {.name = "edge", .san = "DNS:edge.example", .usage = "clientAuth"};
    test_ca_issue(&world.ca, &server, &world.server_identity);
    test_ca_issue(&world.ca, &edge, &world.edge_identity);
    for (size_t i = 0; i < WORLD_SITES; i++) {
        const struct test_subject site = {
            .name = SITES[i].name, .san = SITES[i].san, .key_type = SITES[i].key_type};
        test_ca_issue(&world.ca, &site, &world.sites[i]);
    }
    make_contexts(&world);
    *state = &world;
    return 0;
}

int test_world_remove(void **state)
{
    struct test_world *world = *state;
    SSL_CTX_free(world->server_context);
    SSL_CTX_free(world->edge_context);
    SSL_CTX_free(world->client_context);
    test_ca_remove(&world->ca);
    return 0;
}

void test_world_configure(struct test_world *world)
{
    static char *alpn[] = {"h2", "http/1.1"};
    for (size_t i = 0; i < WORLD_SITES; i++)
        world->sources[i] = (struct proxy_certificate_source){.file = world->sites[i].certificate};
    world->key_server_config =
        (struct proxy_key_server){.name = "keys", .server_name = "keys.example", .weight = 1};
    world->config = (struct proxy_config){
        .tls = {.min_version = TLS1_2_VERSION,
                .groups = "X25519:P-256:P-384",
                .ciphersuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384",
                .ciphers = "ECDHE+AESGCM",
                .schemes = "ecdsa_secp256r1_sha256:ed25519:ecdsa_secp384r1_sha384:ecdsa_secp521r1_sha512:"
                           "ed448:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:"
                           "rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512",
                .alpn = alpn,
                .alpn_count = 2},
        .certificates = world->sources,
        .certificate_count = WORLD_SITES,
        .key_servers = &world->key_server_config,
        .key_server_count = 1,
        .key_channel = {.timeout = 5000000,
                        .attempt_timeout = 5000000,
                        .fail_fast = 5000000,
                        .hedge = UINT64_MAX,
                        .in_flight = 512},
        .limits = {.handshakes = 64},
    };
}

static void on_tick(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what, (void)argument;
}

static struct event_base *precise_base(void)
{
    struct event_config *config = event_config_new();
    assert_non_null(config);
    assert_int_equal(event_config_set_flag(config, EVENT_BASE_FLAG_PRECISE_TIMER), 0);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    assert_non_null(base);
    return base;
}

void test_world_open_keys(struct test_world *world)
{
    static const struct timeval TICK = {.tv_usec = 1000};
    struct failure why;
    world->base = precise_base();
    world->tick = event_new(world->base, -1, EV_PERSIST, on_tick, NULL);
    assert_int_equal(event_add(world->tick, &TICK), 0);
    assert_int_equal(metrics_new(proxy_metrics, PROXY_METRIC_COUNT, &world->metrics, &why), RESULT_OK);
    world->row = metrics_take_row(world->metrics);
    test_key_server_open(&world->server, world->base, world->server_context);
    for (size_t i = 0; i < WORLD_SITES; i++)
        test_key_server_load(&world->server, world->sites[i].key);
    world->key_server_config.at.address = world->server.address;
    if (key_client_new(world->base, &world->config, world->edge_context, NULL, world->row, &world->keys,
                       &why) != RESULT_OK)
        fail_msg("%s", why.text);
}

void test_world_open(struct test_world *world)
{
    struct failure why;
    test_world_open_keys(world);
    if (certificates_read(&world->config, NULL, NULL, &world->certificates, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    const struct handshake_settings settings = {.config = &world->config,
                                                .certificates = world->certificates,
                                                .client = world->keys,
                                                .metrics = world->row};
    if (handshake_context_new(&settings, &world->context, &why) != RESULT_OK)
        fail_msg("%s", why.text);
}

void test_world_close(struct test_world *world)
{
    handshake_context_free(world->context);
    certificates_free(world->certificates);
    key_client_free(world->keys);
    test_key_server_close(&world->server);
    metrics_return_row(world->metrics, world->row);
    metrics_free(world->metrics);
    event_free(world->tick);
    event_base_free(world->base);
    world->context = NULL;
    world->certificates = NULL;
    world->keys = NULL;
}

int64_t test_world_metric(const struct test_world *world, enum proxy_metric metric)
{
    return metrics_sum(world->metrics, metric);
}

/* ---- Clients. */

static void on_wake(void *owner)
{
    struct test_client *client = owner;
    client->woken++;
}

static void set_offer(SSL *ssl, const struct test_offer *offer)
{
    if (offer->sni != NULL)
        assert_int_equal(SSL_set_tlsext_host_name(ssl, offer->sni), 1);
    if (offer->version != 0) {
        assert_int_equal(SSL_set_min_proto_version(ssl, offer->version), 1);
        assert_int_equal(SSL_set_max_proto_version(ssl, offer->version), 1);
    }
    if (offer->groups != NULL)
        assert_int_equal(SSL_set1_groups_list(ssl, offer->groups), 1);
    if (offer->schemes != NULL)
        assert_int_equal(SSL_set1_sigalgs_list(ssl, offer->schemes), 1);
    if (offer->suites12 != NULL)
        assert_int_equal(SSL_set_cipher_list(ssl, offer->suites12), 1);
    if (offer->alpn.size > 0)
        assert_int_equal(SSL_set_alpn_protos(ssl, offer->alpn.data, (unsigned)offer->alpn.size), 0);
    if (offer->distrust)
        assert_int_equal(SSL_set0_verify_cert_store(ssl, X509_STORE_new()), 1);
}

static void on_info(const SSL *ssl, int where, int value)
{
    struct test_client *client = SSL_get_app_data(ssl);
    if (where == SSL_CB_READ_ALERT)
        client->alert = value & 0xff;
}

void test_client_start(struct test_client *client, struct test_world *world, const struct test_offer *offer)
{
    int fds[2];
    struct failure why;
    struct address address;
    assert_int_equal(address_parse("192.0.2.7:40000", &address, &why), RESULT_OK);
    assert_int_equal(socket_pair(SOCK_STREAM, fds, &why), RESULT_OK);
    *client = (struct test_client){
        .world = world, .fd = fds[0], .far_fd = fds[1], .alert = -1, .ssl = SSL_new(world->client_context)};
    assert_non_null(client->ssl);
    assert_int_equal(SSL_set_fd(client->ssl, client->fd), 1);
    (void)SSL_set_app_data(client->ssl, client);
    SSL_set_info_callback(client->ssl, on_info);
    SSL_set_connect_state(client->ssl);
    set_offer(client->ssl, offer);
    client->handshake =
        handshake_new(world->context, client->far_fd, &address, offer->only_http11, on_wake, client);
    assert_non_null(client->handshake);
    client->state = HANDSHAKE_WANT_READ;
}

static void step_client(struct test_client *client)
{
    ERR_clear_error();
    if (client->fd < 0 || client->connected || client->error != 0)
        return;
    int result = SSL_do_handshake(client->ssl);
    int error = SSL_get_error(client->ssl, result);
    client->connected = result == 1;
    if (result != 1 && error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE)
        client->error = error;
}

static bool has_ended(const struct test_client *client)
{
    return client->state == HANDSHAKE_DONE || client->state == HANDSHAKE_FAILED;
}

void test_client_step(struct test_client *client)
{
    step_client(client);
    bool parked = client->state == HANDSHAKE_WANT_KEY && client->woken == 0;
    if (!has_ended(client) && !parked) {
        client->woken = 0;
        client->state = handshake_run(client->handshake);
    }
    step_client(client);
}

/* The client's side ends too, so that what it received is known. */
static bool has_settled(struct test_client *client)
{
    test_client_step(client);
    return has_ended(client) && (client->connected || client->error != 0 || client->fd < 0);
}

void test_client_run(struct test_client *client)
{
    WORLD_UNTIL(client->world, has_settled(client));
}

static bool has_parked(struct test_client *client)
{
    test_client_step(client);
    return client->state == HANDSHAKE_WANT_KEY;
}

void test_client_park(struct test_client *client)
{
    WORLD_UNTIL(client->world, has_parked(client));
}

void test_client_leave(struct test_client *client)
{
    socket_close(&client->fd);
}

void test_client_end(struct test_client *client)
{
    SSL_free(client->ssl);
    handshake_free(client->handshake);
    socket_close(&client->fd);
    socket_close(&client->far_fd);
    *client = (struct test_client){.fd = -1, .far_fd = -1};
}
