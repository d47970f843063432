/* A key server for tests, on the test's own event loop behind the real channel: it signs with real keys, or
 * does what a test tells it to do instead. */
#ifndef KEYLESS_TESTS_TEST_KEY_SERVER_H
#define KEYLESS_TESTS_TEST_KEY_SERVER_H

#include <stdbool.h>
#include <stdint.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "common/address.h"
#include "common/channel.h"
#include "common/key_id.h"
#include "common/kssl.h"

#define TEST_KEYS_MAX    16
#define TEST_HELD_MAX    4096
#define TEST_OPCODES_MAX 8

struct test_request {
    uint32_t id;
    uint8_t opcode;
    uint16_t scheme;
    uint8_t ski[KEY_ID_SKI_SIZE];
    uint8_t content[256]; /* rebuilt: what is to be signed */
    size_t content_size, payload_size;
    char sni[256], request_id[KSSL_REQUEST_ID_MAX + 1];
    uint8_t client_ip[16];
    size_t client_ip_size;
};

struct test_key_server {
    struct event_base *base;
    SSL_CTX *context;
    struct event *listening;
    int listener;
    struct address address;
    struct channel *channel; /* the newest */

    struct {
        struct key_id id;
        EVP_PKEY *key;
    } keys[TEST_KEYS_MAX];
    size_t key_count;

    /* What to do. */
    bool hold;           /* keep requests until test_key_server_release */
    bool deaf;           /* do not even answer pings and hello */
    bool refuse;         /* close what connects */
    bool wrong_key;      /* sign with another key than the one asked for */
    bool wrong_content;  /* sign something else */
    uint8_t error;       /* answer this error instead */
    uint8_t hello_error; /* answer hello with this error */
    size_t bad_size;     /* answer so many zeros as the signature */
    int64_t clock_ahead; /* seconds, in hello */
    uint8_t opcodes[TEST_OPCODES_MAX];
    uint8_t opcode_count;
    struct kssl_timing timing; /* told with each signature, if has_timing */
    bool has_timing;

    /* What was seen. */
    unsigned accepted, hellos, pings, requests, most_held;
    unsigned lists; /* pages of keys asked for: of one key each, in the order of keys */
    struct test_request last;
    struct test_request *held;
    size_t held_count;
};

/* Listens on 127.0.0.1; address says where. context is borrowed. Ends the test when it cannot. */
void test_key_server_open(struct test_key_server *server, struct event_base *base, SSL_CTX *context);
void test_key_server_close(struct test_key_server *server);
/* Its private keys, PEM files. */
void test_key_server_load(struct test_key_server *server, const char *key_path);

/* Stop listening, and listen again on the same port. */
void test_key_server_stop(struct test_key_server *server);
void test_key_server_start(struct test_key_server *server);
/* Drops the connection without a word; what is held stays held, but is never answered. */
void test_key_server_cut(struct test_key_server *server);

/* Sends a pong that nobody may have asked for. */
void test_key_server_pong(struct test_key_server *server, uint32_t id);
/* Answers held request number i, under another id if id_change is not 0; it stays held. */
void test_key_server_answer(struct test_key_server *server, size_t i, uint32_t id_change);
/* Answers all that is held and holds no longer. */
void test_key_server_release(struct test_key_server *server);

#endif
