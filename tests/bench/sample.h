/* A handshake to show: the messages ClientHello .. Certificate as a proxy sends them in operation 0x63,
 * of a client of today's with a site that has this chain; suite TLS_AES_128_GCM_SHA256. All handshakes are
 * the same but for the two randoms. */
#ifndef KEYLESS_BENCH_SAMPLE_H
#define KEYLESS_BENCH_SAMPLE_H

#include <stddef.h>
#include <stdint.h>

#include "common/bytes.h"
#include "common/result.h"
#include "common/tls_message.h"

#define SAMPLE_SEED_SIZE (2 * TLS_RANDOM_SIZE)
#define SAMPLE_HASH_SIZE 32

/* A plain value; zero it before sample_open. */
struct sample {
    uint8_t *messages;
    size_t size;
    size_t client_random, server_random; /* their places */
};

/* chain: a PEM file, the leaf first; sni: NULL for the leaf's first name. RESULT_CONFIG: no certificate, or
 * no name in it. */
MUST_CHECK enum result sample_open(struct sample *sample, const char *chain, const char *sni,
                                   struct failure *why);
void sample_close(struct sample *sample);

/* Appends the messages of the handshake with these randoms. */
void sample_write(const struct sample *sample, const uint8_t seed[static SAMPLE_SEED_SIZE],
                  struct writer *to);
/* Its hash, as both ends of that handshake have it. */
MUST_CHECK bool sample_hash(const struct sample *sample, const uint8_t seed[static SAMPLE_SEED_SIZE],
                            uint8_t hash[static SAMPLE_HASH_SIZE]);

#endif
