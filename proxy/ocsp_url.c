#include "proxy/ocsp_url.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include <event2/http.h>

#define HTTP_PORT 80

/* An IPv6 address stands in brackets. */
static bool take_host(struct ocsp_url *url, const char *host)
{
    size_t size = strlen(host);
    if (size >= 2 && host[0] == '[' && host[size - 1] == ']') {
        host++;
        size -= 2;
    }
    int written = snprintf(url->host, sizeof url->host, "%.*s", (int)size, host);
    return written > 0 && (size_t)written < sizeof url->host;
}

static bool take_target(struct ocsp_url *url, const struct evhttp_uri *uri)
{
    const char *path = evhttp_uri_get_path(uri), *query = evhttp_uri_get_query(uri);
    int written =
        snprintf(url->target, sizeof url->target, "%s%s%s%s", path != NULL && path[0] == '/' ? "" : "/",
                 path != NULL ? path : "", query != NULL ? "?" : "", query != NULL ? query : "");
    return written > 0 && (size_t)written < sizeof url->target;
}

static enum result take(const struct evhttp_uri *uri, struct ocsp_url *url, struct failure *why)
{
    const char *scheme = evhttp_uri_get_scheme(uri), *host = evhttp_uri_get_host(uri);
    int port = evhttp_uri_get_port(uri);
    if (scheme == NULL || strcasecmp(scheme, "http") != 0)
        return failure_set(why, RESULT_CONFIG, "its scheme is not http");
    if (evhttp_uri_get_userinfo(uri) != NULL)
        return failure_set(why, RESULT_CONFIG, "it has a user's name");
    if (host == NULL || !take_host(url, host))
        return failure_set(why, RESULT_CONFIG, "it has no host, or one that is too long");
    if (port == 0 || port > UINT16_MAX)
        return failure_set(why, RESULT_CONFIG, "it has no good port");
    url->port = port > 0 ? (uint16_t)port : HTTP_PORT;
    return take_target(url, uri) ? RESULT_OK : failure_set(why, RESULT_CONFIG, "it is too long");
}

enum result ocsp_url_parse(const char *text, struct ocsp_url *url, struct failure *why)
{
    *url = (struct ocsp_url){0};
    struct evhttp_uri *uri = evhttp_uri_parse(text);
    if (uri == NULL)
        return failure_set(why, RESULT_CONFIG, "it does not parse");
    enum result result = take(uri, url, why);
    evhttp_uri_free(uri);
    return result;
}
