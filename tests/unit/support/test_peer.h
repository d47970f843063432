/* Both ends of a channel on one event loop, and a peer that is
 * no channel: plain libssl, one call at a time. */
#ifndef KEYLESS_TESTS_TEST_PEER_H
#define KEYLESS_TESTS_TEST_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <event2/event.h>
#include <openssl/ssl.h>

#include "common/channel.h"
#include "common/clock.h"
#include "tests/unit/support/test_certificates.h"

/* Runs the loop until the condition holds; the test fails when it does not within ten seconds.
 * The loop wakes every millisecond, so that the condition may also poll what is not on the loop. */
#define RUN_UNTIL(net, condition)                                                                            \
    do {                                                                                                     \
        uint64_t run_until_deadline = clock_now() + UINT64_C(10000000);                                      \
        while (!(condition)) {                                                                               \
            if (clock_now() > run_until_deadline)                                                            \
                fail_msg("still not: %s", #condition);                                                       \
            assert_int_equal(event_base_loop((net)->base, EVLOOP_ONCE), 0);                                  \
        }                                                                                                    \
    } while (0)

struct test_net {
    struct event_base *base;
    struct event *tick;
    int listener;
    struct address address; /* of the listener */
    struct channel_limits limits;
    uint64_t turns; /* of the loop, by ticks */
};

/* Listens on 127.0.0.1, or on the Unix socket at this path. */
void test_net_open(struct test_net *net, const char *unix_path);
/* Connections made from now on hold little in the kernel, and no more with time. */
void test_net_small_buffers(const struct test_net *net);
void test_net_close(struct test_net *net);

/* One end: what its callbacks saw, and what they are to do. */
struct test_end {
    struct test_net *net;
    struct channel *channel; /* NULL when it is over */
    unsigned opened, frames, drained, closed;
    size_t octets; /* of all bodies */
    struct kssl_header last;
    struct failure why;
    enum channel_cause cause;
    void (*on_open)(struct test_end *end);
    void (*on_frame)(struct test_end *end, const struct kssl_header *header, struct bytes body);
    void (*on_drained)(struct test_end *end);
    void (*on_closed)(struct test_end *end);
    struct test_end *other;
    unsigned count; /* for the test's own use */
};

/* These end the test when no channel comes of it. */
void test_end_connect(struct test_end *end, struct test_net *net, SSL_CTX *context, const char *server_name);
void test_end_accept(struct test_end *end, struct test_net *net, SSL_CTX *context);
void test_end_close(struct test_end *end);

/* One frame whose body is `size` octets, all `fill`. */
enum result test_end_send(struct test_end *end, uint32_t id, size_t size, uint8_t fill);
/* The same into a buffer of KSSL_FRAME_MAX; returns the frame's octets. */
size_t test_frame(uint8_t *into, uint8_t major, uint32_t id, size_t size, uint8_t fill);

/* ---- The peer that is no channel. Calls never wait. */

struct test_raw {
    int fd;
    SSL_CTX *context;
    SSL *ssl;
    int error;        /* SSL_get_error of the last call */
    int alert;        /* received: SSL_AD_*, or 0 */
    unsigned records; /* application data records received */
};

/* Connects to the net's listener as a TLS client (identity NULL: without a certificate).
 * Change raw->context's or raw->ssl's settings before the first handshake call. */
void test_raw_connect(struct test_raw *raw, const struct test_net *net, const struct test_ca *ca,
                      const struct test_identity *identity);
/* Accepts a connection to the net's listener as a TLS server. Waits for one to come. */
void test_raw_accept(struct test_raw *raw, struct test_net *net, const struct test_ca *ca,
                     const struct test_identity *identity);
void test_raw_close(struct test_raw *raw);

/* True when it is complete. */
bool test_raw_handshake(struct test_raw *raw);
/* True when the octets went out, all of them. */
bool test_raw_write(struct test_raw *raw, const void *data, size_t size);
/* One SSL_read: the octets read, 0 when there were none. */
size_t test_raw_read(struct test_raw *raw, void *into, size_t size);
/* The connection is over for the raw peer: read tells. */
bool test_raw_ended(struct test_raw *raw);

#endif
