#include "proxy/client_auth.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509_vfy.h>

#include "common/channel_crl.h"
#include "common/client_match.h"

struct client_auths {
    struct log *log;
    size_t count;
    struct client_auth list[];
};

/* ---- Settings. */

static bool same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

static bool same_settings(const struct proxy_client_auth *a, const struct proxy_client_auth *b)
{
    if (a->mode != b->mode || a->depth != b->depth || a->name_count != b->name_count ||
        !same_text(a->ca, b->ca) || !same_text(a->crl, b->crl))
        return false;
    for (size_t i = 0; i < a->name_count; i++)
        if (strcmp(a->names[i], b->names[i]) != 0)
            return false;
    return true;
}

const struct client_auth *client_auths_find(const struct client_auths *auths,
                                            const struct proxy_client_auth *settings)
{
    if (settings->mode == CLIENT_AUTH_OFF || auths == NULL)
        return NULL;
    for (size_t i = 0; i < auths->count; i++)
        if (same_settings(auths->list[i].config, settings))
            return &auths->list[i];
    return NULL;
}

/* ---- Reading. */

static void context_free(SSL_CTX **context)
{
    SSL_CTX_free(*context);
}

static bool digest_add_cas(EVP_MD_CTX *digest, X509_STORE *store)
{
    const STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(store);
    bool added = true;
    for (int i = 0; added && i < sk_X509_OBJECT_num(objects); i++) {
        uint8_t one[EVP_MAX_MD_SIZE];
        unsigned size = 0;
        const X509 *ca = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        if (ca != NULL)
            added =
                X509_digest(ca, EVP_sha256(), one, &size) == 1 && EVP_DigestUpdate(digest, one, size) == 1;
    }
    return added;
}

static bool make_mark(struct client_auth *auth)
{
    const unsigned numbers[] = {auth->config->mode, auth->config->depth};
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool made = digest != NULL && EVP_DigestInit_ex2(digest, EVP_sha256(), NULL) == 1 &&
                EVP_DigestUpdate(digest, numbers, sizeof numbers) == 1 &&
                digest_add_cas(digest, auth->store) && EVP_DigestFinal_ex(digest, auth->mark, NULL) == 1;
    EVP_MD_CTX_free(digest);
    return made;
}

static enum result parse_names(struct client_auth *auth, struct failure *why)
{
    const struct proxy_client_auth *config = auth->config;
    auth->matches = calloc(config->name_count > 0 ? config->name_count : 1, sizeof *auth->matches);
    if (auth->matches == NULL)
        return failure_set_errno(why, "names of clients");
    for (size_t i = 0; i < config->name_count; i++)
        if (client_match_parse_pattern(config->names[i], &auth->matches[i], why) != RESULT_OK)
            return RESULT_CONFIG;
    return RESULT_OK;
}

/* What libssl says of a file is short: without a reason of its own it is that no certificate is in it. */
static enum result refuse_ca(const char *path, struct failure *why)
{
    ERR_clear_error();
    return failure_set(why, RESULT_CONFIG, "%s: cannot be read, or no certificate in PEM form is in it",
                       path);
}

static enum result auth_read(struct client_auth *auth, struct failure *why)
{
    const struct proxy_client_auth *config = auth->config;
    SSL_CTX *scratch CLEANUP(context_free) = SSL_CTX_new(TLS_server_method());
    if (scratch == NULL)
        return failure_set_openssl(why, "cannot make a TLS context");
    if (SSL_CTX_load_verify_file(scratch, config->ca) != 1)
        return refuse_ca(config->ca, why);
    auth->ca_names = SSL_load_client_CA_file(config->ca);
    if (auth->ca_names == NULL)
        return refuse_ca(config->ca, why);
    enum result result = config->crl != NULL
                             ? channel_crl_load(scratch, config->crl, config->ca, &auth->next_update, why)
                             : RESULT_OK;
    if (result != RESULT_OK)
        return result;
    auth->store = SSL_CTX_get_cert_store(scratch);
    if (X509_STORE_up_ref(auth->store) != 1) {
        auth->store = NULL;
        return failure_set_openssl(why, "%s", config->ca);
    }
    if (!make_mark(auth))
        return failure_set_openssl(why, "%s", config->ca);
    return parse_names(auth, why);
}

/* where: of the site, or of the file. */
static enum result add(struct client_auths *auths, const struct proxy_client_auth *settings,
                       const struct config_position *where, const char *key, struct failure *why)
{
    struct failure reason;
    if (settings->mode == CLIENT_AUTH_OFF || client_auths_find(auths, settings) != NULL)
        return RESULT_OK;
    struct client_auth *auth = &auths->list[auths->count++];
    auth->config = settings;
    enum result result = auth_read(auth, &reason);
    if (result == RESULT_OK && auth->next_update != 0 && auth->next_update <= time(NULL))
        log_warn(auths->log, "CRL out of date", log_text("file", settings->crl),
                 log_reason("every client certificate of its CAs is refused"));
    if (result == RESULT_OK)
        return RESULT_OK;
    (void)config_failure(why, where, key, "%s", reason.text);
    return result == RESULT_CRYPTO ? RESULT_CONFIG : result;
}

/* ---- What is protected in vain. */

static bool is_backend_of(const struct proxy_config *config, const struct proxy_site *site, const char *name)
{
    if (site != NULL && site->backend != NULL)
        return strcmp(site->backend, name) == 0;
    for (size_t i = 0; i < config->listen_count; i++)
        if (config->listen[i].backend != NULL && strcmp(config->listen[i].backend, name) == 0)
            return true;
    return false;
}

/* By some name, or by none, without a certificate. */
static bool is_open(const struct proxy_config *config, const char *backend)
{
    bool open = config->tls.client_auth.mode != CLIENT_AUTH_REQUIRE && is_backend_of(config, NULL, backend);
    for (size_t i = 0; !open && i < config->site_count; i++)
        open = config->sites[i].client_auth.mode != CLIENT_AUTH_REQUIRE &&
               is_backend_of(config, &config->sites[i], backend);
    return open;
}

/* HTTP names its host once more, and nobody compares that with the name of the handshake. */
static void warn_of_open_backends(const struct proxy_config *config, struct log *log)
{
    for (size_t i = 0; i < config->backend_count; i++) {
        const char *backend = config->backends[i].name;
        bool open = is_open(config, backend);
        for (size_t k = 0; open && k < config->site_count; k++) {
            const struct proxy_site *site = &config->sites[k];
            if (site->client_auth.mode == CLIENT_AUTH_REQUIRE && is_backend_of(config, site, backend))
                log_warn(log, "backend is reached without a certificate", log_text("backend", backend),
                         log_text("site", site->names[0]),
                         log_reason("the site requires client certificates, but others that do not have the "
                                    "same backend"));
        }
    }
}

enum result client_auths_read(const struct proxy_config *config, struct log *log, struct client_auths **auths,
                              struct failure *why)
{
    const struct config_position where = {.file = config->file};
    struct client_auths *made = calloc(1, sizeof *made + (config->site_count + 1) * sizeof *made->list);
    *auths = NULL;
    if (made == NULL)
        return failure_set_errno(why, "client certificates");
    made->log = log;
    enum result result = add(made, &config->tls.client_auth, &where, "tls.client_auth", why);
    for (size_t i = 0; result == RESULT_OK && i < config->site_count; i++)
        result = add(made, &config->sites[i].client_auth, &config->sites[i].where, "sites.client_auth", why);
    if (result != RESULT_OK) {
        client_auths_free(made);
        return result;
    }
    warn_of_open_backends(config, log);
    *auths = made;
    return RESULT_OK;
}

void client_auths_free(struct client_auths *auths)
{
    for (size_t i = 0; auths != NULL && i < auths->count; i++) {
        struct client_auth *auth = &auths->list[i];
        X509_STORE_free(auth->store);
        sk_X509_NAME_pop_free(auth->ca_names, X509_NAME_free);
        free(auth->matches);
    }
    free(auths);
}

time_t client_auths_next_update(const struct client_auths *auths)
{
    time_t first = 0;
    for (size_t i = 0; i < auths->count; i++) {
        time_t next = auths->list[i].next_update;
        if (next != 0 && (first == 0 || next < first))
            first = next;
    }
    return first;
}

/* ---- Deciding. */

bool client_auth_allows(const struct client_auth *auth, X509 *leaf)
{
    size_t count = auth->config->name_count;
    for (size_t i = 0; i < count; i++)
        if (client_match_fits(&auth->matches[i], leaf))
            return true;
    return count == 0;
}

static bool is_in_time(const X509 *certificate)
{
    return X509_cmp_current_time(X509_get0_notBefore(certificate)) < 0 &&
           X509_cmp_current_time(X509_get0_notAfter(certificate)) > 0;
}

static bool is_in_force(const X509_CRL *crl)
{
    const ASN1_TIME *until = X509_CRL_get0_nextUpdate(crl);
    return X509_cmp_current_time(X509_CRL_get0_lastUpdate(crl)) < 0 &&
           (until == NULL || X509_cmp_current_time(until) > 0);
}

/* By its issuer's lists: there is one that is in force, and it is in none of them. */
static bool is_unrevoked(const struct client_auth *auth, X509 *certificate)
{
    const STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(auth->store);
    bool listed = false;
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        X509_CRL *crl = X509_OBJECT_get0_X509_CRL(sk_X509_OBJECT_value(objects, i));
        X509_REVOKED *entry = NULL;
        if (crl == NULL || X509_NAME_cmp(X509_CRL_get_issuer(crl), X509_get_issuer_name(certificate)) != 0)
            continue;
        if (!is_in_force(crl) || X509_CRL_get0_by_cert(crl, &entry, certificate) != 0)
            return false;
        listed = true;
    }
    return listed;
}

/* One of our CAs; NULL: none of this name. */
static X509 *issuer_of(const struct client_auth *auth, const X509 *certificate)
{
    const STACK_OF(X509_OBJECT) *objects = X509_STORE_get0_objects(auth->store);
    for (int i = 0; i < sk_X509_OBJECT_num(objects); i++) {
        X509 *ca = X509_OBJECT_get0_X509(sk_X509_OBJECT_value(objects, i));
        if (ca != NULL && X509_NAME_cmp(X509_get_subject_name(ca), X509_get_issuer_name(certificate)) == 0)
            return ca;
    }
    return NULL;
}

/* With lists each CA of the chain has one (channel_crl.h), so all of the chain is among ours. */
static bool is_chain_unrevoked(const struct client_auth *auth, X509 *leaf)
{
    X509 *certificate = leaf;
    for (unsigned i = 0; i <= auth->config->depth + 1; i++) {
        X509 *issuer = issuer_of(auth, certificate);
        if (issuer == NULL || !is_in_time(issuer) || !is_unrevoked(auth, certificate))
            return false;
        if (issuer == certificate)
            return true; /* the root, which has signed itself */
        certificate = issuer;
    }
    return false;
}

bool client_auth_still_good(const struct client_auth *auth, X509 *leaf)
{
    return is_in_time(leaf) && (auth->config->crl == NULL || is_chain_unrevoked(auth, leaf)) &&
           client_auth_allows(auth, leaf);
}
