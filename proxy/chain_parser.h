/*
 * Certificates in DER to what is known of them, fast enough for ten thousands: a leaf is read without making
 * a key of its public key, and an issuer is read once however many chains it stands in.
 */
#ifndef KEYLESS_PROXY_CHAIN_PARSER_H
#define KEYLESS_PROXY_CHAIN_PARSER_H

#include <openssl/x509.h>

#include "common/bytes.h"
#include "common/result.h"
#include "proxy/arena.h"
#include "proxy/certificates.h"

/* The most in one Certificate message that a key server reads. */
#define CHAIN_CERTIFICATES_MAX 32

struct chain_parser;

MUST_CHECK enum result chain_parser_new(struct chain_parser **parser, struct failure *why);
/* Shared by many tables; drop it after every certificate that it made. NULL is allowed. */
struct chain_parser *chain_parser_hold(struct chain_parser *parser);
void chain_parser_drop(struct chain_parser *parser);

/* A copy with one user, in the arena if there is one. NULL: no memory. */
struct certificate *certificate_copy(const struct certificate *certificate, struct arena *arena);

/* A chain, leaf first: all of *certificate but its index, with one user, in the arena if there is one.
 * RESULT_CONFIG, and why begins with path: what does not parse, issuers out of order, a key that we do not
 * serve, no name that can be served, a key or a signature that is too weak. Whether it is in its validity is
 * not looked at. ignored is told of names that are not used. */
MUST_CHECK enum result chain_parser_make(struct chain_parser *parser, struct arena *arena, const char *path,
                                         const struct bytes *chain, size_t count,
                                         void (*ignored)(const char *what, struct bytes name, void *owner),
                                         void *owner, struct certificate **certificate, struct failure *why);

#endif
