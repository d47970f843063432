#include "proxy/config_ocsp.h"

#include <stdio.h>
#include <string.h>

#include "proxy/ocsp_url.h"

const struct config_word PROXY_OCSP_WORDS[] = {
    {"off", OCSP_OFF}, {"file", OCSP_FILE}, {"fetch", OCSP_FETCH}, {NULL, 0}};

enum result proxy_config_check_responder(const struct config_row *row, const void *value, struct failure *why)
{
    const char *url = *(char *const *)value;
    struct failure reason;
    struct ocsp_url parsed;
    (void)row;
    if (ocsp_url_parse(url, &parsed, &reason) == RESULT_OK)
        return RESULT_OK;
    return failure_set(why, RESULT_CONFIG, "got \"%.128s\", expected a URL such as http://ocsp.example/: %s",
                       url, reason.text);
}

enum result proxy_config_check_ocsp(const struct config_scope *scope, const char *prefix,
                                    const struct proxy_ocsp *ocsp, struct failure *why)
{
    char path[64];
    (void)snprintf(path, sizeof path, "%socsp.source", prefix);
    bool given = config_given(scope, path);
    (void)snprintf(path, sizeof path, "%socsp.responder", prefix);
    if (ocsp->responder != NULL && (!given || ocsp->source == OCSP_FILE))
        return config_refuse(scope, why, path, "expected source: fetch (or off) beside it");
    return RESULT_OK;
}

bool proxy_config_copy_ocsp(const struct proxy_ocsp *from, struct proxy_ocsp *to)
{
    *to = *from;
    if (from->responder == NULL)
        return true;
    to->responder = strdup(from->responder);
    return to->responder != NULL;
}
