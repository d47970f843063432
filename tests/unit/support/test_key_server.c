#include "tests/unit/support/test_key_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "common/socket.h"
#include "common/tls_handshake.h"
#include "common/tls_message.h"

static const struct channel_limits LIMITS = {.handshake_timeout = 10000000, .output_high = 1048576};

/* ---- Signing. */

static EVP_PKEY *find_key(const struct test_key_server *server, const struct test_request *request)
{
    for (size_t i = 0; i < server->key_count; i++) {
        bool same = key_ski_equal(server->keys[i].id.ski, request->ski);
        if (same != server->wrong_key)
            return server->keys[i].key;
    }
    return NULL;
}

static size_t sign(EVP_PKEY *key, const struct test_request *request, uint8_t *into, size_t capacity)
{
    const struct tls_scheme *scheme = tls_scheme_find(request->scheme);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY_CTX *key_context = NULL;
    size_t size = capacity;
    assert_non_null(scheme);
    assert_int_equal(EVP_DigestSignInit_ex(context, &key_context, scheme->hash, NULL, NULL, key, NULL), 1);
    if (scheme->padding == TLS_PADDING_PSS) {
        assert_int_equal(EVP_PKEY_CTX_set_rsa_padding(key_context, RSA_PKCS1_PSS_PADDING), 1);
        assert_int_equal(EVP_PKEY_CTX_set_rsa_pss_saltlen(key_context, RSA_PSS_SALTLEN_DIGEST), 1);
    }
    assert_int_equal(EVP_DigestSign(context, into, &size, request->content, request->content_size), 1);
    EVP_MD_CTX_free(context);
    return size;
}

static void send_frame(struct test_key_server *server, const struct writer *frame)
{
    assert_true(writer_ok(frame));
    assert_int_equal(channel_send(server->channel, writer_bytes(frame)), RESULT_OK);
}

static void answer_as(struct test_key_server *server, const struct test_request *request, uint32_t id)
{
    uint8_t frame[8192], signature[4096] = {0}, timing[KSSL_PAD_TO];
    struct writer to = writer_of(frame, sizeof frame);
    EVP_PKEY *key = find_key(server, request);
    uint8_t error = server->error != 0 ? server->error : key == NULL ? KSSL_ERROR_KEY_NOT_FOUND : 0;
    if (server->channel == NULL)
        return;
    if (error != 0) {
        assert_true(kssl_error_write(&to, id, error));
    } else {
        size_t size =
            server->bad_size != 0 ? server->bad_size : sign(key, request, signature, sizeof signature);
        struct writer extra = writer_of(timing, sizeof timing);
        kssl_timing_write(&extra, &server->timing);
        assert_true(kssl_success_write(&to, id, bytes_of(signature, size),
                                       server->has_timing ? writer_bytes(&extra) : bytes_of(NULL, 0)));
    }
    send_frame(server, &to);
}

void test_key_server_answer(struct test_key_server *server, size_t i, uint32_t id_change)
{
    answer_as(server, &server->held[i], server->held[i].id ^ id_change);
}

void test_key_server_release(struct test_key_server *server)
{
    for (size_t i = 0; i < server->held_count; i++)
        test_key_server_answer(server, i, 0);
    server->held_count = 0;
    server->hold = false;
}

/* ---- Requests. */

/* What is signed for these messages (RFC 8446 section 4.4.1), whatever they say: a key server of ours checks
 * them, this one is there for the proxy. */
static void transcript_content(struct bytes messages, struct writer *to)
{
    struct reader from = reader_of(messages);
    struct tls_handshake message;
    struct tls_server_hello hello = {0};
    uint8_t hash[4 + EVP_MAX_MD_SIZE] = {TLS_MESSAGE_HASH};
    unsigned size = 0;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    assert_true(tls_handshake_read(&from, &message) && message.type == TLS_CLIENT_HELLO);
    struct bytes first = message.whole;
    assert_true(tls_handshake_read(&from, &message) && message.type == TLS_SERVER_HELLO);
    assert_true(tls_server_hello_parse(message.body, &hello));
    const EVP_MD *digest = hello.suite == 0x1302 ? EVP_sha384() : EVP_sha256();
    if (hello.retry) {
        assert_int_equal(EVP_Digest(first.data, first.size, hash + 4, &size, digest, NULL), 1);
        hash[3] = (uint8_t)size;
        first = bytes_of(hash, 4 + size);
    }
    assert_int_equal(EVP_DigestInit_ex(context, digest, NULL), 1);
    assert_int_equal(EVP_DigestUpdate(context, first.data, first.size), 1);
    for (bool more = true; more; more = tls_handshake_read(&from, &message))
        assert_int_equal(EVP_DigestUpdate(context, message.whole.data, message.whole.size), 1);
    assert_true(reader_empty(&from) && message.type == TLS_CERTIFICATE);
    assert_int_equal(EVP_DigestFinal_ex(context, hash, &size), 1);
    EVP_MD_CTX_free(context);
    assert_true(tls_certificate_verify_write(to, bytes_of(hash, size)));
}

static void content_make(struct test_request *request, const struct kssl_message *message)
{
    struct writer to = writer_of(request->content, sizeof request->content);
    struct kssl_sign_tls13 tls13;
    struct kssl_sign_tls12 tls12;
    bool valid;
    if (message->opcode == KSSL_OP_SIGN_TLS13) {
        assert_true(kssl_sign_tls13_parse(message->payload, &tls13));
        request->scheme = tls13.scheme;
        assert_true(tls_certificate_verify_write(&to, tls13.hash));
    } else if (message->opcode == KSSL_OP_SIGN_TRANSCRIPT) {
        struct reader from = reader_of(message->payload);
        assert_true(read_u16(&from, &request->scheme));
        transcript_content(bytes_of(from.next, from.left), &to);
    } else {
        assert_int_equal(message->opcode, KSSL_OP_SIGN_TLS12);
        assert_true(kssl_sign_tls12_parse(message->payload, &tls12, &valid) && valid);
        request->scheme = tls12.scheme;
        assert_true(tls_server_key_exchange_write(&to, &tls12.parts));
    }
    request->content_size = to.size;
}

static void copy_text(char *into, size_t size, struct bytes from)
{
    assert_true(from.size < size);
    if (from.size > 0)
        memcpy(into, from.data, from.size);
    into[from.size] = '\0';
}

static void on_request(struct test_key_server *server, uint32_t id, const struct kssl_message *message)
{
    struct test_request request = {
        .id = id, .opcode = message->opcode, .payload_size = message->payload.size};
    content_make(&request, message);
    assert_int_equal(message->ski.size, sizeof request.ski);
    memcpy(request.ski, message->ski.data, sizeof request.ski);
    copy_text(request.sni, sizeof request.sni, message->sni);
    copy_text(request.request_id, sizeof request.request_id, message->trace);
    request.client_ip_size = message->client_ip.size;
    if (message->client_ip.size > 0)
        memcpy(request.client_ip, message->client_ip.data, message->client_ip.size);
    request.content[request.content_size - 1] ^= server->wrong_content;
    server->last = request;
    server->requests++;
    if (!server->hold) {
        answer_as(server, &request, id);
        return;
    }
    assert_true(server->held_count < TEST_HELD_MAX);
    server->held[server->held_count++] = request;
    if (server->held_count > server->most_held)
        server->most_held = (unsigned)server->held_count;
}

static void answer_hello(struct test_key_server *server, uint32_t id)
{
    uint8_t frame[KSSL_PAD_TO], payload[64];
    struct writer to = writer_of(frame, sizeof frame), out = writer_of(payload, sizeof payload);
    const struct kssl_hello hello = {
        .version = 1,
        .opcodes = bytes_of(server->opcodes, server->opcode_count),
        .time = (uint64_t)(time(NULL) + server->clock_ahead),
    };
    server->hellos++;
    kssl_hello_write(&out, &hello);
    if (server->hello_error != 0)
        assert_true(kssl_error_write(&to, id, server->hello_error));
    else
        assert_true(kssl_success_write(&to, id, writer_bytes(&out), bytes_of(NULL, 0)));
    send_frame(server, &to);
}

static void send_pong(struct test_key_server *server, uint32_t id, struct bytes payload)
{
    uint8_t frame[KSSL_PAD_TO];
    struct writer to = writer_of(frame, sizeof frame);
    const struct kssl_message message = {.has_opcode = true, .opcode = KSSL_OP_PONG, .payload = payload};
    assert_true(kssl_message_write(&to, id, &message));
    send_frame(server, &to);
}

void test_key_server_pong(struct test_key_server *server, uint32_t id)
{
    send_pong(server, id, bytes_of(NULL, 0));
}

static void answer_ping(struct test_key_server *server, uint32_t id, struct bytes payload)
{
    server->pings++;
    send_pong(server, id, payload);
}

/* A page (operation 0x67) has one octet that tells whether others follow, then for each key its SKI, a type
 * and a label. */
static void answer_list(struct test_key_server *server, uint32_t id, struct bytes after)
{
    uint8_t frame[KSSL_PAD_TO], payload[64];
    struct writer to = writer_of(frame, sizeof frame), out = writer_of(payload, sizeof payload);
    size_t next = 0;
    for (size_t i = 0; after.size > 0 && i < server->key_count; i++)
        if (memcmp(server->keys[i].id.ski, after.data, after.size) == 0)
            next = i + 1;
    server->lists++;
    assert_true(next < server->key_count);
    write_u8(&out, next + 1 < server->key_count);
    write_bytes(&out, bytes_of(server->keys[next].id.ski, KEY_ID_SKI_SIZE));
    write_u8(&out, 1);
    write_u8(&out, 0);
    assert_true(kssl_success_write(&to, id, writer_bytes(&out), bytes_of(NULL, 0)));
    send_frame(server, &to);
}

static void on_frame(struct channel *channel, const struct kssl_header *header, struct bytes body,
                     void *owner)
{
    struct test_key_server *server = owner;
    struct kssl_message message;
    struct failure why;
    assert_int_equal(kssl_body_parse(body, &message, &why), RESULT_OK);
    assert_true(message.has_opcode);
    if (server->deaf || channel != server->channel)
        return;
    if (message.opcode == KSSL_OP_HELLO)
        answer_hello(server, header->id);
    else if (message.opcode == KSSL_OP_PING)
        answer_ping(server, header->id, message.payload);
    else if (message.opcode == KSSL_OP_LIST)
        answer_list(server, header->id, message.payload);
    else
        on_request(server, header->id, &message);
}

static void on_closed(struct channel *channel, const struct failure *why, void *owner)
{
    struct test_key_server *server = owner;
    (void)why;
    if (server->channel == channel)
        server->channel = NULL;
}

static const struct channel_handler HANDLER = {.frame = on_frame, .closed = on_closed};

/* ---- Connections. */

static void on_connection(evutil_socket_t listener, short what, void *owner)
{
    struct test_key_server *server = owner;
    struct address peer;
    struct failure why;
    int fd = -1;
    (void)what;
    if (socket_accept(listener, &fd, &peer, &why) != RESULT_OK)
        return;
    server->accepted++;
    if (server->refuse) {
        socket_close(&fd);
        return;
    }
    channel_close(server->channel);
    server->channel =
        channel_accept(server->base, server->context, fd, &peer, &LIMITS, &HANDLER, server, &why);
    assert_non_null(server->channel);
}

void test_key_server_start(struct test_key_server *server)
{
    const struct socket_listen_options options = {.backlog = 64};
    struct failure why;
    if (socket_listen(&server->address, &options, &server->listener, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    server->address.size = sizeof server->address.storage;
    assert_int_equal(
        getsockname(server->listener, (struct sockaddr *)&server->address.storage, &server->address.size), 0);
    server->listening =
        event_new(server->base, server->listener, EV_READ | EV_PERSIST, on_connection, server);
    assert_non_null(server->listening);
    assert_int_equal(event_add(server->listening, NULL), 0);
}

void test_key_server_stop(struct test_key_server *server)
{
    if (server->listening != NULL)
        event_free(server->listening);
    server->listening = NULL;
    socket_close(&server->listener);
}

void test_key_server_cut(struct test_key_server *server)
{
    channel_close(server->channel);
    server->channel = NULL;
}

void test_key_server_open(struct test_key_server *server, struct event_base *base, SSL_CTX *context)
{
    *server = (struct test_key_server){
        .base = base,
        .context = context,
        .listener = -1,
        .opcodes = {KSSL_OP_HELLO, KSSL_OP_SIGN_TLS13, KSSL_OP_SIGN_TLS12, KSSL_OP_SIGN_TRANSCRIPT},
        .opcode_count = 4,
    };
    assert_int_equal(address_parse("127.0.0.1:0", &server->address, NULL), RESULT_OK);
    server->held = calloc(TEST_HELD_MAX, sizeof *server->held);
    assert_non_null(server->held);
    test_key_server_start(server);
}

void test_key_server_close(struct test_key_server *server)
{
    test_key_server_cut(server);
    test_key_server_stop(server);
    for (size_t i = 0; i < server->key_count; i++)
        EVP_PKEY_free(server->keys[i].key);
    free(server->held);
}

void test_key_server_load(struct test_key_server *server, const char *key_path)
{
    struct failure why;
    FILE *file = fopen(key_path, "re");
    assert_non_null(file);
    EVP_PKEY *key = PEM_read_PrivateKey(file, NULL, NULL, NULL);
    assert_non_null(key);
    assert_int_equal(fclose(file), 0);
    assert_true(server->key_count < TEST_KEYS_MAX);
    assert_int_equal(key_id_of(key, &server->keys[server->key_count].id, &why), RESULT_OK);
    server->keys[server->key_count++].key = key;
}
