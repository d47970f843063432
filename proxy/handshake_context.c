#include "proxy/handshake_state.h"

#include <stdlib.h>

#include <openssl/async.h>

#include "proxy/client_bio.h"

/* Fibres made in advance; more are made when they are needed. */
#define FIBRES_AT_FIRST 16
/* Chains that are kept ready: some 35 MB if so many are served. */
#define CHAINS_READY_MAX 2048

/* One for each signature that may be waited for (key_client_full), and one for the handshake that runs: it
 * may need no signature. */
static enum result make_fibres(struct handshake_context *context, struct failure *why)
{
    size_t most = (size_t)context->config->limits.handshakes + 1;
    if (!ASYNC_is_capable())
        return failure_set(why, RESULT_SYSTEM, "this OpenSSL was built without fibres (ASYNC_JOB)");
    if (ASYNC_init_thread(most, most < FIBRES_AT_FIRST ? most : FIBRES_AT_FIRST) != 1)
        return failure_set_openssl(why, "cannot make fibres");
    context->has_fibres = true;
    return RESULT_OK;
}

static enum result context_fill(struct handshake_context *context, struct failure *why)
{
    enum result result = remote_key_provider_load(NULL, &context->provider, why);
    if (result == RESULT_OK)
        result = handshake_sites_make(context, why);
    if (result == RESULT_OK)
        result = make_fibres(context, why);
    if (result != RESULT_OK)
        return result;
    if (!handshake_tickets_set(context))
        return failure_set_openssl(why, "cannot set up session tickets");
    context->chains = ready_chains_new(CHAINS_READY_MAX, &context->signer, context->staples);
    if (context->chains == NULL)
        return failure_set_errno(why, "chains");
    context->bio_method = client_bio_method();
    return context->bio_method != NULL ? RESULT_OK : failure_set_openssl(why, "cannot make a BIO method");
}

enum result handshake_context_new(const struct handshake_settings *settings,
                                  struct handshake_context **context, struct failure *why)
{
    *context = NULL;
    struct handshake_context *made = calloc(1, sizeof *made);
    if (made == NULL)
        return failure_set_errno(why, "handshakes");
    made->config = settings->config;
    made->certificates = settings->certificates;
    made->client_auths = settings->client_auths;
    made->staples = settings->staples;
    made->log = settings->log;
    made->metrics = settings->metrics;
    made->signer.client = settings->client;
    made->tickets = settings->tickets;
    enum result result = context_fill(made, why);
    if (result != RESULT_OK) {
        handshake_context_free(made);
        return result;
    }
    *context = made;
    return RESULT_OK;
}

void handshake_context_free(struct handshake_context *context)
{
    if (context == NULL)
        return;
    if (context->has_fibres)
        ASYNC_cleanup_thread();
    handshake_sites_free(context);
    EVP_CIPHER_free(context->aes128);
    EVP_CIPHER_free(context->aes256);
    ready_chains_free(context->chains);
    BIO_meth_free(context->bio_method);
    if (context->provider != NULL)
        (void)OSSL_PROVIDER_unload(context->provider);
    free(context);
}
