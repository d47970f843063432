#include "proxy/config_client_auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/client_match.h"

const struct config_word PROXY_CLIENT_AUTH_WORDS[] = {
    {"off", CLIENT_AUTH_OFF}, {"request", CLIENT_AUTH_REQUEST}, {"require", CLIENT_AUTH_REQUIRE}, {NULL, 0}};

enum result proxy_config_check_client_name(const struct config_row *row, const void *value,
                                           struct failure *why)
{
    struct client_match match;
    (void)row;
    return client_match_parse_pattern(*(char *const *)value, &match, why);
}

static enum result refuse(const struct config_scope *scope, const char *prefix, const char *setting,
                          const char *expected, struct failure *why)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%sclient_auth.%s", prefix, setting);
    return config_refuse(scope, why, path, "expected %s", expected);
}

enum result proxy_config_check_client_auth(const struct config_scope *scope, const char *prefix,
                                           const struct proxy_client_auth *auth, struct failure *why)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%sclient_auth.mode", prefix);
    bool has_others = auth->ca != NULL || auth->crl != NULL || auth->name_count > 0;
    if (has_others && !config_given(scope, path))
        return refuse(scope, prefix, "mode", "request or require (or off) beside the other settings", why);
    if (auth->mode != CLIENT_AUTH_OFF && auth->ca == NULL)
        return refuse(scope, prefix, "ca", "the file of the CA that clients' certificates come from", why);
    return RESULT_OK;
}

static bool copy_text(const char *from, char **to)
{
    *to = from != NULL ? strdup(from) : NULL;
    return (from == NULL) == (*to == NULL);
}

bool proxy_config_copy_client_auth(const struct proxy_client_auth *from, struct proxy_client_auth *to)
{
    to->mode = from->mode;
    to->depth = from->depth;
    if (!copy_text(from->ca, &to->ca) || !copy_text(from->crl, &to->crl))
        return false;
    to->names = calloc(from->name_count > 0 ? from->name_count : 1, sizeof(char *));
    for (size_t i = 0; to->names != NULL && i < from->name_count; i++) {
        if (!copy_text(from->names[i], &to->names[i]))
            return false;
        to->name_count = i + 1;
    }
    return to->names != NULL;
}
