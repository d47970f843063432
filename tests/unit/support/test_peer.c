#include "tests/unit/support/test_peer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>
#include <openssl/err.h>

#include "common/socket.h"

/* ---- The loop. */

static void on_tick(evutil_socket_t fd, short what, void *argument)
{
    struct test_net *net = argument;
    (void)fd, (void)what;
    net->turns++;
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

static void name_of(int fd, struct address *address)
{
    address->size = sizeof address->storage;
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address->storage, &address->size), 0);
}

void test_net_open(struct test_net *net, const char *unix_path)
{
    static const struct timeval TICK = {.tv_usec = 1000};
    static const struct socket_listen_options OPTIONS = {.backlog = 16};
    char text[ADDRESS_TEXT_SIZE] = "127.0.0.1:0";
    struct failure why;
    (void)signal(SIGPIPE, SIG_IGN);
    *net = (struct test_net){.listener = -1, .limits = {.handshake_timeout = 5000000, .output_high = 262144}};
    net->base = precise_base();
    net->tick = event_new(net->base, -1, EV_PERSIST, on_tick, net);
    assert_non_null(net->tick);
    assert_int_equal(event_add(net->tick, &TICK), 0);
    if (unix_path != NULL)
        (void)snprintf(text, sizeof text, "unix:%s", unix_path);
    if (address_parse(text, &net->address, &why) != RESULT_OK ||
        socket_listen(&net->address, &OPTIONS, &net->listener, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    if (unix_path == NULL)
        name_of(net->listener, &net->address);
}

void test_net_small_buffers(const struct test_net *net)
{
    static const int SMALL = 32 * 1024; /* inherited by what is accepted */
    assert_int_equal(setsockopt(net->listener, SOL_SOCKET, SO_SNDBUF, &SMALL, sizeof SMALL), 0);
    assert_int_equal(setsockopt(net->listener, SOL_SOCKET, SO_RCVBUF, &SMALL, sizeof SMALL), 0);
}

void test_net_close(struct test_net *net)
{
    socket_close(&net->listener);
    event_free(net->tick);
    event_base_free(net->base);
}

/* ---- Channels. */

static void on_open(struct channel *channel, void *owner)
{
    struct test_end *end = owner;
    assert_ptr_equal(channel, end->channel);
    end->opened++;
    if (end->on_open != NULL)
        end->on_open(end);
}

static void on_frame(struct channel *channel, const struct kssl_header *header, struct bytes body,
                     void *owner)
{
    struct test_end *end = owner;
    assert_ptr_equal(channel, end->channel);
    assert_int_equal(end->opened, 1);
    end->frames++;
    end->octets += body.size;
    end->last = *header;
    if (end->on_frame != NULL)
        end->on_frame(end, header, body);
}

static void on_drained(struct channel *channel, void *owner)
{
    struct test_end *end = owner;
    assert_ptr_equal(channel, end->channel);
    end->drained++;
    if (end->on_drained != NULL)
        end->on_drained(end);
}

static void on_closed(struct channel *channel, const struct failure *why, void *owner)
{
    struct test_end *end = owner;
    assert_ptr_equal(channel, end->channel);
    end->closed++;
    end->why = *why;
    end->cause = channel_cause(channel);
    if (end->on_closed != NULL)
        end->on_closed(end);
    end->channel = NULL;
}

static const struct channel_handler HANDLER = {
    .open = on_open, .frame = on_frame, .drained = on_drained, .closed = on_closed};

void test_end_connect(struct test_end *end, struct test_net *net, SSL_CTX *context, const char *server_name)
{
    struct failure why;
    end->net = net;
    end->channel =
        channel_connect(net->base, context, &net->address, server_name, &net->limits, &HANDLER, end, &why);
    if (end->channel == NULL)
        fail_msg("%s", why.text);
}

void test_end_accept(struct test_end *end, struct test_net *net, SSL_CTX *context)
{
    struct failure why;
    struct address peer;
    int fd = -1;
    enum result result = RESULT_AGAIN;
    end->net = net;
    RUN_UNTIL(net, (result = socket_accept(net->listener, &fd, &peer, &why)) != RESULT_AGAIN);
    assert_int_equal(result, RESULT_OK);
    end->channel = channel_accept(net->base, context, fd, &peer, &net->limits, &HANDLER, end, &why);
    if (end->channel == NULL)
        fail_msg("%s", why.text);
}

void test_end_close(struct test_end *end)
{
    channel_close(end->channel);
    end->channel = NULL;
}

size_t test_frame(uint8_t *into, uint8_t major, uint32_t id, size_t size, uint8_t fill)
{
    struct writer to = writer_of(into, KSSL_FRAME_MAX);
    write_u8(&to, major);
    write_u8(&to, 0);
    write_u16(&to, (uint16_t)size);
    write_u32(&to, id);
    write_fill(&to, fill, size);
    assert_true(writer_ok(&to));
    return to.size;
}

enum result test_end_send(struct test_end *end, uint32_t id, size_t size, uint8_t fill)
{
    uint8_t frame[KSSL_FRAME_MAX];
    return channel_send(end->channel, bytes_of(frame, test_frame(frame, KSSL_MAJOR, id, size, fill)));
}

/* ---- The raw peer. */

static void on_message(int written, int version, int type, const void *data, size_t size, SSL *ssl,
                       void *argument)
{
    struct test_raw *raw = argument;
    const uint8_t *octets = data;
    (void)version, (void)ssl;
    if (written)
        return;
    if (type == SSL3_RT_ALERT && size == 2 && octets[0] == SSL3_AL_FATAL)
        raw->alert = octets[1];
    /* TLS 1.3 calls everything application data on the wire; what it really is stands inside. */
    if (type == SSL3_RT_INNER_CONTENT_TYPE && size == 1 && octets[0] == SSL3_RT_APPLICATION_DATA)
        raw->records++;
}

static void raw_start(struct test_raw *raw, const struct test_ca *ca, const struct test_identity *identity)
{
    assert_non_null(raw->context);
    SSL_CTX_set_msg_callback(raw->context, on_message);
    SSL_CTX_set_msg_callback_arg(raw->context, raw);
    assert_int_equal(SSL_CTX_load_verify_file(raw->context, ca->path), 1);
    if (identity != NULL) {
        assert_int_equal(SSL_CTX_use_certificate_chain_file(raw->context, identity->certificate), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(raw->context, identity->key, SSL_FILETYPE_PEM), 1);
    }
    raw->ssl = SSL_new(raw->context);
    assert_non_null(raw->ssl);
    assert_int_equal(SSL_set_fd(raw->ssl, raw->fd), 1);
}

void test_raw_connect(struct test_raw *raw, const struct test_net *net, const struct test_ca *ca,
                      const struct test_identity *identity)
{
    struct failure why;
    *raw = (struct test_raw){.context = SSL_CTX_new(TLS_client_method())};
    if (socket_connect(&net->address, &raw->fd, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    /* As large as the kernel makes it by default, but it stays so. */
    int size = 0;
    socklen_t length = sizeof size;
    assert_int_equal(getsockopt(raw->fd, SOL_SOCKET, SO_RCVBUF, &size, &length), 0);
    size /= 2; /* socket(7): what is set is doubled */
    assert_int_equal(setsockopt(raw->fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size), 0);
    raw_start(raw, ca, identity);
    SSL_CTX_set_verify(raw->context, SSL_VERIFY_PEER, NULL);
    SSL_set_connect_state(raw->ssl);
}

void test_raw_accept(struct test_raw *raw, struct test_net *net, const struct test_ca *ca,
                     const struct test_identity *identity)
{
    struct failure why;
    struct address peer;
    enum result result = RESULT_AGAIN;
    *raw = (struct test_raw){.context = SSL_CTX_new(TLS_server_method())};
    RUN_UNTIL(net, (result = socket_accept(net->listener, &raw->fd, &peer, &why)) != RESULT_AGAIN);
    assert_int_equal(result, RESULT_OK);
    raw_start(raw, ca, identity);
    SSL_set_accept_state(raw->ssl);
}

void test_raw_close(struct test_raw *raw)
{
    SSL_free(raw->ssl);
    SSL_CTX_free(raw->context);
    socket_close(&raw->fd);
    ERR_clear_error();
    *raw = (struct test_raw){.fd = -1};
}

bool test_raw_handshake(struct test_raw *raw)
{
    ERR_clear_error();
    int outcome = SSL_do_handshake(raw->ssl);
    raw->error = SSL_get_error(raw->ssl, outcome);
    return outcome == 1;
}

bool test_raw_write(struct test_raw *raw, const void *data, size_t size)
{
    size_t written = 0;
    ERR_clear_error();
    int outcome = SSL_write_ex(raw->ssl, data, size, &written);
    raw->error = SSL_get_error(raw->ssl, outcome);
    return outcome == 1 && written == size;
}

size_t test_raw_read(struct test_raw *raw, void *into, size_t size)
{
    size_t got = 0;
    ERR_clear_error();
    int outcome = SSL_read_ex(raw->ssl, into, size, &got);
    raw->error = SSL_get_error(raw->ssl, outcome);
    return outcome == 1 ? got : 0;
}

bool test_raw_ended(struct test_raw *raw)
{
    uint8_t dropped[1024];
    while (test_raw_read(raw, dropped, sizeof dropped) > 0)
        continue;
    return raw->error != SSL_ERROR_WANT_READ && raw->error != SSL_ERROR_WANT_WRITE;
}
