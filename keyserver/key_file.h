/*
 * One file with one private key: PEM or DER; PKCS#8, PKCS#1 or SEC1. A PEM file may hold certificates beside
 * the key; they are passed over.
 */
#ifndef KEYLESS_KEYSERVER_KEY_FILE_H
#define KEYLESS_KEYSERVER_KEY_FILE_H

#include <openssl/evp.h>

#include "common/result.h"

#define KEY_FILE_MAX (256u * 1024)

/*
 * RESULT_CONFIG, naming the file: cannot be opened, is not a regular file, may be used by its group or by
 * others, is too large, holds no private key or several, or one that is encrypted or damaged. What kind of
 * key it is, is not looked at.
 */
MUST_CHECK enum result key_file_read(const char *path, EVP_PKEY **key, struct failure *why);

#endif
