/*
 * Names to addresses, for the helper: with the machine's name servers (c-ares: UDP, and TCP where an answer
 * is too long), /etc/hosts first. Both are read once, before the process is confined.
 */
#ifndef KEYLESS_PROXY_RESOLVER_H
#define KEYLESS_PROXY_RESOLVER_H

#include <stddef.h>
#include <stdint.h>

#include <event2/event.h>

#include "common/address.h"
#include "common/result.h"
#include "proxy/srv_answer.h"

/* Of one name; more are passed over. */
#define RESOLVER_ADDRESSES_MAX 16

struct resolver;
struct resolver_query;

MUST_CHECK enum result resolver_new(struct event_base *base, struct resolver **resolver, struct failure *why);
/* Queries that are pending are dropped. NULL is allowed. */
void resolver_free(struct resolver *resolver);

/* The addresses of a host, with the port in them, good for ttl seconds; none, and the reason: a fixed string.
 */
typedef void resolver_done(const struct address *addresses, size_t count, uint32_t ttl, const char *reason,
                           void *owner);
/* SRV records; NULL, and the reason. */
typedef void resolver_srv_done(const struct srv_answer *answer, const char *reason, void *owner);

/* host: a name, or an address in digits. done is called once, from the event loop and never from within.
 * NULL: no memory. */
struct resolver_query *resolver_find(struct resolver *resolver, const char *host, uint16_t port,
                                     resolver_done *done, void *owner);
/* The same for the SRV records of a name, which are asked for as they are: no search list, no /etc/hosts. */
struct resolver_query *resolver_find_srv(struct resolver *resolver, const char *name, resolver_srv_done *done,
                                         void *owner);
/* done is not called any more. NULL is allowed. */
void resolver_cancel(struct resolver_query *query);

#endif
