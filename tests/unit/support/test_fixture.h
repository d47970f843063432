/* What every test of channels starts from: a CA, a key server called keys.example, an edge
 * called edge1.example, their contexts, and for each test a loop, a listener and two ends. */
#ifndef KEYLESS_TESTS_TEST_FIXTURE_H
#define KEYLESS_TESTS_TEST_FIXTURE_H

#include "tests/unit/support/test_peer.h"

#define TEST_SERVER_NAME "keys.example"

struct test_fixture {
    struct test_ca ca, other_ca;
    struct test_identity server_identity, client_identity;
    SSL_CTX *server, *client;
    struct test_net net;
    struct test_end near, far; /* the client's end, the server's */
    struct test_raw raw;       /* in the place of one of them */
};

/* Group set-up and tear-down, and each test's. */
int test_fixture_make(void **state);
int test_fixture_remove(void **state);
int test_fixture_open(void **state);
int test_fixture_close(void **state);

/* A context that must come of these files. */
SSL_CTX *test_context(bool server, const struct test_identity *own, const struct test_ca *ca);

/* Starts both ends, whose callbacks may have been set before; start_open waits until both are open. */
void test_start(struct test_fixture *all);
void test_start_open(struct test_fixture *all);
/* The same with a raw client, or a raw server, in place of a channel. */
void test_start_raw_client(struct test_fixture *all);
void test_start_raw_server(struct test_fixture *all);

#define TEST_WITH_FIXTURE(test) cmocka_unit_test_setup_teardown(test, test_fixture_open, test_fixture_close)

#endif
