/* What is kept of a handshake, message by message. That it is what libssl signs, proxy_test_handshake.c
 * shows. */
#include "proxy/transcript_capture.h"

#include <openssl/err.h>
#include <openssl/evp.h>

#include "common/tls_handshake.h"
#include "tests/unit/check.h"

static uint8_t room[TRANSCRIPT_MAX + 1];

/* A message of this type and so many octets with its header; in each octet the size, so that they differ. */
static struct bytes message_of(uint8_t type, size_t size)
{
    memset(room, (int)(size & 0xff), size);
    room[0] = type;
    return bytes_of(room, size);
}

static void add(struct transcript_capture *capture, EVP_MD_CTX *hash, uint8_t type, size_t size)
{
    struct bytes message = message_of(type, size);
    transcript_capture_add(capture, message);
    if (hash != NULL)
        assert_int_equal(EVP_DigestUpdate(hash, message.data, message.size), 1);
}

static EVP_MD_CTX *hash_start(const EVP_MD *digest)
{
    EVP_MD_CTX *hash = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestInit_ex(hash, digest, NULL), 1);
    return hash;
}

static bool matches(const struct transcript_capture *capture, EVP_MD_CTX *hash)
{
    uint8_t octets[EVP_MAX_MD_SIZE];
    unsigned size;
    assert_int_equal(EVP_DigestFinal_ex(hash, octets, &size), 1);
    EVP_MD_CTX_free(hash);
    bool same = transcript_capture_matches(capture, bytes_of(octets, size));
    octets[size - 1] ^= 1;
    assert_false(transcript_capture_matches(capture, bytes_of(octets, size)));
    return same;
}

static void test_messages(void **state)
{
    const EVP_MD *digests[] = {EVP_sha256(), EVP_sha384()};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct transcript_capture capture = {0};
        EVP_MD_CTX *hash = hash_start(digests[i]);
        add(&capture, hash, TLS_CLIENT_HELLO, 517);
        add(&capture, hash, TLS_SERVER_HELLO, 122);
        add(&capture, hash, TLS_ENCRYPTED_EXTENSIONS, 6);
        assert_false(capture.complete);
        add(&capture, hash, TLS_CERTIFICATE, 2000);
        assert_true(capture.complete && !capture.retried);
        add(&capture, NULL, 15, 78); /* CertificateVerify: not of it */
        add(&capture, NULL, 20, 36);
        struct bytes payload = transcript_capture_payload(&capture, 0x0403);
        assert_int_equal(payload.size, 2 + 517 + 122 + 6 + 2000);
        assert_memory_equal(payload.data, "\x04\x03\x01\x05\x05", 5);
        assert_true(matches(&capture, hash));
        transcript_capture_release(&capture);
        assert_null(capture.payload);
    }
    assert_int_equal(ERR_peek_error(), 0);
}

/* RFC 8446 section 4.4.1: after a HelloRetryRequest the first ClientHello counts as its hash, but is sent
 * whole. */
static void test_retry(void **state)
{
    const EVP_MD *digests[] = {EVP_sha256(), EVP_sha384()};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct transcript_capture capture = {0};
        EVP_MD_CTX *hash = hash_start(digests[i]);
        uint8_t stands_for[4 + EVP_MAX_MD_SIZE] = {TLS_MESSAGE_HASH};
        unsigned size;
        struct bytes first = message_of(TLS_CLIENT_HELLO, 300);
        assert_int_equal(EVP_Digest(first.data, first.size, stands_for + 4, &size, digests[i], NULL), 1);
        stands_for[3] = (uint8_t)size;
        assert_int_equal(EVP_DigestUpdate(hash, stands_for, 4 + size), 1);
        transcript_capture_add(&capture, first);
        add(&capture, hash, TLS_SERVER_HELLO, 88);
        add(&capture, hash, TLS_CLIENT_HELLO, 366);
        add(&capture, hash, TLS_SERVER_HELLO, 122);
        add(&capture, hash, TLS_ENCRYPTED_EXTENSIONS, 6);
        add(&capture, hash, TLS_CERTIFICATE, 1000);
        assert_true(capture.retried);
        assert_int_equal(transcript_capture_payload(&capture, 0x0403).size,
                         2 + 300 + 88 + 366 + 122 + 6 + 1000);
        assert_true(matches(&capture, hash));
        transcript_capture_release(&capture);
    }
}

static void test_incomplete(void **state)
{
    struct transcript_capture capture = {0};
    uint8_t hash[32] = {0};
    (void)state;
    assert_false(transcript_capture_matches(&capture, bytes_of(hash, sizeof hash)));
    add(&capture, NULL, TLS_CLIENT_HELLO, 300);
    assert_false(transcript_capture_matches(&capture, bytes_of(hash, sizeof hash)));
    add(&capture, NULL, TLS_CERTIFICATE, 300);
    assert_true(capture.complete);
    assert_false(transcript_capture_matches(&capture, bytes_of(hash, 31)));
    assert_false(transcript_capture_matches(&capture, bytes_of(hash, 0)));
    transcript_capture_release(&capture);
}

/* ---- The bounds: at them, and one octet over. */

static void test_long_hello(void **state)
{
    struct transcript_capture capture = {0};
    (void)state;
    add(&capture, NULL, TLS_CLIENT_HELLO, TRANSCRIPT_HELLO_MAX);
    add(&capture, NULL, TLS_CLIENT_HELLO, TRANSCRIPT_HELLO_MAX + 1);
    assert_true(capture.hello_too_long && capture.closed);
    assert_string_equal(capture.failure, "ClientHello too long");
    assert_null(capture.payload);
    add(&capture, NULL, TLS_CERTIFICATE, 300);
    assert_false(capture.complete);
    assert_null(capture.payload);
}

static void test_longest(void **state)
{
    enum { LEFT = TRANSCRIPT_MAX - 2 * TRANSCRIPT_HELLO_MAX };
    (void)state;
    for (size_t over = 0; over <= 1; over++) {
        struct transcript_capture capture = {0};
        add(&capture, NULL, TLS_CLIENT_HELLO, TRANSCRIPT_HELLO_MAX);
        add(&capture, NULL, TLS_CLIENT_HELLO, TRANSCRIPT_HELLO_MAX);
        add(&capture, NULL, TLS_CERTIFICATE, LEFT + over);
        assert_int_equal(capture.complete, over == 0);
        assert_int_equal(capture.payload == NULL, over == 1);
        if (over == 1)
            assert_string_equal(capture.failure, "handshake messages too long for the key server");
        transcript_capture_release(&capture);
        assert_false(capture.complete);
    }
}

/* What came before the release stays away, and so does what comes after. */
static void test_release(void **state)
{
    struct transcript_capture capture = {0};
    (void)state;
    add(&capture, NULL, TLS_CLIENT_HELLO, 300);
    transcript_capture_release(&capture);
    add(&capture, NULL, TLS_CLIENT_HELLO, 300);
    assert_null(capture.payload);
    transcript_capture_release(&capture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_messages),   cmocka_unit_test(test_retry),   cmocka_unit_test(test_incomplete),
        cmocka_unit_test(test_long_hello), cmocka_unit_test(test_longest), cmocka_unit_test(test_release),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
