/* libssl's way to a client's socket. It remembers how the client went away, which libssl's errors do not
 * tell, bounds what is read, and never raises SIGPIPE. */
#ifndef KEYLESS_PROXY_CLIENT_BIO_H
#define KEYLESS_PROXY_CLIENT_BIO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <openssl/bio.h>

/* One for a process is enough; it must outlive its BIOs. Free with BIO_meth_free. */
BIO_METHOD *client_bio_method(void);
/* fd is borrowed and non-blocking. NULL: no memory. */
BIO *client_bio_new(const BIO_METHOD *method, int fd);

/* The client has closed its sending side in order, or the connection broke. */
bool client_bio_closed(BIO *bio);
bool client_bio_broken(BIO *bio);

/* So many octets more may be read; no bound without it. Reading then fails, and client_bio_exceeded tells
 * why. */
void client_bio_allow(BIO *bio, size_t octets);
bool client_bio_exceeded(BIO *bio);

/* While it is paused there is nothing to read yet: "try again", without a look at the socket. */
void client_bio_pause(BIO *bio, bool pause);

/* The next alert in the clear goes out with this number instead of libssl's. */
void client_bio_replace_alert(BIO *bio, uint8_t alert);

/* In a handshake libssl collects what it says in a buffer until its flight is complete. This sends what is in
 * there now, as far as the socket takes it; the rest stays for libssl. False: there was nothing. */
bool client_bio_flush_flight(BIO *bio);

/*
 * After the handshake: what the socket does not take of a record is held here and counts as written. libssl
 * must not be left with half a record: when it then has to answer a KeyUpdate (RFC 8446 section 4.6.3), it
 * breaks the connection off ("bad write retry"). Whoever writes flushes first, and writes no more while
 * anything is held.
 */
void client_bio_hold(BIO *bio);
bool client_bio_holds(BIO *bio);
/* Sends what the socket takes. false: it is broken. */
bool client_bio_flush(BIO *bio);

#endif
