/*
 * The key servers that are configured by name, in one worker: each address that a name has is a member of the
 * pool with a channel of its own, which comes and goes with the address.
 *
 * An address that is gone is used on until the key server is reached at another one, or its channel is lost;
 * then what it has been asked is answered, and it is closed.
 */
#ifndef KEYLESS_PROXY_KEY_MEMBERS_H
#define KEYLESS_PROXY_KEY_MEMBERS_H

#include "proxy/endpoints.h"
#include "proxy/key_client.h"

/* Members there may be of one name, while the pool has room for them. */
#define KEY_MEMBERS_MOST 8

/* How many of each name: all get the same share of what the others leave. */
size_t key_members_most(const struct proxy_config *config);

struct key_server;
/* Its channel begins to connect. */
MUST_CHECK enum result key_member_connect(struct key_client *client, struct key_server *server,
                                          struct failure *why);

/* From now on the client follows what is found. Both are borrowed; places: one for each key server. Without
 * it there are only those that need no name. */
void key_client_follow(struct key_client *client, const struct endpoints *endpoints, const size_t *places);
/* To be called now and then: looks whether addresses have changed. */
void key_client_tick(struct key_client *client);

#endif
