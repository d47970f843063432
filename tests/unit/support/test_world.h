/* A proxy's handshakes with everything that they need, on one event loop: sites with chains of every kind, a
 * key server that holds their keys behind the real channel, the key client, and clients that are plain libssl
 * on the other end of a socket pair. For tests of proxy/ only. */
#ifndef KEYLESS_TESTS_TEST_WORLD_H
#define KEYLESS_TESTS_TEST_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "common/clock.h"
#include "common/metrics.h"
#include "proxy/certificates.h"
#include "proxy/config.h"
#include "proxy/handshake.h"
#include "proxy/key_client.h"
#include "proxy/proxy_metrics.h"
#include "tests/unit/support/test_certificates.h"
#include "tests/unit/support/test_key_server.h"

#define WORLD_SITES       10
#define WORLD_KEY_SERVERS 3

struct test_world {
    /* made once */
    struct test_ca ca;
    struct test_identity server_identity, edge_identity, sites[WORLD_SITES];
    SSL_CTX *server_context, *edge_context, *client_context;

    /* for each test */
    struct proxy_config config;
    struct proxy_certificate_source sources[WORLD_SITES];
    struct proxy_key_server key_server_configs[WORLD_KEY_SERVERS]; /* config has the first one alone */
    struct event_base *base;
    struct event *tick;
    struct metrics *metrics;
    struct metrics_row *row;
    struct test_key_server server;
    struct test_key_server others[WORLD_KEY_SERVERS - 1]; /* as many as config.key_server_count says */
    struct key_client *keys;
    struct certificates *certificates;
    struct handshake_context *context;
};

/* For cmocka: *state is the struct test_world. The sites and their names:
 *   rsa.example p256.example p384.example p521.example ed25519.example ed448.example  one chain each
 *   both.example, *.wild.example   RSA and P-256
 *   curves.example                 P-256 and P-384
 * The default is rsa.example. */
int test_world_make(void **state);
int test_world_remove(void **state);

/* For each test: a configuration that it may change, then the rest of it. */
void test_world_configure(struct test_world *world);
void test_world_open(struct test_world *world);
/* The same up to key client and key server: no handshakes. */
void test_world_open_keys(struct test_world *world);
void test_world_close(struct test_world *world);
int64_t test_world_metric(const struct test_world *world, enum proxy_metric metric);

/* Runs the loop until the condition holds; the test fails when it does not within ten seconds. */
#define WORLD_UNTIL(world, condition)                                                                        \
    do {                                                                                                     \
        uint64_t world_until_deadline = clock_now() + UINT64_C(10000000);                                    \
        while (!(condition)) {                                                                               \
            if (clock_now() > world_until_deadline)                                                          \
                fail_msg("still not: %s", #condition);                                                       \
            assert_int_equal(event_base_loop((world)->base, EVLOOP_ONCE), 0);                                \
        }                                                                                                    \
    } while (0)

/* What a client offers; NULL and 0 stand for libssl's defaults. */
struct test_offer {
    const char *sni;
    int version; /* the only one */
    const char *groups, *schemes, *suites12;
    struct bytes alpn;
    bool only_http11; /* the proxy's side */
    bool distrust;    /* the client does not know the CA */
};

struct test_client {
    struct test_world *world;
    SSL *ssl;
    int fd, far_fd; /* the client's end, the proxy's */
    bool connected; /* the client's side is done */
    int error;      /* of the client's last call, once it failed; SSL_ERROR_* */
    int alert;      /* that the client received: SSL_AD_*, or -1 */
    struct handshake *handshake;
    enum handshake_state state;
    unsigned woken;
};

void test_client_start(struct test_client *client, struct test_world *world, const struct test_offer *offer);
/* Lets both sides act once. */
void test_client_step(struct test_client *client);
/* Runs the loop until the proxy's side has ended or waits for what the loop does not bring by itself. */
void test_client_run(struct test_client *client);
/* ... until it waits for its signature. */
void test_client_park(struct test_client *client);
/* Closes the client's end alone, then everything. */
void test_client_leave(struct test_client *client);
void test_client_end(struct test_client *client);

#endif
