/*
 * keyless-bench keyserver: signatures and pings over one channel, closed loop with a number of requests in
 * flight; or the list of keys that this client may use. Signatures are verified with the site's public key.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <event2/event.h>
#include <openssl/rand.h>

#include "common/address.h"
#include "common/channel.h"
#include "common/clock.h"
#include "common/kssl.h"
#include "tests/bench/bench.h"
#include "tests/bench/key_list.h"
#include "tests/bench/options.h"
#include "tests/bench/report.h"
#include "tests/bench/signing.h"

enum operation { OPERATION_SIGN, OPERATION_PING, OPERATION_LIST };

struct options {
    struct bench_limits limits;
    struct address address;
    struct channel_credentials credentials;
    const char *server_name;
    struct signing_choice choice;
    enum operation operation;
    uint64_t verify;  /* one signature in so many; 0: none */
    uint64_t timeout; /* milliseconds without an answer */
};

/* A request in flight; its id on the wire is its index. */
struct slot {
    uint64_t began;
    uint8_t seed[SIGNING_SEED_SIZE]; /* what a ping carries, or a signature is made of */
};

struct bench {
    const struct options *options;
    struct event_base *base;
    SSL_CTX *context;
    struct channel *channel;
    struct bench_run run;
    struct signing signing;
    struct key_list list;
    struct slot *slots;
    unsigned active;
    uint64_t signatures;
    uint64_t heard;     /* when the last answer came */
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
    if (bench->options->operation == OPERATION_SIGN)
        return signing_request_write(&bench->signing, id, slot->seed, frame);
    return kssl_message_write(frame, id,
                              &(struct kssl_message){.has_opcode = true,
                                                     .opcode = KSSL_OP_PING,
                                                     .payload = bytes_of(slot->seed, sizeof slot->seed)});
}

static void send_request(struct bench *bench, uint32_t id)
{
    struct slot *slot = &bench->slots[id];
    uint8_t octets[KSSL_FRAME_MAX];
    struct writer frame = writer_of(octets, sizeof octets);
    (void)RAND_bytes(slot->seed, (int)sizeof slot->seed);
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

static const char *answer_problem(struct bench *bench, const struct slot *slot,
                                  const struct kssl_message *answer)
{
    if (answer->opcode == KSSL_OP_ERROR)
        return answer->payload.size == 1 ? kssl_error_name(answer->payload.data[0]) : "malformed error";
    if (bench->options->operation == OPERATION_PING) {
        bool echoed = bytes_equal(answer->payload, bytes_of(slot->seed, sizeof slot->seed));
        return answer->opcode == KSSL_OP_PONG && echoed ? NULL : "the answer is not what was sent";
    }
    if (answer->opcode != KSSL_OP_SUCCESS)
        return "unexpected opcode in the answer";
    uint64_t verify = bench->options->verify;
    if (verify != 0 && bench->signatures++ % verify == 0 &&
        !signing_good(&bench->signing, slot->seed, answer->payload))
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

static void take_list(struct bench *bench, const struct kssl_message *answer)
{
    struct key_list *list = &bench->list;
    bool more = false;
    if (answer->opcode == KSSL_OP_ERROR && answer->payload.size == 1)
        bench_broken(bench, kssl_error_name(answer->payload.data[0]));
    else if (answer->opcode != KSSL_OP_SUCCESS || !key_list_take(list, answer->payload, &more))
        bench_broken(bench, "malformed list");
    else if (more)
        send_list_request(bench, bytes_of(list->last, sizeof list->last));
    else
        bench_stop(bench);
}

static void on_frame(struct channel *channel, const struct kssl_header *header, struct bytes body,
                     void *owner)
{
    struct bench *bench = owner;
    struct kssl_message answer;
    (void)channel;
    bench->heard = clock_now();
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
    bench->heard = clock_now();
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
    struct bench *bench = argument;
    (void)fd;
    (void)what;
    if (bench->run.limits != NULL)
        bench_progress(&bench->run);
    /* Until the channel is open, its own deadline holds. */
    if (bench->heard != 0 && clock_now() - bench->heard > bench->options->timeout * 1000)
        bench_broken(bench, "no answer within the time");
}

/* ---- Setting up. */

static enum result bench_open(struct bench *bench, struct failure *why)
{
    static const struct channel_limits LIMITS = {.handshake_timeout = 10000000, .output_high = 64u << 20};
    static const struct channel_handler HANDLER = {.open = on_open, .frame = on_frame, .closed = on_closed};
    const struct options *options = bench->options;
    bench->base = event_base_new();
    bench->slots = calloc(options->limits.parallel, sizeof *bench->slots);
    if (bench->base == NULL || bench->slots == NULL || !key_list_begin(&bench->list, options->limits.json))
        return failure_set(why, RESULT_SYSTEM, "no memory");
    bench->channel = channel_connect(bench->base, bench->context, &options->address, options->server_name,
                                     &LIMITS, &HANDLER, bench, why);
    return bench->channel != NULL ? RESULT_OK : why->kind;
}

static enum result bench_prepare(struct bench *bench, struct failure *why)
{
    const struct options *options = bench->options;
    enum result result = channel_client_context(&options->credentials, &bench->context, why);
    if (result == RESULT_OK && options->operation == OPERATION_SIGN)
        result = signing_open(&bench->signing, &options->choice, why);
    return result == RESULT_OK ? bench_open(bench, why) : result;
}

static void bench_free(struct bench *bench)
{
    channel_close(bench->channel);
    free(bench->slots);
    signing_close(&bench->signing);
    key_list_free(&bench->list);
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
        key_list_print(&bench->list);
        return 0;
    }
    char detail[128] = "";
    if (bench->signing.scheme != NULL)
        (void)snprintf(detail, sizeof detail, "\"operation\": \"%s\", \"scheme\": \"%s\"",
                       kssl_opcode_name(signing_opcode(&bench->signing)), bench->signing.scheme->name);
    bench_end(&bench->run);
    return bench_report(&bench->run, detail[0] != '\0' ? detail : NULL);
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
    "  --mode MODE         tbs: sign TLS 1.3 handshakes by their hash (operation 0x61, the default);\n"
    "                      transcript: by their messages (0x63), with the chain in --site;\n"
    "                      digest: sign bare digests, which every key server knows\n"
    "  --sni NAME          the name in those messages (default: the first of the certificate)\n"
    "  --ping, --list      ping; or print the keys that this client may use; instead of signing\n"
    "  --verify N          verify one signature in N (default 1; 0: none)\n"
    "  --timeout N         milliseconds to wait for an answer (default 10000)\n"
    "  --parallel N        requests in flight (default 32)\n" SHARED_USAGE;

enum {
    OPTION_CERTIFICATE = 1,
    OPTION_KEY,
    OPTION_CA,
    OPTION_SERVER_NAME,
    OPTION_SITE,
    OPTION_SCHEME,
    OPTION_SNI,
    OPTION_MODE,
    OPTION_PING,
    OPTION_LIST,
    OPTION_VERIFY,
    OPTION_TIMEOUT
};

static const struct option OPTIONS[] = {
    {"certificate", required_argument, NULL, OPTION_CERTIFICATE},
    {"key", required_argument, NULL, OPTION_KEY},
    {"ca", required_argument, NULL, OPTION_CA},
    {"server-name", required_argument, NULL, OPTION_SERVER_NAME},
    {"site", required_argument, NULL, OPTION_SITE},
    {"scheme", required_argument, NULL, OPTION_SCHEME},
    {"sni", required_argument, NULL, OPTION_SNI},
    {"mode", required_argument, NULL, OPTION_MODE},
    {"ping", no_argument, NULL, OPTION_PING},
    {"list", no_argument, NULL, OPTION_LIST},
    {"verify", required_argument, NULL, OPTION_VERIFY},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    SHARED_OPTIONS,
};

static bool parse_mode(const char *text, enum signing_mode *mode)
{
    static const char *const MODES[] = {
        [SIGNING_TBS] = "tbs", [SIGNING_TRANSCRIPT] = "transcript", [SIGNING_DIGEST] = "digest"};
    for (size_t i = 0; i < sizeof MODES / sizeof *MODES; i++) {
        if (strcmp(text, MODES[i]) == 0) {
            *mode = (enum signing_mode)i;
            return true;
        }
    }
    (void)fprintf(stderr, "keyless-bench: --mode: got \"%s\", expected tbs, transcript or digest\n", text);
    return false;
}

static bool parse_option(int option, const char *text, struct options *options)
{
    const char **texts[] = {
        [OPTION_CERTIFICATE] = &options->credentials.certificate,
        [OPTION_KEY] = &options->credentials.key,
        [OPTION_CA] = &options->credentials.ca,
        [OPTION_SERVER_NAME] = &options->server_name,
        [OPTION_SITE] = &options->choice.site,
        [OPTION_SCHEME] = &options->choice.scheme,
        [OPTION_SNI] = &options->choice.sni,
    };
    if (option >= OPTION_CERTIFICATE && option <= OPTION_SNI) {
        *texts[option] = text;
        return true;
    }
    switch (option) {
    case OPTION_MODE:
        return parse_mode(text, &options->choice.mode);
    case OPTION_PING:
        options->operation = OPERATION_PING;
        return true;
    case OPTION_LIST:
        options->operation = OPERATION_LIST;
        return true;
    case OPTION_VERIFY:
        return option_number("verify", text, 0, 1000000, &options->verify);
    case OPTION_TIMEOUT:
        return option_number("timeout", text, 1, 3600000, &options->timeout);
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
    return options->operation == OPERATION_SIGN && options->choice.site == NULL ? "--site is needed to sign"
                                                                                : NULL;
}

int bench_keyserver(int argc, char **argv)
{
    struct options options = {.limits = {.parallel = 32, .warm_up = 100}, .verify = 1, .timeout = 10000};
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
