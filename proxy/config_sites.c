#include "proxy/config_sites.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/certificate_names.h"
#include "proxy/config_client_auth.h"
#include "proxy/config_ocsp.h"
#include "proxy/config_settle.h"
#include "proxy/config_tls.h"

/* ---- certificates */

static const struct config_row CERTIFICATE_ROWS[] = {
    {
        .path = "dir",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct proxy_certificate_source, dir),
        .help = "A directory: every *.pem and *.crt in it is one chain, leaf first.",
    },
    {
        .path = "file",
        .type = &CONFIG_PATH,
        CONFIG_AT(struct proxy_certificate_source, file),
        .help = "One chain, leaf first.",
    },
};

static enum result check_certificate_source(const struct config_scope *scope, void *object,
                                            struct failure *why)
{
    const struct proxy_certificate_source *source = object;
    if (source->dir == NULL && source->file == NULL)
        return config_refuse(scope, why, "dir", "expected either dir or file");
    if (source->dir != NULL && source->file != NULL)
        return config_refuse(scope, why, "file", "expected either dir or file, not both");
    return RESULT_OK;
}

const struct config_table PROXY_CERTIFICATES_TABLE = {
    CONFIG_ROWS(CERTIFICATE_ROWS),
    .size = sizeof(struct proxy_certificate_source),
    CONFIG_POSITION(struct proxy_certificate_source, where),
    .check = check_certificate_source,
};

/* ---- sites */

static enum result check_site_name(const struct config_row *row, const void *value, struct failure *why)
{
    char normal[DNS_NAME_MAX + 1];
    const char *name = *(char *const *)value;
    (void)row;
    if (dns_name_normalise(bytes_of(name, strlen(name)), true, normal))
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG,
                       "got \"%.253s\", expected a host name, or one whose first label is a * alone", name);
}

static const struct config_row SITE_ROWS[] = {
    {
        .path = "names",
        .type = &CONFIG_TEXT,
        CONFIG_LIST_AT(struct proxy_site, names, name_count),
        .required = true,
        .max = 255,
        .check = check_site_name,
        .expected = "host names such as [www.example.com, \"*.example.com\"]",
        .help = "The names (SNI) that are this site. A * stands for one label, the first; an exact name goes "
                "before it. A name is in one site at most.",
    },
    {
        .path = "certificates",
        .table = &PROXY_CERTIFICATES_TABLE,
        CONFIG_LIST_AT(struct proxy_site, certificates, certificate_count),
        .most = 1024,
        .expected = "a list such as [{file: site.pem}]",
        .help = "Chains that serve this site's names alone, each of them at least one. They go before those "
                "of the section certificates, which serve the names that these leave.",
    },
    {
        .path = "policy",
        .type = &CONFIG_CHOICE,
        CONFIG_AT(struct proxy_site, policy),
        .words = PROXY_POLICY_WORDS,
        .help = "A policy by name, whole, in place of what the section tls says. Without it: the latter.",
    },
    {
        .path = "alpn",
        .type = &CONFIG_TEXT,
        CONFIG_LIST_AT(struct proxy_site, alpn, alpn_count),
        .max = 255,
        .most = 64,
        .expected = "a protocol's name of 1 to 255 octets",
        .help = "In place of tls.alpn. []: ALPN is not negotiated.",
    },
    {
        .path = "backend",
        .type = &CONFIG_TEXT,
        CONFIG_AT(struct proxy_site, backend),
        .max = 64,
        .expected = "the name of a backend",
        .help = "In place of the listener's.",
    },
    PROXY_CLIENT_AUTH_ROWS("", struct proxy_site, client_auth),
    PROXY_OCSP_ROWS("", struct proxy_site, ocsp),
};

/* An SNI is compared in the one form that names have. */
static enum result settle_site(const struct config_scope *scope, void *object, struct failure *why)
{
    struct proxy_site *site = object;
    for (size_t i = 0; i < site->name_count; i++) {
        char normal[DNS_NAME_MAX + 1];
        (void)dns_name_normalise(bytes_of(site->names[i], strlen(site->names[i])), true, normal);
        memcpy(site->names[i], normal, strlen(normal) + 1); /* never longer than what was given */
    }
    enum result result = proxy_config_check_client_auth(scope, "", &site->client_auth, why);
    return result == RESULT_OK ? proxy_config_check_ocsp(scope, "", &site->ocsp, why) : result;
}

const struct config_table PROXY_SITES_TABLE = {
    CONFIG_ROWS(SITE_ROWS),
    .size = sizeof(struct proxy_site),
    CONFIG_POSITION(struct proxy_site, where),
    .check = settle_site,
};

/* ---- What sites take from the rest. */

static bool copy_list(char *const *from, size_t count, char ***to, size_t *to_count)
{
    if (count == 0)
        return true;
    *to = calloc(count, sizeof(char *));
    for (size_t i = 0; *to != NULL && i < count; i++) {
        (*to)[i] = strdup(from[i]);
        if ((*to)[i] == NULL)
            return false;
        *to_count = i + 1;
    }
    return *to != NULL;
}

static enum result inherit(const struct config_scope *scope, struct proxy_config *config, size_t i,
                           struct failure *why)
{
    struct proxy_site *site = &config->sites[i];
    char path[64];
    (void)snprintf(path, sizeof path, "sites[%zu].alpn", i);
    if (!config_given(scope, path) &&
        !copy_list(config->tls.alpn, config->tls.alpn_count, &site->alpn, &site->alpn_count))
        return failure_set(why, RESULT_SYSTEM, "out of memory");
    (void)snprintf(path, sizeof path, "sites[%zu].client_auth", i);
    if (!config_given(scope, path) &&
        !proxy_config_copy_client_auth(&config->tls.client_auth, &site->client_auth))
        return failure_set(why, RESULT_SYSTEM, "out of memory");
    (void)snprintf(path, sizeof path, "sites[%zu].ocsp", i);
    if (!config_given(scope, path) && !proxy_config_copy_ocsp(&config->tls.ocsp, &site->ocsp))
        return failure_set(why, RESULT_SYSTEM, "out of memory");
    (void)snprintf(path, sizeof path, "sites[%zu].backend", i);
    return site->backend != NULL ? proxy_config_check_backend(scope, config, path, site->backend, why)
                                 : RESULT_OK;
}

static enum result check_certificates(const struct config_scope *scope, const struct proxy_config *config,
                                      struct failure *why)
{
    size_t count = config->certificate_count;
    for (size_t i = 0; i < config->site_count; i++)
        count += config->sites[i].certificate_count;
    return count > 0 ? RESULT_OK
                     : config_refuse(scope, why, "certificates", "expected a list such as [{dir: sites}]");
}

/* ---- The index. */

static int compare_names(const void *a, const void *b)
{
    const struct proxy_site_name *one = a, *other = b;
    int order = strcmp(one->name, other->name);
    if (order != 0)
        return order;
    if (one->site != other->site)
        return one->site > other->site ? 1 : -1;
    return one->index > other->index ? 1 : -1;
}

static enum result refuse_twice(const struct config_scope *scope, const struct proxy_config *config,
                                const struct proxy_site_name *first, const struct proxy_site_name *second,
                                struct failure *why)
{
    char path[96];
    (void)snprintf(path, sizeof path, "sites[%zu].names[%zu]", (size_t)(second->site - config->sites),
                   second->index);
    return config_refuse(scope, why, path, "expected each name once; it is also in sites[%zu]",
                         (size_t)(first->site - config->sites));
}

static void collect_names(const struct proxy_config *config, struct proxy_site_name *names)
{
    for (size_t i = 0; i < config->site_count; i++)
        for (size_t k = 0; k < config->sites[i].name_count; k++)
            *names++ = (struct proxy_site_name){config->sites[i].names[k], &config->sites[i], k};
}

static enum result index_names(const struct config_scope *scope, struct proxy_config *config,
                               struct failure *why)
{
    size_t count = 0;
    for (size_t i = 0; i < config->site_count; i++)
        count += config->sites[i].name_count;
    struct proxy_site_name *names = calloc(count > 0 ? count : 1, sizeof *names);
    if (names == NULL)
        return failure_set(why, RESULT_SYSTEM, "out of memory");
    collect_names(config, names);
    qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(names[i - 1].name, names[i].name) != 0)
            continue;
        enum result result = refuse_twice(scope, config, &names[i - 1], &names[i], why);
        free(names);
        return result;
    }
    config->site_names = names;
    config->site_name_count = count;
    return RESULT_OK;
}

enum result proxy_config_settle_sites(const struct config_scope *scope, struct proxy_config *config,
                                      struct failure *why)
{
    enum result result = check_certificates(scope, config, why);
    for (size_t i = 0; result == RESULT_OK && i < config->site_count; i++)
        result = inherit(scope, config, i, why);
    return result == RESULT_OK ? index_names(scope, config, why) : result;
}

/* ---- Finding. */

static int compare_name(const void *name, const void *entry)
{
    return strcmp(name, ((const struct proxy_site_name *)entry)->name);
}

static const struct proxy_site *find(const struct proxy_config *config, const char *name)
{
    const struct proxy_site_name *found =
        bsearch(name, config->site_names, config->site_name_count, sizeof *config->site_names, compare_name);
    return found != NULL ? found->site : NULL;
}

const struct proxy_site *proxy_config_site(const struct proxy_config *config, struct bytes sni)
{
    char name[DNS_NAME_MAX + 1];
    if (config->site_name_count == 0 || sni.data == NULL || !dns_name_normalise(sni, false, name))
        return NULL;
    const struct proxy_site *site = find(config, name);
    char *parent = strchr(name, '.');
    if (site != NULL || parent == NULL)
        return site;
    *--parent = '*'; /* in place of the first label's last octet */
    return find(config, parent);
}
