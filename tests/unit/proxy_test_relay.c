/* The relay between a real TLS client and a real TCP backend, over loopback: what each sees of the other's
 * bytes, ends and resets. */
#include "proxy/relay.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#include "common/address.h"
#include "common/clock.h"
#include "common/socket.h"
#include "proxy/client_bio.h"

#define DEADLINE UINT64_C(20000000) /* of each wait */

/* ---- The rig: client ══ relay ── backend. */

struct rig {
    SSL *client, *server;
    int client_fd, server_fd, backend_fd, relay_fd;
    struct relay_buffers *buffers;
    struct relay *relay;
    enum relay_outcome outcome;
    size_t most_buffers;
};

static SSL_CTX *server_context, *client_context;
static BIO_METHOD *bio_method;

static int make_contexts(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    assert_non_null(key);
    assert_non_null(certificate);
    (void)X509_gmtime_adj(X509_getm_notBefore(certificate), 0);
    (void)X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
    (void)X509_set_pubkey(certificate, key);
    assert_true(X509_sign(certificate, key, EVP_sha256()) > 0);
    bio_method = client_bio_method();
    assert_non_null(bio_method);
    server_context = SSL_CTX_new(TLS_server_method());
    client_context = SSL_CTX_new(TLS_client_method());
    assert_int_equal(SSL_CTX_use_certificate(server_context, certificate), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey(server_context, key), 1);
    (void)SSL_CTX_set_mode(server_context, SSL_MODE_RELEASE_BUFFERS);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return 0;
}

static int free_contexts(void **state)
{
    (void)state;
    SSL_CTX_free(server_context);
    SSL_CTX_free(client_context);
    BIO_meth_free(bio_method);
    return 0;
}

static void tcp_pair(int *a, int *b)
{
    struct address address, peer;
    struct failure why;
    const struct socket_listen_options options = {.backlog = 1};
    int listener;
    assert_int_equal(address_parse("127.0.0.1:0", &address, &why), RESULT_OK);
    assert_int_equal(socket_listen(&address, &options, &listener, &why), RESULT_OK);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address.storage, &address.size), 0);
    assert_int_equal(socket_connect(&address, a, &why), RESULT_OK);
    struct pollfd ready = {.fd = listener, .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 5000), 1);
    assert_int_equal(socket_accept(listener, b, &peer, &why), RESULT_OK);
    socket_close(&listener);
}

static void rig_handshake(struct rig *rig, int version)
{
    rig->client = SSL_new(client_context);
    rig->server = SSL_new(server_context);
    (void)SSL_set_max_proto_version(rig->client, version);
    (void)SSL_set_fd(rig->client, rig->client_fd);
    BIO *bio = client_bio_new(bio_method, rig->server_fd);
    assert_non_null(bio);
    SSL_set_bio(rig->server, bio, bio);
    uint64_t start = clock_now();
    int client = 0, server = 0;
    while ((client != 1 || server != 1) && clock_now() - start < DEADLINE) {
        client = SSL_connect(rig->client);
        server = SSL_accept(rig->server);
    }
    assert_int_equal(SSL_version(rig->client), version);
    assert_int_equal(client, 1);
    assert_int_equal(server, 1);
}

static void rig_open(struct rig *rig, int version)
{
    *rig = (struct rig){0};
    tcp_pair(&rig->client_fd, &rig->server_fd);
    tcp_pair(&rig->relay_fd, &rig->backend_fd);
    rig_handshake(rig, version);
    rig->buffers = relay_buffers_new(4);
    rig->relay = relay_new(rig->buffers, rig->server, rig->relay_fd, NULL);
    assert_non_null(rig->relay);
    rig->outcome = relay_run(rig->relay, EV_READ, EV_READ);
}

static void rig_close(struct rig *rig)
{
    relay_free(rig->relay);
    assert_int_equal(relay_buffers_in_use(rig->buffers), 0);
    relay_buffers_free(rig->buffers);
    SSL_free(rig->client);
    SSL_free(rig->server);
    socket_close(&rig->client_fd);
    socket_close(&rig->server_fd);
    socket_close(&rig->backend_fd);
    socket_close(&rig->relay_fd);
}

static short poll_events(short events)
{
    return (short)((events & EV_READ ? POLLIN : 0) | (events & EV_WRITE ? POLLOUT : 0));
}

/* As libevent does with epoll: errors and hang-ups are both. */
static short libevent_events(short events, short wanted)
{
    short got = (short)((events & POLLIN ? EV_READ : 0) | (events & POLLOUT ? EV_WRITE : 0));
    if (events & (POLLERR | POLLHUP))
        got = EV_READ | EV_WRITE;
    return got & wanted;
}

/* One turn of the loop that the relay's owner would run; waits at most 1 ms. */
static void rig_turn(struct rig *rig)
{
    if (rig->outcome != RELAY_WAITING)
        return;
    short client = relay_client_events(rig->relay), backend = relay_backend_events(rig->relay);
    struct pollfd ready[] = {
        {.fd = client ? rig->server_fd : -1, .events = poll_events(client)},
        {.fd = backend ? rig->relay_fd : -1, .events = poll_events(backend)},
    };
    if (poll(ready, 2, 1) <= 0)
        return;
    rig->outcome = relay_run(rig->relay, libevent_events(ready[0].revents, client),
                             libevent_events(ready[1].revents, backend));
    size_t in_use = relay_buffers_in_use(rig->buffers);
    rig->most_buffers = in_use > rig->most_buffers ? in_use : rig->most_buffers;
}

/* ---- The two ends. Each call does what can be done at once. */

enum seen { SEEN_NOTHING, SEEN_BYTES, SEEN_END, SEEN_ABORT };

static enum seen client_read(struct rig *rig, void *data, size_t *size)
{
    ERR_clear_error();
    if (SSL_read_ex(rig->client, data, *size, size) == 1)
        return SEEN_BYTES;
    switch (SSL_get_error(rig->client, 0)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        return SEEN_NOTHING;
    case SSL_ERROR_ZERO_RETURN:
        return SEEN_END;
    default:
        return SEEN_ABORT;
    }
}

static enum seen backend_read(struct rig *rig, void *data, size_t *size)
{
    ssize_t result = recv(rig->backend_fd, data, *size, 0);
    if (result < 0)
        return errno == EAGAIN ? SEEN_NOTHING : SEEN_ABORT;
    *size = (size_t)result;
    return result == 0 ? SEEN_END : SEEN_BYTES;
}

static bool client_write(struct rig *rig, const void *data, size_t *size)
{
    ERR_clear_error();
    return SSL_write_ex(rig->client, data, *size, size) == 1;
}

static bool backend_write(struct rig *rig, const void *data, size_t *size)
{
    ssize_t result = send(rig->backend_fd, data, *size, MSG_NOSIGNAL);
    *size = result > 0 ? (size_t)result : 0;
    return result > 0;
}

/* Writes all of text, which fits into the socket's buffers. */
static void client_say(struct rig *rig, const char *text)
{
    size_t size = strlen(text);
    assert_true(client_write(rig, text, &size));
}

static void backend_say(struct rig *rig, const char *text)
{
    size_t size = strlen(text);
    assert_true(backend_write(rig, text, &size));
    assert_int_equal(size, strlen(text));
}

/* Reads until it ends or all of text has come; what has come must be text. */
static enum seen hears(struct rig *rig, enum seen (*read)(struct rig *, void *, size_t *), const char *text)
{
    char heard[256];
    size_t had = 0;
    enum seen seen = SEEN_NOTHING;
    uint64_t start = clock_now();
    while (seen <= SEEN_BYTES && (had < strlen(text) || *text == 0) && clock_now() - start < DEADLINE) {
        rig_turn(rig);
        size_t size = sizeof heard - had;
        seen = read(rig, heard + had, &size);
        had += seen == SEEN_BYTES ? size : 0;
        assert_true(had < sizeof heard);
    }
    assert_int_equal(had, strlen(text));
    assert_memory_equal(heard, text, had);
    return seen;
}

static void rig_until(struct rig *rig, enum relay_outcome outcome)
{
    uint64_t start = clock_now();
    while (rig->outcome == RELAY_WAITING && clock_now() - start < DEADLINE)
        rig_turn(rig);
    assert_int_equal(rig->outcome, outcome);
}

static void reset(int *fd)
{
    const struct linger at_once = {.l_onoff = 1, .l_linger = 0};
    assert_int_equal(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
    socket_close(fd);
}

/* Turns of the loop in which a writer could write nothing. It has stopped when they were many and took some
 * time: on a busy machine that time may pass within one of them. */
struct standstill {
    uint64_t since;
    unsigned turns;
};

static bool has_stopped(struct standstill *still, bool wrote)
{
    if (wrote || still->turns == 0)
        *still = (struct standstill){.since = clock_now()};
    return ++still->turns > 100 && clock_now() - still->since >= 200000;
}

/* Writes to a client that does not read until the backend is stopped; returns how much. */
static uint64_t fill_client(struct rig *rig)
{
    static const uint8_t CHUNK[40000];
    struct standstill still = {0};
    uint64_t written = 0;
    size_t size;
    do {
        size = sizeof CHUNK;
        (void)backend_write(rig, CHUNK, &size);
        written += size;
        rig_turn(rig);
    } while (!has_stopped(&still, size > 0));
    return written;
}

/* Reads until the end, which must be one in good order; returns how much. */
static uint64_t drain_to_client(struct rig *rig)
{
    static uint8_t chunk[40000];
    enum seen seen = SEEN_NOTHING;
    uint64_t read = 0, start = clock_now();
    while (seen <= SEEN_BYTES && clock_now() - start < DEADLINE) {
        size_t size = sizeof chunk;
        rig_turn(rig);
        seen = client_read(rig, chunk, &size);
        read += seen == SEEN_BYTES ? size : 0;
    }
    assert_int_equal(seen, SEEN_END);
    return read;
}

/* ---- Ends. */

static void both_ways_and_idle(struct rig *rig)
{
    client_say(rig, "question");
    assert_int_equal(hears(rig, backend_read, "question"), SEEN_BYTES);
    backend_say(rig, "answer");
    assert_int_equal(hears(rig, client_read, "answer"), SEEN_BYTES);
    assert_int_equal(rig->outcome, RELAY_WAITING);
    assert_int_equal(relay_buffers_in_use(rig->buffers), 0);
    assert_int_equal(relay_client_events(rig->relay), EV_READ);
    assert_int_equal(relay_backend_events(rig->relay), EV_READ);
    assert_int_equal(relay_bytes_from_client(rig->relay), 8);
    assert_int_equal(relay_bytes_to_client(rig->relay), 6);
}

static void client_ends_first(struct rig *rig)
{
    client_say(rig, "question");
    assert_int_equal(SSL_shutdown(rig->client), 0);
    assert_int_equal(hears(rig, backend_read, "question"), SEEN_BYTES);
    assert_int_equal(hears(rig, backend_read, ""), SEEN_END);
    assert_false(relay_lingering(rig->relay));
    backend_say(rig, "answer");
    assert_int_equal(hears(rig, client_read, "answer"), SEEN_BYTES);
    socket_close(&rig->backend_fd);
    assert_int_equal(hears(rig, client_read, ""), SEEN_END);
    rig_until(rig, RELAY_FINISHED);
    assert_false(relay_truncated(rig->relay));
}

static void backend_ends_first(struct rig *rig)
{
    backend_say(rig, "greeting");
    assert_int_equal(shutdown(rig->backend_fd, SHUT_WR), 0);
    assert_int_equal(hears(rig, client_read, "greeting"), SEEN_BYTES);
    assert_int_equal(hears(rig, client_read, ""), SEEN_END);
    assert_true(relay_lingering(rig->relay));
    client_say(rig, "still talking");
    assert_int_equal(hears(rig, backend_read, "still talking"), SEEN_BYTES);
    (void)SSL_shutdown(rig->client);
    assert_int_equal(hears(rig, backend_read, ""), SEEN_END);
    rig_until(rig, RELAY_FINISHED);
}

/* No close_notify, only TCP's end: the backend sees the end all the same, and its answer goes out. */
static void client_ends_tcp_only(struct rig *rig)
{
    client_say(rig, "question");
    assert_int_equal(shutdown(rig->client_fd, SHUT_WR), 0);
    assert_int_equal(hears(rig, backend_read, "question"), SEEN_BYTES);
    assert_int_equal(hears(rig, backend_read, ""), SEEN_END);
    assert_true(relay_truncated(rig->relay));
    backend_say(rig, "answer");
    socket_close(&rig->backend_fd);
    assert_int_equal(hears(rig, client_read, "answer"), SEEN_BYTES);
    assert_int_equal(hears(rig, client_read, ""), SEEN_END);
    rig_until(rig, RELAY_FINISHED);
}

/* The end came in the midst of a record: that was nobody's will, and the backend must not take it for an end.
 */
static void client_is_cut_off(struct rig *rig)
{
    static const char PART[] = "\x17\x03\x03\x40\x00 and no more";
    client_say(rig, "question");
    assert_int_equal(hears(rig, backend_read, "question"), SEEN_BYTES);
    assert_int_equal(send(rig->client_fd, PART, sizeof PART - 1, 0), sizeof PART - 1);
    assert_int_equal(shutdown(rig->client_fd, SHUT_WR), 0);
    rig_until(rig, RELAY_CLIENT_LOST);
    assert_true(relay_truncated(rig->relay));
}

/* What came before the reset is delivered, and no close_notify says that it was all. */
static void backend_resets(struct rig *rig)
{
    backend_say(rig, "half an ans");
    assert_int_equal(hears(rig, client_read, "half an ans"), SEEN_BYTES);
    reset(&rig->backend_fd);
    rig_until(rig, RELAY_BACKEND_LOST);
    assert_int_equal(shutdown(rig->server_fd, SHUT_WR), 0);
    assert_int_equal(hears(rig, client_read, ""), SEEN_ABORT);
    assert_int_equal(SSL_get_shutdown(rig->client) & SSL_RECEIVED_SHUTDOWN, 0);
}

/* The reset is seen first by the sending side, which must not turn it into an end. */
static void backend_resets_while_sent_to(struct rig *rig)
{
    struct pollfd there[] = {{.fd = rig->relay_fd, .events = POLLIN},
                             {.fd = rig->server_fd, .events = POLLIN}};
    reset(&rig->backend_fd);
    assert_int_equal(poll(&there[0], 1, 5000), 1);
    client_say(rig, "question");
    assert_int_equal(poll(&there[1], 1, 5000), 1);
    assert_int_equal(relay_run(rig->relay, EV_READ, 0), RELAY_WAITING);
    rig_until(rig, RELAY_BACKEND_LOST);
}

static void client_resets(struct rig *rig)
{
    client_say(rig, "question");
    assert_int_equal(hears(rig, backend_read, "question"), SEEN_BYTES);
    reset(&rig->client_fd);
    rig_until(rig, RELAY_CLIENT_LOST);
}

/* A client that has ended its side, with or without close_notify, and then goes away while the backend still
 * talks: libssl calls the failed write an end, which it is not. */
static void client_ends_and_leaves(struct rig *rig, bool notify)
{
    static const char CHUNK[RELAY_BUFFER_SIZE];
    if (notify)
        assert_int_equal(SSL_shutdown(rig->client), 0);
    else
        assert_int_equal(shutdown(rig->client_fd, SHUT_WR), 0);
    assert_int_equal(hears(rig, backend_read, ""), SEEN_END);
    socket_close(&rig->client_fd);
    uint64_t start = clock_now();
    while (rig->outcome == RELAY_WAITING && clock_now() - start < DEADLINE) {
        size_t size = sizeof CHUNK;
        (void)backend_write(rig, CHUNK, &size);
        rig_turn(rig);
    }
    assert_int_equal(rig->outcome, RELAY_CLIENT_LOST);
}

static void client_notifies_and_leaves(struct rig *rig)
{
    client_ends_and_leaves(rig, true);
}

static void client_just_leaves(struct rig *rig)
{
    client_ends_and_leaves(rig, false);
}

static void client_breaks_tls(struct rig *rig)
{
    static const char RECORD[] = "\x17\x03\x03\x00\x20 this was never encrypted at all";
    assert_int_equal(send(rig->client_fd, RECORD, sizeof RECORD - 1, 0), sizeof RECORD - 1);
    rig_until(rig, RELAY_CLIENT_BROKEN);
    assert_int_equal(hears(rig, client_read, ""), SEEN_ABORT); /* the alert */
}

/* 413 and close, with the upload unread: the client gets the answer. */
static void backend_answers_early(struct rig *rig)
{
    static const char UPLOAD[RELAY_BUFFER_SIZE];
    size_t size = sizeof UPLOAD;
    assert_true(client_write(rig, UPLOAD, &size));
    struct pollfd arrived = {.fd = rig->backend_fd, .events = POLLIN};
    while (poll(&arrived, 1, 0) == 0)
        rig_turn(rig);
    backend_say(rig, "413");
    socket_close(&rig->backend_fd);
    assert_int_equal(hears(rig, client_read, "413"), SEEN_BYTES);
}

/* The backend has said all it had to say and takes nothing more: the client, still talking, is heard out
 * until it ends, so that nothing destroys the answer on its way. */
static void backend_is_deaf(struct rig *rig)
{
    backend_say(rig, "that is all");
    socket_close(&rig->backend_fd);
    assert_int_equal(hears(rig, client_read, "that is all"), SEEN_BYTES);
    assert_int_equal(hears(rig, client_read, ""), SEEN_END);
    for (unsigned i = 0; i < 50; i++) {
        client_say(rig, "and another thing");
        rig_turn(rig);
    }
    assert_int_equal(rig->outcome, RELAY_WAITING);
    assert_true(relay_lingering(rig->relay));
    (void)SSL_shutdown(rig->client);
    rig_until(rig, RELAY_FINISHED);
}

static void client_updates_keys(struct rig *rig)
{
    if (SSL_version(rig->client) != TLS1_3_VERSION)
        return;
    for (unsigned i = 0; i < 40; i++) {
        assert_int_equal(SSL_key_update(rig->client, SSL_KEY_UPDATE_REQUESTED), 1);
        client_say(rig, "new keys");
        assert_int_equal(hears(rig, backend_read, "new keys"), SEEN_BYTES);
        backend_say(rig, "so be it");
        assert_int_equal(hears(rig, client_read, "so be it"), SEEN_BYTES);
    }
}

/* While a record waits for a client that does not read, its KeyUpdates are answered and its bytes passed on.
 */
static void client_updates_keys_before_it_reads(struct rig *rig)
{
    if (SSL_version(rig->client) != TLS1_3_VERSION)
        return;
    uint64_t written = fill_client(rig);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(SSL_key_update(rig->client, SSL_KEY_UPDATE_REQUESTED), 1);
        client_say(rig, "new keys");
        assert_int_equal(hears(rig, backend_read, "new keys"), SEEN_BYTES);
    }
    socket_close(&rig->backend_fd);
    assert_int_equal(drain_to_client(rig), written);
}

/* KeyUpdates without end must not keep a worker inside SSL_read. */
static void client_floods_key_updates(struct rig *rig)
{
    if (SSL_version(rig->client) != TLS1_3_VERSION)
        return;
    for (unsigned i = 0; i < 300; i++) {
        assert_int_equal(SSL_key_update(rig->client, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(rig->client), 1);
    }
    client_say(rig, "done");
    struct pollfd left = {.fd = rig->server_fd, .events = POLLIN};
    assert_int_equal(poll(&left, 1, 5000), 1);
    rig_turn(rig);
    assert_int_equal(poll(&left, 1, 0), 1);
    assert_int_equal(hears(rig, backend_read, "done"), SEEN_BYTES);
}

static void many_small_records(struct rig *rig)
{
    char sent[200] = {0};
    for (size_t i = 0; i + 1 < sizeof sent; i++) {
        size_t size = 1;
        sent[i] = (char)('a' + i % 26);
        assert_true(client_write(rig, &sent[i], &size));
    }
    assert_int_equal(hears(rig, backend_read, sent), SEEN_BYTES);
}

/* Work per turn is bounded, whatever the client has sent ahead. */
static void one_turn_is_bounded(struct rig *rig)
{
    static const char RECORD[RELAY_BUFFER_SIZE];
    for (unsigned i = 0; i < 12; i++) {
        size_t size = sizeof RECORD;
        assert_true(client_write(rig, RECORD, &size));
    }
    struct pollfd arrived = {.fd = rig->server_fd, .events = POLLIN};
    assert_int_equal(poll(&arrived, 1, 5000), 1);
    rig_turn(rig);
    assert_true(relay_bytes_from_client(rig->relay) > 0);
    assert_true(relay_bytes_from_client(rig->relay) <= 8 * sizeof RECORD);
    assert_int_equal(rig->outcome, RELAY_WAITING);
    assert_true(relay_client_events(rig->relay) & EV_READ);
}

/* ---- Much. */

struct stream {
    uint64_t left_to_send, left_to_read;
    unsigned seed_send, seed_read; /* the bytes are a function of it: the reader knows what must come */
    uint8_t chunk[40000];
    size_t start, end;
    enum seen seen;
};

static void stream_fill(uint8_t *data, size_t size, unsigned *seed)
{
    for (size_t i = 0; i < size; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        data[i] = (uint8_t)(*seed >> 24);
    }
}

static void stream_send(struct rig *rig, struct stream *stream,
                        bool (*write)(struct rig *, const void *, size_t *))
{
    if (stream->start == stream->end && stream->left_to_send > 0) {
        size_t size = 1 + (size_t)rand() % sizeof stream->chunk;
        stream->start = 0;
        stream->end = size < stream->left_to_send ? size : (size_t)stream->left_to_send;
        stream->left_to_send -= stream->end;
        stream_fill(stream->chunk, stream->end, &stream->seed_send);
    }
    size_t size = stream->end - stream->start;
    if (size > 0 && write(rig, stream->chunk + stream->start, &size))
        stream->start += size;
}

static void stream_read(struct rig *rig, struct stream *stream,
                        enum seen (*read)(struct rig *, void *, size_t *))
{
    static uint8_t got[40000], expected[40000];
    size_t size = 1 + (size_t)rand() % sizeof got;
    if (stream->left_to_read == 0 || rand() % 4 == 0)
        return;
    stream->seen = read(rig, got, &size);
    if (stream->seen != SEEN_BYTES)
        return;
    assert_true(size <= stream->left_to_read);
    stream_fill(expected, size, &stream->seed_read);
    assert_memory_equal(got, expected, size);
    stream->left_to_read -= size;
}

static void much_both_ways(struct rig *rig)
{
    enum { AMOUNT = 12 * 1000 * 1000 };
    static struct stream up, down;
    up = (struct stream){.left_to_send = AMOUNT, .left_to_read = AMOUNT, .seed_send = 1, .seed_read = 1};
    down = (struct stream){.left_to_send = AMOUNT, .left_to_read = AMOUNT, .seed_send = 2, .seed_read = 2};
    uint64_t start = clock_now();
    while (up.left_to_read + down.left_to_read > 0 && clock_now() - start < 2 * DEADLINE) {
        stream_send(rig, &up, client_write);
        stream_send(rig, &down, backend_write);
        rig_turn(rig);
        stream_read(rig, &up, backend_read);
        stream_read(rig, &down, client_read);
        assert_int_equal(rig->outcome, RELAY_WAITING);
    }
    assert_int_equal(up.left_to_read, 0);
    assert_int_equal(down.left_to_read, 0);
    assert_true(rig->most_buffers <= 2);
}

/* A client that does not read: the backend is stopped, with one buffer in use, and nothing is lost. */
static void slow_client(struct rig *rig)
{
    uint64_t written = fill_client(rig);
    assert_true(rig->most_buffers <= 1);
    assert_int_equal(relay_buffers_in_use(rig->buffers), 0); /* but the rest of one record is held */
    assert_int_equal(relay_client_events(rig->relay), EV_READ | EV_WRITE);
    assert_int_equal(relay_backend_events(rig->relay), 0);
    assert_true(relay_bytes_to_client(rig->relay) < written);
    socket_close(&rig->backend_fd);
    assert_int_equal(drain_to_client(rig), written);
}

/* The same for a backend that does not read; the client's way stays open for its answer. */
static void slow_backend(struct rig *rig)
{
    static const uint8_t CHUNK[16384];
    struct standstill still = {0};
    bool wrote;
    do {
        size_t size = sizeof CHUNK;
        wrote = client_write(rig, CHUNK, &size);
        rig_turn(rig);
    } while (!has_stopped(&still, wrote));
    assert_int_equal(relay_buffers_in_use(rig->buffers), 1);
    assert_int_equal(relay_client_events(rig->relay), 0);
    assert_int_equal(relay_backend_events(rig->relay), EV_READ | EV_WRITE);
    backend_say(rig, "wait");
    assert_int_equal(hears(rig, client_read, "wait"), SEEN_BYTES);
}

static const struct row {
    const char *name;
    void (*run)(struct rig *rig);
} ROWS[] = {
    {"both ways and idle", both_ways_and_idle},
    {"client ends first", client_ends_first},
    {"backend ends first", backend_ends_first},
    {"client ends TCP only", client_ends_tcp_only},
    {"client is cut off", client_is_cut_off},
    {"backend resets", backend_resets},
    {"backend resets while sent to", backend_resets_while_sent_to},
    {"client resets", client_resets},
    {"client notifies and leaves", client_notifies_and_leaves},
    {"client just leaves", client_just_leaves},
    {"client breaks TLS", client_breaks_tls},
    {"backend answers early", backend_answers_early},
    {"backend is deaf", backend_is_deaf},
    {"client updates keys", client_updates_keys},
    {"client updates keys before it reads", client_updates_keys_before_it_reads},
    {"client floods key updates", client_floods_key_updates},
    {"many small records", many_small_records},
    {"one turn is bounded", one_turn_is_bounded},
    {"much both ways", much_both_ways},
    {"slow client", slow_client},
    {"slow backend", slow_backend},
};

static void run_rows(int version)
{
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++) {
        struct rig rig;
        print_message("  %s\n", ROWS[i].name);
        rig_open(&rig, version);
        ROWS[i].run(&rig);
        rig_close(&rig);
    }
}

static void test_tls13(void **state)
{
    (void)state;
    run_rows(TLS1_3_VERSION);
}

static void test_tls12(void **state)
{
    (void)state;
    run_rows(TLS1_2_VERSION);
}

static void test_spare_buffers_are_bounded(void **state)
{
    (void)state;
    struct relay_buffers *buffers = relay_buffers_new(0);
    assert_int_equal(relay_buffers_in_use(buffers), 0);
    relay_buffers_free(buffers);
    relay_buffers_free(NULL);
    relay_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tls13),
        cmocka_unit_test(test_tls12),
        cmocka_unit_test(test_spare_buffers_are_bounded),
    };
    return cmocka_run_group_tests(tests, make_contexts, free_contexts);
}
