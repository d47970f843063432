#include "common/channel_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <sys/stat.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#include "common/channel.h"
#include "common/socket.h"

/* X25519 and AES-128 come first because they are the cheapest here and both ends are usually ours. */
static const char GROUPS[] = "X25519:P-256:P-384";
static const char CIPHERSUITES[] =
    "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
static const char CIPHERS_TLS12[] = "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:"
                                    "ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384:"
                                    "ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305";

enum { SUBJECT_TEXT_SIZE = 200 };

/* What differs between the two ends. */
struct role {
    const SSL_METHOD *(*method)(void);
    int verify;
    int peer_purpose; /* X509_PURPOSE_*: an extendedKeyUsage must name it, or be absent */
};

static const struct role CLIENT = {
    .method = TLS_client_method,
    .verify = SSL_VERIFY_PEER,
    .peer_purpose = X509_PURPOSE_SSL_SERVER,
};
static const struct role SERVER = {
    .method = TLS_server_method,
    .verify = SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
    .peer_purpose = X509_PURPOSE_SSL_CLIENT,
};

/* ---- Why a certificate was refused. */

/* RFC 2253 form, which escapes control characters. */
static void subject_text(X509 *certificate, char text[static SUBJECT_TEXT_SIZE])
{
    text[0] = '\0';
    BIO *memory = certificate != NULL ? BIO_new(BIO_s_mem()) : NULL;
    if (memory == NULL)
        return;
    if (X509_NAME_print_ex(memory, X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253) >= 0) {
        int size = BIO_read(memory, text, SUBJECT_TEXT_SIZE - 1);
        text[size > 0 ? size : 0] = '\0';
    }
    BIO_free(memory);
}

/* What the bare text of X509_verify_cert_error_string leaves open. */
static void verification_detail(X509_STORE_CTX *store, int error, char *text, size_t size)
{
    text[0] = '\0';
    if (error == X509_V_ERR_INVALID_PURPOSE)
        (void)snprintf(text, size, " (its keyUsage or extendedKeyUsage does not allow this role)");
    const char *name = X509_VERIFY_PARAM_get0_host(X509_STORE_CTX_get0_param(store), 0);
    if (error == X509_V_ERR_HOSTNAME_MISMATCH && name != NULL)
        (void)snprintf(text, size, " (expected %.120s)", name);
}

static int on_verify(int ok, X509_STORE_CTX *store)
{
    if (ok)
        return 1;
    const SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct failure *why = ssl != NULL ? SSL_get_app_data(ssl) : NULL;
    if (why == NULL || why->kind != RESULT_OK)
        return 0;
    char subject[SUBJECT_TEXT_SIZE];
    char detail[160];
    int error = X509_STORE_CTX_get_error(store);
    subject_text(X509_STORE_CTX_get_current_cert(store), subject);
    verification_detail(store, error, detail, sizeof detail);
    (void)failure_set(why, RESULT_PEER, "the peer's certificate is refused: %s%s; subject %s",
                      X509_verify_cert_error_string(error), detail, subject);
    return 0;
}

/* ---- Contexts. */

/* The kind is the operator's fault, the reason OpenSSL's; but of a file without what is looked for it only
 * says "PEM lib". */
static enum result refuse_file(struct failure *why, const char *what, const char *path)
{
    if (ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_PEM_LIB) {
        ERR_clear_error();
        return failure_set(why, RESULT_CONFIG, "%s %s: there is none in this file, or not in PEM form", what,
                           path);
    }
    (void)failure_set_openssl(why, "%s %s", what, path);
    if (why != NULL)
        why->kind = RESULT_CONFIG;
    return RESULT_CONFIG;
}

/* OpenSSL says "system lib" of a file that is not there; errno says more. */
static enum result check_readable(const char *what, const char *path, struct failure *why)
{
    if (path == NULL)
        return failure_set(why, RESULT_CONFIG, "no %s is configured", what);
    int fd CLEANUP(socket_close) = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0)
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG, "%s %s: %s", what, path, strerror(errno));
}

/* Its group may read it: that is how programs that never are root get at keys (Debian's ssl-cert). */
static enum result check_private(const char *path, struct failure *why)
{
    struct stat status;
    if (stat(path, &status) != 0)
        return failure_set_errno(why, "channel key %s", path);
    if ((status.st_mode & S_IRWXO) == 0)
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG,
                       "channel key %s: its mode is %04o; everybody on this machine could use it "
                       "(chmod 600)",
                       path, (unsigned)status.st_mode & 07777);
}

static enum result check_files(const struct channel_credentials *files, struct failure *why)
{
    enum result result = check_readable("channel certificate", files->certificate, why);
    if (result == RESULT_OK)
        result = check_readable("channel key", files->key, why);
    if (result == RESULT_OK)
        result = check_readable("channel CA", files->ca, why);
    return result;
}

/* Without this, OpenSSL would ask on the terminal. */
static int no_password(char *buffer, int size, int writing, void *asked)
{
    (void)buffer, (void)size, (void)writing;
    *(bool *)asked = true;
    return -1;
}

static enum result load_key(SSL_CTX *context, const struct channel_credentials *files, struct failure *why)
{
    bool encrypted = false;
    SSL_CTX_set_default_passwd_cb(context, no_password);
    SSL_CTX_set_default_passwd_cb_userdata(context, &encrypted);
    int loaded = SSL_CTX_use_PrivateKey_file(context, files->key, SSL_FILETYPE_PEM);
    SSL_CTX_set_default_passwd_cb_userdata(context, NULL);
    SSL_CTX_set_default_passwd_cb(context, NULL);
    if (encrypted) {
        ERR_clear_error();
        return failure_set(why, RESULT_CONFIG, "channel key %s is encrypted, which is not supported",
                           files->key);
    }
    /* A key of the same type as the certificate's is compared when
     * it is loaded, one of another type is not. */
    if ((loaded != 1 && ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH) ||
        (loaded == 1 &&
         X509_check_private_key(SSL_CTX_get0_certificate(context), SSL_CTX_get0_privatekey(context)) != 1)) {
        ERR_clear_error();
        return failure_set(why, RESULT_CONFIG, "channel key %s does not belong to channel certificate %s",
                           files->key, files->certificate);
    }
    if (loaded != 1)
        return refuse_file(why, "channel key", files->key);
    return RESULT_OK;
}

static enum result check_leaf(const SSL_CTX *context, const char *path, struct failure *why)
{
    X509 *leaf = SSL_CTX_get0_certificate(context);
    if (X509_cmp_current_time(X509_get0_notAfter(leaf)) <= 0)
        return failure_set(why, RESULT_CONFIG, "channel certificate %s has expired", path);
    return RESULT_OK;
}

static enum result load_ca(SSL_CTX *context, const struct role *role, const char *path, struct failure *why)
{
    if (SSL_CTX_load_verify_file(context, path) != 1)
        return refuse_file(why, "channel CA", path);
    if (role == &CLIENT)
        return RESULT_OK;
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(path);
    if (names == NULL)
        return refuse_file(why, "channel CA", path);
    SSL_CTX_set_client_CA_list(context, names);
    return RESULT_OK;
}

static enum result load_files(SSL_CTX *context, const struct role *role,
                              const struct channel_credentials *files, struct failure *why)
{
    enum result result = check_files(files, why);
    if (result != RESULT_OK)
        return result;
    if (SSL_CTX_use_certificate_chain_file(context, files->certificate) != 1)
        return refuse_file(why, "channel certificate", files->certificate);
    result = load_key(context, files, why);
    if (result == RESULT_OK)
        result = check_private(files->key, why);
    if (result == RESULT_OK)
        result = check_leaf(context, files->certificate, why);
    if (result == RESULT_OK)
        result = load_ca(context, role, files->ca, why);
    return result;
}

/* Everything is set here, so that nothing of the system's openssl.cnf remains in force. */
static bool set_policy(SSL_CTX *context, const struct role *role)
{
    /* Every connection is verified afresh: no tickets of either kind, no cache. */
    SSL_CTX_set_options(context, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_CLEANSE_PLAINTEXT);
    SSL_CTX_clear_options(context, SSL_OP_LEGACY_SERVER_CONNECT | SSL_OP_IGNORE_UNEXPECTED_EOF |
                                       SSL_OP_PRIORITIZE_CHACHA | SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
    (void)SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    /* The chain is what the file says, not what could be built from the CA file in
     * each handshake. Retries of a write come from a queue that may have moved. */
    (void)SSL_CTX_set_mode(context, SSL_MODE_NO_AUTO_CHAIN | SSL_MODE_ENABLE_PARTIAL_WRITE |
                                        SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_RELEASE_BUFFERS);
    /* One read(2) takes a record's header and body, and what follows. */
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_security_level(context, 2);
    SSL_CTX_set_verify(context, role->verify, on_verify);
    return SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION) == 1 &&
           SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) == 1 &&
           SSL_CTX_set_num_tickets(context, 0) == 1 && SSL_CTX_set_max_early_data(context, 0) == 1 &&
           SSL_CTX_set1_groups_list(context, GROUPS) == 1 &&
           SSL_CTX_set_ciphersuites(context, CIPHERSUITES) == 1 &&
           SSL_CTX_set_cipher_list(context, CIPHERS_TLS12) == 1 &&
           SSL_CTX_set_purpose(context, role->peer_purpose) == 1;
}

static void context_free(SSL_CTX **context)
{
    SSL_CTX_free(*context);
}

static enum result make_context(const struct role *role, const struct channel_credentials *files,
                                SSL_CTX **context, struct failure *why)
{
    ERR_clear_error();
    SSL_CTX *made CLEANUP(context_free) = SSL_CTX_new(role->method());
    if (made == NULL || !set_policy(made, role))
        return failure_set_openssl(why, "cannot set up TLS for the key channel");
    enum result result = load_files(made, role, files, why);
    if (result != RESULT_OK)
        return result;
    *context = made;
    made = NULL;
    return RESULT_OK;
}

enum result channel_client_context(const struct channel_credentials *files, SSL_CTX **context,
                                   struct failure *why)
{
    return make_context(&CLIENT, files, context, why);
}

enum result channel_server_context(const struct channel_credentials *files, SSL_CTX **context,
                                   struct failure *why)
{
    return make_context(&SERVER, files, context, why);
}

/* ---- One connection. */

static bool expect_name(SSL *ssl, const char *name)
{
    unsigned char ip[sizeof(struct in6_addr)];
    if (inet_pton(AF_INET, name, ip) == 1 || inet_pton(AF_INET6, name, ip) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

static void connection_free(SSL **ssl)
{
    SSL_free(*ssl);
}

enum result channel_tls_new(SSL_CTX *context, int fd, const char *server_name, struct failure *verification,
                            SSL **ssl, struct failure *why)
{
    ERR_clear_error();
    SSL *made CLEANUP(connection_free) = SSL_new(context);
    if (made == NULL || SSL_set_fd(made, fd) != 1 || SSL_set_app_data(made, verification) != 1)
        return failure_set_openssl(why, "cannot set up a TLS connection");
    if (server_name == NULL) {
        SSL_set_accept_state(made);
    } else {
        /* An empty name would switch the check off. */
        if (server_name[0] == '\0' || !expect_name(made, server_name)) {
            ERR_clear_error();
            return failure_set(why, RESULT_CONFIG, "\"%s\" is not a server name that a certificate can prove",
                               server_name);
        }
        SSL_set_connect_state(made);
    }
    *ssl = made;
    made = NULL;
    return RESULT_OK;
}

static void on_message(int written, int version, int type, const void *data, size_t size, SSL *ssl,
                       void *argument)
{
    unsigned *chatter = argument;
    (void)version, (void)data, (void)size;
    if (written || type != SSL3_RT_HANDSHAKE || ++*chatter <= CHANNEL_TLS_CHATTER_MAX)
        return;
    SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
}

void channel_tls_watch_chatter(SSL *ssl, unsigned *chatter)
{
    SSL_set_msg_callback(ssl, on_message);
    SSL_set_msg_callback_arg(ssl, chatter);
}

/* ASN1_TIME_to_tm and timegm know every year that X.509 can
 * name; durations are computed from it later, in bounds. */
static time_t chain_valid_until(const SSL *ssl)
{
    time_t until = (time_t)INT64_MAX;
    STACK_OF(X509) *chain = SSL_get0_verified_chain(ssl);
    for (int i = 0; i < sk_X509_num(chain); i++) {
        struct tm end;
        if (ASN1_TIME_to_tm(X509_get0_notAfter(sk_X509_value(chain, i)), &end) != 1)
            return 0;
        time_t seconds = timegm(&end);
        if (seconds < until)
            until = seconds;
    }
    return until;
}

enum result channel_tls_peer(SSL *ssl, X509 **certificate, time_t *valid_until, struct failure *why)
{
    X509 *peer = SSL_get0_peer_certificate(ssl);
    if (peer == NULL || SSL_get_verify_result(ssl) != X509_V_OK || SSL_get0_verified_chain(ssl) == NULL)
        return failure_set(why, RESULT_PEER, "the peer proved no certificate");
    if (X509_up_ref(peer) != 1)
        return failure_set_openssl(why, "cannot keep the peer's certificate");
    *certificate = peer;
    *valid_until = chain_valid_until(ssl);
    return RESULT_OK;
}

/* ---- Why a call failed. */

/* RFC 8446 section 6.2: what a peer says that does not like our certificate. */
static bool alert_refuses_certificate(int alert)
{
    static const int ALERTS[] = {SSL_AD_BAD_CERTIFICATE,     SSL_AD_UNSUPPORTED_CERTIFICATE,
                                 SSL_AD_CERTIFICATE_REVOKED, SSL_AD_CERTIFICATE_EXPIRED,
                                 SSL_AD_CERTIFICATE_UNKNOWN, SSL_AD_UNKNOWN_CA,
                                 SSL_AD_ACCESS_DENIED,       SSL_AD_CERTIFICATE_REQUIRED};
    for (size_t i = 0; i < sizeof ALERTS / sizeof *ALERTS; i++) {
        if (ALERTS[i] == alert)
            return true;
    }
    return false;
}

/* libssl keeps a received alert as the reason SSL_AD_REASON_OFFSET + alert. */
static enum result alert_failure(int alert, const char *doing, struct failure *why)
{
    const char *name = SSL_alert_desc_string_long(alert);
    if (alert_refuses_certificate(alert))
        return failure_set(why, RESULT_PEER,
                           "the peer refuses our certificate: it sent the alert \"%s\" (%d)", name, alert);
    return failure_set(why, RESULT_PEER, "the peer sent the alert \"%s\" (%d) during %s", name, alert, doing);
}

static enum result library_failure(const char *doing, struct failure *why)
{
    unsigned long code = ERR_peek_last_error();
    int reason = ERR_GET_REASON(code);
    if (ERR_GET_LIB(code) != ERR_LIB_SSL || reason == ERR_R_MALLOC_FAILURE)
        return failure_set_openssl(why, "%s", doing);
    if (reason >= SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + UINT8_MAX)
        return alert_failure(reason - SSL_AD_REASON_OFFSET, doing, why);
    if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return failure_set(why, RESULT_PEER, "the peer closed the connection without close_notify during %s",
                           doing);
    if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
        return failure_set(why, RESULT_PEER, "the peer sent no certificate");
    (void)failure_set_openssl(why, "TLS error during %s", doing);
    if (why != NULL)
        why->kind = RESULT_PROTOCOL;
    return RESULT_PROTOCOL;
}

enum channel_cause channel_tls_cause(int error)
{
    unsigned long code = ERR_peek_last_error();
    int reason = ERR_GET_REASON(code);
    if (error != SSL_ERROR_SSL)
        return CHANNEL_CAUSE_CLOSED;
    if (ERR_GET_LIB(code) != ERR_LIB_SSL || reason == ERR_R_MALLOC_FAILURE)
        return CHANNEL_CAUSE_OTHER;
    if (reason >= SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + UINT8_MAX)
        return CHANNEL_CAUSE_ALERT;
    if (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return CHANNEL_CAUSE_CLOSED;
    return reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE ? CHANNEL_CAUSE_NO_CERTIFICATE
                                                             : CHANNEL_CAUSE_PROTOCOL;
}

enum result channel_tls_failure(int error, int system_error, const char *doing, struct failure *why)
{
    enum result result = RESULT_PEER;
    if (error == SSL_ERROR_ZERO_RETURN)
        result = failure_set(why, RESULT_OK, "the peer closed the connection");
    else if (error == SSL_ERROR_SSL)
        result = library_failure(doing, why);
    else if (system_error == 0)
        result = failure_set(why, RESULT_PEER,
                             "the peer closed the connection without close_notify during %s", doing);
    else
        result = failure_set(why, RESULT_PEER, "the connection broke during %s: %s", doing,
                             strerror(system_error));
    ERR_clear_error();
    return result;
}
