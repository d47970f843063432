/*
 * How many connections of each source address are in their handshake, and whether that is as many as may be.
 * Until then nobody knows who it is: without a bound one stranger could have all the places there are, for
 * limits.handshake_timeout at a time and again. Who has shown a certificate is no longer counted.
 *
 * An address is an IPv4 address or the first 64 bits of an IPv6 one, which a single machine has all to
 * itself. Unix sockets have none: their clients are let in by the file's permissions.
 */
#ifndef KEYLESS_KEYSERVER_ADDRESS_LOAD_H
#define KEYLESS_KEYSERVER_ADDRESS_LOAD_H

#include <stdbool.h>
#include <stddef.h>

#include "common/address.h"

struct address_load;

/* most: of one address; 0: any number. connections: how many there will be of all, about. NULL: no memory. */
struct address_load *address_load_new(size_t most, size_t connections);
void address_load_free(struct address_load *load);

/* One more of this address; false: it has as many as it may, and this one is not counted. */
bool address_load_enter(struct address_load *load, const struct address *peer);
/* One that was let in has ended, or shown who it is. */
void address_load_leave(struct address_load *load, const struct address *peer);

#endif
