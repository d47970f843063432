#include "common/address.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/un.h>

#define UNIX_PREFIX      "unix:"
#define UNIX_PREFIX_SIZE (sizeof UNIX_PREFIX - 1)
#define UNIX_PATH_OFFSET offsetof(struct sockaddr_un, sun_path)
#define EXPECTED         "expected an address like 192.0.2.1:443, [2001:db8::1]:443 or unix:/path"
#define EXPECTED_OR_NAME EXPECTED ", or a host name and port"

/* sockaddr_storage may alias every sockaddr_*: copies in and out say so without a cast that the compiler must
 * believe. */
static void address_store(struct address *address, const void *from, size_t size)
{
    memset(address, 0, sizeof *address);
    memcpy(&address->storage, from, size);
    address->size = (socklen_t)size;
}

static struct sockaddr_in as_ipv4(const struct address *address)
{
    struct sockaddr_in ipv4;
    memcpy(&ipv4, &address->storage, sizeof ipv4);
    return ipv4;
}

static struct sockaddr_in6 as_ipv6(const struct address *address)
{
    struct sockaddr_in6 ipv6;
    memcpy(&ipv6, &address->storage, sizeof ipv6);
    return ipv6;
}

/* The path octets of a Unix address: those the kernel counted, without the terminating zero. An abstract
 * name keeps its leading zero. */
static struct bytes unix_path(const struct address *address)
{
    const char *path = (const char *)&address->storage + UNIX_PATH_OFFSET;
    size_t room = address->size > UNIX_PATH_OFFSET ? address->size - UNIX_PATH_OFFSET : 0;
    if (room > 0 && path[0] == '\0')
        return bytes_of(path, room);
    return bytes_of(path, strnlen(path, room));
}

/* 1 to 5 digits, no sign, no leading zero, at most 65535. */
static bool parse_port(const char *text, in_port_t *port)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 || digits > 5 || text[digits] != '\0' || (text[0] == '0' && digits > 1))
        return false;
    unsigned long value = strtoul(text, NULL, 10);
    if (value > 65535)
        return false;
    *port = htons((in_port_t)value);
    return true;
}

static bool parse_unix(const char *path, struct address *address)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof local.sun_path)
        return false;
    memcpy(local.sun_path, path, length + 1);
    address_store(address, &local, UNIX_PATH_OFFSET + length + 1);
    return true;
}

static bool parse_ipv4(const char *host, in_port_t port, struct address *address)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = port};
    if (inet_pton(AF_INET, host, &ipv4.sin_addr) != 1)
        return false;
    address_store(address, &ipv4, sizeof ipv4);
    return true;
}

/* The zone of a link-local address (RFC 4007 section 11): an interface's name or number. */
static bool parse_scope(const char *text, uint32_t *scope)
{
    if (text[0] != '\0' && strspn(text, "0123456789") == strlen(text) && strlen(text) < 10) {
        *scope = (uint32_t)strtoul(text, NULL, 10);
        return *scope != 0;
    }
    *scope = if_nametoindex(text);
    return *scope != 0;
}

static bool parse_ipv6(char *host, in_port_t port, struct address *address)
{
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = port};
    char *scope = strchr(host, '%');
    if (scope != NULL) {
        *scope++ = '\0';
        if (!parse_scope(scope, &ipv6.sin6_scope_id))
            return false;
    }
    if (inet_pton(AF_INET6, host, &ipv6.sin6_addr) != 1)
        return false;
    address_store(address, &ipv6, sizeof ipv6);
    return true;
}

/* Cuts "host:port" or "[host]:port" at the last colon. host gets what stands before it, without brackets. */
static bool split_port(const char *text, char host[static ADDRESS_HOST_SIZE], bool *bracketed,
                       in_port_t *port)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || !parse_port(colon + 1, port))
        return false;
    size_t length = (size_t)(colon - text);
    *bracketed = length >= 2 && text[0] == '[' && colon[-1] == ']';
    if (*bracketed) {
        text += 1;
        length -= 2;
    }
    if (length == 0 || length >= ADDRESS_HOST_SIZE)
        return false;
    memcpy(host, text, length);
    host[length] = '\0';
    return true;
}

static bool parse_numeric(const char *text, struct address *address)
{
    if (strncmp(text, UNIX_PREFIX, UNIX_PREFIX_SIZE) == 0)
        return parse_unix(text + UNIX_PREFIX_SIZE, address);
    char host[ADDRESS_HOST_SIZE];
    bool bracketed = false;
    in_port_t port = 0;
    if (!split_port(text, host, &bracketed, &port))
        return false;
    return bracketed ? parse_ipv6(host, port, address) : parse_ipv4(host, port, address);
}

/* Why text is no address, in the words that help most. */
static enum result refuse(const char *text, const char *expected, struct failure *why)
{
    struct sockaddr_un local;
    if (strncmp(text, UNIX_PREFIX, UNIX_PREFIX_SIZE) == 0 &&
        strlen(text) - UNIX_PREFIX_SIZE >= sizeof local.sun_path)
        return failure_set(why, RESULT_CONFIG, "\"%.200s\": a Unix socket's path has at most %zu octets",
                           text, sizeof local.sun_path - 1);
    return failure_set(why, RESULT_CONFIG, "\"%.200s\": %s", text, expected);
}

enum result address_parse(const char *text, struct address *address, struct failure *why)
{
    memset(address, 0, sizeof *address);
    return parse_numeric(text, address) ? RESULT_OK : refuse(text, EXPECTED, why);
}

/* Letters, digits, hyphens, underscores and dots, whose last label is no number: getaddrinfo would take
 * "127.1" and "0x7f000001" for addresses, which inet_pton above has refused. */
static bool plausible_host(const char *host)
{
    if (strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != strlen(host))
        return false;
    const char *dot = strrchr(host, '.');
    const char *label = dot != NULL && dot[1] != '\0' ? dot + 1 : host;
    bool number = strspn(label, "0123456789") == strlen(label);
    return host[0] != '.' && !number && strncmp(label, "0x", 2) != 0 && strncmp(label, "0X", 2) != 0;
}

static enum result resolve_failure(int error, const char *host, struct failure *why)
{
    if (error == EAI_SYSTEM)
        return failure_set_errno(why, "cannot look up \"%s\"", host);
    bool unknown = error == EAI_NONAME || error == EAI_NODATA || error == EAI_FAIL;
    return failure_set(why, unknown ? RESULT_CONFIG : RESULT_SYSTEM, "cannot look up \"%s\": %s", host,
                       gai_strerror(error));
}

bool address_split_host(const char *text, char host[static ADDRESS_HOST_SIZE], uint16_t *port)
{
    bool bracketed = false;
    in_port_t wire = 0;
    if (!split_port(text, host, &bracketed, &wire) || bracketed || !plausible_host(host))
        return false;
    *port = ntohs(wire);
    return true;
}

enum result address_resolve(const char *text, struct address *address, struct failure *why)
{
    memset(address, 0, sizeof *address);
    if (parse_numeric(text, address))
        return RESULT_OK;
    char host[ADDRESS_HOST_SIZE];
    uint16_t port;
    if (!address_split_host(text, host, &port))
        return refuse(text, EXPECTED_OR_NAME, why);

    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    int error = getaddrinfo(host, NULL, &hints, &found);
    if (error != 0)
        return resolve_failure(error, host, why);
    address_store(address, found->ai_addr, found->ai_addrlen);
    address_set_port(address, port);
    freeaddrinfo(found);
    return RESULT_OK;
}

static void format_unix(const struct address *address, char text[static ADDRESS_TEXT_SIZE])
{
    struct bytes path = unix_path(address);
    bool abstract = path.size > 0 && path.data[0] == '\0';
    (void)snprintf(text, ADDRESS_TEXT_SIZE, UNIX_PREFIX "%s%.*s", abstract ? "@" : "",
                   (int)(path.size - abstract), (const char *)path.data + abstract);
}

static void format_ipv4(const struct address *address, char text[static ADDRESS_TEXT_SIZE])
{
    struct sockaddr_in ipv4 = as_ipv4(address);
    char host[INET_ADDRSTRLEN] = "";
    (void)inet_ntop(AF_INET, &ipv4.sin_addr, host, sizeof host);
    (void)snprintf(text, ADDRESS_TEXT_SIZE, "%s:%u", host, (unsigned)ntohs(ipv4.sin_port));
}

/* A scope is written as its number: the name would cost a socket and a system call for each line logged. */
static void format_ipv6(const struct address *address, char text[static ADDRESS_TEXT_SIZE])
{
    struct sockaddr_in6 ipv6 = as_ipv6(address);
    char host[INET6_ADDRSTRLEN] = "";
    char scope[16] = "";
    (void)inet_ntop(AF_INET6, &ipv6.sin6_addr, host, sizeof host);
    if (ipv6.sin6_scope_id != 0)
        (void)snprintf(scope, sizeof scope, "%%%u", (unsigned)ipv6.sin6_scope_id);
    (void)snprintf(text, ADDRESS_TEXT_SIZE, "[%s%s]:%u", host, scope, (unsigned)ntohs(ipv6.sin6_port));
}

const char *address_format(const struct address *address, char text[static ADDRESS_TEXT_SIZE])
{
    sa_family_t family = address->size != 0 ? address->storage.ss_family : AF_UNSPEC;
    if (family == AF_UNIX)
        format_unix(address, text);
    else if (family == AF_INET)
        format_ipv4(address, text);
    else if (family == AF_INET6)
        format_ipv6(address, text);
    else
        (void)snprintf(text, ADDRESS_TEXT_SIZE, "-");
    return text;
}

static bool ipv4_equal(const struct address *a, const struct address *b)
{
    struct sockaddr_in left = as_ipv4(a);
    struct sockaddr_in right = as_ipv4(b);
    return left.sin_port == right.sin_port && left.sin_addr.s_addr == right.sin_addr.s_addr;
}

static bool ipv6_equal(const struct address *a, const struct address *b)
{
    struct sockaddr_in6 left = as_ipv6(a);
    struct sockaddr_in6 right = as_ipv6(b);
    return left.sin6_port == right.sin6_port && left.sin6_scope_id == right.sin6_scope_id &&
           memcmp(&left.sin6_addr, &right.sin6_addr, sizeof left.sin6_addr) == 0;
}

bool address_from_ip(struct address *address, struct bytes ip, uint16_t port)
{
    struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    *address = (struct address){0};
    if (ip.size == sizeof ipv4.sin_addr) {
        memcpy(&ipv4.sin_addr, ip.data, ip.size);
        address_store(address, &ipv4, sizeof ipv4);
    } else if (ip.size == sizeof ipv6.sin6_addr) {
        memcpy(&ipv6.sin6_addr, ip.data, ip.size);
        address_store(address, &ipv6, sizeof ipv6);
    }
    return address->size > 0;
}

void address_set_port(struct address *address, uint16_t port)
{
    struct sockaddr_in ipv4 = as_ipv4(address);
    struct sockaddr_in6 ipv6 = as_ipv6(address);
    ipv4.sin_port = ipv6.sin6_port = htons(port);
    if (address->storage.ss_family == AF_INET)
        address_store(address, &ipv4, sizeof ipv4);
    else if (address->storage.ss_family == AF_INET6)
        address_store(address, &ipv6, sizeof ipv6);
}

bool address_equal(const struct address *a, const struct address *b)
{
    if (a->size == 0 || b->size == 0)
        return a->size == b->size;
    if (a->storage.ss_family != b->storage.ss_family)
        return false;
    if (a->storage.ss_family == AF_UNIX)
        return bytes_equal(unix_path(a), unix_path(b));
    return a->storage.ss_family == AF_INET ? ipv4_equal(a, b) : ipv6_equal(a, b);
}

bool address_is_unix(const struct address *address)
{
    return address->size != 0 && address->storage.ss_family == AF_UNIX;
}

void address_ip(const struct address *address, struct bytes *ip)
{
    const uint8_t *at = (const uint8_t *)&address->storage;
    *ip = bytes_of(NULL, 0);
    if (address->size == 0)
        return;
    if (address->storage.ss_family == AF_INET) {
        *ip = bytes_of(at + offsetof(struct sockaddr_in, sin_addr), 4);
    } else if (address->storage.ss_family == AF_INET6) {
        struct sockaddr_in6 ipv6 = as_ipv6(address);
        at += offsetof(struct sockaddr_in6, sin6_addr);
        *ip = IN6_IS_ADDR_V4MAPPED(&ipv6.sin6_addr) ? bytes_of(at + 12, 4) : bytes_of(at, 16);
    }
}
