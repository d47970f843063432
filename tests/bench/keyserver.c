/*
 * keyless-bench keyserver: signatures and pings over one channel, closed loop with a number of requests in
 * flight; or the list of keys that this client may use. Signatures are verified with the site's public key.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/rsa.h>

#include "common/address.h"
#include "common/channel.h"
#include "common/clock.h"
#include "common/key_id.h"
#include "common/kssl.h"
#include "common/tls_message.h"
#include "tests/bench/bench.h"
#include "tests/bench/options.h"
#include "tests/bench/report.h"

enum operation { OPERATION_SIGN, OPERATION_PING, OPERATION_LIST };

struct options {
    struct bench_limits limits;
    struct address address;
    struct channel_credentials credentials;
    const char *server_name;
    const char *site; /* PEM: the certificate or public key whose private half signs */
    const char *scheme;
    enum operation operation;
    uint64_t verify; /* one signature in so many; 0: none */
};

/* A request in flight; its id on the wire is its index. */
struct slot {
    uint64_t began;
    uint8_t hash[32];
};

struct bench {
    const struct options *options;
    struct event_base *base;
    SSL_CTX *context;
    struct channel *channel;
    struct bench_run run;
    EVP_PKEY *key;
    struct key_id id;
    const struct tls_scheme *scheme;
    EVP_MD_CTX *verifier;
    struct slot *slots;
    unsigned active;
    uint64_t signatures;
    uint64_t listed;
    struct failure why; /* what ended the run early; empty text: nothing */
};

static void bench_stop(struct bench *bench)
{
    (void)event_base_loopbreak(bench->base);
}

static void bench_broken(struct bench *bench, const char *reason)
{
    (void)failure_set(&bench->why, RESULT_PEER, "%s", reason);
    bench_stop(bench);
}

/* ---- Requests. */

static bool write_request(const struct bench *bench, uint32_t id, struct writer *frame)
{
    const struct slot *slot = &bench->slots[id];
    if (bench->options->operation == OPERATION_PING)
        return kssl_message_write(frame, id,
                                  &(struct kssl_message){.has_opcode = true,
                                                         .opcode = KSSL_OP_PING,
                                                         .payload = bytes_of(slot->hash, sizeof slot->hash)});
    uint8_t payload[64];
    struct writer to = writer_of(payload, sizeof payload);
    kssl_sign_tls13_write(&to, &(struct kssl_sign_tls13){.scheme = bench->scheme->code,
                                                         .hash = bytes_of(slot->hash, sizeof slot->hash)});
    return kssl_message_write(frame, id,
                              &(struct kssl_message){.has_opcode = true,
                                                     .opcode = KSSL_OP_SIGN_TLS13,
                                                     .ski = bytes_of(bench->id.ski, sizeof bench->id.ski),
                                                     .payload = writer_bytes(&to)});
}

static void send_request(struct bench *bench, uint32_t id)
{
    struct slot *slot = &bench->slots[id];
    uint8_t octets[2 * KSSL_PAD_TO];
    struct writer frame = writer_of(octets, sizeof octets);
    (void)RAND_bytes(slot->hash, (int)sizeof slot->hash);
    slot->began = clock_now();
    if (!write_request(bench, id, &frame) || channel_send(bench->channel, writer_bytes(&frame)) != RESULT_OK)
        bench_broken(bench, "the request could not be sent");
}

static void send_list_request(struct bench *bench, struct bytes after)
{
    uint8_t octets[2 * KSSL_PAD_TO];
    struct writer frame = writer_of(octets, sizeof octets);
    struct kssl_message message = {.has_opcode = true, .opcode = KSSL_OP_LIST, .payload = after};
    if (!kssl_message_write(&frame, 0, &message) ||
        channel_send(bench->channel, writer_bytes(&frame)) != RESULT_OK)
        bench_broken(bench, "the request could not be sent");
}

/* ---- Answers. */

static bool set_padding(const struct bench *bench, EVP_PKEY_CTX *parameters)
{
    if (bench->scheme->padding != TLS_PADDING_PSS)
        return true;
    return EVP_PKEY_CTX_set_rsa_padding(parameters, RSA_PKCS1_PSS_PADDING) > 0 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(parameters, RSA_PSS_SALTLEN_DIGEST) > 0;
}

static bool signature_good(struct bench *bench, const struct slot *slot, struct bytes signature)
{
    uint8_t content[TLS_CERTIFICATE_VERIFY_MAX];
    struct writer to = writer_of(content, sizeof content);
    EVP_PKEY_CTX *parameters = NULL;
    bool good = tls_certificate_verify_write(&to, bytes_of(slot->hash, sizeof slot->hash)) &&
                EVP_MD_CTX_reset(bench->verifier) == 1 &&
                EVP_DigestVerifyInit_ex(bench->verifier, &parameters, bench->scheme->hash, NULL, NULL,
                                        bench->key, NULL) == 1 &&
                set_padding(bench, parameters) &&
                EVP_DigestVerify(bench->verifier, signature.data, signature.size, content, to.size) == 1;
    ERR_clear_error();
    return good;
}

static const char *answer_problem(struct bench *bench, const struct slot *slot,
                                  const struct kssl_message *answer)
{
    if (answer->opcode == KSSL_OP_ERROR)
        return answer->payload.size == 1 ? kssl_error_name(answer->payload.data[0]) : "malformed error";
    if (bench->options->operation == OPERATION_PING) {
        bool echoed = bytes_equal(answer->payload, bytes_of(slot->hash, sizeof slot->hash));
        return answer->opcode == KSSL_OP_PONG && echoed ? NULL : "the answer is not what was sent";
    }
    if (answer->opcode != KSSL_OP_SUCCESS)
        return "unexpected opcode in the answer";
    uint64_t verify = bench->options->verify;
    if (verify != 0 && bench->signatures++ % verify == 0 && !signature_good(bench, slot, answer->payload))
        return "the signature is wrong";
    return NULL;
}

static void take_answer(struct bench *bench, uint32_t id, const struct kssl_message *answer)
{
    if (id >= bench->options->limits.parallel) {
        bench_broken(bench, "an answer to no request");
        return;
    }
    struct slot *slot = &bench->slots[id];
    uint64_t took = clock_now() - slot->began;
    const char *problem = answer_problem(bench, slot, answer);
    if (problem != NULL)
        bench_failed(&bench->run, problem);
    else
        bench_done(&bench->run, took);
    if (bench_goes_on(&bench->run))
        send_request(bench, id);
    else if (--bench->active == 0)
        bench_stop(bench);
}

static void print_key(const struct kssl_list_entry *entry)
{
    for (size_t i = 0; i < KEY_ID_SKI_SIZE; i++)
        (void)printf("%02x", entry->ski[i]);
    (void)printf("  %-8s  ", key_type_name(entry->type));
    for (size_t i = 0; i < entry->name.size; i++) {
        uint8_t octet = entry->name.data[i];
        (void)putchar(octet >= 0x20 && octet < 0x7F ? octet : '?');
    }
    (void)putchar('\n');
}

static void take_list(struct bench *bench, const struct kssl_message *answer)
{
    struct reader page = reader_of(answer->payload);
    uint8_t more = 0;
    uint8_t last[KEY_ID_SKI_SIZE] = {0};
    if (answer->opcode == KSSL_OP_ERROR && answer->payload.size == 1) {
        bench_broken(bench, kssl_error_name(answer->payload.data[0]));
        return;
    }
    if (answer->opcode != KSSL_OP_SUCCESS || !read_u8(&page, &more)) {
        bench_broken(bench, "malformed list");
        return;
    }
    for (struct kssl_list_entry entry; !reader_empty(&page); bench->listed++) {
        if (!kssl_list_entry_read(&page, &entry)) {
            bench_broken(bench, "malformed list");
            return;
        }
        print_key(&entry);
        memcpy(last, entry.ski, sizeof last);
    }
    if (more != 0)
        send_list_request(bench, bytes_of(last, sizeof last));
    else
        bench_stop(bench);
}

static void on_frame(struct channel *channel, const struct kssl_header *header, struct bytes body,
                     void *owner)
{
    struct bench *bench = owner;
    struct kssl_message answer;
    (void)channel;
    if (header->major != KSSL_MAJOR || kssl_body_parse(body, &answer, &bench->why) != RESULT_OK ||
        !answer.has_opcode)
        bench_broken(bench, "malformed answer");
    else if (bench->options->operation == OPERATION_LIST)
        take_list(bench, &answer);
    else
        take_answer(bench, header->id, &answer);
}

static void on_open(struct channel *channel, void *owner)
{
    struct bench *bench = owner;
    (void)channel;
    if (bench->options->operation == OPERATION_LIST) {
        send_list_request(bench, bytes_of("", 0));
        return;
    }
    bench_begin(&bench->run, &bench->options->limits,
                bench->options->operation == OPERATION_PING ? "pings" : "signatures");
    bench->active = bench->options->limits.parallel;
    for (uint32_t id = 0; id < bench->options->limits.parallel; id++)
        send_request(bench, id);
}

static void on_closed(struct channel *channel, const struct failure *why, void *owner)
{
    struct bench *bench = owner;
    (void)channel;
    bench->channel = NULL;
    bench_broken(bench, why->kind == RESULT_OK ? "the key server closed the channel" : why->text);
}

static void on_tick(evutil_socket_t fd, short what, void *argument)
{
    const struct bench *bench = argument;
    (void)fd;
    (void)what;
    if (bench->run.limits != NULL)
        bench_progress(&bench->run);
}

/* ---- Setting up. */

/* The public key of a certificate, or a bare one. */
static enum result read_site_key(const char *path, EVP_PKEY **key, struct failure *why)
{
    BIO *file = BIO_new_file(path, "r");
    if (file == NULL)
        return failure_set_openssl(why, "%s", path);
    X509 *certificate = PEM_read_bio_X509(file, NULL, NULL, NULL);
    *key = certificate != NULL ? X509_get_pubkey(certificate) : NULL;
    X509_free(certificate);
    if (*key == NULL && BIO_reset(file) == 0)
        *key = PEM_read_bio_PUBKEY(file, NULL, NULL, NULL);
    BIO_free(file);
    if (*key == NULL)
        return failure_set_openssl(why, "%s: neither a certificate nor a public key", path);
    ERR_clear_error();
    return RESULT_OK;
}

/* The schemes that the key may sign TLS 1.3 with; the first is the default. */
static const uint16_t SCHEMES[] = {0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0804, 0x0805, 0x0806};

static enum result choose_scheme(struct bench *bench, struct failure *why)
{
    const char *wanted = bench->options->scheme;
    for (size_t i = 0; i < sizeof SCHEMES / sizeof *SCHEMES; i++) {
        const struct tls_scheme *scheme = tls_scheme_find(SCHEMES[i]);
        if (!tls_scheme_fits_tls13(scheme, bench->id.type) ||
            (wanted != NULL && strcmp(wanted, scheme->name) != 0))
            continue;
        bench->scheme = scheme;
        return RESULT_OK;
    }
    return failure_set(why, RESULT_CONFIG, "--scheme %s: not one that a key of type %s signs TLS 1.3 with",
                       wanted != NULL ? wanted : "(default)", key_type_name(bench->id.type));
}

static enum result bench_prepare(struct bench *bench, struct failure *why)
{
    static const struct channel_limits LIMITS = {.handshake_timeout = 10000000, .output_high = 64u << 20};
    static const struct channel_handler HANDLER = {.open = on_open, .frame = on_frame, .closed = on_closed};
    const struct options *options = bench->options;
    enum result result = channel_client_context(&options->credentials, &bench->context, why);
    if (result == RESULT_OK && options->operation == OPERATION_SIGN) {
        result = read_site_key(options->site, &bench->key, why);
        if (result == RESULT_OK)
            result = key_id_of(bench->key, &bench->id, why);
        if (result == RESULT_OK)
            result = choose_scheme(bench, why);
    }
    if (result != RESULT_OK)
        return result;
    bench->base = event_base_new();
    bench->verifier = EVP_MD_CTX_new();
    bench->slots = calloc(options->limits.parallel, sizeof *bench->slots);
    if (bench->base == NULL || bench->verifier == NULL || bench->slots == NULL)
        return failure_set(why, RESULT_SYSTEM, "no memory");
    bench->channel = channel_connect(bench->base, bench->context, &options->address, options->server_name,
                                     &LIMITS, &HANDLER, bench, why);
    return bench->channel != NULL ? RESULT_OK : why->kind;
}

static void bench_free(struct bench *bench)
{
    channel_close(bench->channel);
    free(bench->slots);
    EVP_MD_CTX_free(bench->verifier);
    EVP_PKEY_free(bench->key);
    SSL_CTX_free(bench->context);
    if (bench->base != NULL)
        event_base_free(bench->base);
}

static int bench_finish(struct bench *bench)
{
    if (bench->why.text[0] != '\0') {
        (void)fprintf(stderr, "keyless-bench: %s\n", bench->why.text);
        return 1;
    }
    if (bench->options->operation == OPERATION_LIST) {
        (void)fprintf(stderr, "%llu keys\n", (unsigned long long)bench->listed);
        return 0;
    }
    char detail[80];
    (void)snprintf(detail, sizeof detail, "\"scheme\": \"%s\"",
                   bench->scheme != NULL ? bench->scheme->name : "none");
    bench_end(&bench->run);
    return bench_report(&bench->run, detail);
}

static int run_keyserver(const struct options *options)
{
    struct bench *bench = calloc(1, sizeof *bench);
    if (bench == NULL)
        return 1;
    bench->options = options;
    int status = 1;
    if (bench_prepare(bench, &bench->why) == RESULT_OK) {
        struct event *ticker = event_new(bench->base, -1, EV_PERSIST, on_tick, bench);
        struct timeval second = {.tv_sec = 1};
        if (ticker != NULL && event_add(ticker, &second) == 0)
            (void)event_base_dispatch(bench->base);
        if (ticker != NULL)
            event_free(ticker);
        status = bench_finish(bench);
    } else {
        (void)fprintf(stderr, "keyless-bench: %s\n", bench->why.text);
    }
    bench_free(bench);
    free(bench);
    return status;
}

/* ---- Options. */

static const char USAGE[] =
    "usage: keyless-bench keyserver [OPTION ...] ADDRESS:PORT\n"
    "  --certificate FILE  --key FILE  --ca FILE   this end of the channel, and the CA of both\n"
    "  --server-name NAME  what the key server's certificate must say\n"
    "  --site FILE         sign with the key of this certificate or public key (PEM)\n"
    "  --scheme NAME       TLS signature scheme (default: the first that fits the key)\n"
    "  --ping, --list      ping; or print the keys that this client may use; instead of signing\n"
    "  --verify N          verify one signature in N (default 1; 0: none)\n"
    "  --parallel N        requests in flight (default 32)\n" SHARED_USAGE;

enum {
    OPTION_CERTIFICATE = 1,
    OPTION_KEY,
    OPTION_CA,
    OPTION_SERVER_NAME,
    OPTION_SITE,
    OPTION_SCHEME,
    OPTION_PING,
    OPTION_LIST,
    OPTION_VERIFY
};

static const struct option OPTIONS[] = {
    {"certificate", required_argument, NULL, OPTION_CERTIFICATE},
    {"key", required_argument, NULL, OPTION_KEY},
    {"ca", required_argument, NULL, OPTION_CA},
    {"server-name", required_argument, NULL, OPTION_SERVER_NAME},
    {"site", required_argument, NULL, OPTION_SITE},
    {"scheme", required_argument, NULL, OPTION_SCHEME},
    {"ping", no_argument, NULL, OPTION_PING},
    {"list", no_argument, NULL, OPTION_LIST},
    {"verify", required_argument, NULL, OPTION_VERIFY},
    SHARED_OPTIONS,
};

static bool parse_option(int option, const char *text, struct options *options)
{
    const char **texts[] = {
        [OPTION_CERTIFICATE] = &options->credentials.certificate,
        [OPTION_KEY] = &options->credentials.key,
        [OPTION_CA] = &options->credentials.ca,
        [OPTION_SERVER_NAME] = &options->server_name,
        [OPTION_SITE] = &options->site,
        [OPTION_SCHEME] = &options->scheme,
    };
    if (option >= OPTION_CERTIFICATE && option <= OPTION_SCHEME) {
        *texts[option] = text;
        return true;
    }
    switch (option) {
    case OPTION_PING:
        options->operation = OPERATION_PING;
        return true;
    case OPTION_LIST:
        options->operation = OPERATION_LIST;
        return true;
    case OPTION_VERIFY:
        return option_number("verify", text, 0, 1000000, &options->verify);
    default:
        return option_shared(option, text, &options->limits);
    }
}

static const char *missing_option(const struct options *options)
{
    if (options->credentials.certificate == NULL || options->credentials.key == NULL ||
        options->credentials.ca == NULL)
        return "--certificate, --key and --ca are needed";
    if (options->server_name == NULL)
        return "--server-name is needed";
    return options->operation == OPERATION_SIGN && options->site == NULL ? "--site is needed to sign" : NULL;
}

int bench_keyserver(int argc, char **argv)
{
    struct options options = {.limits = {.parallel = 32, .warm_up = 100}, .verify = 1};
    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        if (option == OPTION_HELP) {
            (void)fputs(USAGE, stdout);
            return 0;
        }
        if (option == '?' || !parse_option(option, optarg, &options))
            return 2;
    }
    const char *missing = missing_option(&options);
    if (missing != NULL) {
        (void)fprintf(stderr, "keyless-bench: %s\n%s", missing, USAGE);
        return 2;
    }
    if (!option_address(argc, argv, USAGE, &options.address, &options.limits))
        return 2;
    return run_keyserver(&options);
}
