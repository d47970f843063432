#include "proxy/handshake_state.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

/*
 * An SSL begins with the context of no site. Once the ClientHello has told the name, SSL_set_SSL_CTX gives it
 * the site's: that changes whatever libssl asks its context for (suites, schemes, callbacks), but not what
 * SSL_new has copied from the first (versions, groups), which is told again. All of it stands before libssl
 * has looked at anything in the hello.
 */

/* ---- Made once. */

/* What was agreed on under other settings is not gone on with. */
static bool policy_mark(struct handshake_policy *policy)
{
    const struct tls_policy *tls = &policy->tls;
    const char *const lists[] = {tls->groups, tls->ciphersuites, tls->ciphers, tls->schemes};
    EVP_MD_CTX *digest = EVP_MD_CTX_new();
    bool marked = digest != NULL && EVP_DigestInit_ex2(digest, EVP_sha256(), NULL) == 1 &&
                  EVP_DigestUpdate(digest, &tls->min_version, sizeof tls->min_version) == 1;
    for (size_t i = 0; i < sizeof lists / sizeof *lists && marked; i++)
        marked = EVP_DigestUpdate(digest, lists[i], strlen(lists[i]) + 1) == 1;
    if (policy->client_auth != NULL)
        marked = marked && EVP_DigestUpdate(digest, policy->client_auth->mark, CLIENT_AUTH_MARK_SIZE) == 1;
    marked = marked && EVP_DigestFinal_ex(digest, policy->mark, NULL) == 1;
    EVP_MD_CTX_free(digest);
    return marked;
}

static enum result policy_make(const struct handshake_context *context, struct handshake_policy *policy,
                               struct failure *why)
{
    policy->tls = tls_policy_of(context->config, policy->name);
    policy->schemes = client_hello_schemes_named(policy->tls.schemes);
    enum result result = tls_policy_context(&policy->tls, &policy->ssl_context, why);
    if (result != RESULT_OK)
        return result;
    handshake_choices_set(policy->ssl_context);
    handshake_staples_set(policy->ssl_context);
    if (!handshake_clients_set(policy->ssl_context, policy->client_auth))
        return failure_set_openssl(why, "cannot set up client certificates");
    return policy_mark(policy) ? RESULT_OK : failure_set_openssl(why, "cannot make a digest of a policy");
}

/* NULL: why says. */
static const struct handshake_policy *policy_of(struct handshake_context *context, enum proxy_policy name,
                                                const struct client_auth *auth, struct failure *why)
{
    for (size_t i = 0; i < context->policy_count; i++)
        if (context->policies[i].name == name && context->policies[i].client_auth == auth)
            return &context->policies[i];
    struct handshake_policy *policy = &context->policies[context->policy_count++];
    policy->name = name;
    policy->client_auth = auth;
    return policy_make(context, policy, why) == RESULT_OK ? policy : NULL;
}

static enum result site_make(struct handshake_context *context, const struct proxy_site *config,
                             struct handshake_site *site, struct failure *why)
{
    const struct proxy_config *all = context->config;
    const char *backend = config != NULL ? config->backend : NULL;
    const struct client_auth *auth = client_auths_find(
        context->client_auths, config != NULL ? &config->client_auth : &all->tls.client_auth);
    *site = (struct handshake_site){
        .config = config,
        .policy = policy_of(context, config != NULL ? config->policy : POLICY_CONFIGURED, auth, why),
        .alpn = config != NULL ? config->alpn : all->tls.alpn,
        .alpn_count = config != NULL ? config->alpn_count : all->tls.alpn_count,
        .backend = backend,
        .only_http11 = backend != NULL && proxy_backend_only_http11(proxy_config_backend(all, backend)),
    };
    return site->policy != NULL ? RESULT_OK : why->kind;
}

enum result handshake_sites_make(struct handshake_context *context, struct failure *why)
{
    size_t count = context->config->site_count + 1;
    context->policies = calloc(count, sizeof *context->policies);
    context->sites = calloc(count, sizeof *context->sites);
    if (context->policies == NULL || context->sites == NULL)
        return failure_set_errno(why, "sites");
    enum result result = site_make(context, NULL, &context->sites[0], why);
    for (size_t i = 1; result == RESULT_OK && i < count; i++)
        result = site_make(context, &context->config->sites[i - 1], &context->sites[i], why);
    return result;
}

void handshake_sites_free(struct handshake_context *context)
{
    for (size_t i = 0; i < context->policy_count; i++)
        SSL_CTX_free(context->policies[i].ssl_context);
    free(context->policies);
    free(context->sites);
}

/* ---- For a client. */

static bool policy_apply(const struct handshake_policy *policy, SSL *ssl)
{
    handshake_clients_ask(ssl, policy->client_auth);
    if (SSL_get_SSL_CTX(ssl) == policy->ssl_context)
        return true;
    return SSL_set_SSL_CTX(ssl, policy->ssl_context) != NULL &&
           SSL_set_min_proto_version(ssl, policy->tls.min_version) == 1 &&
           SSL_set1_groups_list(ssl, policy->tls.groups) == 1;
}

bool handshake_site_choose(struct handshake *handshake, SSL *ssl, struct bytes sni)
{
    const struct handshake_context *context = handshake->context;
    const struct proxy_site *config = proxy_config_site(context->config, sni);
    handshake->site = &context->sites[config != NULL ? config - context->config->sites + 1 : 0];
    handshake->facts.backend = handshake->site->backend;
    return policy_apply(handshake->site->policy, ssl);
}
