/*
 * keyless-bench handshake: a closed loop of clients, each of which connects, finishes its handshake, closes
 * and begins again. The latency is from the start of the TCP connection to the end of the client's handshake.
 * With --request each also sends a request and takes the answer before it closes; the time from the start to
 * the answer's first octet is told apart.
 */
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#include "common/address.h"
#include "common/clock.h"
#include "common/socket.h"
#include "tests/bench/bench.h"
#include "tests/bench/options.h"
#include "tests/bench/report.h"
#include "tests/bench/request.h"

struct options {
    struct bench_limits limits;
    struct address address;
    const char *sni;
    const char *ca;
    const char *groups;
    const char *schemes;
    const char *ciphers;
    const char *suites;
    const char *alpn;
    const char *path; /* of the request after the handshake; NULL: none */
    int version;      /* 0: any */
    bool resumed;
    uint64_t timeout; /* milliseconds for one handshake */
};

struct bench {
    const struct options *options;
    struct event_base *base;
    SSL_CTX *context;
    SSL_SESSION *session; /* what resumed handshakes offer */
    char *request;        /* what clients send after their handshake, or NULL */
    struct bench_run run;
    struct client *clients;
    unsigned active;
    char detail[512];
};

struct client {
    struct bench *bench;
    struct event *event;
    SSL *ssl;
    int fd;
    uint64_t began;
    uint64_t took; /* the handshake; 0: it goes on */
    struct request request;
};

static void client_start(struct client *client);

static void client_close(struct client *client)
{
    event_del(client->event);
    SSL_free(client->ssl);
    client->ssl = NULL;
    socket_close(&client->fd);
}

/* Ends this handshake and begins the next, or stops the loop when it was the last. */
static void client_next(struct client *client)
{
    struct bench *bench = client->bench;
    client_close(client);
    if (bench_goes_on(&bench->run)) {
        client_start(client);
    } else if (--bench->active == 0) {
        (void)event_base_loopbreak(bench->base);
    }
}

static void client_failed(struct client *client, const char *reason)
{
    bench_failed(&client->bench->run, reason);
    client_next(client);
}

/* What was negotiated, once, for the report: a figure without it says nothing. */
static void note_detail(struct bench *bench, SSL *ssl)
{
    int scheme = NID_undef;
    (void)SSL_get_peer_signature_type_nid(ssl, &scheme);
    const char *signature = scheme == NID_undef ? "none" : OBJ_nid2sn(scheme);
    int group = (int)(SSL_get_negotiated_group(ssl) & 0xFFFF);
    (void)snprintf(
        bench->detail, sizeof bench->detail,
        "\"version\": \"%s\", \"suite\": \"%s\", \"group\": \"%s\", \"signature\": \"%s\", \"resumed\": %s",
        SSL_get_version(ssl), SSL_get_cipher_name(ssl), OBJ_nid2sn(group), signature,
        SSL_session_reused(ssl) ? "true" : "false");
}

static void client_wait(struct client *client, short what)
{
    struct timeval timeout = clock_timeval(client->bench->options->timeout * 1000);
    (void)event_assign(client->event, client->bench->base, client->fd, what,
                       event_get_callback(client->event), client);
    (void)event_add(client->event, &timeout);
}

static void client_leave(struct client *client)
{
    (void)SSL_shutdown(client->ssl);
    ERR_clear_error();
    client_next(client);
}

static void client_request(struct client *client)
{
    struct bench *bench = client->bench;
    switch (request_step(&client->request, bench->request, client->ssl)) {
    case REQUEST_READS:
        client_wait(client, EV_READ);
        return;
    case REQUEST_WRITES:
        client_wait(client, EV_WRITE);
        return;
    case REQUEST_UNANSWERED:
        client_failed(client, "the request was not answered");
        return;
    case REQUEST_ANSWERED:
        bench_answered(&bench->run, client->took, client->request.answered - client->began);
        client_leave(client);
    }
}

static void client_finished(struct client *client)
{
    struct bench *bench = client->bench;
    if (bench->options->resumed && !SSL_session_reused(client->ssl)) {
        client_failed(client, "the server did not resume the session");
        return;
    }
    client->took = clock_now() - client->began;
    if (bench->detail[0] == '\0')
        note_detail(bench, client->ssl);
    if (bench->request != NULL) {
        client_request(client);
        return;
    }
    bench_done(&bench->run, client->took);
    client_leave(client);
}

static void client_handshake(struct client *client)
{
    ERR_clear_error();
    int result = SSL_do_handshake(client->ssl);
    if (result == 1) {
        client_finished(client);
        return;
    }
    int error = SSL_get_error(client->ssl, result);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        client_wait(client, error == SSL_ERROR_WANT_READ ? EV_READ : EV_WRITE);
        return;
    }
    struct failure why;
    if (error == SSL_ERROR_SYSCALL && ERR_peek_error() == 0)
        (void)failure_set(&why, RESULT_PEER, "handshake: %s",
                          errno != 0 ? strerror(errno) : "connection closed");
    else
        (void)failure_set_openssl(&why, "handshake");
    client_failed(client, why.text);
}

static void client_event(evutil_socket_t fd, short what, void *argument)
{
    struct client *client = argument;
    (void)fd;
    if ((what & EV_TIMEOUT) != 0) {
        client_failed(client, "no answer within the time");
        return;
    }
    if (client->took != 0)
        client_request(client);
    else
        client_handshake(client);
}

static enum result client_prepare(struct client *client, struct failure *why)
{
    struct bench *bench = client->bench;
    if (socket_connect(&bench->options->address, &client->fd, why) != RESULT_OK)
        return why->kind;
    client->ssl = SSL_new(bench->context);
    if (client->ssl == NULL || SSL_set_fd(client->ssl, client->fd) != 1)
        return failure_set_openssl(why, "new connection");
    const struct options *options = bench->options;
    if (options->sni != NULL && (SSL_set_tlsext_host_name(client->ssl, options->sni) != 1 ||
                                 SSL_set1_host(client->ssl, options->sni) != 1))
        return failure_set_openssl(why, "server name");
    if (bench->session != NULL)
        (void)SSL_set_session(client->ssl, bench->session);
    SSL_set_connect_state(client->ssl);
    return RESULT_OK;
}

static void client_start(struct client *client)
{
    struct failure why;
    client->began = clock_now();
    client->took = 0;
    client->request = (struct request){0};
    if (client_prepare(client, &why) != RESULT_OK) {
        client_failed(client, why.text);
        return;
    }
    client_wait(client, EV_WRITE);
}

/* ---- The session that resumed handshakes offer. */

static int keep_session(SSL *ssl, SSL_SESSION *session)
{
    struct bench *bench = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));
    if (bench->session != NULL)
        return 0;
    bench->session = session;
    return 1;
}

/* One full handshake, and then whatever the server sends until a session has come (TLS 1.3 sends it
 * afterwards). */
static bool fetch_session(struct bench *bench, struct failure *why)
{
    BIO *connection = BIO_new_ssl_connect(bench->context);
    char address[ADDRESS_TEXT_SIZE];
    SSL *ssl = NULL;
    bool ok = connection != NULL && BIO_get_ssl(connection, &ssl) == 1 &&
              BIO_set_conn_hostname(connection, address_format(&bench->options->address, address)) == 1;
    if (ok && bench->options->sni != NULL)
        ok = SSL_set_tlsext_host_name(ssl, bench->options->sni) == 1;
    ok = ok && BIO_do_handshake(connection) == 1;
    if (ok) {
        struct timeval patience = {.tv_sec = 1};
        (void)setsockopt(SSL_get_fd(ssl), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        char discarded[256];
        if (bench->session == NULL)
            (void)SSL_read(ssl, discarded, (int)sizeof discarded);
        (void)SSL_shutdown(ssl);
    } else {
        (void)failure_set_openssl(why, "first handshake, for the session");
    }
    BIO_free_all(connection);
    ERR_clear_error();
    if (ok && bench->session == NULL)
        (void)failure_set(why, RESULT_PEER, "the server gave no session to resume");
    /* libssl takes a TLS 1.3 session for used up after one resumption, but only while it keeps a client
     * cache. */
    (void)SSL_CTX_set_session_cache_mode(bench->context, SSL_SESS_CACHE_OFF);
    return ok && bench->session != NULL;
}

/* ---- Setting up. */

static bool set_alpn(SSL_CTX *context, const char *protocol)
{
    unsigned char list[256];
    size_t size = strlen(protocol);
    if (size == 0 || size > 254)
        return false;
    list[0] = (unsigned char)size;
    memcpy(list + 1, protocol, size);
    return SSL_CTX_set_alpn_protos(context, list, (unsigned)size + 1) == 0;
}

static enum result make_context(struct bench *bench, struct failure *why)
{
    const struct options *options = bench->options;
    SSL_CTX *context = bench->context = SSL_CTX_new(TLS_client_method());
    if (context == NULL)
        return failure_set_openssl(why, "new context");
    SSL_CTX_set_app_data(context, bench);
    if (options->version != 0 && (SSL_CTX_set_min_proto_version(context, options->version) != 1 ||
                                  SSL_CTX_set_max_proto_version(context, options->version) != 1))
        return failure_set_openssl(why, "--tls");
    if (options->groups != NULL && SSL_CTX_set1_groups_list(context, options->groups) != 1)
        return failure_set_openssl(why, "--groups %s", options->groups);
    if (options->schemes != NULL && SSL_CTX_set1_sigalgs_list(context, options->schemes) != 1)
        return failure_set_openssl(why, "--schemes %s", options->schemes);
    if (options->ciphers != NULL && SSL_CTX_set_cipher_list(context, options->ciphers) != 1)
        return failure_set_openssl(why, "--ciphers %s", options->ciphers);
    if (options->suites != NULL && SSL_CTX_set_ciphersuites(context, options->suites) != 1)
        return failure_set_openssl(why, "--ciphersuites %s", options->suites);
    if (options->alpn != NULL && !set_alpn(context, options->alpn))
        return failure_set(why, RESULT_CONFIG, "--alpn %s: no protocol name", options->alpn);
    if (options->ca != NULL) {
        if (SSL_CTX_load_verify_locations(context, options->ca, NULL) != 1)
            return failure_set_openssl(why, "--ca %s", options->ca);
        SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
    }
    if (options->resumed) {
        (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(context, keep_session);
    }
    return RESULT_OK;
}

static enum result make_request(struct bench *bench, struct failure *why)
{
    const struct options *options = bench->options;
    char address[ADDRESS_TEXT_SIZE];
    if (options->path == NULL)
        return RESULT_OK;
    const char *host = options->sni != NULL ? options->sni : address_format(&options->address, address);
    bench->request = request_text(options->path, host);
    return bench->request != NULL ? RESULT_OK : failure_set(why, RESULT_SYSTEM, "no memory");
}

static void show_progress(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    bench_progress(argument);
}

static enum result start_clients(struct bench *bench, struct failure *why)
{
    unsigned parallel = bench->options->limits.parallel;
    bench->clients = calloc(parallel, sizeof *bench->clients);
    if (bench->clients == NULL)
        return failure_set_errno(why, "%u clients", parallel);
    for (unsigned i = 0; i < parallel; i++) {
        struct client *client = &bench->clients[i];
        *client = (struct client){.bench = bench, .fd = -1};
        client->event = event_new(bench->base, -1, 0, client_event, client);
        if (client->event == NULL)
            return failure_set(why, RESULT_SYSTEM, "no memory for an event");
    }
    bench->active = parallel;
    for (unsigned i = 0; i < parallel; i++)
        client_start(&bench->clients[i]);
    return RESULT_OK;
}

static void bench_free(struct bench *bench)
{
    for (unsigned i = 0; bench->clients != NULL && i < bench->options->limits.parallel; i++)
        if (bench->clients[i].event != NULL) {
            client_close(&bench->clients[i]);
            event_free(bench->clients[i].event);
        }
    free(bench->clients);
    free(bench->request);
    SSL_SESSION_free(bench->session);
    SSL_CTX_free(bench->context);
    if (bench->base != NULL)
        event_base_free(bench->base);
}

static int run_handshakes(const struct options *options)
{
    struct bench bench = {.options = options};
    struct failure why = {.text = "no event base"};
    int status = 1;
    bench.base = event_base_new();
    if (bench.base != NULL && make_context(&bench, &why) == RESULT_OK &&
        make_request(&bench, &why) == RESULT_OK && (!options->resumed || fetch_session(&bench, &why))) {
        bench_begin(&bench.run, &options->limits,
                    options->resumed ? "resumed handshakes" : "full handshakes");
        struct event *ticker = event_new(bench.base, -1, EV_PERSIST, show_progress, &bench.run);
        struct timeval second = {.tv_sec = 1};
        if (ticker != NULL && event_add(ticker, &second) == 0 && start_clients(&bench, &why) == RESULT_OK) {
            (void)event_base_dispatch(bench.base);
            bench_end(&bench.run);
            status = bench_report(&bench.run, bench.detail[0] != '\0' ? bench.detail : NULL);
            why.text[0] = '\0';
        }
        if (ticker != NULL)
            event_free(ticker);
    }
    if (why.text[0] != '\0')
        (void)fprintf(stderr, "keyless-bench: %s\n", why.text);
    bench_free(&bench);
    return status;
}

/* ---- Options. */

static const char USAGE[] =
    "usage: keyless-bench handshake [OPTION ...] ADDRESS:PORT\n"
    "  --sni NAME          server name to ask for, and to verify with --ca\n"
    "  --ca FILE           verify the server's certificate (default: not verified)\n"
    "  --tls 1.2|1.3       this version only\n"
    "  --groups LIST       key exchange groups, as OpenSSL names them\n"
    "  --schemes LIST      signature algorithms\n"
    "  --ciphers LIST      TLS 1.2 suites; --ciphersuites LIST for TLS 1.3\n"
    "  --alpn NAME         offer this protocol\n"
    "  --resumed           resume a session in each handshake\n"
    "  --request PATH      then GET it over HTTP/1.1, and take the answer to its end\n"
    "  --timeout N         milliseconds to wait for the server (default 10000)\n"
    "  --parallel N        clients at one time (default 8)\n" SHARED_USAGE;

enum {
    OPTION_SNI = 1,
    OPTION_CA,
    OPTION_TLS,
    OPTION_GROUPS,
    OPTION_SCHEMES,
    OPTION_CIPHERS,
    OPTION_SUITES,
    OPTION_ALPN,
    OPTION_REQUEST,
    OPTION_RESUMED,
    OPTION_TIMEOUT
};

static const struct option OPTIONS[] = {
    {"sni", required_argument, NULL, OPTION_SNI},
    {"ca", required_argument, NULL, OPTION_CA},
    {"tls", required_argument, NULL, OPTION_TLS},
    {"groups", required_argument, NULL, OPTION_GROUPS},
    {"schemes", required_argument, NULL, OPTION_SCHEMES},
    {"ciphers", required_argument, NULL, OPTION_CIPHERS},
    {"ciphersuites", required_argument, NULL, OPTION_SUITES},
    {"alpn", required_argument, NULL, OPTION_ALPN},
    {"request", required_argument, NULL, OPTION_REQUEST},
    {"resumed", no_argument, NULL, OPTION_RESUMED},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    SHARED_OPTIONS,
};

static bool parse_version(const char *text, int *version)
{
    *version = strcmp(text, "1.2") == 0 ? TLS1_2_VERSION : strcmp(text, "1.3") == 0 ? TLS1_3_VERSION : 0;
    if (*version == 0)
        (void)fprintf(stderr, "keyless-bench: --tls: got \"%s\", expected 1.2 or 1.3\n", text);
    return *version != 0;
}

static bool parse_path(const char *text, const char **path)
{
    *path = text;
    if (!request_path_valid(text))
        (void)fprintf(stderr, "keyless-bench: --request: got \"%s\", expected a path: /...\n", text);
    return request_path_valid(text);
}

static bool parse_option(int option, const char *text, struct options *options)
{
    const char **texts[] = {
        [OPTION_SNI] = &options->sni,         [OPTION_CA] = &options->ca,
        [OPTION_GROUPS] = &options->groups,   [OPTION_SCHEMES] = &options->schemes,
        [OPTION_CIPHERS] = &options->ciphers, [OPTION_SUITES] = &options->suites,
        [OPTION_ALPN] = &options->alpn,
    };
    if (option >= OPTION_SNI && option <= OPTION_ALPN && texts[option] != NULL) {
        *texts[option] = text;
        return true;
    }
    switch (option) {
    case OPTION_TLS:
        return parse_version(text, &options->version);
    case OPTION_REQUEST:
        return parse_path(text, &options->path);
    case OPTION_RESUMED:
        return options->resumed = true;
    case OPTION_TIMEOUT:
        return option_number("timeout", text, 1, 3600000, &options->timeout);
    default:
        return option_shared(option, text, &options->limits);
    }
}

int bench_handshake(int argc, char **argv)
{
    struct options options = {.limits = {.parallel = 8, .warm_up = 20}, .timeout = 10000};
    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        if (option == OPTION_HELP) {
            (void)fputs(USAGE, stdout);
            return 0;
        }
        if (option == '?' || !parse_option(option, optarg, &options))
            return 2;
    }
    if (!option_address(argc, argv, USAGE, &options.address, &options.limits))
        return 2;
    return run_handshakes(&options);
}
