/* A client's connection from within: shared by connection.c (its life, and when it is read from) and
 * connection_requests.c (what it asks and is answered). */
#ifndef KEYLESS_KEYSERVER_CONNECTION_STATE_H
#define KEYLESS_KEYSERVER_CONNECTION_STATE_H

#include "common/kssl.h"
#include "keyserver/connection.h"

enum connection_state { CONNECTION_HANDSHAKE, CONNECTION_SERVING, CONNECTION_ENDING };

/* A request that the signer has, or will have when it is its turn. */
struct request {
    struct signer_call call; /* first: the one is the other */
    struct connection *connection;
    TAILQ_ENTRY(request) all;
    TAILQ_ENTRY(request) turn; /* while it waits */
    uint64_t came, asked;      /* clock_now */
    uint32_t id;
    uint8_t opcode;
    enum key_type key_type; /* KEY_TYPE_NONE: it names none */
    enum key_class class;
    size_t octets;
    uint8_t ski[KEY_ID_SKI_SIZE];
    size_t ski_size;                   /* 0: it names no key */
    uint8_t name[KSSL_REQUEST_ID_MAX]; /* what the peer calls it */
    size_t name_size;
};

TAILQ_HEAD(request_list, request);

struct connection {
    struct connections *all;
    TAILQ_ENTRY(connection) entry;
    struct channel *channel;
    enum connection_state state;
    size_t client;       /* its entry in the configuration */
    size_t client_value; /* what its requests are counted under */
    bool said_hello;
    bool cut; /* requests of it were dropped because who may do what has changed */
    bool paused;
    struct request_list requests; /* in flight: asked of the signer or waiting */
    unsigned in_flight;
    size_t asked[KEY_CLASSES];
    struct request_list waiting[KEY_CLASSES];
    size_t held;       /* octets of requests in flight and their answers' */
    size_t counted;    /* octets that are in all->octets for this connection */
    uint64_t answered; /* requests, for the log */
};

static inline const char *connection_client_name(const struct connection *connection)
{
    return connection->all->config->clients[connection->client].match;
}

/* Before the first frame. */
void connection_expect_requests(struct connection *connection);

/* A frame of the client's: it is answered, or a request is made of it. */
void connection_handle(struct connection *connection, const struct kssl_header *header, struct bytes body);

/* Nobody waits for the answers any more. */
void connection_forget_requests(struct connection *connection);

/* Something that connections share has run out, or is there again: which of them are read from is to be
 * decided anew. */
void connections_review(struct connections *connections);

/* After anything has happened to the connection: reads on or waits, and ends what is to end. */
void connection_settle(struct connection *connection);

#endif
