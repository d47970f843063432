#include "proxy/redirect_location.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "common/certificate_names.h"

#define HTTP       "http://"
#define PORT_MAX   5 /* digits */
#define HTTPS_PORT 443

/* ---- The host (RFC 9110 section 7.2: as in a URL's authority). */

/* Takes ":80", or ":" alone, from the end. */
static struct bytes without_port(struct bytes authority)
{
    size_t digits = 0;
    while (digits < authority.size && digits < PORT_MAX &&
           authority.data[authority.size - 1 - digits] >= '0' &&
           authority.data[authority.size - 1 - digits] <= '9')
        digits++;
    bool has_port = digits < authority.size && authority.data[authority.size - 1 - digits] == ':';
    return has_port ? bytes_of(authority.data, authority.size - 1 - digits) : authority;
}

static bool write_address(struct bytes host, char text[static DNS_NAME_MAX + 1])
{
    struct in6_addr address;
    char inner[INET6_ADDRSTRLEN];
    if (host.size < 4 || host.size - 2 >= sizeof inner || host.data[host.size - 1] != ']')
        return false;
    memcpy(inner, host.data + 1, host.size - 2);
    inner[host.size - 2] = '\0';
    if (strlen(inner) != host.size - 2 || inet_pton(AF_INET6, inner, &address) != 1)
        return false;
    return snprintf(text, DNS_NAME_MAX + 1, "[%s]", inner) > 0;
}

static bool write_host(struct bytes authority, char text[static DNS_NAME_MAX + 1])
{
    struct bytes host = without_port(authority);
    if (host.size > 0 && host.data[0] == '[')
        return write_address(host, text);
    return dns_name_normalise(host, false, text);
}

/* ---- The target (RFC 9112 section 3.2). */

static bool is_printable(struct bytes text)
{
    for (size_t i = 0; i < text.size; i++)
        if (text.data[i] <= ' ' || text.data[i] >= 0x7f || text.data[i] == '#')
            return false;
    return true;
}

/* "http://host/path": its host goes before the Host field. */
static bool split_absolute(struct bytes target, struct bytes *authority, struct bytes *path)
{
    size_t scheme = strlen(HTTP);
    if (target.size <= scheme || strncasecmp((const char *)target.data, HTTP, scheme) != 0)
        return false;
    struct bytes rest = bytes_of(target.data + scheme, target.size - scheme);
    size_t size = 0;
    while (size < rest.size && rest.data[size] != '/' && rest.data[size] != '?')
        size++;
    *authority = bytes_of(rest.data, size);
    *path = bytes_of(rest.data + size, rest.size - size);
    return true;
}

bool redirect_location(const struct http_request *request, unsigned port,
                       char location[static REDIRECT_LOCATION_SIZE])
{
    char host[DNS_NAME_MAX + 1], number[16] = "";
    struct bytes authority = request->host, path = request->target;
    bool origin = path.size > 0 && path.data[0] == '/';
    if (!origin && !split_absolute(request->target, &authority, &path))
        return false;
    if (authority.size == 0 || !is_printable(path) || !write_host(authority, host))
        return false;
    if (port != HTTPS_PORT)
        (void)snprintf(number, sizeof number, ":%u", port);
    const char *root = path.size > 0 && path.data[0] == '/' ? "" : "/"; /* of "http://host?query" */
    int size = snprintf(location, REDIRECT_LOCATION_SIZE, "https://%s%s%s%.*s", host, number, root,
                        (int)path.size, path.size > 0 ? (const char *)path.data : "");
    return size > 0 && size < REDIRECT_LOCATION_SIZE;
}
