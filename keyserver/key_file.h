/*
 * One file with one private key: PEM or DER; PKCS#8, PKCS#1 or SEC1. A PEM file may hold certificates beside
 * the key; they are passed over.
 */
#ifndef KEYLESS_KEYSERVER_KEY_FILE_H
#define KEYLESS_KEYSERVER_KEY_FILE_H

#include <openssl/evp.h>

#include "common/result.h"

#define KEY_FILE_MAX (256u * 1024)

/* libcrypto's decoder for private keys. To make one takes twenty times as long as to decode a key with it, so
 * that one is used for all files. NULL: no memory. */
struct key_decoder;

struct key_decoder *key_decoder_new(void);
void key_decoder_free(struct key_decoder *decoder);

/*
 * RESULT_CONFIG, naming the file: cannot be opened, is not a regular file, may be used by its group or by
 * others, is too large, holds no private key or several, or one that is encrypted or damaged. What kind of
 * key it is, is not looked at.
 */
MUST_CHECK enum result key_file_read(struct key_decoder *decoder, const char *path, EVP_PKEY **key,
                                     struct failure *why);

#endif
