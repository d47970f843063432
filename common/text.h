/*
 * Text from outside (names, reasons, file contents) made harmless before anybody sees it, in logs, metrics
 * and at the admin endpoint. Control characters, characters that hide or reorder text, backslashes and octets
 * that are no UTF-8 become \xNN, octet by octet, so that what a reader decodes can drive no terminal and a
 * backslash in it always begins such an escape.
 */
#ifndef KEYLESS_COMMON_TEXT_H
#define KEYLESS_COMMON_TEXT_H

#include <stddef.h>

#include "common/bytes.h"

struct evbuffer;

/* Octets of the character in front if it can be shown as it is; 0: its first octet must be escaped. */
size_t text_harmless_size(struct bytes text);

/* Appends it as one line without quotes. */
void text_write_plain(struct evbuffer *to, struct bytes text);
/* Appends it as a quoted string, which is one to JSON and to Prometheus's labels alike. */
void text_write_quoted(struct evbuffer *to, struct bytes text);

#endif
