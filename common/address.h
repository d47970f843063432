/* Socket addresses: IPv4, IPv6 and Unix sockets, parsed from and formatted as the configuration writes them.
 */
#ifndef KEYLESS_COMMON_ADDRESS_H
#define KEYLESS_COMMON_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "common/bytes.h"
#include "common/result.h"

struct address {
    struct sockaddr_storage storage;
    socklen_t size; /* 0: no address */
};

/* "unix:" + a full sun_path, or "[" IPv6 "%" scope "]:65535", with the terminating zero. */
#define ADDRESS_TEXT_SIZE 128

/* Numeric only: "192.0.2.1:443", "[2001:db8::1]:443", "unix:/run/app.sock". RESULT_CONFIG names what was
 * expected. */
MUST_CHECK enum result address_parse(const char *text, struct address *address, struct failure *why);

/*
 * The same, and host names ("keys1.example:2407"), which are looked up with getaddrinfo and so block: only
 * for a tool that has nothing else to do. The first address found is taken.
 */
MUST_CHECK enum result address_resolve(const char *text, struct address *address, struct failure *why);

/* A host's name, with the terminating zero (RFC 1035 section 2.3.4). */
#define ADDRESS_HOST_SIZE 256

/* "keys1.example:2407", which nobody looks up here. False: no host name and port; an address in digits is
 * none. */
MUST_CHECK bool address_split_host(const char *text, char host[static ADDRESS_HOST_SIZE], uint16_t *port);

/* As the configuration writes it; "unix:" for an unnamed Unix peer, "-" for none. Returns text. */
const char *address_format(const struct address *address, char text[static ADDRESS_TEXT_SIZE]);

/* Of an IP in network order, 4 or 16 octets; false: of another size. */
MUST_CHECK bool address_from_ip(struct address *address, struct bytes ip, uint16_t port);
/* Nothing happens to a Unix socket's. */
void address_set_port(struct address *address, uint16_t port);

bool address_equal(const struct address *a, const struct address *b);
bool address_is_unix(const struct address *address);
/* The IP in network order (4 or 16 octets, an IPv4-mapped one as 4); size 0 for a Unix socket. Borrows. */
void address_ip(const struct address *address, struct bytes *ip);

#endif
