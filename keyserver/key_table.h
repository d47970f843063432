/*
 * What may be known about the keys outside the signer: identity and label, by ascending SKI. The signer makes
 * one from its key files; front ends get a copy of it over their link.
 */
#ifndef KEYLESS_KEYSERVER_KEY_TABLE_H
#define KEYLESS_KEYSERVER_KEY_TABLE_H

#include <stdbool.h>
#include <stddef.h>

#include "common/bytes.h"
#include "common/key_id.h"
#include "common/result.h"

#define KEY_LABEL_MAX   255
#define KEY_TABLE_LIMIT (1u << 18)

struct key_info {
    struct key_id id;
    char *label; /* the file's name without its suffix; not unique */
};

/* Zero is an empty table. Plain to read; changed only through the functions below. */
struct key_table {
    struct key_info *keys;
    size_t count, capacity;
};

/* Appends a copy. RESULT_LIMIT: too many keys, a label too long, or no memory. */
MUST_CHECK enum result key_table_add(struct key_table *table, const struct key_id *id, struct bytes label,
                                     struct failure *why);
/* Whether the SKIs ascend and none stands twice. */
bool key_table_is_sorted(const struct key_table *table);
/* Frees what it holds, not the table itself; for CLEANUP. */
void key_table_clear(struct key_table *table);

/* Cost classes: operations that take about as long as each other share a queue, so that none waits behind one
 * that takes ten times as long (an ECDSA P-256 signature 30 us, RSA-2048 400 us, RSA-4096 5 ms). */
enum key_class { KEY_CLASS_EC, KEY_CLASS_RSA, KEY_CLASS_RSA_LARGE, KEY_CLASSES };

enum key_class key_class_of(const struct key_id *id);
const char *key_class_name(enum key_class class); /* as in the settings: "ec", "rsa", "rsa_large" */

#define KEY_SKI_DIGITS    ((size_t)2 * KEY_ID_SKI_SIZE)
#define KEY_SKI_TEXT_SIZE (KEY_SKI_DIGITS + 1)

/* Lower-case hex; returns text. */
const char *key_ski_format(const uint8_t ski[static KEY_ID_SKI_SIZE], char text[static KEY_SKI_TEXT_SIZE]);

#endif
