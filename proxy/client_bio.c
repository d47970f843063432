#include "proxy/client_bio.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include <openssl/crypto.h>
#include <openssl/ssl3.h>

/* One record, and what libssl may have to say besides: answers to KeyUpdates, an alert. */
#define HELD_MAX (SSL3_RT_MAX_PACKET_SIZE + 2048)

struct client {
    int fd;
    BIO *flight; /* libssl's buffer above us, in a handshake; else NULL */
    bool closed, broken, exceeded, holding, paused;
    uint8_t alert;  /* that the next one in the clear is to be; 0: as libssl has it */
    size_t allowed; /* to be read */
    uint8_t *held;  /* HELD_MAX octets while any are held, else NULL */
    size_t start, end;
};

static bool is_transient(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK || error == EINTR;
}

/* As BIO_read has it: 1, 0 at the end, -1 when it failed or is to be tried again. */
static int client_read(BIO *bio, char *into, size_t size, size_t *done)
{
    struct client *client = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    *done = 0;
    if (client->paused) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (client->allowed == 0) {
        client->exceeded = true;
        return -1;
    }
    ssize_t got = recv(client->fd, into, size < client->allowed ? size : client->allowed, 0);
    if (got > 0) {
        *done = (size_t)got;
        client->allowed -= client->allowed != SIZE_MAX ? *done : 0;
        return 1;
    }
    if (got == 0) {
        client->closed = true;
        return 0;
    }
    if (is_transient(errno))
        BIO_set_retry_read(bio);
    else
        client->broken = true;
    return -1;
}

/* What the socket takes; 0: nothing now, -1: it is broken. */
static ssize_t socket_take(struct client *client, const void *data, size_t size)
{
    ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL);
    if (sent >= 0)
        return sent;
    if (is_transient(errno))
        return 0;
    client->broken = true;
    return -1;
}

static size_t hold(struct client *client, const char *data, size_t size)
{
    if (!client->holding || size == 0 || (client->held == NULL && (client->held = malloc(HELD_MAX)) == NULL))
        return 0;
    size_t room = HELD_MAX - client->end;
    size = size < room ? size : room;
    memcpy(client->held + client->end, data, size);
    client->end += size;
    return size;
}

/* An alert's record (RFC 5246 section 6.2.1), level and number, by itself. */
#define ALERT_RECORD_SIZE 7

static bool is_alert(const char *data, size_t size)
{
    return size == ALERT_RECORD_SIZE && data[0] == SSL3_RT_ALERT && data[3] == 0 && data[4] == 2;
}

static int client_write(BIO *bio, const char *data, size_t size, size_t *done)
{
    struct client *client = BIO_get_data(bio);
    char alert[ALERT_RECORD_SIZE];
    BIO_clear_retry_flags(bio);
    if (client->alert != 0 && is_alert(data, size)) {
        memcpy(alert, data, sizeof alert);
        alert[ALERT_RECORD_SIZE - 1] = (char)client->alert;
        data = alert;
    }
    ssize_t sent = client->held == NULL ? socket_take(client, data, size) : 0;
    *done = 0;
    if (sent < 0)
        return -1;
    *done = (size_t)sent + hold(client, data + sent, size - (size_t)sent);
    if (*done > 0)
        return 1;
    BIO_set_retry_write(bio);
    return -1;
}

static long client_control(BIO *bio, int command, long number, void *pointer)
{
    struct client *client = BIO_get_data(bio);
    (void)number;
    switch (command) {
    case BIO_CTRL_PUSH: /* what was pushed over us says so, and gives itself */
        client->flight = pointer;
        return 1;
    case BIO_CTRL_POP:
        client->flight = NULL;
        return 1;
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return client->closed; /* not a reset: that must never pass for an end */
    case BIO_C_GET_FD:
        if (pointer != NULL)
            *(int *)pointer = client->fd;
        return client->fd;
    default:
        return 0;
    }
}

static int client_destroy(BIO *bio)
{
    struct client *client = BIO_get_data(bio);
    if (client != NULL)
        free(client->held);
    OPENSSL_free(client);
    return 1;
}

BIO_METHOD *client_bio_method(void)
{
    int type = BIO_get_new_index();
    BIO_METHOD *method =
        type < 0 ? NULL : BIO_meth_new(type | BIO_TYPE_SOURCE_SINK | BIO_TYPE_DESCRIPTOR, "client");
    if (method != NULL &&
        (!BIO_meth_set_read_ex(method, client_read) || !BIO_meth_set_write_ex(method, client_write) ||
         !BIO_meth_set_ctrl(method, client_control) || !BIO_meth_set_destroy(method, client_destroy))) {
        BIO_meth_free(method);
        return NULL;
    }
    return method;
}

BIO *client_bio_new(const BIO_METHOD *method, int fd)
{
    BIO *bio = BIO_new(method);
    struct client *client = bio != NULL ? OPENSSL_zalloc(sizeof *client) : NULL;
    if (client == NULL) {
        BIO_free(bio);
        return NULL;
    }
    client->fd = fd;
    client->allowed = SIZE_MAX;
    BIO_set_data(bio, client);
    BIO_set_init(bio, 1);
    return bio;
}

bool client_bio_closed(BIO *bio)
{
    const struct client *client = BIO_get_data(bio);
    return client->closed;
}

bool client_bio_broken(BIO *bio)
{
    const struct client *client = BIO_get_data(bio);
    return client->broken;
}

void client_bio_allow(BIO *bio, size_t octets)
{
    struct client *client = BIO_get_data(bio);
    client->allowed = octets;
}

void client_bio_pause(BIO *bio, bool pause)
{
    struct client *client = BIO_get_data(bio);
    client->paused = pause;
}

void client_bio_replace_alert(BIO *bio, uint8_t alert)
{
    struct client *client = BIO_get_data(bio);
    client->alert = alert;
}

bool client_bio_exceeded(BIO *bio)
{
    const struct client *client = BIO_get_data(bio);
    return client->exceeded;
}

bool client_bio_flush_flight(BIO *bio)
{
    const struct client *client = BIO_get_data(bio);
    if (client->flight == NULL || BIO_wpending(client->flight) <= 0)
        return false;
    (void)BIO_flush(client->flight);
    return true;
}

void client_bio_hold(BIO *bio)
{
    struct client *client = BIO_get_data(bio);
    client->holding = true;
}

bool client_bio_holds(BIO *bio)
{
    const struct client *client = BIO_get_data(bio);
    return client->held != NULL;
}

bool client_bio_flush(BIO *bio)
{
    struct client *client = BIO_get_data(bio);
    ssize_t sent = 1;
    while (client->start < client->end && sent > 0) {
        sent = socket_take(client, client->held + client->start, client->end - client->start);
        client->start += sent > 0 ? (size_t)sent : 0;
    }
    if (client->start == client->end) {
        free(client->held);
        client->held = NULL;
        client->start = client->end = 0;
    }
    return sent >= 0;
}
