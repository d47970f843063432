/* The signer's threads: signatures of every kind that verify, queues that are full, jobs that are late. */
#include "keyserver/signer_queue.h"

#include "tests/unit/check.h"

#include <poll.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#define PATIENCE 20000 /* milliseconds */

/* ---- Keys of each kind, loaded from a directory. */

static const struct {
    const char *label, *type, *curve;
} KINDS[] = {
    {"p256", "EC", "P-256"}, {"p384", "EC", "P-384"},      {"p521", "EC", "P-521"},
    {"rsa", "RSA", NULL},    {"ed25519", "ED25519", NULL}, {"ed448", "ED448", NULL},
};

static EVP_PKEY *make_key(const char *type, const char *curve)
{
    if (curve != NULL)
        return EVP_EC_gen(curve);
    return strcmp(type, "RSA") == 0 ? EVP_PKEY_Q_keygen(NULL, NULL, type, (size_t)2048)
                                    : EVP_PKEY_Q_keygen(NULL, NULL, type);
}

static int store_make(void **state)
{
    char dir[] = "/tmp/keyless-queue-XXXXXX";
    char paths[COUNT_OF(KINDS)][64];
    struct key_store *store = NULL;
    struct failure why = {RESULT_OK, ""};
    assert_non_null(mkdtemp(dir));
    for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
        (void)snprintf(paths[i], sizeof paths[i], "%s/%s.key", dir, KINDS[i].label);
        EVP_PKEY *key = make_key(KINDS[i].type, KINDS[i].curve);
        FILE *file = fopen(paths[i], "we");
        assert_non_null(file);
        assert_int_equal(fchmod(fileno(file), 0600), 0);
        assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
        assert_int_equal(fclose(file), 0);
        EVP_PKEY_free(key);
    }
    struct keyserver_key_source source = {.dir = dir};
    const struct keyserver_config config = {.keys = &source, .key_count = 1};
    if (key_store_load(&config, &store, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    for (size_t i = 0; i < COUNT_OF(KINDS); i++)
        (void)unlink(paths[i]);
    *state = store;
    return rmdir(dir);
}

static int store_free(void **state)
{
    key_store_free(*state);
    return 0;
}

static size_t find_key(const struct key_store *store, const char *label)
{
    const struct key_table *table = key_store_table(store);
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->keys[i].label, label) == 0)
            return i;
    fail_msg("no key %s", label);
    return 0;
}

/* ---- Queues. */

static struct signer_queue *queue_new(struct key_store *store, size_t length, uint64_t deadline)
{
    const struct signer_queue_settings settings = {
        .lengths = {length, length, length}, .threads = 2, .deadline = deadline};
    struct signer_queue *queue = NULL;
    struct failure why = {RESULT_OK, ""};
    if (signer_queue_new(store, &settings, &queue, &why) != RESULT_OK)
        fail_msg("%s", why.text);
    return queue;
}

static struct signer_job *new_job(const struct key_store *store, const char *label,
                                  const struct sign_request *request)
{
    size_t key = find_key(store, label);
    struct signer_job *job = signer_job_new(request, key, &key_store_table(store)->keys[key].id);
    assert_non_null(job);
    return job;
}

/* The next jobs that are done. */
static struct signer_job *await(struct signer_queue *queue)
{
    struct pollfd wait = {.fd = signer_queue_descriptor(queue), .events = POLLIN};
    for (;;) {
        assert_int_equal(poll(&wait, 1, PATIENCE), 1);
        struct signer_job *job = signer_queue_take(queue);
        if (job != NULL)
            return job;
    }
}

static struct signer_job *run(struct signer_queue *queue, struct signer_job *job)
{
    assert_true(signer_queue_add(queue, job));
    struct signer_job *done = await(queue);
    assert_ptr_equal(done, job);
    assert_null(done->next);
    return done;
}

/* ---- Signatures. */

#define HASH_32 "0123456789abcdef0123456789ABCDEF"

static struct sign_request tls13_request(uint16_t scheme)
{
    struct sign_request request = {.kind = SIGN_TLS13, .opcode = KSSL_OP_SIGN_TLS13};
    request.tls13.scheme = scheme;
    request.tls13.hash_size = 32;
    memcpy(request.tls13.hash, HASH_32, 32);
    return request;
}

static struct sign_request tls12_request(uint16_t scheme)
{
    struct sign_request request = {.kind = SIGN_TLS12, .opcode = KSSL_OP_SIGN_TLS12};
    request.tls12.scheme = scheme;
    request.tls12.group = 0x001D;
    request.tls12.point_size = 32;
    memcpy(request.tls12.point, HASH_32, 32);
    return request;
}

static bool verifies(EVP_PKEY *key, const char *hash, bool pss, struct bytes signature, struct bytes content)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    EVP_PKEY_CTX *key_context = NULL;
    bool ok = EVP_DigestVerifyInit_ex(context, &key_context, hash, NULL, NULL, key, NULL) == 1;
    if (ok && pss)
        ok = EVP_PKEY_CTX_set_rsa_padding(key_context, RSA_PKCS1_PSS_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_pss_saltlen(key_context, RSA_PSS_SALTLEN_DIGEST) == 1;
    ok = ok && EVP_DigestVerify(context, signature.data, signature.size, content.data, content.size) == 1;
    EVP_MD_CTX_free(context);
    return ok;
}

static const struct {
    const char *label;
    uint16_t scheme;
    const char *hash;
    bool pss, tls13;
} SCHEME_ROWS[] = {
    {"p256", 0x0403, "SHA256", false, true},  {"p384", 0x0503, "SHA384", false, true},
    {"p521", 0x0603, "SHA512", false, true},  {"rsa", 0x0804, "SHA256", true, true},
    {"rsa", 0x0805, "SHA384", true, true},    {"rsa", 0x0806, "SHA512", true, true},
    {"ed25519", 0x0807, NULL, false, true},   {"ed448", 0x0808, NULL, false, true},
    {"rsa", 0x0401, "SHA256", false, false},  {"rsa", 0x0501, "SHA384", false, false},
    {"rsa", 0x0601, "SHA512", false, false},  {"p256", 0x0603, "SHA512", false, false},
    {"p521", 0x0403, "SHA256", false, false},
};

static void check_signature(struct key_store *store, struct signer_queue *queue, size_t row,
                            const struct sign_request *request)
{
    uint8_t octets[SIGN_CONTENT_MAX];
    struct writer content = writer_of(octets, sizeof octets);
    assert_true(sign_request_content(request, &content));
    struct signer_job *job = run(queue, new_job(store, SCHEME_ROWS[row].label, request));
    assert_int_equal(job->error, KSSL_ERROR_NONE);
    assert_true(job->signature_size <= job->room);
    EVP_PKEY *key = key_store_duplicate(store, job->key);
    if (!verifies(key, SCHEME_ROWS[row].hash, SCHEME_ROWS[row].pss,
                  bytes_of(job->signature, job->signature_size), writer_bytes(&content)))
        fail_msg("%s with 0x%04x does not verify", SCHEME_ROWS[row].label, SCHEME_ROWS[row].scheme);
    EVP_PKEY_free(key);
    signer_job_free(job);
}

/* Each twice and more: the contexts that threads keep are used again. */
static void every_scheme_signs(void **state)
{
    struct signer_queue *queue = queue_new(*state, 16, UINT64_C(20000000));
    for (int round = 0; round < 4; round++) {
        for (size_t i = 0; i < COUNT_OF(SCHEME_ROWS); i++) {
            const struct sign_request tls12 = tls12_request(SCHEME_ROWS[i].scheme);
            const struct sign_request tls13 = tls13_request(SCHEME_ROWS[i].scheme);
            check_signature(*state, queue, i, &tls12);
            if (SCHEME_ROWS[i].tls13)
                check_signature(*state, queue, i, &tls13);
        }
    }
    signer_queue_free(queue);
}

static void messages_are_signed_whole(void **state)
{
    static uint8_t octets[SIGN_MESSAGE_MAX];
    static const size_t SIZES[] = {0, 1, SIGN_MESSAGE_MAX};
    struct signer_queue *queue = queue_new(*state, 16, UINT64_C(20000000));
    memset(octets, 'm', sizeof octets);
    for (size_t i = 0; i < COUNT_OF(SIZES); i++) {
        const struct sign_request request = {
            .kind = SIGN_MESSAGE, .opcode = KSSL_OP_ED25519, .message = bytes_of(octets, SIZES[i])};
        struct signer_job *job = run(queue, new_job(*state, "ed25519", &request));
        assert_int_equal(job->error, KSSL_ERROR_NONE);
        EVP_PKEY *key = key_store_duplicate(*state, job->key);
        assert_true(
            verifies(key, NULL, false, bytes_of(job->signature, job->signature_size), request.message));
        EVP_PKEY_free(key);
        signer_job_free(job);
    }
    signer_queue_free(queue);
}

static void a_point_off_its_curve_is_refused(void **state)
{
    struct signer_queue *queue = queue_new(*state, 16, UINT64_C(20000000));
    struct sign_request request = tls12_request(0x0403);
    request.tls12.group = 0x0017;
    request.tls12.point_size = 65;
    memset(request.tls12.point, 4, 65);
    struct signer_job *job = run(queue, new_job(*state, "p256", &request));
    assert_int_equal(job->error, KSSL_ERROR_CONTENT);
    signer_job_free(job);
    signer_queue_free(queue);
}

/* What the checks let through but libcrypto does not is an error, and the next request is fine. */
static void a_refusal_of_libcrypto_is_an_error(void **state)
{
    struct signer_queue *queue = queue_new(*state, 16, UINT64_C(20000000));
    struct sign_request request = {.kind = SIGN_DIGEST, .opcode = KSSL_OP_RSA_SIGN_SHA256};
    request.digest.size = 31;
    struct signer_job *job = run(queue, new_job(*state, "rsa", &request));
    assert_int_equal(job->error, KSSL_ERROR_CRYPTO);
    signer_job_free(job);
    request.digest.size = 32;
    job = run(queue, new_job(*state, "rsa", &request));
    assert_int_equal(job->error, KSSL_ERROR_NONE);
    assert_int_equal(job->signature_size, 256);
    signer_job_free(job);
    signer_queue_free(queue);
}

/* ---- Bounds. */

#define LENGTH 8

static size_t fill(struct signer_queue *queue, struct key_store *store, const char *label, uint16_t scheme)
{
    const struct sign_request request = tls13_request(scheme);
    size_t added = 0;
    for (;;) {
        struct signer_job *job = new_job(store, label, &request);
        if (!signer_queue_add(queue, job)) {
            signer_job_free(job);
            return added;
        }
        added++;
    }
}

static size_t collect(struct signer_queue *queue, size_t count, enum kssl_error error)
{
    size_t found = 0;
    for (size_t seen = 0; seen < count;) {
        struct signer_job *job = await(queue);
        while (job != NULL) {
            struct signer_job *next = job->next;
            found += job->error == error ? 1 : 0;
            signer_job_free(job);
            job = next;
            seen++;
        }
    }
    return found;
}

static void a_full_queue_takes_no_more(void **state)
{
    struct signer_queue *queue = queue_new(*state, LENGTH, UINT64_C(20000000));
    size_t added = fill(queue, *state, "rsa", 0x0804);
    assert_true(added >= LENGTH);
    /* Another class is not concerned. */
    const struct sign_request request = tls13_request(0x0403);
    assert_true(signer_queue_add(queue, new_job(*state, "p256", &request)));
    assert_int_equal(collect(queue, added + 1, KSSL_ERROR_NONE), added + 1);
    signer_queue_free(queue);
}

static void late_jobs_are_not_tried(void **state)
{
    struct signer_queue *queue = queue_new(*state, 64, 0);
    size_t added = fill(queue, *state, "rsa", 0x0804);
    /* Those at the end have waited for one signature at least, unless all were late. */
    assert_true(collect(queue, added, KSSL_ERROR_OVERLOADED) >= added - 4);
    signer_queue_free(queue);
}

/* Handed back without a signature, and those around it with theirs. */
static void cancelled_jobs_are_not_signed(void **state)
{
    struct signer_queue *queue = queue_new(*state, 16, UINT64_C(20000000));
    const struct sign_request request = tls13_request(0x0403);
    struct signer_job *job = new_job(*state, "p256", &request);
    atomic_store(&job->cancelled, true);
    memset(job->signature, 0, job->room);
    job = run(queue, job);
    assert_true(job->dropped);
    assert_int_equal(job->signature_size, 0);
    for (size_t i = 0; i < job->room; i++)
        assert_int_equal(job->signature[i], 0);
    signer_job_free(job);
    check_signature(*state, queue, 0, &request);
    signer_queue_free(queue);
}

static void jobs_left_at_the_end_are_freed(void **state)
{
    struct signer_queue *queue = queue_new(*state, 64, UINT64_C(20000000));
    assert_true(fill(queue, *state, "rsa", 0x0804) >= 64);
    assert_true(fill(queue, *state, "p256", 0x0403) >= 64);
    signer_queue_free(queue);
}

static void cheap_operations_have_a_class_of_their_own(void **state)
{
    (void)state;
    static const struct {
        struct key_id id;
        enum key_class class;
    } ROWS[] = {
        {{.type = KEY_TYPE_P256}, KEY_CLASS_EC},
        {{.type = KEY_TYPE_ED25519}, KEY_CLASS_EC},
        {{.type = KEY_TYPE_P384}, KEY_CLASS_RSA},
        {{.type = KEY_TYPE_P521}, KEY_CLASS_RSA},
        {{.type = KEY_TYPE_ED448}, KEY_CLASS_RSA},
        {{.type = KEY_TYPE_RSA, .bits = 2048}, KEY_CLASS_RSA},
        {{.type = KEY_TYPE_RSA, .bits = 2049}, KEY_CLASS_RSA_LARGE},
        {{.type = KEY_TYPE_RSA, .bits = 3072}, KEY_CLASS_RSA_LARGE},
        {{.type = KEY_TYPE_RSA, .bits = 4096}, KEY_CLASS_RSA_LARGE},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++)
        assert_int_equal(key_class_of(&ROWS[i].id), ROWS[i].class);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_scheme_signs),
        cmocka_unit_test(messages_are_signed_whole),
        cmocka_unit_test(a_point_off_its_curve_is_refused),
        cmocka_unit_test(a_refusal_of_libcrypto_is_an_error),
        cmocka_unit_test(a_full_queue_takes_no_more),
        cmocka_unit_test(late_jobs_are_not_tried),
        cmocka_unit_test(cancelled_jobs_are_not_signed),
        cmocka_unit_test(jobs_left_at_the_end_are_freed),
        cmocka_unit_test(cheap_operations_have_a_class_of_their_own),
    };
    return cmocka_run_group_tests(tests, store_make, store_free);
}
